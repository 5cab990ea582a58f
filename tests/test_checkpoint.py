"""Checkpoints: what goes in comes out, and nothing damaged, hostile or half written comes out."""

import errno
import hashlib
import io
import json
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest

from minigan.training import CheckpointError, files, load_checkpoint, save_checkpoint


def some_state(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "generator": {
            "0.weight": rng.standard_normal((3, 3, 2, 4)).astype(np.float32),
            "0.bias": np.zeros(4, np.float64),
            "norm": {"steps": np.array(7), "mask": np.array([True, False])},
        },
        "optimiser": {"lr": 2e-4, "betas": [0.5, 0.999], "name": "Adam", "state": {}},
        "pixels": rng.integers(0, 256, (2, 5), np.uint8),
        "random": rng.bit_generator.state,  # has integers of 128 bits
        "run": {"step": 12, "note": None, "done": False},
    }


def assert_same(a, b):
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()
    else:
        assert type(a) is type(b)
        assert a == b


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoint.npz"
    save_checkpoint(path, some_state())
    return path


def forge(path, edit):
    """Change the members of a checkpoint, a list of [name, bytes], and seal it as a good one is."""
    with zipfile.ZipFile(path) as archive:
        members = [[info.filename, archive.read(info)] for info in archive.infolist()]
    members = edit(members) or members
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data)
        archive.comment = bytes(64)
    data = path.read_bytes()[:-64]
    path.write_bytes(data + hashlib.sha256(data).hexdigest().encode())


def edit_manifest(change):
    def edit(members):
        manifest = json.loads(members[0][1])
        change(manifest)
        members[0][1] = json.dumps(manifest).encode()

    return edit


def npy(array=None, header=None):
    stream = io.BytesIO()
    if header is not None:
        np.lib.format.write_array_header_1_0(stream, header)
    else:
        np.lib.format.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


def refused(path, *words):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert caught.value.path == path
    assert caught.value.member
    assert caught.value.reason


# ---- what goes in comes out


def test_round_trip(saved):
    assert_same(some_state(), load_checkpoint(saved))


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5, np.float32),
        np.empty((0, 3), np.float32),
        np.arange(12.0).reshape(3, 4).T,
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.arange(20, dtype=np.int16)[::3],
        np.array([np.nan, np.inf, -0.0], np.float32),
        np.array([2**63, 1], np.uint64),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_arrays_of_every_layout(tmp_path, array):
    save_checkpoint(tmp_path / "a.npz", {"a": array})
    loaded = load_checkpoint(tmp_path / "a.npz")["a"]
    assert_same(np.array(array), loaded)
    assert loaded.flags.writeable


def test_a_big_endian_array_comes_back_native(tmp_path):
    save_checkpoint(tmp_path / "a.npz", {"a": np.arange(3, dtype=">f4")})
    assert_same(np.arange(3, dtype=np.float32), load_checkpoint(tmp_path / "a.npz")["a"])


def test_generator_state_goes_on_with_the_same_numbers(tmp_path):
    rng = np.random.default_rng(5)
    rng.random(3)
    save_checkpoint(tmp_path / "a.npz", {"rng": rng.bit_generator.state})
    other = np.random.default_rng()
    other.bit_generator.state = load_checkpoint(tmp_path / "a.npz")["rng"]
    assert other.random() == rng.random()


def test_numpy_reads_it_without_pickle(saved):
    with np.load(saved, allow_pickle=False) as archive:
        expected = some_state()["generator"]["0.weight"]
        np.testing.assert_array_equal(archive["generator/0.weight"], expected)


def test_the_same_state_gives_the_same_bytes(saved, tmp_path):
    save_checkpoint(tmp_path / "again.npz", some_state())
    assert (tmp_path / "again.npz").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (np.array([None, 1], object), "dtype object"),
        (np.zeros(2, np.float16), "dtype float16"),
        (np.zeros(2, [("x", "f4")]), "dtype"),
        (np.float32(1), "would not come back from JSON"),
        ((1, 2), "would not come back from JSON"),
        (float("nan"), "would not come back from JSON"),
        ([{1: 2}], "would not come back from JSON"),
        ([np.zeros(2)], "would not come back from JSON"),
        ({"a/b": 1}, "no slashes"),
        ({"..": 1}, "cannot be a name"),
        ({"": 1}, "cannot be a name"),
        ({3: 1}, "cannot be a name"),
        ({"a\0b": 1}, "cannot be a name"),
        ({"\ud800": 1}, "cannot be a name"),
    ],
    ids=repr,
)
def test_what_cannot_be_saved_is_named_and_the_old_file_stays(saved, leaf, words):
    before = saved.read_bytes()
    with pytest.raises(CheckpointError, match=words) as caught:
        save_checkpoint(saved, {"good": 1, "bad": leaf})
    assert "bad" in str(caught.value) or isinstance(leaf, dict)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


