"""Floor 3: derivatives by differences, and how much of the disagreement is the differences' own.

A function f is followed along straight lines x + t·u in random directions u, over all inputs at
once, with a random cotangent v: φ(t) = ⟨v, f(x + t·u)⟩. What backward says about φ'(0) is
⟨vᵀJ, u⟩; what differences say is the four-point rule

    D(h) = (8·(φ(h) − φ(−h)) − (φ(2h) − φ(−2h))) / (12·h),

whose error falls with h⁴, while that of rounding grows with 1/h. The bound for the disagreement is
made from forward values alone, so that a wrong backward cannot widen its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from minigan.autograd import grad
from minigan.functional import concatenate
from minigan.tensor import Tensor

STEP = 1e-4
TOLERANCE = 1e-8
LOOKED_AT = 2000  # elements of an input, to say where a gradient is wrong
ROUNDING = 64 * 2.0**-52  # how far f may be off, relative to its size: 64 units in the last place
DIRECTIONS = 3


class GradcheckError(AssertionError):
    """A gradient that differs from the finite differences."""


class KinkError(ValueError):
    """The function has no derivative at the point given, as far as differences can tell."""


def bounded(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw numbers of either sign with sizes in [0.5, 1.5): no element can hide near zero.

    They are multiples of 1/64: along them whole steps from whole numbers are exact, even in
    float32.
    """
    return random.choice([-1.0, 1.0], size=shape) * random.integers(32, 96, size=shape) / 64


def leaf(array: np.ndarray, requires_grad: bool = False) -> Tensor:
    """Return a float64 tensor on a copy of the array."""
    return Tensor(array.copy(), dtype=np.float64, requires_grad=requires_grad)


@dataclass(frozen=True)
class Problem:
    """A function at a point, under a cotangent."""

    function: Callable[..., Tensor]
    point: list[np.ndarray]
    cotangent: np.ndarray

    def along(self, direction: Sequence[np.ndarray]) -> Callable[[float], np.ndarray]:
        """Return t ↦ v · f(x + t·u), element by element; each t is computed once."""

        def terms(t: float) -> np.ndarray:
            arrays = [x + t * u for x, u in zip(self.point, direction, strict=True)]
            return self.function(*map(leaf, arrays)).numpy() * self.cotangent

        return cache(terms)

    def gradients(self) -> list[np.ndarray]:
        """Return vᵀJ as backward has it, an array for each input."""
        leaves = [leaf(a, True) for a in self.point]
        output = self.function(*leaves)
        if not output.requires_grad:
            return [np.zeros_like(a) for a in self.point]
        found = grad(output, leaves, leaf(self.cotangent), allow_unused=True)
        return [
            np.zeros_like(a) if g is None else g.numpy()
            for a, g in zip(self.point, found, strict=True)
        ]


def slope(terms: Callable[[float], np.ndarray], h: float) -> float:
    """Return the four-point difference of φ."""
    near, far = terms(h) - terms(-h), terms(2 * h) - terms(-2 * h)
    return float((8 * near - far).sum() / (12 * h))


def bend(terms: Callable[[float], np.ndarray], h: float) -> float:
    """Return the slope to the right less that to the left: it shrinks with h unless at a kink."""
    return float((terms(h) - 2 * terms(0.0) + terms(-h)).sum() / h)


def allowance(
    terms: Callable[[float], np.ndarray], problem: Problem, tol: float, h: float
) -> float:
    """Return how far backward may be from D(h): a share of the slope's size, and rounding in f.

    The sum of the terms' sizes and not the size of their sum, since they may cancel.
    """
    moved = np.abs(terms(h) - terms(-h)).sum() / (2 * h)
    size = np.abs(terms(h)).sum() + np.abs(problem.cotangent).sum()
    return float(tol * moved + ROUNDING * size / h)


def derivative(function: Callable[..., Tensor], count: int) -> Callable[..., Tensor]:
    """Return (x, v) ↦ vᵀJ of a function of `count` inputs, all parts in one flat tensor."""

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


