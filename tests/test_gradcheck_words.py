"""What gradcheck refuses, and what it says."""

import re

import numpy as np
import pytest
from test_gradcheck import Square, W, X
from test_gradcheck_rounding import forgets

import minigan as mg
from minigan import functional as F
from minigan.gradcheck import GradcheckError, gradcheck
from minigan.gradcheck.differences import bounded

RNG = np.random.default_rng(0)


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
    assert re.search(r"  in backward, .*test_gradcheck_words.py, line \d+\n", message)
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
