"""Convolution strip by strip, and the product that adds, against the plain ways to the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigan import backend, gemm
from minigan.ops import conv, strips
from minigan.ops.windows import Geometry


@st.composite
def geometries(draw):
    """A geometry, the size of an image that it fits, and a seed for the numbers."""

    def pair(least, most):
        return draw(st.integers(least, most)), draw(st.integers(least, most))

    g = Geometry(pair(1, 5), pair(1, 3), pair(0, 4), pair(1, 3))
    (eh, ew), (ph, pw) = g.span(), g.padding
    height = draw(st.integers(max(1, eh - 2 * ph), eh + 7))
    width = draw(st.integers(max(1, ew - 2 * pw), ew + 7))
    return g, height, width, draw(st.integers(0, 2**32 - 1))


@given(
    case=geometries(),
    images=st.integers(0, 4),
    column_bytes=st.sampled_from([64, 1000, 1 << 21]),
    many=st.sampled_from([1, 512]),
)
def test_strips_give_what_columns_give(case, images, column_bytes, many):
    """Any stride, padding, dilation and size, in one piece and cut as small as can be."""
    g, height, width, seed = case
    random = np.random.default_rng(seed)
    x = random.normal(size=(images, height, width, 3))  # (N, H, W, C)
    w = random.normal(size=(*g.kernel, 3, 2))  # (KH, KW, C, O)
    y = random.normal(size=(images, *g.output_size(height, width), 2))  # (N, OH, OW, O)
    bias_y, bias_x = random.normal(size=2), random.normal(size=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend.CPU, "column_bytes", column_bytes, raising=False)
        patch.setattr(strips, "MANY", many)
        patch.setattr(strips, "PIECE_WORK", 8 if many == 1 else strips.PIECE_WORK)
        found, expected = np.empty_like(y), np.empty_like(y)
        strips.convolve(backend.CPU, x, w, g, found, bias_y)
        conv.convolve(backend.CPU, x, w, g, expected, bias_y)
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(
            strips.correlate(backend.CPU, x, y, g),
            conv.correlate(backend.CPU, x, y, g),
            rtol=1e-11,
            atol=1e-11,
        )
        np.testing.assert_allclose(
            strips.scatter(backend.CPU, y, w, g, x.shape, bias_x),
            conv.scatter(backend.CPU, y, w, g, x.shape, bias_x),
            rtol=1e-11,
            atol=1e-11,
        )


def test_the_padding_is_not_multiplied(monkeypatch):
    """From 4×4 to 2×2 pixels a 4×4 kernel meets three lines of four, 2×2 of it from 2×2 to 1×1."""
    multiplied = []

    def counted(a, b, out):
        multiplied.append(a.shape[0] * a.shape[1] * b.shape[1])
        out += a @ b

    monkeypatch.setattr(backend.CPU, "add_product", counted, raising=False)
    g, w = Geometry((4, 4), (2, 2), (1, 1)), np.ones((4, 4, 16, 8), np.float32)
    for size, expected in ((4, 3 / 4), (2, 1 / 4)):
        x = np.ones((1, size, size, 16), np.float32)
        y = np.empty((1, size // 2, size // 2, 8), np.float32)
        multiplied.clear()
        strips.convolve(backend.CPU, x, w, g, y)
        assert sum(multiplied) == expected * (size // 2) ** 2 * w.size


LAYOUTS = {
    "rows": lambda a: np.ascontiguousarray(a),
    "columns": lambda a: np.asfortranarray(a),
    "part of wider rows": lambda a: np.pad(a, [(0, 0), (1, 2)])[:, 1:-2],
    "part of longer columns": lambda a: np.asfortranarray(np.pad(a, [(1, 2), (0, 0)]))[1:-2],
    "every second number": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "backwards": lambda a: np.ascontiguousarray(a[::-1])[::-1],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("library", ["NumPy's", "none"])
@pytest.mark.parametrize("layout_b", LAYOUTS)
@pytest.mark.parametrize("layout_a", LAYOUTS)
def test_a_product_is_added(layout_a, layout_b, library, dtype, monkeypatch):
    if library == "none":  # what NumPy uses is no OpenBLAS
        monkeypatch.setattr(gemm, "_cblas", lambda dtype: None)
    random = np.random.default_rng(0)
    for m, k, n in ((3, 4, 5), (1, 7, 2), (6, 1, 1), (17, 33, 65), (2, 0, 3), (0, 2, 3), (2, 3, 0)):
        a = LAYOUTS[layout_a](random.normal(size=(m, k)).astype(dtype))
        b = LAYOUTS[layout_b](random.normal(size=(k, n)).astype(dtype))
        out = random.normal(size=(m, n + 3)).astype(dtype)
        before = out.copy()
        gemm.add_product(a, b, out[:, 1 : n + 1])
        np.testing.assert_allclose(out[:, 1 : n + 1], before[:, 1 : n + 1] + a @ b, rtol=2e-5)
        np.testing.assert_array_equal(out[:, n + 1 :], before[:, n + 1 :])
        np.testing.assert_array_equal(out[:, 0], before[:, 0])


def test_numpy_s_own_library_is_called():
    """Where NumPy has the OpenBLAS of its wheels, as on Linux; else nothing would be faster."""
    config = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    if config["name"] != "scipy-openblas":
        pytest.skip(f"this NumPy uses {config['name']}, not the OpenBLAS of its wheels")
    assert gemm._cblas(np.dtype(np.float32)) is not None
    assert gemm._cblas(np.dtype(np.float64)) is not None


@pytest.mark.parametrize("out", ["columns", "every second number"])
def test_a_product_is_added_to_any_view(out):
    a, b = np.ones((2, 3)), np.ones((3, 4))
    target = LAYOUTS[out](np.zeros((2, 4)))
    gemm.add_product(a, b, target)
    assert (target == 3).all()
