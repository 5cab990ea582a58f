"""Floor 2: moving numbers about without changing them.

All of these are linear, and they come in pairs: the backward of one is the other.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigan.autograd import Op
from minigan.tensor import Tensor, lift

Axes = int | Sequence[int] | None


def normalize_axes(axis: Axes, ndim: int, who: str) -> tuple[int, ...]:
    """Return axes as a sorted tuple of numbers in [0, ndim); all of them for None.

    Raises:
        TypeError: an axis that is not a whole number.
        ValueError: an axis that is not there, or one named twice.
    """
    if axis is None:
        return tuple(range(ndim))
    try:
        given = tuple(map(operator.index, axis if np.iterable(axis) else (axis,)))
    except TypeError:
        raise TypeError(f"{who}: axis must be one or several integers, got {axis!r}") from None
    if any(not -ndim <= a < ndim for a in given):
        raise ValueError(f"{who}: axis {axis} is out of range for {ndim} dimension(s)")
    axes = tuple(sorted(a % ndim for a in given))
    if len(set(axes)) != len(axes):
        raise ValueError(f"{who}: axis {axis} names one dimension twice")
    return axes


class BroadcastTo(Op):
    """y = x repeated along new and size-1 axes."""

    view = True

    def forward(self, x):
        return self.xp.broadcast_to(x, self.shape)

    def backward(self, gy):
        return sum_to(gy, self.shapes[0])


class SumTo(Op):
    """y = x summed over the axes along which `shape` would be broadcast: BroadcastTo's adjoint."""

    def forward(self, x):
        new = x.ndim - len(self.shape)
        ones = tuple(i + new for i, n in enumerate(self.shape) if n == 1 and x.shape[i + new] != 1)
        return x.sum(axis=(*range(new), *ones), keepdims=True).reshape(self.shape)

    def backward(self, gy):
        return broadcast_to(gy, self.shapes[0])


class Reshape(Op):
    """y = x in another shape, in row-major order."""

    view = True

    def forward(self, x):
        return x.reshape(self.shape)

    def backward(self, gy):
        return reshape(gy, self.shapes[0])


class Transpose(Op):
    """y = x with its axes in another order."""

    view = True

    def forward(self, x):
        return x.transpose(self.axes)

    def backward(self, gy):
        return transpose(gy, tuple(int(i) for i in np.argsort(self.axes)))


class Getitem(Op):
    """y = x[index]."""

    view = True

    def forward(self, x):
        return x[self.index]

    def backward(self, gy):
        return Putitem(index=self.index, shape=self.shapes[0])(gy)


class Putitem(Op):
    """y = zeros with x added at `index`, once for every repeat: Getitem's adjoint."""

    def forward(self, x):
        y = self.xp.zeros(self.shape, dtype=x.dtype)
        if has_array(self.index):
            self.backend.add_at(y, self.index, x)
        else:
            y[self.index] = x
        return y

    def backward(self, gy):
        return getitem(gy, self.index)


class Concatenate(Op):
    """y = the inputs one after another along an axis."""

    def forward(self, *arrays):
        return self.backend.concatenate(arrays, self.axis)

    def backward(self, gy):
        parts = zip(self.needs, self.parts(), strict=True)
        return tuple(getitem(gy, part) if need else None for need, part in parts)

    def fused_backward(self, gy):
        parts = zip(self.needs, self.parts(), strict=True)
        return tuple(gy[part] if need else None for need, part in parts)

    def parts(self):
        """Yield where in y each input is."""
        start = 0
        for shape in self.shapes:
            stop = start + shape[self.axis]
            yield (*[slice(None)] * self.axis, slice(start, stop))
            start = stop


class Pad(Op):
    """y = x with `before` and `after` constants on each axis."""

    def forward(self, x):
        sides = [(n + a + b) for n, (a, b) in zip(x.shape, self.widths, strict=True)]
        y = self.xp.full(sides, self.value, dtype=x.dtype)
        y[self.inside(x.shape)] = x
        return y

    def backward(self, gy):
        return getitem(gy, self.inside(self.shapes[0]))

    def inside(self, shape):
        return tuple(slice(a, a + n) for n, (a, _) in zip(shape, self.widths, strict=True))


