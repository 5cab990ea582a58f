"""The specification of sums and their relatives, of softmax, and of the matrix product."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minigan import functional as F
from minigan.specs.case import Case, spec
from minigan.specs.choices import Choices
from minigan.specs.values import (
    Fill,
    broadcastable,
    chosen,
    distinct,
    draw_inputs,
    one_axis,
    reduced,
    shapes,
    some_axes,
    spread,
)
from minigan.tensor import Tensor


def reduction(
    function: Callable[..., Tensor], reference: Callable[..., np.ndarray], fill: Fill = spread
) -> None:
    """Register a function of (x, axis, keepdims) that needs at least one element."""

    @spec(function.__name__)
    def build(choose: Choices) -> Case:
        shape, axis, keepdims = reduced(choose)
        return Case(
            lambda x: function(x, axis, keepdims),
            lambda x: reference(x, axis=axis, keepdims=keepdims),
            draw_inputs(choose, shape, fill=fill),
            f"axis={axis} keepdims={keepdims}",
        )


reduction(F.mean, np.mean)
reduction(F.max, np.max, distinct)
reduction(F.min, np.min, distinct)
reduction(F.logsumexp, lambda x, axis, keepdims: np.log(np.sum(np.exp(x), axis, keepdims=keepdims)))


@spec("sum")
def sum_case(choose: Choices) -> Case:
    """A sum over nothing is 0."""
    shape = shapes(choose)
    axis, keepdims = some_axes(choose, len(shape)), choose.yes()
    if len(shape) > 1 and choose.yes() and choose.yes():
        axis = tuple(range(len(shape) - 1))  # which is done another way
    return Case(
        lambda x: F.sum(x, axis, keepdims),
        lambda x: np.sum(x, axis=axis, keepdims=keepdims),
        draw_inputs(choose, shape),
        f"axis={axis} keepdims={keepdims}",
    )


@spec("var")
def var_case(choose: Choices) -> Case:
    """With and without the correction, which needs two elements."""
    shape, axis, keepdims = reduced(choose)
    count = np.prod([shape[a] for a in chosen(axis, len(shape))])
    correction = choose.of(1, 0) if count > 1 else 0
    return Case(
        lambda x: F.var(x, axis, keepdims, correction),
        lambda x: np.var(x, axis=axis, keepdims=keepdims, ddof=correction),
        draw_inputs(choose, shape),
        f"axis={axis} keepdims={keepdims} correction={correction}",
    )


def along_one_axis(function: Callable[..., Tensor], reference: Callable[..., np.ndarray]) -> None:
    """Register a function of (x, axis) that has something along the axis."""

    @spec(function.__name__)
    def build(choose: Choices) -> Case:
        shape = shapes(choose, least=1, empty=False)
        axis = one_axis(choose, len(shape))
        if len(shape) > 1 and choose.yes(10):
            shape = tuple(n if a == axis % len(shape) else 0 for a, n in enumerate(shape))
        return Case(
            lambda x: function(x, axis),
            lambda x: reference(x, axis=axis),
            draw_inputs(choose, shape),
            f"axis={axis}",
            {"axis": axis},
        )


def softmax_by_definition(x: np.ndarray, axis: int) -> np.ndarray:
    """e^x / Σ e^x."""
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


along_one_axis(F.softmax, softmax_by_definition)
along_one_axis(F.log_softmax, lambda x, axis: np.log(softmax_by_definition(x, axis)))


def matmul_by_definition(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Σ over the inner axis, for vectors, matrices and stacks of them."""
    if a.ndim == 1 or b.ndim == 1:
        return np.dot(a, b) if b.ndim == 1 else np.einsum("k,...kn->...n", a, b)
    return np.einsum("...mk,...kn->...mn", a, b)


@spec("matmul")
def matmul_case(choose: Choices) -> Case:
    """Sizes that differ, 0 and 1 among them; stacks that broadcast; vectors on either side."""
    m, k, n = (choose.of(2, 3, 4, 1) for _ in range(3))
    if choose.yes(8):
        m, k, n = choose.of((0, k, n), (m, 0, n), (m, k, 0))
    stack = shapes(choose, most=2)
    a = (*broadcastable(choose, stack), m, k)
    b = (*broadcastable(choose, stack), k, n)
    a = (k,) if choose.yes(6) else a
    b = (k,) if choose.yes(6) else b
    return Case(F.matmul, matmul_by_definition, draw_inputs(choose, a, b))
