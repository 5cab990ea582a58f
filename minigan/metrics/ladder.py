"""Real images made worse step by step: a ladder beside which a number means something."""

from collections.abc import Iterator

import numpy as np

from minigan.data import LabelledImages, to_bytes, to_unit

NOISE = (0.1, 0.2, 0.4)  # standard deviation, in units of [-1, 1]
BLUR = (0.5, 1.0, 2.0)  # standard deviation of the bell, in pixels
FEW = 100  # images, of which all others are copies


def noisy(images: np.ndarray, std: float, seed: int = 0) -> np.ndarray:
    """Bytes `(N, H, W, C)` with Gaussian noise of `std`, in units of [-1, 1]; clipped and rounded.

    Raises:
        ValueError: images that are not bytes, or a negative std.
    """
    if not std >= 0:
        raise ValueError(f"noisy: std is {std} but must be 0 or more")
    floats = to_unit(images)
    random = np.random.default_rng(seed)
    return to_bytes(floats + np.float32(std) * random.standard_normal(floats.shape, np.float32))


def blurred(images: np.ndarray, std: float) -> np.ndarray:
    """Bytes `(N, H, W, C)` averaged under a bell of `std` pixels; the edge's pixels go on outside.

    Raises:
        ValueError: images that are not bytes, or a negative std.
    """
    from scipy.ndimage import gaussian_filter1d  # here, so that `import minigan` stays quick

    if not std >= 0:
        raise ValueError(f"blurred: std is {std} but must be 0 or more")
    floats = to_unit(images)
    if std:
        for axis in (1, 2):
            floats = gaussian_filter1d(floats, std, axis=axis, mode="nearest")
    return to_bytes(floats)


def ladder(real: LabelledImages, count: int, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """(name, bytes `(count, H, W, C)`) for each rung: noise, blur, missing classes, copies.

    All are made of `real`, from `drawn` with this seed. Classes are not missing where there is one.

    Raises:
        ValueError: a count below 1.
    """
    base = drawn(real, count, seed).images
    for std in NOISE:
        yield f"noise of {std:g}", noisy(base, std, seed)
    for std in BLUR:
        yield f"blur of {std:g} pixel{'s' * (std != 1)}", blurred(base, std)
    classes = len(real.classes)
    if classes > 1:
        yield f"no {real.classes[1]}", drawn(_only(real, real.labels != 1), count, seed).images
        half = classes // 2
        some = drawn(_only(real, real.labels >= half), count, seed).images
        yield f"{classes - half} classes of {classes}", some
    few = drawn(real, FEW, seed).images
    yield f"{FEW} images, copied", few[np.arange(count) % len(few)]


def drawn(real: LabelledImages, count: int, seed: int = 0) -> LabelledImages:
    """`count` of the images in random order; some of them twice only if there are too few.

    Raises:
        ValueError: a count below 1, or no images.
    """
    if count < 1 or not len(real):
        raise ValueError(f"drawn: {count} images of {len(real)}, but both must be 1 or more")
    random = np.random.default_rng(seed)
    return _only(real, random.choice(len(real), count, replace=count > len(real)))


def _only(real: LabelledImages, chosen: np.ndarray) -> LabelledImages:
    return LabelledImages(real.images[chosen], real.labels[chosen], real.classes)
