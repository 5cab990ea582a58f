"""Floor 3: optimisers, learning-rate schedules, and clipping of gradients and weights.

An optimiser changes parameters in place and counts the change, so that a graph recorded before
the step notices it. An update works block by block, in two scratch arrays that stay: no step
allocates memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minigan import backend as backends
from minigan.tensor import Tensor
from minigan.workers import cut

BLOCK = 1 << 18  # numbers that are updated at a time: with their memory they fit the cache


class Optimizer:
    """The parts all optimisers share. A subclass names its memory and writes `update`.

    Attributes:
        lr: the learning rate; a schedule may change it between steps.
        steps: how many steps were taken.
        updates: for each parameter, in how many of them it had a gradient.
        memory: for each name in `memory_names`, one array per parameter.
    """

    memory_names: tuple[str, ...] = ()

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        who = type(self).__name__
        if isinstance(params, Tensor):
            raise TypeError(f"{who}: give a list of parameters, not one tensor: [parameter]")
        self.params = list(params)
        if not self.params:
            raise ValueError(f"{who}: no parameters to optimise")
        for i, p in enumerate(self.params):
            if not isinstance(p, Tensor) or not p.is_leaf:
                raise TypeError(f"{who}: parameter {i} is not a leaf tensor: {p!r}")
        if len({id(p) for p in self.params}) != len(self.params):
            raise ValueError(f"{who}: a parameter is listed twice, and would be stepped twice")
        if not (math.isfinite(lr) and lr >= 0):
            raise ValueError(f"{who}: lr must be a finite number >= 0, got {lr}")
        self.lr, self.steps = lr, 0
        self.updates = [0] * len(self.params)
        self.memory = {
            name: [p.backend.xp.zeros_like(p.data) for p in self.params]
            for name in self.memory_names
        }

    def update(self, p: Any, g: Any, memory: dict[str, Any], t: int, a: Any, b: Any) -> None:
        """Change `p` in place by `g`, of its t-th gradient; `a` and `b` are scratch.

        All are a block of a parameter, flat, and of what belongs to it: an update is element by
        element.
        """
        raise NotImplementedError(f"{type(self).__name__}: update is not written")

    def step(self) -> None:
        """Change every parameter that has a gradient."""
        self.steps += 1
        due: dict[backends.Backend, list[int]] = {}
        for i, p in enumerate(self.params):
            if p.grad is not None:
                self.updates[i] += 1
                self._follow(i, p)
                due.setdefault(p.backend, []).append(i)
        for backend, numbers in due.items():
            backend.choose(self._one_by_one, self._all_at_once)(backend, numbers)
            for i in numbers:
                self.params[i].bump_version()

    def _follow(self, i: int, p: Tensor) -> None:
        """Move what belongs to parameter i to where it is now."""
        for arrays in self.memory.values():
            old = backends.of(arrays[i])
            if old is not p.backend:
                arrays[i] = p.backend.from_host(old.to_host(arrays[i]))

    def _arrays(self, i: int) -> list[Any]:
        """Return parameter i, its gradient and its memory."""
        p = self.params[i]
        return [p.data, p.grad, *(arrays[i] for arrays in self.memory.values())]

    def _one_by_one(self, backend: backends.Backend, numbers: list[int]) -> None:
        """Update these parameters, all on one backend; its workers share blocks of all of them."""
        blocks = []
        for i in numbers:
            arrays = self._arrays(i)
            if all(a.flags.c_contiguous for a in arrays):
                arrays = [a.reshape(-1) for a in arrays]
            count = -(-arrays[0].size // BLOCK)
            for some in cut(len(arrays[0]), count) if arrays[0].ndim else [...]:
                blocks.append((self.updates[i], [a[some] for a in arrays]))

        def block(item: tuple[int, list[Any]]) -> None:
            t, (p, g, *memory) = item
            a, b = (backend.scratch(name, p.shape, p.dtype) for name in ("a", "b"))
            self.update(p, g, dict(zip(self.memory, memory, strict=True)), t, a, b)

        backend.each(block, blocks)

    _all_at_once = _one_by_one  # a subclass that has a kernel overrides it

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self.params:
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, the learning rate and the memory (host arrays, "name.index")."""
        state: dict[str, Any] = {"steps": self.steps, "lr": float(self.lr)}
        state["updates"] = list(self.updates)
        for name, arrays in self.memory.items():
            for i, array in enumerate(arrays):
                state[f"{name}.{i}"] = np.array(backends.of(array).to_host(array))
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state_dict of the same kind of optimiser over the same parameters.

        Raises:
            ValueError: anything missing, unexpected or of another shape; nothing is then changed.
        """
        own = self.state_dict()
        problems = [f"missing: {name}" for name in own if name not in state]
        problems += [f"unexpected: {name}" for name in state if name not in own]
        problems += [
            f"shape: {name} is {np.shape(state[name])}, expected {np.shape(own[name])}"
            for name in own
            if name in state and np.shape(state[name]) != np.shape(own[name])
        ]
        if problems:
            listed = "\n  ".join(problems)
            raise ValueError(f"load_state_dict: {type(self).__name__} cannot take it:\n  {listed}")
        self.steps, self.lr = int(state["steps"]), float(state["lr"])
        self.updates = [int(count) for count in state["updates"]]
        for name, arrays in self.memory.items():
            for i, p in enumerate(self.params):
                self._follow(i, p)
                arrays[i][...] = p.backend.from_host(np.asarray(state[f"{name}.{i}"], p.dtype))


class SGD(Optimizer):
    """Gradient descent, plain or with momentum (Polyak 1964; Nesterov 1983), as in PyTorch.

    v <- momentum·v + g;  p <- p − lr·v   (Nesterov: p − lr·(g + momentum·v))
    """

    memory_names = ("velocity",)

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        momentum: float = 0.0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        if nesterov and not momentum:
            raise ValueError("SGD: nesterov needs a momentum > 0")
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay
        self.memory_names = ("velocity",) if momentum else ()
        super().__init__(params, lr)

    def update(self, p: Any, g: Any, memory: dict[str, Any], t: int, a: Any, b: Any) -> None:
        if self.weight_decay:
            a[...] = p
            a *= self.weight_decay
            a += g
            g = a
        if self.momentum:
            velocity = memory["velocity"]
            velocity *= self.momentum
            velocity += g
            b[...] = velocity
            if self.nesterov:
                b *= self.momentum
                b += g
        else:
            b[...] = g
        b *= self.lr
        p -= b


class Adam(Optimizer):
    """Adaptive moments with bias correction (Kingma and Ba 2015, algorithm 1).

    m <- β₁m + (1 − β₁)g;  v <- β₂v + (1 − β₂)g²;  p <- p − lr·m̂ / (√v̂ + ε)

    `weight_decay` adds decay·p to the gradient; for the decoupled kind see AdamW.
    """

    memory_names = ("m", "v")
    decoupled = False  # whether the decay passes by the moments

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"{type(self).__name__}: betas must be in [0, 1), got {betas}")
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        super().__init__(params, lr)

    def update(self, p: Any, g: Any, memory: dict[str, Any], t: int, a: Any, b: Any) -> None:
        g = self.decay(p, g, b)
        m, v, (beta1, beta2) = memory["m"], memory["v"], self.betas
        backend = backends.of(p)
        xp = backend.xp
        backend.axpby(1 - beta1, g, beta1, m)  # m = (1 − β₁) g + β₁ m
        xp.multiply(g, g, out=a)
        backend.axpby(1 - beta2, a, beta2, v)
        correction = math.sqrt(1 - beta2**t)  # m̂ / (√v̂ + ε) with one pass less, as in section 2
        xp.sqrt(v, out=a)
        a += self.eps * correction
        xp.divide(m, a, out=a)
        backend.axpby(-self.lr * correction / (1 - beta1**t), a, 1, p)

    def _all_at_once(self, backend: backends.Backend, numbers: list[int]) -> None:
        """Update in one launch all that have a type and a count of steps in common."""
        alike: dict[tuple, list[int]] = {}
        for i in numbers:
            p, _, m, v = self._arrays(i)
            if all(a.flags.c_contiguous for a in (p, m, v)):
                alike.setdefault((p.dtype, self.updates[i]), []).append(i)
            else:  # a kernel does not know about strides
                self._one_by_one(backend, [i])
        for (_, t), group in alike.items():
            tensors = zip(*(self._arrays(i) for i in group), strict=True)
            how = self.lr, self.betas, self.eps, t, self.weight_decay, self.decoupled
            backend.kernels.adam_step(*map(list, tensors), *how)

    def decay(self, p: Any, g: Any, scratch: Any) -> Any:
        """Return the gradient with weight decay."""
        if not self.weight_decay:
            return g
        scratch[...] = p
        scratch *= self.weight_decay
        scratch += g
        return scratch


class AdamW(Adam):
    """Adam whose decay does not pass through the moments (Loshchilov and Hutter 2019)."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def decay(self, p: Any, g: Any, scratch: Any) -> Any:
        p *= 1 - self.lr * self.weight_decay
        return g


