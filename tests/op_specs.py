"""The specification of the functions that work on arrays of any shape; images: `op_specs_images`.

`SPECS[name]` draws a `Case` for `minigan.functional.name`. The references are written from the
definitions, with NumPy and SciPy.
"""

import numpy as np
from hypothesis import strategies as st
from op_cases import (
    SEEDS,
    Case,
    broadcastable,
    chosen,
    distinct,
    draw_inputs,
    either_sign,
    near_integers,
    off_integers,
    one_axis,
    positive,
    reductions,
    shapes,
    some_axes,
    spread,
)
from scipy import special

import minigan as mg
from minigan import functional as F

SPECS = {}


def spec(name):
    """Register a function of `draw` as the way to draw cases for `F.name`."""

    def register(function):
        SPECS[name] = st.composite(function)()
        return function

    return register


# Element by element


def unary(function, reference, fill=spread, **options):
    """Register a function of one array that works on each element."""
    name = function.__name__

    def draw_case(draw):
        chosen_options = {key: draw(values) for key, values in options.items()}
        inputs = draw_inputs(draw, draw(shapes()), fill=fill)
        return Case(
            lambda x: function(x, **chosen_options),
            lambda x: reference(x, **chosen_options),
            inputs,
            f"{name} {chosen_options}",
        )

    spec(name)(draw_case)


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
    negative_slope=st.sampled_from([0.01, 0.2, 0, 1]),
)
unary(
    F.elu,
    lambda x, alpha: np.where(x > 0, x, alpha * (np.exp(x) - 1)),
    off_integers,
    alpha=st.sampled_from([1.0, 0.5, 2]),
)
unary(F.gelu, lambda x: x * special.ndtr(x))
unary(F.silu, lambda x: x * special.expit(x))
unary(F.tanh, lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)))
unary(F.sigmoid, special.expit)
unary(F.softplus, lambda x: np.logaddexp(0, x))


def binary(function, reference, fill_a=spread, fill_b=spread):
    """Register a function of two arrays that are broadcast together."""

    def draw_case(draw):
        shape = draw(shapes())
        a, b = draw(broadcastable(shape)), draw(broadcastable(shape))
        inputs = draw_inputs(draw, a, b, fill=(fill_a, fill_b))
        return Case(function, reference, inputs, function.__name__)

    spec(function.__name__)(draw_case)


binary(F.add, np.add)
binary(F.sub, np.subtract)
binary(F.mul, np.multiply)
binary(F.div, np.divide)
binary(F.maximum, lambda a, b: np.where(a > b, a, b), off_integers, near_integers)
binary(F.minimum, lambda a, b: np.where(a > b, b, a), off_integers, near_integers)


@spec("pow")
def pow_case(draw):
    kind = draw(st.sampled_from(["tensors", "number", "whole number"]))
    if kind == "tensors":
        shape = draw(shapes())
        both = draw(broadcastable(shape)), draw(broadcastable(shape))
        return Case(F.pow, np.power, draw_inputs(draw, *both, fill=(positive, spread)), kind)
    whole = kind == "whole number"
    exponent = draw(st.sampled_from([2, 3, -1, 1, 0, -2, 2.0] if whole else [0.5, -1.5, 2.7]))
    inputs = draw_inputs(draw, draw(shapes()), fill=spread if whole else positive)
    return Case(
        lambda x: F.pow(x, exponent),
        lambda x: np.power(x, float(exponent)),
        inputs,
        f"x ** {exponent!r}",
    )


@spec("clip")
def clip_case(draw):
    low, high = draw(st.sampled_from([(-1, 1), (0.0, None), (None, 2), (-2, 0), (1, 1)]))
    above, below = -np.inf if low is None else low, np.inf if high is None else high
    return Case(
        lambda x: F.clip(x, low, high),
        lambda x: np.minimum(np.maximum(x, above), below),
        draw_inputs(draw, draw(shapes()), fill=off_integers),
        f"clip low={low} high={high}",
    )


@spec("where")
def where_case(draw):
    shape = draw(shapes())
    a, b, c = (draw(broadcastable(shape)) for _ in range(3))
    condition = np.random.default_rng(draw(SEEDS)).random(c) < 0.5

    def reference(a, b):
        weight = condition.astype(float)
        return weight * a + (1 - weight) * b

    as_tensor = draw(st.booleans())
    return Case(
        lambda a, b: F.where(mg.Tensor(condition) if as_tensor else condition, a, b),
        reference,
        draw_inputs(draw, a, b),
        f"where condition {c}",
    )


@spec("dropout")
def dropout_case(draw):
    p, training = draw(st.sampled_from([0.5, 0.1, 0.9, 0])), draw(st.sampled_from([True, False]))
    seed = draw(SEEDS)

    def call(x):
        mg.manual_seed(seed)
        return F.dropout(x * 1.0, p, training)

    def reference(x):
        kept = np.random.default_rng(seed).random(x.shape, dtype=np.float32) >= p
        return np.where(kept, x / (1 - p), 0) if training else x

    inputs = draw_inputs(draw, draw(shapes()))
    return Case(call, reference, inputs, f"dropout p={p} training={training}")


# Reductions


def reduction(function, reference, fill=spread):
    def draw_case(draw):
        shape, axis, keepdims = draw(reductions())
        return Case(
            lambda x: function(x, axis, keepdims),
            lambda x: reference(x, axis=axis, keepdims=keepdims),
            draw_inputs(draw, shape, fill=fill),
            f"{function.__name__} axis={axis} keepdims={keepdims}",
        )

    spec(function.__name__)(draw_case)


reduction(F.mean, np.mean)
reduction(F.max, np.max, distinct)
reduction(F.min, np.min, distinct)
reduction(F.logsumexp, lambda x, axis, keepdims: np.log(np.sum(np.exp(x), axis, keepdims=keepdims)))


