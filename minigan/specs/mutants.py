"""The power of the checks, proven: wrong backward rules, every one of which they must notice.

    python -m minigan.specs.mutants [--op Conv2d] [--json]

Each mutant is one op's backward rule (or the engine that runs the rules) with one thing wrong in
it. It meets a few cases of the specifications in which that op takes part, until a part of the
check fails: it is caught. A mutant that gives other gradients than the right rule, and is not
caught, has survived: a hole in the checks; unless it stands in `EQUIVALENT`, with the reason why
what it gives is as right. One that never gave anything else in any case was never tried, and is not
counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from itertools import chain

import numpy as np

from minigan.autograd import Op, _ancestors, grad
from minigan.gradcheck import Unmeasurable
from minigan.gradcheck.differences import BackwardError, bounded
from minigan.specs import PARTS, REGISTRY, Case, ops_of
from minigan.specs.console import close_to, until_nobody_reads
from minigan.specs.kinks import check_kink, kinks_of
from minigan.specs.mutants_base import ENGINE, Mutant, Watch, every_op, patched
from minigan.specs.mutants_engine import engine_mutants
from minigan.specs.mutants_generic import generic_mutants
from minigan.specs.mutants_kinks import kink_mutants
from minigan.specs.mutants_ops import specific_mutants
from minigan.specs.properties import backward, cotangent_for, run
from minigan.specs.values import lay_out
from minigan.tensor import Tensor

SMALL = ("op", "function")  # kinds of specifications
EXAMPLES = 20  # of each specification
CASES = 40  # that an op's mutants may meet
TOUCHED = 24  # cases in which a mutant shows before it counts as a survivor

# What is wrong with a mutant that is not wrong: (op, mutant) -> why it gives the same derivative.
MASK_ONLY = (
    "backward reads only the sign of the saved output, as a mask; wherever the function has a "
    "derivative that mask has none, so that its history is read by nothing"
)
EQUIVALENT: dict[tuple[str, str], str] = {
    (op, f"{route}: saved array 0: detached"): MASK_ONLY
    for op in ("LeakyRelu", "Relu")
    for route in ("backward", "both routes")
}

# The parts of the check that mutants meet: the quick ones first.
ORDER = (
    "gradient",
    "zero",
    "linear",
    "repeat",
    "ownership",
    "accumulation",
    "fused_agrees",
    "each_alone",
    "layouts",
    "used_twice",
    "float32",
    "pieces",
    "second_order",
    "stale",
)
ENGINE_SAYS = "the engine's own check of what backward returns"
KINK = "the slope chosen at a kink"
WRITTEN = "writing to a read-only array"
ERROR = "another error"


@dataclass(frozen=True)
class Outcome:
    """What became of one mutant.

    Attributes:
        target: the op's class, or "engine".
        mutant: what was wrong.
        verdict: "caught", "equivalent", "survived", or "idle": it never changed anything.
        by: the part of the check that caught it.
        case: the case in which it was caught, or last showed.
    """

    target: str
    mutant: str
    verdict: str
    by: str = ""
    case: str = ""


@dataclass(frozen=True)
class Report:
    """What became of all of them, and the seconds it took."""

    outcomes: tuple[Outcome, ...]
    seconds: float

    def of(self, verdict: str) -> list[Outcome]:
        """Return the outcomes with that verdict."""
        return [outcome for outcome in self.outcomes if outcome.verdict == verdict]

    @property
    def tried(self) -> int:
        """How many mutants changed something."""
        return sum(outcome.verdict != "idle" for outcome in self.outcomes)

    def by_part(self) -> dict[str, int]:
        """Return how many mutants each part of the check caught first, most first."""
        return dict(Counter(outcome.by for outcome in self.of("caught")).most_common())


# Cases


@dataclass(frozen=True)
class Sample:
    """A case, the names of the ops it computes with, and of those in its derivatives too."""

    case: Case
    forward: frozenset[str]
    everywhere: frozenset[str]

    def simplicity(self) -> tuple[bool, int, int, str]:
        """A key to sort by: few ops first, but not all examples of one specification at once."""
        small = REGISTRY[self.case.name].kind in SMALL
        return not small, self.case.example // 2, len(self.everywhere), self.case.name


@cache
def survey(examples: int = EXAMPLES) -> tuple[Sample, ...]:
    """Return cases of all specifications but the empty ones: those of the fewest ops first.

    Of layers, losses and networks there is one each: their ops are those of the functions.
    """
    samples = []
    for spec in REGISTRY.values():
        for number in range(examples if spec.kind in SMALL else 1):
            case = spec.example(number)
            if all(a.size for a in case.inputs):
                everywhere = frozenset(op.__name__ for op in ops_of(case))
                samples.append(Sample(case, forward_ops(case), everywhere))
    return tuple(sorted(samples, key=Sample.simplicity))


def forward_ops(case: Case) -> frozenset[str]:
    """Return the names of the ops that a case computes with."""
    op = run(case, case.inputs)[1]._op
    return frozenset(type(found).__name__ for found in _ancestors([op]))


def cases_for(target: str) -> list[Case]:
    """Return the cases that the mutants of an op, or of the engine, meet, in this order.

    First those that compute with the op, then those in whose derivatives alone it stands.
    """
    takes_part = [s for s in survey() if target in s.everywhere or target == ENGINE]
    computed = [s for s in takes_part if target in s.forward]
    derived = [s for s in takes_part if target not in s.forward]
    return [s.case for s in computed + derived][: None if target == ENGINE else CASES]


@cache
def saved_by(cls: type[Op]) -> int:
    """Return how many arrays an op saves."""
    counts = [0]
    right = Op.save

    def save(op: Op, *positions: int) -> None:
        if type(op) is cls:
            counts.append(len(positions))
        right(op, *positions)

    with patched(Op, "save", save):
        for case in cases_for(cls.__name__)[:4]:
            ops_of(case)
    return max(counts)


# Mutants


def targets() -> list[str]:
    """Return the names of all ops, and the engine."""
    return [ENGINE, *(op.__name__ for op in every_op())]


def mutants_of(target: str) -> Iterator[Mutant]:
    """Yield all mutants of an op, or of the engine."""
    if target == ENGINE:
        return engine_mutants()
    (cls,) = (op for op in every_op() if op.__name__ == target)
    return chain(generic_mutants(cls, saved_by(cls)), specific_mutants(cls), kink_mutants(cls))


def try_mutant(mutant: Mutant, cases: Iterable[Case]) -> Outcome:
    """Let a mutant meet cases until it is caught."""
    if mutant.at_kink:
        return try_at_kinks(mutant)
    shown: list[Case] = []
    for case in cases:
        if len(shown) == TOUCHED:
            break
        by = caught_by(mutant, case, ORDER[0])
        if by:
            return Outcome(mutant.target, mutant.name, "caught", by, repr(case))
        if not shows(mutant, case):
            by = caught_by(mutant, case, "pieces")  # where a sum over pieces has more than one
            if by:
                return Outcome(mutant.target, mutant.name, "caught", by, repr(case))
            continue
        shown.append(case)
        for part in ORDER[1:]:
            by = caught_by(mutant, case, part)
            if by:
                return Outcome(mutant.target, mutant.name, "caught", by, repr(case))
    if not shown:
        return Outcome(mutant.target, mutant.name, "idle")
    listed = (mutant.target, mutant.name) in EQUIVALENT
    verdict = "equivalent" if listed else "survived"
    return Outcome(mutant.target, mutant.name, verdict, "", repr(shown[-1]))


def try_at_kinks(mutant: Mutant) -> Outcome:
    """Let a mutant meet the points where its op has no slope, and chooses one."""
    for kink in kinks_of(mutant.target):
        check_kink(kink)
        try:
            with mutant.applied(Watch()), np.errstate(all="ignore"):
                check_kink(kink)
        except AssertionError:
            return Outcome(mutant.target, mutant.name, "caught", KINK, str(kink.inputs))
    return Outcome(mutant.target, mutant.name, "survived")


def shows(mutant: Mutant, case: Case) -> bool:
    """Return whether the mutant does anything else than the right rule in a case."""
    watch = Watch()
    with mutant.applied(watch), np.errstate(all="ignore"):
        try:
            exercise(case)
        except Exception:
            watch.touched = True
    return watch.touched


def exercise(case: Case) -> None:
    """Run backward in the ways that the check does, and compare nothing.

    In both widths, on other numbers, strided, for each input alone, recorded, and too late.
    """
    for dtype in (np.float64, np.float32):
        for change in (np.array, np.flip, lambda a: lay_out(a, "transposed")):
            leaves, y = run(case, [change(a.astype(dtype)) for a in case.inputs], dtype)
            v = cotangent_for(case, y)
            backward(y, leaves, v)
            backward(y, leaves, lay_out(v, "transposed"))
    for _ in "ab":
        y.backward(Tensor(v, dtype=np.float32), retain_graph=True)
    for alone in range(len(case.inputs) if len(case.inputs) > 1 else 0):
        leaves = [Tensor(a, dtype=np.float64) for a in case.inputs]
        leaves[alone].requires_grad_()
        backward(case.call(*leaves), leaves, v.astype(np.float64))
    exercise_recorded(case)
    leaves, y = run(case, [np.array(a) for a in case.inputs])
    for leaf in leaves:
        leaf.bump_version()  # as an optimiser does
    with suppress(RuntimeError):
        backward(y, leaves, cotangent_for(case, y))


def exercise_recorded(case: Case) -> None:
    """Differentiate the gradients of a case, twice over and at two points.

    No op of ours comes in between, since it might be the one that is spoiled.
    """
    rng = np.random.default_rng(case.seed)
    for change in (np.array, np.flip):
        leaves, y = run(case, [change(a) for a in case.inputs])
        if not y.requires_grad:
            return
        v = Tensor(cotangent_for(case, y), requires_grad=True, dtype=np.float64)
        first = grad(y, leaves, v, create_graph=True, allow_unused=True)
        first = [g for g in first if g is not None and g.requires_grad]
        if first:
            grad(first, [*leaves, v], [bounded(rng, g.shape) for g in first], allow_unused=True)


def caught_by(mutant: Mutant, case: Case, part: str) -> str:
    """Return what a part of the check says of a mutant: "" if it sees nothing wrong.

    Differences that disagree, or drown, are no verdict; nor is a part that fails without the mutant
    too.
    """
    try:
        with mutant.applied(Watch()), np.errstate(all="ignore"):
            run_part(case, part)
    except Unmeasurable:
        return ""
    except Exception as error:
        passes_without_mutant(case.name, case.example, part)
        if "backward gave" in str(error):
            return ENGINE_SAYS
        if "read-only" in str(error):
            return WRITTEN
        wrong = isinstance(error, AssertionError) and not isinstance(error, BackwardError)
        return part if wrong else ERROR
    return ""


def run_part(case: Case, part: str) -> None:
    """Run one part of the check, and look for no place if it fails."""
    if part in ("gradient", "second_order"):
        PARTS[part](case, False)
    else:
        PARTS[part](case)


@cache
def passes_without_mutant(name: str, example: int, part: str) -> None:
    """Assert that the right rules pass; remembered, since many mutants are caught by one case."""
    run_part(REGISTRY[name].example(example), part)


def run_mutants(only: Sequence[str] | None = None) -> Report:
    """Try all mutants.

    Args:
        only: names of op classes, or "engine".

    Raises:
        ValueError: a name that no op has.
    """
    start = time.perf_counter()
    unknown = set(only or ()) - set(targets())
    if unknown:
        raise ValueError(f"mutants: no op is called {', '.join(sorted(unknown))}: {targets()}")
    outcomes = [
        try_mutant(mutant, cases_for(target))
        for target in only or targets()
        for mutant in mutants_of(target)
    ]
    return Report(tuple(outcomes), time.perf_counter() - start)


def describe(report: Report) -> str:
    """Return a report as text."""
    lines = [f"{'op':16}{'tried':>7}{'caught':>8}{'equivalent':>12}{'survived':>10}"]
    for target in dict.fromkeys(outcome.target for outcome in report.outcomes):
        counts = Counter(o.verdict for o in report.outcomes if o.target == target)
        tried = counts.total() - counts["idle"]
        rest = f"{counts['caught']:>8}{counts['equivalent']:>12}{counts['survived']:>10}"
        lines.append(f"{target:16}{tried:>7}{rest}")
    lines += ["", "caught by"]
    lines += [f"  {count:>6}  {part}" for part, count in report.by_part().items()]
    for outcome in report.of("equivalent"):
        reason = EQUIVALENT[outcome.target, outcome.mutant]
        lines.append(f"\nequivalent: {outcome.target}, {outcome.mutant}\n  {reason}")
    for outcome in report.of("survived"):
        lines.append(f"\nSURVIVED: {outcome.target}, {outcome.mutant}\n  {outcome.case}")
    counts = [len(report.of(v)) for v in ("caught", "equivalent", "survived", "idle")]
    lines.append(
        "\n{} mutants tried in {:.0f} s: {} caught, {} equivalent, {} survived\n"
        "({} more are not counted: they never gave anything else than the right rule)".format(
            report.tried, report.seconds, *counts
        )
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 1 if a mutant survived."""
    parser = argparse.ArgumentParser(
        prog="python -m minigan.specs.mutants",
        description="Try wrong backward rules; all of them must be caught.",
    )
    parser.add_argument("--op", action="append", help="an op's class, such as Conv2d, or engine")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    options = parser.parse_args(arguments)
    for name in options.op or []:
        if name not in targets():
            parser.error(f"--op {name}: no op is called so{close_to(name, targets())}")
    with until_nobody_reads() as reading:
        report = run_mutants(options.op)
        print(json.dumps(asdict(report), indent=1) if options.json else describe(report))
        reading.code = 1 if report.of("survived") else 0
    return reading.code


if __name__ == "__main__":
    sys.exit(main())