def has_array(index: Any) -> bool:
    """Return whether an index holds arrays or lists, so that entries may repeat."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(hasattr(part, "dtype") and part.ndim > 0 for part in parts)


def broadcast_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return x repeated to `shape` by NumPy's broadcasting rule.

    Raises:
        ValueError: x does not broadcast to that shape.
    """
    (x,), shape = lift(x), tuple(shape)
    if x.shape == shape:
        return x
    fits = len(shape) >= x.ndim and all(
        n in (1, m) for n, m in zip(x.shape[::-1], shape[::-1], strict=False)
    )
    if not fits:
        raise ValueError(f"broadcast_to: {x.shape} does not broadcast to {shape}")
    return BroadcastTo(shape=shape)(x)


def sum_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return x summed down to `shape`, from which it could have been broadcast."""
    return x if x.shape == tuple(shape) else SumTo(shape=tuple(shape))(x)


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return x in another shape; one -1 stands for whatever is left.

    Raises:
        ValueError: the number of elements differs.
    """
    if any(n != int(n) or n < -1 for n in shape):
        raise ValueError(f"reshape: {tuple(shape)} is no shape: whole numbers >= 0, or one -1")
    shape = tuple(int(n) for n in shape)
    rest = math.prod(n for n in shape if n != -1)
    if shape.count(-1) == 1 and rest and x.size % rest == 0:
        shape = tuple(x.size // rest if n == -1 else n for n in shape)
    if -1 in shape or math.prod(shape) != x.size:
        raise ValueError(f"reshape: {x.shape} has {x.size} elements, {shape} does not")
    return x if shape == x.shape else Reshape(shape=shape)(x)


def transpose(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Return x with its axes in the given order; reversed for None.

    Raises:
        ValueError: `axes` is not a permutation.
    """
    axes = tuple(range(x.ndim))[::-1] if axes is None else tuple(int(a) for a in axes)
    if len(axes) != x.ndim or normalize_axes(axes, x.ndim, "transpose") != tuple(range(x.ndim)):
        raise ValueError(f"transpose: {axes} is not an order of {x.ndim} axes")
    return Transpose(axes=tuple(a % x.ndim for a in axes))(x)


def squeeze(x: Tensor, axis: Axes = None) -> Tensor:
    """Return x without these axes of size 1; without all such for None.

    Raises:
        ValueError: an axis of another size.
    """
    if axis is None:
        return reshape(x, [n for n in x.shape if n != 1])
    axes = normalize_axes(axis, x.ndim, "squeeze")
    if any(x.shape[a] != 1 for a in axes):
        raise ValueError(f"squeeze: axis {axis} of {x.shape} is not of size 1")
    return reshape(x, [n for a, n in enumerate(x.shape) if a not in axes])


def expand_dims(x: Tensor, axis: Axes) -> Tensor:
    """Return x with new axes of size 1, at these positions of the result."""
    count = len(axis) if np.iterable(axis) else 1
    axes = normalize_axes(axis, x.ndim + count, "expand_dims")
    sizes = iter(x.shape)
    return reshape(x, [1 if a in axes else next(sizes) for a in range(x.ndim + count)])


def getitem(x: Tensor, index: Any) -> Tensor:
    """Return x[index]: integers, slices, integer or boolean arrays, ellipsis, newaxis.

    Arrays may be NumPy's, lists or integer tensors; entries may repeat.

    Raises:
        IndexError: out of range, or not an index.
    """
    is_tuple = isinstance(index, tuple)
    parts = tuple(_index_part(x, p) for p in index) if is_tuple else _index_part(x, index)
    try:
        return Getitem(index=parts)(x)
    except IndexError as error:
        raise IndexError(f"getitem: {error}; the tensor has shape {x.shape}") from None


def _index_part(x: Tensor, part: Any) -> Any:
    """Return one part of an index; an array as a copy of its own, since backward reads it again."""
    if isinstance(part, Tensor):
        part = part.data
    elif isinstance(part, (list, range)):
        part = np.asarray(part, dtype=None if len(part) else np.int64)
    if getattr(part, "dtype", np.dtype(np.int64)).kind not in "iub":
        raise IndexError(f"getitem: an index must be integers or booleans, got {part.dtype}")
    if not hasattr(part, "copy") or isinstance(part, slice):
        return part
    return x.backend.from_host(part.copy()) if isinstance(part, np.ndarray) else part.copy()


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Return the tensors joined along an axis they have.

    Raises:
        ValueError: none given, or shapes that differ elsewhere than on `axis`.
    """
    tensors = lift(*tensors)
    if not tensors:
        raise ValueError("concatenate: no tensors given")
    (axis,) = normalize_axes(axis, tensors[0].ndim, "concatenate")
    rest = {(t.ndim, *t.shape[:axis], *t.shape[axis + 1 :]) for t in tensors}
    if len(rest) > 1:
        shapes = ", ".join(str(t.shape) for t in tensors)
        raise ValueError(f"concatenate: {shapes} differ elsewhere than on axis {axis}")
    return Concatenate(axis=axis)(*tensors)


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Return the tensors, all of one shape, joined along a new axis.

    Raises:
        ValueError: none given, or shapes that differ.
    """
    tensors = lift(*tensors)
    if len({t.shape for t in tensors}) != 1:
        shapes = ", ".join(str(t.shape) for t in tensors) or "nothing"
        raise ValueError(f"stack: needs tensors of one shape, got {shapes}")
    (axis,) = normalize_axes(axis, tensors[0].ndim + 1, "stack")
    return concatenate([expand_dims(t, axis) for t in tensors], axis)


def pad(
    x: Tensor, widths: Sequence[tuple[int, int]], mode: str = "constant", value: float = 0.0
) -> Tensor:
    """Return x with `widths[axis] = (before, after)` more entries on every axis, as np.pad.

    Args:
        mode: "constant" puts `value` there; "reflect" mirrors without repeating the edge.

    Raises:
        ValueError: not one pair for each axis, negative widths, an unknown mode, or a reflection
            wider than the axis less one.
    """
    widths = [tuple(int(w) for w in np.ravel(pair)) for pair in widths]
    if len(widths) != x.ndim or any(len(pair) != 2 or min(pair) < 0 for pair in widths):
        raise ValueError(f"pad: {widths} is not one (before, after) pair, >= 0, per axis {x.shape}")
    if mode == "constant":
        return Pad(widths=widths, value=value)(x)
    if mode != "reflect":
        raise ValueError(f"pad: mode {mode!r} is unknown: use 'constant' or 'reflect'")
    for axis, (before, after) in enumerate(widths):
        n = x.shape[axis]
        if max(before, after) >= max(n, 1):
            raise ValueError(
                f"pad: reflecting {widths[axis]} needs more than {n} entries on {axis}"
            )
        if before or after:
            order = np.pad(np.arange(n), (before, after), mode="reflect")
            x = getitem(x, (*[slice(None)] * axis, order))
    return x


def flip(x: Tensor, axis: Axes = None) -> Tensor:
    """Return x with the order along these axes reversed; along all for None."""
    axes = normalize_axes(axis, x.ndim, "flip")
    return getitem(x, tuple(slice(None, None, -1 if a in axes else None) for a in range(x.ndim)))


def embedding(indices: Any, weight: Tensor) -> Tensor:
    """Return the rows of `weight` (count, features) at integer `indices`, (..., features).

    Raises:
        IndexError: indices that are not integers, or outside [0, count).
    """
    rows = indices.data if isinstance(indices, Tensor) else np.asarray(indices)
    if rows.dtype.kind not in "iu":
        raise IndexError(f"embedding: indices must be integers, got {rows.dtype}")
    if rows.size and (rows.min() < 0 or rows.max() >= weight.shape[0]):
        raise IndexError(
            f"embedding: indices from {rows.min()} to {rows.max()} for {weight.shape[0]} rows"
        )
    return getitem(weight, rows)
