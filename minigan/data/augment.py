"""More images out of those there are: flips and shifts, and DiffAugment for both sides of a GAN.

`flip` and `shift` change training images before the network sees them. `diff_augment` changes real
and generated images alike on their way into the discriminator; the gradient goes through it, so
that the generator learns to make images that are right before the change and not after it.
"""

from collections.abc import Iterable

import numpy as np

from minigan import backend
from minigan import functional as F
from minigan.tensor import Tensor, tensor

POLICIES = ("brightness", "saturation", "contrast", "translation", "cutout")


def flip(images: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
    """Each image `(N, H, W, C)` mirrored left to right with probability ½; any dtype.

    `generator` is the host's unless given (so in all of this file).

    Raises:
        ValueError: images of another number of axes.
    """
    images = _batch("flip", images)
    mirrored = _random(generator).random(len(images)) < 0.5
    return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def shift(
    images: np.ndarray,
    pixels: int,
    generator: np.random.Generator | None = None,
    fill: float = -1.0,
) -> np.ndarray:
    """Each image moved by up to `pixels` along both axes; `fill` comes in at the other side.

    Args:
        images: `(N, H, W, C)`, any dtype.
        pixels: from 0 to the smaller side of the images.
        fill: the background; -1 is black for images in [-1, 1], 0 for bytes.

    Raises:
        ValueError: images of another number of axes, `pixels` out of range, or a `fill` that the
            images' dtype cannot hold.
    """
    images = _batch("shift", images)
    n, h, w, _ = images.shape
    if not 0 <= pixels <= min(h, w):
        raise ValueError(f"shift: pixels is {pixels} but must be in 0 to {min(h, w)}")
    if np.asarray(fill).astype(images.dtype) != fill:
        raise ValueError(f"shift: fill is {fill}, which {images.dtype} cannot hold; 0 for bytes")
    around = [(0, 0), (pixels, pixels), (pixels, pixels), (0, 0)]
    wide = np.pad(images, around, constant_values=fill)
    down, right = _random(generator).integers(0, 2 * pixels + 1, (2, n))
    return np.stack(
        [wide[i, a : a + h, b : b + w] for i, (a, b) in enumerate(zip(down, right, strict=True))]
    )


def diff_augment(
    images: Tensor,
    policy: Iterable[str] = POLICIES,
    generator: np.random.Generator | None = None,
) -> Tensor:
    """Images `(N, H, W, C)` in [-1, 1] changed at random, each in its own way; differentiable.

    Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training" (arXiv
    2006.10738), with their numbers: brightness ±0.5; saturation times 0 to 2 (nothing happens to
    one channel); contrast times 0.5 to 1.5; translation by up to 1/8 of each side; cutout of a
    square of half the side, cut off at the edges. What comes in is 0, mid-grey. Colours are not
    clipped. Give it the real and the generated images, in two calls.

    Args:
        policy: some of `POLICIES`; always done in that order.

    Raises:
        ValueError: images of another number of axes, or an unknown policy.
    """
    policy = [policy] if isinstance(policy, str) else list(policy)
    if unknown := sorted(set(policy) - set(POLICIES)):
        raise ValueError(f"diff_augment: unknown policy {unknown}; there are {', '.join(POLICIES)}")
    if images.ndim != 4:
        raise ValueError(f"diff_augment: images must be (N, H, W, C), these are {images.shape}")
    random = _random(generator)
    for name in POLICIES:
        if name in policy:
            images = _CHANGES[name](images, random)
    return images


def _brightness(x: Tensor, random: np.random.Generator) -> Tensor:
    return x + _factors(x, random, -0.5, 0.5)


def _saturation(x: Tensor, random: np.random.Generator) -> Tensor:
    factors = _factors(x, random, 0.0, 2.0)
    grey = F.mean(x, axis=3, keepdims=True)
    return x if x.shape[3] == 1 else (x - grey) * factors + grey


def _contrast(x: Tensor, random: np.random.Generator) -> Tensor:
    factors = _factors(x, random, 0.5, 1.5)
    middle = F.mean(x, axis=(1, 2, 3), keepdims=True)
    return (x - middle) * factors + middle


def _translation(x: Tensor, random: np.random.Generator) -> Tensor:
    """By whole pixels: two products with matrices that hold a one where a pixel comes from."""
    for axis in (1, 2):
        side = x.shape[axis]
        most = int(side / 8 + 0.5)
        moved = random.integers(-most, most + 1, x.shape[0])
        to = np.arange(side)
        comes_from = to[None, :, None] - moved[:, None, None] == to  # (N, side, side)
        x = _along(x, _constant(x, comes_from), axis)
    return x


def _along(x: Tensor, matrices: Tensor, axis: int) -> Tensor:
    """Each image's rows (axis 1) or columns (axis 2) times its own matrix (side, side)."""
    n, h, w, c = x.shape
    if axis == 1:
        return F.reshape(F.matmul(matrices, F.reshape(x, (n, h, w * c))), (n, h, w, c))
    turned = F.reshape(F.transpose(x, (0, 2, 1, 3)), (n, w, h * c))
    return F.transpose(F.reshape(F.matmul(matrices, turned), (n, w, h, c)), (0, 2, 1, 3))


def _cutout(x: Tensor, random: np.random.Generator) -> Tensor:
    n, h, w, _ = x.shape
    kept = np.ones((n, h, w, 1), dtype=bool)
    inside = []
    for side in (h, w):
        cut = int(side * 0.5 + 0.5)
        centre = random.integers(0, side + (1 - cut % 2), n)
        first = centre[:, None] - cut // 2
        inside.append((np.arange(side) >= first) & (np.arange(side) < first + cut))
    kept[..., 0] = ~(inside[0][:, :, None] & inside[1][:, None, :])
    return x * _constant(x, kept)


_CHANGES = {
    "brightness": _brightness,
    "saturation": _saturation,
    "contrast": _contrast,
    "translation": _translation,
    "cutout": _cutout,
}


def _factors(x: Tensor, random: np.random.Generator, low: float, high: float) -> Tensor:
    """One number for each image, (N, 1, 1, 1), drawn evenly."""
    return _constant(x, random.uniform(low, high, (x.shape[0], 1, 1, 1)))


def _constant(x: Tensor, values: np.ndarray) -> Tensor:
    """An array as a tensor of the type and the device of `x`."""
    return tensor(values.astype(x.dtype), dtype=x.dtype).to(x.device)


def _random(generator: np.random.Generator | None) -> np.random.Generator:
    return backend.generator() if generator is None else generator


def _batch(who: str, images: np.ndarray) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim != 4:
        raise ValueError(f"{who}: images must be (N, H, W, C), these are {images.shape}")
    return images
