"""Floor 3: checking gradients against finite differences, for any function of tensors.

The cotangent is random: with ones the gradient of a softmax or of a batch normalisation is zero,
and a backward that returns zero would pass. The second order is the first order of (x, v) ↦ vᵀJ.

From a shell, `python -m minigan.gradcheck` runs the check over every operation of the engine, or
over a function of yours; see `minigan.specs`.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigan.gradcheck.differences import (
    STEP,
    TOLERANCE,
    BackwardError,
    GradcheckError,
    KinkError,
    Problem,
    Unmeasurable,
    bounded,
    compare,
    derivative,
    leaf,
)
from minigan.tensor import Tensor, switched

__all__ = ["STEP", "TOLERANCE", "GradcheckError", "KinkError", "Unmeasurable", "gradcheck"]


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
        tolerance: the error allowed, relative to the size of the forward values' changes; > 0.
        step: h, the distance between the points of a difference; > 0.

    Returns:
        The largest error as a share of what is allowed, at most 1.

    Raises:
        GradcheckError: a derivative is wrong; names the function, order, input, element, both
            values and the seed. Or backward raises an error; names that, and its place.
        KinkError: a ValueError; differences at h and h/2 disagree, or those to the left and to the
            right: there is a kink, or noise, at this point.
        Unmeasurable: a ValueError; the function is not finite beside the point, or rounding hides
            its slope, because it is too flat or the numbers are too large.
        TypeError: inputs that are not float64, something that is no function or does not return a
            Tensor, an order or a seed that is no whole number.
        ValueError: non-finite values, a function that is not deterministic, order < 1, seed < 0, a
            step or a tolerance that is not a positive number.
    """
    if not callable(function):
        raise TypeError(f"gradcheck: the function is a {type(function).__name__}, no function")
    for what, value, least in (("order", order, 1), ("seed", seed, 0)):
        if not isinstance(value, numbers.Integral):
            raise TypeError(f"gradcheck: {what} must be a whole number, got {value!r}")
        if value < least:
            raise ValueError(f"gradcheck: {what} must be at least {least}, got {value}")
    for what, value in (("step", step), ("tolerance", tolerance)):
        if not (isinstance(value, numbers.Real) and math.isfinite(value) and value > 0):
            raise ValueError(f"gradcheck: {what} must be a positive number, got {value!r}")
    arrays = _point(inputs)
    with switched("recording", True):  # in a no_grad() too
        return _check_orders(function, arrays, order, seed, tolerance, step)


def _check_orders(
    function: Callable[..., Tensor],
    arrays: list[np.ndarray],
    order: int,
    seed: int,
    tolerance: float,
    step: float,
) -> float:
    random = np.random.default_rng(seed)
    name = getattr(function, "__name__", type(function).__name__)
    worst = 0.0
    for level in range(1, order + 1):
        try:
            output = _evaluate(function, arrays, level)
            if level > 1 and not output.size:
                break
            cotangent = bounded(random, output.shape)
            problem = Problem(function, arrays, cotangent, level)
            error, _ = compare(problem, random, tolerance, step)
        except GradcheckError as wrong:
            kind = BackwardError if isinstance(wrong, BackwardError) else GradcheckError
            raise kind(f"{wrong}\n  function {name}, seed {seed}") from wrong.__cause__
        worst = max(worst, error)
        function, arrays = derivative(function, len(arrays)), [*arrays, cotangent]
    return worst


def _point(inputs: Sequence[Any] | Tensor) -> list[np.ndarray]:
    if isinstance(inputs, (numbers.Number, str)) or not hasattr(inputs, "__iter__"):
        raise TypeError(
            f"gradcheck: the inputs are one {type(inputs).__name__}; give a list with an array or "
            f"tensor for each argument of the function: [np.array({inputs!s})]"
        )
    inputs = [inputs] if isinstance(inputs, (Tensor, np.ndarray)) else list(inputs)
    for i, x in enumerate(inputs):
        if isinstance(x, numbers.Number) and not isinstance(x, np.generic):
            raise TypeError(
                f"gradcheck: input {i} is the number {x!s}, and each input must be an array or a "
                "tensor; is the list one input? Then write [np.array([...])]; if not, "
                f"np.array({x!s})"
            )
    arrays = [_array(i, x) for i, x in enumerate(inputs)]
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


def _array(i: int, x: Any) -> np.ndarray:
    """Return an input as an array of its own, in the byte order of the machine."""
    if isinstance(x, Tensor):
        return x.numpy()
    try:
        array = np.array(x)
    except ValueError as error:
        raise ValueError(
            f"gradcheck: input {i} is no array: its rows have different lengths ({error})"
        ) from error
    return array.astype(array.dtype.newbyteorder("="))


def _evaluate(function: Callable[..., Tensor], arrays: list[np.ndarray], level: int) -> Tensor:
    """Run the function twice; check what it returns and that it does so both times."""
    who = "the function" if level == 1 else f"the derivative of order {level - 1}"
    outputs = [function(*(leaf(a, True) for a in arrays)) for _ in range(2)]
    for output in outputs:
        if not isinstance(output, Tensor):
            raise TypeError(f"gradcheck: the function returned {type(output).__name__}, no Tensor")
        if output.dtype != np.float64:
            raise TypeError(f"gradcheck: the function returned {output.dtype}, not float64")
    first, second = (output.numpy() for output in outputs)
    if not np.isfinite(first).all():
        raise ValueError(f"gradcheck: {who} returns NaN or Inf at this point")
    if first.shape != second.shape or not np.array_equal(first, second):
        raise ValueError(f"gradcheck: {who} gives different values for the same inputs")
    return outputs[0]
