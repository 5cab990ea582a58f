"""Numbers far out, batches far from zero, and NaN: finite where the truth is finite, and right.

NumPy's warnings are errors here (pytest's `filterwarnings`), so an overflow that is patched up
afterwards fails too.
"""

import numpy as np
import pytest

import minigan as mg
from minigan import functional as F
from minigan import losses
from minigan.specs import reference

FAR = [-1e4, -1e3, -90.0, -1.0, 0.0, 1.0, 90.0, 1e3, 1e4]
both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def value_and_slope(function, at, dtype):
    """y and Σ dy/dx, strict about warnings that even pytest's filter lets through."""
    x = mg.tensor(at, dtype=dtype, requires_grad=True)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        y = function(x)
        y.sum().backward()
        (recorded,) = mg.grad(function(x).sum(), x, create_graph=True)
        again = recorded  # and the second derivative, where there is one
        if recorded.requires_grad:
            (again,) = mg.grad((recorded * recorded).sum(), x)
    assert y.dtype == x.grad.dtype == dtype
    np.testing.assert_allclose(recorded.numpy(), x.grad, rtol=1e-5, atol=1e-7)
    assert np.isfinite(again.numpy()).all()
    return y.numpy(), x.grad


def exact_sigmoid(x):
    return float(np.exp(x) / (1 + np.exp(x))) if x < 0 else 1 / (1 + np.exp(-min(x, 700.0)))


@both_types
@pytest.mark.parametrize(
    ("function", "value", "slope"),
    [
        (F.sigmoid, exact_sigmoid, lambda x: exact_sigmoid(x) * exact_sigmoid(-x)),
        (F.softplus, lambda x: max(x, 0) + np.log1p(np.exp(-np.abs(x))), exact_sigmoid),
        (F.tanh, np.tanh, lambda x: 1 - np.tanh(x) ** 2),
        (F.relu, lambda x: max(x, 0), lambda x: float(x > 0)),
        (
            F.elu,
            lambda x: x if x > 0 else np.expm1(x),
            lambda x: 1.0 if x > 0 else np.exp(x),
        ),
        (
            F.silu,
            lambda x: x * exact_sigmoid(x),
            lambda x: exact_sigmoid(x) + x * exact_sigmoid(x) * exact_sigmoid(-x),
        ),
        (F.leaky_relu, lambda x: max(x, 0.01 * x), lambda x: 1 if x > 0 else 0.01),
    ],
    ids=["sigmoid", "softplus", "tanh", "relu", "elu", "silu", "leaky_relu"],
)
def test_activations_are_right_at_both_ends(function, value, slope, dtype):
    y, g = value_and_slope(function, FAR, dtype)
    np.testing.assert_allclose(y, [value(x) for x in FAR], rtol=2e-6, atol=1e-37)
    np.testing.assert_allclose(g, [slope(x) for x in FAR], rtol=2e-6, atol=2e-7)


@both_types
def test_gelu_is_right_at_both_ends(dtype):
    y, g = value_and_slope(F.gelu, FAR, dtype)
    assert y[:2].tolist() == [0, 0]
    assert y[-2:].tolist() == [1e3, 1e4]
    assert g[:2].tolist() == [0, 0]
    assert g[-2:].tolist() == [1, 1]


@both_types
@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_softmax_and_its_relatives_do_not_feel_a_shift(shift, dtype):
    row = np.array([[1.0, 2.0, 4.0]])
    share = np.exp(row) / np.exp(row).sum()
    cotangent = np.array([[1.0, -2.0, 0.5]])

    def check(function, expected, slope, weights):
        def weighted(x):
            return function(x) * mg.tensor(weights, dtype=dtype)

        _, g = value_and_slope(weighted, row + shift, dtype)
        y = function(mg.tensor(row + shift, dtype=dtype)).numpy()
        np.testing.assert_allclose(y, expected, rtol=3e-6, atol=1e-6)
        np.testing.assert_allclose(g, slope, rtol=3e-6, atol=1e-6)

    mixed = (share * cotangent).sum()
    check(F.softmax, share, share * (cotangent - mixed), cotangent)
    check(F.log_softmax, np.log(share), cotangent - share * cotangent.sum(), cotangent)
    total = np.log(np.exp(row).sum()) + shift
    check(lambda x: F.logsumexp(x, 1), [total], 3 * share, [3.0])


