"""The mistakes that can be made in the engine: how gradients are passed on and gathered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minigan import autograd
from minigan.autograd import Op, _Sum
from minigan.specs.mutants_base import ENGINE, Mutant, Watch, patched
from minigan.tensor import Tensor, Version, is_recording, switched

Make = Callable[[Watch], Any]  # the watch in, the wrong function out

right_add, right_take = _Sum.add, _Sum.take
right_gradients, right_ancestors = autograd._gradients_of, autograd._ancestors
right_saved, right_cotangent = Op.saved, autograd.cotangent_of
right_backward = autograd.backward

# Gathering


def adding(wrong: Callable[[_Sum, Tensor, bool], None], recorded_only: bool = False) -> Make:
    """Return the maker of an `_Sum.add` that is wrong from the second contribution on."""

    def make(watch: Watch) -> Any:
        def add(self: _Sum, gradient: Tensor, recording: bool, fresh: bool = False) -> None:
            if self.value is None or (recorded_only and not recording):
                right_add(self, gradient, recording, fresh)
            else:
                watch.touched = True
                wrong(self, gradient, recording)

        return add

    return make


def overwrite(self: _Sum, gradient: Tensor, recording: bool) -> None:
    """The last contribution is the sum."""
    self.value, self.owned = gradient, False


def keep_first(self: _Sum, gradient: Tensor, recording: bool) -> None:
    """The first contribution is the sum."""


def subtract(self: _Sum, gradient: Tensor, recording: bool) -> None:
    """Contributions are subtracted."""
    right_add(self, -gradient, recording)


def average(self: _Sum, gradient: Tensor, recording: bool) -> None:
    """Two contributions are averaged."""
    right_add(self, gradient, recording)
    self.value, self.owned = self.value * 0.5, False


def add_twice(self: _Sum, gradient: Tensor, recording: bool) -> None:
    """The second contribution counts twice."""
    right_add(self, gradient, recording)
    right_add(self, gradient, recording)


def add_in_place(self: _Sum, gradient: Tensor, recording: bool) -> None:
    """Sums into an array that an op gave, and may hold elsewhere."""
    if recording:
        right_add(self, gradient, recording)
    else:
        self.value.data[...] = self.value.data + gradient.data


def add_unrecorded(self: _Sum, gradient: Tensor, recording: bool) -> None:
    """The sum loses its history."""
    right_add(self, gradient, False)


# Handing over


def taking_what_is_held(watch: Watch) -> Any:
    """`take` without a copy: the caller gets an array that the engine, or an op, still holds."""

    def take(self: _Sum) -> Any:
        watch.touched |= not self.owned
        return self.value.data

    return take


def gradients_with(wrong: Callable[..., Any]) -> Make:
    """Return the maker of a `_gradients_of` that does something else with what it returns."""

    def make(watch: Watch) -> Any:
        def gradients_of(op: Op, gy: Tensor, needs: tuple, create_graph: bool) -> list:
            right = right_gradients(op, gy, needs, create_graph)
            found = wrong(right)
            for (edge, g), (other, h) in zip(right, found, strict=False):
                watch.touched |= edge is not other or g.requires_grad != h.requires_grad
            watch.touched |= len(right) != len(found)
            return found

        return gradients_of

    return make


def edges_swapped(pairs: list) -> list:
    """The first two inputs get each other's gradient, where the shapes are one."""
    if len(pairs) < 2 or pairs[0][1].shape != pairs[1][1].shape:
        return pairs
    (a, ga), (b, gb), *rest = pairs
    return [(b, ga), (a, gb), *rest]


def unrecorded(op: Op, gy: Tensor, needs: tuple, create_graph: bool) -> list:
    """Backward is never recorded."""
    with switched("recording", False):
        return right_gradients(op, gy, needs, create_graph)


def fused_if_there(op: Op, gy: Tensor, needs: tuple, create_graph: bool) -> list:
    """The fused rule runs even when its result shall be differentiated."""
    return right_gradients(op, gy, needs, create_graph and not hasattr(op, "fused_backward"))


def gradients_by(wrong: Callable[..., list]) -> Make:
    """Return the maker of a `_gradients_of` that runs backward in another way."""

    def make(watch: Watch) -> Any:
        def gradients_of(op: Op, gy: Tensor, needs: tuple, create_graph: bool) -> list:
            found = wrong(op, gy, needs, create_graph)
            right = right_gradients(op, gy, needs, create_graph)
            for (_, g), (_, h) in zip(right, found, strict=True):
                watch.touched |= g.requires_grad != h.requires_grad
            return found

        return gradients_of

    return make


def walked_as_found(watch: Watch) -> Any:
    """Ops are walked in the order of creation, so that some go before all of theirs is in."""

    def ancestors(roots: Any) -> list[Op]:
        right = right_ancestors(roots)
        watch.touched |= len(right) > 1
        return right[::-1]

    return ancestors


def one_op_forgotten(watch: Watch) -> Any:
    """The oldest op is left out of the walk."""

    def ancestors(roots: Any) -> list[Op]:
        right = right_ancestors(roots)
        watch.touched |= len(right) > 1
        return right[1:] if len(right) > 1 else right

    return ancestors


# What is saved, the incoming gradient, `.grad`


def all_saved_detached(watch: Watch) -> Any:
    """What every op saved comes back without history."""

    def saved(self: Op) -> tuple[Tensor, ...]:
        right = right_saved(self)
        watch.touched |= is_recording() and any(t.requires_grad for t in right)
        return tuple(t.detach() for t in right)

    return saved


