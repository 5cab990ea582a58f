"""Adding at repeated places: the sums of NumPy, and on a GPU the same bits every time."""

import numpy as np
import pytest
from conftest import examples
from hypothesis import given
from hypothesis import strategies as st
from target import installed

from minigan import backend


def added(y, index, x):
    """A copy of y with x added at `index`, on the device."""
    with installed() as cupy:
        device = backend.get("cuda")
        y, x = (cupy.asarray(a.copy()) for a in (y, x))
        device.add_at(y, tuple(cupy.asarray(i) if hasattr(i, "dtype") else i for i in index), x)
        return device.to_host(y)


@examples(60)
@given(
    st.sampled_from([np.float32, np.float64]),
    st.integers(1, 7),
    st.integers(0, 300),
    st.integers(0, 2**32 - 1),
)
def test_repeats_are_added(dtype, rows, count, seed):
    rng = np.random.default_rng(seed)
    index = rng.integers(-rows, rows, count), slice(None), rng.integers(0, 3, (2, 1))
    y = rng.integers(-9, 10, (rows, 2, 3)).astype(dtype)
    wanted, x = y.copy(), rng.integers(-9, 10, y[index[0], :, index[2]].shape).astype(dtype)
    np.add.at(wanted, (index[0], slice(None), index[2]), x)
    np.testing.assert_array_equal(added(y, index, x), wanted)


def test_the_order_is_the_same_every_time():
    rng = np.random.default_rng(0)
    y, index = np.zeros(50, np.float32), (rng.integers(0, 50, 100_000),)
    x = rng.normal(size=100_000).astype(np.float32)
    wanted = np.bincount(index[0], x.astype(np.float64), 50)
    first = added(y, index, x)
    np.testing.assert_allclose(first, wanted, atol=1e-3)
    for _ in range(3):
        np.testing.assert_array_equal(added(y, index, x), first)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_where_it_belongs(odd):
    index, x = (np.array([2, 0, 2, 0, 3]),), np.array([odd, 1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(added(np.zeros(4), index, x), [4.0, 0.0, odd, 4.0])


def test_a_mask():
    x = np.array([1.0, 2.0])
    got = added(np.ones(4), (np.array([True, False, False, True]),), x)
    np.testing.assert_array_equal(got, [2.0, 1.0, 1.0, 3.0])
