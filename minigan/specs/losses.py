"""The specification of the losses; where a target is a tensor it is differentiated too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from minigan import functional as F
from minigan import losses
from minigan.specs.case import Case, spec
from minigan.specs.choices import Choices
from minigan.specs.elementwise import seeded
from minigan.specs.values import (
    Fill,
    Shape,
    draw_inputs,
    near_integers,
    off_integers,
    positive,
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


@spec("losses.hinge", "loss")
def hinge_case(choose: Choices) -> Case:
    """Scores of real and of generated images, away from the corners at 1 and −1."""
    reduction, real = choose.of(*REDUCE), choose.yes()
    sign = 1.0 if real else -1.0
    return Case(
        lambda x: losses.hinge(x, real, reduction),
        lambda x: REDUCE[reduction](np.maximum(0, 1 - sign * x)),
        draw_inputs(choose, full(choose), fill=off_integers),
        f"{reduction} real={real}",
    )


# Penalties on the slope of a critic


def samples(choose: Choices) -> Shape:
    """Return the shape of some vectors or images."""
    return (choose.integer(1, 3), *choose.of((2,), (3,), (2, 1, 2), (1, 3, 1)))


def shares(seed: int, shape: Shape) -> np.ndarray:
    """What the host generator gives for each sample of that shape after this seed."""
    return np.random.default_rng(seed).random((shape[0], *[1] * (len(shape) - 1)))


@spec("losses.between", "loss")
def between_case(choose: Choices) -> Case:
    """Each pair has a share of its own."""
    shape, seed = samples(choose), choose.seed()

    def by_definition(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        share = shares(seed, shape)
        return share * x + (1 - share) * y

    inputs = draw_inputs(choose, shape, shape)
    return Case(seeded(losses.between, seed), by_definition, inputs)


def dense(x: Tensor, weight: Tensor, v: Tensor) -> Tensor:
    """A critic: one hidden layer with a SiLU, and one score for each sample."""
    flat = F.reshape(x, (x.shape[0], -1))
    return F.matmul(F.silu(F.matmul(flat, weight)), F.reshape(v, (-1, 1)))


def squares(x: np.ndarray, weight: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The squared norm of the slope of `dense` at each sample, which is W (v · silu'(x W))."""
    z = x.reshape(len(x), -1) @ weight
    s = special.expit(z)
    return (((s + z * s * (1 - s)) * v @ weight.T) ** 2).sum(axis=1)


def norms(x: np.ndarray, weight: np.ndarray, v: np.ndarray) -> np.ndarray:
    """And the norm, with its epsilon."""
    return np.sqrt(squares(x, weight, v) + 1e-12)


def dense_inputs(choose: Choices, shape: Shape, sets: int) -> tuple[np.ndarray, ...]:
    """Return so many sets of samples, and the two weights of `dense`."""
    features, hidden = int(np.prod(shape[1:])), choose.integer(1, 3)
    return draw_inputs(
        choose,
        *[shape] * sets,
        (features, hidden),
        (hidden,),
        fill=(*[spread] * sets, spread, positive),
    )


@spec("losses.gradient_norm", "loss")
def gradient_norm_case(choose: Choices) -> Case:
    """As a function of the samples and of the critic's weights."""
    return Case(
        lambda x, w, v: losses.gradient_norm(lambda x: dense(x, w, v), x),
        norms,
        dense_inputs(choose, samples(choose), 1),
    )


@spec("losses.gradient_penalty", "loss")
def gradient_penalty_case(choose: Choices) -> Case:
    """Both sets of samples may want a gradient, and the critic's weights."""
    shape, seed, target = samples(choose), choose.seed(), choose.of(1.0, 0.0)

    def call(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
        return losses.gradient_penalty(lambda x: dense(x, w, v), x, y, target)

    def by_definition(x: np.ndarray, y: np.ndarray, w: np.ndarray, v: np.ndarray) -> np.ndarray:
        share = shares(seed, shape)
        return np.mean((norms(share * x + (1 - share) * y, w, v) - target) ** 2)

    inputs = dense_inputs(choose, shape, 2)
    return Case(seeded(call, seed), by_definition, inputs, f"target={target}")


@spec("losses.r1_penalty", "loss")
def r1_penalty_case(choose: Choices) -> Case:
    """As a function of the samples and of the critic's weights."""
    return Case(
        lambda x, w, v: losses.r1_penalty(lambda x: dense(x, w, v), x),
        lambda x, w, v: 0.5 * np.mean(squares(x, w, v)),
        dense_inputs(choose, samples(choose), 1),
    )
