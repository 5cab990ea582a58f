"""The mistakes that show only at a kink: > for ≥, a tie that goes to one side, a guard left out.

Where forward finds out who wins, it is forward that is spoiled: it leaves another mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minigan.autograd import Op
from minigan.ops import arithmetic
from minigan.ops.arithmetic import log
from minigan.specs.mutants_base import BACKWARD, Mutant, Rule, Watch, formula, patched, spoiled
from minigan.tensor import Tensor

Mask = Callable[..., Any]  # the op's inputs and the op, to a mask


def other_mask(cls: type[Op], name: str, mask: Mask) -> Callable[[Watch], Any]:
    """Return `Mutant.applied` for a forward that leaves another mask in the attribute `name`."""
    right = cls.forward

    def forward(op: Op, *arrays: Any) -> Any:
        y = right(op, *arrays)
        if type(op) is cls:
            setattr(op, name, np.asarray(mask(op, *arrays), dtype=arrays[0].dtype))
        return y

    @contextmanager
    def applied(watch: Watch) -> Iterator[None]:
        with patched(cls, "forward", forward):
            yield

    return applied


def first_of_equals(op: Op, x: Any) -> Any:
    """One for the first of the largest (for Min: smallest) along the only axis, else zero."""
    best = x.max() if type(op).__name__ == "Max" else x.min()
    return np.arange(x.size) == np.argmax(x == best)


def all_of_equals(op: Op, x: Any) -> Any:
    """One for each of the largest (for Min: smallest) along the only axis."""
    return x == (x.max() if type(op).__name__ == "Max" else x.min())


MASKS: dict[str, tuple[str, dict[str, Mask]]] = {
    "Maximum": (
        "share_a",
        {
            "≥ for >": lambda op, a, b: a >= b,
            "> without ties": lambda op, a, b: a > b,
            "whole for both": lambda op, a, b: (a > b) + 2 * (a == b),
        },
    ),
    "Minimum": (
        "share_a",
        {
            "≤ for <": lambda op, a, b: a <= b,
            "< without ties": lambda op, a, b: a < b,
            "whole for both": lambda op, a, b: (a < b) + 2 * (a == b),
        },
    ),
    "Max": ("share", {"first of equals": first_of_equals, "all of equals": all_of_equals}),
    "Min": ("share", {"first of equals": first_of_equals, "all of equals": all_of_equals}),
    "Clip": (
        "inside",
        {
            "> for ≥ at the lower bound": lambda op, x: (x > op.low) & (x <= op.high),
            "< for ≤ at the upper bound": lambda op, x: (x >= op.low) & (x < op.high),
        },
    ),
    "Abs": (
        "sign",
        {
            "≥ for > at 0": lambda op, x: np.where(x >= 0, 1, -1),
            "≤ for < at 0": lambda op, x: np.where(x > 0, 1, -1),
        },
    ),
}


def above(y: Tensor, slope: float) -> Any:
    """Return the slopes of a (leaky) ReLU with ≥ for >."""
    return np.where(y.data >= 0, 1.0, slope)


RULES: dict[str, dict[str, Rule]] = {
    "Relu": {"≥ for > at 0": formula(0, lambda gy, y: gy * above(y, 0.0))},
    "LeakyRelu": {"≥ for > at 0": formula(0, lambda gy, y: gy * above(y, 0.1))},
    "Pow": {
        "0^0 not guarded": formula(0, lambda gy, a, b: gy * b * a ** (b - 1.0)),
        "ln 0 not guarded": formula(1, lambda gy, a, b: gy * a**b * log(a)),
    },
    "Power": {
        "exponent 0 not guarded": lambda call: [
            call.gy
            * arithmetic.Power(exponent=call.op.exponent - 1)(*call.op.saved())
            * call.op.exponent
        ],
    },
}


def kink_mutants(cls: type[Op]) -> Iterator[Mutant]:
    """Yield the mutants of an op that choose another slope where there is none."""
    attribute, masks = MASKS.get(cls.__name__, ("", {}))
    for name, mask in masks.items():
        yield Mutant(cls.__name__, f"at a kink: {name}", other_mask(cls, attribute, mask), True)
    for name, rule in RULES.get(cls.__name__, {}).items():
        yield Mutant(cls.__name__, f"at a kink: {name}", spoiled(cls, BACKWARD, rule), True)
