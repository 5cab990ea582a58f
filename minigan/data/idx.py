"""IDX files, the format of MNIST and those that came after it, packed with gzip or not.

Two zero bytes, a code for the type of number, the count of dimensions, each dimension in four bytes
(big end first), then the numbers. (Y. LeCun, "The MNIST database", 1998.)
"""

import math
import os

import numpy as np

from minigan.data.reading import MAX_BYTES, Bytes, DataError

TYPES = {
    0x08: np.dtype(np.uint8),
    0x09: np.dtype(np.int8),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
MOST_DIMENSIONS = 8


def read_idx(path: str | os.PathLike, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The array in an IDX file, in the byte order of this machine; `max_bytes` bounds its size.

    Raises:
        DataError: the file is no IDX file, has a dimension of 0, holds fewer or more bytes than its
            header declares or more than `max_bytes`, is damaged gzip, or has floats that are not
            finite.
    """
    with Bytes(path, max_bytes) as file:
        zero, kind, dimensions = _magic(file)
        if zero or kind not in TYPES or not 1 <= dimensions <= MOST_DIMENSIONS:
            found = bytes([*zero.to_bytes(2, "big"), kind, dimensions]).hex(" ")
            expected = f"00 00, a type of {_codes()}, 1 to {MOST_DIMENSIONS} dimensions"
            raise DataError(path, "magic, at byte 0", expected, found)
        shape = tuple(
            int.from_bytes(file.take(4, f"dimension {i}"), "big") for i in range(dimensions)
        )
        if 0 in shape:
            raise DataError(path, "dimensions, at byte 4", "1 or more each", shape)
        dtype = TYPES[kind]
        numbers = math.prod(shape) * dtype.itemsize
        declared, there = file.offset + numbers, file.size()
        if there is not None and there != declared:
            raise DataError(path, "file", f"{declared} bytes for {dtype.name} {shape}", there)
        array = np.frombuffer(file.take(numbers, f"numbers of {shape}"), dtype).reshape(shape)
        file.finish()
    array = array.astype(dtype.newbyteorder("="), copy=False)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        wrong = np.count_nonzero(~np.isfinite(array))
        raise DataError(path, "numbers", "finite ones", f"{wrong} that are NaN or infinite")
    return array


def read_labelled_images(
    images: str | os.PathLike,
    labels: str | os.PathLike,
    classes: int = 10,
    max_bytes: int = MAX_BYTES,
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `(N, H, W, 1)` and their labels int64 `(N,)`, each below `classes`.

    Raises:
        DataError: as `read_idx`; not uint8; not three dimensions and one; another count of labels
            than of images; a label out of range.
    """
    pixels, marks = read_idx(images, max_bytes), read_idx(labels, max_bytes)
    for path, array, dimensions in ((images, pixels, 3), (labels, marks, 1)):
        if array.dtype != np.uint8:
            raise DataError(path, "type", "uint8 (code 08)", array.dtype.name)
        if array.ndim != dimensions:
            raise DataError(path, "dimensions", dimensions, f"{array.ndim}, {array.shape}")
    if len(pixels) != len(marks):
        raise DataError(labels, "count", f"{len(pixels)} labels, one an image", len(marks))
    if marks.max() >= classes:
        first = int(np.argmax(marks >= classes))
        raise DataError(labels, f"label {first}", f"0 to {classes - 1}", marks[first])
    return pixels[..., None], marks.astype(np.int64)


def _magic(file: Bytes) -> tuple[int, int, int]:
    head = file.take(4, "magic")
    return int.from_bytes(head[:2], "big"), head[2], head[3]


def _codes() -> str:
    return ", ".join(f"{code:02x}" for code in TYPES)
