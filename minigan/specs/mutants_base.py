"""How a backward rule is made wrong in process, and put right again.

A rule is spoiled from outside: the real one runs, and what goes into it (the incoming gradient,
the saved arrays, an attribute of the op, a helper it calls) or comes out of it is changed. No
source is edited, and the class is as before when the context ends. A watch notes whether the wrong
rule ever gave anything else than the right one: a mutant that never did was never tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigan import ops
from minigan.autograd import Op
from minigan.ops.shape import sum_to
from minigan.tensor import Tensor, is_recording, switched

assert ops  # importing it defines every op

BACKWARD, FUSED, BOTH = "backward", "fused_backward", "both routes"
ENGINE = "engine"


@dataclass
class Watch:
    """Whether a mutant has changed anything yet, and what it remembers from call to call."""

    touched: bool = False
    memory: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mutant:
    """One wrong rule.

    Attributes:
        target: the name of the op's class, or "engine".
        name: what is wrong; the same words for the same mistake in every op.
        applied: a context in which the rule is wrong; tells the watch when that shows.
        at_kink: whether it is wrong only where there is no slope, and another is chosen.
    """

    target: str
    name: str
    applied: Callable[[Watch], Any]
    at_kink: bool = False

    def __str__(self) -> str:
        return f"{self.target}, {self.name}"


class Call:
    """One run of a backward rule: the op, the incoming gradient, and the right rule.

    Args:
        rule: (op, gy) -> gradients, the unchanged rule, on tensors.
    """

    def __init__(self, op: Op, gy: Tensor, rule: Callable[[Op, Tensor], Any], watch: Watch) -> None:
        self.op, self.gy, self.rule, self.watch = op, gy, rule, watch

    def run(self, gy: Tensor | None = None, **attributes: Any) -> list[Any]:
        """Return what the right rule gives for another gradient, or with other attributes."""
        with ExitStack() as stack:
            for name, value in attributes.items():
                stack.enter_context(patched(self.op, name, value))
            return as_list(self.rule(self.op, self.gy if gy is None else gy))

    def run_with_saved(self, change: Callable[[list[Tensor]], Sequence[Tensor]]) -> list[Any]:
        """Return what the right rule gives when `saved()` gives something else."""
        saved = list(self.op.saved())
        return self.run(saved=lambda: tuple(change(saved)))

    def run_with_helper(self, module: Any, name: str, value: Any) -> list[Any]:
        """Return what the right rule gives when a function that it calls is another."""
        with patched(module, name, value):
            return self.run()


Rule = Callable[[Call], Sequence[Any]]


def forgetful(rule: Rule) -> Rule:
    """Return a rule that drops history and no number: noted as wrong wherever it is recorded."""

    def noted(call: Call) -> Sequence[Any]:
        with_history = any(t.requires_grad for t in (call.gy, *call.op.saved()))
        call.watch.touched |= is_recording() and with_history
        return rule(call)

    return noted


def as_list(gradients: Any) -> list[Any]:
    """Return what a rule gave as a list, one entry for each input."""
    return list(gradients) if isinstance(gradients, (tuple, list)) else [gradients]


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within the context `owner.name` is `value`; then it is again what, and where, it was."""
    missing = object()
    before = vars(owner).get(name, missing)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def spoiled(cls: type[Op], route: str, rule: Rule) -> Callable[[Watch], Any]:
    """Return `Mutant.applied` for a rule in one route of an op, or in both."""

    @contextmanager
    def applied(watch: Watch) -> Iterator[None]:
        with ExitStack() as stack:
            if route != FUSED:
                stack.enter_context(patched(cls, BACKWARD, _wrong_backward(cls, rule, watch)))
            if route != BACKWARD:
                stack.enter_context(patched(cls, FUSED, _wrong_fused(cls, rule, watch)))
            yield

    return applied


def _wrong_backward(cls: type[Op], rule: Rule, watch: Watch) -> Callable[[Op, Tensor], Any]:
    right = cls.backward

    def backward(op: Op, gy: Tensor) -> tuple:
        if type(op) is not cls:  # a subclass that inherits the rule is another op
            return right(op, gy)
        return tuple(_watched(Call(op, gy, right, watch), rule))

    return backward


def _wrong_fused(cls: type[Op], rule: Rule, watch: Watch) -> Callable[[Op, Any], Any]:
    right = cls.fused_backward

    def on_tensors(op: Op, gy: Tensor) -> list[Any]:
        arrays = as_list(right(op, gy.data))
        return [None if a is None else Tensor._wrap(a, op.backend) for a in arrays]

    def fused_backward(op: Op, gy: Any) -> tuple:
        if type(op) is not cls:
            return right(op, gy)
        with switched("recording", False):
            call = Call(op, Tensor._wrap(gy, op.backend), on_tensors, watch)
            found = _watched(call, lambda call: [_as_tensor(g, op) for g in rule(call)])
        return tuple(None if g is None else g.data for g in found)

    return fused_backward


def _as_tensor(gradient: Any, op: Op) -> Tensor | None:
    plain = gradient is None or isinstance(gradient, Tensor)
    return gradient if plain else Tensor._wrap(gradient, op.backend)


def _watched(call: Call, rule: Rule) -> Sequence[Any]:
    """Run the rule, and note whether it gave, or did, anything else than the right one."""
    before = call.gy.data.copy()
    right = call.run()
    try:
        found = rule(call)
    except Exception:
        call.watch.touched = True
        raise
    if differ(right, found) or not np.array_equal(before, call.gy.data):
        call.watch.touched = True
    return found


def differ(right: Sequence[Any], found: Sequence[Any]) -> bool:
    """Return whether two answers differ: in number, kind, values to the bit, or history."""
    return len(right) != len(found) or any(_differ(a, b) for a, b in zip(right, found, strict=True))


def _differ(a: Any, b: Any) -> bool:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return a is not b
    return (
        a.shape != b.shape
        or a.dtype != b.dtype
        or a.requires_grad != b.requires_grad
        or not np.array_equal(a.data, b.data, equal_nan=True)
    )


def every_op(cls: type[Op] = Op) -> list[type[Op]]:
    """Return every op of the engine that can be run, by name."""
    found = set()
    for sub in cls.__subclasses__():
        found.update(every_op(sub))
        if sub.__module__.startswith("minigan.ops.") and sub.forward is not Op.forward:
            found.add(sub)
    return sorted(found, key=lambda op: op.__name__)


def routes(cls: type[Op]) -> tuple[str, ...]:
    """Return the rules that an op has: each is spoiled alone, and where there are two, both."""
    return (BACKWARD, FUSED, BOTH) if hasattr(cls, FUSED) else (BACKWARD,)


# How a rule is spoiled


def attribute(**changes: Callable[[Op], Any]) -> Rule:
    """Return the rule that sees other attributes of its op."""
    return lambda call: call.run(**{name: make(call.op) for name, make in changes.items()})


def helper(module: Any, name: str, value: Any) -> Rule:
    """Return the rule that calls another function in place of `module.name`."""
    return lambda call: call.run_with_helper(module, name, value)


def formula(i: int, wrong: Callable[..., Tensor]) -> Rule:
    """Return the rule whose gradient of input i is `wrong(gy, *saved)`, summed to its shape."""

    def rule(call: Call) -> list[Any]:
        gradients = call.run()
        if gradients[i] is not None:
            found = wrong(call.gy, *call.op.saved())
            gradients[i] = sum_to(found, call.op.shapes[i])
        return gradients

    return rule
