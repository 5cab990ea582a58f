"""Floor 1: computations that do not need each other, at the same time."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any

from minigan import backend as backends
from minigan import workers
from minigan.tensor import clocks, mode


def side_by_side(*calls: tuple[Any, ...]) -> list[Any]:
    """Make calls that do not need each other's results, at the same time; return their results.

        fake, on_real = mg.side_by_side((generator, noise), (discriminator, real))

    The first is made here and the others by the threads that share operations, so that each has
    something to do where another is alone with a small one. The results are the same to the bit as
    one after the other. And so they are made after `mg.use("cuda")`, with one thread, and inside
    another `side_by_side`.

    Args:
        calls: each a function and its arguments. No two may change the same thing: the averages of
            one batch normalisation, the u of one spectral norm, the state of `mg.generator()`
            (these are looked after); a `.grad`, `mg.use`, anything of your own (these are not).

    Raises:
        RuntimeError: two of them change the same thing, of those that are looked after.
        TypeError: no tuple that begins with a function.
        Exception: whatever the calls raise, when all that have begun have ended.
    """
    for call in calls:
        if not (isinstance(call, tuple) and call and callable(call[0])):
            raise TypeError(
                f"side_by_side: expected (function, argument, ...), got {type(call).__name__}: "
                "write (discriminator, real) and not discriminator(real), which is called at once"
            )
    if "clock" in mode.__dict__:  # inside another
        return [function(*arguments) for function, *arguments in calls]
    claims = _Claims()
    # Gradients are added up in the order of time: by these clocks, one call comes after the other.
    parts = [
        _Part(*call, claim=partial(claims, i), clock=clock)
        for i, (call, clock) in enumerate(zip(calls, clocks(len(calls)), strict=True))
    ]
    with backends.get().postponed(of_user=True) as later:
        if later.helpers and parts:
            for part in parts[1:]:
                later(part)
            return [parts[0](), *later.rest()]
        return [part() for part in parts]


class _Claims:
    """Which call was the first to change a thing."""

    def __init__(self) -> None:
        self.owners: dict[int, tuple[int, object]] = {}  # id -> (call, the thing, so that it lives)

    def __call__(self, i: int, what: str, thing: object) -> None:
        first, _ = self.owners.setdefault(id(thing), (i, thing))  # atomic
        if first != i:
            raise RuntimeError(
                f"side_by_side: calls {first} and {i} both change {what}, and who is first would "
                "be chance: make one of them before or after the others"
            )


class _Part:
    """A call in the mode of the thread that wants it, whoever makes it, but by its own clock."""

    def __init__(self, function: Callable, *arguments: Any, claim: Callable, clock: Any) -> None:
        self.call, self.claim = partial(function, *arguments), claim
        self.context = copy_context()  # for one, whether NumPy warns of a division by zero
        self.mode = {"recording": mode.recording, "anomaly": mode.anomaly, "clock": clock}

    def __call__(self) -> Any:
        before = dict(mode.__dict__)
        mode.__dict__.update(self.mode)
        try:
            with workers.claiming(self.claim):
                return self.context.run(self.call)
        finally:
            mode.__dict__.clear()
            mode.__dict__.update(before)
