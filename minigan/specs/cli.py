"""`python -m minigan.gradcheck`: the check of the registry, or of somebody's own function."""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from minigan import backend as backends
from minigan.gradcheck import GradcheckError, gradcheck
from minigan.specs.case import REGISTRY, Spec
from minigan.specs.check import SPARE, Failed, check, ops_of
from minigan.specs.console import close_to, until_nobody_reads
from minigan.specs.kinks import check_kink, kinks_of
from minigan.specs.values import spread

PASSED, FAILED, MISUSED, STOPPED = 0, 1, 2, 130  # exit codes
ABOUT = """Compare the gradients of every operation, layer and loss of minigan with finite
differences, or those of a function of yours. Exit code 0: all agree; 1: some do not; 2: the
question makes no sense."""
WHERE = """A function of yours takes tensors and returns one. It finds its inputs by --shape, once
for each, or brings them itself as `function.inputs`: a list of float64 arrays, or a function that
returns one."""
AT_KINKS = 10  # one case in so many may be at a kink, and is then left out


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
        at_kink: how many of the cases were left without a verdict, since too many were rejected.
    """

    op: str
    order: int
    examples: int = 0
    worst: float = 0.0
    rejected: int = 0
    seconds: float = 0.0
    failure: str = ""
    at_kink: int = 0

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
    parser.add_argument(
        "--directions", type=int, default=0, help="other cotangents and directions, by a seed (0)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--shape", action="append", help="of an input of the function: 3x4, 5, ()")
    parser.add_argument(
        "--float64", action="store_true", help="turn the function's own inputs into float64"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    if options.examples < 1 or options.order < 1 or min(options.seed, options.directions) < 0:
        parser.error(
            "--examples and --order must be at least 1, --seed at least 0, --directions too"
        )
    if options.order > 3 and not options.function:
        parser.error("--order: the registry is checked up to 3; your own function to any order")
    if options.op and options.function:
        parser.error("give either --op or a function")
    if options.shape and not options.function:
        parser.error("--shape is for a function of yours: module:function --shape 3x4")
    if options.float64 and not options.function:
        parser.error("--float64 is for a function of yours: module:function --float64")
    if options.directions and options.function:
        parser.error("--directions is for the registry: a function of yours has --seed for all")
    if options.function and options.device != "cpu":
        parser.error(
            "a function of yours is checked on the device that it uses: leave --device out"
        )
    for name in options.op or []:
        if name not in REGISTRY:
            parser.error(f"--op {name}: no such entry{close_to(name, REGISTRY)}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parse(arguments)
    if sys.stdout is None:
        print("gradcheck: the output is closed, so nobody would see the answer", file=sys.stderr)
        return MISUSED
    before = backends._settings.device
    try:
        backends.use(options.device)
        rows = function_rows(options) if options.function else registry_rows(options)
        with until_nobody_reads() as reading:
            reading.code = report(rows, options.json)
        return reading.code
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
    for row in rows:
        if not (done or as_json):
            print(HEADER, flush=True)
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
    at_kink = sum(r.at_kink for r in done)
    if at_kink:
        checked += f", {at_kink} of them at a kink and without a verdict"
    if wrong:
        return f"{checked}: {len(wrong)} wrong: {', '.join(wrong)}"
    worst = max(row.worst for row in done)
    return f"{checked}: all gradients agree; the largest error is {worst:.1e} of the bound"


def registry_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Check entry after entry."""
    for spec in REGISTRY.values():
        if not options.op or spec.name in options.op:
            yield registry_row(spec, options)


def registry_row(spec: Spec, options: argparse.Namespace) -> Row:
    """Check one entry, until something is wrong.

    A case at a kink is no failure; too many of them are, of the entry's numbers.
    """
    row, start = Row(spec.name, options.order), time.perf_counter()
    for number in range(options.seed, options.seed + options.examples):
        row.examples += 1
        try:
            result = check(spec.example(number), options.order, options.directions)
        except Failed as error:
            if error.at_kink:
                row.at_kink += 1
                row.rejected += SPARE + 1
            if not error.at_kink or row.at_kink > options.examples // AT_KINKS:
                row.failure = str(error)
                break
            continue
        row.worst = max(row.worst, result.worst)
        row.rejected += result.rejected
    row.failure = row.failure or failure_at_kinks(spec, options)
    row.seconds = time.perf_counter() - start
    return row


