"""Floor 2: two products of a convolution on the CPU, two lines of results at a time.

`strips` makes neighbours along a line with the schemes of `winograd`. Down the image a scheme is
simpler: what it adds and subtracts are whole lines, and of those nothing is made in vain,

    l0 − l2,   l1 + l2,   l1 − l2,   l1 − l3

of the four lines that two lines of results see. A tap along the line is then one long product: the
lines lie one after the other, and a result meets the pixel so many further on. What is lost is the
padding between two lines, which belongs to the end of one and to the start of the next: the results
there are made, too, and nobody reads them. So it is for wide images (`suits`), with a kernel of
three rows at stride 1, as in most networks that keep the size of their images.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

from minigan.backend import Backend
from minigan.gemm import Part, Products
from minigan.ops.lines import matrix
from minigan.ops.windows import Geometry, Piece, landing, pieces
from minigan.ops.winograd import (
    THREE,
    Scheme,
    add_or_subtract,
    add_up_shared,
    added_up,
    pays,
    share_out,
    sums_of_taps,
)
from minigan.workers import PIECES, cut

SCHEME = Scheme((THREE,))
TAPS, PAIR, SUMS = SCHEME.taps, SCHEME.results, len(SCHEME.products)
WIDE = 65  # pixels in a line; in shorter ones the padding costs as much as is gained


def suits(g: Geometry, image: tuple[int, ...], results: tuple[int, ...]) -> bool:
    """Whether results (N, OH, OW, O) of images (N, H, W, C) are better made in pairs of lines."""
    n, height, across, _ = results
    pixels, made = n * height * across, n * PAIR * pairs_of(height) * length_of_line(g, image)
    return (
        (g.kernel[0], g.stride, g.dilation[0], g.groups) == (TAPS, (1, 1), 1, 1)
        and g.kernel[1] > 1
        and g.padding[1] < g.span()[1]
        and image[2] >= WIDE
        and pays(SCHEME, image[3], pixels, made)
    )


def convolve(backend: Backend, x: Any, w: Any, g: Geometry, y: Any, bias: Any = None) -> None:
    """As `strips.convolve`."""
    xp = backend.xp
    taps = [backend.matrix(total) for total in sums_of_taps(xp, w, SCHEME.filters)]

    def piece(some):
        lines, planes = sums_of_lines(backend, x, g, some), empty_planes(backend, x, g, y, some)
        multiply(backend, "results", lines, taps, planes, g, fresh=True)
        shared = planes[SCHEME.at(0, 0)]  # in both results, once the other is shared out
        if bias is not None:
            shared += bias
        share_out(xp, planes, SCHEME)
        for of_y, own in results_of(y, planes, some):
            height, across = of_y.shape[1:3]
            xp.add(own[:, :height, :across], shared[:, :height, :across], out=of_y)

    backend.each(piece, pieces_of(backend, x, g, y))


def correlate(backend: Backend, x: Any, y: Any, g: Geometry) -> Any:
    """As `strips.correlate`."""
    xp, shape = backend.xp, (*g.kernel, x.shape[3], y.shape[3])
    cuts = pieces_of(backend, x, g, y)
    lanes = list(cut(len(cuts), PIECES))  # each sums some pieces in turn
    sums = xp.empty((len(lanes), *shape), dtype=x.dtype)

    def lane(i):
        totals = backend.scratch("totals", (SUMS, *shape[1:]), x.dtype)
        weights = [backend.matrix(total) for total in totals]
        for number, some in enumerate(cuts[lanes[i]]):
            lines, planes = sums_of_lines(backend, x, g, some), empty_planes(backend, x, g, y, some)
            for of_y, own in results_of(y, planes, some):
                height, across = of_y.shape[1:3]
                own[:, :height, :across] = of_y
                own[:, height:] = 0
                own[:, :, across:] = 0
            add_up_shared(xp, planes, SCHEME)
            multiply(backend, "weights", lines, weights, planes, g, fresh=number == 0)
        for tap in range(TAPS):
            added_up(xp, [p.taps[tap] for p in SCHEME.products], totals, sums[i, tap])

    backend.each(lane, range(len(lanes)))
    w = sums[0]
    for part in sums[1:]:
        w += part
    return w


def multiply(
    backend: Backend, into: str, lines: Any, weights: list, planes: Any, g: Geometry, fresh: bool
) -> None:
    """Add to the results (SUMS, n, pairs, L, O) or the weights what the other two give."""
    pixels = math.prod(planes.shape[1:4])
    factors = backend.matrix(matrix(lines)), weights, backend.matrix(matrix(planes))
    backend.add_products(into, *factors, products(g.kernel[1], g.dilation[1], pixels), fresh)


def pairs_of(height: int) -> int:
    """Return how many pairs so many lines of results are, the last perhaps with one alone."""
    return -(-height // PAIR)


def length_of_line(g: Geometry, image: tuple[int, ...]) -> int:
    """Return the pixels of a line of images (N, H, W, C) with the padding before it."""
    return g.padding[1] + image[2]


def pieces_of(backend: Backend, x: Any, g: Geometry, y: Any) -> list[Piece]:
    """Cut the pairs of lines of results y, so that what is made for a piece stays in the cache."""
    shape = len(y), pairs_of(y.shape[1]), length_of_line(g, x.shape)
    return pieces(shape, SUMS * (x.shape[3] + y.shape[3]), y.itemsize, backend.column_bytes)


def sums_of_lines(backend: Backend, x: Any, g: Geometry, piece: Piece) -> Any:
    """Return for each product its sums of the lines that a piece sees, (SUMS, M + rest, C).

    M pixels are all lines of the piece, (n, pairs, W with the padding before it), and the rest is
    the padding after the last, and what is met by results that nobody reads.
    """
    images, some = piece
    x = x[images]
    n, _, _, c = x.shape
    shape = n, some.stop - some.start, length_of_line(g, x.shape)
    m, padding = math.prod(shape), g.padding[1]
    made = backend.scratch("strips", (SUMS, m + g.span()[1] - 1, c), x.dtype)
    made[:, m:] = 0
    lines = made[:, :m].reshape(SUMS, *shape, c)
    lines[:, :, :, :padding] = 0
    top = some.start * PAIR - g.padding[0]
    for product, line in zip(SCHEME.products, lines, strict=True):
        further, sign = THREE.lines[product.line - 1]
        first = top + product.place
        add_lines(backend.xp, x, first, first + further, sign, line[:, :, padding:])
    return made


def add_lines(xp: Any, x: Any, first: int, second: int, sign: int, out: Any) -> None:
    """Write into out (N, pairs, W, C), for each pair, a line of x (N, H, W, C) ± another.

    They are `first` and `second` for the first pair, two lines further on for each next one, and
    zero beyond the image.
    """
    met = [landing(out.shape[1], x.shape[1], PAIR, line)[0] for line in (first, second)]
    start = max(some.start for some in met)
    both = slice(start, max(start, min(some.stop for some in met)))

    def lines(line, some):
        return x[:, line + PAIR * some.start :: PAIR][:, : some.stop - some.start]

    if both.start < both.stop:
        add = add_or_subtract(xp, sign)
        add(lines(first, both), lines(second, both), out=out[:, both])
    out[:, : both.start] = 0
    out[:, both.stop :] = 0
    for line, its_sign, inside in zip((first, second), (1, sign), met, strict=True):
        above = slice(inside.start, min(inside.stop, both.start))
        below = slice(max(inside.start, both.stop), inside.stop)
        for alone in (above, below):
            if alone.start < alone.stop:
                add = add_or_subtract(xp, its_sign)
                add(out[:, alone], lines(line, alone), out=out[:, alone])


def empty_planes(backend: Backend, x: Any, g: Geometry, y: Any, piece: Piece) -> Any:
    """Return a buffer for the results of a piece, one for each product, (SUMS, n, pairs, L, O)."""
    images, some = piece
    n, length = len(x[images]), length_of_line(g, x.shape)
    shape = (SUMS, n, some.stop - some.start, length, y.shape[3])
    return backend.scratch("results", shape, y.dtype)


def results_of(y: Any, planes: Any, piece: Piece) -> Iterator[tuple[Any, Any]]:
    """Yield a piece's first lines of pairs and its second ones, each with their part of a plane.

    Those are of the results (N, OH, OW, O), and the part is of the planes (SUMS, n, pairs, L, O):
    pixels beyond OW, and the second line of a pair beyond OH, are in no result.
    """
    images, some = piece
    for place, plane in enumerate(planes[SCHEME.own]):
        lines = y[images, PAIR * some.start + place : PAIR * some.stop : PAIR]
        yield lines, plane


@functools.lru_cache(maxsize=1024)
def products(taps: int, dilation: int, pixels: int) -> Products:
    """Return what is multiplied: each sum of lines of so many pixels by each tap along them."""
    apart = pixels + (taps - 1) * dilation
    return Products(
        tuple(
            Part(i, tap, i * apart + tap * dilation, i * pixels, pixels)
            for tap in range(taps)
            for i in range(SUMS)
        ),
        SCHEME.scales,
    )