@spec("sum")
def sum_case(draw):
    shape = draw(shapes())  # a sum over nothing is 0
    axis, keepdims = draw(some_axes(len(shape))), draw(st.booleans())
    return Case(
        lambda x: F.sum(x, axis, keepdims),
        lambda x: np.sum(x, axis=axis, keepdims=keepdims),
        draw_inputs(draw, shape),
        f"sum axis={axis} keepdims={keepdims}",
    )


@spec("var")
def var_case(draw):
    shape, axis, keepdims = draw(reductions())
    count = np.prod([shape[a] for a in chosen(axis, len(shape))])
    correction = draw(st.sampled_from([1, 0] if count > 1 else [0]))
    return Case(
        lambda x: F.var(x, axis, keepdims, correction),
        lambda x: np.var(x, axis=axis, keepdims=keepdims, ddof=correction),
        draw_inputs(draw, shape),
        f"var axis={axis} keepdims={keepdims} correction={correction}",
    )


def along_one_axis(function, reference):
    def draw_case(draw):
        shape = draw(shapes(least=1, empty=False))
        axis = draw(one_axis(len(shape)))
        if len(shape) > 1 and draw(st.integers(0, 9)) == 9:
            shape = tuple(n if a == axis % len(shape) else 0 for a, n in enumerate(shape))
        return Case(
            lambda x: function(x, axis),
            lambda x: reference(x, axis=axis),
            draw_inputs(draw, shape),
            f"{function.__name__} axis={axis}",
        )

    spec(function.__name__)(draw_case)


def softmax_by_definition(x, axis):
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


along_one_axis(F.softmax, softmax_by_definition)
along_one_axis(F.log_softmax, lambda x, axis: np.log(softmax_by_definition(x, axis)))


# Products


@spec("matmul")
def matmul_case(draw):
    m, k, n = (draw(st.sampled_from([2, 3, 4, 1, 0])) for _ in range(3))
    stack = draw(shapes(most=2))
    a, b = (*draw(broadcastable(stack)), m, k), (*draw(broadcastable(stack)), k, n)
    a = (k,) if draw(st.integers(0, 5)) == 5 else a
    b = (k,) if draw(st.integers(0, 5)) == 5 else b

    def reference(a, b):
        if a.ndim == 1 or b.ndim == 1:
            return np.dot(a, b) if b.ndim == 1 else np.einsum("k,...kn->...n", a, b)
        return np.einsum("...mk,...kn->...mn", a, b)

    return Case(F.matmul, reference, draw_inputs(draw, a, b), "matmul")


# Moving numbers about: the index of each result is worked out by hand where that is short


@spec("broadcast_to")
def broadcast_to_case(draw):
    target = draw(shapes(most=4))
    return Case(
        lambda x: F.broadcast_to(x, target),
        lambda x: x * np.ones(target),
        draw_inputs(draw, draw(broadcastable(target))),
        f"broadcast_to {target}",
    )


@spec("reshape")
def reshape_case(draw):
    shape = draw(shapes())
    pieces = [f for n in shape for f in ((2, 2) if n == 4 else (n,))]
    target = draw(st.permutations(pieces))
    if target and 0 not in target and draw(st.booleans()):
        target = [*target[:-1], -1]
    return Case(
        lambda x: F.reshape(x, target),
        lambda x: np.array(list(x.flat)).reshape(target),
        draw_inputs(draw, shape),
        f"reshape to {target}",
    )


@spec("transpose")
def transpose_case(draw):
    shape = draw(shapes(most=4))
    order = draw(st.one_of(st.none(), st.permutations(range(len(shape)))))
    axes = None if order is None else [draw(either_sign(a, len(shape))) for a in order]
    letters = "abcd"[: len(shape)]
    moved = letters[::-1] if order is None else "".join(letters[a] for a in order)
    return Case(
        lambda x: F.transpose(x, axes),
        lambda x: np.einsum(f"{letters}->{moved}", x),
        draw_inputs(draw, shape),
        f"transpose {axes}",
    )


@spec("squeeze")
def squeeze_case(draw):
    shape = draw(shapes(most=4))
    ones = [a for a, n in enumerate(shape) if n == 1]
    axis = draw(st.one_of(st.none(), st.sets(st.sampled_from(ones)) if ones else st.just(())))
    if axis is not None:
        axis = tuple(draw(either_sign(a, len(shape))) for a in axis)
        axis = axis[0] if len(axis) == 1 and draw(st.booleans()) else axis
    return Case(
        lambda x: F.squeeze(x, axis),
        lambda x: np.squeeze(x, axis),
        draw_inputs(draw, shape),
        f"squeeze {axis}",
    )


@spec("expand_dims")
def expand_dims_case(draw):
    shape = draw(shapes())
    new = draw(st.sets(st.integers(0, len(shape)), min_size=1, max_size=2))
    ndim = len(shape) + len(new)
    axis = tuple(draw(either_sign(a, ndim)) for a in new)
    axis = axis[0] if len(axis) == 1 and draw(st.booleans()) else axis
    return Case(
        lambda x: F.expand_dims(x, axis),
        lambda x: np.expand_dims(x, axis),
        draw_inputs(draw, shape),
        f"expand_dims {axis}",
    )


@spec("flip")
def flip_case(draw):
    shape = draw(shapes())
    axis = draw(some_axes(len(shape)))

    def reference(x):
        for a in chosen(axis, x.ndim):
            x = np.take(x, range(x.shape[a])[::-1], axis=a) if x.shape[a] else x
        return x

    return Case(lambda x: F.flip(x, axis), reference, draw_inputs(draw, shape), f"flip {axis}")
