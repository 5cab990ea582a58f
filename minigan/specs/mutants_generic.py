"""The mistakes that can be made in every op: in a gradient, the incoming one, or a saved array.

They are written with tensors, so that a wrong gradient still has its history, and is not also
wrong at second order for that reason alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minigan.autograd import Op
from minigan.ops import arithmetic, reduction
from minigan.ops.linalg import swap_last
from minigan.ops.shape import flip, getitem, reshape
from minigan.specs.mutants_base import FUSED, Call, Mutant, Rule, routes, spoiled
from minigan.tensor import Tensor, is_recording

Change = Callable[[Tensor], Any]

# What is done to a tensor


def times(factor: float) -> Change:
    """Return x ↦ factor · x."""
    return lambda x: x * factor


def element_zeroed(position: int) -> Change:
    """Return x ↦ x with one element, counted in row-major order, set to zero."""

    def change(x: Tensor) -> Tensor:
        if not x.size:
            return x
        mask = np.ones(x.size, dtype=x.dtype)
        mask[position] = 0
        return x * mask.reshape(x.shape)

    return change


def reversed_along(axis: int) -> Change:
    """Return x ↦ x in reversed order along an axis."""
    return lambda x: flip(x, axis) if x.ndim else x


def off_by_one(axis: int) -> Change:
    """Return x ↦ x shifted by one along an axis, the last entry to the front."""

    def change(x: Tensor) -> Tensor:
        if not x.ndim or x.shape[axis] < 2:
            return x
        order = np.roll(np.arange(x.shape[axis]), 1)
        return getitem(x, (order,) if axis == 0 else (Ellipsis, order))

    return change


def transposed(x: Tensor) -> Tensor:
    """Return x with its last two axes exchanged, where they are of one size."""
    return swap_last(x) if x.ndim > 1 and x.shape[-1] == x.shape[-2] else x


def averaged(x: Tensor) -> Tensor:
    """Return the mean of x along its first axis, in x's shape."""
    return reduction.mean(x, 0, keepdims=True) + x * 0.0 if x.ndim and x.size else x


def to_other_width(x: Tensor) -> Tensor:
    """Return x as float32 if it is float64, else as float64."""
    return arithmetic.cast(x, np.float32 if x.dtype == np.float64 else np.float64)


def rounded(x: Tensor) -> Tensor:
    """Return x rounded to float32, in its own type."""
    return arithmetic.cast(arithmetic.cast(x, np.float32), x.dtype)


def one_nan(x: Tensor) -> Tensor:
    """Return x with a NaN in its last element."""
    if not x.size:
        return x
    bad = np.zeros(x.size, dtype=x.dtype)
    bad[-1] = np.nan
    return x + bad.reshape(x.shape)


def read_as_it_lies(x: Tensor) -> Tensor:
    """Return the numbers of x in the order they have in memory, as if that were row-major."""
    lies = x.data.ravel(order="K").reshape(x.shape)
    return x if np.array_equal(lies, x.data, equal_nan=True) else Tensor(lies, dtype=x.dtype)


def all_axes_flat(x: Tensor) -> Tensor:
    """Return x in one dimension."""
    return reshape(x, (x.size,))


WRONG_GRADIENTS: dict[str, Change] = {
    "sign": lambda g: -g,
    "a millionth too large": times(1 + 1e-6),
    "a millionth too small": times(1 - 1e-6),
    "doubled": times(2.0),
    "halved": times(0.5),
    "zero": times(0.0),
    "first element zero": element_zeroed(0),
    "last element zero": element_zeroed(-1),
    "a thousandth added": lambda g: g + 1e-3,
    "without its sign": arithmetic.abs,
    "cut off at 1": lambda g: arithmetic.clip(g, -1.0, 1.0),
    "reversed along the first axis": reversed_along(0),
    "reversed along the last axis": reversed_along(-1),
    "off by one along the first axis": off_by_one(0),
    "off by one along the last axis": off_by_one(-1),
    "transposed": transposed,
    "mean over the first axis": averaged,
    "rounded to float32": rounded,
    "of the other float width": to_other_width,
    "one axis too many": lambda g: reshape(g, (1, *g.shape)),
    "flat": all_axes_flat,
    "missing": lambda g: None,
    "an array and no tensor": lambda g: g.data,
    "a NaN in one element": one_nan,
    "detached": lambda g: g.detach(),
    "read as it lies in memory": read_as_it_lies,
}

