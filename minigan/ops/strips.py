"""Floor 2: the three products of a convolution on the CPU, a row of the kernel at a time.

`conv` makes columns of whole windows, KH·KW times the image. Here windows are cut out of single
lines of the image: a *strip* is KW pixels side by side, there are only KW times as many numbers in
them, and results above each other share them. A row of the kernel times the strips that it meets
is one product, and a result is the sum of KH of them, which BLAS adds up by itself (`add_product`).
A row of the kernel that lies over the padding meets no strip, so nothing is multiplied by its
zeros: at 4×4 pixels that is an eighth of the work.

It pays where a strip is long enough for a product (`is_long`). Groups are left to `conv`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from minigan.backend import Backend
from minigan.ops.windows import Geometry, Piece, landing
from minigan.workers import PIECE_WORK, PIECES, cut

LONG = 64  # numbers in a strip; with fewer, adding up costs more than columns do
MANY = 512  # pixels of results; a product with fewer reads the weight for too little


def is_long(g: Geometry, channels: int) -> bool:
    """Whether images of so many channels are better convolved strip by strip."""
    return g.groups == 1 and g.kernel[1] * channels >= LONG


def convolve(backend: Backend, x: Any, w: Any, g: Geometry, y: Any, bias: Any = None) -> None:
    """Write into y (N, OH, OW, O), any view, the convolution of x (N, H, W, C) with the weight."""
    g, w = trimmed(g, w, x.shape[2], y.shape[2])
    kernel_rows = [matrix(row) for row in w]  # (KW·C, O) each

    def piece(some):
        strips = cut_strips(backend, x, g, some, y.shape[2])
        out = lines_first(backend, y[some], copied=False)  # (oh, n, OW, O)
        out[...] = 0 if bias is None else bias
        for i, seen, phase, met in meetings(g, some[1], x.shape[1]):
            backend.add_product(matrix(strips[phase, met]), kernel_rows[i], matrix(out[seen]))
        y[some] = out.swapaxes(0, 1)

    backend.each(piece, strip_pieces(backend, g, w, y))


def correlate(backend: Backend, x: Any, y: Any, g: Geometry) -> Any:
    """Return the weight (KH, KW, C, O) of which each number is a sum over pixels of x · y."""
    w = backend.xp.zeros((*g.kernel, x.shape[3], y.shape[3]), dtype=x.dtype)
    g, seen_part = trimmed(g, w, x.shape[2], y.shape[2])
    pieces = strip_pieces(backend, g, seen_part, y)
    lanes = list(cut(len(pieces), PIECES))  # each sums some pieces in turn, the first in place
    others = backend.xp.zeros((max(0, len(lanes) - 1), *seen_part.shape), dtype=x.dtype)
    totals = [seen_part, *others]

    def lane(i):
        for some in pieces[lanes[i]]:
            strips = cut_strips(backend, x, g, some, y.shape[2])
            pixels = lines_first(backend, y[some])  # (oh, n, OW, O)
            for k, seen, phase, met in meetings(g, some[1], x.shape[1]):
                columns = matrix(strips[phase, met]).T  # (KW·C, M)
                backend.add_product(columns, matrix(pixels[seen]), matrix(totals[i][k]))

    backend.each(lane, range(len(lanes)))
    for part in others:
        seen_part += part
    return w


def scatter(
    backend: Backend, y: Any, w: Any, g: Geometry, shape: tuple[int, ...], bias: Any = None
) -> Any:
    """Return images of this shape: y's pixels times the weight, added up strip by strip."""
    x = backend.xp.empty(shape, dtype=y.dtype)
    g, w = trimmed(g, w, shape[2], y.shape[2])
    kernel_rows = [matrix(row) for row in w]  # (KW·C, O) each
    lanes: dict[int, list] = {}  # strips of one image overlap: its pieces come one by one
    for some in strip_pieces(backend, g, w, y):
        lanes.setdefault(some[0].start, []).append(some)

    def lane(pieces):
        x[pieces[0][0]] = 0 if bias is None else bias
        for some in pieces:
            pixels = lines_first(backend, y[some])  # (oh, n, OW, O)
            strips = empty_strips(backend, x[some[0]], g, some[1], y.shape[2])
            strips[...] = 0
            for i, seen, phase, met in meetings(g, some[1], shape[1]):
                columns = matrix(strips[phase, met])  # (M, KW·C)
                backend.add_product(matrix(pixels[seen]), kernel_rows[i].T, columns)
            add_strips(strips, x[some[0]], g, some[1])

    backend.each(lane, lanes.values())
    return x


