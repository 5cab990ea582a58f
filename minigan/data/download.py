"""Files from the network: only when asked for, resumed where they broke off, and checked."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minigan.data.reading import DataError

PIECE = 1 << 16  # bytes read at a time


def download(
    url: str,
    path: str | os.PathLike,
    sha256: str,
    progress: bool = True,
    timeout: float = 30.0,
    max_bytes: int = 1 << 30,
) -> Path:
    """Fetch `url` to `path`, and return the path; nothing is fetched if the right file is there.

    The bytes gather in `path` + ".part". When the connection breaks they stay, and the next call
    asks the server for the rest. Only a file with the right SHA-256 gets the name `path`; one with
    another is deleted. What stood at `path` stays until then.

    Args:
        url: http or https.
        sha256: of the whole file, 64 hexadecimal digits.
        progress: show a progress bar, if tqdm is installed.
        timeout: seconds without a byte after which the connection counts as broken.
        max_bytes: a server that sends more is cut off.

    Raises:
        DataError: the server cannot be reached, refuses, breaks off or sends other bytes; or the
            disk refuses.
        ValueError: not http or https.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"download: {url!r} is neither http:// nor https://")
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        if path.is_file() and file_sha256(path) == sha256:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (part.is_file() and file_sha256(part) == sha256):  # complete, but never renamed
            _fetch(url, part, progress, timeout, max_bytes)
        found = file_sha256(part)
        if found != sha256:
            part.unlink()
            raise DataError(path, f"SHA-256 of {url}", sha256, found)
        os.replace(part, path)
    except DataError:
        raise
    except urllib.error.HTTPError as error:
        answer = f"{error.code} {error.reason}"
        raise DataError(path, f"download of {url}", "200 OK", answer) from error
    except (OSError, http.client.HTTPException) as error:  # URLError and timeouts among them
        kept = part.stat().st_size if part.is_file() else 0
        again = f"{error}; {kept} bytes are kept, run it again to go on" if kept else error
        raise DataError(path, f"download of {url}", "the whole file", again) from error
    return path


def file_sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(url: str, part: Path, progress: bool, timeout: float, max_bytes: int) -> None:
    """Append to `part` what it lacks of `url`; from the beginning if the server cannot resume."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not have:
            raise
        part.unlink()  # longer than the file on the server: another file's beginning
        return _fetch(url, part, progress, timeout, max_bytes)
    with answer:
        goes_on = answer.status == 206 and _starts_at(answer.headers, have)
        have = have if goes_on else 0
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        with open(part, "ab" if goes_on else "wb") as file:
            show = _bar(part.name.removesuffix(".part"), total, have, progress)
            while piece := answer.read(PIECE):
                have += len(piece)
                if have > max_bytes:
                    raise DataError(part, f"download of {url}", f"at most {max_bytes} bytes", have)
                file.write(piece)
                show(len(piece))
            show(None)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and have < total:
        raise OSError(f"the connection broke after {have} of {total} bytes")


def _starts_at(headers: Any, have: int) -> bool:
    """Whether a partial answer begins where we stopped."""
    return headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _bar(name: str, total: int | None, have: int, progress: bool) -> Callable[[int | None], None]:
    """A function to call with every count of bytes, and with None at the end."""
    try:
        from tqdm import tqdm
    except ImportError:  # it is of the extra `examples`
        progress = False
    if not progress:
        return lambda count: None
    bar = tqdm(desc=name, total=total, initial=have, unit="B", unit_scale=True)
    return lambda count: bar.close() if count is None else bar.update(count)
