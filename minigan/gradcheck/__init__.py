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
from minigan.tensor import Tensor

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
        TypeError: inputs that are not float64, or a function that does not return a Tensor.
        ValueError: non-finite values, a function that is not deterministic, order < 1, a step or a
            tolerance that is not a positive number.
    """
    if order < 1:
        raise ValueError(f"gradcheck: order must be at least 1, got {order}")
    for what, value in (("step", step), ("tolerance", tolerance)):
        if not (isinstance(value, numbers.Real) and math.isfinite(value) and value > 0):
            raise ValueError(f"gradcheck: {what} must be a positive number, got {value!r}")
    arrays = _point(inputs)
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


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Number) and not isinstance(value, np.generic)


def _point(inputs: Sequence[Any] | Tensor) -> list[np.ndarray]:
    if _is_number(inputs):
        raise TypeError(
            f"gradcheck: the inputs are one {type(inputs).__name__}; give a list with an array or "
            f"tensor for each argument of the function: [np.array({inputs!s})]"
        )
    inputs = [inputs] if isinstance(inputs, (Tensor, np.ndarray)) else list(inputs)
    for i, x in enumerate(inputs):
        if _is_number(x):
            raise TypeError(
                f"gradcheck: input {i} is the number {x!s}, and each input must be an array or a "
                "tensor; is the list one input? Then write [np.array([...])]; if not, "
                f"np.array({x!s})"
            )
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
