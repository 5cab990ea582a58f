"""Batch norm, bias and activation against their twins, and the engine on NumPy."""

import numpy as np
import pytest
import running
from conftest import examples
from hypothesis import given
from hypothesis import strategies as st
from running import ACCURACY, COUNT, DTYPES, ODD, RACES, assert_close, kernels, run
from target import xp

import minigan as mg
from minigan import functional as F
from minigan import twins

index_type, pytestmark = running.index_type, running.pytestmark


SLOPES = st.sampled_from([1.0, 0.2, 0.0])


@st.composite
def rows_and_channels(draw, least=1):
    """A shape (..., C), with few or many rows, and a seed."""
    rows = draw(st.one_of(st.integers(least, 9), st.integers(max(least, 1), 40 if RACES else 700)))
    channels = draw(st.sampled_from([1, 3, 33] if RACES else [1, 2, 3, 7, 31, 32, 33, 40, 65]))
    shape = draw(st.sampled_from([(rows, channels), (rows, 1, channels), (1, rows, 1, channels)]))
    return shape, draw(st.integers(0, 1000))


def draw_norm(shape, seed, dtype):
    """x, gy, γ and β, some channels of x far from zero; no output so near a kink that it flips."""
    rng = np.random.default_rng(seed)
    channels = shape[-1]
    centre = rng.choice([0.0, 1.0, -100.0], channels)
    x = (rng.normal(size=shape) * rng.uniform(0.1, 3, channels) + centre).astype(dtype)
    gy = rng.normal(size=shape).astype(dtype)
    gamma = (rng.choice([-1, 1], channels) * rng.uniform(0.5, 2, channels)).astype(dtype)
    return x, gy, gamma, rng.normal(size=channels).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@examples(COUNT)
@given(case=rows_and_channels(), slope=SLOPES)
def test_batch_norm(dtype, case, slope):
    x, gy, gamma, beta = draw_norm(*case, dtype)
    y, statistics = run("batch_norm_forward", x, gamma, beta, 1e-5, slope)
    exact = [a.astype(np.float64) for a in (x, gamma, beta)]
    wanted, wanted_statistics = twins.batch_norm_forward(*exact, 1e-5, slope)
    assert_close(y, wanted, dtype, slack=8)
    near, left, variance, inv_std = statistics
    assert_close(near + left, wanted_statistics[0] + wanted_statistics[1], dtype)
    assert_close(variance, wanted_statistics[2], dtype)
    np.testing.assert_allclose(inv_std, 1 / np.sqrt(variance + dtype(1e-5)), 4e-7)

    # From its own statistics, so that both sides agree on which side of the kink a number is.
    got = run("batch_norm_backward", x, gy, gamma, beta, statistics, slope)
    wanted = twins.batch_norm_backward(
        *(a.astype(np.float64) for a in (x, gy, gamma, beta, statistics)), slope
    )
    if slope != 1 and np.abs(y[y != 0]).min(initial=1) < ACCURACY[dtype]:
        return  # a number so near the kink that rounding decides
    rows = x.size // x.shape[-1]
    for a, b in zip(got, wanted, strict=True):
        assert_close(a, b, dtype, scale=max(1, np.abs(b).max(), rows**0.5), slack=8)