def outputs_detached(watch: Watch) -> Any:
    """An op's own output comes back without history."""

    def saved(self: Op) -> tuple[Tensor, ...]:
        right = right_saved(self)
        watch.touched |= is_recording() and any(t._op is self for t in right)
        return tuple(t.detach() if t._op is self else t for t in right)

    return saved


def stale_unnoticed(watch: Watch) -> Any:
    """What was changed in place since forward is read as if nothing had happened."""

    def saved(self: Op) -> tuple[Tensor, ...]:
        changed = [(kept, version, version.value) for _, kept, version, _ in self._saved]
        watch.touched |= any(v.value != then for _, _, v, then in self._saved)
        try:
            for _, _, version, then in self._saved:
                version.value = then
            return right_saved(self)
        finally:
            for _, version, value in changed:
                version.value = value

    return saved


@contextmanager
def changes_uncounted(watch: Watch) -> Iterator[None]:
    """A change in place, such as an optimiser's step, is not counted."""
    changed: list[Version] = []

    def saved(self: Op) -> tuple[Tensor, ...]:
        watch.touched |= any(version is v for _, _, version, _ in self._saved for v in changed)
        return right_saved(self)

    with (
        patched(Tensor, "bump_version", lambda self: changed.append(self._version)),
        patched(Op, "saved", saved),
    ):
        yield


def ones_for_cotangent(watch: Watch) -> Any:
    """The gradient that the caller gives is not looked at."""

    def cotangent(output: Tensor, gradient: Any, who: str) -> Tensor:
        right = right_cotangent(output, gradient, who)
        watch.touched |= bool((right.data != 1).any())
        return Tensor(np.ones(right.shape), dtype=right.dtype)

    return cotangent


def cotangent_detached(watch: Watch) -> Any:
    """The gradient that the caller gives loses its history."""

    def cotangent(output: Tensor, gradient: Any, who: str) -> Tensor:
        right = right_cotangent(output, gradient, who)
        watch.touched |= right.requires_grad
        return right.detach()

    return cotangent


def grad_overwritten(watch: Watch) -> Any:
    """A second backward replaces `.grad`."""

    def backward(output: Tensor, gradient: Any = None, retain_graph: bool = False) -> None:
        leaves = [op for op in _leaves(output) if op.grad is not None]
        for leaf in leaves:
            watch.touched, leaf.grad = True, None
        right_backward(output, gradient, retain_graph)

    return backward


def _leaves(output: Tensor) -> list[Tensor]:
    root = output._op or output
    edges = [edge for op in right_ancestors([root]) for edge in op.parents]
    return [edge for edge in {id(e): e for e in edges}.values() if isinstance(edge, Tensor)]


def always_freed(watch: Watch) -> Any:
    """The graph is freed although it was to be kept."""

    def backward(output: Tensor, gradient: Any = None, retain_graph: bool = False) -> None:
        watch.touched |= retain_graph
        right_backward(output, gradient)

    return backward


WRONG_ENGINES: dict[str, tuple[Any, str, Make]] = {
    "overwrite for accumulate": (_Sum, "add", adding(overwrite)),
    "only the first contribution": (_Sum, "add", adding(keep_first)),
    "contributions subtracted": (_Sum, "add", adding(subtract)),
    "contributions averaged": (_Sum, "add", adding(average)),
    "second contribution twice": (_Sum, "add", adding(add_twice)),
    "sums into an array it does not own": (_Sum, "add", adding(add_in_place)),
    "sum not recorded": (_Sum, "add", adding(add_unrecorded, recorded_only=True)),
    "gradients handed out without a copy": (_Sum, "take", taking_what_is_held),
    "first input forgotten": (autograd, "_gradients_of", gradients_with(lambda pairs: pairs[1:])),
    "last input forgotten": (autograd, "_gradients_of", gradients_with(lambda pairs: pairs[:-1])),
    "first input counted twice": (
        autograd,
        "_gradients_of",
        gradients_with(lambda pairs: pairs[:1] + pairs),
    ),
    "inputs exchanged": (autograd, "_gradients_of", gradients_with(edges_swapped)),
    "gradients detached on the way": (
        autograd,
        "_gradients_of",
        gradients_with(lambda pairs: [(edge, g.detach()) for edge, g in pairs]),
    ),
    "backward never recorded": (autograd, "_gradients_of", gradients_by(unrecorded)),
    "fused rule while recording": (autograd, "_gradients_of", gradients_by(fused_if_there)),
    "oldest op first": (autograd, "_ancestors", walked_as_found),
    "oldest op forgotten": (autograd, "_ancestors", one_op_forgotten),
    "saved arrays detached": (Op, "saved", all_saved_detached),
    "saved outputs detached": (Op, "saved", outputs_detached),
    "stale saved arrays read": (Op, "saved", stale_unnoticed),
    "cotangent of ones": (autograd, "cotangent_of", ones_for_cotangent),
    "cotangent detached": (autograd, "cotangent_of", cotangent_detached),
    ".grad overwritten": (Tensor, "backward", grad_overwritten),
    "graph freed although kept": (Tensor, "backward", always_freed),
}


def engine_mutants() -> Iterator[Mutant]:
    """Yield the mutants of the engine."""
    for name, (owner, attribute, make) in WRONG_ENGINES.items():
        yield Mutant(ENGINE, name, _applied(owner, attribute, make))
    yield Mutant(ENGINE, "changes in place not counted", changes_uncounted)


def _applied(owner: Any, attribute: str, make: Make) -> Callable[[Watch], Any]:
    @contextmanager
    def applied(watch: Watch) -> Iterator[None]:
        with patched(owner, attribute, make(watch)):
            yield

    return applied
