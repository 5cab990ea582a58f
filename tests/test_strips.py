"""Convolution strip by strip and plane by plane, against the plain ways to the same."""

import math
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigan as mg
from minigan import backend, gemm, workers
from minigan import functional as F
from minigan.ops import conv, few, lines, planes, strips, winograd
from minigan.ops.windows import Geometry


@pytest.fixture(autouse=True)
def calls_forgotten():
    """What `gemm` has made of a patched function is not used by another test."""
    lines._parts.cache_clear()
    yield
    lines._parts.cache_clear()


@pytest.fixture(autouse=True)
def not_by_rows_of_the_kernel(monkeypatch):
    """However few pixels an image has; there are tests of their own for those."""
    monkeypatch.setattr(few, "FEW", 0)


@st.composite
def geometries(draw):
    """A geometry, the size of an image that it fits, and a seed for the numbers."""

    def pair(least, most):
        return draw(st.integers(least, most)), draw(st.integers(least, most))

    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2), (3, 3)]))
    g = Geometry(pair(1, 6), pair(1, 3), pair(0, 4), dilation)
    (eh, ew), (ph, pw) = g.span(), g.padding
    height = draw(st.integers(max(1, eh - 2 * ph), eh + 7))
    width = draw(st.integers(max(1, ew - 2 * pw), ew + 7))
    return g, height, width, draw(st.integers(0, 2**32 - 1))


