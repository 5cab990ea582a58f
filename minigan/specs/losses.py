"""The specification of the losses; where a target is a tensor it is differentiated too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from minigan import losses
from minigan.specs.case import Case, spec
from minigan.specs.choices import Choices
from minigan.specs.values import (
    Fill,
    draw_inputs,
    near_integers,
    off_integers,
    shapes,
    spread,
    unit,
)
from minigan.tensor import Tensor

REDUCE = {"mean": np.mean, "sum": np.sum, "none": lambda each: each}


def full(choose: Choices, least: int = 0) -> tuple[int, ...]:
    """Return a shape with elements: a mean needs one."""
    return shapes(choose, least=least, empty=False)


def distance(
    loss: Callable[..., Tensor],
    each: Callable[..., np.ndarray],
    fills: tuple[Fill, Fill],
    **choices: tuple,
) -> None:
    """Register a loss of a prediction and a target of one shape; `each` is it for each element."""

    @spec(f"losses.{loss.__name__}", "loss")
    def build(choose: Choices) -> Case:
        shape, reduction = full(choose), choose.of(*REDUCE)
        options: dict[str, Any] = {name: choose.of(*values) for name, values in choices.items()}
        return Case(
            lambda x, t: loss(x, t, reduction=reduction, **options),
            lambda x, t: REDUCE[reduction](each(x, t, **options)),
            draw_inputs(choose, shape, shape, fill=fills),
            f"{reduction} {options or ''}",
        )


def huber(x: np.ndarray, t: np.ndarray, beta: float) -> np.ndarray:
    """d² / 2β near zero, and a line of the same slope further out."""
    d = np.abs(x - t)
    return np.where(d < beta, d * d / (2 * beta), d - beta / 2)


def cross(p: np.ndarray, t: np.ndarray) -> np.ndarray:
    """−t log p − (1 − t) log(1 − p)."""
    return -special.xlogy(t, p) - special.xlogy(1 - t, 1 - p)


# Differences of off_integers and near_integers stay 0.1 from 0, and from every whole number.
distance(losses.mse, lambda x, t: (x - t) ** 2, (spread, spread))
distance(losses.l1, lambda x, t: np.abs(x - t), (off_integers, near_integers))
distance(losses.smooth_l1, huber, (off_integers, near_integers), beta=(1.0, 2.0, 3.0))
distance(losses.binary_cross_entropy, cross, (unit, unit))
distance(
    losses.binary_cross_entropy_with_logits,
    lambda x, t: cross(special.expit(x), t),
    (spread, unit),
)


@spec("losses.cross_entropy", "loss")
def cross_entropy_case(choose: Choices) -> Case:
    """Labels as an array, a tensor or a list; with and without smoothing."""
    shape, reduction, smoothing = full(choose, 1), choose.of(*REDUCE), choose.of(0.0, 0.1, 1.0)
    labels = np.random.default_rng(choose.seed()).integers(0, shape[-1], size=shape[:-1])
    given = choose.of(labels, Tensor(labels), labels.tolist())

    def by_definition(x: np.ndarray) -> np.ndarray:
        one_hot = (labels[..., None] == np.arange(shape[-1])).astype(float)
        target = (1 - smoothing) * one_hot + smoothing / shape[-1]
        return REDUCE[reduction](-(target * special.log_softmax(x, axis=-1)).sum(axis=-1))

    return Case(
        lambda x: losses.cross_entropy(x, given, smoothing, reduction),
        by_definition,
        draw_inputs(choose, shape),
        f"{reduction} smoothing={smoothing}",
    )