@examples(max(2, COUNT // 2))
@given(case=rows_and_channels(least=2), slope=SLOPES)
def test_batch_norm_as_the_engine_has_it(case, slope):
    x, gy, gamma, beta = draw_norm(*case, np.float64)
    leaves = [mg.tensor(a, dtype=np.float64, requires_grad=True) for a in (x, gamma, beta)]
    normal = F.batch_norm(leaves[0], None, None, *leaves[1:], training=True)
    y = normal if slope == 1 else F.leaky_relu(normal, slope)
    y.backward(mg.tensor(gy, dtype=np.float64))
    got, statistics = run("batch_norm_forward", x, gamma, beta, 1e-5, slope)
    assert_close(got, y.numpy(), np.float64, slack=20)
    gradients = run("batch_norm_backward", x, gy, gamma, beta, statistics, slope)
    for a, leaf in zip(gradients, leaves, strict=True):
        assert_close(a, leaf.grad, np.float64, scale=max(1, np.abs(leaf.grad).max()), slack=1e3)


@pytest.mark.skipif(RACES, reason="TSan is for small shapes")
def test_batch_norm_far_from_zero():
    """A mean of 1000 and a deviation of 0.1: one pass, or one rounded mean, would lose it all."""
    x = (1000 + 0.1 * np.random.default_rng(3).normal(size=(5000, 3))).astype(np.float32)
    ones = np.ones(3, np.float32)
    y, statistics = run("batch_norm_forward", x, ones, 0 * ones, 1e-5)
    exact = x.astype(np.float64)
    wanted = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
    assert np.abs(y - wanted).max() < 2e-5
    np.testing.assert_allclose(statistics[2], exact.var(0), rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@examples(COUNT)
@given(case=rows_and_channels(least=0), slope=SLOPES)
def test_bias_and_activation(dtype, case, slope):
    shape, seed = case
    rng = np.random.default_rng(seed)
    x, gy = rng.normal(size=(2, *shape)).astype(dtype)
    bias = rng.normal(size=shape[-1]).astype(dtype)
    (y,) = run("bias_act_forward", x, bias, slope)
    assert np.array_equal(y, twins.bias_act_forward(x, bias, slope))
    gx, g_bias = run("bias_act_backward", y, gy, slope)
    wanted_gx, wanted_g_bias = twins.bias_act_backward(y, gy, slope)
    assert np.array_equal(gx, wanted_gx)
    assert_close(g_bias, wanted_g_bias, dtype, scale=max(1, len(gx.reshape(-1, gx.shape[-1]))))

    leaves = [mg.tensor(a, dtype=dtype, requires_grad=True) for a in (x, bias)]
    engine = leaves[0] + leaves[1]
    engine = engine if slope == 1 else F.leaky_relu(engine, slope)
    assert np.array_equal(y, engine.numpy())
    engine.backward(mg.tensor(gy, dtype=dtype))
    assert np.array_equal(gx, leaves[0].grad)


def test_arguments_of_any_strides():
    """Gradients come transposed, parameters as parts of something else."""
    x, gy, gamma, beta = draw_norm((6, 3), 5, np.float64)
    twice = xp.asarray(np.repeat(np.stack([gamma, beta]), 2, axis=1))
    apart = [twice[i, ::2] for i in (0, 1)]
    flipped = [xp.asarray(a.T.copy()).T for a in (x, gy)]
    y, statistics = kernels.batch_norm_forward(flipped[0], *apart, 1e-5, 0.2)
    gradients = kernels.batch_norm_backward(*flipped, *apart, statistics, 0.2)
    due, kept = twins.batch_norm_forward(x, gamma, beta, 1e-5, 0.2)
    wanted = [due, *twins.batch_norm_backward(x, gy, gamma, beta, kept, 0.2)]
    y2 = kernels.bias_act_forward(flipped[0], apart[1], 0.2)
    wanted.append(twins.bias_act_forward(x, beta, 0.2))
    gradients = *gradients, y2, *kernels.bias_act_backward(y2, flipped[1], 0.2)
    wanted += twins.bias_act_backward(wanted[-1], gy, 0.2)
    for a, b in zip((y, *gradients), wanted, strict=True):
        np.testing.assert_allclose(a.get(), b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slope", [0.0] if RACES else [1.0, 0.2, 0.0])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_nan_in_nan_out(dtype, slope):
    x = np.array(ODD * 5, dtype).reshape(-1, 1)  # (35, 1)
    zero = np.zeros(1, dtype)
    (y,) = run("bias_act_forward", x, zero, slope)
    wanted = twins.bias_act_forward(x, zero, slope)
    assert np.array_equal(y, wanted, equal_nan=True)
    gx, g_bias = run("bias_act_backward", y, x, slope)
    assert np.array_equal(gx, twins.bias_act_backward(y, x, slope)[0], equal_nan=True)
    assert np.isnan(g_bias).all()

    half = np.concatenate([x, np.arange(35, dtype=dtype).reshape(-1, 1)], axis=1)
    two = np.ones(2, dtype)
    y, statistics = run("batch_norm_forward", half, two, two, 1e-5, slope)
    assert np.isnan(y[:, 0]).all()
    assert np.isfinite(y[:, 1]).all()
    gx, g_gamma, g_beta = run("batch_norm_backward", half, two + 0 * y, two, two, statistics, slope)
    for g in (gx[:, 0], g_gamma[:1]):
        assert np.isnan(g).all()
    assert np.isfinite(g_beta[1])
