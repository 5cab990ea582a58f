"""Adam in one launch against its twin, and the optimisers of the engine on NumPy."""

from itertools import chain

import numpy as np
import pytest
import running
from conftest import examples
from hypothesis import given
from hypothesis import strategies as st
from running import (
    COUNT,
    DTYPES,
    ODD,
    ORDERS,
    RACES,
    assert_close,
    count_launches,
    kernels,
    on_device,
    set_order,
)
from target import ON_GPU, xp

import minigan as mg
from minigan import optim, twins

index_type, pytestmark = running.index_type, running.pytestmark


@st.composite
def parameters(draw):
    """Sizes of tensors, around those where a block ends."""
    around = [0, 1, 2, 3, 17, 255, 256, 257] + ([] if RACES else [4096, 4097, 9000])
    sizes = draw(st.lists(st.sampled_from(around), min_size=1, max_size=6))
    return sizes, draw(st.integers(0, 1000))


def draw_parameters(sizes, seed, dtype):
    rng = np.random.default_rng(seed)
    p, g, m = ([rng.normal(size=n).astype(dtype) for n in sizes] for _ in range(3))
    return p, g, m, [np.square(rng.normal(size=n)).astype(dtype) for n in sizes]


def step(tensors, *options):
    """Parameters and moments after a step of the kernel."""
    results = []
    for seed in ORDERS:
        set_order(seed)
        try:
            p, g, m, v = on_device(*tensors)
            kernels.adam_step(p, g, m, v, *options)
        finally:
            set_order(None)
        results.append([[a.get() for a in arrays] for arrays in (p, m, v)])
    natural, shuffled = (chain.from_iterable(results[order]) for order in (0, -1))
    for a, b in zip(natural, shuffled, strict=True):
        assert np.array_equal(a, b, equal_nan=True)
    return results[0]


@pytest.mark.parametrize("dtype", DTYPES)
@examples(COUNT)
@given(
    case=parameters(),
    t=st.sampled_from([1, 2, 1000]),
    decay=st.sampled_from([0.0, 0.01]),
    decoupled=st.booleans(),
)
def test_adam(dtype, case, t, decay, decoupled):
    tensors = draw_parameters(*case, dtype)
    options = 1e-2, (0.5, 0.999), 1e-8, t, decay, decoupled
    got = step(tensors, *options)
    exact = [[a.astype(np.float64) for a in arrays] for arrays in tensors]
    twins.adam_step(*exact, *options)
    for arrays, wanted in zip(got, (exact[0], exact[2], exact[3]), strict=True):
        for a, b in zip(arrays, wanted, strict=True):
            assert_close(a, b, dtype, slack=1 / 4)


@pytest.mark.parametrize("make", [optim.Adam, optim.AdamW])
def test_adam_as_the_engine_has_it(make):
    sizes = [(3, 4), (7,), (1,)]
    rng = np.random.default_rng(8)
    leaves = [mg.tensor(rng.normal(size=s), dtype=np.float64, requires_grad=True) for s in sizes]
    optimizer = make(leaves, lr=0.01, betas=(0.5, 0.9), weight_decay=0.1)
    p = [leaf.numpy() for leaf in leaves]
    m, v = [0 * a for a in p], [0 * a for a in p]
    for t in range(1, 4):
        g = [rng.normal(size=a.shape) for a in p]
        for leaf, gradient in zip(leaves, g, strict=True):
            leaf.grad = gradient.copy()
        optimizer.step()
        decoupled = make is optim.AdamW
        p, m, v = step((p, g, m, v), 0.01, (0.5, 0.9), 1e-8, t, 0.1, decoupled)
    for leaf, a in zip(leaves, p, strict=True):
        assert_close(a, leaf.numpy(), np.float64)


def test_gradients_of_any_strides():
    """As they come: transposed, or broadcast."""
    p, g, m, v = (a[0] for a in draw_parameters([12], 4, np.float64))
    moved = [xp.asarray(a) for a in (p, m, v)]
    across = xp.asarray(g.reshape(3, 4).T.copy()).T.reshape(3, 4)
    across = [a.reshape(3, 4) for a in moved[:1]], [across], *([a.reshape(3, 4)] for a in moved[1:])
    options = 0.1, (0.5, 0.9), 1e-8, 2
    kernels.adam_step(*across, *options)
    twins.adam_step([p], [g], [m], [v], *options)
    for a, b in zip(moved, (p, m, v), strict=True):
        np.testing.assert_allclose(a.get(), b, rtol=1e-12)


@pytest.mark.skipif(RACES, reason="TSan is for small shapes")
def test_more_tensors_than_a_table_holds():
    tensors = draw_parameters([5] * 85, 1, np.float32)
    launches = count_launches()
    got = step(tensors, 1e-2, (0.5, 0.999), 1e-8, 1)
    assert ON_GPU or count_launches() - launches == 2 * len(ORDERS)  # two tables
    exact = [[a.astype(np.float64) for a in arrays] for arrays in tensors]
    twins.adam_step(*exact, 1e-2, (0.5, 0.999), 1e-8, 1)
    assert_close(np.stack(got[0]), np.stack(exact[0]), np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_adam_keeps_nan_and_infinity_apart(dtype):
    p, g = (a.ravel().astype(dtype) for a in np.meshgrid(ODD, ODD))  # (49,): each with each
    moment = np.ones_like(p)
    got = step(([p], [g], [moment], [moment]), 1e-2, (0.5, 0.9), 1e-8, 3)
    m, v = moment.copy(), moment.copy()
    twins.adam_step([p], [g], [m], [v], 1e-2, (0.5, 0.9), 1e-8, 3)
    for (a,), b in zip(got, (p, m, v), strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        np.testing.assert_array_equal(np.isinf(a), np.isinf(b))
