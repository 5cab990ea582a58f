"""The specification of normalisation: x, and a weight and a bias that may be missing.

Every group of numbers that is normalised has a variance well over zero; without, the derivatives
grow beyond what differences can measure.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minigan import functional as F
from minigan.specs import reference
from minigan.specs.case import Case, spec
from minigan.specs.choices import Choices
from minigan.specs.images import batch
from minigan.specs.values import Shape, draw_inputs, shapes, spread, varied
from minigan.tensor import Tensor

STORED = np.array([0.3, -0.2, 0.1]), np.array([0.7, 1.5, 0.9])  # running mean and variance


def some_eps(choose: Choices) -> float:
    """Return an epsilon."""
    return choose.of(1e-5, 1e-2)


def normalisation(
    choose: Choices,
    shape: Shape,
    parameters: Shape,
    call: Callable[..., Tensor],
    expected: Callable[[np.ndarray], np.ndarray],
    note: str,
) -> Case:
    """Return a case of `call(x, weight, bias)`; `expected(x)` is the part before the affine."""
    has_weight, has_bias = choose.yes(), choose.yes()

    def split(x: object, *rest: object) -> tuple:
        left = list(rest)
        weight = left.pop(0) if has_weight else None
        return x, weight, left.pop(0) if has_bias else None

    def by_definition(*arrays: np.ndarray) -> np.ndarray:
        x, weight, bias = split(*arrays)
        return reference.affine(expected(x), weight, bias)

    count = has_weight + has_bias
    fills = (varied, *[spread] * count)
    inputs = draw_inputs(choose, shape, *[parameters] * count, fill=fills)
    return Case(lambda *xs: call(*split(*xs)), by_definition, inputs, note)


@spec("batch_norm")
def batch_norm_case(choose: Choices) -> Case:
    """In training, which is fused, and in evaluation, by stored averages."""
    channels, eps = choose.integer(1, 3), some_eps(choose)
    lead = choose.of((3,), (4, 2), (2, 3, 2), (2, 1, 3), (5,))
    training = not choose.yes(4)
    mean, var = (s[:channels] for s in STORED)

    def call(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        running = (Tensor(s.copy(), dtype=x.dtype, device=x.device) for s in (mean, var))
        return F.batch_norm(x, *running, weight, bias, training=training, eps=eps)

    def expected(x: np.ndarray) -> np.ndarray:
        return reference.batch_norm(x, eps) if training else (x - mean) / np.sqrt(var + eps)

    note = f"training={training} eps={eps}"
    return normalisation(choose, (*lead, channels), (channels,), call, expected, note)


@spec("instance_norm")
def instance_norm_case(choose: Choices) -> Case:
    """Each channel of each image."""
    channels, eps = choose.integer(1, 3), some_eps(choose)
    return normalisation(
        choose,
        (batch(choose), choose.integer(2, 3), choose.integer(1, 4), channels),
        (channels,),
        lambda x, weight, bias: F.instance_norm(x, weight, bias, eps),
        lambda x: reference.instance_norm(x, eps),
        f"eps={eps}",
    )


@spec("layer_norm")
def layer_norm_case(choose: Choices) -> Case:
    """The last axis, or the last two."""
    eps, tail = some_eps(choose), choose.of((3,), (2, 3), (4,), (3, 1))
    given = tail[0] if len(tail) == 1 and choose.yes() else tail
    return normalisation(
        choose,
        (*shapes(choose, most=2), *tail),
        tail,
        lambda x, weight, bias: F.layer_norm(x, given, weight, bias, eps),
        lambda x: reference.layer_norm(x, len(tail), eps),
        f"{given} eps={eps}",
    )


@spec("group_norm")
def group_norm_case(choose: Choices) -> Case:
    """One to three groups of channels, with and without pixels."""
    groups, width, eps = choose.integer(1, 3), choose.integer(2, 3), some_eps(choose)
    shape = (choose.integer(1, 2), *choose.of((), (2,), (2, 2)), groups * width)
    return normalisation(
        choose,
        shape,
        shape[-1:],
        lambda x, weight, bias: F.group_norm(x, groups, weight, bias, eps),
        lambda x: reference.group_norm(x, groups, eps),
        f"{groups} groups eps={eps}",
    )
