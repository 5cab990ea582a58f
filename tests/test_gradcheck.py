"""The public gradient checker finds wrong gradients, says where, and refuses bad questions."""

import contextlib
import re

import numpy as np
import pytest

import minigan as mg
from minigan import functional as F
from minigan.gradcheck import GradcheckError, KinkError, Unmeasurable, gradcheck
from minigan.gradcheck.differences import bounded
from minigan.ops.reduction import Sum

RNG = np.random.default_rng(0)
X, W = RNG.uniform(0.5, 2, (3, 4)), RNG.uniform(0.5, 2, (4,))


class Square(mg.Op):
    """y = x², right."""

    def forward(self, x):
        self.save(0)
        return x * x

    def backward(self, gy):
        (x,) = self.saved()
        return gy * x * 2.0


class WrongSign(Square):
    def backward(self, gy):
        return -super().backward(gy)


class Slightly(Square):
    def backward(self, gy):
        return super().backward(gy) * (1 + 1e-6)


class Forgets(Square):
    def backward(self, gy):
        return gy * 0.0


class OneElementZeroed(Square):
    def backward(self, gy):
        keep = np.ones(gy.shape)
        keep[1, 2] = 0
        return super().backward(gy) * keep


class RawArray(Square):
    """Right at first order; at second order x is a constant to it."""

    def backward(self, gy):
        (x,) = self.saved()
        return gy * (x.data * 2)


class NotANumber(Square):
    def backward(self, gy):
        return super().backward(gy) * np.nan


class Fused(Square):
    def fused_backward(self, gy):
        return gy * self.saved()[0].data * 2.000002


class SoftmaxOfZero(mg.Op):
    """Softmax whose backward returns zero: right under a cotangent of ones."""

    def forward(self, x):
        y = np.exp(x)
        return y / y.sum(axis=1, keepdims=True)

    def backward(self, gy):
        return gy * 0.0


class BatchNormOfZero(SoftmaxOfZero):
    """The same for a normalisation, whose gradient under ones is zero as well."""

    def forward(self, x):
        return (x - x.mean(0)) / x.std(0)


class WrongAxis(mg.Op):
    """A square matrix times a row, summed back over the other axis: of the right shape."""

    def forward(self, x, row):
        self.save(0, 1)
        return x * row

    def backward(self, gy):
        x, row = self.saved()
        return gy * row, (gy * x).sum(1)


class ForgetsTheMean(Sum):
    """A mean whose backward is that of a sum."""

    def forward(self, x):
        return super().forward(x) / x.shape[1]


@pytest.mark.parametrize(
    ("op", "order"),
    [
        (WrongSign, 1),
        (Slightly, 1),
        (Forgets, 1),
        (OneElementZeroed, 1),
        (NotANumber, 1),
        (Fused, 1),
        (SoftmaxOfZero, 1),
        (BatchNormOfZero, 1),
        (RawArray, 2),
    ],
)
def test_a_wrong_gradient_is_noticed(op, order):
    if order == 2:
        gradcheck(lambda x: op()(x), [X])
    with pytest.raises(GradcheckError, match=f"gradcheck, order {order}: backward disagrees"):
        gradcheck(lambda x: op()(x), [X], order=order)
    with pytest.raises(GradcheckError):  # whatever the seed, and behind other operations
        gradcheck(lambda x: F.tanh(op()(x * 0.5)), [X], order=order, seed=1)


@pytest.mark.parametrize("seed", range(5))
def test_a_wrong_gradient_of_one_input_of_two_is_noticed(seed):
    with pytest.raises(GradcheckError, match=r"input 1, element \(\d,\)"):
        gradcheck(lambda x, row: WrongAxis()(x, row), [X[:, :3], W[:3]], seed=seed)


def test_a_wrong_factor_is_noticed():
    op = {"axes": (1,), "keepdims": False}
    with pytest.raises(GradcheckError, match=r"12 of 12 elements are off; inputs \(3, 4\)"):
        gradcheck(lambda x: ForgetsTheMean(**op)(x), [X])


def test_the_message_names_the_input_the_element_and_both_values():
    with pytest.raises(GradcheckError) as caught:
        gradcheck(lambda w, x: F.sum(OneElementZeroed()(x)) + w.sum(), [W, X])
    message = str(caught.value)
    found = re.search(
        r"input 1, element \(1, 2\): backward says (\S+), differences say (\S+) ", message
    )
    assert float(found[1]) == 0
    assert abs(float(found[2])) > 0.5  # the cotangent is at least 0.5, and 2x at least 1
    assert "1 of 16 elements are off; inputs (4,), (3, 4)" in message
    assert message.endswith("function <lambda>, seed 0")


