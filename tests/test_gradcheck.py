"""The public gradient checker finds wrong gradients, says where, and refuses bad questions."""

import re

import numpy as np
import pytest

import minigan as mg
from minigan import functional as F
from minigan.gradcheck import GradcheckError, KinkError, gradcheck
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
