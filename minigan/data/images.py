"""Images as bytes, as files hold them, and as floats in [-1, 1], as networks see them.

Both directions refuse the other's input: images in one range and a network's output in another
looks like a training failure and is not one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


def to_unit(images: Any) -> np.ndarray:
    """Bytes 0 to 255 as float32 in [-1, 1]: x / 127.5 - 1.

    Args:
        images: uint8, any shape.

    Returns:
        float32 of the same shape; 0 becomes -1 and 255 becomes 1, exactly.

    Raises:
        ValueError: if `images` is not uint8.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(
            f"to_unit: images have dtype {images.dtype}, but must be uint8 in 0 to 255; floats "
            f"in [-1, 1] need no conversion"
        )
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_bytes(images: Any) -> np.ndarray:
    """Floats in [-1, 1] as bytes: (x + 1) · 127.5, rounded; what lies outside is clipped.

    Args:
        images: floats of any shape, or an object with a `.numpy()` method such as a Tensor.

    Returns:
        uint8 of the same shape; `to_bytes(to_unit(x))` is `x`.

    Raises:
        ValueError: if `images` is not of a float dtype, or holds NaN or infinity.
    """
    images = np.asarray(images.numpy() if hasattr(images, "numpy") else images)
    if images.dtype.kind != "f":
        raise ValueError(
            f"to_bytes: images have dtype {images.dtype}, but must be floats in [-1, 1]; bytes "
            f"need no conversion"
        )
    if not np.isfinite(images).all():
        bad = np.count_nonzero(~np.isfinite(images))
        raise ValueError(
            f"to_bytes: images hold {bad} values that are NaN or infinite, of {images.size}; "
            f"no byte stands for them, so look for the step that made them"
        )
    clipped = np.clip(images, -1, 1)  # first, so that no large value overflows below
    return np.rint((clipped + 1) * 127.5).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images and the class of each.

    Attributes:
        images: uint8 `(N, H, W, C)`.
        labels: int64 `(N,)`, indices into `classes`; all 0 where there is one class only.
        classes: the name of each class.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> "LabelledImages":
        """The first `count` of them, or all if there are fewer."""
        return LabelledImages(self.images[:count], self.labels[:count], self.classes)


def padded(images: np.ndarray, size: int, who: str = "padded") -> np.ndarray:
    """Square images `(N, S, S, C)` with black (0) around them, `(N, size, size, C)`.

    An odd pixel goes below and to the right.

    Raises:
        ValueError: if `size` is less than S, as nothing is ever cut off.
    """
    have = max(images.shape[1:3])
    if size < have:
        raise ValueError(f"{who}: size is {size} but the images have {have} pixels a side")
    if images.shape[1:3] == (size, size):
        return images
    around = [((size - side) // 2, (size - side + 1) // 2) for side in images.shape[1:3]]
    return np.pad(images, [(0, 0), *around, (0, 0)])
