"""The specification of the ops that have no function of their own: those that others are made of.

Most are adjoints, and so stand in the backward of some function; but a fault in their own backward
shows only at second order there. Here they stand alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special

from minigan.ops.activation import Erf
from minigan.ops.conv import ConvWeight
from minigan.ops.pool import Fold, Unfold
from minigan.ops.shape import Putitem, sum_to
from minigan.ops.windows import Geometry
from minigan.specs import reference
from minigan.specs.case import Case, spec
from minigan.specs.choices import Choices
from minigan.specs.images import batch, image_sides, kernel_size, span
from minigan.specs.indexing import plain, some_index
from minigan.specs.values import as_pair, broadcastable, draw_inputs, shapes
from minigan.tensor import Tensor


@spec("ops.Erf", "op")
def erf_case(choose: Choices) -> Case:
    """The error function."""
    return Case(lambda x: Erf()(x), special.erf, draw_inputs(choose, shapes(choose)))


@spec("ops.Cast", "op")
def cast_case(choose: Choices) -> Case:
    """To the other width and back. Whole numbers and steps of 1: float32 rounds none of them."""
    array = np.random.default_rng(choose.seed()).integers(-9, 9, size=shapes(choose))

    def there_and_back(x: Tensor) -> Tensor:
        other = np.float32 if x.dtype == np.float64 else np.float64
        return x.astype(other).astype(x.dtype)

    inputs = (array.astype(np.float64),)
    return Case(there_and_back, lambda x: x * 1.0, inputs, "there and back", step=1.0)


@spec("ops.SumTo", "op")
def sum_to_case(choose: Choices) -> Case:
    """Down to any shape that broadcasts to that of x."""
    shape = shapes(choose, most=4)
    target = broadcastable(choose, shape)

    def reference_sum(x: np.ndarray) -> np.ndarray:
        y = np.zeros(target)
        for index in np.ndindex(x.shape):
            inner = index[len(shape) - len(target) :]
            y[tuple(i if n > 1 else 0 for i, n in zip(inner, target, strict=True))] += x[index]
        return y

    return Case(
        lambda x: sum_to(x, target), reference_sum, draw_inputs(choose, shape), f"to {target}"
    )


def for_op(index: Any, like: Tensor | None = None) -> Any:
    """Return an index as an op takes it: lists made arrays, on the device of `like`."""
    if isinstance(index, tuple):
        return tuple(for_op(part, like) for part in index)
    if not isinstance(index, (list, np.ndarray)):
        return index
    array = np.asarray(index)
    return array if like is None else like.backend.from_host(array)


@spec("ops.Putitem", "op")
def putitem_case(choose: Choices) -> Case:
    """Any index; what repeats is added."""
    shape = shapes(choose)
    index = for_op(plain(some_index(choose, shape)))
    places = np.arange(np.prod(shape, dtype=int)).reshape(shape)[index]

    def by_place(x: np.ndarray) -> np.ndarray:
        y = np.zeros(int(np.prod(shape)))
        for place, value in zip(np.ravel(places), x.ravel(), strict=True):
            y[place] += value
        return y.reshape(shape)

    return Case(
        lambda x: Putitem(index=for_op(index, x), shape=shape)(x),
        by_place,
        draw_inputs(choose, np.shape(places)),
        f"into {shape} at [{index}]",
    )


def some_geometry(choose: Choices, groups: int = 1) -> Geometry:
    """Return how a window moves."""
    options = choose.pair(1, 3), choose.pair(0, 2), choose.pair(1, 2)
    return Geometry(kernel_size(choose), *map(as_pair, options), groups)


def windows_by_definition(x: np.ndarray, g: Geometry) -> np.ndarray:
    """Cut out window after window."""
    padded = reference.padded(x, g.padding)
    (oh, ow), (kh, kw) = g.output_size(*x.shape[1:3]), g.kernel
    y = np.zeros((len(x), oh, ow, kh, kw, x.shape[3]))
    for i, j, a, b in np.ndindex(oh, ow, kh, kw):
        y[:, i, j, a, b] = padded[
            :, i * g.stride[0] + a * g.dilation[0], j * g.stride[1] + b * g.dilation[1]
        ]
    return y


@spec("ops.Unfold", "op")
def unfold_case(choose: Choices) -> Case:
    """The windows of images, overlapping or not, pixels left over or not."""
    g = some_geometry(choose)
    sides = image_sides(choose, span(g.kernel, g.dilation), g.padding)
    return Case(
        lambda x: Unfold(geometry=g)(x),
        lambda x: windows_by_definition(x, g),
        draw_inputs(choose, (batch(choose), *sides, choose.integer(1, 2))),
        f"{g}",
    )


@spec("ops.Fold", "op")
def fold_case(choose: Choices) -> Case:
    """Windows added back: the reference adds each element where `windows_by_definition` reads."""
    g = some_geometry(choose)
    sides = image_sides(choose, span(g.kernel, g.dilation), g.padding)
    shape = (batch(choose), *sides, choose.integer(1, 2))
    numbers = np.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape)
    places = windows_by_definition(numbers, g).astype(int)  # 0 is the padding

    def add_back(y: np.ndarray) -> np.ndarray:
        total = np.bincount(places.ravel(), y.ravel(), minlength=1 + numbers.size)
        return total[1:].reshape(shape)

    return Case(
        lambda y: Fold(geometry=g, size=sides)(y),
        add_back,
        draw_inputs(choose, places.shape),
        f"{g}",
    )


@spec("ops.ConvWeight", "op")
def conv_weight_case(choose: Choices) -> Case:
    """The gradient of a convolution's weight: each tap is a product of windows and outputs."""
    g = some_geometry(choose, choose.of(1, 2, 1, 3))
    sides = image_sides(choose, span(g.kernel, g.dilation), g.padding)
    n, c, o = batch(choose), choose.integer(1, 2), choose.integer(1, 2)
    out = (n, *g.output_size(*sides), o * g.groups)

    def tap_by_tap(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        cut = windows_by_definition(x, g)
        w = np.zeros((*g.kernel, c, o * g.groups))
        for group in range(g.groups):
            ins, outs = slice(group * c, (group + 1) * c), slice(group * o, (group + 1) * o)
            w[..., outs] = np.einsum("nijabc,nijo->abco", cut[..., ins], y[..., outs])
        return w

    return Case(
        lambda x, y: ConvWeight(geometry=g)(x, y),
        tap_by_tap,
        draw_inputs(choose, (n, *sides, c * g.groups), out),
        f"{g}",
    )
