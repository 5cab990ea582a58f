"""The CUDA kernels, run on the CPU by the executor, against their twins and against the engine.

The engine on NumPy is a second truth, rounded in another way. Every result is computed twice, in
the natural order of blocks and threads and in a shuffled one, and must be the same to the bit.
test_cuda_sanitizers.py runs this file again under ASan with UBSan, and under TSan, to which every
CUDA thread is a thread of its own: there, less of everything.
"""

import os
from itertools import chain

import executor
import numpy as np
import pytest
from conftest import examples
from hypothesis import given
from hypothesis import strategies as st
from target import ON_GPU, xp

import minigan as mg
from minigan import functional as F
from minigan import launch, optim, twins
from minigan.cuda import kernels_dir

pytestmark = pytest.mark.skipif(
    bool(executor.missing()) and not ON_GPU, reason=executor.missing() or "there"
)

SANITIZE = os.environ.get("MINIGAN_SANITIZE", "")
COUNT = {"": 60, "address": 16, "thread": 4}[SANITIZE]
RACES = SANITIZE == "thread"
DTYPES = [np.float32] if RACES else [np.float32, np.float64]
ORDERS = [1] if RACES else [0, 1]  # on a GPU they say nothing: it takes its own, twice
ACCURACY = {np.float32: 2e-5, np.float64: 1e-12}

kernels = launch.Kernels(xp, kernels_dir())


@pytest.fixture(params=["int32"] if RACES else ["int32", "int64"], autouse=True)
def index_type(request):
    """Both widths of an index: the wide one, otherwise for more than 2**31 elements, for all."""
    with pytest.MonkeyPatch.context() as patch:
        if RACES and "adam" not in request.node.name:
            patch.setattr(launch, "THREADS", 64)
        if request.param == "int64":
            patch.setattr(launch, "INT_LIMIT", 0)
        yield request.param


def set_order(seed):
    """Let the stand-in run blocks and threads in natural order (0), or shuffled."""
    if not ON_GPU:
        xp.RawModule.seed = seed


def count_launches():
    return 0 if ON_GPU else xp.count.launches


def on_device(*arguments):
    """Arguments with arrays copied to the stand-in, also those in lists."""
    copied = []
    for a in arguments:
        if isinstance(a, list):
            a = list(on_device(*a))
        copied.append(xp.asarray(a) if isinstance(a, np.ndarray) else a)
    return tuple(copied)


def run(method, *arguments):
    """The results of a method of `Kernels` on the host: the same in both orders."""
    results = []
    for seed in ORDERS:
        set_order(seed)
        try:
            result = getattr(kernels, method)(*on_device(*arguments))
        finally:
            set_order(None)
        result = result if isinstance(result, tuple) else (result,)
        results.append([array.get() for array in result])
    for a, b in zip(results[0], results[-1], strict=True):
        assert np.array_equal(a, b, equal_nan=True), f"{method}: the order of threads shows"
    return results[0]


def assert_close(got, wanted, dtype, scale=None, slack=1):
    """Within rounding of the largest number: sums of numbers that cancel have no better bound."""
    assert got.dtype == dtype
    assert got.shape == wanted.shape
    wanted = np.asarray(wanted, np.float64)
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
    np.testing.assert_array_equal(got[~finite], wanted[~finite].astype(dtype))
    scale = max(1.0, np.abs(wanted[finite]).max(initial=0)) if scale is None else scale
    error = np.abs(got[finite] - wanted[finite]).max(initial=0)
    assert error <= ACCURACY[dtype] * slack * scale, f"{error:.2e} of {scale:.2e}"


# ---- windows