class RMSprop(Optimizer):
    """Steps divided by a running root mean square (Tieleman and Hinton 2012), as in PyTorch.

    v <- αv + (1 − α)g²;  p <- p − lr·g / (√v + ε)
    """

    memory_names = ("v",)

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8
    ) -> None:
        self.alpha, self.eps = alpha, eps
        super().__init__(params, lr)

    def update(self, p: Any, g: Any, memory: dict[str, Any], t: int, a: Any, b: Any) -> None:
        v, xp = memory["v"], backends.of(p).xp
        v *= self.alpha
        xp.multiply(g, g, out=a)
        a *= 1 - self.alpha
        v += a
        xp.sqrt(v, out=a)
        a += self.eps
        xp.divide(g, a, out=a)
        a *= self.lr
        p -= a


def clip_grad_norm_(params: Tensor | Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients together so that their common norm is at most `max_norm`.

    Returns the norm as it was. (Pascanu et al. 2013.)

    Raises:
        ValueError: max_norm <= 0, or a norm that is not finite; nothing is then scaled.
    """
    if max_norm <= 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be positive, got {max_norm}")
    params = [params] if isinstance(params, Tensor) else params
    gradients = [p.grad for p in params if p.grad is not None]
    squares: dict[backends.Backend, Any] = {}  # summed where they are; one is fetched from each
    for g in gradients:
        own = backends.of(g)
        squares[own] = squares.get(own, 0.0) + (g.astype(np.float64) ** 2).sum()
    norm = math.sqrt(sum(map(float, squares.values())))
    if not math.isfinite(norm):
        raise ValueError(f"clip_grad_norm_: the norm of the gradients is {norm}")
    if norm > max_norm:
        for g in gradients:
            g *= max_norm / norm
    return norm


def clip_weights_(params: Tensor | Iterable[Tensor], bound: float) -> None:
    """Hold every number of the parameters in [−bound, bound] (Arjovsky et al. 2017, algorithm 1).

    In place, and counted as a change: call it after `step`, not between forward and backward.

    Raises:
        ValueError: bound <= 0; nothing is then clipped.
    """
    if not bound > 0:
        raise ValueError(f"clip_weights_: bound must be positive, got {bound}")
    for p in [params] if isinstance(params, Tensor) else params:
        p.backend.xp.clip(p.data, -bound, bound, out=p.data)
        p.bump_version()


class Schedule:
    """Sets an optimiser's lr to its first lr times `factor(calls of step)`.

    Call `step()` after the optimiser's, or once an epoch: its arguments are in calls.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer, self.first_lr, self.calls = optimizer, optimizer.lr, 0

    def factor(self, t: int) -> float:
        raise NotImplementedError(f"{type(self).__name__}: factor is not written")

    def step(self) -> None:
        """Set the lr for what is to come."""
        self.calls += 1
        self.optimizer.lr = self.first_lr * self.factor(self.calls)

    def state_dict(self) -> dict[str, Any]:
        """Return the first lr and the count of calls."""
        return {"first_lr": float(self.first_lr), "calls": self.calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state_dict; ValueError if it is something else's."""
        if set(state) != {"first_lr", "calls"}:
            raise ValueError(f"load_state_dict: {type(self).__name__} cannot take {sorted(state)}")
        self.first_lr, self.calls = float(state["first_lr"]), int(state["calls"])


class StepLR(Schedule):
    """Multiply the lr by gamma after every `step_size` calls."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        if step_size < 1:
            raise ValueError(f"StepLR: step_size must be at least 1, got {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def factor(self, t: int) -> float:
        return self.gamma ** (t // self.step_size)


class LinearDecay(Schedule):
    """Hold the lr until call `start`, then lower it on a straight line to `final` times at `end`.

    pix2pix holds for half of the run and falls to 0 over the other half.
    """

    def __init__(self, optimizer: Optimizer, end: int, start: int = 0, final: float = 0.0) -> None:
        if not 0 <= start < end:
            raise ValueError(f"LinearDecay: needs 0 <= start < end, got {start} and {end}")
        self.start, self.end, self.final = start, end, final
        super().__init__(optimizer)

    def factor(self, t: int) -> float:
        done = min(max((t - self.start) / (self.end - self.start), 0.0), 1.0)
        return 1.0 + (self.final - 1.0) * done


class CosineDecay(Schedule):
    """Lower the lr along half a cosine to `final` times at call `end` (Loshchilov 2017)."""

    def __init__(self, optimizer: Optimizer, end: int, final: float = 0.0) -> None:
        if end < 1:
            raise ValueError(f"CosineDecay: end must be at least 1, got {end}")
        self.end, self.final = end, final
        super().__init__(optimizer)

    def factor(self, t: int) -> float:
        done = min(t / self.end, 1.0)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))
