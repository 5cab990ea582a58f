"""Made-up data sets in the format of Fashion-MNIST, for scripts that need one on disk."""

import gzip

import numpy as np

from minigan.data import mnist_sets


def idx(array):
    """The bytes of an IDX file."""
    shape = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def write_fashion(folder, count=40):
    """Four files as Fashion-MNIST's, of `count` images each whose brightness tells the class."""
    random = np.random.default_rng(0)
    for images, labels in mnist_sets.FILES.values():
        marks = (np.arange(count) % 10).astype(np.uint8)
        noise = random.integers(0, 20, (count, 28, 28))
        pixels = (marks[:, None, None] * 20 + noise).astype(np.uint8)
        (folder / images).write_bytes(gzip.compress(idx(pixels)))
        (folder / labels).write_bytes(gzip.compress(idx(marks)))
    return folder
