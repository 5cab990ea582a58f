"""Floor 2: matrix products."""

from __future__ import annotations

import numpy as np

from minigan.autograd import Op
from minigan.ops.shape import reshape, sum_to, transpose
from minigan.tensor import Tensor, lift


class Matmul(Op):
    """Y = A B over the last two axes, the others broadcast."""

    def forward(self, a, b):
        self.save(0, 1)
        stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        y = self.xp.empty((*stack, a.shape[-2], b.shape[-1]), dtype=a.dtype)
        self.work = y.size * a.shape[-1]
        self.backend.matmul(a, b, out=y)
        return y

    def backward(self, gy):
        a, b = self.saved()
        ga = sum_to(Matmul()(gy, swap_last(b)), a.shape) if self.needs[0] else None
        gb = sum_to(Matmul()(swap_last(a), gy), b.shape) if self.needs[1] else None
        return ga, gb


def swap_last(x: Tensor) -> Tensor:
    """Return x with its last two axes exchanged."""
    return transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return the matrix product, by NumPy's rules for vectors and for stacks of matrices.

    Args:
        a: (..., M, K), or a vector (K,).
        b: (..., K, N), or a vector (K,).

    Raises:
        ValueError: a scalar, inner sizes that differ, or stacks that do not broadcast.
    """
    a, b = lift(a, b)
    if not a.ndim or not b.ndim:
        raise ValueError(f"matmul: needs at least vectors, got {a.shape} and {b.shape}")
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(f"matmul: inner sizes differ: {a.shape} @ {b.shape}")
    try:
        stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"matmul: stacks do not broadcast: {a.shape} @ {b.shape}") from None
    shape = (*stack, *a.shape[-2:-1], *(b.shape[-1:] if b.ndim > 1 else ()))
    a = a if a.ndim > 1 else reshape(a, (1, -1))
    b = b if b.ndim > 1 else reshape(b, (-1, 1))
    if b.ndim == 2 and a.ndim > 2:  # one big product beats a stack of small ones
        a = reshape(a, (int(np.prod(a.shape[:-1])), a.shape[-1]))
    return reshape(Matmul()(a, b), shape)
