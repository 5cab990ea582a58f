"""Floor 2: sums, means and their relatives over any axes."""

from __future__ import annotations

import math
from typing import Any

from minigan.autograd import Op
from minigan.backend import Backend
from minigan.ops.arithmetic import exp, log
from minigan.ops.shape import Axes, broadcast_to, normalize_axes, reshape
from minigan.tensor import Tensor


class Sum(Op):
    """y = x summed over `axes`, times `scale`."""

    scale = 1.0

    def forward(self, x):
        return self.scaled(self.total(x))

    def total(self, x):
        """Return the sum itself, of columns as a product."""
        if x.size and x.ndim > 1 and self.axes == tuple(range(x.ndim - 1)):
            sums = column_sums(self.backend, x.reshape(-1, x.shape[-1]))
            return sums.reshape(kept(x.shape, self.axes) if self.keepdims else x.shape[-1:])
        return x.sum(axis=self.axes, keepdims=self.keepdims)

    def backward(self, gy):
        shape = kept(self.shapes[0], self.axes)
        return broadcast_to(reshape(self.scaled(gy), shape), self.shapes[0])

    def fused_backward(self, gy):
        shape = kept(self.shapes[0], self.axes)
        return self.xp.broadcast_to(self.scaled(gy).reshape(shape), self.shapes[0])

    def scaled(self, a):
        return a if self.scale == 1 else a * self.scale


def column_sums(backend: Backend, rows: Any) -> Any:
    """Return the sum of each column of (M, C)."""
    return added(backend.blocks(lambda rows: ones_times(backend, rows), rows))


def ones_times(backend: Backend, rows: Any, out: Any = None) -> Any:
    """Return the product of a row of ones with (M, C), in `out` if there is one.

    A BLAS adds up rows five times as fast as sum(axis=0) does.
    """
    sums = backend.xp.empty(rows.shape[1], dtype=rows.dtype) if out is None else out
    ones = backend.xp.ones((1, len(rows)), dtype=rows.dtype)
    backend.matmul(ones, rows, out=sums.reshape(1, -1))
    return sums


def added(parts: list[Any]) -> Any:
    """Return the sum of arrays, in their order."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


class Max(Op):
    """y = the largest of x over `axes`; equal ones share the gradient."""

    def forward(self, x):
        return self.pick(x, x.max(axis=self.axes, keepdims=True))

    def pick(self, x, best):
        mask = (x == best) | (x != x)  # where there is a NaN, it is the largest
        self.share = mask / mask.sum(axis=self.axes, keepdims=True, dtype=x.dtype)
        return best if self.keepdims else best.squeeze(self.axes)

    def backward(self, gy):
        return reshape(gy, kept(self.shapes[0], self.axes)) * self.share


class Min(Max):
    """y = the smallest of x over `axes`; equal ones share the gradient."""

    def forward(self, x):
        return self.pick(x, x.min(axis=self.axes, keepdims=True))


def kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """Return `shape` with 1 at the reduced axes."""
    return tuple(1 if a in axes else n for a, n in enumerate(shape))


def count(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    """Return how many elements each result of a reduction is made from."""
    return math.prod(shape[a] for a in axes)


def sum(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the sum over `axis` (an int, several, or None for all).

    Raises:
        ValueError: an axis that x has not (so in all of this file).
    """
    return Sum(axes=normalize_axes(axis, x.ndim, "sum"), keepdims=keepdims)(x)


def mean(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the mean over `axis`.

    Raises:
        ValueError: over no elements.
    """
    axes = normalize_axes(axis, x.ndim, "mean")
    n = count(x.shape, axes)
    if not n:
        raise ValueError(f"mean: of no elements, axis {axis} of shape {x.shape}")
    return Sum(axes=axes, keepdims=keepdims, scale=1.0 / n)(x)


def max(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the largest over `axis`; equal ones share the gradient.

    Raises:
        ValueError: over no elements.
    """
    return _extremum(Max, x, axis, keepdims)


def min(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the smallest over `axis`; equal ones share the gradient.

    Raises:
        ValueError: over no elements.
    """
    return _extremum(Min, x, axis, keepdims)


def _extremum(op: type[Op], x: Tensor, axis: Axes, keepdims: bool) -> Tensor:
    axes = normalize_axes(axis, x.ndim, op.name())
    if not count(x.shape, axes):
        raise ValueError(f"{op.name()}: of no elements, axis {axis} of shape {x.shape}")
    return op(axes=axes, keepdims=keepdims)(x)


def var(x: Tensor, axis: Axes = None, keepdims: bool = False, correction: int = 1) -> Tensor:
    """Return the variance over `axis` in two passes, divided by n − `correction`.

    1 is PyTorch's default (unbiased), 0 the population variance.

    Raises:
        ValueError: no more than `correction` elements.
    """
    axes = normalize_axes(axis, x.ndim, "var")
    n = count(x.shape, axes)
    if n <= correction:
        raise ValueError(f"var: of {n} element(s) with correction={correction}, shape {x.shape}")
    centred = x - mean(x, axes, keepdims=True)
    return sum(centred * centred, axes, keepdims) * (1.0 / (n - correction))


def logsumexp(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return log Σ e^x over `axis`, without overflow.

    Raises:
        ValueError: over no elements.
    """
    axes = normalize_axes(axis, x.ndim, "logsumexp")
    xp = x.backend.xp
    top = max(x.detach(), axes, keepdims=True)  # a constant: it cancels, so it has no gradient
    top = Tensor(xp.where(xp.isfinite(top.data), top.data, 0), dtype=x.dtype)
    y = log(sum(exp(x - top), axes, keepdims=True)) + top
    return y if keepdims else reshape(y, [n for a, n in enumerate(x.shape) if a not in axes])
