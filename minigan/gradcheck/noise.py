"""Floor 3: what of a function's values is noise, such as rounding on the way, and not slope."""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import numpy as np

NARROW, WIDE = np.pi**-4, 1 / np.pi  # of h, to look for noise; round shares might repeat rounding
JUMP = 1e6  # times rounding: what moves so far at once, after nothing, was constant until then

Terms = Callable[[float], np.ndarray]  # t ↦ values of a function along a line, kept once computed


def noise(terms: Terms, centre: float, width: float, order: int) -> np.ndarray:
    """Return how noisy each term is, about a standard deviation, by rounding on the way or else.

    From a table of differences (after Moré and Wild, "Estimating computational noise", 2011): those
    of high order k are next to nothing for what is smooth, and of size σ·√C(2k, k) for noise.
    """
    values = [terms(centre + k * width) for k in range(-order, order + 1)]
    differences = np.diff(values, order, axis=0)
    return np.abs(differences).max(axis=0) / comb(2 * order, order) ** 0.5


def jitter(terms: Terms, h: float) -> float:
    """Return the noise of all terms together: the median of three places, so not that of a kink."""
    places = [noise(terms, t, NARROW * h, order=4) for t in (-h, h / 2, h)]
    return float(np.median(places, axis=0).sum())


def is_constant(lines: list[Terms], step: float, rounding: float) -> bool:
    """Return whether terms that do not move are constant, and not too large to be seen moving.

    Wider and wider steps tell. A slope that drowned at first shows a little at some width; a part
    that is constant, such as a clipped one, is left with a jump.
    """
    for terms in lines:
        before = np.abs(terms(step) - terms(-step)).sum()
        for width in step * 8.0 ** np.arange(1, 15):
            moved = np.abs([terms(t) - terms(0.0) for t in (width, -width)]).sum()
            if not np.isfinite(moved):
                if width < 1:
                    return False
                break
            if moved > rounding:
                if before == 0 and moved > JUMP * rounding and not _stairs(terms, width):
                    break
                return False
            before = moved
    return True


def _stairs(terms: Terms, width: float) -> bool:
    """Return whether terms that first move within this width do so by a jump, and jump again.

    So does (x + 1e14) − 1e14, which is no constant. What is clipped climbs without a jump.
    """

    def height(t: float) -> float:
        return float(np.abs([terms(t) - terms(0.0), terms(-t) - terms(0.0)]).max(initial=0.0))

    low, high = 0.0, width
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if height(middle) else (middle, high)
    jump, far = height(high), 1e4 * width
    again = [noise(terms, t, WIDE * far / 10, order=6).max(initial=0.0) for t in (far, -far)]
    return jump > 1e-3 * height(width) and max(again) > 0.01 * jump
