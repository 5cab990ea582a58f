"""Endless shuffled mini-batches of indices, which can stop anywhere and go on exactly."""

import operator
from typing import Any

import numpy as np


class Batches:
    """Hands out `batch_size` indices into a data set of `count` items at a time, for ever.

    Every epoch is a fresh permutation, so no index comes twice in one epoch; the indices left over
    at its end, fewer than a batch, are dropped until the next. Use it as
    `images[next(batches)]`, or in a `for` loop that breaks.

    Args:
        count: number of items in the data set.
        batch_size: indices in each batch, 1 to `count`.
        seed: of the permutations, an integer from 0; the same seed gives the same batches.

    Raises:
        ValueError: if `batch_size` is not in 1 to `count`, or `seed` is negative.
        TypeError: if one of the three is not an integer.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count = operator.index(count)
        self.batch_size = operator.index(batch_size)
        if not 1 <= self.batch_size <= self.count:
            raise ValueError(
                f"Batches: batch_size is {batch_size} but must be in 1 to count, which is {count}; "
                f"ask for smaller batches or give more items"
            )
        if operator.index(seed) < 0:
            raise ValueError(f"Batches: seed is {seed} but must be 0 or more")
        self._bits = np.random.PCG64(seed)
        self._epoch = 0
        self._shuffle()

    def _shuffle(self) -> None:
        """Begin an epoch: draw its order, and remember the state it was drawn from."""
        self._drawn_from = self._bits.state
        self._order = np.random.Generator(self._bits).permutation(self.count)
        self._cursor = 0

    @property
    def epoch(self) -> int:
        """How many whole epochs have been handed out: 0 until the first one is complete."""
        return self._epoch

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches in one epoch."""
        return self.count // self.batch_size

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> np.ndarray:
        """The next batch of indices: int64 `(batch_size,)`, which the caller may change."""
        end = self._cursor + self.batch_size
        batch = self._order[self._cursor : end].astype(np.int64)
        self._cursor = end
        if end + self.batch_size > self.count:
            self._epoch += 1
            self._shuffle()
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where we are, as plain dicts, strings and integers that JSON can hold.

        The permutation itself is left out: it is drawn again from the random state it came from.
        """
        return {
            "count": self.count,
            "batch_size": self.batch_size,
            "epoch": self._epoch,
            "cursor": self._cursor,
            "rng": self._drawn_from,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state` was taken; the seed given at construction is forgotten.

        Raises:
            ValueError: if `state` is not a state of batches of this count and size. Nothing has
                changed then.
        """
        bits = self._checked(state)
        self._bits = bits
        self._epoch = state["epoch"]
        self._shuffle()
        self._cursor = state["cursor"]

    def _checked(self, state: dict[str, Any]) -> np.random.PCG64:
        """The random bits that `state` describes, or a ValueError; changes nothing."""
        expected = set(self.state_dict())
        if not isinstance(state, dict) or set(state) != expected:
            got = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
            raise ValueError(f"Batches: the state has {got} but must have {sorted(expected)}")
        for name in ("count", "batch_size"):
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"Batches: the state is of {name} {state[name]!r} but this object has {name} "
                    f"{getattr(self, name)}; build it as it was when the state was taken"
                )
        if type(state["epoch"]) is not int or state["epoch"] < 0:
            raise ValueError(f"Batches: epoch is {state['epoch']!r} but must be an integer from 0")
        starts = range(0, self.batches_per_epoch * self.batch_size, self.batch_size)
        if type(state["cursor"]) is not int or state["cursor"] not in starts:
            raise ValueError(
                f"Batches: cursor is {state['cursor']!r} but must be a multiple of "
                f"{self.batch_size} below {starts.stop}"
            )
        bits = np.random.PCG64(0)
        try:
            bits.state = state["rng"]
            taken = bits.state == state["rng"]
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise ValueError(f"Batches: rng is no state of PCG64: {error}") from error
        if not taken:
            raise ValueError("Batches: rng is no state of PCG64: it changed when it was set")
        return bits
