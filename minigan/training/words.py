"""What is said on stderr: news of a run, which goes on when nobody can be told."""

import contextlib
import os
import sys
from typing import Any, TextIO


def say(words: str) -> None:
    """Write a line to stderr, if it can be written."""
    with contextlib.suppress(OSError):  # `2>train.log` on a full disk
        print(words, file=sys.stderr, flush=True)


def warn(words: str) -> None:
    """Say on stderr what went wrong and did not stop the run."""
    say(f"warning: {words}")


def let_go_of_stderr() -> None:
    """Drop what is left over for a stderr that cannot be written: Python would exit with 120."""
    try:
        sys.stderr.flush()
    except OSError:
        nobody = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nobody, 2)
        os.close(nobody)


class Forgiving:
    """A text stream that swallows the OSErrors of another: for a progress bar on a full disk."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write if it can be done; the count of characters either way."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if it can be done."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
