"""Floor 2: activations. Each is written so that it is exact at both ends of its range."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minigan import backend as backends
from minigan.autograd import OUT, Op
from minigan.ops.arithmetic import exp
from minigan.ops.reduction import sum
from minigan.ops.shape import normalize_axes
from minigan.tensor import Tensor


class LeakyRelu(Op):
    """y = x where x > 0, else slope · x; at 0 the slope is that of the left side."""

    def forward(self, x):
        self.save(OUT)  # y has the sign of x, and the next layer keeps it anyway
        return self.backend.choose(self.forward_by_blocks, self.forward_by_kernel)(x)

    def forward_by_blocks(self, x):
        return by_blocks(self, self.bend, x)

    def forward_by_kernel(self, x):  # with a bias of 0
        rows = x.reshape(x.shape or 1)
        bias = self.xp.zeros(rows.shape[-1:], dtype=x.dtype)
        return self.backend.kernels.bias_act_forward(rows, bias, self.slope).reshape(x.shape)

    def bend(self, x, y):
        bend(self.xp, x, self.slope, y)

    def backward(self, gy):
        (y,) = self.saved()
        return gy * by_blocks(self, self.slopes, y.data)

    def fused_backward(self, gy):
        (y,) = self.saved()
        return self.backend.choose(self.backward_by_blocks, self.backward_by_kernel)(y.data, gy)

    def backward_by_blocks(self, y, gy):
        return by_blocks(self, self.slopes_times, y, gy)

    def backward_by_kernel(self, y, gy):  # the gradient of the bias is for nobody
        rows = (a.reshape(a.shape or 1) for a in (y, gy))
        return self.backend.kernels.bias_act_backward(*rows, self.slope)[0].reshape(y.shape)

    def slopes(self, y, out):
        bend_slopes(self.xp, y, self.slope, out)

    def slopes_times(self, y, gy, out):
        bend_slopes(self.xp, y, self.slope, out, gy)


class Relu(LeakyRelu):
    """y = x where x > 0, else 0; at 0 the slope is 0."""

    slope = 0.0


def bend(xp: Any, x: Any, slope: float, y: Any, scratch: Any = None) -> None:
    """Write into y the leaky ReLU of x; they may be one array if there is scratch."""
    if slope == 0:
        xp.clip(x, 0, xp.inf, out=y)  # maximum() with a scalar takes 5 times as long
    else:
        scaled = y if scratch is None else scratch
        xp.multiply(x, slope, out=scaled)
        xp.maximum(x, scaled, out=y)


def bend_slopes(xp: Any, y: Any, slope: float, out: Any, gy: Any = None) -> None:
    """Write into `out` the derivative of the leaky ReLU that gave y, times gy if there is one."""
    # Arithmetic on 0s and 1s: a where() that cannot guess the next sign is 10 times slower.
    xp.greater(y, 0, out=out)  # no array of bools on the way
    if slope:
        xp.clip(out, slope, 1, out=out)
    if gy is not None:
        out *= gy


def by_blocks(op: Op, function: Callable, *arrays: Any) -> Any:
    """Return an array like the first, which `function(*arrays, out)` fills block by block."""
    out = op.xp.empty(arrays[0].shape, dtype=arrays[0].dtype)
    op.backend.blocks(function, *(a.reshape(-1) for a in (*arrays, out)))
    return out


class Elu(Op):
    """y = x where x > 0, else α(e^x − 1)  (Clevert et al. 2015)."""

    def forward(self, x):
        self.save(OUT)
        self.positive = x > 0
        return self.xp.where(self.positive, x, self.alpha * self.xp.expm1(self.xp.minimum(x, 0)))

    def backward(self, gy):
        (y,) = self.saved()
        positive = self.positive.astype(gy.dtype)
        return gy * (positive + (y + self.alpha) * (1 - positive))


class Tanh(Op):
    """y = tanh x."""

    def forward(self, x):
        self.save(OUT)
        return self.xp.tanh(x)

    def backward(self, gy):
        (y,) = self.saved()
        return gy * (1.0 - y * y)

    def fused_backward(self, gy):
        (y,) = self.saved()
        slope = self.xp.empty_like(y.data)
        self.xp.multiply(y.data, y.data, out=slope)
        return gy * self.xp.subtract(1, slope, out=slope)


class Sigmoid(Op):
    """y = 1 / (1 + e^−x), as e^min(x, 0) / (1 + e^−|x|), where nothing can overflow."""

    def forward(self, x):
        self.save(OUT)
        xp = self.xp
        return xp.exp(xp.minimum(x, 0)) / (1 + xp.exp(-xp.abs(x)))

    def backward(self, gy):
        (y,) = self.saved()
        return gy * y * (1.0 - y)


class Softplus(Op):
    """y = ln(1 + e^x) = max(x, 0) + ln(1 + e^−|x|)."""

    def forward(self, x):
        self.save(0)
        return self.xp.maximum(x, 0) + self.xp.log1p(self.xp.exp(-self.xp.abs(x)))

    def backward(self, gy):
        (x,) = self.saved()
        return gy * sigmoid(x)


class Erf(Op):
    """y = erf x, the error function."""

    def forward(self, x):
        self.save(0)
        return self.backend.special.erf(x)

    def backward(self, gy):
        (x,) = self.saved()
        return gy * exp(-x * x) * (2 / math.sqrt(math.pi))


class Softmax(Op):
    """y = e^x / Σ e^x along `axis`."""

    def forward(self, x):
        self.save(OUT)
        y = self.xp.exp(x - x.max(axis=self.axis, keepdims=True))
        y /= y.sum(axis=self.axis, keepdims=True)
        return y

    def backward(self, gy):
        (y,) = self.saved()
        return y * (gy - sum(gy * y, self.axis, keepdims=True))


class LogSoftmax(Op):
    """y = x − ln Σ e^x along `axis`."""

    def forward(self, x):
        self.save(OUT)
        y = x - x.max(axis=self.axis, keepdims=True)
        y -= self.xp.log(self.xp.exp(y).sum(axis=self.axis, keepdims=True))
        return y

    def backward(self, gy):
        (y,) = self.saved()
        return gy - exp(y) * sum(gy, self.axis, keepdims=True)


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0)."""
    return Relu()(x)


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """Return x where it is positive, else `negative_slope` · x.

    Raises:
        ValueError: a slope outside [0, 1].
    """
    check_slope("leaky_relu", negative_slope)
    return LeakyRelu(slope=float(negative_slope))(x) if negative_slope else relu(x)


