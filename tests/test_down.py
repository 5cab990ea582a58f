"""Convolution in pairs of lines, against the plain ways to the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigan import backend, gemm
from minigan.ops import conv, down, strips, windows
from minigan.ops.windows import Geometry


@pytest.fixture(autouse=True)
def calls_forgotten():
    """What `gemm` has made of a patched function is not used by another test."""
    down.products.cache_clear()
    yield
    down.products.cache_clear()


@st.composite
def cases(draw):
    """A geometry, the images, and the results: all that the geometry gives, or fewer."""
    taps, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    span = (taps - 1) * dilation + 1
    padding = draw(st.integers(0, 4)), draw(st.integers(0, span - 1))
    g = Geometry((3, taps), (1, 1), padding, (1, dilation))
    height = max(1, 3 - 2 * padding[0]) + draw(st.integers(0, 9))
    width = max(1, span - 2 * padding[1]) + draw(st.integers(0, 9))
    rows, across = g.output_size(height, width)
    if draw(st.booleans()):
        rows, across = draw(st.integers(1, rows)), draw(st.integers(1, across))
    return g, (height, width), (rows, across)


@given(
    case=cases(),
    images=st.integers(1, 4),
    column_bytes=st.sampled_from([1, 1 << 13, 1 << 21]),
    biased=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_pairs_of_lines_give_what_columns_give(case, images, column_bytes, biased, seed):
    """Any padding, dilation and size, in one piece and cut small; in memory that holds NaNs."""
    g, image, results = case
    random = np.random.default_rng(seed)
    x = random.normal(size=(images, *image, 3))  # (N, H, W, C)
    w = random.normal(size=(*g.kernel, 3, 2))  # (KH, KW, C, O)
    y = random.normal(size=(images, *results, 2))  # (N, OH, OW, O)
    bias = random.normal(size=2) if biased else None

    def nan_scratch(name, shape, dtype):
        return np.full(shape, np.nan, dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend.CPU, "column_bytes", column_bytes, raising=False)
        patch.setattr(windows, "PIECE_ROWS", 1)
        patch.setattr(backend.CPU, "scratch", nan_scratch, raising=False)
        found, expected = np.empty_like(y), np.empty_like(y)
        down.convolve(backend.CPU, x, w, g, found, bias)
        correlated = down.correlate(backend.CPU, x, y, g)
    conv.convolve(backend.CPU, x, w, g, expected, bias)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)
    expected = conv.correlate(backend.CPU, x, y, g)
    np.testing.assert_allclose(correlated, expected, rtol=1e-11, atol=1e-11)


def test_images_and_results_may_be_views():
    """Every other image of a larger batch, mirrored, and results with channels between them."""
    random, g = np.random.default_rng(0), Geometry((3, 3), (1, 1), (1, 1))
    x = random.normal(size=(4, 6, 20, 5))[::2, :, ::-1, 1:4]
    w = random.normal(size=(2, 3, 3, 3)).transpose(2, 3, 1, 0)
    found, expected = (np.empty((2, 6, 20, 4))[..., ::2] for _ in range(2))
    down.convolve(backend.CPU, x, w, g, found)
    conv.convolve(backend.CPU, x, w, g, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)
    a, b = (module.correlate(backend.CPU, x, found, g) for module in (down, conv))
    np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_it_multiplies_two_thirds(monkeypatch):
    """Four products for six, and one column in vain for the padding between two lines."""
    counts = []

    def counted(into, strips, weights, results, products, fresh=False):
        k, n = strips.array.shape[1], results.array.shape[1]
        counts.append(sum(part.rows * k * n for part in products.parts))
        gemm.add_products(into, strips, weights, results, products, fresh)

    monkeypatch.setattr(backend.CPU, "add_products", counted, raising=False)
    g = Geometry((3, 3), (1, 1), (1, 1))
    x, w, y = np.ones((2, 16, 80, 64)), np.ones((3, 3, 64, 8)), np.ones((2, 16, 80, 8))
    for function in (
        lambda: strips.convolve(backend.CPU, x, w, g, y),
        lambda: strips.correlate(backend.CPU, x, y, g),
    ):
        counts.clear()
        function()
        assert sum(counts) == pytest.approx(2 / 3 * 81 / 80 * (2 * 16 * 80) * w.size)


@pytest.mark.parametrize(
    ("g", "shape"),  # and the images
    [
        (Geometry((4, 3), (1, 1), (1, 1)), (4, 16, 80, 64)),  # not three rows
        (Geometry((3, 3), (2, 1), (1, 1)), (4, 32, 80, 64)),
        (Geometry((3, 3), (1, 1), (2, 1), (2, 1)), (4, 16, 80, 64)),
        (Geometry((3, 1), (1, 1), (1, 0)), (4, 16, 80, 64)),  # one tap along the line
        (Geometry((3, 2), (1, 1), (1, 2)), (4, 16, 80, 64)),  # more padding than the kernel reaches
        (Geometry((3, 3), (1, 1), (1, 1)), (4, 16, 80, 32)),  # short products
        (Geometry((3, 3), (1, 1), (1, 1)), (1, 12, 80, 64)),  # few results
        (Geometry((3, 3), (1, 1), (1, 1)), (20, 16, 64, 64)),  # short lines
        (Geometry((3, 3), (1, 1), (1, 1)), (20, 5, 80, 64)),  # an eighth of the results in vain
    ],
)
def test_what_it_does_not_suit(g, shape):
    assert down.suits(Geometry((3, 3), (1, 1), (1, 1)), (4, 16, 80, 64), (4, 16, 80, 3))
    assert not down.suits(g, shape, (shape[0], *g.output_size(*shape[1:3]), 3))


@pytest.mark.parametrize(("width", "suits"), [(64, False), (65, True)])
def test_how_wide_images_must_be(width, suits):
    g, shape = Geometry((3, 3), (1, 1), (1, 1)), (4, 16, width)
    assert down.suits(g, (*shape, 64), (*shape, 3)) == suits
