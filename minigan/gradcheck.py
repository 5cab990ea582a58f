"""Floor 3: checking gradients against finite differences, for any function of tensors.

The function f is followed along straight lines x + t·u in random directions u, over all inputs at
once, with a random cotangent v: φ(t) = ⟨v, f(x + t·u)⟩. What backward says about φ'(0) is
⟨vᵀJ, u⟩; what differences say is the four-point rule

    D(h) = (8·(φ(h) − φ(−h)) − (φ(2h) − φ(−2h))) / (12·h),

whose error falls with h⁴. The cotangent must be random: with ones the gradient of a softmax or of
a batch normalisation is zero, and a backward that returns zero would pass. The tolerance is scaled
by forward values alone, so that a wrong backward cannot widen its own.

The second order is the first order of (x, v) ↦ vᵀJ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from minigan.autograd import grad
from minigan.tensor import Tensor

STEP = 1e-4
TOLERANCE = 1e-8
DIRECTIONS = 3


class GradcheckError(AssertionError):
    """A gradient that differs from the finite differences."""


class KinkError(ValueError):
    """The function has no derivative at the point given, as far as differences can tell."""


@dataclass(frozen=True)
class _Problem:
    """The function as arrays in, one number out, at a point and under a cotangent."""

    function: Callable[..., Tensor]
    point: list[np.ndarray]
    cotangent: np.ndarray

    def value(self, arrays: Sequence[np.ndarray]) -> float:
        output = self.function(*(_leaf(a, False) for a in arrays))
        return float((output.numpy() * self.cotangent).sum())

    def along(self, direction: Sequence[np.ndarray]) -> Callable[[float], float]:
        """Return φ, which computes each value once."""
        return cache(
            lambda t: self.value([x + t * u for x, u in zip(self.point, direction, strict=True)])
        )

    def gradients(self) -> list[np.ndarray]:
        leaves = [_leaf(a, True) for a in self.point]
        output = self.function(*leaves)
        if not output.requires_grad:
            return [np.zeros_like(a) for a in self.point]
        found = grad(output, leaves, _leaf(self.cotangent, False), allow_unused=True)
        return [
            np.zeros_like(a) if g is None else g.numpy()
            for a, g in zip(self.point, found, strict=True)
        ]


def _slope(phi: Callable[[float], float], h: float) -> float:
    """The four-point difference."""
    return (8 * (phi(h) - phi(-h)) - (phi(2 * h) - phi(-2 * h))) / (12 * h)


def _bend(phi: Callable[[float], float], h: float) -> float:
    """The slope to the right less the slope to the left: it shrinks with h unless at a kink."""
    return (phi(h) - 2 * phi(0.0) + phi(-h)) / h


def _leaf(array: np.ndarray, requires_grad: bool) -> Tensor:
    return Tensor(array.copy(), dtype=np.float64, requires_grad=requires_grad)


def gradcheck(
    function: Callable[..., Tensor],
    inputs: Sequence[Any] | Tensor,
    order: int = 1,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    step: float = STEP,
) -> float:
    """Check the derivatives of `function` at `inputs`, up to the given order.

    Args:
        function: tensors in, one tensor out; deterministic.
        inputs: float64 arrays or tensors, away from kinks (two maxima that are equal, |x| at 0)
            by more than a few `step`.
        order: 1 checks the gradient; 2 the gradient of the gradient too; and so on.
        seed: for cotangents and directions.
        tolerance: the error allowed, relative to the size of the forward values.
        step: h, the distance between the points of a difference.

    Returns:
        The largest error as a share of what is allowed, at most 1.

    Raises:
        GradcheckError: a derivative is wrong; names order, input, element and both values.
        KinkError: differences at h and h/2 disagree, or those to the left and to the right: there
            is a kink, or noise, at this point.
        TypeError: inputs that are not float64, or a function that does not return a Tensor.
        ValueError: non-finite values, a function that is not deterministic, or order < 1.
    """
    if order < 1:
        raise ValueError(f"gradcheck: order must be at least 1, got {order}")
    arrays = _point(inputs)
    random = np.random.default_rng(seed)
    worst = 0.0
    for level in range(1, order + 1):
        output = _evaluate(function, arrays)
        if level > 1 and not output.size:
            break
        cotangent = _bounded(random, output.shape)
        problem = _Problem(function, arrays, cotangent)
        worst = max(worst, _check(problem, random, level, tolerance, step))
        function, arrays = _derivative(function, len(arrays)), [*arrays, cotangent]
    return worst


def _point(inputs: Sequence[Any] | Tensor) -> list[np.ndarray]:
    inputs = [inputs] if isinstance(inputs, (Tensor, np.ndarray)) else list(inputs)
    arrays = [t.numpy() if isinstance(t, Tensor) else np.array(t) for t in inputs]
    if not arrays:
        raise ValueError("gradcheck: no inputs given")
    for i, a in enumerate(arrays):
        if a.dtype != np.float64:
            raise TypeError(
                f"gradcheck: input {i} is {a.dtype}; differences need float64 "
                "(mg.tensor(x, dtype=np.float64)), and integers have no gradient: close over them"
            )
        if not np.isfinite(a).all():
            raise ValueError(f"gradcheck: input {i} holds NaN or Inf")
    return arrays


def _evaluate(function: Callable[..., Tensor], arrays: list[np.ndarray]) -> Tensor:
    """Run the function twice; check what it returns and that it does so both times."""
    outputs = [function(*(_leaf(a, True) for a in arrays)) for _ in range(2)]
    for output in outputs:
        if not isinstance(output, Tensor):
            raise TypeError(f"gradcheck: the function returned {type(output).__name__}, no Tensor")
        if output.dtype != np.float64:
            raise TypeError(f"gradcheck: the function returned {output.dtype}, not float64")
    first, second = (output.numpy() for output in outputs)
    if not np.isfinite(first).all():
        raise ValueError("gradcheck: the function returns NaN or Inf at this point")
    if first.shape != second.shape or not np.array_equal(first, second):
        raise ValueError("gradcheck: the function gives different values for the same inputs")
    return outputs[0]


def _bounded(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw numbers of either sign with sizes in [0.5, 1.5): no element can hide near zero."""
    return random.choice([-1.0, 1.0], size=shape) * random.uniform(0.5, 1.5, size=shape)


