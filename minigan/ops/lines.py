"""Floor 2: strips, which are cut out of the lines of images, and added back to them.

A strip is some pixels side by side, all that a row of a kernel sees at one place. Where strips lie
side by side themselves, as those of a scheme do (`winograd`), they are just the line.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from minigan.backend import Backend
from minigan.gemm import Part, Products
from minigan.ops.windows import Geometry, Piece, landing
from minigan.ops.winograd import PLAIN, Lines, Tiling, add_or_subtract


def cut_strips(backend: Backend, x: Any, g: Geometry, piece: Piece, tiling: Tiling) -> Any:
    """Return all strips that a piece of the results sees, in a buffer, as `empty_strips`.

    Lines of a phase that are beyond the image are left as they were: nobody meets them.
    """
    x = x[piece[0]]
    strips = empty_strips(backend, x, g, piece[1], tiling)
    for part, lines in by_phase(strips, x, g, piece[1]):
        if tiling.scheme is PLAIN:
            cut_windows(part[0, ..., 0, :, :, :], lines, g)
        else:
            cut_lines(backend.xp, part, lines, g, tiling)
    return strips


def add_strips(
    backend: Backend, strips: Any, x: Any, g: Geometry, rows: slice, tiling: Tiling, is_first: bool
) -> None:
    """Add strips to the images that they were cut from; a scheme's, if the first, are put there.

    The strips are used up.
    """
    for part, lines in by_phase(strips, x, g, rows):
        if tiling.scheme is PLAIN:
            add_windows(part[0, ..., 0, :, :, :], lines, g)
        else:
            add_lines(backend.xp, part, lines, g, tiling, is_first)
    if is_first:
        x[:, math.prod(strips.shape[1:3]) :] = 0


def empty_strips(backend: Backend, x: Any, g: Geometry, rows: slice, tiling: Tiling) -> Any:
    """Return a buffer (L, S, R, n, hop, across, pixels, C): the strips of L lines, in S phases."""
    n, height, _, c = x.shape
    stride, first = g.stride[0], first_line(g, rows)
    last = min(height, (rows.stop - 1) * stride - g.padding[0] + g.span()[0])
    lines = max(0, -(-(last - first) // stride))
    of_line = (tiling.hop, tiling.across, tiling.pixels, c)
    shape = (tiling.scheme.line_count, stride, lines, n, *of_line)
    return backend.scratch("strips", shape, x.dtype)


def first_line(g: Geometry, rows: slice) -> int:
    """Return the first line of the image that these rows of results may see; of phase 0."""
    return max(0, rows.start * g.stride[0] - g.padding[0]) // g.stride[0] * g.stride[0]


def by_phase(strips: Any, x: Any, g: Geometry, rows: slice) -> Iterator[tuple[Any, Any]]:
    """Yield strips (L, ..., R, n, hop, across, pixels, C) with the lines (..., R, n, W, C).

    All phases at once where they have as many lines each, else one after the other.
    """
    (stride, count), first = strips.shape[1:3], first_line(g, rows)
    n, height, width, c = x.shape
    if first + stride * count <= height:
        lines = x[:, first : first + stride * count].reshape(n, count, stride, width, c)
        yield strips, lines.transpose(2, 1, 0, 3, 4)
    else:
        for phase in range(stride):
            lines = x[:, first + phase :: stride].swapaxes(0, 1)[:count]
            yield strips[:, phase, : len(lines)], lines


def cut_windows(part: Any, lines: Any, g: Geometry) -> None:
    """Copy into strips (..., OW, KW, C) the windows of the lines (..., W, C)."""
    (across, kw), width = part.shape[-3:-1], lines.shape[-2]
    stride, step, pad = g.stride[1], g.dilation[1], g.padding[1]
    inside, _ = landing(across, width - (kw - 1) * step, stride, -pad)  # they see no padding
    if inside.start < inside.stop:
        start, count = inside.start * stride - pad, inside.stop - inside.start
        part[..., inside, :, :] = side_by_side(lines[..., start:, :], count, kw, stride, step)
    for o in (*range(min(inside.start, across)), *range(max(inside.start, inside.stop), across)):
        taps, columns = landing(kw, width, step, o * stride - pad)
        part[..., o, :, :] = 0
        part[..., o, taps, :] = lines[..., columns, :]


def add_windows(part: Any, lines: Any, g: Geometry) -> None:
    """Add strips (..., OW, KW, C) to the lines (..., W, C)."""
    for j in range(part.shape[-2]):
        offset = j * g.dilation[1] - g.padding[1]
        windows, columns = landing(part.shape[-3], lines.shape[-2], g.stride[1], offset)
        lines[..., columns, :] += part[..., windows, j, :]


def cut_lines(xp: Any, part: Any, lines: Any, g: Geometry, tiling: Tiling) -> None:
    """Cut strips (L, ..., hop, across, pixels, C) side by side, and make the scheme's lines.

    These are made of all lines (..., W, C) at once, as of one long row of numbers. That is wrong
    where a line ends and meets the start of the next; what belongs there is put there afterwards.
    """
    made = as_lines(part)  # (L, ..., hop, W', C)
    (hop, length, c), width = made.shape[-3:], lines.shape[-2]
    offsets = [first * g.stride[1] - g.padding[1] for first in range(hop)]
    for first, offset in enumerate(offsets):
        line, (taken, columns) = made[0, ..., first, :, :], landing(length, width, 1, offset)
        line[..., : taken.start, :] = 0
        line[..., taken, :] = lines[..., columns, :]
        if taken.stop < length:
            line[..., taken.stop :, :] = 0
    for step in tiling.scheme.lines:
        ahead = step.further * tiling.pixels
        source, target = made[step.of], made[step.made]
        rows, sums = (a.reshape(len(a), -1) for a in (source, target))
        add_or_subtract(xp, step.sign)(
            rows[:, : -ahead * c], rows[:, ahead * c :], out=sums[:, : -ahead * c]
        )
        target[..., length - ahead :, :] = source[..., length - ahead :, :]
        for end, pixels, sign in beyond(target, lines, offsets, step, tiling):
            add_or_subtract(xp, sign)(end, pixels, out=end)


def add_lines(xp: Any, part: Any, lines: Any, g: Geometry, tiling: Tiling, is_first: bool) -> None:
    """Add to lines (..., W, C) the strips that `cut_lines` cuts; set them to these, if the first.

    The strips are used up.
    """
    made = as_lines(part)  # (L, ..., hop, W', C)
    (hop, length, c), width = made.shape[-3:], lines.shape[-2]
    offsets = [first * g.stride[1] - g.padding[1] for first in range(hop)]
    if is_first:
        _, columns = landing(length, width, 1, offsets[0])
        lines[..., columns.stop :, :] = 0  # before it there is none: padding is not negative
    for step in reversed(tiling.scheme.lines):
        ahead = step.further * tiling.pixels
        source, target = made[step.of], made[step.made]
        rows, sums = (a.reshape(len(a), -1) for a in (source, target))
        source += target
        for end, pixels, sign in beyond(target, lines, offsets, step, tiling):
            add_or_subtract(xp, sign)(pixels, end, out=pixels)
        target[..., length - ahead :, :] = 0  # else it would be added to the start of the next line
        rows = rows[:, ahead * c :]
        add_or_subtract(xp, step.sign)(rows, sums[:, : -ahead * c], out=rows)
    for first, offset in enumerate(offsets):
        given, columns = landing(length, width, 1, offset)
        pixels = lines[..., columns, :]
        if is_first and first == 0:
            pixels[...] = made[0, ..., first, given, :]
        else:
            pixels += made[0, ..., first, given, :]


def beyond(
    made: Any, lines: Any, offsets: list[int], step: Lines, tiling: Tiling
) -> Iterator[tuple[Any, Any, int]]:
    """Yield parts of the ends of lines (L, ..., hop, W', C) with the pixels beyond that they add.

    These are pixels of the image's lines (..., W, C), each with its sign.
    """
    length, ahead = made.shape[-2], step.further * tiling.pixels
    for line, terms in zip(made, tiling.scheme.terms[step.of], strict=True):
        for further, sign in terms:
            for first, offset in enumerate(offsets):
                start = length + offset + further * tiling.pixels
                taken, columns = landing(ahead, lines.shape[-2], 1, start)
                if taken.start < taken.stop:
                    end = line[..., length - ahead :, :][..., first, taken, :]
                    yield end, lines[..., columns, :], step.sign * sign


def as_lines(part: Any) -> Any:
    """Return strips (..., across, pixels, C) that lie side by side as lines (..., W', C)."""
    *outer, across, pixels, c = part.shape
    return part.reshape(*outer, across * pixels, c)


def side_by_side(lines: Any, count: int, size: int, stride: int, step: int) -> Any:
    """Return lines (..., W, C) as so many strips of pixels, (..., count, size, C): a view."""
    *outer, pixel, channel = lines.strides
    return np.lib.stride_tricks.as_strided(
        lines,
        (*lines.shape[:-2], count, size, lines.shape[-1]),
        (*outer, pixel * stride, pixel * step, channel),
    )


def trimmed(g: Geometry, w: Any, width: int, across: int) -> tuple[Geometry, Any]:
    """Leave out the columns of the kernel that see nothing but padding, in every window."""
    g, columns = _trimmed(g, width, across)
    return g, w[:, columns]


@functools.lru_cache(maxsize=1024)
def _trimmed(g: Geometry, width: int, across: int) -> tuple[Geometry, slice]:
    offsets = [j * g.dilation[1] - g.padding[1] for j in range(g.kernel[1])]
    met = [landing(across, width, g.stride[1], offset)[0] for offset in offsets]
    seen = [j for j, windows in enumerate(met) if windows.start < windows.stop] or [0]
    first, last = seen[0], seen[-1]
    kernel, padding = (g.kernel[0], last + 1 - first), (g.padding[0], -offsets[first])
    return replace(g, kernel=kernel, padding=padding), slice(first, last + 1)


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


def parts(
    g: Geometry, tiling: Tiling, strips: tuple[int, ...], rows: slice, height: int
) -> Products:
    """Return what is multiplied in a piece: first the row of the kernel that most results meet.

    `strips` is their shape, (L, S, R, n, hop, across, pixels, C), and `height` the image's. The
    results are planes (*grid, oh, n, hop, groups, O), one for each product of the scheme.
    """
    return _parts(g, tiling, *strips[2:4], rows.start, rows.stop, height)


@functools.lru_cache(maxsize=1024)
def _parts(
    g: Geometry, tiling: Tiling, lines: int, n: int, start: int, stop: int, height: int
) -> Products:
    scheme, of_line = tiling.scheme, n * tiling.hop * tiling.across  # strips
    of_lines, per_line = g.stride[0] * lines * of_line, of_line // scheme.results
    met = sorted(meetings(g, slice(start, stop), height), key=lambda m: m[1].start - m[1].stop)
    found = []
    for i, product in enumerate(scheme.products):
        plane = i * (stop - start) * per_line
        for row, seen, phase, some in met:
            strip = product.line * of_lines + (phase * lines + some.start) * of_line + product.place
            result, count = plane + seen.start * per_line, (seen.stop - seen.start) * per_line
            found.append(Part(i, row, strip, result, count))
    return Products(tuple(found), scheme.scales, scheme.results)


def matrix(a: Any) -> Any:
    """Return pixels (..., O) as a matrix (M, O)."""
    return a.reshape(math.prod(a.shape[:-1]), a.shape[-1])


def stack(weight: Any) -> Any:
    """Return a weight (KH, KW, C, O) as matrices (KH, KW·C, O)."""
    kh, kw, c, o = weight.shape
    return weight.reshape(kh, kw * c, o)