# ---- damaged files (many more: tests/faults/test_damage.py)


def test_a_flipped_bit_in_an_array_names_the_array(saved):
    data = bytearray(saved.read_bytes())
    data[data.find(some_state()["generator"]["0.weight"].tobytes()) + 20] ^= 1
    saved.write_bytes(data)
    refused(saved, "generator/0.weight")


def test_a_changed_array_behind_good_zip_sums_is_seen(saved):
    def edit(members):
        bias = next(member for member in members if member[0] == "generator/0.bias.npy")
        bias[1] = bias[1][:-1] + b"\1"

    forge(saved, edit)
    refused(saved, "generator/0.bias", "SHA-256")


@pytest.mark.parametrize("extra", [b"\0", b"PK\5\6" + bytes(18), b"x" * 5000])
@pytest.mark.parametrize("where", ["before", "after"])
def test_bytes_before_or_after(saved, extra, where):
    data = saved.read_bytes()
    saved.write_bytes(extra + data if where == "before" else data + extra)
    refused(saved)


@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><html>404</html>", b"\x93NUMPY\1\0", b"PK\3\4", bytes(9999)]
)
def test_not_a_checkpoint(saved, content):
    saved.write_bytes(content)
    refused(saved)


def test_missing_directory_and_pipe(tmp_path):
    refused(tmp_path / "none.npz", "no such file")
    refused(tmp_path, "no such file")
    os.mkfifo(tmp_path / "pipe.npz")
    refused(tmp_path / "pipe.npz", "no such file")


def test_an_ordinary_npz_is_not_a_checkpoint(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    refused(tmp_path / "a.npz", "manifest.json", "not a minigan checkpoint")


# ---- forged files, whose sums and seal are right


def test_forging_nothing_loads(saved):
    forge(saved, lambda members: None)
    assert_same(some_state(), load_checkpoint(saved))


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickles_are_never_run(saved, tmp_path):
    canary = tmp_path / "canary"
    evil = Canary(canary)

    def edit(members):
        members[1][1] = npy(np.array([evil], object))

    forge(saved, edit)
    refused(saved, "generator/0.weight", "header says")
    edit_all = edit_manifest(
        lambda m: m["leaves"]["generator/0.weight"].update(shape=[1], dtype="object")
    )
    forge(saved, edit_all)
    refused(saved, "generator/0.weight", "header says")
    saved.write_bytes(pickle.dumps(evil))
    refused(saved)
    assert not canary.exists()
    pickle.loads(pickle.dumps(evil)).close()  # the canary does sing
    assert canary.exists()


def test_a_huge_declared_shape_allocates_nothing(saved):
    header = {"descr": "<f4", "fortran_order": False, "shape": (65536, 65536)}
    forge(saved, lambda members: members[1].__setitem__(1, npy(header=header) + bytes(100)))
    refused(saved, "generator/0.weight", "header says (65536, 65536)")
    forge(
        saved,
        edit_manifest(lambda m: m["leaves"]["generator/0.weight"].update(shape=[65536, 65536])),
    )
    tracemalloc.start()
    refused(saved, "generator/0.weight", "declares 17179869184 bytes of numbers, there are 100")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda m: m[:-1], "missing ['pixels.npy'], extra []"),
        (lambda m: [*m, ["more.npy", npy(np.zeros(1))]], "extra ['more.npy']"),
        (lambda m: [*m, ["../evil.npy", b""]], "extra ['../evil.npy']"),
        (lambda m: m[1:], "not a minigan checkpoint"),
        (lambda m: m[0].__setitem__(1, b"[]"), "manifest.json"),
        (lambda m: m[0].__setitem__(1, b"{"), "manifest.json"),
        (lambda m: m[0].__setitem__(1, b"[" * 100_000), "manifest.json"),
        (edit_manifest(lambda j: j.update(version=2)), "version 2"),
        (edit_manifest(lambda j: j.update(format="other")), "'other'"),
        (edit_manifest(lambda j: j.pop("leaves")), "manifest.json"),
        (edit_manifest(lambda j: j.update(leaves=[])), "manifest.json"),
        (edit_manifest(lambda j: j["leaves"].update(pixels=3)), "manifest.json"),
        (edit_manifest(lambda j: j["leaves"]["pixels"].update(shape=[5, 2])), "pixels"),
        (edit_manifest(lambda j: j["leaves"]["pixels"].update(dtype="int8")), "pixels"),
        (edit_manifest(lambda j: j["leaves"]["pixels"].pop("sha256")), "pixels"),
        (edit_manifest(lambda j: j["leaves"]["pixels"].update(shape=None)), "pixels"),
        (lambda m: m[-1].__setitem__(1, m[-1][1] + b"\0"), "there are 11"),
        (lambda m: m[-1].__setitem__(1, m[-1][1][:-1]), "there are 9"),
        (lambda m: m[-1].__setitem__(1, b""), "pixels"),
        (lambda m: m[-1].__setitem__(1, b"\x93NUMPY\2\0" + m[-1][1][8:]), "version 1.0"),
    ],
)
def test_forged_members_and_manifests(saved, edit, words):
    forge(saved, edit)
    refused(saved, words)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_members(saved):
    forge(saved, lambda members: [*members, members[-1]])
    refused(saved, "same name")


