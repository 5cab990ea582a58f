"""Image metrics against closed forms and a loop written from the paper."""

import math
import subprocess
import sys

import numpy as np
import pytest

from minigan.metrics import mse, psnr, ssim

METRICS = {
    "mse": mse,
    "psnr": lambda a, b: psnr(a, b, 2),
    "ssim": lambda a, b: ssim(a, b, 2),
}
every_metric = pytest.mark.parametrize("name", METRICS)


def random_images(seed, shape=(3, 14, 17, 2)):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, shape), rng.uniform(-1, 1, shape)


def ssim_by_loops(a, b, data_range):
    """Equation 13 of Wang et al. 2004 for one channel `(H, W)`, a pixel at a time."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for row in range(5, a.shape[0] - 5):
        for col in range(5, a.shape[1] - 5):
            x = a[row - 5 : row + 6, col - 5 : col + 6]
            y = b[row - 5 : row + 6, col - 5 : col + 6]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            numerator = (2 * mx * my + c1) * (2 * cov + c2)
            values.append(numerator / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return np.mean(values)


class FakeTensor:
    """An object that only gives its array by `.numpy()`."""

    def __init__(self, array):
        self.array = array

    def numpy(self):
        return self.array


# ----------------------------------------------------------------------------------- right numbers


@pytest.mark.parametrize("data_range", [0.5, 2, 255])
def test_ssim_is_the_formula_of_the_paper(data_range):
    a, b = random_images(1)
    b = 0.6 * a + 0.4 * b  # related, so that the covariance matters
    expected = np.mean(
        [ssim_by_loops(a[n, ..., c], b[n, ..., c], data_range) for n in range(3) for c in range(2)]
    )
    assert ssim(a, b, data_range) == pytest.approx(expected, rel=1e-11)


def test_ssim_of_constant_images_is_the_luminance_term():
    a, b = np.full((1, 12, 12, 3), 0.3), np.full((1, 12, 12, 3), 0.8)
    c1 = (0.01 * 2) ** 2
    expected = (2 * 0.3 * 0.8 + c1) / (0.3**2 + 0.8**2 + c1)
    assert ssim(a, b, 2) == pytest.approx(expected, rel=1e-12)


def test_ssim_of_a_window_sized_image_is_one_number():
    a, b = random_images(2, (1, 11, 11, 1))
    assert ssim(a, b, 2) == pytest.approx(ssim_by_loops(a[0, ..., 0], b[0, ..., 0], 2), rel=1e-11)


def test_mse_and_psnr_of_a_constant_difference():
    a = np.zeros((2, 3, 4, 1))
    assert mse(a, a + 0.1) == pytest.approx(0.01, rel=1e-12)
    assert psnr(a, a + 0.1, 1) == pytest.approx(20, rel=1e-12)
    assert psnr(a, a + 0.1, 2) == pytest.approx(20 + 20 * math.log10(2), rel=1e-12)


def test_psnr_is_taken_per_image_and_then_averaged():
    a = np.zeros((2, 3, 3, 1))
    b = np.stack([np.full((3, 3, 1), 0.1), np.full((3, 3, 1), 0.01)])
    assert psnr(a, b, 1) == pytest.approx((20 + 40) / 2, rel=1e-12)


def test_identical_images_are_perfect():
    a, _ = random_images(4)
    assert mse(a, a) == 0.0
    assert psnr(a, a, 2) == math.inf
    assert ssim(a, a, 2) == 1.0
    flat = np.zeros((1, 12, 12, 3))
    assert ssim(flat, flat, 2) == 1.0


def test_one_identical_image_makes_the_mean_psnr_infinite():
    a, b = random_images(5)
    b[0] = a[0]
    assert psnr(a, b, 2) == math.inf


@every_metric
def test_symmetric(name):
    a, b = random_images(6)
    assert METRICS[name](a, b) == pytest.approx(METRICS[name](b, a), rel=1e-14)


@every_metric
def test_batch_is_the_mean_of_its_images_and_of_its_channels(name):
    a, b = random_images(7)
    one_by_one = [METRICS[name](x, y) for x, y in zip(a, b, strict=True)]
    assert METRICS[name](a, b) == pytest.approx(np.mean(one_by_one), rel=1e-12)
    if name != "psnr":  # the logarithm is taken after the mean over channels
        by_channel = [METRICS[name](a[..., c : c + 1], b[..., c : c + 1]) for c in range(2)]
        assert METRICS[name](a, b) == pytest.approx(np.mean(by_channel), rel=1e-12)


# ------------------------------------------------------------------------------------------ inputs


@every_metric
def test_takes_lists_tensors_and_any_real_dtype_and_returns_a_float(name):
    rng = np.random.default_rng(8)
    a, b = rng.integers(0, 2, (2, 1, 12, 12, 1))
    expected = METRICS[name](a.astype(float), b.astype(float))
    conversions = [np.ndarray.tolist, FakeTensor]
    for dtype in (np.float16, np.float32, np.uint8, np.int64, bool):
        conversions.append(lambda v, dtype=dtype: v.astype(dtype))
    for convert in conversions:
        got = METRICS[name](convert(a), convert(b))
        assert type(got) is float
        assert got == expected


def test_bytes_do_not_wrap_around():
    a = np.full((1, 12, 12, 1), 10, np.uint8)
    b = np.full((1, 12, 12, 1), 20, np.uint8)
    assert mse(a, b) == 100.0


@every_metric
def test_inputs_are_left_alone(name):
    a, b = random_images(9)
    before = a.copy(), b.copy()
    METRICS[name](a, b)
    assert np.array_equal(a, before[0])
    assert np.array_equal(b, before[1])


# ------------------------------------------------------------------------------------------ errors


@every_metric
@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (np.zeros((2, 12, 12, 3)), np.zeros((2, 12, 12, 1)), r"\(2, 12, 12, 3\) and \(2, 12, 12"),
        (np.zeros((2, 12, 12, 3)), np.zeros((12, 12, 3)), "must be equal"),
        (np.zeros((12, 12)), np.zeros((12, 12)), r"must be \(N, H, W, C\) or \(H, W, C\)"),
        (np.zeros((1, 1, 12, 12, 3)), np.zeros((1, 1, 12, 12, 3)), r"must be \(N, H, W, C\)"),
        (np.zeros((0, 12, 12, 3)), np.zeros((0, 12, 12, 3)), "holds no pixels"),
        (np.zeros((12, 12, 0)), np.zeros((12, 12, 0)), "holds no pixels"),
        (np.full((12, 12, 1), np.nan), np.zeros((12, 12, 1)), "first images hold 144 values"),
        (np.zeros((12, 12, 1)), np.full((12, 12, 1), -np.inf), "second images hold 144 values"),
        (np.zeros((12, 12, 1), complex), np.zeros((12, 12, 1)), "dtype complex128"),
        (np.zeros((12, 12, 1)), np.zeros((12, 12, 1), object), "second images have dtype object"),
    ],
)
def test_unfit_images_are_refused_in_words(name, a, b, words):
    with pytest.raises(ValueError, match=f"^{name}: .*{words}"):
        METRICS[name](a, b)


@pytest.mark.parametrize("shape", [(1, 10, 11, 3), (1, 11, 10, 3), (4, 64, 3)])
def test_ssim_refuses_images_smaller_than_its_window(shape):
    with pytest.raises(ValueError, match=r"ssim: .* the window is 11 × 11; give .* at least 11"):
        ssim(np.zeros(shape), np.zeros(shape), 1)


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize("data_range", [0, -1, math.nan, math.inf, None, "2", 1j, [2], np.ones(2)])
def test_data_range_must_be_a_number_above_zero(metric, data_range):
    a, b = random_images(10)
    with pytest.raises(ValueError, match=rf"{metric.__name__}: data_range is .* above 0"):
        metric(a, b, data_range)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_data_range_has_no_default(metric):
    with pytest.raises(TypeError, match="data_range"):
        metric(*random_images(11))


def test_importing_metrics_does_not_import_scipy():
    code = "import sys, minigan.metrics; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
