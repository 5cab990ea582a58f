"""Floor 2: how neighbouring results of a filter are made of few products (Winograd 1980).

A filter with two taps k over pixels p has the results y0 = p0·k0 + p1·k1 and y1 = p1·k0 + p2·k1:
four products. Three are enough, for pixels can be subtracted before:

    m = p1·(k0 + k1),   y0 = m + (p0 − p1)·k0,   y1 = m − (p1 − p2)·k1

Both differences are of a pixel and the next, so one subtraction of the whole line from itself, a
pixel further on, gives them for every pair of results. With three taps it is four products for six:

    m = (p1 + p2)·(k0 + k1 + k2)/2,   n = −(p1 − p2)·(k0 − k1 + k2)/2
    y0 = m + n + (p0 − p2)·k0,        y1 = m − n − (p1 − p3)·k2

Four taps are two of two: let p0, k0, y0 and so on stand for pairs in the scheme of two taps, then
each of its products is a filter with two taps again. That is nine products for sixteen. The lines
are the differences of a pixel and the next, of a pixel and the next but one, and the former of the
latter.

The error of a result is in proportion to the largest of these taps and pixels, not to its own
terms. That is no loss where they are of one size, as in a network, but a tap of 10⁶ beside one of 1
leaves few digits to a result that only the small one meets.

A pixel here may stand for several side by side, and its product for one with a matrix. Lavin and
Gray (2016) do the same along both axes; along one there is less to add up, and lines of padding can
still be left out (`strips`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from minigan.ops.windows import Geometry


class Line(NamedTuple):
    """The image's own line, and added with a sign what it is some pixels further on."""

    further: int
    sign: int


class Lines(NamedTuple):
    """Some lines of a scheme, made at once of as many others, as a `Line` is.

    Both by their numbers: 0 is the image's own, then in the order in which they are made.
    """

    made: slice
    of: slice
    further: int
    sign: int


class Product(NamedTuple):
    """One product of a scheme: scale · (strip of a line) · (sum of taps), added to results.

    Attributes:
        line: which line the strip is taken from: 0 is the image's own, the others are the scheme's.
        place: which of the strips of a group of neighbouring results it is.
        taps: with which sign each tap is in the sum; 0 for none. The first sign is +.
        results: with which sign it is in each result, likewise.
        scale: of the product.
    """

    line: int
    place: int
    taps: tuple[int, ...]
    results: tuple[int, ...]
    scale: float = 1.0


@dataclass(frozen=True)
class Filter:
    """How two neighbouring results of a filter are made.

    Attributes:
        shared: the products that are in both, the first with + in both.
        own: the products that are in one, with +; in the order of the results.
        lines: from which they are made, besides the image's own.
    """

    shared: tuple[Product, ...]
    own: tuple[Product, ...]
    lines: tuple[Line, ...]

    @property
    def products(self) -> tuple[Product, ...]:
        return self.shared + self.own