@st.composite
def windows(draw):
    """Images and how windows move over them, in the arguments of `im2col`."""

    def pair(low, high):
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    kernel, stride, padding, dilation = pair(1, 4), pair(1, 3), pair(0, 3), pair(1, 3)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels = draw(st.sampled_from([1, 2, 3] if RACES else [1, 1, 2, 3, 5, 16, 31, 33]))
    fit = [
        (k - 1) * d + 1 - 2 * p for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]  # the smallest image with a window
    image = [max(1, least) + draw(st.integers(0, 5)) for least in fit]
    most = [(i - least) // s + 1 for i, least, s in zip(image, fit, stride, strict=True)]
    size = tuple(draw(st.sampled_from([m, m, m, max(0, m - 1), 0])) for m in most)
    images = draw(st.sampled_from([1, 2, 2, 0]))
    shape = images, *image, groups * channels
    seed = draw(st.integers(0, 1000))
    return shape, kernel, stride, padding, dilation, groups, size, seed


def whole_numbers(shape, seed, dtype):
    """Small whole numbers: sums of them have no rounding, whatever the order."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@examples(COUNT)
@given(case=windows())
def test_im2col(dtype, case):
    shape, *geometry, seed = case
    x = whole_numbers(shape, seed, dtype)
    (columns,) = run("im2col", x, *geometry)
    wanted = twins.im2col(x, *geometry)
    assert columns.dtype == dtype
    assert columns.shape == wanted.shape
    assert np.array_equal(columns, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@examples(COUNT)
@given(case=windows())
def test_col2im(dtype, case):
    shape, *geometry, seed = case
    kernel, *_, groups, size = geometry
    rows, length = shape[0] * size[0] * size[1], kernel[0] * kernel[1] * shape[3] // groups
    columns = whole_numbers((groups, rows, length), seed, dtype)
    (x,) = run("col2im", columns, shape, *geometry)
    wanted = twins.col2im(columns, shape, *geometry)
    assert x.dtype == dtype
    assert np.array_equal(x, wanted)


@examples(COUNT)
@given(case=windows())
def test_col2im_is_the_adjoint_of_im2col(case):
    shape, *geometry, seed = case
    x = whole_numbers(shape, seed, np.float64)
    (columns,) = run("im2col", x, *geometry)
    y = whole_numbers(columns.shape, seed + 1, np.float64)
    (back,) = run("col2im", y, shape, *geometry)
    assert (columns * y).sum() == (x * back).sum()


@examples(max(2, COUNT // 2))
@given(case=windows())
def test_windows_as_the_engine_has_them(case):
    """A convolution with unit weights is im2col; its transpose, col2im."""
    (n, h, w, c), kernel, stride, padding, dilation, groups, _, seed = case
    share = c // groups
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = tuple(
        (i + 2 * p - e) // s + 1 for i, p, e, s in zip((h, w), padding, span, stride, strict=True)
    )
    length = kernel[0] * kernel[1] * share
    weight = np.concatenate([np.eye(length)] * groups, axis=1).reshape(*kernel, share, -1)
    geometry = kernel, stride, padding, dilation, groups, size
    x = whole_numbers((max(1, n), h, w, c), seed, np.float64)
    with mg.default_dtype(np.float64):
        tensor = mg.tensor(x, requires_grad=True)
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        y = F.conv2d(tensor, mg.tensor(weight), **options)
        gy = whole_numbers(y.shape, seed + 1, np.float64)
        y.backward(mg.tensor(gy))

    def by_group(a):
        return np.ascontiguousarray(a.reshape(-1, groups, length).transpose(1, 0, 2))

    (columns,) = run("im2col", x, *geometry)
    assert np.array_equal(columns, by_group(y.numpy()))
    (back,) = run("col2im", by_group(gy), x.shape, *geometry)
    assert np.array_equal(back, tensor.grad)


# ---- channels

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


# ---- Adam


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


def test_arguments_of_any_strides():
    """Gradients come transposed and broadcast, parameters of a norm as parts of something else."""
    p, g, m, v = (a[0] for a in draw_parameters([12], 4, np.float64))
    moved = [xp.asarray(a) for a in (p, m, v)]
    across = xp.asarray(g.reshape(3, 4).T.copy()).T.reshape(3, 4)
    across = [a.reshape(3, 4) for a in moved[:1]], [across], *([a.reshape(3, 4)] for a in moved[1:])
    options = 0.1, (0.5, 0.9), 1e-8, 2
    kernels.adam_step(*across, *options)
    twins.adam_step([p], [g], [m], [v], *options)
    for a, b in zip(moved, (p, m, v), strict=True):
        np.testing.assert_allclose(a.get(), b, rtol=1e-12)

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


@pytest.mark.skipif(RACES, reason="TSan is for small shapes")
def test_more_tensors_than_a_table_holds():
    tensors = draw_parameters([5] * 85, 1, np.float32)
    launches = count_launches()
    got = step(tensors, 1e-2, (0.5, 0.999), 1e-8, 1)
    assert ON_GPU or count_launches() - launches == 2 * len(ORDERS)  # two tables
    exact = [[a.astype(np.float64) for a in arrays] for arrays in tensors]
    twins.adam_step(*exact, 1e-2, (0.5, 0.999), 1e-8, 1)
    assert_close(np.stack(got[0]), np.stack(exact[0]), np.float32)


# ---- odd numbers

ODD = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0]


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


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_where_it_is_in_windows(dtype):
    x = np.ones((1, 5, 5, 2), dtype)
    x[0, 2, 2, 1] = np.nan
    geometry = (3, 3), (1, 1), (1, 1), (1, 1), 1, (5, 5)
    (columns,) = run("im2col", x, *geometry)
    assert np.isnan(columns).sum() == 9
    (back,) = run("col2im", columns, x.shape, *geometry)
    assert np.isnan(back).sum() == 1
    assert np.isnan(back[0, 2, 2, 1])
