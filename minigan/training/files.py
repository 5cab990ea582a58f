"""The one place that writes over a file: the old one stays until the new one is safely on disk."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def replace_file(
    path: str | os.PathLike,
    write: Callable[[BinaryIO], object],
    check: Callable[[Path], object] | None = None,
) -> None:
    """Let `write(file)` fill a temporary file beside `path`, sync it, `check(its path)`, rename it.

    Whatever `write` or `check` raises, or an OSError of the disk, leaves `path` as it was and no
    temporary file behind. (Should only the last step fail, syncing the directory, the new file,
    complete and checked, already stands at `path`.)
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "x+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        os.replace(temporary, path)
    except BaseException:  # Ctrl-C too
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Make a rename survive a power cut. Windows cannot open a directory, and has no need to."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
