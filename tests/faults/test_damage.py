"""Files in a checkpoint's place: cut, flipped, foreign, hostile. None is loaded, none is silent."""

import json
import pickle
import random
import zipfile

import numpy as np
import pytest
from harness import GIB, cases, forge_manifest, members_of, npy, python, seal, train, zip_bomb

from minigan.training import CheckpointError, load_checkpoint

BIT_FLIPS = 1000


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A checkpoint of the tiny GAN, 26 kB of 48 arrays."""
    out = tmp_path_factory.mktemp("original")
    train(out, "--steps", 2)
    return (out / "checkpoint.npz").read_bytes()


@pytest.fixture
def path(tmp_path, original):
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(original)
    return path


def refused(path, *words):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    error = caught.value
    assert str(error).startswith(f"{path}: ")
    assert error.path == path
    assert error.member
    assert error.reason
    for word in words:
        assert word in str(error)


def refused_with_little(path, *words, memory=GIB, seconds=60):
    """Refused in a process that has only so much memory and time."""
    code = "import sys; from minigan import training; training.load_checkpoint(sys.argv[1])"
    code = f"from minigan.training import plain_errors\nwith plain_errors(): {code}"
    done = python("-c", code, path, memory=memory, seconds=seconds)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {path}: ")
    for word in words:
        assert word in done.stderr


@cases(26 + 128)
def test_cut_short(path, original):
    """Truncated at every 997th byte and at the 64 before either end"""
    assert len(original) > 26 * 997
    ends = [*range(64), *range(len(original) - 64, len(original))]
    for length in [*range(997, 26 * 997 + 1, 997), *ends]:
        path.write_bytes(original[:length])
        refused(path)


@cases(BIT_FLIPS)
def test_flipped_bits(path, original):
    """1,000 single flipped bits: none is silent"""
    rng = random.Random(0)
    for bit in rng.sample(range(8 * len(original)), BIT_FLIPS):
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        refused(path)


FOREIGN = {
    "empty": b"",
    "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "zeros": bytes(30_000),
    "noise": random.Random(1).randbytes(30_000),
    "npy": npy(np.zeros(3)),
    "zip": b"PK\5\6" + bytes(18),
    "zip64": b"PK\6\6" + b"\xff" * 52 + b"PK\6\7" + bytes(16) + b"PK\5\6" + b"\xff" * 16 + bytes(2),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files(path, name):
    """Another file in its place: empty, HTML, zeros, noise, .npy, two empty ZIPs"""
    path.write_bytes(FOREIGN[name])
    refused(path)


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("where", ["file", "member", "manifest"])
def test_pickles(path, tmp_path, where):
    """A pickle with a canary, as the file, as a member, as an object array: never run"""
    canary = tmp_path / "canary"
    evil = pickle.dumps(Canary(canary))
    if where == "file":
        path.write_bytes(evil)
    elif where == "member":
        members = members_of(path)
        seal(path, [*members, ["evil.pkl", evil]])
    else:
        members = members_of(path)
        members[1][1] = npy(np.array([Canary(canary)], object))
        seal(path, members)
        name = members[1][0].removesuffix(".npy")
        forge_manifest(path, lambda m: m["leaves"][name].update(shape=[1], dtype="object"))
    refused(path)
    assert not canary.exists()
    pickle.loads(evil).close()  # it does sing
    assert canary.exists()


def test_structured_arrays(path):
    """A structured dtype in a member"""
    members = members_of(path)
    members[1][1] = npy(np.zeros(2, [("x", "f4"), ("y", "i4")]))
    seal(path, members)
    refused(path, members[1][0].removesuffix(".npy"), "header says")


@pytest.mark.parametrize("consistent", [False, True])
def test_huge_shapes(path, consistent):
    """A header of (65536, 65536), 16 GiB, alone and with its manifest, under RLIMIT_AS"""
    members = members_of(path)
    header = {"descr": "<f4", "fortran_order": False, "shape": (65536, 65536)}
    members[1][1] = npy(header=header) + bytes(100)
    seal(path, members)
    name = members[1][0].removesuffix(".npy")
    if consistent:
        update = {"shape": [65536, 65536], "dtype": "float32"}
        forge_manifest(path, lambda m: m["leaves"][name].update(update))
    refused_with_little(path, name, "65536" if not consistent else "17179869184 bytes")


@pytest.mark.parametrize("kind", ["manifest", "array"])
def test_zip_bombs(path, kind):
    """A ZIP bomb, 1 GiB in 1 MB, in the manifest's place and in an array's, under RLIMIT_AS"""
    manifest, array, *_ = members_of(path)
    others = [] if kind == "manifest" else [manifest]
    zip_bomb(path, others, manifest[0] if kind == "manifest" else array[0], 1024)
    with zipfile.ZipFile(path) as archive:
        assert archive.infolist()[-1].file_size == 1 << 30
    assert path.stat().st_size < 2 << 20
    refused_with_little(path, "without compression")


@cases(2)
def test_a_deep_manifest(path):
    """A manifest of 100,000 brackets, and one of 10 million digits"""
    members = members_of(path)
    for text in (b"[" * 100_000, b'{"format": ' + b"9" * 10_000_000 + b"}"):
        members[0][1] = text
        seal(path, members)
        refused(path, "manifest.json")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["manifest.json", "array"])
def test_duplicates(path, name):
    """Two members of one name, the manifest's and an array's"""
    members = members_of(path)
    again = members[0] if name == "manifest.json" else members[1]
    seal(path, [*members, again])
    refused(path, "same name")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\evil", "c:/x\0y"])
def test_paths(path, tmp_path, name):
    """Names that are paths, `../` and absolute ones, with and without a line in the manifest"""
    members = members_of(path)
    seal(path, [*members, [name + ".npy", npy(np.zeros(1))]])
    refused(path, "manifest.json", "extra")
    leaf = {"shape": [1], "dtype": "float64", "sha256": ""}
    forge_manifest(path, lambda m: m["leaves"].update({name: leaf}))
    refused(path, "manifest.json")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.npz"]


@pytest.mark.parametrize("count", [1, 22, 5000])
def test_trailing_bytes(path, count):
    """1, 22 and 5,000 bytes after the end"""
    path.write_bytes(path.read_bytes() + b"\0" * count)
    refused(path)


def test_trailing_bytes_of_a_member(path):
    """A byte after the numbers of an array"""
    members = members_of(path)
    members[1][1] += b"\0"
    seal(path, members)
    refused(path, members[1][0].removesuffix(".npy"), "there are")


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_has_not(path, word):
    """NaN and infinities among the manifest's numbers"""
    members = members_of(path)
    text = json.dumps(json.loads(members[0][1]))
    start = text.index('"value": ', text.index('"adam_g/lr"')) + len('"value": ')
    members[0][1] = (text[:start] + word + text[text.index("}", start) :]).encode()
    seal(path, members)
    refused(path, "manifest.json", word)
