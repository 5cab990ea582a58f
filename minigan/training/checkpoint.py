"""Checkpoints: a nested dict of arrays and plain values in one file, checked to the last bit.

The file is an uncompressed ZIP that `np.load` reads too. Each array is a member `a/b/name.npy`;
`manifest.json` lists every leaf with its shape, dtype and SHA-256, or its plain value. The ZIP's
comment, the last 64 bytes, is the SHA-256 of all bytes before it: no flipped bit goes unseen.
Nothing is ever unpickled.
"""

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .files import replace_file

FORMAT, VERSION, MANIFEST, SEAL_BYTES = "minigan checkpoint", 1, "manifest.json", 64
DTYPES = {"bool", "float32", "float64"} | {f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)}


class CheckpointError(Exception):
    """A checkpoint cannot be saved or loaded; the message names file, member and reason."""

    def __init__(self, path: str | os.PathLike, member: str, reason: object) -> None:
        super().__init__(f"{path}: {member}: {reason}")
        self.path, self.member, self.reason = Path(path), member, str(reason)


def save_checkpoint(
    path: str | os.PathLike, state: dict[str, Any], older: Sequence[Path] = ()
) -> None:
    """Write `state` to `path`; the file there before is replaced by a verified one, or untouched.

    With `older` it is kept under those names: the last one at `older[0]`, the one before at
    `older[1]`, and so on.

    `state` is a nested dict with str keys; its leaves are numpy arrays (bool, integers, float32,
    float64; any shape) or what JSON gives back unchanged (None, bool, int, float, str, list).
    Verifying reads everything back, so there must be memory for `state` twice.
    Raises CheckpointError for other leaves or keys, and when the disk refuses.
    """
    manifest: dict[str, Any] = {"format": FORMAT, "version": VERSION, "leaves": {}}
    arrays: dict[str, np.ndarray] = {}
    name = "state"
    try:
        for name, leaf in _leaves(state):
            if isinstance(leaf, np.ndarray):
                arrays[name] = np.asarray(leaf, leaf.dtype.newbyteorder("="), order="C")
                manifest["leaves"][name] = _describe(arrays[name])
            else:
                manifest["leaves"][name] = {"value": _plain(leaf)}
        name = "writing"
        replace_file(path, lambda file: _write(file, manifest, arrays), load_checkpoint, older)
    except (ValueError, OSError, MemoryError, CheckpointError) as error:
        reason = error.reason if isinstance(error, CheckpointError) else str(error)
        raise CheckpointError(path, name, f"not saved: {reason or 'out of memory'}") from error


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote: the whole state, or a CheckpointError and nothing.

    Names, headers and sizes are compared with the file's true size before an array is allocated.
    """
    member = "file"
    try:
        if not Path(path).is_file():  # a pipe would be waited for for ever
            raise FileNotFoundError("there is no such file")
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            _check_members(archive, os.path.getsize(path))
            member = MANIFEST
            leaves = _read_manifest(archive)
            state: dict[str, Any] = {}
            for member, leaf in leaves.items():
                value = _read_array(archive, member, leaf) if _is_array(leaf) else leaf["value"]
                _plant(state, member, value)
            member = "file"
            file.seek(-SEAL_BYTES, os.SEEK_END)
            if file.read() != _seal(file):
                raise ValueError("damaged: its bytes are not those that were saved")
        return state
    except Exception as error:  # damaged bytes make zipfile, json and numpy raise many kinds
        raise CheckpointError(path, member, str(error) or type(error).__name__) from error


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, leaf in tree.items():
        _check_key(key, prefix)
        if isinstance(leaf, dict) and leaf:  # an empty dict is a plain value
            yield from _leaves(leaf, f"{prefix}{key}/")
        else:
            yield prefix + key, leaf


def _check_key(key: object, prefix: str = "") -> None:
    if not (isinstance(key, str) and key.isprintable() and key not in ("", ".", "..")):
        raise ValueError(f"{prefix}{key!r} cannot be a name: keys are printable strings")
    if "/" in key or "\\" in key:
        raise ValueError(f"{prefix}{key!r} cannot be a name: keys have no slashes")


def _describe(array: np.ndarray) -> dict[str, Any]:
    if array.dtype.name not in DTYPES:
        raise ValueError(f"dtype {array.dtype} is none of bool, integer, float32, float64")
    digest = hashlib.sha256(array.reshape(-1).view(np.uint8)).hexdigest()
    return {"shape": list(array.shape), "dtype": array.dtype.name, "sha256": digest}


def _plain(leaf: object) -> object:
    try:
        if json.loads(json.dumps(leaf, allow_nan=False)) == leaf:
            return leaf
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{leaf!r:.80} would not come back from JSON as it is (nor is it an array)")


def _write(file: BinaryIO, manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(MANIFEST), json.dumps(manifest))
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
        archive.comment = bytes(SEAL_BYTES)  # room for the seal
    seal = _seal(file)
    file.seek(-SEAL_BYTES, os.SEEK_END)
    file.write(seal)


def _seal(file: BinaryIO) -> bytes:
    left, digest = file.seek(0, os.SEEK_END) - SEAL_BYTES, hashlib.sha256()
    file.seek(0)
    while left > 0 and (chunk := file.read(min(left, 1 << 20))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest().encode()


def _check_members(archive: zipfile.ZipFile, file_bytes: int) -> None:
    """Refuse what would make reading the members cost more memory than the file has bytes."""
    members = archive.infolist()
    if len(set(archive.namelist())) != len(members):
        raise ValueError("two members have the same name")
    if any(m.compress_type != zipfile.ZIP_STORED for m in members):
        raise ValueError("members must be stored without compression")
    if sum(m.file_size for m in members) > file_bytes:
        raise ValueError("its members declare more bytes than the file has")


def _read_manifest(archive: zipfile.ZipFile) -> dict[str, dict[str, Any]]:
    found = set(archive.namelist())
    if MANIFEST not in found:
        raise ValueError("missing: this is not a minigan checkpoint")
    manifest = json.loads(archive.read(MANIFEST), parse_constant=_no_constant)
    if (manifest["format"], manifest["version"]) != (FORMAT, VERSION):
        raise ValueError(
            f"this minigan reads {FORMAT!r} version {VERSION}, "
            f"the file is {manifest['format']!r} version {manifest['version']!r}"
        )
    leaves = manifest["leaves"]
    for name in leaves:
        for key in name.split("/"):
            _check_key(key, f"in {name!r}: ")
    expected = {MANIFEST} | {name + ".npy" for name in leaves if _is_array(leaves[name])}
    if found != expected:
        missing, extra = sorted(expected - found), sorted(found - expected)
        raise ValueError(f"its list and the members differ: missing {missing}, extra {extra}")
    return leaves


def _no_constant(word: str) -> None:
    raise ValueError(f"holds {word}, which is no number of JSON")


def _is_array(leaf: dict[str, Any]) -> bool:
    return "value" not in leaf


def _read_array(archive: zipfile.ZipFile, name: str, leaf: dict[str, Any]) -> np.ndarray:
    info = archive.getinfo(name + ".npy")
    with archive.open(info) as member:
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError("its .npy header is not of version 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        said = (tuple(leaf["shape"]), leaf["dtype"])
        if (shape, dtype.name) != said or fortran or dtype.name not in DTYPES:
            raise ValueError(f"its header says {shape} {dtype}, the manifest {said[0]} {said[1]}")
        declared, there = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
        if declared != there:
            raise ValueError(f"its header declares {declared} bytes of numbers, there are {there}")
        data = member.read()
    if hashlib.sha256(data).hexdigest() != leaf["sha256"]:
        raise ValueError("damaged: its SHA-256 is not the manifest's")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _plant(state: dict[str, Any], name: str, leaf: object) -> None:
    *parents, key = name.split("/")
    for parent in parents:
        state = state.setdefault(parent, {})
    state[key] = leaf
