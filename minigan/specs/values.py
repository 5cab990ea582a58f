"""The numbers of a case and how they lie in memory; shapes and axes to choose.

Numbers come from a generator, away from kinks by construction. Drawn one by one by hypothesis most
arrays would be constant, and its shrinker would pull every number to 0, where half of the kinks
are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigan.specs.choices import Choices

Shape = tuple[int, ...]
Fill = Callable[[np.random.Generator, Shape], np.ndarray]

# Numbers


def spread(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Either sign, sizes in [0.3, 1.8): no element is near zero."""
    return rng.choice([-1.0, 1.0], size=shape) * rng.uniform(0.3, 1.8, size=shape)


def positive(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """In [0.3, 2)."""
    return rng.uniform(0.3, 2.0, size=shape)


def unit(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """In [0.1, 0.9): probabilities."""
    return rng.uniform(0.1, 0.9, size=shape)


def off_integers(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """In [−3, 3), at least 0.2 from every integer: for kinks at 0 or at whole bounds."""
    return rng.integers(-3, 3, size=shape) + rng.uniform(0.2, 0.8, size=shape)


def near_integers(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Within 0.1 of an integer: at least 0.1 from all `off_integers`."""
    return rng.integers(-3, 4, size=shape) + rng.uniform(-0.1, 0.1, size=shape)


def distinct(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """All at least 0.05 apart: no two can change places in a maximum."""
    size = int(np.prod(shape))
    ranks = rng.permutation(size) - size / 2
    return (0.1 * (ranks + rng.uniform(0, 0.5, size=size))).reshape(shape)


def varied(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """All distinct, and their variance well over zero: what can be normalised in good condition."""
    return 2 * distinct(rng, shape) + 0.5


def small(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Of either sign, sizes in [0.1, 0.4): weights and scales."""
    return rng.choice([-1.0, 1.0], size=shape) * rng.uniform(0.1, 0.4, size=shape)


def far(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Of either sign, sizes in [4, 5): shifts that keep a channel on one side of a kink at 0."""
    return rng.choice([-1.0, 1.0], size=shape) * rng.uniform(4, 5, size=shape)


MUST_DIFFER = (distinct, varied)  # equal numbers would be a kink, or have no variance

# Layouts in memory

LAYOUTS = ("C", "Fortran", "transposed", "sliced", "offset", "reversed")


def lay_out(array: np.ndarray, layout: str) -> np.ndarray:
    """Return the same numbers on memory of that layout.

    "repeated" has strides of 0: the numbers along the first axis become those of its first entry.
    """
    array = np.asarray(array)
    if layout == "Fortran":
        return array.copy(order="F")
    if layout == "transposed" and array.ndim > 1:
        return np.swapaxes(np.swapaxes(array, 0, -1).copy(), 0, -1)
    if layout == "sliced":
        room = np.full([2 * n for n in array.shape], np.nan)
        view = room[(..., *[slice(None, None, 2)] * array.ndim)]
        view[...] = array
        return view
    if layout == "offset":
        room = np.full(array.size + 3, np.nan)
        view = room[3:].reshape(array.shape)
        view[...] = array
        return view
    if layout == "reversed":
        return np.asarray(np.flip(np.flip(array).copy()))
    if layout == "repeated" and array.ndim and array.shape[0]:
        return np.broadcast_to(array[:1].copy(), array.shape)
    return array


def draw_inputs(
    choose: Choices, *shapes: Shape, fill: Fill | tuple[Fill, ...] = spread
) -> tuple[np.ndarray, ...]:
    """Return one array of each shape, by one `fill` or one for each, in chosen layouts."""
    fills = fill if isinstance(fill, tuple) else (fill,) * len(shapes)
    rng = np.random.default_rng(choose.seed())
    arrays = []
    for make, shape in zip(fills, shapes, strict=True):
        layouts = LAYOUTS if make in MUST_DIFFER else (*LAYOUTS, "repeated")
        layout = "C" if choose.yes() else choose.of(*layouts)
        arrays.append(lay_out(make(rng, shape), layout))
    return tuple(arrays)


# Structure


def shapes(choose: Choices, least: int = 0, most: int = 3, empty: bool = True) -> Shape:
    """Return a shape of `least` to `most` axes; one axis may be of size 0."""
    shape = [choose.of(2, 3, 4, 1) for _ in range(choose.integer(least, most))]
    if empty and shape and choose.yes(10):
        shape[choose.integer(0, len(shape) - 1)] = 0
    return tuple(shape)


def broadcastable(choose: Choices, shape: Shape) -> Shape:
    """Return a shape that broadcasts to `shape`: axes left out in front, some others of size 1."""
    start = choose.integer(0, len(shape)) if choose.yes(3) else 0
    return tuple(1 if choose.yes(3) else n for n in shape[start:])


def either_sign(choose: Choices, axis: int, ndim: int) -> int:
    """Return an axis, or the same counted from the end."""
    return choose.of(axis, axis - ndim)


def one_axis(choose: Choices, ndim: int) -> int:
    """Return one axis, counted from either end."""
    return either_sign(choose, choose.integer(0, ndim - 1), ndim)


def some_axes(choose: Choices, ndim: int) -> Any:
    """Return None, one axis, or a tuple of axes in any order, counted from either end."""
    kind = choose.of("one", "several", "none")
    if kind == "none" or ndim == 0:
        return None
    if kind == "one":
        return one_axis(choose, ndim)
    return tuple(either_sign(choose, a, ndim) for a in choose.some(range(ndim)))


def chosen(axis: Any, ndim: int) -> set[int]:
    """Return what `some_axes` gave as a set of non-negative numbers."""
    axes = range(ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    return {a % ndim for a in axes}


def reduced(choose: Choices) -> tuple[Shape, Any, bool]:
    """Return a shape, axes to reduce over that hold at least one element, and keepdims."""
    shape = list(shapes(choose, empty=False))
    axis = some_axes(choose, len(shape))
    others = sorted(set(range(len(shape))) - chosen(axis, len(shape)))
    if others and choose.yes(6):
        shape[others[0]] = 0
    return tuple(shape), axis, choose.yes()


def as_pair(value: Any) -> tuple:
    """Return a number as a pair of it."""
    return value if isinstance(value, tuple) else (value, value)