def _derivative(function: Callable[..., Tensor], count: int) -> Callable[..., Tensor]:
    """Return (x, v) ↦ vᵀJ of the function, all inputs' parts in one flat tensor."""
    from minigan.functional import concatenate

    def vector_jacobian(*tensors: Tensor) -> Tensor:
        inputs, cotangent = tensors[:count], tensors[count]
        inputs = [x if x.requires_grad else x.detach().requires_grad_() for x in inputs]
        output = function(*inputs)
        if not output.requires_grad:
            return concatenate([(x * 0.0).reshape(-1) for x in inputs])
        found = grad(output, inputs, cotangent, create_graph=True, allow_unused=True)
        parts = [x * 0.0 if g is None else g for x, g in zip(inputs, found, strict=True)]
        return concatenate([part.reshape(-1) for part in parts])

    return vector_jacobian


def _check(
    problem: _Problem, random: np.random.Generator, level: int, tolerance: float, step: float
) -> float:
    gradients = problem.gradients()
    worst = 0.0
    for _ in range(DIRECTIONS):
        direction = [_bounded(random, a.shape) for a in problem.point]
        allowed = tolerance * _scale(problem, direction, step)
        phi = problem.along(direction)
        slope, finer = _slope(phi, step), _slope(phi, step / 2)
        bend, straighter = _bend(phi, step), 2 * _bend(phi, step / 2)
        straight = abs(bend - straighter) <= 1000 * allowed  # a bend is known less well: error h²
        if not (abs(slope - finer) <= allowed and straight):
            raise KinkError(
                f"gradcheck, order {level}: differences at h = {step:g} and h/2 disagree (slopes "
                f"{slope:.10g} and {finer:.10g}, bends {bend:.3g} and {straighter:.3g}): the "
                "inputs are at or near a kink, or the function is noisy there: move the inputs or "
                "choose another step"
            )
        claimed = sum(float((g * u).sum()) for g, u in zip(gradients, direction, strict=True))
        if not abs(claimed - finer) <= allowed:
            raise GradcheckError(_locate(problem, gradients, level, claimed, finer, step))
        worst = max(worst, abs(claimed - finer) / allowed)
    return worst


def _scale(problem: _Problem, direction: Sequence[np.ndarray], step: float) -> float:
    """How large the slope could be, judged by forward values: Σ|v·Δf| / h plus rounding in f.

    The sum of sizes, not the size of the sum, since the terms may cancel.
    """
    ahead, behind = (
        problem.function(
            *(_leaf(x + t * u, False) for x, u in zip(problem.point, direction, strict=True))
        ).numpy()
        for t in (step, -step)
    )
    moved = np.abs(problem.cotangent * (ahead - behind)).sum() / (2 * step)
    size = np.abs(problem.cotangent * ahead).sum()
    return float(moved + size) + 1e-3


def _locate(
    problem: _Problem,
    gradients: list[np.ndarray],
    level: int,
    claimed: float,
    slope: float,
    step: float,
) -> str:
    """Difference every element of every input, and say where the gradient is furthest off."""
    worst = (-1.0, 0, (), 0.0, 0.0)
    wrong = 0
    for i, (x, g) in enumerate(zip(problem.point, gradients, strict=True)):
        for index in np.ndindex(x.shape):
            direction = [np.zeros_like(a) for a in problem.point]
            direction[i][index] = 1.0
            expected = _slope(problem.along(direction), step)
            error = abs(float(g[index]) - expected)
            wrong += error > 1e-6 * max(1.0, abs(expected))
            if not error <= worst[0]:
                worst = (error, i, index, float(g[index]), expected)
    error, i, index, got, expected = worst
    sizes = ", ".join(str(x.shape) for x in problem.point)
    return (
        f"gradcheck, order {level}: backward disagrees with finite differences.\n"
        f"  worst: input {i}, element {index}: backward says {got:.10g}, "
        f"differences say {expected:.10g} (off by {error:.3g})\n"
        f"  {wrong} of {sum(x.size for x in problem.point)} elements are off; inputs {sizes}\n"
        f"  along a random direction: {claimed:.12g} against {slope:.12g}"
    )
