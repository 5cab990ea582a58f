"""Losses against closed forms, at the extremes, and their derivatives."""

import math
import re

import numpy as np
import pytest

import minigan as mg
from minigan import losses

X = np.array([[0.5, -1.25, 3.0], [0.1, 2.5, -0.75]])
T = np.array([[1.0, 0.25, -1.0], [0.3, 2.0, 1.5]])
P = np.array([[0.85, 0.2, 0.5], [0.15, 0.6, 0.9]])  # probabilities
Q = np.array([[1.0, 0.0, 0.25], [0.0, 1.0, 0.8]])  # targets in [0, 1]
LABELS = np.array([2, 0])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def huber(d, beta):
    return np.where(abs(d) < beta, d * d / (2 * beta), abs(d) - beta / 2)


def smoothed(x, labels, epsilon):
    target = (1 - epsilon) * np.eye(x.shape[-1])[labels] + epsilon / x.shape[-1]
    return -(target * log_softmax(x)).sum(axis=-1)


# name: (loss, prediction, target, the loss of each element by its definition)
LOSSES = {
    "mse": (losses.mse, X, T, (X - T) ** 2),
    "l1": (losses.l1, X, T, abs(X - T)),
    "smooth_l1": (losses.smooth_l1, X, T, huber(X - T, 1.0)),
    "smooth_l1 of another width": (
        lambda x, t, **k: losses.smooth_l1(x, t, beta=0.4, **k),
        X,
        T,
        huber(X - T, 0.4),
    ),
    "cross_entropy": (losses.cross_entropy, X, LABELS, -log_softmax(X)[[0, 1], LABELS]),
    "cross_entropy with smoothing": (
        lambda x, t, **k: losses.cross_entropy(x, t, label_smoothing=0.1, **k),
        X,
        LABELS,
        smoothed(X, LABELS, 0.1),
    ),
    "binary_cross_entropy": (
        losses.binary_cross_entropy,
        P,
        Q,
        -(Q * np.log(P) + (1 - Q) * np.log(1 - P)),
    ),
    "binary_cross_entropy_with_logits": (
        losses.binary_cross_entropy_with_logits,
        X,
        Q,
        -(Q * np.log(sigmoid(X)) + (1 - Q) * np.log(1 - sigmoid(X))),
    ),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_reductions(name, dtype):
    loss, x, t, expected = LOSSES[name]
    x = mg.tensor(x, dtype=dtype)
    t = t if t.dtype.kind == "i" else mg.tensor(t, dtype=dtype)
    for options, value in (
        ({}, expected.mean()),
        ({"reduction": "mean"}, expected.mean()),
        ({"reduction": "sum"}, expected.sum()),
        ({"reduction": "none"}, expected),
    ):
        result = loss(x, t, **options)
        assert result.dtype == dtype
        assert result.shape == np.shape(value)
        np.testing.assert_allclose(result.numpy(), value, rtol=10 * np.finfo(dtype).eps, atol=1e-7)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_first_and_second_derivatives(name, reduction):
    loss, x, t, _ = LOSSES[name]
    if t.dtype.kind == "i":
        mg.gradcheck(lambda x: loss(x, t, reduction=reduction), [x], order=2)
    else:
        mg.gradcheck(lambda x, t: loss(x, t, reduction=reduction), [x, t], order=2)


@pytest.mark.parametrize("loss", [losses.mse, losses.l1, losses.smooth_l1])
def test_a_distance_to_itself_is_zero_and_flat(loss):
    x = mg.tensor(X, requires_grad=True)
    value = loss(x, x.numpy())
    assert value.item() == 0
    value.backward()
    np.testing.assert_array_equal(x.grad, np.zeros_like(X))


@pytest.mark.parametrize("name", LOSSES)
def test_targets_may_be_arrays_of_the_same_type(name):
    loss, x, t, expected = LOSSES[name]
    result = loss(mg.tensor(x, dtype=np.float64), t)
    assert result.item() == pytest.approx(expected.mean())


def test_cross_entropy_takes_labels_of_any_integer_kind_and_shape():
    x = mg.tensor(np.stack([X, X + 1]), dtype=np.float64)  # (2, 2, 3)
    labels = np.stack([LABELS, LABELS])
    expected = -log_softmax(X)[[0, 1], LABELS]  # adding 1 to all logits changes nothing
    for given in (labels, labels.tolist(), labels.astype(np.uint8), mg.tensor(labels)):
        result = losses.cross_entropy(x, given, reduction="none")
        np.testing.assert_allclose(result.numpy(), [expected, expected], rtol=1e-12)
    one = losses.cross_entropy(x[0, 0], 2)
    assert one.item() == pytest.approx(expected[0])


def test_full_smoothing_forgets_the_label():
    x = mg.tensor(X)
    a, b = (losses.cross_entropy(x, labels, label_smoothing=1.0) for labels in ([0, 0], [1, 2]))
    assert a.item() == pytest.approx(b.item())


# ---- extremes (a warning is an error here)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e4, 1e2, 30.0, 20.0])
def test_bce_with_logits_is_exact_at_both_ends(size, dtype):
    x = mg.tensor([size, -size, size, -size], dtype=dtype, requires_grad=True)
    loss = losses.binary_cross_entropy_with_logits(
        x, mg.tensor([1.0, 0.0, 0.0, 1.0], dtype=dtype), reduction="none"
    )
    tiny = math.exp(-size)  # log1p of it is itself
    np.testing.assert_allclose(loss.numpy(), [tiny, tiny, size, size], rtol=1e-5, atol=1e-37)
    loss.sum().backward()
    np.testing.assert_allclose(x.grad, [-tiny, tiny, 1, -1], rtol=1e-5, atol=1e-37)


def test_bce_with_logits_of_soft_targets_at_the_extremes():
    x = mg.tensor([1e4, -1e4], requires_grad=True)
    loss = losses.binary_cross_entropy_with_logits(x, mg.tensor([0.9, 0.9]), reduction="none")
    np.testing.assert_allclose(loss.numpy(), [1e3, 9e3], rtol=1e-5)
    loss.sum().backward()
    np.testing.assert_allclose(x.grad, [0.1, -0.9], rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_at_the_extremes(dtype):
    x = mg.tensor([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    loss = losses.cross_entropy(x, [0, 1], reduction="none")
    np.testing.assert_array_equal(loss.numpy(), [0, 2e4])
    loss.sum().backward()
    np.testing.assert_array_equal(x.grad, [[0, 0, 0], [1, -1, 0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bce_holds_the_logarithm_at_certain_probabilities(dtype):
    p = mg.tensor([0.0, 1.0, 0.0, 1.0, 1e-45, 1e-30], dtype=dtype, requires_grad=True)
    t = mg.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 1.0], dtype=dtype)
    loss = losses.binary_cross_entropy(p, t, reduction="none")
    np.testing.assert_allclose(loss.numpy(), [0, 0, 100, 100, 100, -math.log(1e-30)], rtol=1e-6)
    loss.sum().backward()
    # where the logarithm is held it has no slope
    np.testing.assert_allclose(p.grad, [1, -1, 0, 0, 0, -1e30], rtol=1e-6)


@pytest.mark.parametrize("loss", [losses.mse, losses.l1, losses.smooth_l1])
def test_distances_at_the_extremes(loss):
    x = mg.tensor([1e4, -1e4], requires_grad=True)
    value = loss(x, mg.tensor([-1e4, 1e4]), reduction="none")
    expected = {losses.mse: 4e8, losses.l1: 2e4, losses.smooth_l1: 2e4 - 0.5}[loss]
    np.testing.assert_allclose(value.numpy(), [expected, expected], rtol=1e-6)
    value.sum().backward()
    assert np.isfinite(x.grad).all()


# ---- errors


@pytest.mark.parametrize("name", LOSSES)
def test_an_unknown_reduction_is_refused(name):
    loss, x, t, _ = LOSSES[name]
    words = f"{name.split()[0]}: reduction 'average' is unknown: use mean, sum or none"
    with pytest.raises(ValueError, match=words):
        loss(mg.tensor(x, dtype=np.float64), t, reduction="average")


@pytest.mark.parametrize(
    "name",
    ["mse", "l1", "smooth_l1", "binary_cross_entropy", "binary_cross_entropy_with_logits"],
)
def test_shapes_must_agree_without_broadcasting(name):
    words = f"{name}: prediction (2, 3) and target (2, 1) differ in shape"
    for target in (mg.tensor(np.ones((2, 1))), np.ones((2, 1), np.float32)):
        with pytest.raises(ValueError, match=re.escape(words)):
            getattr(losses, name)(mg.tensor(P), target)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda x: losses.cross_entropy(x, [0.0, 1.0]),
            TypeError,
            "cross_entropy: labels must be integers (class numbers), float64",
        ),
        (
            lambda x: losses.cross_entropy(x, [0, 1, 2]),
            ValueError,
            "cross_entropy: labels (3,) should be (2,), one for each row of logits (..., C) = (2,",
        ),
        (
            lambda x: losses.cross_entropy(x, [0, 3]),
            ValueError,
            "cross_entropy: labels from 0 to 3 for 3 classes",
        ),
        (
            lambda x: losses.cross_entropy(x, [-1, 2]),
            ValueError,
            "cross_entropy: labels from -1 to 2 for 3 classes",
        ),
        (
            lambda x: losses.cross_entropy(x, [0, 1], label_smoothing=1.5),
            ValueError,
            "cross_entropy: label_smoothing 1.5 is outside [0, 1]",
        ),
        (
            lambda x: losses.smooth_l1(x, x, beta=0),
            ValueError,
            "smooth_l1: beta must be positive, got 0 (for 0 use l1)",
        ),
        (
            lambda x: losses.binary_cross_entropy(x, x),
            ValueError,
            "binary_cross_entropy: probabilities must be in [0, 1]; for raw scores use "
            "binary_cross_entropy_with_logits",
        ),
        (
            lambda x: losses.binary_cross_entropy(x * np.nan, x),
            ValueError,
            "binary_cross_entropy: probabilities must be in [0, 1]",
        ),
        (
            lambda x: losses.mse(x, T),
            TypeError,
            "sub: operand 0 (2, 3) is float32, operand 1 (2, 3) is float64",
        ),
        (lambda x: losses.mse(x[0:0], x[0:0]), ValueError, "mean: of no elements"),
    ],
)
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=re.escape(words)):
        call(mg.tensor(X))


@pytest.mark.parametrize("target", [0.0, 1.0, 0.9, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_number_is_a_target_for_all(target, reduction):
    results = []
    for labels in (target, np.full((2, 3), target, np.float32)):
        x = mg.tensor(X * 3, requires_grad=True)
        loss = losses.binary_cross_entropy_with_logits(x, labels, reduction=reduction)
        loss.backward(np.ones(loss.shape, np.float32))
        results.append((loss.numpy(), x.grad))
    np.testing.assert_allclose(*(loss for loss, _ in results), rtol=1e-6)
    np.testing.assert_allclose(*(slope for _, slope in results), rtol=1e-6, atol=1e-8)