@given(
    case=geometries(),
    images=st.integers(0, 4),
    column_bytes=st.sampled_from([64, 1000, 1 << 21]),
    many=st.sampled_from([1, 512]),
    few_pixels=st.sampled_from([0, 0, 1 << 30]),
    enough=st.sampled_from([1, 1, 1 << 30]),
    biased=st.booleans(),
)
def test_strips_give_what_columns_give(
    case, images, column_bytes, many, few_pixels, enough, biased
):
    """Any stride, padding, dilation and size, in one piece and cut as small as can be.

    With the schemes of `winograd` and without, and by the rows of the kernel.
    """
    g, height, width, seed = case
    random = np.random.default_rng(seed)
    x = random.normal(size=(images, height, width, 3))  # (N, H, W, C)
    w = random.normal(size=(*g.kernel, 3, 2))  # (KH, KW, C, O)
    y = random.normal(size=(images, *g.output_size(height, width), 2))  # (N, OH, OW, O)
    bias_y, bias_x = (random.normal(size=size) if biased else None for size in (2, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend.CPU, "column_bytes", column_bytes, raising=False)
        patch.setattr(strips, "MANY", many)
        patch.setattr(few, "FEW", few_pixels)
        patch.setattr(few, "SHARED_WORK", 8)
        patch.setattr(winograd, "ENOUGH", enough)
        patch.setattr(winograd, "PART", 1)
        patch.setattr(strips, "PIECE_WORK", 8 if many == 1 else strips.PIECE_WORK)
        found, expected = np.empty_like(y), np.empty_like(y)
        strips.convolve(backend.CPU, x, w, g, found, bias_y)
        conv.convolve(backend.CPU, x, w, g, expected, bias_y)
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)
        np.full(x.shape, np.nan)  # gone at once: it is memory that `scatter` is likely to get
        scattered = strips.scatter(backend.CPU, y, w, g, x.shape, bias_x)
        np.testing.assert_allclose(
            strips.correlate(backend.CPU, x, y, g),
            conv.correlate(backend.CPU, x, y, g),
            rtol=1e-11,
            atol=1e-11,
        )
        np.full(x.shape, np.nan)
        expected = conv.scatter(backend.CPU, y, w, g, x.shape, bias_x)
        np.full(x.shape, np.nan)
        by_planes = planes.scatter(backend.CPU, y, w, g, x.shape, bias_x)
        np.testing.assert_allclose(scattered, expected, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(by_planes, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("scheme", winograd.SCHEMES, ids=["four taps", "two taps", "three taps"])
@pytest.mark.parametrize("further", [0, 1, 5])
@pytest.mark.parametrize("padding", range(4))
@pytest.mark.parametrize("across", [4, 8, 15, 16])
@pytest.mark.parametrize(("pixels", "stride"), [(1, 1), (2, 1), (2, 2)])  # of a strip
def test_a_scheme_gives_what_columns_give(
    pixels, stride, across, padding, further, scheme, monkeypatch
):
    """In all three products, whatever lies where a line ends: padding, the image, or neither."""
    monkeypatch.setattr(winograd, "PART", 1)
    monkeypatch.setattr(winograd, "ENOUGH", 1)
    monkeypatch.setattr(winograd, "SCHEMES", (scheme,))
    monkeypatch.setattr(winograd, "WASTE", 1)
    g = Geometry((2, pixels * scheme.taps), (1, stride), (0, padding))
    width = max(1, g.input_size(2, across)[1]) + further
    random = np.random.default_rng(0)
    x, w = random.normal(size=(2, 4, width, 3)), random.normal(size=(*g.kernel, 3, 2))
    y = random.normal(size=(2, *g.output_size(4, width), 2))[:, :, :across]
    assert winograd.tiling_for(g, 3, y.shape).scheme is scheme
    found, expected = np.empty_like(y), np.empty_like(y)
    strips.convolve(backend.CPU, x, w, g, found)
    conv.convolve(backend.CPU, x, w, g, expected)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    for name, inputs in (("correlate", (x, y, g)), ("scatter", (y, w, g, x.shape))):
        a, b = (getattr(module, name)(backend.CPU, *inputs) for module in (strips, conv))
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.fixture
def multiplied(monkeypatch):
    """Counts the multiplications of each call of `add_products`."""
    counts = []

    def counted(into, strips, weights, results, products, fresh=False):
        k, n = strips.array.shape[1], results.array.shape[1]
        counts.append(sum(part.rows * k * n for part in products.parts))
        gemm.add_products(into, strips, weights, results, products, fresh)

    monkeypatch.setattr(backend.CPU, "add_products", counted, raising=False)
    return counts


def test_the_padding_is_not_multiplied(multiplied):
    """From 4×4 to 2×2 pixels a 4×4 kernel meets three lines of four, 2×2 of it from 2×2 to 1×1."""
    g, w = Geometry((4, 4), (2, 2), (1, 1)), np.ones((4, 4, 16, 8), np.float32)
    for size, expected in ((4, 3 / 4), (2, 1 / 4)):
        x = np.ones((1, size, size, 16), np.float32)
        y = np.empty((1, size // 2, size // 2, 8), np.float32)
        multiplied.clear()
        strips.convolve(backend.CPU, x, w, g, y)
        assert sum(multiplied) == expected * (size // 2) ** 2 * w.size


@pytest.mark.parametrize(
    ("kernel", "stride", "across", "expected"),
    [(4, 2, 16, 3 / 4), (4, 1, 16, 9 / 16), (4, 1, 15, 3 / 5), (2, 1, 8, 3 / 4), (3, 1, 8, 2 / 3)]
    + [(6, 2, 8, 2 / 3), (3, 2, 8, 1), (5, 1, 8, 1), (3, 1, 5, 1), (4, 4, 8, 1), (1, 1, 8, 1)],
)
def test_a_scheme_multiplies_less(kernel, stride, across, expected, multiplied, monkeypatch):
    """Nine products for sixteen, three for four, or four for six; 15 results are made as 16.

    Not where the taps are too many or too few, strips do not lie side by side, or results are odd.
    """
    monkeypatch.setattr(winograd, "ENOUGH", 1)
    g = Geometry((1, kernel), (1, stride))
    w, y = np.ones((1, kernel, 64, 8)), np.ones((2, 3, across, 8))
    x = np.ones((2, 3, g.input_size(3, across)[1], 64))
    for function in (
        lambda: strips.convolve(backend.CPU, x, w, g, y),
        lambda: strips.correlate(backend.CPU, x, y, g),
        lambda: strips.scatter(backend.CPU, y, w, g, x.shape),
    ):
        multiplied.clear()
        function()
        assert sum(multiplied) == pytest.approx(expected * 6 * across * w.size)


def test_schemes_are_for_many_results():
    g = Geometry((4, 4), (2, 2), (1, 1))
    assert winograd.tiling_for(g, 64, (64, 4, 4, 256)).scheme is winograd.TWO_TAPS
    assert winograd.tiling_for(g, 64, (15, 8, 8, 256)).scheme is winograd.PLAIN  # few results
    assert winograd.tiling_for(g, 16, (64, 4, 4, 256)).scheme is winograd.PLAIN  # short strips
    assert winograd.tiling_for(g, 64, (64, 4, 3, 256)).scheme is winograd.PLAIN  # a fourth wasted
    g = Geometry((4, 4), (1, 1), (1, 1))
    assert winograd.tiling_for(g, 64, (16, 15, 15, 128)).scheme is winograd.FOUR_TAPS
    assert winograd.tiling_for(g, 64, (8, 15, 15, 128)).scheme is winograd.TWO_TAPS  # fewer results
    assert winograd.tiling_for(g, 32, (16, 15, 15, 128)).scheme is winograd.TWO_TAPS  # short strips


@pytest.mark.parametrize(("images", "pieces"), [(8, 2), (32, 2), (64, 4)])
def test_pieces_are_not_three(images, pieces):
    """Of which one of two workers would have two, and the other would wait; and they are large."""
    g = Geometry((4, 4), (1, 1), (1, 1))
    w, y = np.empty((4, 4, 64, 128), "f"), np.empty((images, 15, 15, 128), "f")
    tiling = winograd.tiling_for(g, 64, y.shape)
    assert len(strips.strip_pieces(backend.CPU, g, tiling, w, y)) == pieces


@pytest.mark.parametrize("scheme", winograd.SCHEMES, ids=["four taps", "two taps", "three taps"])
def test_a_scheme_is_right(scheme):
    """Written out for one group of neighbours, against the filter itself."""
    random = np.random.default_rng(0)
    pixels, taps = random.normal(size=scheme.taps + scheme.results), random.normal(size=scheme.taps)
    lines = [pixels]
    for step in scheme.lines:
        assert step.made.start == len(lines)
        made = [line[: -step.further] + step.sign * line[step.further :] for line in lines[step.of]]
        lines += made
    for line, terms in zip(lines, scheme.terms, strict=True):
        assert line[0] == pytest.approx(sum(sign * pixels[further] for further, sign in terms))
    found = np.zeros(scheme.results)
    for product in scheme.products:
        strip = lines[product.line][product.place]
        found += product.scale * strip * np.dot(product.taps, taps) * np.array(product.results)
    expected = [np.dot(pixels[i : i + scheme.taps], taps) for i in range(scheme.results)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    places = {(product.line, product.place) for product in scheme.products}
    assert len(places) == len(scheme.products)  # in the other direction each is added to its own


@pytest.mark.parametrize(
    ("kernel", "stride", "width"),
    [(4, 2, 32), (4, 1, 32), (3, 1, 32), (3, 1, 80)],  # the last in pairs of lines
)
def test_a_scheme_is_as_exact_in_float32(kernel, stride, width):
    """The error is hardly larger than that of columns (0.7 to 0.93 of it when this was written)."""
    random = np.random.default_rng(1)
    g = Geometry((kernel, kernel), (stride, stride), (1, 1))
    x = random.normal(size=(4, 32, width, 64)).astype(np.float32)
    w = random.normal(size=(kernel, kernel, 64, 32)).astype(np.float32)
    shape = (4, *g.output_size(32, width), 32)
    assert winograd.tiling_for(g, 64, shape).scheme is not winograd.PLAIN
    found, plain, exact = np.empty(shape, "f"), np.empty(shape, "f"), np.empty(shape)
    strips.convolve(backend.CPU, x, w, g, found)
    conv.convolve(backend.CPU, x, w, g, plain)
    conv.convolve(backend.CPU, x.astype(float), w.astype(float), g, exact)
    error, columns_error = (np.sqrt(np.mean((y - exact) ** 2)) for y in (found, plain))
    assert error <= 1.2 * columns_error


def test_pixels_that_no_window_sees_get_nothing(monkeypatch):
    """Lines below the last window and columns beyond it, in memory that is not zero."""
    monkeypatch.setattr(winograd, "ENOUGH", 1)
    xp = backend.CPU.xp
    monkeypatch.setattr(xp, "empty", lambda shape, dtype=float: xp.full(shape, 7.0, dtype))
    g = Geometry((2, 4), (2, 2), (0, 0))
    w, y = np.ones((2, 4, 64, 3)), np.ones((1, 3, 4, 3))
    height, width = g.input_size(3, 4)
    assert winograd.tiling_for(g, 64, y.shape).scheme is winograd.TWO_TAPS
    x = strips.scatter(backend.CPU, y, w, g, (1, height + 1, width + 1, 64))
    assert (x[:, height:] == 0).all()
    assert (x[:, :, width:] == 0).all()
    np.testing.assert_allclose(x, conv.scatter(backend.CPU, y, w, g, x.shape))


@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("further", [0, 1, 2])
@pytest.mark.parametrize("padding", [0, 1])
def test_planes_fill_pixels_that_no_window_sees(padding, further, stride, kernel, monkeypatch):
    """Between windows and beyond the last, in memory that is not zero; the bias is there, too."""
    xp = backend.CPU.xp
    random = np.random.default_rng(0)
    g = Geometry((kernel, kernel), (stride, stride), (padding, padding))
    w, y = random.normal(size=(kernel, kernel, 2, 3)), random.normal(size=(2, 3, 4, 3))
    height, width = g.input_size(3, 4)
    shape, bias = (2, height + further, width + further, 2), random.normal(size=2)
    expected = conv.scatter(backend.CPU, y, w, g, shape, bias)
    monkeypatch.setattr(xp, "empty", lambda shape, dtype=float: xp.full(shape, 7, dtype))
    backend.CPU.scratch("planes", (1 << 14,), np.dtype(float))[...] = np.nan
    x = planes.scatter(backend.CPU, y, w, g, shape, bias)
    np.testing.assert_allclose(x, expected, atol=1e-12)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", ["planes", "strips"])
def test_images_are_filled_if_there_is_no_line_to_add(name, biased, monkeypatch):
    xp = backend.CPU.xp
    monkeypatch.setattr(xp, "empty", lambda shape, dtype=float: xp.full(shape, 7, dtype))
    g, bias = Geometry((5, 4), (2, 2)), np.arange(1.0, 4)
    way = {"planes": planes, "strips": strips}[name].scatter
    inputs = np.ones((2, 0, 4, 16)), np.ones((5, 4, 3, 16)), g, (2, 3, 10, 3)
    x = way(backend.CPU, *inputs, bias if biased else None)
    assert (x == (bias if biased else 0)).all()


@pytest.mark.parametrize("channels", [(64, 0), (32, 32), (64, 8)])
def test_results_of_any_number_of_channels_in_any_array(channels):
    """None at all, and with strides: one image, whose results could else lie where they are."""
    c, o = channels
    random = np.random.default_rng(0)
    g = Geometry((3, 5), padding=(1, 1))  # five taps: no scheme
    x, w = random.normal(size=(1, 6, 8, c)), random.normal(size=(3, 5, c, o))
    wide = np.zeros((1, 6, 12, o + 3))
    y, expected = wide[:, :, 2:-4, 1 : o + 1], np.empty((1, 6, 6, o))
    strips.convolve(backend.CPU, x, w, g, y)
    if o:
        conv.convolve(backend.CPU, x, w, g, expected)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    wide[:, :, 2:-4, 1 : o + 1] = 0
    assert not wide.any()
    assert strips.correlate(backend.CPU, x, expected, g).shape == w.shape


@pytest.mark.usefixtures("threads_put_back")
@pytest.mark.parametrize(("channels", "scheme"), [(32, "TWO_TAPS"), (64, "FOUR_TAPS")])
def test_a_scheme_leaves_rubbish_in_a_buffer_alone(channels, scheme):
    """What an operation before left in the buffers is in no result, not even as NaN · 0."""
    g = Geometry((4, 4), (1, 1), (1, 1))
    x, w = np.ones((16, 16, 16, channels), np.float32), np.ones((4, 4, channels, 32), np.float32)
    y = np.ones((16, 15, 15, 32), np.float32)  # made as 16 across
    assert winograd.tiling_for(g, channels, y.shape).scheme is getattr(winograd, scheme)
    workers.set_num_threads(1)
    for name in ("strips", "results", "totals"):
        backend.CPU.scratch(name, (1 << 22,), np.dtype(np.float32))[...] = np.nan
    strips.convolve(backend.CPU, x, w, g, y)
    assert np.isfinite(y).all()
    assert np.isfinite(strips.correlate(backend.CPU, x, y, g)).all()
    assert np.isfinite(strips.scatter(backend.CPU, y, w, g, x.shape)).all()


def test_a_thread_of_the_user_gets_what_the_main_thread_gets():
    """Nor does it matter how many threads BLAS has there."""
    random = np.random.default_rng(0)
    x = random.normal(size=(16, 32, 32, 128)).astype(np.float32)  # (N, H, W, C)
    w = random.normal(size=(3, 3, 128, 128)).astype(np.float32)

    def gradients():
        inputs = [mg.Tensor(a, requires_grad=True) for a in (x, w)]
        y = F.conv2d(*inputs, padding=1)
        y.sum().backward()
        return [y.numpy(), *(t.grad for t in inputs)]

    found, expected = [], gradients()
    thread = threading.Thread(target=lambda: found.extend(gradients()))
    thread.start()
    thread.join()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max())


def test_few_pixels_are_cut_by_the_rows_of_the_kernel(monkeypatch):
    """No two products read or write the same part of the weight, nor any that sees only padding."""
    calls, matmul = [], workers.matmul

    def counted(a, b, out):
        calls.append((a, b, out))
        matmul(a, b, out)

    monkeypatch.setattr(few, "FEW", 512)
    monkeypatch.setattr(backend.CPU, "matmul", counted, raising=False)
    random = np.random.default_rng(0)
    g, w = Geometry((4, 4), (2, 2), (1, 1)), random.normal(size=(4, 4, 64, 8)).astype(np.float32)
    for size, rows in ((8, 4), (4, 4), (2, 2)):  # from 2×2 pixels to one, two rows of four are seen
        x = random.normal(size=(16, size, size, 64)).astype(np.float32)
        y = np.empty((16, size // 2, size // 2, 8), np.float32)
        calls.clear()
        strips.convolve(backend.CPU, x, w, g, y)
        weights = [b for _, b, _ in calls]
        strips.scatter(backend.CPU, y, w, g, x.shape)
        gw = strips.correlate(backend.CPU, x, y, g)
        written = [out for _, _, out in calls[2 * rows :]]
        assert len(calls) == 3 * rows
        assert all(np.shares_memory(b, w) for b in weights)
        assert all(np.shares_memory(out, gw) for out in written)
        for some in (weights, written):
            assert not any(np.shares_memory(a, b) for a in some for b in some if a is not b)
    calls.clear()
    x = random.normal(size=(8, 16, 16, 64)).astype(np.float32)
    strips.convolve(backend.CPU, x, w, g, np.empty((8, 8, 8, 8), np.float32))
    assert not calls  # 512 pixels are not few


@pytest.mark.usefixtures("threads_put_back")
def test_rows_of_the_kernel_are_shared_out(monkeypatch):
    """By two threads side by side, if there is enough to do; else by the caller alone."""
    workers.set_num_threads(2)
    monkeypatch.setattr(few, "FEW", 512)
    both, threads, matmul = threading.Barrier(2), set(), workers.matmul

    def meeting(a, b, out):
        if workers._busy() and len(threads) < 2:
            threads.add(threading.current_thread())
            both.wait(30)
        matmul(a, b, out)

    monkeypatch.setattr(backend.CPU, "matmul", meeting, raising=False)
    g, w = Geometry((4, 4), (2, 2), (1, 1)), np.ones((4, 4, 256, 256), np.float32)
    x, y = np.ones((16, 4, 4, 256), np.float32), np.empty((16, 2, 2, 256), np.float32)
    strips.convolve(backend.CPU, x[:1], w, g, y[:1])
    assert not threads
    strips.convolve(backend.CPU, x, w, g, y)
    assert len(threads) == 2


@pytest.mark.parametrize("shape", [(0, 4, 3), (5, 4, 3), (2, 5, 1, 7), (2, 3, 4, 0)])
@pytest.mark.parametrize("layout", ["side by side", "every second number", "across"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_runs_are_copied(dtype, layout, shape):
    """Whether they can be moved as one item or not; and what is beside them stays."""
    source = np.arange(math.prod(shape), dtype=dtype).reshape(shape)
    wide = np.full((*shape[:-2], shape[-2] + 2, shape[-1]), -1, dtype)
    to = wide[..., 1:-1, :]
    if layout == "every second number":
        source = np.repeat(source, 2, axis=-1)[..., ::2]
    elif layout == "across":
        source = np.asfortranarray(source)
    expected = source.copy()
    backend.CPU.copy_runs(to, source)
    np.testing.assert_array_equal(to, expected)
    backend.CPU.copy_runs(to, source.astype(np.int32))  # whose items are as large as a float32's
    np.testing.assert_array_equal(to, expected)
    assert (wide[..., [0, -1], :] == -1).all()