def strip_pieces(backend: Backend, g: Geometry, w: Any, y: Any) -> list[Piece]:
    """Cut results y (N, OH, OW, O): strips of a piece stay in the cache, products are large."""
    n, height, across, _ = y.shape
    pixels = n * height * across
    size = pixels * min(g.stride[0], g.kernel[0]) * w.shape[1] * w.shape[2] * y.itemsize
    count = max(1, min(PIECES, max(2, pixels // MANY), pixels * w.size // PIECE_WORK))
    if size > count * backend.column_bytes:
        count = -(-size // backend.column_bytes // PIECES) * PIECES
    images = list(cut(n, count))
    return [(some, rows) for some in images for rows in cut(height, -(-count // max(1, n)))]


def meetings(g: Geometry, rows: slice, height: int) -> Iterator[tuple[int, slice, int, slice]]:
    """Yield which strips each row of the kernel meets, for some rows of results.

    It is (row of the kernel, rows of results from the first of `rows` on, phase, strips): strips
    `stride` lines apart are of one phase, and lie side by side in `cut_strips`.
    """
    stride = g.stride[0]
    first = first_line(g, rows) // stride
    for i in range(g.kernel[0]):
        seen, lines = landing(rows.stop, height, stride, i * g.dilation[0] - g.padding[0])
        skipped = max(0, rows.start - seen.start)
        start = seen.start + skipped
        if start < seen.stop:
            line, phase = divmod(lines.start + skipped * stride, stride)
            met = slice(line - first, line - first + seen.stop - start)
            yield i, slice(start - rows.start, seen.stop - rows.start), phase, met


def first_line(g: Geometry, rows: slice) -> int:
    """Return the first line of the image that these rows of results may see; of phase 0."""
    return max(0, rows.start * g.stride[0] - g.padding[0]) // g.stride[0] * g.stride[0]


def empty_strips(backend: Backend, x: Any, g: Geometry, rows: slice, across: int) -> Any:
    """Return a buffer (S, R, n, OW, KW, C): of S phases, all the strips that these rows see."""
    n, height, _, c = x.shape
    stride, first = g.stride[0], first_line(g, rows)
    last = min(height, (rows.stop - 1) * stride - g.padding[0] + g.span()[0])
    lines = max(0, -(-(last - first) // stride))
    return backend.scratch("strips", (stride, lines, n, across, g.kernel[1], c), x.dtype)


def cut_strips(backend: Backend, x: Any, g: Geometry, piece: Piece, across: int) -> Any:
    """Return all strips that a piece of the results sees, (S, R, n, OW, KW, C), in a buffer.

    What of the last lines is beyond the image is left as it was: nobody meets it.
    """
    x = x[piece[0]]
    strips = empty_strips(backend, x, g, piece[1], across)
    kw, stride, step, pad = g.kernel[1], g.stride[1], g.dilation[1], g.padding[1]
    width = x.shape[2]
    inside, _ = landing(across, width - (kw - 1) * step, stride, -pad)  # they see no padding
    edges = [*range(min(inside.start, across)), *range(max(inside.start, inside.stop), across)]
    for part, lines in by_phase(strips, x, g, piece[1]):
        if inside.start < inside.stop:
            start, count = inside.start * stride - pad, inside.stop - inside.start
            part[..., inside, :, :] = side_by_side(
                backend.xp, lines[..., start:, :], count, kw, stride, step
            )
        for o in edges:
            taps, columns = landing(kw, width, step, o * stride - pad)
            part[..., o, :, :] = 0
            part[..., o, taps, :] = lines[..., columns, :]
    return strips


def add_strips(strips: Any, x: Any, g: Geometry, rows: slice) -> None:
    """Add strips to the images that they were cut from."""
    for part, lines in by_phase(strips, x, g, rows):
        for j in range(g.kernel[1]):
            offset = j * g.dilation[1] - g.padding[1]
            windows, columns = landing(strips.shape[3], x.shape[2], g.stride[1], offset)
            lines[..., columns, :] += part[..., windows, j, :]


def by_phase(strips: Any, x: Any, g: Geometry, rows: slice) -> Iterator[tuple[Any, Any]]:
    """Yield strips (..., R, n, OW, KW, C) with the lines (..., R, n, W, C) they belong to.

    All phases at once where they have as many lines each, else one after the other.
    """
    (stride, count), first = strips.shape[:2], first_line(g, rows)
    n, height, width, c = x.shape
    if first + stride * count <= height:
        lines = x[:, first : first + stride * count].reshape(n, count, stride, width, c)
        yield strips, lines.transpose(2, 1, 0, 3, 4)
    else:
        for phase, part in enumerate(strips):
            lines = x[:, first + phase :: stride].swapaxes(0, 1)[:count]
            yield part[: len(lines)], lines


def side_by_side(xp: Any, lines: Any, count: int, kw: int, stride: int, step: int) -> Any:
    """Return lines (..., W, C) as so many windows of kw pixels, (..., count, kw, C): a view."""
    *outer, pixel, channel = lines.strides
    return xp.lib.stride_tricks.as_strided(
        lines,
        (*lines.shape[:-2], count, kw, lines.shape[-1]),
        (*outer, pixel * stride, pixel * step, channel),
    )


def trimmed(g: Geometry, w: Any, width: int, across: int) -> tuple[Geometry, Any]:
    """Leave out the columns of the kernel that see nothing but padding, in every window."""
    offsets = [j * g.dilation[1] - g.padding[1] for j in range(g.kernel[1])]
    met = [landing(across, width, g.stride[1], offset)[0] for offset in offsets]
    seen = [j for j, windows in enumerate(met) if windows.start < windows.stop] or [0]
    first, last = seen[0], seen[-1]
    kernel, padding = (g.kernel[0], last + 1 - first), (g.padding[0], -offsets[first])
    return replace(g, kernel=kernel, padding=padding), w[:, first : last + 1]


def lines_first(backend: Backend, y: Any, copied: bool = True) -> Any:
    """Return y (n, oh, OW, O) as (oh, n, OW, O), in a buffer."""
    lines = y.swapaxes(0, 1)
    buffer = backend.scratch("lines", lines.shape, y.dtype)
    if copied:
        buffer[...] = lines
    return buffer


def matrix(a: Any) -> Any:
    """Return pixels (..., O) or weights (KW, C, O) as (M, O), and strips as (M, KW·C)."""
    pixels = a.shape[:3] if a.ndim == 5 else a.shape[:-1]
    return a.reshape(math.prod(pixels), math.prod(a.shape[len(pixels) :]))
