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

import numpy as np

from minigan.backend import Backend
from minigan.ops import down, few
from minigan.ops.lines import (
    add_strips,
    cut_strips,
    empty_strips,
    matrix,
    parts,
    stack,
    trimmed,
)
from minigan.ops.windows import Geometry, Piece, by_images
from minigan.ops.winograd import (
    PLAIN,
    Scheme,
    Tiling,
    add_up_shared,
    added_up,
    share_out,
    sums_of_taps,
    tiling_for,
)
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
    if down.suits(g, x.shape, y.shape):
        return down.convolve(backend, x, w, g, y, bias)
    g, w = trimmed(g, w, x.shape[2], y.shape[2])
    tiling = tiling_for(g, x.shape[3], y.shape)
    scheme = tiling.scheme
    taps = matrices_of_taps(backend, w, scheme)

    def piece(some):
        strips = cut_strips(backend, x, g, some, tiling)
        planes, in_place = result_planes(backend, y[some], tiling)
        products = parts(g, tiling, strips.shape, some[1], x.shape[1])
        # The first part is the longest. Where it is a whole plane, nothing need be there before.
        longest = products.parts[0].rows if products.parts else 0
        fresh = bias is None and longest == math.prod(planes.shape[-5:-1])
        if not fresh:
            planes[...] = 0
            if bias is not None:
                planes[scheme.own] = bias
        factors = strip_matrix(backend, strips), taps, backend.matrix(matrix(planes))
        backend.add_products("results", *factors, products, fresh)
        if not in_place:
            put_together(backend.xp, planes, y[some], tiling)

    backend.each(piece, strip_pieces(backend, g, tiling, w, y))


def correlate(backend: Backend, x: Any, y: Any, g: Geometry) -> Any:
    """Return the weight (KH, KW, C, O) of which each number is a sum over pixels of x · y."""
    if few.is_few(y, g):
        return few.correlate(backend, x, y, g)
    if down.suits(g, x.shape, y.shape):
        return down.correlate(backend, x, y, g)
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
        weights = [backend.matrix(stack(total)) for total in totals]
        for number, some in enumerate(pieces[lanes[i]]):
            strips = cut_strips(backend, x, g, some, tiling)
            results = gathered(backend, y[some], tiling)
            products = parts(g, tiling, strips.shape, some[1], x.shape[1])
            fresh = number == 0 and len(products.parts) == len(totals) * g.kernel[0]
            if number == 0 and not fresh:
                totals[...] = 0
            factors = strip_matrix(backend, strips), weights, results
            backend.add_products("weights", *factors, products, fresh)
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
    taps = matrices_of_taps(backend, w, scheme)
    lanes = by_images(strip_pieces(backend, g, tiling, w, y))

    def lane(pieces):
        is_first = len(pieces) == 1 and bias is None and scheme is not PLAIN
        if not is_first:
            x[pieces[0][0]] = 0 if bias is None else bias
        for some in pieces:
            results = gathered(backend, y[some], tiling)
            strips = empty_strips(backend, x[some[0]], g, some[1], tiling)
            strips[...] = 0
            products = parts(g, tiling, strips.shape, some[1], shape[1])
            factors = strip_matrix(backend, strips), taps, results
            backend.add_products("strips", *factors, products)
            add_strips(backend, strips, x[some[0]], g, some[1], tiling, is_first)

    backend.each(lane, lanes)
    if not lanes:  # no line of results
        x[...] = 0 if bias is None else bias
    return x


def strip_pieces(backend: Backend, g: Geometry, tiling: Tiling, w: Any, y: Any) -> list[Piece]:
    """Cut results y (N, OH, OW, O): strips of a piece stay in the cache, products are large."""
    n, height, across, _ = y.shape
    pixels = n * height * across
    strip = tiling.scheme.line_count * tiling.pixels * w.shape[2]  # numbers for each result
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