@dataclass(frozen=True, eq=False)
class Scheme:
    """How some neighbouring results are made: by a filter, or by one inside of the other.

    The first is for groups of pixels, and each of its products is made by the next, which must have
    as many results as taps. What belongs to the products lies in a grid, with an axis for each
    filter: first what is shared there.
    """

    filters: tuple[Filter, ...] = ()

    @functools.cached_property
    def products(self) -> tuple[Product, ...]:
        """All products, in the order of the grid."""
        products = (Product(0, 0, (1,), (1,)),)
        for inner in self.filters:
            products = tuple(_inside(p, q, inner) for p in products for q in inner.products)
        return products

    @functools.cached_property
    def scales(self) -> tuple[float, ...]:
        return tuple(product.scale for product in self.products)

    @functools.cached_property
    def lines(self) -> tuple[Lines, ...]:
        """How lines are made of the image's own, one step after the other."""
        steps, count, apart = [], 1, 1
        for inner in reversed(self.filters):
            for i, line in enumerate(inner.lines, start=1):
                made = slice(i * count, (i + 1) * count)
                steps.append(Lines(made, slice(0, count), line.further * apart, line.sign))
            count, apart = count * (1 + len(inner.lines)), apart * len(inner.own)
        return tuple(steps)

    @functools.cached_property
    def terms(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each line, which pixels of the image's own it adds up: how far on, and the sign."""
        terms = [((0, 1),)]  # the image's own line
        for step in self.lines:
            for of in terms[step.of]:
                more = tuple((step.further + f, step.sign * sign) for f, sign in of)
                terms.append(of + more)
        return tuple(terms)

    @property
    def line_count(self) -> int:
        return len(self.terms)

    @functools.cached_property
    def additions(self) -> tuple[tuple[tuple, tuple, int], ...]:
        """What `share_out` does: (to where in the grid, from where, sign)."""
        steps = []
        for depth, f in reversed(list(enumerate(self.filters))):
            first = len(f.shared)
            for i, product in reversed(list(enumerate(f.shared))):
                if i:
                    signs = enumerate(product.results, start=first)
                    steps += [(self.at(depth, k), self.at(depth, i), sign) for k, sign in signs]
                elif depth:
                    both, one = slice(first, None), slice(0, 1)
                    steps.append((self.at(depth, both), self.at(depth, one), 1))
        return tuple(steps)

    def at(self, depth: int, where: int | slice) -> tuple[int | slice, ...]:
        """Return the index of the grid of this place on the axis of filter `depth`.

        It takes all of the axes before, and of those after it only what is not shared there: of two
        filters of two taps, at(1, 0) is grid[:, 0], and at(0, 0) is grid[0, 1:].
        """
        return (slice(None),) * depth + (where,) + self.own[depth + 1 :]

    @functools.cached_property
    def own(self) -> tuple[slice, ...]:
        """Where in the grid is what belongs to single results."""
        return tuple(slice(len(f.shared), None) for f in self.filters)

    @functools.cached_property
    def grid(self) -> tuple[int, ...]:
        """The shape of what belongs to the products."""
        return tuple(len(f.products) for f in self.filters)

    @functools.cached_property
    def grid_of_results(self) -> tuple[int, ...]:
        """The shape of a group of neighbouring results, likewise."""
        return tuple(len(f.own) for f in self.filters)

    @functools.cached_property
    def grid_of_taps(self) -> tuple[int, ...]:
        """The shape of the taps, likewise."""
        return tuple(len(f.own[0].taps) for f in self.filters)

    @functools.cached_property
    def results(self) -> int:
        return math.prod(self.grid_of_results)

    @functools.cached_property
    def taps(self) -> int:
        return math.prod(self.grid_of_taps)


def _inside(p: Product, q: Product, inner: Filter) -> Product:
    """Return product q of a filter that makes product p of another."""
    return Product(
        p.line * (1 + len(inner.lines)) + q.line,
        p.place * len(inner.own) + q.place,
        tuple(a * b for a in p.taps for b in q.taps),
        tuple(a * b for a in p.results for b in q.results),
        p.scale * q.scale,
    )


TWO = Filter(
    shared=(Product(0, 1, (1, 1), (1, 1)),),
    own=(Product(1, 0, (1, 0), (1, 0)), Product(1, 1, (0, 1), (0, 1), -1.0)),
    lines=(Line(1, -1),),
)
THREE = Filter(
    shared=(Product(2, 1, (1, 1, 1), (1, 1), 0.5), Product(3, 1, (1, -1, 1), (1, -1), -0.5)),
    own=(Product(1, 0, (1, 0, 0), (1, 0)), Product(1, 1, (0, 0, 1), (0, 1), -1.0)),
    lines=(Line(2, -1), Line(1, 1), Line(1, -1)),
)
PLAIN, TWO_TAPS, THREE_TAPS = Scheme(), Scheme((TWO,)), Scheme((THREE,))
FOUR_TAPS = Scheme((TWO, TWO))
SCHEMES = (FOUR_TAPS, TWO_TAPS, THREE_TAPS)

PART = 64  # numbers in a strip of a scheme; with fewer, products are short
ENOUGH = 512  # groups of results; with fewer, sums of weights cost more than a scheme saves
WASTE = 8  # at most so small a part of the results is made in vain


@dataclass(frozen=True)
class Tiling:
    """How strips lie along a line of results.

    Attributes:
        pixels: of a strip, KW over the taps of the scheme.
        hop: by how many results a strip and the next one of a filter are apart; a scheme takes
            every `hop`-th result for neighbours, so there are so many rounds of them in a line.
        across: results of a round, OW / hop and what is missing to whole groups of neighbours.
    """

    scheme: Scheme
    pixels: int
    hop: int
    across: int


def tiling_for(g: Geometry, channels: int, results: tuple[int, ...]) -> Tiling:
    """Return the scheme that suits results (N, OH, OW, O), with its numbers."""
    across = results[2]
    pixels, lines = math.prod(results[:3]), math.prod(results[:2])
    for scheme in SCHEMES:
        of_strip, rest = divmod(g.kernel[1], scheme.taps)
        hop, left = divmod(of_strip, g.stride[1])
        if hop and not rest and not left and g.dilation[1] == 1:
            in_round = -(-across // (hop * scheme.results)) * scheme.results
            if pays(scheme, of_strip * channels, pixels, lines * hop * in_round):
                return Tiling(scheme, of_strip, hop, in_round)
    return Tiling(PLAIN, g.kernel[1], 1, across)


def pays(scheme: Scheme, strip: int, pixels: int, made: int) -> bool:
    """Whether so many pixels of results are better made by a scheme, `made` with those in vain."""
    enough = strip >= PART and pixels >= ENOUGH * scheme.results
    return enough and WASTE * (made - pixels) <= pixels


def sums_of_taps(xp: Any, taps: Any, filters: Sequence[Filter]) -> list:
    """Return for each product of filters its sum of taps (*grid_of_taps, ...)."""
    if not filters:
        return [taps]
    first, *others = filters
    sums = (added_up(xp, product.taps, taps) for product in first.products)
    return [total for of_first in sums for total in sums_of_taps(xp, of_first, others)]


def add_up_shared(xp: Any, grid: Any, scheme: Scheme) -> None:
    """Fill in the sums that shared products see of results, a grid (*grid, ...) of single ones."""
    for depth, f in enumerate(scheme.filters):
        own = [grid[scheme.at(depth, k)] for k in range(len(f.shared), len(f.products))]
        for i, product in enumerate(f.shared):
            added_up(xp, product.results, own, grid[scheme.at(depth, i)])


def share_out(xp: Any, grid: Any, scheme: Scheme) -> None:
    """Add what is shared, in a grid (*grid, ...), to what is not, up to a last addition.

    Results are then the sum of what is at `scheme.own` and what is at(0, 0).
    """
    for to, of, sign in scheme.additions:
        add_or_subtract(xp, sign)(grid[to], grid[of], out=grid[to])


def added_up(xp: Any, signs: Sequence[int], arrays: Iterable[Any], out: Any = None) -> Any:
    """Return the sum of arrays, each with a sign, 0 for those that are not in it; the first has +.

    A single one is returned as it is if there is no `out`.
    """
    (_, first), *others = [(s, a) for s, a in zip(signs, arrays, strict=True) if s]
    if not others:
        if out is None:
            return first
        out[...] = first
    for sign, array in others:
        out = add_or_subtract(xp, sign)(first, array, out=out)
        first = out
    return out


def add_or_subtract(xp: Any, sign: int) -> Any:
    """Return the function of `xp` that adds with this sign."""
    return xp.add if sign > 0 else xp.subtract
