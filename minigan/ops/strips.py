"""Floor 2: the three products of a convolution on the CPU, a row of the kernel at a time.

`conv` makes columns of whole windows, KH·KW times the image. Here windows are cut out of single
lines of the image: a *strip* is some pixels side by side, for a plain convolution KW of them; there
are only KW times as many numbers in them, and results above each other share them. A row of the
kernel times the strips that it meets is one product, and a result is the sum of KH of them, which
BLAS adds up by itself (`add_products`). A row of the kernel that lies over the padding meets no
strip, so nothing is multiplied by its zeros: at 4×4 pixels that is an eighth of the work.

Along the line neighbouring results are made with fewer products where a scheme of `winograd` fits:
its taps are then parts of the row of the kernel, KW/2 to KW/4 pixels long, and so are the strips.

It pays where a strip is long enough for a product (`is_long`). Groups are left to `conv`. Few
pixels are cut in another way, in `few`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from minigan.backend import Backend
from minigan.ops import few
from minigan.ops.lines import (
    add_strips,
    cut_strips,
    empty_strips,
    matrix,
    parts,
    stack,
    trimmed,
)
from minigan.ops.windows import Geometry, Piece
from minigan.ops.winograd import PLAIN, Scheme, Tiling, added_up, tiling_for
from minigan.workers import PIECE_WORK, PIECES, cut

LONG = 64  # numbers in a strip; with fewer, adding up costs more than columns do
MANY = 512  # pixels of results; a product with fewer reads the weight for too little


def is_long(g: Geometry, channels: int) -> bool:
    """Whether images of so many channels are better convolved strip by strip."""
    return g.groups == 1 and g.kernel[1] * channels >= LONG


def convolve(backend: Backend, x: Any, w: Any, g: Geometry, y: Any, bias: Any = None) -> None:
    """Write into y (N, OH, OW, O), any view, the convolution of x (N, H, W, C) with the weight."""
    if few.is_few(y, g):
        return few.convolve(backend, x, w, g, y, bias)
    g, w = trimmed(g, w, x.shape[2], y.shape[2])
    tiling = tiling_for(g, x.shape[3], y.shape)
    scheme = tiling.scheme
    taps = sums_of_taps(backend, w, scheme)

    def piece(some):
        strips = cut_strips(backend, x, g, some, tiling)
        out, in_place = lines_first(backend, y[some], tiling)
        shared = shared_buffer(backend, out, scheme)
        results = matrices(backend, shared, out, scheme)
        factors = strip_matrices(backend, strips, scheme), taps, results
        met = parts(g, tiling, strips.shape, some[1], x.shape[1])
        for i, buffer in enumerate(shared if scheme.shared else [out]):
            buffer[...] = 0 if i or bias is None else bias
        if scheme.shared:
            first = tuple(part for part in met if part.product < len(scheme.shared))
            backend.add_products("results", *factors, first, scheme.scales)
            spread(backend.xp, shared, out, scheme)
            met = met[len(first) :]
        backend.add_products("results", *factors, met, scheme.scales)
        if not in_place:
            for of_y, of_out in rounds(y[some], out):
                of_y[...] = of_out

    backend.each(piece, strip_pieces(backend, g, tiling, w, y))


def correlate(backend: Backend, x: Any, y: Any, g: Geometry) -> Any:
    """Return the weight (KH, KW, C, O) of which each number is a sum over pixels of x · y."""
    if few.is_few(y, g):
        return few.correlate(backend, x, y, g)
    w = backend.xp.empty((*g.kernel, x.shape[3], y.shape[3]), dtype=x.dtype)
    g, seen_part = trimmed(g, w, x.shape[2], y.shape[2])
    tiling = tiling_for(g, x.shape[3], y.shape)
    scheme = tiling.scheme
    pieces = strip_pieces(backend, g, tiling, seen_part, y)
    lanes = list(cut(len(pieces), PIECES))  # each sums some pieces in turn, the first in place
    others = backend.xp.empty((max(0, len(lanes) - 1), *seen_part.shape), dtype=x.dtype)
    sums = [seen_part, *others]
    if not lanes or seen_part.shape != w.shape:
        w[...] = 0

    def lane(i):
        taps = in_taps(sums[i], scheme)  # (taps, KH, KW/taps, C, O)
        totals = taps
        if scheme is not PLAIN:
            totals = backend.scratch("totals", (len(scheme.products), *taps.shape[1:]), x.dtype)
        totals[...] = 0
        weights = [backend.matrix(stack(total)) for total in totals]
        for some in pieces[lanes[i]]:
            strips = cut_strips(backend, x, g, some, tiling)
            results = gathered(backend, y[some], tiling)
            factors = strip_matrices(backend, strips, scheme), weights, results
            met = parts(g, tiling, strips.shape, some[1], x.shape[1])
            backend.add_products("weights", *factors, met, scheme.scales)
        if scheme is not PLAIN:
            for j, tap in enumerate(taps):
                added_up(backend.xp, [p.taps[j] for p in scheme.products], totals, tap)

    backend.each(lane, range(len(lanes)))
    for part in others:
        seen_part += part
    return w


def scatter(
    backend: Backend, y: Any, w: Any, g: Geometry, shape: tuple[int, ...], bias: Any = None
) -> Any:
    """Return images of this shape: y's pixels times the weight, added up strip by strip."""
    if few.is_few(y, g):
        return few.scatter(backend, y, w, g, shape, bias)
    x = backend.xp.empty(shape, dtype=y.dtype)
    g, w = trimmed(g, w, shape[2], y.shape[2])
    tiling = tiling_for(g, shape[3], y.shape)
    scheme = tiling.scheme
    taps = sums_of_taps(backend, w, scheme)
    lanes: dict[int, list] = {}  # strips of one image overlap: its pieces come one by one
    for some in strip_pieces(backend, g, tiling, w, y):
        lanes.setdefault(some[0].start, []).append(some)

    def lane(pieces):
        is_first = len(pieces) == 1 and bias is None and scheme is not PLAIN
        if not is_first:
            x[pieces[0][0]] = 0 if bias is None else bias
        for some in pieces:
            results = gathered(backend, y[some], tiling)
            strips = empty_strips(backend, x[some[0]], g, some[1], tiling)
            strips[...] = 0
            factors = strip_matrices(backend, strips, scheme), taps, results
            met = parts(g, tiling, strips.shape, some[1], shape[1])
            backend.add_products("strips", *factors, met, scheme.scales)
            add_strips(backend, strips, x[some[0]], g, some[1], tiling, is_first)

    backend.each(lane, lanes.values())
    return x