def test_compressed_members_are_not_unpacked(saved):
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", bytes(50 << 20))  # 50 MB of zeros in 50 kB
    tracemalloc.start()
    refused(saved, "without compression")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_sizes_larger_than_the_file(saved):
    data = bytearray(saved.read_bytes()[:-64])
    entry = data.rfind(
        b"PK\1\2"
    )  # of pixels.npy in the ZIP's directory: packed size at 20, size at 24
    data[entry + 20 : entry + 28] = (1 << 30).to_bytes(4, "little") * 2
    saved.write_bytes(data + hashlib.sha256(data).hexdigest().encode())
    refused(saved, "declare more bytes than the file has")


# ---- a disk that fails while saving


def fail(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def assert_untouched(path, before):
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_keeps_the_old_checkpoint(saved, monkeypatch, call):
    before = saved.read_bytes()
    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(CheckpointError, match=r"not saved: .*No space left"):
        save_checkpoint(saved, some_state(1))
    monkeypatch.undo()
    assert_untouched(saved, before)


def test_a_failing_directory_sync_leaves_a_whole_new_file(saved, monkeypatch):
    monkeypatch.setattr(files, "_sync_directory", fail)
    with pytest.raises(CheckpointError, match="not saved"):
        save_checkpoint(saved, some_state(1))
    assert_same(some_state(1), load_checkpoint(saved))
    assert os.listdir(saved.parent) == [saved.name]


def test_bytes_that_went_wrong_on_their_way_to_the_disk(saved, monkeypatch):
    before, fsync = saved.read_bytes(), os.fsync

    def corrupting(descriptor):
        os.pwrite(descriptor, b"\xff", 3000)
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", corrupting)
    with pytest.raises(CheckpointError, match="not saved"):
        save_checkpoint(saved, some_state(1))
    assert_untouched(saved, before)


def test_ctrl_c_while_saving_keeps_the_old_checkpoint(saved, monkeypatch):
    before = saved.read_bytes()

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(saved, some_state(1))
    assert_untouched(saved, before)


def test_the_order_of_a_save(saved, monkeypatch):
    """Synced before it is renamed, and the directory after: any other order can lose the file."""
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            files.os, name, lambda *args, name=name, real=real: [calls.append(name), real(*args)]
        )
    save_checkpoint(saved, some_state(1))
    assert calls == ["fsync", "replace", "fsync"]


def test_no_directory_to_save_in(tmp_path):
    with pytest.raises(CheckpointError, match="not saved"):
        save_checkpoint(tmp_path / "none" / "a.npz", {})
