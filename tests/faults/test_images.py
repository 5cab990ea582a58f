"""Image files, folders of them, and NPZ archives as data."""

import contextlib
import io
import os
import random
import struct
import zipfile
import zlib

import numpy as np
import pytest
from harness import GIB, cases, npy, python, zip_bomb
from PIL import Image

from minigan.data import DataError, read_folder, read_image, read_npz

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def png(pixels=PIXELS, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **options)
    return stream.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def forged_png(width, height, data=b"", depth=8):
    """A PNG whose header says what we like."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def refused(path, *words, read=read_image, **options):
    with pytest.raises(DataError) as caught:
        read(path, **options)
    for word in ("expected", "found", caught.value.where, *words):
        assert word in str(caught.value)
    assert str(path) in str(caught.value)


def refused_with_little(what, path, *words, memory=GIB):
    code = "import sys; from minigan import data, training\nwith training.plain_errors(): "
    done = python("-c", code + what, path, memory=memory, seconds=60)
    assert done.returncode == 2, done.stderr
    assert "Warning" not in done.stderr
    for word in (str(path), *words):
        assert word in done.stderr


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA"])
def test_sound_images(tmp_path, mode):
    """Sound images of six kinds: bytes of three channels or one, the transparent on white"""
    image = Image.fromarray(PIXELS).convert(mode)
    image.save(tmp_path / "a.png")
    colour, grey = read_image(tmp_path / "a.png"), read_image(tmp_path / "a.png", channels=1)
    assert (colour.shape, grey.shape) == ((5, 7, 3), (5, 7, 1))
    np.testing.assert_array_equal(colour, np.asarray(image.convert("RGB")))
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255).all()


def sixteen_bits():
    stream = io.BytesIO()
    Image.fromarray(np.arange(35, dtype=np.uint16).reshape(5, 7)).save(stream, "PNG")
    return stream.getvalue()


def gif():
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "GIF")
    return stream.getvalue()


NOT_IMAGES = {
    "empty": (b"", "a sound PNG or JPEG file"),
    "html": (b"<!DOCTYPE html>", "a sound PNG or JPEG file"),
    "noise": (random.Random(1).randbytes(5000), "a sound PNG or JPEG file"),
    "magic alone": (png()[:8], "a sound PNG or JPEG file"),
    "no pixels": (forged_png(8, 8, b""), "a sound PNG or JPEG file"),
    "no width": (forged_png(0, 8, b""), ""),
    "GIF under another name": (gif(), "a sound PNG or JPEG file"),
    "16 bits": (sixteen_bits(), "8 bits a channel"),
    "header bomb": (forged_png(60_000, 60_000), "at most 16777216 pixels"),
    "header over our limit": (forged_png(5000, 5000), "5000 × 5000 declared"),
    "header of 18 EB": (forged_png(2**31 - 1, 2**31 - 1), "at most 16777216 pixels"),
}


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_what_is_no_image(tmp_path, name):
    """Empty, HTML, noise, a magic number alone, another format, 16 bits, a header bomb"""
    data, words = NOT_IMAGES[name]
    (tmp_path / "a.png").write_bytes(data)
    refused(tmp_path / "a.png", words)


@cases(2)
def test_header_bomb_with_little_memory(tmp_path):
    """A header bomb of 14 GB under RLIMIT_AS, and pixels that unpack to more than declared"""
    (tmp_path / "a.png").write_bytes(forged_png(70_000, 70_000, bytes(1000)))
    refused_with_little("data.read_image(sys.argv[1])", tmp_path / "a.png", "at most 16777216")
    (tmp_path / "a.png").write_bytes(forged_png(1, 1, bytes(1 << 29)))
    code = "import sys; from minigan import data; print(data.read_image(sys.argv[1]).shape)"
    done = python("-c", code, tmp_path / "a.png", memory=GIB, seconds=60)
    assert done.stdout == "(1, 1, 3)\n" or "DataError" in done.stderr


@cases(100)
def test_cut_images(tmp_path):
    """A PNG cut at every byte: an error, or, behind the last pixel, the true pixels"""
    data, path, whole = png(), tmp_path / "a.png", 0
    assert len(data) >= 100
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with contextlib.suppress(DataError):
            np.testing.assert_array_equal(read_image(path), PIXELS)
            whole += 1
    assert whole < 25  # two sums and the last chunk


@cases(200)
def test_flipped_bits(tmp_path):
    """200 flipped bits of a PNG: an error, or pixels of the right kind, never anything else"""
    data, path, rng = png(), tmp_path / "a.png", np.random.default_rng(0)
    noticed = 0
    for bit in rng.integers(0, 8 * len(data), 200).tolist():
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            assert read_image(path, max_pixels=1000).dtype == np.uint8
        except DataError:
            noticed += 1
    assert noticed > 150


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "hidden", "loop"])
def test_folders_without_images(tmp_path, kind):
    """A folder that is not there, is a file, is empty, has only hidden files, is a loop"""
    folder = tmp_path / "images"
    if kind == "file":
        folder.write_bytes(png())
    elif kind in ("empty", "hidden"):
        folder.mkdir()
    if kind == "hidden":
        (folder / ".a.png").write_bytes(png())
        (folder / "notes.txt").write_text("x")
    if kind == "loop":
        folder = tmp_path / "loop"
        folder.symlink_to(folder)
    refused(folder, "folder", read=read_folder)


def test_a_folder(tmp_path):
    """A sound folder: by name, other endings passed over"""
    for i, name in enumerate(["b.png", "a.PNG", "c.jpg"]):
        kind = "JPEG" if name.endswith("jpg") else "PNG"
        Image.new("RGB", (4, 3), (i, i, i)).save(tmp_path / name, kind)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "below").mkdir()
    images = read_folder(tmp_path)
    assert (images.shape, images.dtype) == ((3, 3, 4, 3), np.uint8)
    assert images[:2, 0, 0, 0].tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["size", "not an image", "FIFO", "loop", "folder", "missing link"])
def test_a_bad_one_among_the_images(tmp_path, kind):
    """Mixed sizes; not an image, a FIFO, a loop of links, a folder, a dead link among them"""
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes(png())
    bad = tmp_path / "b.png"
    if kind == "size":
        bad.write_bytes(png(PIXELS[:4]))
    elif kind == "not an image":
        bad.write_text("x")
    elif kind == "FIFO":
        os.mkfifo(bad)
    elif kind == "folder":
        bad.mkdir()
    else:
        bad.symlink_to(bad if kind == "loop" else tmp_path / "none")
    refused(tmp_path, *(["7 × 5", "7 × 4"] if kind == "size" else []), "b.png", read=read_folder)


def test_a_folder_of_too_much(tmp_path):
    """More pixels in all than the limit: known after the first image"""
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(png())
    refused(tmp_path, "at most 524 bytes of pixels", "525", read=read_folder, max_bytes=524)
    assert len(read_folder(tmp_path, max_bytes=525)) == 5


# ---- NPZ

LAYOUT = {"x": ((None, 2), np.float32), "name": ((), "U")}


def write_npz(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)


X, NAME = ["x.npy", npy(np.ones((3, 2), np.float32))], ["name.npy", npy(np.array("emoji"))]
HUGE = npy(header={"descr": "<f4", "fortran_order": False, "shape": (2**31, 2)})
NPZ = {
    "missing": ([X], ("members", "name.npy")),
    "extra": ([X, NAME, ["y.npy", npy(np.zeros(1))]], ("members", "y.npy")),
    "renamed": ([["X.npy", X[1]], NAME], ("members", "X.npy")),
    "path": ([X, NAME, ["../y.npy", npy(np.zeros(1))]], ("members", "../y.npy")),
    "shape": ([["x.npy", npy(np.ones((3, 4), np.float32))], NAME], ("x", "(any, 2)", "(3, 4)")),
    "dimensions": ([["x.npy", npy(np.ones(3, np.float32))], NAME], ("x", "(3,)")),
    "type": ([["x.npy", npy(np.ones((3, 2)))], NAME], ("x", "float32", "float64")),
    "objects": ([["x.npy", npy(np.array([[1, None]]))], NAME], ("x", "object")),
    "records": ([["x.npy", npy(np.zeros((1, 2), [("a", "f4")]))], NAME], ("x", "'a'")),
    "NaN": ([["x.npy", npy(np.full((3, 2), np.nan, np.float32))], NAME], ("x", "6 that are NaN")),
    "cut": ([["x.npy", X[1][:-1]], NAME], ("x", "24 bytes", "found 23")),
    "trailing": ([["x.npy", X[1] + b"\0"], NAME], ("x", "24 bytes", "found 25")),
    "huge": ([["x.npy", HUGE + bytes(10)], NAME], ("x", "17179869184 bytes", "found 10")),
    "no array": ([["x.npy", b"nothing"], NAME], ("archive",)),
    "version": ([["x.npy", b"\x93NUMPY\x09\0" + X[1][8:]], NAME], ("archive", "(9, 0)")),
}


@pytest.mark.parametrize("name", NPZ)
def test_bad_npz(tmp_path, name):
    """Missing, extra, renamed, `../`; shape, type, objects, records, NaN; cut, trailing, huge"""
    members, words = NPZ[name]
    write_npz(tmp_path / "a.npz", members)
    refused(tmp_path / "a.npz", *words, read=lambda path: read_npz(path, LAYOUT))


def test_a_sound_npz(tmp_path):
    """A sound NPZ"""
    write_npz(tmp_path / "a.npz", [X, NAME])
    arrays = read_npz(tmp_path / "a.npz", LAYOUT)
    np.testing.assert_array_equal(arrays["x"], np.ones((3, 2)))
    assert arrays["name"] == "emoji"


@pytest.mark.parametrize("data", [b"", b"<html>", b"PK\3\4", bytes(9999)], ids=repr)
def test_no_npz(tmp_path, data):
    """Empty, HTML, a magic number alone, zeros"""
    (tmp_path / "a.npz").write_bytes(data[:9999])
    refused(tmp_path / "a.npz", read=lambda path: read_npz(path, LAYOUT))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_npz_twice(tmp_path):
    """Two members of one name"""
    write_npz(tmp_path / "a.npz", [X, NAME, X])
    refused(tmp_path / "a.npz", "a name twice", read=lambda path: read_npz(path, LAYOUT))


@cases(2)
def test_npz_bombs(tmp_path):
    """NPZ bombs of 1 GiB, and of 2, over the limit, under RLIMIT_AS"""
    code = "data.read_npz(sys.argv[1], {'x': ((None, 2), 'f4')})"
    zip_bomb(tmp_path / "a.npz", [], "x.npy", 1024)
    refused_with_little(code, tmp_path / "a.npz", "archive")  # zeros are no header
    zip_bomb(tmp_path / "a.npz", [], "x.npy", 2048)
    refused_with_little(code, tmp_path / "a.npz", "at most 1073741824 bytes in all")
