"""The command-line flags that every example shares, and errors as plain words with exit codes."""

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from minigan.backend import DeviceError
from minigan.data import DataError
from minigan.tensor import AnomalyError

from .checkpoint import CheckpointError
from .extras import MissingExtraError, import_extra
from .run import DivergenceError, RunError
from .words import let_go_of_stderr, say

MADE_OF_SETTINGS = ("minigan.optim", "minigan.data", "minigan.ema", "minigan.nn", "minigan.metrics")


def standard_flags(parser: argparse.ArgumentParser, out: str, steps: int) -> None:
    """Add --steps, --seed, --device, --out, --resume, --gif; `out`, `steps` are their defaults."""
    add = parser.add_argument
    add("--steps", type=positive_int, default=steps, help="training steps (default: %(default)s)")
    add("--seed", type=natural_int, default=0, help="seed of all random numbers (default: 0)")
    device_flag(parser)
    add("--out", type=Path, default=Path(out), help="directory to write to (default: %(default)s)")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    add("--gif", action="store_true", help="make training.gif too, a film of the samples")


def device_flag(parser: argparse.ArgumentParser) -> None:
    """Add --device, whose default is $MINIGAN_DEVICE, else cpu."""
    device = os.environ.get("MINIGAN_DEVICE", "cpu")
    words = "cuda needs CuPy (default: %(default)s)"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=device, help=words)


def positive_int(text: str) -> int:
    """An argparse type: a whole number of 1 or more."""
    return _int_from(text, 1)


def natural_int(text: str) -> int:
    """An argparse type: a whole number of 0 or more."""
    return _int_from(text, 0)


def positive_float(text: str) -> float:
    """An argparse type: a finite number above 0."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")


def _int_from(text: str, least: int) -> int:
    with contextlib.suppress(ValueError):
        if int(text) >= least:
            return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number of {least} or more, not {text!r}")


def require_extras(*modules: str) -> None:
    """Import `modules`, say "PIL", or exit with code 2 and the pip command that installs them."""
    with plain_errors():
        for module in modules:
            import_extra(module)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn the errors a user can cause into one line and an exit code.

    3 for divergence, 130 for a Ctrl-C outside of the loop, else 2, a full disk included. What could
    be a mistake in a program keeps its traceback.
    """
    kept = "the last checkpoint, if there was one, is kept"
    _open_outputs()
    try:
        yield
    except (AnomalyError, DivergenceError) as error:
        words = f"{error}; training has diverged; {kept} (a lower learning rate often helps)"
        _leave(3, error if isinstance(error, DivergenceError) else words)
    except (RunError, CheckpointError, DeviceError, MissingExtraError, DataError) as error:
        _leave(2, error)
    except (OSError, MemoryError) as error:
        _leave(2, f"{error or 'out of memory'}; {kept}")
    except ValueError as error:
        if not _is_of_settings(error):
            raise
        _leave(2, error)
    except KeyboardInterrupt:
        say("interrupted outside of training: nothing was saved")
        sys.exit(130)
    finally:
        let_go_of_stderr()


def _is_of_settings(error: ValueError) -> bool:
    """Whether an optimiser, a schedule, a layer, ... refused what it was to be made with."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = frame.f_globals.get("__name__", "")
    return frame.f_code.co_name == "__init__" and module.startswith(MADE_OF_SETTINGS)


def _open_outputs() -> None:
    """Give stdout and stderr that are closed (`>&-`) to nobody, before a file gets their number.

    What is then written to number 2, by us or by a library, would go into that file.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def _leave(code: int, words: object) -> NoReturn:
    say(f"error: {words}")
    sys.exit(code)
