"""`python -m minigan.gradcheck`: the check of the registry, or of somebody's own function."""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from minigan import backend as backends
from minigan.gradcheck import GradcheckError, gradcheck
from minigan.specs.case import REGISTRY, Spec
from minigan.specs.check import check
from minigan.specs.values import spread

PASSED, FAILED, MISUSED, STOPPED = 0, 1, 2, 130  # exit codes
ABOUT = """Compare the gradients of every operation, layer and loss of minigan with finite
differences, or those of a function of yours. Exit code 0: all agree; 1: some do not; 2: the
question makes no sense."""
WHERE = """A function of yours takes tensors and returns one. It finds its inputs by --shape, once
for each, or brings them itself as `function.inputs`: a list of arrays, or a function that returns
one. They are turned into float64."""


class Misuse(ValueError):
    """A question that makes no sense."""


@dataclass
class Row:
    """What came out for one operation.

    Attributes:
        op: its name.
        order: up to which order derivatives were compared.
        examples: how many cases were tried.
        worst: the largest error, as a share of what is allowed.
        rejected: random directions along which differences disagreed among themselves.
        seconds: how long it took.
        failure: what is wrong, if anything.
    """

    op: str
    order: int
    examples: int = 0
    worst: float = 0.0
    rejected: int = 0
    seconds: float = 0.0
    failure: str = ""

    def __str__(self) -> str:
        worst = "FAILED" if self.failure else f"{self.worst:.1e}"
        return (
            f"{self.op:<{WIDTH}} {self.order:>5} {self.examples:>8} {worst:>11} "
            f"{self.rejected:>8} {self.seconds:>7.2f}"
        )


WIDTH = 38
HEADER = (
    f"{'op':<{WIDTH}} {'order':>5} {'examples':>8} {'worst/bound':>11} "
    f"{'rejected':>8} {'seconds':>7}"
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options; exits with 2 where they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m minigan.gradcheck", description=ABOUT, epilog=WHERE
    )
    parser.add_argument("function", nargs="?", help="module:function, instead of the registry")
    parser.add_argument("--op", action="append", help="only this entry; may be given again")
    parser.add_argument("--examples", type=int, default=20, help="cases an entry (20)")
    parser.add_argument("--order", type=int, default=2, help="of derivative, up to (2)")
    parser.add_argument("--seed", type=int, default=0, help="number of the first case (0)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--shape", action="append", help="of an input of the function: 3x4, 5, ()")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    if options.examples < 1 or options.order < 1 or options.seed < 0:
        parser.error("--examples and --order must be at least 1, --seed at least 0")
    if options.order > 3 and not options.function:
        parser.error("--order: the registry is checked up to 3; your own function to any order")
    if options.op and options.function:
        parser.error("give either --op or a function")
    if options.shape and not options.function:
        parser.error("--shape is for a function of yours: module:function --shape 3x4")
    if options.function and options.device != "cpu":
        parser.error(
            "a function of yours is checked on the device that it uses: leave --device out"
        )
    for name in options.op or []:
        if name not in REGISTRY:
            near = difflib.get_close_matches(name, REGISTRY, 3, 0.4)
            hint = f"; do you mean {', '.join(near)}?" if near else ""
            parser.error(f"--op {name}: no such entry{hint}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parse(arguments)
    before = backends._settings.device
    try:
        backends.use(options.device)
        rows = function_rows(options) if options.function else registry_rows(options)
        return report(rows, options.json)
    except (Misuse, backends.DeviceError) as error:
        print(f"gradcheck: {error}", file=sys.stderr)
        return MISUSED
    except KeyboardInterrupt:
        print("gradcheck: stopped", file=sys.stderr)
        return STOPPED
    finally:
        backends.use(before)


def report(rows: Iterator[Row], as_json: bool) -> int:
    """Print the rows as they come, what is wrong, and the sum; returns the exit code."""
    done = []
    if not as_json:
        print(HEADER, flush=True)
    for row in rows:
        done.append(row)
        print(json.dumps(asdict(row)) if as_json else row, flush=True)
        if row.failure and not as_json:
            print(f"\n{row.failure}\n", flush=True)
    wrong = [row.op for row in done if row.failure]
    if not as_json:
        print(summary(done, wrong))
    return FAILED if wrong else PASSED


def summary(done: list[Row], wrong: list[str]) -> str:
    """Return the last line."""
    seconds, examples = sum(r.seconds for r in done), sum(r.examples for r in done)
    checked = f"{len(done)} checked on {examples} examples in {seconds:.1f} s"
    if wrong:
        return f"{checked}: {len(wrong)} wrong: {', '.join(wrong)}"
    worst = max(row.worst for row in done)
    return f"{checked}: all gradients agree; the largest error is {worst:.1e} of the bound"


def registry_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Check entry after entry."""
    for spec in REGISTRY.values():
        if not options.op or spec.name in options.op:
            yield registry_row(spec, options.order, options.examples, options.seed)


def registry_row(spec: Spec, order: int, examples: int, first: int) -> Row:
    """Check one entry, until something is wrong."""
    row, start = Row(spec.name, order), time.perf_counter()
    for number in range(first, first + examples):
        row.examples += 1
        try:
            result = check(spec.example(number), order)
        except GradcheckError as error:
            row.failure = str(error)
            break
        row.worst = max(row.worst, result.worst)
        row.rejected += result.rejected
    row.seconds = time.perf_counter() - start
    return row


# A function of somebody's own


def function_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Check a function at as many points as there shall be examples."""
    function = find(options.function)
    row, start = Row(options.function, options.order), time.perf_counter()
    for seed in range(options.seed, options.seed + options.examples):
        row.examples += 1
        try:
            inputs = inputs_of(function, options.shape, seed)
            row.worst = max(row.worst, gradcheck(function, inputs, options.order, seed))
        except GradcheckError as error:
            shapes = "".join(f" --shape {shape}" for shape in options.shape or [])
            again = f"python -m minigan.gradcheck {options.function}{shapes} --order "
            row.failure = (
                f"{error}\n  to run it again: {again}{options.order} --seed {seed} --examples 1"
            )
            break
        except (TypeError, ValueError) as error:
            raise Misuse(f"{options.function} cannot be checked: {error}") from error
    row.seconds = time.perf_counter() - start
    yield row


def find(path: str) -> Callable:
    """Return the function called module:function."""
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise Misuse(f"{path!r} is no function: write module:function")
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise Misuse(f"{module} cannot be imported: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise Misuse(f"{module} has no {name}")
        found = getattr(found, part)
    if not callable(found):
        raise Misuse(f"{path} is a {type(found).__name__}, no function")
    return found


def inputs_of(function: Callable, shapes: Sequence[str] | None, seed: int) -> list[np.ndarray]:
    """Return inputs of the given shapes, or those that the function brings."""
    if shapes:
        rng = np.random.default_rng(seed)
        return [spread(rng, shape_from(text)) for text in shapes]
    given = getattr(function, "inputs", None)
    if given is None:
        raise Misuse(
            f"{function.__name__}: no inputs: give --shape 3x4 for each, or set "
            f"{function.__name__}.inputs to a list of arrays"
        )
    return [np.asarray(a, dtype=np.float64) for a in (given() if callable(given) else given)]


def shape_from(text: str) -> tuple[int, ...]:
    """Return "3x4" as (3, 4), and "()" as ()."""
    words = [] if text == "()" else text.split("x")
    if not all(word.isdigit() for word in words):
        raise Misuse(f"--shape {text}: write sizes with an x between them: 3x4")
    return tuple(map(int, words))