def test_the_message_names_the_function_and_the_seed():
    def mine(x):
        return Slightly()(x)

    with pytest.raises(GradcheckError, match="function mine, seed 7"):
        gradcheck(mine, [X], seed=7)


def test_the_bound_does_not_grow_with_a_constant():
    """A large part that does not move tells nothing about a small one that does."""
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: F.concatenate([Slightly()(x), x.detach() * 0.0 + 300.0]), [X])


def test_a_right_gradient_passes_and_the_worst_error_is_returned():
    for order in (1, 2, 3):
        assert 0 <= gradcheck(lambda x: Square()(x), [X], order=order) < 0.5
    assert gradcheck(lambda x: Square()(x), X) < 0.5  # a single array, and a tensor
    assert gradcheck(lambda x: Square()(x), mg.tensor(X, dtype=np.float64)) < 0.5


def test_the_inputs_are_left_as_they_were():
    x, leaf = X.copy(), mg.tensor(X, dtype=np.float64, requires_grad=True)
    gradcheck(lambda a, b: (a * b).sum(), [x, leaf], order=2)
    assert np.array_equal(x, X)
    assert np.array_equal(leaf.numpy(), X)
    assert leaf.grad is None


def test_parameters_that_are_closed_over_keep_their_gradient():
    weight = mg.tensor(W, dtype=np.float64, requires_grad=True)
    weight.grad = np.ones(4)
    gradcheck(lambda x: x * weight, [X], order=2)
    assert weight.grad.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: x + w,
        lambda x, w: x * 2.0,
        lambda x, w: mg.tensor(np.ones(3), dtype=np.float64),
        lambda x, w: F.where(np.eye(3, 4) > 0, x, 0.0),
    ],
)
def test_what_is_linear_or_constant_or_ignores_an_input_passes_every_order(function):
    gradcheck(function, [X, W], order=3)


def test_an_ignored_dependence_is_noticed():
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: x.detach() * 2.0, [X])


def test_no_elements_are_no_error():
    gradcheck(lambda x: x * x, [np.zeros((0, 3))], order=2)


@pytest.mark.parametrize(
    "function", [F.relu, F.abs, lambda x: F.clip(x, -2, 0), lambda x: F.relu(x) * 1e-12]
)
@pytest.mark.parametrize("offset", [0.0, 3e-5, -1e-4])
def test_a_kink_is_told_from_a_wrong_gradient(function, offset):
    x = np.array([0.7, offset, -0.3])
    with pytest.raises(KinkError, match=r"h = 0.0001 and h/2 disagree .* at or near a kink"):
        gradcheck(function, [x])
    gradcheck(function, [np.array([0.7, 1e-3, -0.3])])


def test_noise_is_told_from_a_wrong_gradient():
    def rounded(x):
        return x * 1e-3 + x.astype(np.float32).astype(np.float64)

    with pytest.raises(KinkError, match="noisy"):
        gradcheck(rounded, [X])


@pytest.mark.parametrize("order", [0, -1])
def test_order_below_one_is_refused(order):
    with pytest.raises(ValueError, match=f"gradcheck: order must be at least 1, got {order}"):
        gradcheck(F.exp, [X], order=order)


@pytest.mark.parametrize(
    ("function", "inputs", "kind", "words"),
    [
        (F.exp, [], ValueError, "gradcheck: no inputs given"),
        (
            F.mul,
            [X, X.astype(np.float32)],
            TypeError,
            "gradcheck: input 1 is float32; differences need float64",
        ),
        (F.exp, [mg.tensor(X)], TypeError, "gradcheck: input 0 is float32"),
        (F.exp, [np.arange(3)], TypeError, "input 0 is int64; .* integers have no gradient"),
        (F.exp, [np.array([1.0, np.nan])], ValueError, "gradcheck: input 0 holds NaN or Inf"),
        (F.exp, [np.array([np.inf])], ValueError, "gradcheck: input 0 holds NaN or Inf"),
        (lambda x: x.numpy(), [X], TypeError, "the function returned ndarray, no Tensor"),
        (lambda x: None, [X], TypeError, "the function returned NoneType, no Tensor"),
        (
            lambda x: x.astype(np.float32),
            [X],
            TypeError,
            "the function returned float32, not float64",
        ),
        (lambda x: x * np.inf, [X], ValueError, "gradcheck: the function returns NaN or Inf"),
        (
            lambda x: F.dropout(x, 0.5),
            [X],
            ValueError,
            "gradcheck: the function gives different values for the same inputs",
        ),
    ],
)
def test_what_cannot_be_checked_is_refused(function, inputs, kind, words):
    with pytest.raises(kind, match=words):
        gradcheck(function, inputs)


