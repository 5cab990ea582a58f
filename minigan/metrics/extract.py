"""From images to the features and class probabilities that the metrics compare."""

import hashlib
from typing import Any, Protocol

import numpy as np

from minigan import functional as F
from minigan.tensor import Tensor, no_grad


class Classifier(Protocol):
    """A network with a name for its last but one layer; `minigan.models.ImageClassifier` is one."""

    image_shape: tuple[int, int, int]
    training: bool

    def features(self, x: Tensor) -> Tensor: ...

    def classify(self, features: Tensor) -> Tensor: ...

    def train(self, mode: bool = True) -> Any: ...


def extract(
    network: Classifier,
    images: Any,
    batch: int = 250,
    value_range: tuple[float, float] = (-1.0, 1.0),
) -> dict[str, np.ndarray]:
    """{"features": (N, d), "probabilities": (N, classes)}, both float64, of images.

    The network runs as it is used, not as it is trained. Floats are first rounded to bytes, as the
    real images are: else a network could tell generated images by their fractions.

    Args:
        network: a classifier of images `(H, W, C)` in [-1, 1]; afterwards in the mode it was in.
        images: `(N, H, W, C)`, uint8, or floats in `value_range`.
        batch: images at a time.
        value_range: what stands for black and for white in floats.

    Raises:
        ValueError: another dtype, values out of range or not finite, no images, images that are
            not of the network's shape, or a range that is none.
    """
    pixels = as_bytes(images, *value_range)
    if pixels.ndim != 4 or pixels.shape[1:] != tuple(network.image_shape) or not len(pixels):
        raise ValueError(
            f"extract: images are {pixels.shape}, but this network takes (N, "
            f"{', '.join(map(str, network.image_shape))}); pad them, or train one of their size"
        )
    was_training = network.training
    network.train(False)
    features, probabilities = [], []
    try:
        with no_grad():
            for i in range(0, len(pixels), batch):
                part = pixels[i : i + batch].astype(np.float32) / np.float32(127.5) - np.float32(1)
                feature = network.features(Tensor(part))
                features.append(feature.numpy().astype(np.float64))
                logits = network.classify(feature).numpy().astype(np.float64)
                probabilities.append(_softmax(logits))
    finally:
        network.train(was_training)
    return {
        "features": np.concatenate(features),
        "probabilities": np.concatenate(probabilities),
    }


def fingerprint(network: Any) -> str:
    """SHA-256, in hexadecimal, over the names, types, shapes and bytes of a network's state.

    Two numbers may be compared if the networks behind them have the same one.
    """
    total = hashlib.sha256()
    for name, array in sorted(network.state_dict().items()):
        array = np.asarray(array)
        little = array.astype(array.dtype.newbyteorder("<"))  # the same on every machine
        total.update(f"{name} {little.dtype.str} {little.shape}\n".encode())
        total.update(np.ascontiguousarray(little).tobytes())
    return total.hexdigest()


def as_bytes(images: Any, black: float = -1.0, white: float = 1.0) -> np.ndarray:
    """Images as uint8: bytes as they are, floats from `black` to `white` rounded.

    Raises:
        ValueError: another dtype, values out of range or not finite, or a range that is none.
    """
    images = np.asarray(images.numpy() if hasattr(images, "numpy") else images)
    if images.dtype == np.uint8:
        return images
    said = f"[{black:g}, {white:g}]"
    if not -np.inf < black < white < np.inf:
        raise ValueError(f"extract: value_range is {said}, but must be (black, white), in order")
    if images.dtype.kind != "f":
        raise ValueError(
            f"extract: images have dtype {images.dtype}, but must be uint8, or floats in {said}"
        )
    if not images.size:
        return images.astype(np.uint8)
    low, high = images.min(), images.max()
    if not (low >= black and high <= white):  # NaN too
        raise ValueError(
            f"extract: images are from {low:.4g} to {high:.4g}, but floats must be in {said}; "
            f"another range looks like a bad generator and is not one"
        )
    return np.rint((images.astype(np.float64) - black) * (255 / (white - black))).astype(np.uint8)


def _softmax(logits: np.ndarray) -> np.ndarray:
    return F.softmax(Tensor(logits, dtype=np.float64, device="cpu"), axis=-1).numpy()
