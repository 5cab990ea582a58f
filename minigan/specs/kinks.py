"""The slope that each op gives where it has none: a choice, which differences cannot check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from minigan import functional as F
from minigan.autograd import grad
from minigan.tensor import Tensor


@dataclass(frozen=True)
class Kink:
    """A function at a point where it has no slope.

    Attributes:
        op: the class of the op that chooses.
        call: tensors in, tensor out.
        inputs: the point.
        slopes: the gradients that are chosen, for a cotangent of ones.
    """

    op: str
    call: Callable[..., Tensor]
    inputs: tuple
    slopes: tuple


KINKS = (
    Kink("Relu", F.relu, ([-1.0, 0.0, 1.0],), ([0, 0, 1],)),
    Kink("LeakyRelu", lambda x: F.leaky_relu(x, 0.1), ([-1.0, 0.0, 1.0],), ([0.1, 0.1, 1],)),
    Kink("Abs", F.abs, ([-1.0, 0.0, 1.0],), ([-1, 0, 1],)),
    Kink("Clip", lambda x: F.clip(x, -1, 1), ([-2.0, -1.0, 1.0, 2.0],), ([0, 1, 1, 0],)),
    Kink("Maximum", F.maximum, ([1.0, 2.0], [1.0, 0.0]), ([0.5, 1], [0.5, 0])),
    Kink("Minimum", F.minimum, ([1.0, 2.0], [1.0, 0.0]), ([0.5, 0], [0.5, 1])),
    Kink("Max", F.max, ([3.0, 1.0, 3.0],), ([0.5, 0, 0.5],)),
    Kink("Min", F.min, ([3.0, 1.0, 1.0],), ([0, 0.5, 0.5],)),
    Kink("Power", lambda x: F.pow(x, 0), ([0.0, 2.0],), ([0, 0],)),
    Kink("Power", lambda x: F.pow(x, 2), ([0.0, 2.0],), ([0, 4],)),
    Kink("Pow", F.pow, ([0.0, 0.0], [0.0, 2.0]), ([0, 0], [0, 0])),
)


def check_kink(kink: Kink) -> None:
    """Assert that the slopes are those that are chosen, in both routes of backward."""
    leaves = [Tensor(x, dtype=np.float64, requires_grad=True) for x in kink.inputs]
    y = kink.call(*leaves)
    ones = Tensor(np.ones(y.shape), dtype=np.float64)
    for recorded in (False, True):
        found = grad(y, leaves, ones, create_graph=recorded, retain_graph=True)
        for i, (g, slope) in enumerate(zip(found, kink.slopes, strict=True)):
            given = g.numpy().ravel()
            assert np.array_equal(given, slope), f"{kink.op}, input {i}: {given}, not {slope}"


def kinks_of(op: str) -> Sequence[Kink]:
    """Return the points at which an op has no slope."""
    return [kink for kink in KINKS if kink.op == op]