def failure_at_kinks(spec: Spec, options: argparse.Namespace) -> str:
    """Return what is wrong with the slopes that its ops choose at kinks, if anything."""
    for op in sorted(ops.__name__ for ops in ops_of(spec.example(options.seed))):
        for kink in kinks_of(op):
            try:
                check_kink(kink)
            except AssertionError as error:
                again = f"python -m minigan.gradcheck --op {spec.name} --seed {options.seed}"
                return f"{spec.name}, at a kink: {error}\n  to run it again: {again} --examples 1"
    return ""


# A function of somebody's own


def function_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Check a function at as many points as there shall be examples."""
    function = find(options.function)
    row, start = Row(options.function, options.order), time.perf_counter()
    for seed in range(options.seed, options.seed + options.examples):
        row.examples += 1
        inputs = inputs_of(function, options, seed)
        try:
            if isinstance(inputs, list) and inputs and not any(map(np.size, inputs)):
                raise ValueError("gradcheck: the inputs have no elements, so nothing was compared")
            row.worst = max(row.worst, gradcheck(function, inputs, options.order, seed))
        except GradcheckError as error:
            row.failure = f"{error}\n  to run it again: {command_for(options, seed)}"
            break
        except (Exception, SystemExit) as error:
            raise Misuse(f"{options.function} cannot be checked: {in_words(error)}") from error
    row.seconds = time.perf_counter() - start
    yield row


def command_for(options: argparse.Namespace, seed: int) -> str:
    """Return the command that checks a function of somebody's own at one point."""
    words = ["python", "-m", "minigan.gradcheck", options.function]
    words += [word for shape in options.shape or [] for word in ("--shape", shape)]
    words += ["--float64"] if options.float64 else []
    words += ["--order", str(options.order), "--seed", str(seed), "--examples", "1"]
    return shlex.join(words)


def in_words(error: BaseException) -> str:
    """Return what is wrong with a question; of an error that is not ours, with its place."""
    text = str(error)
    if text.startswith("gradcheck") and "need float64" in text:
        text += "; or let --float64 turn the inputs into float64"
    if text.startswith("gradcheck"):
        return text
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{place.filename}, line {place.lineno}, in {place.name}"
    return f"it raised {type(error).__name__}: {text}\n  in {where}"


def find(path: str) -> Callable:
    """Return the function called module:function."""
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise Misuse(f"{path!r} is no function: write module:function")
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise Misuse(f"{module} cannot be imported: {kind}{error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise Misuse(f"{module} has no {name}")
        found = getattr(found, part)
    if not callable(found):
        raise Misuse(f"{path} is a {type(found).__name__}, no function")
    return found


def inputs_of(function: Callable, options: argparse.Namespace, seed: int) -> Any:
    """Return inputs of the given shapes, or those that the function brings, as it brings them."""
    if options.shape:
        rng = np.random.default_rng(seed)
        return [numbers_of_shape(rng, text) for text in options.shape]
    name = getattr(function, "__name__", options.function)
    given = getattr(function, "inputs", None)
    if given is None:
        raise Misuse(
            f"{name}: no inputs: give --shape 3x4 for each, or set {name}.inputs to a list of "
            "float64 arrays"
        )
    try:
        given = given() if callable(given) else given
        return [np.asarray(a, dtype=np.float64) for a in given] if options.float64 else given
    except (Exception, SystemExit) as error:
        raise Misuse(f"{name}.inputs cannot be had: {in_words(error)}") from error


def numbers_of_shape(rng: np.random.Generator, text: str) -> np.ndarray:
    """Return an input, if NumPy and the memory have room for it."""
    shape = shape_from(text)
    try:
        return np.asarray(spread(rng, shape))
    except (ValueError, OverflowError, MemoryError) as error:
        raise Misuse(f"--shape {text}: no such array can be made: {error}") from error


def shape_from(text: str) -> tuple[int, ...]:
    """Return "3x4" as (3, 4), and "()" as ()."""
    words = [] if text == "()" else text.split("x")
    if not all(word.isascii() and word.isdigit() and len(word) < 20 for word in words):
        raise Misuse(f"--shape {text}: write sizes with an x between them: 3x4")
    return tuple(map(int, words))
