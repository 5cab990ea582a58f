"""Floor 3: derivatives by differences, and how much of the disagreement is the differences' own.

A function f is followed along straight lines x + t·u in random directions u, over all inputs at
once, with a random cotangent v: φ(t) = ⟨v, f(x + t·u)⟩. What backward says about φ'(0) is
⟨vᵀJ, u⟩; what differences say is the four-point rule

    D(h) = (8·(φ(h) − φ(−h)) − (φ(2h) − φ(−2h))) / (12·h),

whose error falls with h⁴, while that of rounding grows with 1/h. The bound for the disagreement is
made from forward values alone, so that a wrong backward cannot widen its own. Where rounding would
be most of that bound there is no verdict, nor is there one at a kink or at the edge of the domain.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from minigan.autograd import grad
from minigan.functional import concatenate
from minigan.gradcheck.noise import WIDE, Terms, is_constant, jitter, noise
from minigan.tensor import Tensor

STEP = 1e-4
TOLERANCE = 1e-8
LOOKED_AT = 2000  # elements of an input, to say where a gradient is wrong
ROUNDING = 64 * 2.0**-52  # how far f may be off, relative to its size: 64 units in the last place
SWAMPED = 1e-3  # the share of what moved that rounding may take
NOISES = 20  # how many times the standard deviation of noise a value may be off
DIRECTIONS = 3


class GradcheckError(AssertionError):
    """A gradient that differs from the finite differences."""


class BackwardError(GradcheckError):
    """A backward that gives no gradient but an error."""


class Unmeasurable(ValueError):
    """Differences tell nothing about the derivative at the point given."""


class KinkError(Unmeasurable):
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


@contextmanager
def backward_runs(what: str) -> Iterator[None]:
    """Within the context an error is one of a backward, and says where it was raised."""
    try:
        yield
    except GradcheckError:  # of the backward of a lower order
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.name in ("backward", "fused_backward")]
        place = (own or frames)[-1]
        raise BackwardError(
            f"{what} raised {type(error).__name__}: {error}\n"
            f"  in {place.name}, {place.filename}, line {place.lineno}"
        ) from error


@dataclass(frozen=True)
class Problem:
    """A function at a point, under a cotangent.

    The function of order 2 takes the inputs and the cotangent of order 1, and so on.
    """

    function: Callable[..., Tensor]
    point: list[np.ndarray]
    cotangent: np.ndarray
    order: int = 1

    def name(self, i: int) -> str:
        """Return what the i-th array of the point is."""
        inputs = len(self.point) - (self.order - 1)
        return f"input {i}" if i < inputs else f"the cotangent of order {i - inputs + 1}"

    def along(self, direction: Sequence[np.ndarray]) -> Terms:
        """Return t ↦ v · f(x + t·u), element by element; each t is computed once."""

        def terms(t: float) -> np.ndarray:
            arrays = [x + t * u for x, u in zip(self.point, direction, strict=True)]
            with np.errstate(all="ignore"):  # what is not finite is reported, with its place
                return self.function(*map(leaf, arrays)).numpy() * self.cotangent

        return cache(terms)

    def gradients(self) -> list[np.ndarray]:
        """Return vᵀJ as backward has it, an array for each input."""
        leaves = [leaf(a, True) for a in self.point]
        output = self.function(*leaves)
        if not output.requires_grad:
            return [np.zeros_like(a) for a in self.point]
        with backward_runs(f"gradcheck, order {self.order}: backward"):
            found = grad(output, leaves, leaf(self.cotangent), allow_unused=True)
        return [
            np.zeros_like(a) if g is None else g.numpy()
            for a, g in zip(self.point, found, strict=True)
        ]

    def unconnected(self) -> str:
        """Return words about the inputs to which no history leads back, if there are any."""
        leaves = [leaf(a, True) for a in self.point]
        output = self.function(*leaves)
        found: Sequence[Tensor | None] = [None] * len(leaves)
        if output.requires_grad:
            found = grad(output, leaves, leaf(self.cotangent), allow_unused=True)
        names = [self.name(i) for i, g in enumerate(found) if g is None]
        if not names:
            return ""
        return (
            f"  the output is not connected to {', '.join(names)}: is there a no_grad, a detach or "
            "NumPy on the way?\n"
        )

    def elements(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield (i, index) for the elements of all arrays: of large ones LOOKED_AT, spread out."""
        for i, x in enumerate(self.point):
            for flat in np.linspace(0, x.size - 1, min(x.size, LOOKED_AT)).astype(int):
                yield i, tuple(int(n) for n in np.unravel_index(flat, x.shape))

    def one_element(self, i: int, index: tuple[int, ...], by: float = 1.0) -> list[np.ndarray]:
        """Return the direction along one element of one array."""
        direction = [np.zeros_like(a) for a in self.point]
        direction[i][index] = by
        return direction


def slope(terms: Terms, h: float) -> float:
    """Return the four-point difference of φ."""
    near, far = terms(h) - terms(-h), terms(2 * h) - terms(-2 * h)
    return float((8 * near - far).sum() / (12 * h))