WRONG_COTANGENTS: dict[str, Change] = {
    "ones in its place": lambda gy: gy * 0.0 + 1.0,
    "a millionth too large": times(1 + 1e-6),
    "without its sign": arithmetic.abs,
    "squared": lambda gy: gy * gy,
    "first element zero": element_zeroed(0),
    "last element zero": element_zeroed(-1),
    "reversed along the first axis": reversed_along(0),
    "off by one along the last axis": off_by_one(-1),
    "transposed": transposed,
    "mean over the first axis": averaged,
    "rounded to float32": rounded,
    "detached": lambda gy: gy.detach(),
    "read as it lies in memory": read_as_it_lies,
}

WRONG_SAVED: dict[str, Change] = {
    "a millionth too large": times(1 + 1e-6),
    "sign": lambda x: -x,
    "off by one along the last axis": off_by_one(-1),
    "reversed along the first axis": reversed_along(0),
    "rounded to float32": rounded,
    "detached": lambda x: x.detach(),
    "read as it lies in memory": read_as_it_lies,
}

# Where it is done


def on_gradient(i: int, change: Change) -> Rule:
    """Return the rule whose gradient of input i is changed."""

    def rule(call: Call) -> list[Any]:
        gradients = call.run()
        if i < len(gradients) and isinstance(gradients[i], Tensor):
            gradients[i] = change(gradients[i])
        return gradients

    return rule


def on_cotangent(change: Change) -> Rule:
    """Return the rule that gets another incoming gradient."""

    def rule(call: Call) -> list[Any]:
        changed = change(call.gy)
        call.watch.touched |= loses_history(call.gy, changed)
        return call.run(changed)

    return rule


def on_saved(i: int, change: Change) -> Rule:
    """Return the rule that reads something else than the i-th saved array."""

    def rule(call: Call) -> list[Any]:
        saved = list(call.op.saved())
        right, saved[i] = saved[i], change(saved[i])
        call.watch.touched |= loses_history(right, saved[i])
        return call.run_with_saved(lambda _: saved)

    return rule


def loses_history(right: Tensor, changed: Tensor) -> bool:
    """Return whether a change is one that only a second derivative can see."""
    return is_recording() and right.requires_grad and not changed.requires_grad


# What needs more than one tensor, or more than one call


def each(gradients: list[Any], change: Change) -> list[Any]:
    """Return the gradients changed, where there is one."""
    return [None if g is None else change(g) for g in gradients]


def swapped(call: Call) -> list[Any]:
    """The gradients of the first two inputs exchanged, if they have one shape."""
    gradients = call.run()
    first, second, *rest = gradients
    if call.op.shapes[0] != call.op.shapes[1] or first is None or second is None:
        return gradients
    return [second, first, *rest]


def saved_swapped(call: Call) -> list[Any]:
    """The saved arrays taken in the wrong order, if they have one shape."""

    def change(saved: list[Tensor]) -> list[Tensor]:
        alike = len({t.shape for t in saved}) == 1
        return saved[::-1] if alike else saved

    return call.run_with_saved(change)


def one_too_few(call: Call) -> list[Any]:
    """One gradient left out."""
    return call.run()[:-1]


def one_too_many(call: Call) -> list[Any]:
    """One gradient more than there are inputs."""
    return [*call.run(), call.gy]


def wrong_when_alone(call: Call) -> list[Any]:
    """Zero when only one input wants a gradient."""
    gradients = call.run()
    alone = sum(call.op.needs) == 1
    return each(gradients, lambda g: g * 0.0) if alone else gradients


def cotangent_changed(call: Call) -> list[Any]:
    """The incoming gradient doubled in place after it was used."""
    gradients = each(call.run(), lambda g: g + 0.0)
    call.watch.touched |= bool(call.gy.data.any())
    call.gy.data[...] = call.gy.data * 2
    return gradients


