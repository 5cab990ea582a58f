"""How the tests of the operations draw their inputs.

Hypothesis draws structure (shapes, axes, layouts in memory) and a seed; the numbers come from
`numpy.random.default_rng(seed)`, away from kinks by construction. Drawn one by one, most arrays
would be constant, and the shrinker would pull every number to 0, where half of the kinks are.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

SEEDS = st.integers(0, 2**32 - 1)
LAYOUTS = st.sampled_from(["C", "C", "transposed", "sliced", "reversed"])


class Case:
    """One way to call a function.

    Args:
        call: tensors in, tensor out.
        reference: the same for float64 arrays, by NumPy and SciPy alone.
        inputs: float64 arrays, some of them in odd memory layouts.
        note: the structure, for the report of a failure.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        reference: Callable[..., np.ndarray],
        inputs: tuple[np.ndarray, ...],
        note: str = "",
    ):
        self.call, self.reference, self.inputs, self.note = call, reference, inputs, note

    def __repr__(self):
        return f"Case({self.note}; shapes {', '.join(str(a.shape) for a in self.inputs)})"


# Numbers


def spread(rng, shape):
    """Either sign, sizes in [0.3, 1.8): no element is near zero."""
    return rng.choice([-1.0, 1.0], size=shape) * rng.uniform(0.3, 1.8, size=shape)


def positive(rng, shape):
    return rng.uniform(0.3, 2.0, size=shape)


def off_integers(rng, shape):
    """In [−3, 3), at least 0.2 from every integer: for kinks at 0 or at whole bounds."""
    return rng.integers(-3, 3, size=shape) + rng.uniform(0.2, 0.8, size=shape)


def near_integers(rng, shape):
    """Within 0.1 of an integer: at least 0.1 from all `off_integers`."""
    return rng.integers(-3, 4, size=shape) + rng.uniform(-0.1, 0.1, size=shape)


def distinct(rng, shape):
    """All at least 0.05 apart: no two can change places in a maximum."""
    size = int(np.prod(shape))
    ranks = rng.permutation(size) - size / 2
    return (0.1 * (ranks + rng.uniform(0, 0.5, size=size))).reshape(shape)


# Layouts in memory


def lay_out(array, layout):
    """Return the same numbers on memory that is not C-contiguous."""
    if layout == "transposed":
        return array.T.copy().T
    if layout == "sliced":
        room = np.full([2 * n for n in array.shape], np.nan)
        view = room[(..., *[slice(None, None, 2)] * array.ndim)]
        view[...] = array
        return view
    if layout == "reversed":
        return np.flip(np.flip(array).copy())
    return array


def draw_inputs(draw, *shapes, fill=spread):
    """Return one array of each shape, by one `fill` or one for each, in drawn layouts."""
    fills = fill if isinstance(fill, (list, tuple)) else [fill] * len(shapes)
    rng = np.random.default_rng(draw(SEEDS))
    return tuple(
        np.asarray(lay_out(np.asarray(make(rng, shape)), draw(LAYOUTS)))
        for make, shape in zip(fills, shapes, strict=True)
    )


# Structure


@st.composite
def shapes(draw, least=0, most=3, empty=True):
    """A shape of `least` to `most` axes; one axis may be of size 0."""
    shape = draw(st.lists(st.sampled_from([2, 3, 4, 1]), min_size=least, max_size=most))
    if empty and shape and draw(st.integers(0, 9)) == 9:
        shape[draw(st.integers(0, len(shape) - 1))] = 0
    return tuple(shape)


@st.composite
def broadcastable(draw, shape):
    """A shape that broadcasts to `shape`: leading axes left out, some others of size 1."""
    start = draw(st.integers(0, len(shape)))
    return tuple(1 if draw(st.integers(0, 2)) == 2 else n for n in shape[start:])


def either_sign(axis, ndim):
    """An axis, or the same counted from the end."""
    return st.sampled_from([axis, axis - ndim])


@st.composite
def one_axis(draw, ndim):
    return draw(either_sign(draw(st.integers(0, ndim - 1)), ndim))


@st.composite
def some_axes(draw, ndim):
    """None, one axis, or a tuple of axes in any order, counted from either end."""
    kind = draw(st.sampled_from(["one", "several", "none"]))
    if kind == "none" or ndim == 0:
        return None
    if kind == "one":
        return draw(one_axis(ndim))
    axes = draw(st.lists(st.integers(0, ndim - 1), unique=True, max_size=ndim))
    return tuple(draw(either_sign(a, ndim)) for a in axes)


def chosen(axis, ndim):
    """Return what `some_axes` drew as a set of non-negative numbers."""
    axes = range(ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    return {a % ndim for a in axes}


@st.composite
def reductions(draw, empty=True):
    """A shape, axes to reduce over that hold at least one element, and keepdims."""
    shape = list(draw(shapes(empty=False)))
    axis = draw(some_axes(len(shape)))
    others = sorted(set(range(len(shape))) - chosen(axis, len(shape)))
    if empty and others and draw(st.integers(0, 5)) == 5:
        shape[others[0]] = 0
    return tuple(shape), axis, draw(st.booleans())


PAIRS = st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3)))


def as_pair(value):
    return value if isinstance(value, tuple) else (value, value)


@st.composite
def small_pair(draw, least, most):
    """An int or a pair (vertical, horizontal)."""
    number = st.integers(least, most)
    return draw(st.one_of(number, st.tuples(number, number)))
