"""Gradcheck where rounding gets in the way: flat, small, large, and numbers that cancel."""

import contextlib

import numpy as np
import pytest
from test_gradcheck import Forgets, OneElementZeroed, Slightly, Square, W, WrongSign, X

import minigan as mg
from minigan import functional as F
from minigan.gradcheck import GradcheckError, KinkError, Unmeasurable, gradcheck

RNG = np.random.default_rng(0)


# Numbers that differences cannot measure, and those that they can


def square(x):
    return Square()(x)


def forgets(x):
    return Forgets()(x)


SWAMPED = r"too flat or too large to measure: rescale it, or choose another step"


@pytest.mark.parametrize("op", [Square, Forgets])
@pytest.mark.parametrize(
    ("around", "scale"),
    [
        (lambda y: y + 1e12, 1),
        (lambda y: y + 1e16, 1),
        (lambda y: y * 1e-9 + 1.0, 1),
        (lambda y: y * 1e-18 + 1.0, 1),
        (lambda y: y.sum() + 1e16, 1),
        (lambda y: y, 1e13),
        (lambda y: y * 1e-20, 1e13),
        (lambda y: F.tanh(y * 1e-26), 1e13),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_what_drowns_in_rounding_gets_no_verdict(op, around, scale, seed):
    """Whether backward is right or returns zeros."""
    with pytest.raises(Unmeasurable, match=SWAMPED):
        gradcheck(lambda x: around(op()(x)), [X * scale], seed=seed)


@pytest.mark.parametrize(
    ("around", "scale"),
    [
        (lambda y: y * 1e-12, 1),
        (lambda y: y * 1e-200, 1),
        (lambda y: y * 1e200, 1),
        (lambda y: y.sum() * 1e-12, 1),
        (lambda y: y, 1e-10),
        (lambda y: y, 1e-13),
        (lambda y: y * 1e-3, 1e5),
        (lambda y: y * 1e-30, 1e-5),
    ],
)
@pytest.mark.parametrize("order", [1, 2])
def test_small_and_large_numbers_are_measured_on_their_own_scale(around, scale, order):
    for seed in range(3):
        assert gradcheck(lambda x: around(Square()(x)), [X * scale], order, seed) < 0.5
        for op in (Forgets, WrongSign, Slightly, OneElementZeroed):
            if op is Slightly and not 1e-12 < scale < 1e3:  # rounding is worth that much there
                continue
            with pytest.raises(GradcheckError, match="backward disagrees"):
                gradcheck(lambda x, op=op: around(op()(x)), [X * scale], order, seed)


def test_another_step_measures_what_this_one_cannot():
    with pytest.raises(Unmeasurable, match=r"input 0, element .*, is .*e.13, and a step of 0.0001"):
        gradcheck(square, [X * 1e13])
    assert gradcheck(square, [X * 1e13], step=1e10) < 1
    with pytest.raises(GradcheckError):
        gradcheck(forgets, [X * 1e13], step=1e10)


class Nothing(mg.Op):
    """Zero, of which zero is the gradient."""

    def forward(self, x):
        return x * 0

    def backward(self, gy):
        return gy * 0.0


class SumOfSoftmax(mg.Op):
    """One, but for a rounding here and there; so its gradient is zero."""

    def forward(self, x):
        y = np.exp(x - x.max(1, keepdims=True))
        return (y / y.sum(1, keepdims=True)).sum(1)

    def backward(self, gy):
        return F.broadcast_to(gy.reshape((-1, 1)), self.shapes[0]) * 0.0


CONSTANT = {
    "zero": lambda x: Nothing()(x),
    "0 * x": lambda x: x * 0.0,
    "0 * x + 300": lambda x: x * 0.0 + 300.0,
    "0 * x + 1e15": lambda x: x * 0.0 + 1e15,
    "relu": lambda x: F.relu(-x),
    "relu + 1": lambda x: F.relu(-x) + 1.0,
    "clip": lambda x: F.clip(x, -3, 0.25),
    "clip of several": lambda x: F.clip(x * 1e4, 0, 1).sum(),
    "x ** 0": lambda x: x**0,
    "softmax of one": lambda x: F.softmax(x.reshape((-1, 1))),
    "sum of a softmax": lambda x: SumOfSoftmax()(x),
    "another's": lambda x: mg.tensor(np.ones(3), dtype=np.float64),
    "maximum": lambda x: F.maximum(x, 1e6),
}


@pytest.mark.parametrize("function", CONSTANT.values(), ids=CONSTANT)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_what_is_constant_has_a_zero_gradient(function, order):
    for seed in range(3):
        gradcheck(function, [X], order, seed)


def test_numbers_that_cancel_on_the_way_are_no_kink():
    """Of two pixels each is ±1 when normalised: its slope is what the rounding of 1 leaves."""
    for seed in range(20):
        one, other = np.random.default_rng(seed).uniform(0.4, 2, (2, 2, 1, 1, 3))
        x = np.concatenate([one, -other], axis=1)
        assert gradcheck(F.instance_norm, [x], order=2, seed=seed) < 1


@pytest.mark.parametrize("op", [Square, Forgets])
@pytest.mark.parametrize("seed", range(5))
def test_a_slope_that_drowns_in_rounding_on_the_way_gets_no_verdict(op, seed):
    """The value is small, and the difference of two that are 1, but for a rounding."""

    def function(x):
        return op()(x[:, 0]) * 1e-13 + (SumOfSoftmax()(x) - 1.0)

    with pytest.raises(Unmeasurable, match=f"{SWAMPED}|noisy"):
        gradcheck(function, [X], seed=seed)


class Constant(mg.Op):
    """Does not move, and says that it does, a little."""

    value = 0.0

    def forward(self, x):
        return x * 0 + self.value

    def backward(self, gy):
        return gy * 1e-5


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_with_a_gradient_is_noticed(value):
    with pytest.raises(GradcheckError, match=r"backward says -?\S+e-0\d, differences say -?0 "):
        gradcheck(lambda x: Constant(value=value)(x), [X])


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_a_minimum_has_a_zero_gradient(order, seed):
    for function in (lambda x: (x - X) ** 2, lambda x: ((x - X) ** 2).sum() + 1.0):
        assert gradcheck(function, [X], order, seed) < 1
    for function in (lambda x: x * x, lambda x: F.tanh(x) ** 2, lambda x: 1e-9 * F.tanh(x) ** 2):
        assert gradcheck(function, [X * 0], order, seed) < 1


def test_a_slope_that_cancels_along_a_line_is_no_small_slope():
    """Scalars, whose parts nearly cancel along some of many directions."""
    for seed in range(300):
        assert gradcheck(lambda x: (x * W[:2]).sum(), [X[0, :2]], seed=seed) < 1
        assert gradcheck(lambda x: F.tanh(x).sum() - 1.5, [X[0, :2]], seed=seed) < 1


# The edge of a domain


@pytest.mark.parametrize(
    ("function", "x", "words"),
    [
        (F.log, 1e-5, r"input 1, element \(2,\): 1e-05 moved to -\S+ gives NaN"),
        (F.sqrt, 5e-5, r"input 1, element \(2,\): 5e-05 moved to -\S+ gives NaN"),
        (F.exp, 709.7827, r"input 1, element \(2,\): 709.7827 moved to 709.7\d+ gives Inf"),
    ],
)
def test_the_edge_of_a_domain_is_no_kink(function, x, words):
    point = np.array([0.5, 0.7, x])
    with pytest.raises(Unmeasurable, match=words) as caught:
        gradcheck(lambda a, b: a + function(b), [W[:3], point])
    assert not isinstance(caught.value, KinkError)
    assert "gradcheck, order 1: the function is not finite beside the point:\n" in str(caught.value)
    assert "move the inputs away from there, or choose a smaller step" in str(caught.value)


def test_the_edge_of_a_domain_that_no_element_crosses_alone():
    def ratio(x, y):
        return F.log(x + y)

    found = []
    for seed in range(20):
        with pytest.raises(Unmeasurable) as caught:  # or a kink, if the line stays inside
            gradcheck(ratio, [np.array([-1.0]), np.array([1.00016])], seed=seed)
        found.append("not for one element alone, but with all inputs moved" in str(caught.value))
    assert any(found)
    assert not all(found)


# Functions made of large numbers that cancel: their rounding is wider than that of the inputs


def shifted_logsumexp(x):
    return F.log(F.exp((x + 1e5) - 1e5).sum(1)) + 1e4


def variance(x):
    return (x * x).mean(0) - x.mean(0) ** 2


CANCELLING = {
    "x + 1e5 - 1e5": (lambda x: (x + 1e5) - 1e5, 0, 1),
    "log": (lambda x: (x * 1e-5 + 1).log() * 1e5, 0, 1),
    "exp": (lambda x: ((x * 1e-5).exp() - 1) * 1e5, 0, 1),
    "a part": (lambda x: F.tanh(x) + ((x + 1e5) - 1e5), 0, 1),
    "variance": (variance, 100, 2),
    "softplus": (lambda x: F.softplus(x + 3e4) - 3e4, 0, 1),
    "logsumexp": (shifted_logsumexp, 0, 2),
    "sqrt": (lambda x: (F.sqrt(x * 1e-5 + 1) - 1) * 1e5, 0, 2),
}


@pytest.mark.parametrize(("function", "shift", "order"), CANCELLING.values(), ids=CANCELLING)
def test_a_right_gradient_of_numbers_that_cancel_passes(function, shift, order):
    for seed in range(20):
        x = np.random.default_rng(seed).normal(size=(3, 4)) + shift
        assert gradcheck(function, [x], order, seed) < 1
        for op in (Forgets, WrongSign, OneElementZeroed):

            def wrong(x, op=op):
                return F.concatenate([F.tanh(op()(x - shift)).reshape(-1), function(x).reshape(-1)])

            with pytest.raises(GradcheckError, match="backward disagrees"):
                gradcheck(wrong, [x], 1, seed)


@pytest.mark.parametrize("digits", range(6, 17))
def test_numbers_that_cancel_almost_or_altogether_are_never_a_wrong_gradient(digits):
    for seed in range(60):
        x = np.random.default_rng(seed).normal(size=(3, 4))
        with contextlib.suppress(Unmeasurable):
            gradcheck(lambda x: (x + 10.0**digits) - 10.0**digits, [x], seed=seed)


@pytest.mark.parametrize("digits", [7.5, 11, 11.5, 12.5])
def test_one_number_that_cancels_is_never_a_wrong_gradient(digits):
    for seed in range(150):
        x = np.random.default_rng(seed).normal(size=1)
        with contextlib.suppress(Unmeasurable):
            gradcheck(lambda x: (x + 10.0**digits) - 10.0**digits, [x], seed=seed)


class Sine(mg.Op):
    factor = 1.0

    def forward(self, x):
        self.save(0)
        return np.sin(x)

    def backward(self, gy):
        return gy * np.cos(self.saved()[0].data) * self.factor


@pytest.mark.parametrize("seed", range(10))
def test_a_fast_wave_is_no_noise(seed):
    """At the usual step it looks like noise; at one that is short for it, it is judged."""
    x = np.random.default_rng(seed).normal(size=(3, 4))
    with pytest.raises(KinkError):
        gradcheck(lambda x: Sine()(x * 1e8) / 1e8, [x], seed=seed)
    assert gradcheck(lambda x: Sine()(x * 1e3) / 1e3, [x], seed=seed, step=1e-7) < 1
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: Sine(factor=1.001)(x * 1e3) / 1e3, [x], seed=seed, step=1e-7)