def test_the_public_name_and_its_error():
    assert mg.gradcheck is gradcheck
    assert mg.GradcheckError is GradcheckError
    assert issubclass(GradcheckError, AssertionError)
    assert issubclass(KinkError, ValueError)


def test_a_failure_on_a_large_input_is_located_on_a_sample_of_it():
    class Wrong(mg.Op):
        def forward(self, x):
            return x * x

        def backward(self, gy):
            return gy * 0.0

    with pytest.raises(mg.GradcheckError, match="2000 of 2000 elements looked at are off"):
        mg.gradcheck(lambda x: Wrong()(x), np.ones(5000))


def test_a_nan_is_the_element_furthest_off():
    class Holed(mg.Op):
        def forward(self, x):
            self.save(0)
            return x * x * 0.5

        def backward(self, gy):
            (x,) = self.saved()
            mask = np.ones(x.shape)
            mask[0, 1] = np.nan
            return gy * x * mask

    with pytest.raises(mg.GradcheckError, match=r"worst: input 0, element \(0, 1\): .* says nan"):
        mg.gradcheck(lambda x: Holed()(x), np.ones((2, 3)))


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


# Options that make no sense, inputs that are none


@pytest.mark.parametrize("name", ["step", "tolerance"])
@pytest.mark.parametrize("value", [0, 0.0, -1e-4, np.nan, np.inf, -np.inf, "1e-4", None])
def test_a_step_or_tolerance_that_is_no_positive_number_is_refused(name, value):
    with pytest.raises(ValueError, match=f"gradcheck: {name} must be a positive number, got "):
        gradcheck(F.exp, [X], **{name: value})


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (1.0, r"the inputs are one float; give a list .*: \[np.array\(1.0\)\]"),
        (3, r"the inputs are one int; give a list .*: \[np.array\(3\)\]"),
        ([1.0, 2.0], r"input 0 is the number 1.0, .* Then write \[np.array\(\[...\]\)\]; if not"),
        ([X, 2], r"input 1 is the number 2, and each input must be an array or a tensor"),
    ],
)
def test_plain_numbers_get_a_hint(inputs, words):
    with pytest.raises(TypeError, match=f"gradcheck: {words}"):
        gradcheck(F.exp, inputs)


def test_the_place_of_an_error_is_found_with_the_tolerance_and_step_of_the_check():
    """`tolerance` loose enough for some elements: only the others are counted as off."""

    class Some(Square):
        def backward(self, gy):
            wrong = np.ones(gy.shape)
            wrong[0, 1], wrong[2, 3] = 1 + 1e-5, 1.5
            return super().backward(gy) * wrong

    def some(x):
        return Some()(x)

    with pytest.raises(GradcheckError, match=r"\n  2 of 12 elements are off"):
        gradcheck(some, [X])
    with pytest.raises(
        GradcheckError, match=r"element \(2, 3\)(?s:.)*\n  1 of 12 elements are off"
    ):
        gradcheck(some, [X], tolerance=1e-3)


def test_the_differences_of_a_message_are_those_of_the_check():
    """That is, at half the step: of x⁵ they are 5·x⁴ − 4·(h/2)⁴."""

    class Fifth(Square):
        def forward(self, x):
            self.save(0)
            return x**5

    with pytest.raises(GradcheckError) as caught:
        gradcheck(lambda x: Fifth()(x), [np.full(1, 2.0)], tolerance=1e-3, step=0.1)
    said = float(re.search(r"differences say (\S+) ", str(caught.value))[1])
    (v,) = bounded(np.random.default_rng(0), (1,))
    assert said == pytest.approx(v * (5 * 2.0**4 - 4 * 0.05**4), rel=1e-9)
    assert said != pytest.approx(v * (5 * 2.0**4 - 4 * 0.1**4), rel=1e-6)


# Backward that raises


class Raises(Square):
    def backward(self, gy):
        raise IndexError("not there")


def test_a_backward_that_raises_is_wrong_and_named():
    def mine(x):
        return Raises()(x)

    with pytest.raises(GradcheckError) as caught:
        gradcheck(mine, [X], seed=3)
    message = str(caught.value)
    assert message.startswith("gradcheck, order 1: backward raised IndexError: not there\n")
    assert re.search(r"  in backward, .*test_gradcheck.py, line \d+\n", message)
    assert message.endswith("function mine, seed 3")
    assert isinstance(caught.value.__cause__, IndexError)


