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
from typing import Any

from minigan.ops.windows import Geometry


@dataclass(frozen=True)
class Line:
    """A line, and added with a sign what it is some pixels further on.

    It is made of line `of` of the scheme: 0 is the image's own, 1 the first that was made.
    """

    further: int
    sign: int
    of: int = 0


@dataclass(frozen=True)
class Product:
    """One product of a scheme: scale · (strip of a line) · (sum of taps), added to results.

    Attributes:
        line: which line the strip is taken from: 0 is the image's own, the others are the scheme's.
        place: which of the strips of a group of neighbouring results it is.
        taps: with which sign each tap is in the sum; 0 for none. The first sign is +.
        results: with which sign it is in each result, likewise.
    """

    line: int
    place: int
    taps: tuple[int, ...]
    results: tuple[int, ...]
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class Scheme:
    """How some neighbouring results of a filter are made.

    Attributes:
        shared: the products that are in several results.
        own: the products that are in one, with +; in the order of the results.
        lines: from which they are made, besides the image's own.
    """

    shared: tuple[Product, ...]
    own: tuple[Product, ...]
    lines: tuple[Line, ...] = ()

    @functools.cached_property
    def products(self) -> tuple[Product, ...]:
        return self.shared + self.own

    @functools.cached_property
    def scales(self) -> tuple[float, ...]:
        return tuple(product.scale for product in self.products)

    @functools.cached_property
    def terms(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each line, which pixels of the image's own it adds up: how far on, and the sign."""
        terms = [((0, 1),)]  # the image's own line
        for line in self.lines:
            of = terms[line.of]
            terms.append(of + tuple((line.further + f, line.sign * sign) for f, sign in of))
        return tuple(terms)

    @property
    def taps(self) -> int:
        return len(self.own[0].taps)

    @property
    def results(self) -> int:
        return len(self.own[0].results)


PLAIN = Scheme((), (Product(0, 0, (1,), (1,)),))
TWO_TAPS = Scheme(
    shared=(Product(0, 1, (1, 1), (1, 1)),),
    own=(Product(1, 0, (1, 0), (1, 0)), Product(1, 1, (0, 1), (0, 1), -1.0)),
    lines=(Line(1, -1),),
)
THREE_TAPS = Scheme(
    shared=(Product(2, 1, (1, 1, 1), (1, 1), 0.5), Product(3, 1, (1, -1, 1), (1, -1), -0.5)),
    own=(Product(1, 0, (1, 0, 0), (1, 0)), Product(1, 1, (0, 0, 1), (0, 1), -1.0)),
    lines=(Line(2, -1), Line(1, 1), Line(1, -1)),
)
FOUR_TAPS = Scheme(
    shared=(
        Product(0, 3, (1, 1, 1, 1), (1, 1, 1, 1)),
        Product(1, 2, (1, 0, 1, 0), (1, 0, 1, 0)),
        Product(1, 3, (0, 1, 0, 1), (0, 1, 0, 1), -1.0),
        Product(2, 1, (1, 1, 0, 0), (1, 1, 0, 0)),
        Product(2, 3, (0, 0, 1, 1), (0, 0, 1, 1), -1.0),
    ),
    own=(
        Product(3, 0, (1, 0, 0, 0), (1, 0, 0, 0)),
        Product(3, 1, (0, 1, 0, 0), (0, 1, 0, 0), -1.0),
        Product(3, 2, (0, 0, 1, 0), (0, 0, 1, 0), -1.0),
        Product(3, 3, (0, 0, 0, 1), (0, 0, 0, 1)),
    ),
    lines=(Line(1, -1), Line(2, -1), Line(1, -1, of=2)),
)
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
    for scheme in SCHEMES:
        pixels, rest = divmod(g.kernel[1], scheme.taps)
        hop, left = divmod(pixels, g.stride[1])
        enough = math.prod(results[:3]) >= ENOUGH * scheme.results
        if enough and hop and not rest and not left and g.dilation[1] == 1:
            in_round = -(-across // (hop * scheme.results)) * scheme.results
            if pixels * channels >= PART and WASTE * (hop * in_round - across) <= across:
                return Tiling(scheme, pixels, hop, in_round)
    return Tiling(PLAIN, g.kernel[1], 1, across)


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
