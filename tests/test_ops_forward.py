"""The value of every operation: against its definition, in both float types, and in NumPy's words.

The gradients are in `test_ops_gradients.py`, extreme values in `test_ops_extremes.py`.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigan as mg
from minigan import functional as F
from minigan.specs import REGISTRY

FUNCTIONS = sorted(name for name, spec in REGISTRY.items() if spec.kind == "function")
every_function = pytest.mark.parametrize("name", FUNCTIONS)


@every_function
@settings(max_examples=60)
@given(data=st.data())
def test_value_is_what_the_definition_says(name, data):
    case = data.draw(REGISTRY[name].cases)
    expected = np.asarray(case.reference(*case.inputs))
    for a in case.inputs:
        a.flags.writeable = False  # an op that writes into its input raises
    y = case.call(*(mg.Tensor(a, dtype=np.float64) for a in case.inputs))
    assert isinstance(y, mg.Tensor)
    assert y.dtype == np.float64
    assert y.shape == expected.shape
    assert not y.requires_grad
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-12)


@every_function
@settings(max_examples=15)
@given(data=st.data())
def test_float32_stays_float32_and_is_close_to_float64(name, data):
    case = data.draw(REGISTRY[name].cases)
    single = [a.astype(np.float32) for a in case.inputs]
    expected = np.asarray(case.reference(*(a.astype(np.float64) for a in single)))
    y = case.call(*(mg.Tensor(a) for a in single))
    assert y.dtype == np.float32
    assert y.shape == expected.shape
    size = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(y.numpy(), expected, rtol=2e-5, atol=2e-6 * size)


# The functions as operators and methods


def rows(dtype=np.float32):
    return mg.tensor(np.arange(1, 7).reshape(2, 3), dtype=dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_and_arrays_on_either_side(dtype):
    x, a = rows(dtype), rows(dtype).numpy()
    row = np.array([2, 3, 5], dtype)
    for ours, theirs in (
        (2 - x, 2 - a),
        (x - 2, a - 2),
        (2 / x, 2 / a),
        (x / 2.5, a / 2.5),
        (2**x, 2**a),
        (x**2, a**2),
        (np.float64(3) * x, 3 * a),
        (x * np.float64(0.5), a * 0.5),
        (x ** np.float64(0.5), a**0.5),
        (row - x, row - a),
        (x + row, a + row),
        (x + [1, 2, 3], a + np.array([1, 2, 3])),
        (-x, -a),
        (abs(-x), a),
        (x @ row, a @ row),
        (row[:2] @ x, row[:2] @ a),
        (F.clip(x, np.float64(1.5), np.float64(4)), np.clip(a, 1.5, 4)),
        (F.maximum(2.5, x), np.maximum(2.5, a)),
        (F.where(a > 2, x, 0), np.where(a > 2, a, 0)),
    ):
        assert isinstance(ours, mg.Tensor)
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-6)


def test_methods_are_the_functions():
    x, a = rows(), rows().numpy()
    for ours, theirs in (
        (x.sum(0), a.sum(0)),
        (x.mean(-1, keepdims=True), a.mean(-1, keepdims=True)),
        (x.max(), a.max()),
        (x.min((0, 1)), a.min()),
        (x.var(1), a.var(1, ddof=1)),
        (x.reshape(3, 2), a.reshape(3, 2)),
        (x.reshape((3, -1)), a.reshape(3, 2)),
        (x.reshape(-1), a.ravel()),
        (x.transpose(), a.T),
        (x.transpose(1, 0), a.T),
        (x.T, a.T),
        (x.expand_dims(0).squeeze(0), a),
        (x.flip(1), a[:, ::-1]),
        (x.broadcast_to((2, 2, 3)), np.stack([a, a])),
        (x.exp().log(), a),
        (x.sqrt(), np.sqrt(a)),
        (x.clip(2, 4), a.clip(2, 4)),
        (x.relu(), a),
        (x.tanh(), np.tanh(a)),
        (x.sigmoid(), 1 / (1 + np.exp(-a))),
        (x[1, 1:], a[1, 1:]),
    ):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-6)


def test_comparisons_are_boolean_and_record_nothing():
    x = mg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    for made, expected in (
        (x > 2, [False, False, True]),
        (x >= 2, [False, True, True]),
        (x < 2, [True, False, False]),
        (x <= x, [True, True, True]),
        (x == 2, [False, True, False]),
        (x != 2, [True, False, True]),
    ):
        assert made.dtype == np.bool_
        assert not made.requires_grad
        assert made.numpy().tolist() == expected


def test_astype_goes_both_ways():
    x = mg.tensor([1.5, -2.25], requires_grad=True)
    y = x.astype(np.float64)
    assert y.dtype == np.float64
    assert x.astype(np.float32) is x
    assert x.astype(np.int64).numpy().tolist() == [1, -2]
    (y * y).sum().backward()
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [3.0, -4.5]


# What the definitions above leave open


def test_dropout_keeps_the_mean_and_leaves_out_a_share_p():
    mg.manual_seed(0)
    y = F.dropout(mg.tensor(np.ones(100_000)), p=0.3).numpy()
    assert abs((y == 0).mean() - 0.3) < 0.01
    assert abs(y.mean() - 1) < 0.02
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.7], rtol=1e-6)
    assert (F.dropout(mg.tensor(np.ones(100_000)), p=0.3).numpy() != y).any()


def test_batch_norm_moves_the_running_averages_as_pytorch_does():
    x = np.random.default_rng(0).normal(3, 2, (4, 5, 2)).astype(np.float32)
    mean, var = mg.tensor([1.0, -1.0]), mg.tensor([4.0, 9.0])
    F.batch_norm(mg.Tensor(x), mean, var, training=True, momentum=0.2)
    batch, unbiased = x.mean((0, 1)), x.var((0, 1), ddof=1)
    np.testing.assert_allclose(mean.numpy(), 0.8 * np.array([1, -1]) + 0.2 * batch, rtol=1e-5)
    np.testing.assert_allclose(var.numpy(), 0.8 * np.array([4, 9]) + 0.2 * unbiased, rtol=1e-5)
    before = mean.numpy(), var.numpy()
    F.batch_norm(mg.Tensor(x), mean, var, training=False)
    assert np.array_equal(mean.numpy(), before[0])
    assert np.array_equal(var.numpy(), before[1])


def test_nearest_takes_the_pixel_at_the_place_divided_by_the_scale():
    def column(n, **options):
        x = mg.tensor(np.arange(n, dtype=float).reshape(1, n, 1, 1))
        return F.interpolate(x, **options).numpy()[0, :, 0, 0].tolist()

    assert column(2, scale_factor=(2.4, 1)) == [0, 0, 0, 1]
    assert column(2, scale_factor=(2.0, 1)) == [0, 0, 1, 1]
    for n, parts in ((14, 18), (14, 58), (7, 3), (3, 7), (5, 5)):  # 9 / (18 / 14) < 7 in float64
        assert column(n, size=(parts, 1)) == [i * n // parts for i in range(parts)]


def test_reshape_and_slices_share_memory_while_arrays_as_index_copy():
    x = rows()
    for view in (x.reshape(3, 2), x.T, x[0], x[:, ::-1], x.expand_dims(0), x.flip()):
        assert np.shares_memory(view.data, x.data)
    for copied in (x[[0, 1]], x[x > 0], x * 1.0, F.concatenate([x]), F.pad(x, [(0, 0), (0, 0)])):
        assert not np.shares_memory(copied.data, x.data)


@pytest.mark.parametrize("channels", [(1,), (3, 3), (1, 4, 2), (0, 3), (5, 1), (4, 64)])
@pytest.mark.parametrize("images", [0, 2])
def test_images_are_concatenated_by_channel(channels, images):
    """By planes or by pixels, whichever is quicker: the same."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(images, 3, 2, c)).astype(np.float32) for c in channels]
    parts[0] = parts[0][:, ::-1]  # no order that memory has
    got = F.concatenate([mg.Tensor(part) for part in parts], axis=3)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.numpy(), np.concatenate(parts, axis=3))