def test_a_forward_that_raises_is_left_alone():
    def mine(x):
        raise IndexError("not there")

    with pytest.raises(IndexError, match="not there"):
        gradcheck(mine, [X])


# Names at higher orders


class WrongInCotangent(mg.Op):
    """y = 2x, whose backward is right, but for the derivative of that in the cotangent."""

    def forward(self, x):
        return x * 2

    def backward(self, gy):
        return gy.detach() * 2.0 + (gy - gy.detach()) * 3.0


class WrongInFirst(mg.Op):
    """The same one order later."""

    def forward(self, x):
        self.save(0)
        return x * x

    def backward(self, gy):
        (x,) = self.saved()
        return WrongInCotangent()(gy) * x


@pytest.mark.parametrize(
    ("op", "order", "names"),
    [
        (WrongInCotangent, 2, "; the cotangent of order 1 (3, 4)"),
        (
            WrongInFirst,
            3,
            "; the cotangent of order 1 (3, 4); the cotangent of order 2 (12,)",
        ),
    ],
)
def test_cotangents_are_called_so(op, order, names):
    gradcheck(lambda x: op()(x), [X], order - 1)
    with pytest.raises(GradcheckError) as caught:
        gradcheck(lambda x: op()(x), [X], order)
    message = str(caught.value)
    assert re.search(r"worst: the cotangent of order [12], element \(\d.*\): backward", message)
    assert f"inputs (3, 4){names}\n" in message
    assert "input 1" not in message


def test_what_is_wrong_with_a_derivative_is_said_of_it():
    class Random(Square):
        def backward(self, gy):
            return super().backward(gy) * (1 + 1e-13 * np.random.default_rng().normal())

    with pytest.raises(ValueError, match="the derivative of order 1 gives different values"):
        gradcheck(lambda x: Random()(x), [X], order=2)


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


# Histories that are cut, arguments of the wrong kind


@pytest.mark.parametrize("order", [1, 2])
def test_a_check_within_no_grad_records_all_the_same(order):
    with mg.no_grad():
        assert gradcheck(F.tanh, [X], order=order) < 1
        with pytest.raises(GradcheckError):
            gradcheck(forgets, [X], order=order)
        assert not mg.is_recording()


def within_no_grad(x, w):
    with mg.no_grad():
        return x * w


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (within_no_grad, "input 0, input 1"),
        (lambda x, w: x.detach() * w, "input 0"),
        (lambda x, w: x * mg.tensor(np.tanh(w.numpy()), dtype=np.float64), "input 1"),
    ],
)
def test_an_output_without_a_history_is_said_to_have_none(function, names):
    words = f"the output is not connected to {names}: is there a no_grad, a detach or NumPy"
    with pytest.raises(GradcheckError, match=words):
        gradcheck(function, [X, W])
    with pytest.raises(GradcheckError) as caught:
        gradcheck(forgets, [X])
    assert "connected" not in str(caught.value)


@pytest.mark.parametrize("name", ["order", "seed"])
@pytest.mark.parametrize("value", [1.5, "2", None])
def test_an_order_or_seed_that_is_no_whole_number_is_refused(name, value):
    with pytest.raises(TypeError, match=f"gradcheck: {name} must be a whole number, got {value!r}"):
        gradcheck(F.exp, [X], **{name: value})
    gradcheck(F.exp, [X], **{name: np.int64(1)})


def test_a_seed_below_zero_is_refused():
    with pytest.raises(ValueError, match="gradcheck: seed must be at least 0, got -1"):
        gradcheck(F.exp, [X], seed=-1)


@pytest.mark.parametrize(
    ("function", "inputs", "kind", "words"),
    [
        (3, [X], TypeError, "the function is a int, no function"),
        (None, [X], TypeError, "the function is a NoneType, no function"),
        (F.exp, None, TypeError, "the inputs are one NoneType; give a list"),
        (F.exp, np.float64(1), TypeError, "the inputs are one float64; give a list"),
        (F.exp, "12", TypeError, "the inputs are one str; give a list"),
        (F.exp, [[[1.0, 2.0], [3.0]]], ValueError, "input 0 is no array: its rows have different"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(function, inputs, kind, words):
    with pytest.raises(kind, match=f"gradcheck: {words}"):
        gradcheck(function, inputs)


def test_another_byte_order_is_no_other_type():
    assert gradcheck(F.tanh, [X.astype(">f8")]) < 1
    assert gradcheck(lambda x: F.tanh(x), [np.float64(0.5)]) < 1
    with pytest.raises(TypeError, match="input 0 is float32"):
        gradcheck(F.tanh, [X.astype(">f4")])
