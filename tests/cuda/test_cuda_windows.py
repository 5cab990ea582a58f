"""im2col and col2im against their twins, and against convolution in the engine on NumPy."""

import numpy as np
import pytest
import running
from conftest import examples
from hypothesis import given
from hypothesis import strategies as st
from running import COUNT, DTYPES, RACES, run, whole_numbers

import minigan as mg
from minigan import functional as F
from minigan import twins

index_type, pytestmark = running.index_type, running.pytestmark


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
