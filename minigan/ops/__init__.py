"""Floor 2: the operations, one family a file. Importing it gives tensors their arithmetic."""

from __future__ import annotations

from typing import Any

from minigan.ops import activation, arithmetic, linalg, reduction, shape
from minigan.tensor import Tensor, lift


def _reflected(function: Any) -> Any:
    return lambda b, a: function(a, b)


def _comparison(name: str) -> Any:
    def compare(self: Tensor, other: Any) -> Tensor:
        a, b = lift(self, other)
        return Tensor._wrap(a.backend.xp.asarray(getattr(a.data, name)(b.data)), a.backend)

    return compare


def _unpack(sizes: tuple) -> tuple:
    """Let `x.reshape(2, 3)` mean `x.reshape((2, 3))`."""
    return sizes[0] if len(sizes) == 1 and hasattr(sizes[0], "__iter__") else sizes


def _reshape(self: Tensor, *sizes: Any) -> Tensor:
    """Return the tensor in another shape; one -1 stands for whatever is left."""
    return shape.reshape(self, _unpack(sizes))


def _transpose(self: Tensor, *axes: Any) -> Tensor:
    """Return the tensor with its axes in the given order; reversed for none."""
    return shape.transpose(self, _unpack(axes) if axes else None)


for _name in ("add", "sub", "mul", "pow"):
    setattr(Tensor, f"__{_name}__", getattr(arithmetic, _name))
    setattr(Tensor, f"__r{_name}__", _reflected(getattr(arithmetic, _name)))
Tensor.__truediv__, Tensor.__rtruediv__ = arithmetic.div, _reflected(arithmetic.div)
Tensor.__matmul__, Tensor.__rmatmul__ = linalg.matmul, _reflected(linalg.matmul)
Tensor.__neg__, Tensor.__abs__ = arithmetic.neg, arithmetic.abs
Tensor.__getitem__, Tensor.astype = shape.getitem, arithmetic.cast
for _name in ("gt", "ge", "lt", "le", "eq", "ne"):
    setattr(Tensor, f"__{_name}__", _comparison(f"__{_name}__"))
Tensor.__hash__ = object.__hash__  # defining == takes it away; tensors are keys by identity

for _module, _names in (
    (arithmetic, "exp log sqrt abs clip"),
    (reduction, "sum mean max min var"),
    (shape, "broadcast_to squeeze expand_dims flip"),
    (activation, "relu tanh sigmoid"),
):
    for _name in _names.split():
        setattr(Tensor, _name, getattr(_module, _name))
Tensor.reshape, Tensor.transpose = _reshape, _transpose
Tensor.T = property(lambda self: shape.transpose(self))
