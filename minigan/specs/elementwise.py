"""The specification of the functions that work element by element, one array or two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from minigan import functional as F
from minigan.backend import generator
from minigan.specs.case import Case, spec
from minigan.specs.choices import Choices
from minigan.specs.values import (
    Fill,
    broadcastable,
    draw_inputs,
    near_integers,
    off_integers,
    positive,
    shapes,
    spread,
)
from minigan.tensor import Tensor


def unary(
    function: Callable[..., Tensor],
    reference: Callable[..., np.ndarray],
    fill: Fill = spread,
    **choices: tuple,
) -> None:
    """Register a function of one array, with its options and what to choose each from."""

    @spec(function.__name__)
    def build(choose: Choices) -> Case:
        options = {name: choose.of(*values) for name, values in choices.items()}
        return Case(
            lambda x: function(x, **options),
            lambda x: reference(x, **options),
            draw_inputs(choose, shapes(choose), fill=fill),
            f"{options or ''}",
            options,
        )


unary(F.neg, lambda x: 0 - x)
unary(F.exp, np.exp)
unary(F.log, np.log, positive)
unary(F.sqrt, lambda x: np.power(x, 0.5), positive)
unary(F.abs, lambda x: np.where(x < 0, -x, x), off_integers)
unary(F.relu, lambda x: np.where(x > 0, x, 0), off_integers)
unary(
    F.leaky_relu,
    lambda x, negative_slope: np.where(x > 0, x, negative_slope * x),
    off_integers,
    negative_slope=(0.01, 0.2, 0, 1),
)
unary(
    F.elu,
    lambda x, alpha: np.where(x > 0, x, alpha * (np.exp(x) - 1)),
    off_integers,
    alpha=(1.0, 0.5, 2),
)
unary(F.gelu, lambda x: x * special.ndtr(x))
unary(F.silu, lambda x: x * special.expit(x))
unary(F.tanh, lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)))
unary(F.sigmoid, special.expit)
unary(F.softplus, lambda x: np.logaddexp(0, x))


def binary(
    function: Callable[..., Tensor],
    reference: Callable[..., np.ndarray],
    fill_a: Fill = spread,
    fill_b: Fill = spread,
) -> None:
    """Register a function of two arrays that are broadcast together."""

    @spec(function.__name__)
    def build(choose: Choices) -> Case:
        shape = shapes(choose)
        a, b = broadcastable(choose, shape), broadcastable(choose, shape)
        return Case(function, reference, draw_inputs(choose, a, b, fill=(fill_a, fill_b)))


binary(F.add, np.add)
binary(F.sub, np.subtract)
binary(F.mul, np.multiply)
binary(F.div, np.divide)
binary(F.maximum, lambda a, b: np.where(a > b, a, b), off_integers, near_integers)
binary(F.minimum, lambda a, b: np.where(a > b, b, a), off_integers, near_integers)


@spec("pow")
def pow_case(choose: Choices) -> Case:
    """Two arrays, or an array and a number, of any base where the number is whole."""
    kind = choose.of("tensors", "number", "tensors", "whole number")
    if kind == "tensors":
        shape = shapes(choose)
        both = broadcastable(choose, shape), broadcastable(choose, shape)
        inputs = draw_inputs(choose, *both, fill=(positive, spread))
        return Case(F.pow, np.power, inputs, kind)
    whole = kind == "whole number"
    exponent = choose.of(*((2, 3, -1, 1, 0, -2, 2.0) if whole else (0.5, -1.5, 2.7)))
    return Case(
        lambda x: F.pow(x, exponent),
        lambda x: np.power(x, float(exponent)),
        draw_inputs(choose, shapes(choose), fill=spread if whole else positive),
        f"x ** {exponent!r}",
    )


@spec("clip")
def clip_case(choose: Choices) -> Case:
    """Either bound may be missing; both are whole numbers, and the values are not."""
    low, high = choose.of((-1, 1), (0.0, None), (None, 2), (-2, 0), (1, 1))
    above, below = -np.inf if low is None else low, np.inf if high is None else high
    return Case(
        lambda x: F.clip(x, low, high),
        lambda x: np.minimum(np.maximum(x, above), below),
        draw_inputs(choose, shapes(choose), fill=off_integers),
        f"low={low} high={high}",
    )


@spec("where")
def where_case(choose: Choices) -> Case:
    """Three shapes that broadcast, the condition's among them."""
    shape = shapes(choose)
    a, b, c = (broadcastable(choose, shape) for _ in range(3))
    condition = np.random.default_rng(choose.seed()).random(c) < 0.5
    given: Any = Tensor(condition) if choose.yes() else condition

    def reference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        weight = condition.astype(float)
        return weight * a + (1 - weight) * b

    return Case(
        lambda a, b: F.where(given, a, b), reference, draw_inputs(choose, a, b), f"condition {c}"
    )


def seeded(function: Callable[..., Tensor], seed: int) -> Callable[..., Tensor]:
    """Return `function` with the host generator, while it runs, as `manual_seed(seed)` leaves it.

    So a function that draws random numbers is the same one each time.
    """

    def call(*tensors: Tensor) -> Tensor:
        stream = generator().bit_generator
        before, stream.state = stream.state, np.random.default_rng(seed).bit_generator.state
        try:
            return function(*tensors)
        finally:
            stream.state = before

    return call


@spec("dropout")
def dropout_case(choose: Choices) -> Case:
    """The reference draws the same mask from the same seed."""
    p, training, seed = choose.of(0.5, 0.1, 0.9, 0), choose.yes(), choose.seed()

    def reference(x: np.ndarray) -> np.ndarray:
        kept = np.random.default_rng(seed).random(x.shape, dtype=np.float32) >= p
        return np.where(kept, x / (1 - p), 0) if training else x

    return Case(
        seeded(lambda x: F.dropout(x * 1.0, p, training), seed),
        reference,
        draw_inputs(choose, shapes(choose)),
        f"p={p} training={training}",
        {"p": p, "training": training, "seed": seed},
    )
