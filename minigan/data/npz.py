"""NPZ files as data: archives of arrays, read by a layout that says what should be in them.

`np.load` allocates what a header declares before it looks at what is there, unpickles if asked, and
leaves it to the caller to notice a missing array. Here nothing is believed.
"""

import math
import os
import zipfile
from collections.abc import Mapping

import numpy as np

from minigan.data.reading import MAX_BYTES, DataError, open_data

KINDS = "fiubU"  # floats, integers, booleans, strings: no objects, no records


def read_npz(
    path: str | os.PathLike,
    layout: Mapping[str, tuple[tuple[int | None, ...], object]],
    max_bytes: int = MAX_BYTES,
) -> dict[str, np.ndarray]:
    """The arrays named in `layout`, which says {name: (shape, dtype)} of each; None is any length.

    A dtype may be a kind too: "U" for text of any length.

    Raises:
        DataError: no ZIP archive, or a damaged one; an array missing, unexpected, twice there, of
            another shape or dtype, of Python objects; numbers that are not finite; more or fewer
            bytes than a header declares; more than `max_bytes` in all.
    """
    with open_data(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                _check_members(path, archive, layout, max_bytes)
                return {name: _read(path, archive, name, layout[name]) for name in layout}
        except DataError:
            raise
        except Exception as error:  # damaged bytes make zipfile and numpy raise many kinds
            raise DataError(path, "archive", "a sound NPZ file", error) from error


def _check_members(
    path: str | os.PathLike, archive: zipfile.ZipFile, layout: Mapping, max_bytes: int
) -> None:
    names = archive.namelist()
    expected = {f"{name}.npy" for name in layout}
    if len(set(names)) != len(names):
        raise DataError(path, "members", "every name once", "a name twice")
    if set(names) != expected:
        raise DataError(path, "members", sorted(expected), sorted(names))
    total = sum(member.file_size for member in archive.infolist())
    if total > max_bytes:
        raise DataError(path, "members", f"at most {max_bytes} bytes in all", total)


def _read(
    path: str | os.PathLike, archive: zipfile.ZipFile, name: str, layout: tuple
) -> np.ndarray:
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as file:
        shape, dtype = _header(file)
        if not _same(shape, dtype, *layout):
            expected = f"{np.dtype(layout[1]).name} {layout[0]}"
            raise DataError(path, name, expected.replace("None", "any"), f"{dtype} {shape}")
        declared = math.prod(shape) * dtype.itemsize
        there = member.file_size - file.tell()
        if declared != there:
            raise DataError(path, name, f"{declared} bytes for {dtype} {shape}", there)
        data = bytearray()  # grows with what is really there
        while piece := file.read(1 << 20):  # stops at file_size, so at `declared`
            data += piece
        if len(data) != declared:
            raise DataError(path, name, f"{declared} bytes", len(data))
    array = np.frombuffer(data, dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(array).all():
        wrong = np.count_nonzero(~np.isfinite(array))
        raise DataError(path, name, "finite numbers", f"{wrong} that are NaN or infinite")
    return array


def _header(file: zipfile.ZipExtFile) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f".npy version {version} is neither 1.0 nor 2.0")
    shape, fortran, dtype = readers[version](file)
    if fortran and len(shape) > 1:
        raise ValueError("an array in Fortran order: save it with np.ascontiguousarray")
    return shape, dtype


def _same(
    shape: tuple[int, ...], dtype: np.dtype, wanted: tuple[int | None, ...], wanted_dtype: object
) -> bool:
    fits = len(shape) == len(wanted) and all(
        w in (None, s) for s, w in zip(shape, wanted, strict=True)
    )
    alike = dtype == wanted_dtype or (wanted_dtype == "U" and dtype.kind == "U")
    return fits and alike and dtype.kind in KINDS
