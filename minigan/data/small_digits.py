"""Handwritten digits of 8×8 pixels, which come with scikit-learn: a GAN on them takes seconds."""

import importlib

import numpy as np

from minigan.data.images import LabelledImages, padded

MOST = 16  # the largest value of a pixel in the original


def digits(part: str = "train", size: int = 8) -> LabelledImages:
    """The 1,797 digits of the UCI test set (Alpaydin and Kaynak 1998): 1,500, or the other 297.

    Args:
        part: "train" or "test", which other people wrote: the set is in order of writer.
        size: pixels a side; above 8 black is put around.

    Returns:
        Images uint8 `(N, size, size, 1)`, their 17 levels spread over 0 to 255; labels int64.

    Raises:
        ImportError: scikit-learn is not installed; the message has the command.
        ValueError: an unknown part, or a size below 8.
    """
    if part not in ("train", "test"):
        raise ValueError(f"digits: part is {part!r} but must be 'train' or 'test'")
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise ImportError(
            f"digits needs scikit-learn, which cannot be imported ({error}); "
            f"install it with: pip install scikit-learn"
        ) from error
    pixels, labels = datasets.load_digits(return_X_y=True)
    levels = np.rint(np.asarray(pixels) * (255 / MOST)).astype(np.uint8).reshape(-1, 8, 8, 1)
    chosen = slice(None, 1500) if part == "train" else slice(1500, None)
    images = padded(levels[chosen], size, "digits")
    return LabelledImages(images, np.asarray(labels)[chosen].astype(np.int64), tuple("0123456789"))
