"""The one place that writes files: the old one stays until the new one is safely on disk."""

import contextlib
import itertools
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def replace_file(
    path: str | os.PathLike,
    write: Callable[[BinaryIO], object],
    check: Callable[[Path], object] | None = None,
    older: Sequence[Path] = (),
) -> None:
    """Let `write(file)` fill a temporary file beside `path`, sync it, `check(its path)`, rename it.

    What stood at `path` goes on to `older[0]`, what stood there to `older[1]`, and so on. There is
    a whole file at `path` at every moment: it gets a second name before it loses its first.

    Whatever `write` or `check` raises, or an OSError of the disk, leaves `path` as it was and no
    temporary file behind. (Should only the last steps fail, moving the older files on and syncing
    the directory, the new file, complete and checked, already stands at `path`.)
    """
    path = Path(path)
    temporary, spare = _temporary(path), _temporary(path)
    try:
        with open(temporary, "x+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        keeps = bool(older) and path.is_file()
        if keeps:
            _second_name(path, spare)
        os.replace(temporary, path)
        if keeps:
            for young, old in reversed(list(itertools.pairwise(older))):
                if young.is_file():
                    os.replace(young, old)
            os.replace(spare, older[0])
    except BaseException:  # Ctrl-C too
        for left in (temporary, spare):
            with contextlib.suppress(OSError):  # the first error is the one to tell
                left.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def copy_file(path: Path, copy: Path) -> None:
    """Make `copy` hold what `path` holds now, at no moment anything less than one whole file."""
    spare = _temporary(copy)
    try:
        _second_name(path, spare)
        os.replace(spare, copy)
        # Of two names of one file the rename does nothing, so the spare one is still there.
        spare.unlink(missing_ok=True)
    except BaseException:
        with contextlib.suppress(OSError):
            spare.unlink(missing_ok=True)
        raise
    _sync_directory(copy.parent)


def set_aside(path: Path, stem: str) -> Path:
    """Rename `path` to the first `stem-N` with its suffix that is free, and return that."""
    number = 1
    while (aside := path.with_name(f"{stem}-{number}{path.suffix}")).exists():
        number += 1
    os.replace(path, aside)
    return aside


def append_line(path: Path, text: str) -> None:
    """Add a line to a file; a crash can cut it short but does nothing to those before."""
    _refuse_pipe(path)
    with open(path, "ab") as file:
        file.write(text.encode() + b"\n")


def sync_file(path: Path) -> int:
    """See a file's bytes safely to the disk, and return how many there are; 0 for no file."""
    _refuse_pipe(path)
    try:
        with open(path, "r+b") as file:  # Windows syncs only what may be written
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        return 0


def is_other_than_a_file(path: Path) -> bool:
    """Whether something has the name `path` that is no regular file: a folder, a pipe, ..."""
    return os.path.lexists(path) and not path.is_file()


def _refuse_pipe(path: Path) -> None:
    if path.is_fifo():  # opening it would wait for ever for somebody at its other end
        raise OSError(f"{path} is a pipe and no regular file")


class DirectoryLock:
    """Held from creation to `release`, or until the process ends, however it ends.

    BlockingIOError if it is held already. Where the file system knows no locks, and on Windows, it
    is nobody's and everybody's. There is no file to be left behind: the directory itself is locked.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor = -1
        if fcntl is None:
            return
        self._descriptor = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise
        except OSError:  # no locks here
            self.release()

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def __del__(self) -> None:
        self.release()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _second_name(path: Path, name: Path) -> None:
    try:
        os.link(path, name)
    except OSError:  # a file system without hard links: a copy then
        with open(path, "rb") as source, open(name, "xb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())


def _sync_directory(directory: Path) -> None:
    """Make a rename survive a power cut. Windows cannot open a directory, and has no need to."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
