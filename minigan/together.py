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
    another `side_by_side` (as parts of one of its calls).

    What a call switches (`no_grad`, `default_dtype`, `np.errstate`) ends with it. It may be made by
    another thread: so it needs no lock that you hold, and nothing of `threading.local`. What it
    leaves to a thread that it starts is right, but added up as if it came after all calls.

    Args:
        calls: each a function and its arguments. No two may change the same thing: a `.grad`, the
            averages of one batch normalisation, the u of one spectral norm, the state of
            `mg.generator()`, a graph that backward walks. These are looked after; what is your own
            is not.

    Raises:
        RuntimeError: two of them change the same thing, if it is the engine's.
        TypeError: no tuple that begins with a function.
        Exception: whatever the calls raise, when all that have begun have ended.
    """
    for call in calls:
        if not (isinstance(call, tuple) and call and callable(call[0])):
            raise TypeError(
                f"side_by_side: expected (function, argument, ...), got {type(call).__name__}: "
                "write (discriminator, real) and not discriminator(real), which is called at once"
            )
    if mode.clock:  # inside another
        return [copy_context().run(*call) for call in calls]
    claims = _Claims()

    def part(i: int, clock: Any, function: Callable, *arguments: Any) -> Any:
        workers.told_of_claims.set(partial(claims, i))
        mode.clock = clock  # by these clocks one call comes after the other: the order of gradients
        return function(*arguments)

    parts = [  # each in a copy of this context, whoever makes it
        partial(copy_context().run, part, i, clock, *calls[i])
        for i, clock in enumerate(clocks(len(calls)))
    ]
    with backends.get().postponed(of_user=True) as later:
        if later.helpers and parts:
            for another in parts[1:]:
                later(another)
            return [parts[0](), *later.rest()]
        return [each() for each in parts]


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