def strip_pieces(backend: Backend, g: Geometry, tiling: Tiling, w: Any, y: Any) -> list[Piece]:
    """Cut results y (N, OH, OW, O): strips of a piece stay in the cache, products are large."""
    n, height, across, _ = y.shape
    pixels = n * height * across
    strip = (1 + len(tiling.scheme.lines)) * tiling.pixels * w.shape[2]  # numbers for each result
    size = pixels * min(g.stride[0], g.kernel[0]) * strip * y.itemsize
    work = pixels * w.size
    count = max(1, min(PIECES, max(2, pixels // MANY), work // PIECE_WORK))
    if tiling.scheme is not PLAIN:  # more to do for each piece, and products are shorter
        count = min(count, max(2, work // (tiling.scheme.results**2 * PIECE_WORK)))
    if count == 3:  # of which one of two workers would have two
        count = 2
    limit = backend.column_bytes * tiling.scheme.results  # a scheme's products are shorter
    if size > count * limit:
        count = -(-size // limit // PIECES) * PIECES
    images = list(cut(n, count))
    return [(some, rows) for some in images for rows in cut(height, -(-count // max(1, n)))]


def strip_matrices(backend: Backend, strips: Any, scheme: Scheme) -> list:
    """Return for each product the matrix (M, pixels·C) of the strips that it may see."""
    *outer, pixels, c = strips.shape[1:]
    rows = strips.reshape(len(strips), math.prod(outer), pixels * c)
    return [
        backend.matrix(rows[product.line][product.place :: scheme.results])
        for product in scheme.products
    ]


def matrices(backend: Backend, shared: Any, out: Any, scheme: Scheme) -> list:
    """Return for each product the matrix (M, O) of its results: of every second, say."""
    rows = matrix(out)
    return [backend.matrix(matrix(array)) for array in shared] + [
        backend.matrix(rows[product.results.index(1) :: scheme.results]) for product in scheme.own
    ]


def lines_first(backend: Backend, y: Any, tiling: Tiling) -> tuple[Any, bool]:
    """Return a place for results y (n, oh, OW, O), as (oh, n, hop, across, O), and if it is y."""
    n, oh, ow, o = y.shape
    if (n, tiling.hop, tiling.across) == (1, 1, ow) and y.flags.c_contiguous:
        return y.reshape(oh, 1, 1, ow, o), True
    return backend.scratch("lines", (oh, n, tiling.hop, tiling.across, o), y.dtype), False


def rounds(y: Any, out: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what belongs together of results y (n, oh, OW, O) and out (oh, n, hop, across, O)."""
    hop = out.shape[2]
    for first in range(min(hop, y.shape[2])):
        some = y[:, :, first::hop]
        yield some, out[:, :, first, : some.shape[2]].swapaxes(0, 1)


def shared_buffer(backend: Backend, out: Any, scheme: Scheme) -> Any:
    """Return a buffer for the results (oh, n, hop, across, O) of products that neighbours share."""
    *outer, across, o = out.shape
    shape = (len(scheme.shared), *outer, across // scheme.results, o)
    return backend.scratch("shared", shape, out.dtype)


def neighbours(out: Any, scheme: Scheme) -> list:
    """Return for each place in a group of neighbours the results of (..., across, O) there."""
    return [out[..., place :: scheme.results, :] for place in range(scheme.results)]


def spread(xp: Any, shared: Any, out: Any, scheme: Scheme) -> None:
    """Set the results to what the shared products add to each."""
    for place, results in enumerate(neighbours(out, scheme)):
        added_up(xp, [product.results[place] for product in scheme.shared], shared, results)


def gathered(backend: Backend, y: Any, tiling: Tiling) -> list:
    """Return the matrices of results y (n, oh, OW, O), as each product is to see them."""
    out, in_place = lines_first(backend, y, tiling)
    if not in_place:
        if tiling.hop * tiling.across > y.shape[2]:
            out[...] = 0
        for of_y, of_out in rounds(y, out):
            of_out[...] = of_y
    scheme = tiling.scheme
    shared = shared_buffer(backend, out, scheme)
    for product, array in zip(scheme.shared, shared, strict=True):
        added_up(backend.xp, product.results, neighbours(out, scheme), array)
    return matrices(backend, shared, out, scheme)


def in_taps(w: Any, scheme: Scheme) -> Any:
    """Return a weight (KH, KW, C, O) by the taps of a scheme, (taps, KH, KW/taps, C, O): a view."""
    kh, kw, c, o = w.shape
    return w.reshape(kh, scheme.taps, kw // scheme.taps, c, o).swapaxes(0, 1)


def sums_of_taps(backend: Backend, w: Any, scheme: Scheme) -> list:
    """Return for each product the matrices of the rows of the kernel, (KH, KW/taps·C, O)."""
    taps = in_taps(w, scheme)
    sums = [added_up(backend.xp, product.taps, taps) for product in scheme.products]
    return [backend.matrix(stack(total)) for total in sums]