def compare(
    problem: Problem,
    random: np.random.Generator,
    order: int = 1,
    tolerance: float = TOLERANCE,
    step: float = STEP,
    spare: int = 0,
    explain: bool = True,
) -> tuple[float, int]:
    """Compare backward with differences along `DIRECTIONS` random lines.

    Args:
        order: for the messages.
        spare: how many directions may be rejected because differences disagree among themselves.
        explain: whether a failure is located, which takes differences of every element.

    Returns:
        The largest error as a share of what is allowed, and the number of directions rejected.

    Raises:
        GradcheckError: backward is wrong.
        KinkError: more directions than `spare` were rejected.
    """
    gradients = problem.gradients()
    worst, rejected, accepted = 0.0, 0, 0
    while accepted < DIRECTIONS:
        direction = [bounded(random, a.shape) for a in problem.point]
        terms = problem.along(direction)
        allowed = allowance(terms, problem, tolerance, step)
        expected = slope(terms, step / 2)
        kink = _kink(terms, allowed, step)
        if kink:
            rejected += 1
            if rejected > spare:
                raise KinkError(f"gradcheck, order {order}: {kink}")
            continue
        accepted += 1
        claimed = sum(float((g * u).sum()) for g, u in zip(gradients, direction, strict=True))
        error = abs(claimed - expected)
        if not error <= allowed:
            where = _locate(problem, gradients, step) if explain else ""
            raise GradcheckError(
                f"gradcheck, order {order}: backward disagrees with finite differences.\n{where}"
                f"  along a random direction: {claimed:.12g} against {expected:.12g}, "
                f"{error / allowed:.3g} times what is allowed"
            )
        worst = max(worst, error / allowed if error else 0.0)
    return worst, rejected


def _kink(terms: Callable[[float], np.ndarray], allowed: float, step: float) -> str:
    """Return what is wrong with the differences themselves, if anything."""
    wide, narrow = slope(terms, step), slope(terms, step / 2)
    right, straighter = bend(terms, step), 2 * bend(terms, step / 2)
    # A bend is known less well: its error falls with h² only.
    if abs(wide - narrow) <= allowed and abs(right - straighter) <= 1000 * allowed:
        return ""
    return (
        f"differences at h = {step:g} and h/2 disagree (slopes {wide:.10g} and {narrow:.10g}, "
        f"bends {right:.3g} and {straighter:.3g}): the inputs are at or near a kink, or the "
        "function is noisy there: move the inputs or choose another step"
    )


def _locate(problem: Problem, gradients: list[np.ndarray], step: float) -> str:
    """Difference every element of every input, and say where the gradient is furthest off.

    Of large inputs only LOOKED_AT elements, evenly spread: each costs four evaluations.
    """
    worst: tuple[Any, ...] = (-1.0, 0, (), 0.0, 0.0)
    wrong = looked = 0
    for i, (x, g) in enumerate(zip(problem.point, gradients, strict=True)):
        for flat in np.linspace(0, x.size - 1, min(x.size, LOOKED_AT)).astype(int):
            index = tuple(int(n) for n in np.unravel_index(flat, x.shape))
            looked += 1
            direction = [np.zeros_like(a) for a in problem.point]
            direction[i][index] = 1.0
            terms = problem.along(direction)
            expected = slope(terms, step)
            error = abs(float(g[index]) - expected)
            error = np.inf if np.isnan(error) else error  # nothing is further off than NaN
            wrong += not error <= allowance(terms, problem, TOLERANCE, step)
            if error > worst[0]:
                worst = (error, i, index, float(g[index]), expected)
    error, i, index, got, expected = worst
    sizes = ", ".join(str(x.shape) for x in problem.point)
    total = sum(x.size for x in problem.point)
    return (
        f"  worst: input {i}, element {index}: backward says {got:.10g}, "
        f"differences say {expected:.10g} (off by {error:.3g})\n"
        f"  {wrong} of {looked} elements{' looked at' if looked < total else ''} are off; "
        f"inputs {sizes}\n"
    )