def check_slope(who: str, slope: float) -> None:
    """Raise ValueError unless a leaky ReLU may have this slope."""
    if not 0 <= slope <= 1:
        raise ValueError(f"{who}: negative_slope must be in [0, 1], got {slope}")


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Return x where it is positive, else alpha · (e^x − 1)."""
    return Elu(alpha=float(alpha))(x)


def gelu(x: Tensor) -> Tensor:
    """Return x · Φ(x), with the normal distribution function Φ (Hendrycks and Gimpel 2016)."""
    return x * (Erf()(x * math.sqrt(0.5)) + 1.0) * 0.5


def silu(x: Tensor) -> Tensor:
    """Return x · sigmoid(x)."""
    return x * sigmoid(x)


def tanh(x: Tensor) -> Tensor:
    """Return the hyperbolic tangent of x."""
    return Tanh()(x)


def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + e^−x)."""
    return Sigmoid()(x)


def softplus(x: Tensor) -> Tensor:
    """Return ln(1 + e^x)."""
    return Softplus()(x)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Return e^x / Σ e^x along `axis`: each slice is positive and sums to 1.

    Raises:
        ValueError: x has no such axis, or nothing along it.
    """
    return Softmax(axis=_axis(x, axis, "softmax"))(x)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Return the logarithm of softmax along `axis`, exact where softmax would round to 0.

    Raises:
        ValueError: x has no such axis, or nothing along it.
    """
    return LogSoftmax(axis=_axis(x, axis, "log_softmax"))(x)


def _axis(x: Tensor, axis: int, who: str) -> int:
    (axis,) = normalize_axes(axis, x.ndim, who)
    if not x.shape[axis]:
        raise ValueError(f"{who}: nothing along axis {axis} of shape {x.shape}")
    return axis


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Return x with each value zeroed with probability p and the rest divided by 1 − p.

    (Srivastava et al. 2014, scaled while training.) Without `training`, x itself.

    Raises:
        ValueError: p outside [0, 1).
    """
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p must be in [0, 1), got {p}")
    if not training or p == 0:
        return x
    keep = backends.generator().random(x.shape, dtype=np.float32) >= p
    scale = x.dtype.type(1 / (1 - p))
    return x * x.backend.from_host(keep * scale)
