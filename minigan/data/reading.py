"""What every reader of files shares: one kind of error, and bytes that are never more than asked.

A data file is somebody else's: cut short by a full disk, a web page saved under its name, or made
to hurt. So a reader believes no number in it before it was compared with the file itself.
"""

import gzip
import os
import zlib
from pathlib import Path
from typing import BinaryIO

MAX_BYTES = 1 << 30  # what a reader unpacks or decodes at most, unless asked for more


class DataError(ValueError):
    """A data file is not what it should be; the message names file, place, expected and found."""

    def __init__(
        self, path: str | os.PathLike, where: str, expected: object, found: object
    ) -> None:
        super().__init__(f"{path}: {where}: expected {expected}, found {found}")
        self.path, self.where = Path(path), where
        self.expected, self.found = str(expected), str(found)


def open_data(path: str | os.PathLike) -> BinaryIO:
    """Open a regular file to read its bytes; DataError for anything else, a pipe or a folder."""
    path = Path(path)
    try:
        if not path.is_file():  # a pipe would be waited for for ever
            found = "something else" if path.exists() else "nothing"
            raise DataError(path, "file", "a regular file", found)
        return open(path, "rb")
    except OSError as error:  # no permission, a circle of links
        raise DataError(path, "file", "a file that can be read", error.strerror) from error


class Bytes:
    """The bytes of a data file, unpacked if it is gzip, handed out a piece at a time.

    Used as a context. Nothing larger than what the file really holds is ever allocated: pieces are
    read a megabyte at a time.
    """

    def __init__(self, path: str | os.PathLike, max_bytes: int = MAX_BYTES) -> None:
        self.path, self.max_bytes, self.offset = Path(path), max_bytes, 0
        self._raw = open_data(path)
        magic = self._raw.read(2)
        self._raw.seek(0)
        self.packed = magic == b"\x1f\x8b"
        if self.path.suffix == ".gz" and not self.packed:
            self._raw.close()
            raise DataError(
                self.path, "gzip magic, at byte 0", "1f 8b", magic.hex(" ") or "nothing"
            )
        self._file = gzip.GzipFile(fileobj=self._raw) if self.packed else self._raw

    def __enter__(self) -> "Bytes":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._raw.close()

    def take(self, count: int, what: str) -> bytearray:
        """The next `count` bytes; DataError if there are fewer, or over `max_bytes` in all."""
        if self.offset + count > self.max_bytes:
            total = self.offset + count
            raise DataError(self.path, what, f"at most {self.max_bytes} bytes in all", total)
        place, taken = self._place(what), bytearray()
        while len(taken) < count:
            piece = self._read(min(count - len(taken), 1 << 20), what)
            if not piece:
                there = f"{len(taken)} before the end of the file"
                raise DataError(self.path, place, f"{count} bytes", there)
            taken += piece
            self.offset += len(piece)
        return taken

    def finish(self) -> None:
        """DataError unless the file ends here."""
        if self._read(1, "end"):
            raise DataError(self.path, self._place("end"), "the end of the file", "more bytes")

    def size(self) -> int | None:
        """How many bytes the file has; None when it is packed and nobody knows."""
        return None if self.packed else os.fstat(self._raw.fileno()).st_size

    def _read(self, count: int, what: str) -> bytes:
        try:
            return self._file.read(count)
        except (OSError, EOFError, zlib.error) as error:  # a bad gzip file, a bad disk
            raise DataError(self.path, self._place(what), "sound data", error) from error

    def _place(self, what: str) -> str:
        return f"{what}, at byte {self.offset}" + (" unpacked" if self.packed else "")
