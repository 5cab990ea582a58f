"""Choices: how a specification asks for structure, from a seed or from hypothesis.

Every question comes down to a whole number between two others. So the same specification can be
drawn in microseconds from a NumPy generator, or by hypothesis, which then knows how to make a
failing case smaller: low numbers and early options are the simple ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


class Choices:
    """Answers questions about structure.

    Args:
        integer: called with (low, high); returns a whole number from low to high, both included.
    """

    def __init__(self, integer: Callable[[int, int], int]) -> None:
        self.integer = integer

    def of(self, *options: Any) -> Any:
        """Return one of the options."""
        return options[self.integer(0, len(options) - 1)]

    def yes(self, one_in: int = 2) -> bool:
        """Return True once in so many times."""
        return self.integer(1, one_in) == one_in

    def pair(self, low: int, high: int) -> int | tuple[int, int]:
        """Return a number, or a pair (vertical, horizontal)."""
        if self.yes():
            return self.integer(low, high), self.integer(low, high)
        return self.integer(low, high)

    def order(self, items: Sequence[Any]) -> list[Any]:
        """Return the items in some order."""
        left, ordered = list(items), []
        while left:
            ordered.append(left.pop(self.integer(0, len(left) - 1)))
        return ordered

    def some(self, items: Sequence[Any]) -> list[Any]:
        """Return some of the items, perhaps none, in any order."""
        return [item for item in self.order(items) if self.yes()]

    def seed(self) -> int:
        """Return a seed for numbers."""
        return self.integer(0, 2**32 - 1)


def from_seed(seed: int) -> Choices:
    """Return choices that are always the same for a seed."""
    rng = np.random.default_rng(seed)
    return Choices(lambda low, high: int(rng.integers(low, high + 1)))


def strategy(build: Callable[[Choices], Any]) -> Any:
    """Return `build` as a hypothesis strategy.

    Raises:
        ImportError: hypothesis is not installed; says how to get it.
    """
    try:
        from hypothesis import strategies
    except ImportError:
        raise ImportError(
            "drawing cases with hypothesis needs it installed: pip install 'minigan[test]', or "
            "pip install hypothesis; Spec.example(seed) does without"
        ) from None
    return strategies.composite(
        lambda draw: build(Choices(lambda low, high: draw(strategies.integers(low, high))))
    )()
