"""How close two batches of images are: mean squared error, PSNR and SSIM.

Images are `(N, H, W, C)`, channels last, or one image `(H, W, C)`. Every metric takes anything
that `numpy.asarray` reads, or an object with a `.numpy()` method such as a Tensor, of any real
dtype; it computes in float64 and returns a Python float.

`data_range` is the distance between the smallest and the largest value that a pixel may take: 2 for
images in [-1, 1], 1 for [0, 1], 255 for bytes. It has no default, because a wrong one gives a
plausible number and no error.
"""

from typing import Any

import numpy as np

# The constants of Wang et al. 2004, section III.B.
SSIM_SIGMA = 1.5
SSIM_RADIUS = 5  # an 11-tap window: 2 · 5 + 1
SSIM_K1 = 0.01
SSIM_K2 = 0.03


def mse(a: Any, b: Any) -> float:
    """Mean squared error over all pixels, channels and images.

    Args:
        a, b: images `(N, H, W, C)` or `(H, W, C)`, of the same shape, any real dtype.

    Returns:
        The mean of (a - b)², 0 for identical images, in the square of the images' own unit.

    Raises:
        ValueError: if the shapes differ, are not image shapes or are empty, or if the values are
            not real and finite.
    """
    a, b = _image_pair("mse", a, b)
    return float(np.mean(np.square(a - b)))


def psnr(a: Any, b: Any, data_range: float) -> float:
    """Peak signal-to-noise ratio in decibels: 10·log10(data_range² / MSE), averaged over images.

    The ratio is taken of each image and then averaged, so one bad image cannot hide the others.
    One identical pair is infinitely good and makes the average `inf`.

    Args:
        a, b: images `(N, H, W, C)` or `(H, W, C)`, of the same shape, any real dtype.
        data_range: largest minus smallest value that a pixel may take.

    Raises:
        ValueError: as `mse`, or if `data_range` is not a finite number above 0.
    """
    a, b = _image_pair("psnr", a, b)
    data_range = _checked_range("psnr", data_range)
    per_image = np.mean(np.square(a - b), axis=(1, 2, 3))
    with np.errstate(divide="ignore"):  # identical images: log10(R² / 0) is the inf that we want
        return float(np.mean(10 * np.log10(data_range**2 / per_image)))


def ssim(a: Any, b: Any, data_range: float) -> float:
    """Structural similarity: 1 for identical images, near 0 for unrelated ones.

    Around each pixel a Gaussian window of 11 × 11 pixels (σ = 1.5) weighs means, variances and the
    covariance of the two images (population statistics: divided by the sum of the weights). Pixels
    whose window would leave the image, 5 on every side, are left out. The result is the mean over
    pixels, channels and images.

    Args:
        a, b: images `(N, H, W, C)` or `(H, W, C)`, of the same shape, at least 11 × 11 pixels, any
            real dtype.
        data_range: largest minus smallest value that a pixel may take.

    Raises:
        ValueError: as `psnr`, or if an image is smaller than the window.

    Source: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to
    structural similarity", IEEE Transactions on Image Processing 13(4), 2004, equation 13.
    """
    a, b = _image_pair("ssim", a, b)
    data_range = _checked_range("ssim", data_range)
    window = 2 * SSIM_RADIUS + 1
    if min(a.shape[1:3]) < window:
        raise ValueError(
            f"ssim: images are {a.shape[1]} × {a.shape[2]} pixels but the window is {window} × "
            f"{window}; give images of at least {window} pixels a side"
        )

    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    mean_a, mean_b = _windowed_mean(a), _windowed_mean(b)
    var_a = _windowed_mean(a * a) - mean_a * mean_a
    var_b = _windowed_mean(b * b) - mean_b * mean_b
    cov = _windowed_mean(a * b) - mean_a * mean_b

    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    contrast_structure = (2 * cov + c2) / (var_a + var_b + c2)
    return float(np.mean(luminance * contrast_structure))


def _windowed_mean(images: np.ndarray) -> np.ndarray:
    """Gaussian-weighted mean around every pixel: `(N, H, W, C)` to `(N, H - 10, W - 10, C)`."""
    from scipy.ndimage import gaussian_filter1d  # here, so that `import minigan` stays quick

    inside = slice(SSIM_RADIUS, -SSIM_RADIUS)
    # The window is a product of two 1-D Gaussians: 11 + 11 products a pixel instead of 121.
    rows = gaussian_filter1d(images, SSIM_SIGMA, axis=1, radius=SSIM_RADIUS)[:, inside]
    return gaussian_filter1d(rows, SSIM_SIGMA, axis=2, radius=SSIM_RADIUS)[:, :, inside]


def _image_pair(name: str, a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both images as float64 `(N, H, W, C)`, or a ValueError that says what is wrong."""
    a, b = _real_array(name, "first", a), _real_array(name, "second", b)
    if a.shape != b.shape:
        raise ValueError(
            f"{name}: the images have shapes {a.shape} and {b.shape}, which must be equal; "
            f"crop, resize or index one of them first"
        )
    if a.ndim not in (3, 4):
        raise ValueError(
            f"{name}: the images have shape {a.shape}, but must be (N, H, W, C) or (H, W, C); "
            f"give grey images a channel axis with [..., None]"
        )
    if a.size == 0:
        raise ValueError(f"{name}: the images have shape {a.shape}, which holds no pixels")
    return (a, b) if a.ndim == 4 else (a[None], b[None])


def _real_array(name: str, which: str, images: Any) -> np.ndarray:
    """`images` as a float64 array of finite numbers."""
    array = np.asarray(images.numpy() if hasattr(images, "numpy") else images)
    if array.dtype.kind not in "buif":
        raise ValueError(
            f"{name}: the {which} images have dtype {array.dtype}, but must be real numbers; "
            f"convert them to a float or integer array first"
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        bad = np.count_nonzero(~np.isfinite(array))
        raise ValueError(
            f"{name}: the {which} images hold {bad} values that are NaN or infinite, of "
            f"{array.size}; look for the step that made them"
        )
    return array


def _checked_range(name: str, data_range: float) -> float:
    """`data_range` as a float, or a ValueError."""
    if not (np.isscalar(data_range) and np.isreal(data_range) and 0 < data_range < np.inf):
        raise ValueError(
            f"{name}: data_range is {data_range!r}, but must be a finite number above 0: the "
            f"largest minus the smallest value that a pixel may take (2 for images in [-1, 1])"
        )
    return float(data_range)


def image_scores(a: Any, b: Any, data_range: float) -> dict[str, float]:
    """Return {"mse", "psnr", "ssim"} of two batches of images; arguments and errors as for ssim."""
    return {
        "mse": mse(a, b),
        "psnr": psnr(a, b, data_range),
        "ssim": ssim(a, b, data_range),
    }