def strip_matrix(backend: Backend, strips: Any) -> Any:
    """Return strips (..., pixels, C) as one matrix (M, pixels·C)."""
    *outer, pixels, c = strips.shape
    return backend.matrix(strips.reshape(math.prod(outer), pixels * c))


def result_planes(backend: Backend, y: Any, tiling: Tiling) -> tuple[Any, bool]:
    """Return a place for results y (n, oh, OW, O), (*grid, oh, n, hop, groups, O), and if it is y.

    Of each product of the scheme a plane, as `winograd.Scheme` says.
    """
    (n, oh, ow, o), scheme = y.shape, tiling.scheme
    if scheme is PLAIN and n == 1 and y.flags.c_contiguous:
        return y.reshape(oh, 1, 1, ow, o), True
    groups = tiling.across // scheme.results
    return backend.scratch("results", (*scheme.grid, oh, n, tiling.hop, groups, o), y.dtype), False


def put_together(xp: Any, planes: Any, y: Any, tiling: Tiling) -> None:
    """Write into y (n, oh, OW, O) what the planes hold, `result_planes`, which are used up."""
    scheme = tiling.scheme
    share_out(xp, planes, scheme)
    for of_y, place, some in in_places(y, tiling):
        if scheme is PLAIN:
            of_y[...] = planes[some]
        else:
            # What is shared first is in all results, so its plane has no place on the first axis.
            own, shared = planes[scheme.own][place], planes[scheme.at(0, 0)][place[1:]]
            xp.add(own[some], shared[some], out=of_y)


def gathered(backend: Backend, y: Any, tiling: Tiling) -> Any:
    """Return the matrix of results y (n, oh, OW, O), in planes, as each product is to see them."""
    planes, in_place = result_planes(backend, y, tiling)
    own = planes[tiling.scheme.own]
    if not in_place:
        if tiling.hop * tiling.across > y.shape[2]:
            own[...] = 0
        for of_y, place, some in in_places(y, tiling):
            own[place][some] = of_y
    add_up_shared(backend.xp, planes, tiling.scheme)
    return backend.matrix(matrix(planes))


def in_places(y: Any, tiling: Tiling) -> Iterator[tuple[Any, tuple, tuple]]:
    """Yield results y (n, oh, OW, O) with where they are in planes, as two indices.

    The first is of the grid of results, the second of planes (oh, n, hop, groups, O). If y is whole
    groups, it is yielded as one view (*grid_of_results, oh, n, hop, groups, O), and the first index
    is empty; else one place in a group after the other, (oh, n, groups, O).
    """
    (n, oh, ow, o), scheme, hop = y.shape, tiling.scheme, tiling.hop
    if hop * tiling.across == ow:
        view = y.reshape(n, oh, ow // (hop * scheme.results), *scheme.grid_of_results, hop, o)
        places = range(3, view.ndim - 2)
        yield view.transpose(*places, 1, 0, view.ndim - 2, 2, view.ndim - 1), (), (...,)
        return
    for number, place in enumerate(np.ndindex(scheme.grid_of_results)):
        for first in range(hop):
            some = y[:, :, first + number * hop :: hop * scheme.results].swapaxes(0, 1)
            yield some, place, (slice(None), slice(None), first, slice(some.shape[2]))


def in_taps(w: Any, scheme: Scheme) -> Any:
    """Return a weight (KH, KW, C, O) by the taps of a scheme, (taps, KH, KW/taps, C, O): a view."""
    kh, kw, c, o = w.shape
    return w.reshape(kh, scheme.taps, kw // scheme.taps, c, o).swapaxes(0, 1)


def matrices_of_taps(backend: Backend, w: Any, scheme: Scheme) -> list:
    """Return for each product the matrices of the rows of the kernel, (KH, KW/taps·C, O)."""
    taps = in_taps(w, scheme)
    taps = taps.reshape(*scheme.grid_of_taps, *taps.shape[1:])
    return [backend.matrix(stack(s)) for s in sums_of_taps(backend.xp, taps, scheme.filters)]
