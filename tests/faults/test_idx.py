"""IDX files, as MNIST and Fashion-MNIST are: a corrupt one does not train on garbage."""

import gzip
import os
import struct

import numpy as np
import pytest
from harness import GIB, cases, deflated_zeros, gzip_bomb, python

from minigan.data import DataError, read_idx, read_labelled_images

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
LABELS = np.array([0, 9, 3, 3, 1], np.uint8)


def idx(array, code=0x08, shape=None):
    shape = array.shape if shape is None else shape
    head = bytes([0, 0, code, len(shape)]) + b"".join(struct.pack(">I", n) for n in shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


GOOD = idx(IMAGES)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "images-idx3-ubyte"


def refused(path, *words, read=read_idx, **options):
    """A DataError that says the file, a field or an offset, what was expected and found."""
    with pytest.raises(DataError) as caught:
        read(path, **options)
    error = caught.value
    for word in (str(error.path), error.where, error.expected, error.found, *words):
        assert word
        assert word in str(error)
    assert "expected" in str(error)


def refused_with_little(path, *words):
    code = "import sys; from minigan import data, training\nwith training.plain_errors(): "
    done = python("-c", code + "data.read_idx(sys.argv[1])", path, memory=GIB, seconds=60)
    assert done.returncode == 2, done.stderr
    for word in (str(path), *words):
        assert word in done.stderr


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("dtype", "code"),
    [("u1", 8), ("i1", 9), ("i2", 11), ("i4", 12), ("f4", 13), ("f8", 14)],
)
def test_what_is_sound_is_read(path, dtype, code, packed):
    """Sound files of each of the six types, packed or not: read, in this machine's byte order"""
    array = (IMAGES.astype(np.float64) - 100).astype(dtype) if dtype != "u1" else IMAGES
    data = idx(array, code)
    path.write_bytes(gzip.compress(data) if packed else data)
    found = read_idx(path)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.dtype(dtype)


def test_images_and_labels(tmp_path):
    """Sound images and labels: (N, H, W, 1) bytes and int64"""
    (tmp_path / "images.gz").write_bytes(gzip.compress(GOOD))
    (tmp_path / "labels").write_bytes(idx(LABELS))
    images, labels = read_labelled_images(tmp_path / "images.gz", tmp_path / "labels")
    np.testing.assert_array_equal(images, IMAGES[..., None])
    np.testing.assert_array_equal(labels, LABELS)
    assert labels.dtype == np.int64


