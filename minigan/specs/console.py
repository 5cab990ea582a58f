"""What the two commands of this package share: close names, and a reader who has seen enough."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CLOSED = 141  # what a shell gives for a command whose reader went away
UNWRITTEN = 2


def close_to(name: str, names: Iterable[str]) -> str:
    """Return words about the names that are close to a wrong one: "" if none is."""
    by_lower = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), by_lower, 3, 0.4)
    return f"; do you mean {', '.join(by_lower[n] for n in near)}?" if near else ""


@dataclass
class Reading:
    """The exit code of a command whose output somebody reads, or no longer does."""

    code: int = CLOSED


@contextmanager
def until_nobody_reads() -> Iterator[Reading]:
    """Within the context a closed pipe, as after `| head`, is an end and no error.

    Output that cannot be written, as to a full disk, is one, in words and with a code of 2.
    """
    reading = Reading()
    try:
        yield reading
        sys.stdout.flush()
    except OSError as error:
        reading.code = CLOSED
        if not isinstance(error, BrokenPipeError):
            print(f"the output cannot be written: {error.strerror}", file=sys.stderr)
            reading.code = UNWRITTEN
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # Python writes out the rest when it exits
        os.close(nowhere)