@both_types
def test_softmax_and_its_relatives_over_1e4_of_difference(dtype):
    row = [[-1e4, 0.0, 1e4]]
    y, g = value_and_slope(F.softmax, row, dtype)
    assert y.tolist() == [[0, 0, 1]]
    assert g.tolist() == [[0, 0, 0]]
    y, g = value_and_slope(F.log_softmax, row, dtype)
    assert y.tolist() == [[-2e4, -1e4, 0]]
    assert g.tolist() == [[1, 1, -2]]
    y, g = value_and_slope(lambda x: F.logsumexp(x, 1), row, dtype)
    assert y.tolist() == [1e4]
    assert g.tolist() == [[0, 0, 1]]


def test_logsumexp_of_masked_entries():
    x = mg.tensor([-np.inf, 1.0, 2.0], requires_grad=True)
    y = F.logsumexp(x)
    y.backward()
    assert y.item() == pytest.approx(np.log(np.e + np.e**2))
    np.testing.assert_allclose(x.grad, [0, 1 / (1 + np.e), np.e / (1 + np.e)], rtol=1e-6)


@both_types
@pytest.mark.parametrize("target", [0.0, 1.0, 0.3])
def test_bce_with_logits_is_right_at_both_ends(target, dtype):
    def loss(x):
        targets = np.full(len(FAR), target, dtype)
        return losses.binary_cross_entropy_with_logits(x, targets, reduction="none")

    y, g = value_and_slope(loss, FAR, dtype)
    exact = [max(x, 0) - x * target + np.log1p(np.exp(-abs(x))) for x in FAR]
    np.testing.assert_allclose(y, exact, rtol=2e-6, atol=1e-5 * (target > 0))
    np.testing.assert_allclose(g, [exact_sigmoid(x) - target for x in FAR], rtol=2e-6, atol=2e-7)


def test_division_by_small_numbers_has_the_slope_it_should():
    a = mg.tensor(2e-25, requires_grad=True)
    b = mg.tensor(1e-25, requires_grad=True)
    (a / b).backward()
    assert a.grad == pytest.approx(1e25)
    assert b.grad == pytest.approx(-2e25)


def test_power_of_zero_to_zero_has_finite_slopes():
    a, b = mg.tensor([0.0, 0.0, 2.0], requires_grad=True), mg.tensor([0.0, 2.0, 0.0])
    b.requires_grad_()
    (a**b).sum().backward()
    assert a.grad.tolist() == [0, 0, 0]
    np.testing.assert_allclose(b.grad, [0, 0, np.log(2)], rtol=1e-6)


# Normalisation far from zero: mean 1000, σ 0.1, where E[x²] − E[x]² keeps no digit in float32

FAR_SHAPES = pytest.mark.parametrize("shape", [(64, 3), (16, 8, 8, 4), (64, 32, 32, 4)], ids=str)


def far_batch(shape):
    x = np.random.default_rng(0).normal(1000, 0.1, shape).astype(np.float32)
    return x, x.astype(np.float64)