BAD = {
    "empty": (b"", ("magic", "at byte 0", "4 bytes", "0 before")),
    "three bytes": (GOOD[:3], ("magic", "3 before")),
    "html": (b"<!DOCTYPE html><html></html>", ("magic", "found 3c 21 44 4f")),
    "first byte": (b"\1" + GOOD[1:], ("magic", "found 01 00 08 03")),
    "type": (GOOD[:2] + b"\x0a" + GOOD[3:], ("magic", "found 00 00 0a 03")),
    "no dimension": (GOOD[:3] + b"\0" + GOOD[4:], ("1 to 8 dimensions",)),
    "nine dimensions": (GOOD[:3] + b"\x09" + GOOD[4:], ("1 to 8 dimensions",)),
    "dimensions cut off": (GOOD[:9], ("dimension 1", "at byte 8", "1 before")),
    "a dimension of 0": (idx(IMAGES, shape=(0, 4, 3)), ("dimensions, at byte 4", "(0, 4, 3)")),
    "numbers cut off": (GOOD[:-1], ("expected 76 bytes", "found 75")),
    "half": (GOOD[: len(GOOD) // 2], ("expected 76 bytes", "found 38")),
    "trailing byte": (GOOD + b"\0", ("expected 76 bytes", "found 77")),
    "another file behind": (GOOD + GOOD, ("expected 76 bytes", "found 152")),
    "another shape": (idx(IMAGES, shape=(5, 4, 4)), ("expected 96 bytes", "(5, 4, 4)")),
    "little end first": (GOOD[:4] + struct.pack("<III", 5, 4, 3) + GOOD[16:], ("found 76",)),
    "NaN": (idx(np.array([1, np.nan], np.float32), 0x0D), ("numbers", "1 that are NaN")),
    "infinity": (idx(np.array([1, np.inf]), 0x0E), ("numbers", "1 that are NaN or inf")),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(path, name):
    """Bad magic, type, dimensions; cut short, trailing bytes, another shape, NaN, a web page"""
    data, words = BAD[name]
    path.write_bytes(data)
    refused(path, *words)


@pytest.mark.parametrize("name", ["numbers cut off", "trailing byte", "another shape", "type"])
def test_bad_files_packed(path, name):
    """The same inside gzip, where the size is not known beforehand"""
    path.write_bytes(gzip.compress(BAD[name][0]))
    refused(path)


@cases(150)
def test_every_prefix(path):
    """Cut at every byte, packed and not"""
    packed = gzip.compress(GOOD)
    assert len(GOOD) + len(packed) >= 150
    for data in (GOOD, packed):
        for length in range(len(data)):
            path.write_bytes(data[:length])
            refused(path)


@pytest.mark.parametrize("where", ["header", "middle", "sum", "garbage behind"])
def test_damaged_gzip(path, where):
    """Damaged gzip: in its header, in the middle, in its sum; bytes behind it"""
    data = bytearray(gzip.compress(GOOD))
    at = {"header": 2, "middle": len(data) // 2, "sum": len(data) - 6}.get(where)
    if at is None:
        data += b"garbage"
    else:
        data[at] ^= 0xFF
    path.write_bytes(data)
    refused(path, *([] if where == "middle" else ["sound data"]))


def test_not_gzip(tmp_path):
    """A name that ends in .gz, and no gzip inside"""
    for data in (GOOD, b""):
        (tmp_path / "images.gz").write_bytes(data)
        refused(tmp_path / "images.gz", "gzip magic, at byte 0", "1f 8b")


@pytest.mark.parametrize("packed", [False, True])
def test_huge_dimensions(path, packed):
    """A header that declares 18 EB: refused before anything is allocated, under RLIMIT_AS"""
    data = idx(IMAGES, shape=(2**32 - 1,) * 2)
    path.write_bytes(gzip.compress(data) if packed else data)
    refused_with_little(path, "18446744065119617" if packed else "found 72")


def test_a_packed_header_alone(path):
    """A packed header that declares 1 GB, and nothing behind it: no memory is asked for"""
    path.write_bytes(gzip.compress(idx(IMAGES, shape=(1000, 1000, 1000))))
    refused_with_little(path, "expected 1000000000 bytes, found 60 before the end")


def test_gzip_bomb(path):
    """A gzip bomb, 2 GiB behind a small image: refused at its end, under RLIMIT_AS"""
    gzip_bomb(path, GOOD, 2048)
    refused_with_little(path, "the end of the file")


def test_gzip_bomb_that_declares_itself(path):
    """A gzip bomb that declares its 2 GiB: over the limit of 1 GiB"""
    start = bytes([0, 0, 8, 2]) + struct.pack(">II", 2048, 1 << 20)
    gzip_bomb(path, start, 2048)
    refused_with_little(path, "at most 1073741824 bytes in all")
    assert len(deflated_zeros(1)[0]) < 2000


def test_a_limit_of_ones_own(path):
    """A limit of one's own"""
    path.write_bytes(GOOD)
    refused(path, "at most 75 bytes in all", max_bytes=75)
    assert len(read_idx(path, max_bytes=76)) == 5


LABELLED = {
    "fewer labels": (IMAGES, LABELS[:4], ("count", "5 labels", "found 4")),
    "more labels": (IMAGES[:3], LABELS, ("count", "3 labels", "found 5")),
    "label out of range": (IMAGES, LABELS + 1, ("label 1", "0 to 9", "found 10")),
    "swapped": (LABELS, IMAGES, ("dimensions", "3", "found 1")),
    "images twice": (IMAGES, IMAGES, ("dimensions", "expected 1", "found 3")),
    "float images": (IMAGES.astype(np.float32), LABELS, ("type", "uint8", "float32")),
}


@pytest.mark.parametrize("name", LABELLED)
def test_images_and_labels_that_do_not_fit(tmp_path, name):
    """Counts that differ, labels out of range, the two files swapped, floats"""
    images, labels, words = LABELLED[name]
    for file, array in (("images", images), ("labels", labels)):
        code = 0x0D if array.dtype == np.float32 else 0x08
        (tmp_path / file).write_bytes(idx(array, code))

    def read(images):
        return read_labelled_images(images, tmp_path / "labels")

    refused(tmp_path / "images", *words, read=read)


@pytest.mark.parametrize("kind", ["missing", "folder", "FIFO", "loop", "device"])
def test_what_is_no_file(tmp_path, kind):
    """No file, a folder, a FIFO (nobody waits), a loop of links, a device"""
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(tmp_path / "y")
        (tmp_path / "y").symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    refused(path, "a regular file")