def bend(terms: Terms, h: float) -> float:
    """Return the slope to the right less that to the left: it shrinks with h unless at a kink."""
    return float((terms(h) - 2 * terms(0.0) + terms(-h)).sum() / h)


def pace(terms: Terms, h: float) -> float:
    """Return how fast the terms move on one side, where they move most; so at a minimum too."""
    return float(max(np.abs(terms(t) - terms(0.0)).sum() for t in (h, -h)) / h)


def allowance(terms: Terms, tol: float, h: float, within: float) -> float:
    """Return how far backward may be from D(h): a share of the slope's size, and rounding.

    The sum of the terms' sizes and not the size of their sum, since they may cancel.

    Args:
        within: the size of what is rounded on the way.
    """
    moved = np.abs(terms(h) - terms(-h)).sum() / (2 * h)
    size = np.abs(terms(h)).sum() + within
    return float(tol * moved + ROUNDING * size / h)


def allowance_of_bends(
    terms: Terms, problem: Problem, tol: float, h: float, within: float
) -> float:
    """Return how far bends at h and h/2 may be apart, which are known less well than slopes.

    Their error falls with h² only. At a minimum of size 0 they are all that there is, and judged by
    their own size.
    """
    curved = np.abs(terms(h) - 2 * terms(0.0) + terms(-h)).sum() / h
    most = max(within, float(np.abs(problem.cotangent).sum()))
    allowed, most = (allowance(terms, tol, h, size) for size in (within, most))
    return min(1000 * allowed + 1e-3 * float(curved), 1000 * most)


def derivative(function: Callable[..., Tensor], count: int) -> Callable[..., Tensor]:
    """Return (x, v) ↦ vᵀJ of a function of `count` inputs, all parts in one flat tensor."""

    def vector_jacobian(*tensors: Tensor) -> Tensor:
        inputs, cotangent = tensors[:count], tensors[count]
        inputs = [x if x.requires_grad else x.detach().requires_grad_() for x in inputs]
        output = function(*inputs)
        if not output.requires_grad:
            return concatenate([(x * 0.0).reshape(-1) for x in inputs])
        with backward_runs("gradcheck: backward, recorded to be differentiated again,"):
            found = grad(output, inputs, cotangent, create_graph=True, allow_unused=True)
        parts = [x * 0.0 if g is None else g for x, g in zip(inputs, found, strict=True)]
        return concatenate([part.reshape(-1) for part in parts])

    return vector_jacobian


def compare(
    problem: Problem,
    random: np.random.Generator,
    tolerance: float = TOLERANCE,
    step: float = STEP,
    spare: int = 0,
    explain: bool = True,
) -> tuple[float, int]:
    """Compare backward with differences along `DIRECTIONS` random lines.

    Args:
        spare: how many directions may be rejected because differences disagree among themselves.
        explain: whether a failure is located, which takes differences of every element.

    Returns:
        The largest error as a share of what is allowed, and the number of directions rejected.

    Raises:
        GradcheckError: backward is wrong, or raises an error.
        KinkError: more directions than `spare` were rejected.
        Unmeasurable: the function is not finite beside the point, or rounding hides its slope.
    """

    def draw() -> tuple[list[np.ndarray], Terms]:
        direction = [bounded(random, a.shape) for a in problem.point]
        terms = problem.along(direction)
        _check_finite(problem, direction, terms, step)
        return direction, terms

    gradients = problem.gradients()
    lines = [draw() for _ in range(DIRECTIONS)]
    all_terms = [terms for _, terms in lines]
    fastest = max(pace(terms, step) for terms in all_terms)
    if what := _too_large(problem, all_terms, step, fastest):
        raise _no_verdict(problem, what)
    # To begin with, the rounding of the inputs; counted up to that of values of size 1.
    largest = max(np.abs(x).max(initial=0.0) for x in problem.point)
    within = min(fastest * largest, float(np.abs(problem.cotangent).sum()))
    worst, rejected, measured = 0.0, 0, False
    while lines:
        direction, terms = lines[0]
        allowed = allowance(terms, tolerance, step, within)
        bent = allowance_of_bends(terms, problem, tolerance, step, within)
        kink = _kink(terms, step, allowed, bent)
        expected = slope(terms, step / 2)
        claimed = sum(float((g * u).sum()) for g, u in zip(gradients, direction, strict=True))
        error = abs(claimed - expected)
        if (kink or not error <= allowed) and not measured:
            within += NOISES * max(jitter(terms, step) for terms in all_terms) / ROUNDING
            measured = True
            if what := _too_large(problem, all_terms, step, fastest, within):
                if kink:
                    raise KinkError(f"gradcheck, order {problem.order}: {kink}")
                raise _no_verdict(problem, what)
            continue
        if not (kink or error <= allowed):
            coarse = max(float(noise(t, 0.0, WIDE * step, order=6).sum()) for t in all_terms)
            if error * step <= NOISES * coarse:
                raise _no_verdict(problem, f"its values jump by {coarse:.3g} here and there")
        lines.pop(0)
        if kink:
            rejected += 1
            if rejected > spare:
                raise KinkError(f"gradcheck, order {problem.order}: {kink}")
            lines.append(draw())
            continue
        if not error <= allowed:
            where = ""
            if explain:
                where = _locate(problem, gradients, tolerance, step, within)
                where += problem.unconnected()
            raise GradcheckError(
                f"gradcheck, order {problem.order}: backward disagrees with finite differences.\n"
                f"{where}  along a random direction: {claimed:.12g} against {expected:.12g}, "
                f"{error / allowed if allowed else np.inf:.3g} times what is allowed"
            )
        worst = max(worst, error / allowed if error else 0.0)
    return worst, rejected