def saved_changed(call: Call) -> list[Any]:
    """The saved arrays changed in place after they were used."""
    gradients = each(call.run(), lambda g: g + 0.0)
    for kept in call.op.saved():
        call.watch.touched |= kept.size > 0
        kept.data[...] = kept.data + 1
    return gradients


def stale_cotangent(call: Call) -> list[Any]:
    """The incoming gradient of the call before, when it has the same shape."""
    return call.run(_previous(call, "gy", call.gy))


def stale_saved(call: Call) -> list[Any]:
    """The saved arrays of the call before, where they have the same shape."""
    return call.run_with_saved(
        lambda saved: [_previous(call, ("saved", i), t) for i, t in enumerate(saved)]
    )


def _previous(call: Call, what: Any, now: Tensor) -> Tensor:
    """Remember a tensor; return the one remembered before, if there is one like it."""
    key = (what, now.shape, now.dtype)
    before = call.watch.memory.get(key, now)
    call.watch.memory[key] = Tensor(now.data.copy(), dtype=now.dtype)
    return before


def added_up(call: Call) -> list[Any]:
    """The gradients of the call before added, where they have the same shape."""
    gradients = call.run()
    for i, g in enumerate(gradients):
        if g is not None:
            before = _previous(call, ("gradient", i), g)
            gradients[i] = g if before is g else g + before
    return gradients


def never_the_same(call: Call) -> list[Any]:
    """Off in the last digits, and by more from call to call."""
    count = call.watch.memory["calls"] = call.watch.memory.get("calls", 0) + 1
    factor = 1 + 4 * float(np.finfo(call.gy.dtype).eps) * count
    return each(call.run(), lambda g: g * factor)


WRONG_CALLS: dict[str, Rule] = {
    "one gradient too few": one_too_few,
    "one gradient too many": one_too_many,
    "incoming gradient changed in place": cotangent_changed,
    "incoming gradient of the call before": stale_cotangent,
    "gradients of the call before added": added_up,
    "never the same twice": never_the_same,
}
WRONG_CALLS_OF_SEVERAL: dict[str, Rule] = {
    "gradients of the first two inputs swapped": swapped,
    "zero when one input alone wants it": wrong_when_alone,
}
WRONG_CALLS_WITH_SAVED: dict[str, Rule] = {
    "saved arrays of the call before": stale_saved,
    "saved arrays changed in place": saved_changed,
}


def arity(cls: type[Op]) -> int:
    """Return how many inputs an op has; 2 if any number."""
    parameters = list(inspect.signature(cls.forward).parameters.values())[1:]
    return 2 if parameters[0].kind is parameters[0].VAR_POSITIONAL else len(parameters)


def rules(inputs: int, saved: int) -> Iterator[tuple[str, Rule]]:
    """Yield every mistake, named, for an op of so many inputs that saves so many arrays."""
    for i in range(inputs):
        for name, change in WRONG_GRADIENTS.items():
            yield f"gradient of input {i}: {name}", on_gradient(i, change)
    for name, change in WRONG_COTANGENTS.items():
        yield f"incoming gradient: {name}", on_cotangent(change)
    for i in range(saved):
        for name, change in WRONG_SAVED.items():
            yield f"saved array {i}: {name}", on_saved(i, change)
    yield from WRONG_CALLS.items()
    if inputs > 1:
        yield from WRONG_CALLS_OF_SEVERAL.items()
    if saved:
        yield from WRONG_CALLS_WITH_SAVED.items()
    if saved > 1:
        yield "saved arrays swapped", saved_swapped


def generic_mutants(cls: type[Op], saved: int) -> Iterator[Mutant]:
    """Yield the mutants of an op that saves so many arrays, in each of its routes."""
    for route in routes(cls):
        where = {FUSED: "fused: "}.get(route, f"{route}: " if len(routes(cls)) > 1 else "")
        for name, rule in rules(arity(cls), saved):
            if route == FUSED and name.endswith(("detached", "an array and no tensor")):
                continue  # as it should be
            yield Mutant(cls.__name__, where + name, spoiled(cls, route, rule))