@FAR_SHAPES
def test_batch_norm_far_from_zero(shape):
    single, exact = far_batch(shape)
    axes = tuple(range(len(shape) - 1))
    mean, var = mg.tensor(np.zeros(shape[-1])), mg.tensor(np.zeros(shape[-1]))
    y = F.batch_norm(mg.Tensor(single), mean, var, training=True, momentum=1.0)
    assert y.dtype == var.dtype == np.float32
    np.testing.assert_allclose(var.numpy(), exact.var(axes, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(mean.numpy(), exact.mean(axes), rtol=1e-7)
    np.testing.assert_allclose(y.numpy(), reference.batch_norm(exact, 1e-5), atol=1e-4)


def test_batch_norm_of_a_prime_number_of_pixels():
    """They cannot lie in rows of several, so that each sum goes over very many rows."""
    random = np.random.default_rng(0)
    single = random.normal(1000, 0.1, size=(1500007, 3)).astype(np.float32)
    y = F.batch_norm(mg.Tensor(single), training=True)
    exact = single.astype(np.float64)
    np.testing.assert_allclose(y.numpy(), reference.batch_norm(exact, 1e-5), atol=2e-4)
    constant = np.full((1500007, 3), 1000.1, np.float32)
    assert np.abs(F.batch_norm(mg.Tensor(constant), training=True).numpy()).max() < 0.1


@FAR_SHAPES
@pytest.mark.parametrize("recorded", [False, True], ids=["fused", "recorded"])
@pytest.mark.parametrize("centre", [0.0, 1.0])
def test_gradients_of_batch_norm_far_from_zero(shape, recorded, centre):
    single, exact = far_batch(shape)
    rng = np.random.default_rng(1)
    weight, v = rng.uniform(0.5, 1.5, shape[-1]), rng.normal(centre, 1, shape)

    def gradients(x, dtype):
        leaves = [mg.tensor(a, dtype=dtype, requires_grad=True) for a in (x, weight)]
        y = F.batch_norm(leaves[0], None, None, leaves[1], None, training=True)
        cotangent = mg.tensor(v, dtype=dtype)
        return [g.numpy() for g in mg.grad(y, leaves, cotangent, create_graph=recorded)]

    for found, expected in zip(
        gradients(single, np.float32), gradients(exact, np.float64), strict=True
    ):
        assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (F.instance_norm, lambda x: reference.instance_norm(x, 1e-5)),
        (lambda x: F.layer_norm(x, x.shape[1:]), lambda x: reference.layer_norm(x, 3, 1e-5)),
        (lambda x: F.group_norm(x, 2), lambda x: reference.group_norm(x, 2, 1e-5)),
        (lambda x: F.var(x, (0, 1, 2)), lambda x: x.var((0, 1, 2), ddof=1)),
    ],
    ids=["instance_norm", "layer_norm", "group_norm", "var"],
)
def test_other_variances_far_from_zero(function, expected):
    single, exact = far_batch((16, 32, 32, 4))
    true = expected(exact)
    found = function(mg.Tensor(single)).numpy()
    assert np.abs(found - true).max() < 0.01 * np.abs(true).max()


# NaN in, NaN out

HOLED = np.arange(32, dtype=np.float32).reshape(1, 4, 4, 2)
HOLED[0, 1, 2, 0] = np.nan


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "var", "logsumexp"])
def test_reductions_pass_nan_on(name):
    function = getattr(F, name)
    assert np.isnan(function(mg.Tensor(HOLED)).item())
    by_channel = function(mg.Tensor(HOLED), (0, 1, 2)).numpy()
    assert np.isnan(by_channel).tolist() == [True, False]
    x = mg.tensor(HOLED, requires_grad=True)
    function(x, (0, 1, 2)).sum().backward()
    assert np.isfinite(x.grad[..., 1]).all()


@pytest.mark.parametrize(
    ("function", "where"),
    [
        (lambda x: F.max_pool2d(x, 2), [(0, 1)]),
        (lambda x: F.avg_pool2d(x, 2), [(0, 1)]),
        (lambda x: F.max_pool2d(x, 3, stride=2, padding=1), [(0, 1), (1, 1)]),
        (lambda x: F.adaptive_avg_pool2d(x, 2), None),
        (F.softmax, [(1, 2)]),
        (F.log_softmax, [(1, 2)]),
        (F.relu, [(1, 2)]),
        (F.sigmoid, [(1, 2)]),
        (F.tanh, [(1, 2)]),
        (F.leaky_relu, [(1, 2)]),
        (F.softplus, [(1, 2)]),
        (F.elu, [(1, 2)]),
        (F.gelu, [(1, 2)]),
        (F.abs, [(1, 2)]),
        (lambda x: F.clip(x, 0, 1), [(1, 2)]),
        (lambda x: F.maximum(x, 1e9), [(1, 2)]),
        (lambda x: F.minimum(-1e9, x), [(1, 2)]),
        (lambda x: F.batch_norm(x, training=True), None),
        (F.instance_norm, None),
    ],
)
def test_pooling_and_activations_pass_nan_on(function, where):
    holes = np.isnan(function(mg.Tensor(HOLED)).numpy()[0, :, :, 0])
    assert holes.any()
    if where is not None:
        assert [tuple(map(int, p)) for p in np.argwhere(holes)] == where


def test_the_gradient_of_a_maximum_goes_to_the_nan_it_is():
    x = mg.tensor([1.0, np.nan, 3.0], requires_grad=True)
    F.max(x).backward()
    assert x.grad.tolist() == [0, 1, 0]