def _check_finite(problem: Problem, direction: list[np.ndarray], terms: Terms, step: float) -> None:
    """Raise where the function leaves its domain, or overflows, at a point of a difference."""
    for t in (step / 2, -step / 2, step, -step, 2 * step, -2 * step):
        if not np.isfinite(terms(t)).all():
            raise Unmeasurable(
                f"gradcheck, order {problem.order}: the function is not finite beside the point:\n"
                f"  {_not_finite(problem, direction, t)}\n"
                "  move the inputs away from there, or choose a smaller step"
            )


def _not_finite(problem: Problem, direction: list[np.ndarray], t: float) -> str:
    """Return which element leads out of the domain, if one alone does."""
    for i, index in problem.elements():
        u = float(direction[i][index])
        values = problem.along(problem.one_element(i, index, u))(t)
        if not np.isfinite(values).all():
            bad = values[~np.isfinite(values)][0]
            return (
                f"{problem.name(i)}, element {index}: {problem.point[i][index]:.10g} moved to "
                f"{problem.point[i][index] + t * u:.10g} gives {'NaN' if np.isnan(bad) else 'Inf'}"
            )
    return f"not for one element alone, but with all inputs moved by up to {abs(1.5 * t):.3g}"


def _no_verdict(problem: Problem, what: str) -> Unmeasurable:
    return Unmeasurable(
        f"gradcheck, order {problem.order}: {what}; too flat or too large to measure: rescale it, "
        "or choose another step"
    )


def _too_large(
    problem: Problem, lines: list[Terms], step: float, fastest: float, within: float = 0.0
) -> str:
    """Return what rounding, of the inputs, the values or on the way, is too much of what moves."""
    drowns = f"and a step of {step:g} drowns in rounding"
    for i, x in enumerate(problem.point):
        if x.size and ROUNDING * np.abs(x).max() > SWAMPED * step:
            index = tuple(map(int, np.unravel_index(np.abs(x).argmax(), x.shape)))
            return f"{problem.name(i)}, element {index}, is {x[index]:.3g}, {drowns}"
    values = max(float(np.abs(terms(step)).sum()) for terms in lines)
    size = values + within
    usual = values + min(within, float(np.abs(problem.cotangent).sum()))
    if ROUNDING * size >= SWAMPED * step * fastest and not is_constant(
        lines, step, ROUNDING * usual
    ):
        return (
            f"its values, or what they are made of, have size {size:.3g} and move by "
            f"{step * fastest:.3g}, {drowns}"
        )
    return ""


def _kink(terms: Terms, step: float, allowed: float, bent: float) -> str:
    """Return what is wrong with the differences themselves, if anything."""
    wide, narrow = slope(terms, step), slope(terms, step / 2)
    right, straighter = bend(terms, step), 2 * bend(terms, step / 2)
    if abs(wide - narrow) <= allowed and abs(right - straighter) <= bent:
        return ""
    return (
        f"differences at h = {step:g} and h/2 disagree (slopes {wide:.10g} and {narrow:.10g}, "
        f"bends {right:.3g} and {straighter:.3g}): the inputs are at or near a kink, or the "
        "function is noisy there: move the inputs or choose another step"
    )


def _locate(
    problem: Problem, gradients: list[np.ndarray], tolerance: float, step: float, within: float
) -> str:
    """Difference every element of every input, and say where the gradient is furthest off.

    Of large inputs only some elements: each costs six evaluations.
    """
    worst: tuple[Any, ...] = (-1.0, 0, (), 0.0, 0.0)
    wrong = looked = 0
    for i, index in problem.elements():
        looked += 1
        terms = problem.along(problem.one_element(i, index))
        got, expected = float(gradients[i][index]), slope(terms, step / 2)
        error = abs(got - expected)
        error = np.inf if np.isnan(error) else error  # nothing is further off than NaN
        wrong += not error <= allowance(terms, tolerance, step, within)
        if error > worst[0]:
            worst = (error, i, index, got, expected)
    error, i, index, got, expected = worst
    inputs = len(problem.point) - (problem.order - 1)
    sizes = ", ".join(str(x.shape) for x in problem.point[:inputs])
    for k, x in enumerate(problem.point[inputs:], inputs):
        sizes += f"; {problem.name(k)} {x.shape}"
    total = sum(x.size for x in problem.point)
    return (
        f"  worst: {problem.name(i)}, element {index}: backward says {got:.10g}, "
        f"differences say {expected:.10g} (off by {error:.3g})\n"
        f"  {wrong} of {looked} elements{' looked at' if looked < total else ''} are off; "
        f"inputs {sizes}\n"
    )
