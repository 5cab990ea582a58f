"""Every data set by its name, for the --data flag of a script."""

import os

import numpy as np

from minigan.data.emoji import load_emoji
from minigan.data.images import LabelledImages
from minigan.data.mnist_sets import fashion_mnist, mnist
from minigan.data.points import Points, grid, ring
from minigan.data.small_digits import digits

IMAGES = ("digits", "emoji", "fashion-mnist", "mnist")
POINTS = ("grid", "ring")


def load_images(
    name: str,
    part: str = "train",
    size: int | None = None,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
) -> LabelledImages:
    """The images of the data set `name`, one of `IMAGES`.

    Args:
        part: "train" or "test"; the emoji's test part is the tenth that is held out.
        size: pixels a side; None for the set's own (28, 8 for the digits, 64 for the emoji). The
            emoji are drawn at any size from 8 to 256, the others can only be padded with black.
        data_dir: where to look for (Fashion-)MNIST.
        download: fetch (Fashion-)MNIST if it is nowhere.

    Returns:
        Images uint8 `(N, size, size, C)` and labels. The emoji have three channels and one class.

    Raises:
        ValueError: an unknown name, with those there are; an unknown part; a size that does not do.
        DataError, ImportError: the data, or a package, is not there; the message says what to do.
    """
    if part not in ("train", "test"):
        raise ValueError(f"load_images: part is {part!r} but must be 'train' or 'test'")
    if name in ("fashion-mnist", "mnist"):
        read = fashion_mnist if name == "fashion-mnist" else mnist
        return read(data_dir, part, 28 if size is None else size, download)
    if name == "digits":
        return digits(part, 8 if size is None else size)
    if name == "emoji":
        pairs = load_emoji(64 if size is None else size)
        pictures = (pairs.train if part == "train" else pairs.heldout).color
        return LabelledImages(pictures, np.zeros(len(pictures), np.int64), ("emoji",))
    raise ValueError(_unknown("load_images", name, IMAGES, "load_points", POINTS))


def load_points(name: str, count: int, seed: int = 0, std: float | None = None) -> Points:
    """`count` points of the toy `name`, one of `POINTS`.

    Args:
        std: standard deviation around each centre; None for the set's own.

    Raises:
        ValueError: an unknown name, with those there are; a count below 1; a std that is not
            positive.
    """
    makers = {"grid": grid, "ring": ring}
    if name not in makers:
        raise ValueError(_unknown("load_points", name, POINTS, "load_images", IMAGES))
    return makers[name](count, seed=seed, **({} if std is None else {"std": std}))


def _unknown(who: str, name: str, own: tuple, other: str, others: tuple) -> str:
    return (
        f"{who}: there is no data set {name!r}; there are {', '.join(own)} "
        f"(and for {other}: {', '.join(others)})"
    )
