"""Floor 2: normalisation, each in two passes over the data: first the mean, then the variance.

(The one-pass formula E[x²] − E[x]² cancels: for mean 1000 and σ 0.1, float32 keeps no digit.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from minigan.autograd import OUT, Op
from minigan.ops.activation import bend, bend_slopes, by_blocks, check_slope, leaky_relu
from minigan.ops.arithmetic import sqrt
from minigan.ops.reduction import added, column_sums, mean, ones_times, sum
from minigan.ops.shape import reshape
from minigan.ops.windows import check_image
from minigan.tensor import Tensor
from minigan.workers import claim

WIDE = 1 << 13  # numbers in a row that vectors of channels are repeated to


class BatchNorm(Op):
    """y = γ (x − μ) / √(σ² + ε) + β, with μ and σ² of each channel (the last axis) over the rest.

    Ioffe and Szegedy 2015. `mean` and `variance`, (C,), are left for the running averages. Where
    `slope` is not 1, a leaky ReLU of that slope follows, in the same passes.
    """

    slope = 1.0

    def forward(self, x, gamma, beta):
        self.save(0, 1, *([] if self.slope == 1 else [2, OUT]))
        return self.backend.choose(self.by_blocks, self.by_kernels)(x, gamma, beta)

    def by_kernels(self, x, gamma, beta):
        y, statistics = self.backend.kernels.batch_norm_forward(
            x, gamma, beta, self.eps, self.slope
        )
        self.near, self.left, self.variance, self.inv_std = self.statistics = statistics
        self.mean = self.near + self.left
        return y

    def by_blocks(self, x, gamma, beta):
        rows, wide = widened(x)
        xp, m = self.xp, x.dtype.type(x.size // x.shape[-1])
        # Around a value near the mean nothing cancels. The mean of any eighth of the data is within
        # √7 standard deviations of it, so the variance loses three bits at the worst.
        some = rows[: -(-len(rows) // 8)]
        some = some.reshape(-1, x.shape[-1])
        self.near = column_sums(self.backend, some) / x.dtype.type(len(some))
        near, y = wide(self.near), xp.empty_like(rows)

        def centre(x, y):
            xp.subtract(x, near, out=y)
            return self.moments(y, y, y)

        def scale_and_shift(y):
            y *= scale
            y += shift
            if self.slope != 1:
                bend(xp, y, self.slope, y, self.backend.scratch("a", y.shape, y.dtype))

        self.left, squares = added(self.backend.blocks(centre, rows, y)) / m
        self.mean, self.variance = self.near + self.left, squares - self.left * self.left
        self.inv_std = 1 / xp.sqrt(self.variance + x.dtype.type(self.eps))
        scale = self.inv_std * gamma
        scale, shift = wide(scale), wide(beta - self.left * scale)
        self.backend.blocks(scale_and_shift, y)
        return y.reshape(x.shape)

    def moments(self, rows, a, b):
        """Return Σ rows and Σ a·b of each channel, (2, C), of a block."""
        channels = self.shapes[1][0]
        sums = self.xp.empty((2, channels), dtype=rows.dtype)
        ones_times(self.backend, rows.reshape(-1, channels), out=sums[0])
        products = self.xp.einsum("ij,ij->j", a, b)  # no array of products is made
        self.xp.sum(products.reshape(-1, channels), axis=0, out=sums[1])
        return sums

    def slopes(self, y, out):
        bend_slopes(self.xp, y, self.slope, out)

    def backward(self, gy):
        x, gamma, *activated = self.saved()
        if activated:
            gy = gy * by_blocks(self, self.slopes, activated[1].data)
        axes = tuple(range(x.ndim - 1))
        normal, inv_std = normalize(x, axes, self.eps)
        g_beta, g_gamma = sum(gy, axes), sum(gy * normal, axes)
        m = x.size // x.shape[-1]
        gx = gamma * inv_std * (gy - g_beta * (1 / m) - normal * (g_gamma * (1 / m)))
        return gx, g_gamma, g_beta

    def fused_backward(self, gy):
        backward = self.backend.choose(self.backward_by_blocks, self.backward_by_kernels)
        return backward(gy, *(t.data for t in self.saved()))

    def backward_by_kernels(self, gy, x, gamma, beta=None, y=None):
        kept = gamma, gamma if beta is None else beta, self.statistics  # slope 1 reads no β
        return self.backend.kernels.batch_norm_backward(x, gy, *kept, self.slope)

    def backward_by_blocks(self, gy, x, gamma, beta=None, y=None):
        (rows, wide), (g_rows, _) = widened(x), widened(gy)
        xp, m = self.xp, x.size // x.shape[-1]
        near, gx = wide(self.near), xp.empty_like(rows)

        def centre(x, g, gx):
            xp.subtract(x, near, out=gx)
            return self.moments(g, g, gx)

        def centre_behind_slopes(x, y, gy, g, gx):
            bend_slopes(xp, y, self.slope, g, gy)
            return centre(x, g, gx)

        def assemble(g, gx):
            gx *= slope
            gx += g
            gx -= shift
            gx *= scale

        if y is None:
            sums = self.backend.blocks(centre, rows, g_rows, gx)
        else:
            gy_rows, g_rows = g_rows, self.backend.scratch("g", rows.shape, rows.dtype)
            y_rows = y.reshape(rows.shape)
            sums = self.backend.blocks(centre_behind_slopes, rows, y_rows, gy_rows, g_rows, gx)
        g_beta, dots = added(sums)
        g_gamma = (dots - self.left * g_beta) * self.inv_std
        slope = self.inv_std * g_gamma * (-1 / m)
        shift = wide(g_beta * (1 / m) + self.left * slope)
        slope, scale = wide(slope), wide(gamma * self.inv_std)
        self.backend.blocks(assemble, g_rows, gx)
        return gx.reshape(x.shape), g_gamma, g_beta


def widened(x: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return x with several pixels to a row, and a function that repeats a channel vector to fit.

    NumPy takes two passes' time over an operation of (M, C) with (C,) when C is small: its inner
    loop is C long.
    """
    channels = x.shape[-1]
    pixels = x.size // max(1, channels)
    limit = max(1, min(pixels, WIDE // max(1, channels)))
    many = next((k for k in range(limit, 0, -1) if pixels % k == 0), 1)
    return x.reshape(
        -1, many * channels
    ), lambda vector: vector.reshape(1, -1).repeat(many, 0).reshape(-1)


def normalize(x: Tensor, axes: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor]:
    """Return (x − mean) / √(variance + eps) over `axes`, and 1 / √(variance + eps), kept in shape.

    Raises:
        ValueError: over no elements.
    """
    centred = x - mean(x, axes, keepdims=True)
    centred = centred - mean(centred, axes, keepdims=True)  # what rounding left of the mean
    inv_std = 1.0 / sqrt(mean(centred * centred, axes, keepdims=True) + eps)
    return centred * inv_std, inv_std


def _affine(
    who: str, x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: tuple
) -> Tensor:
    """Return x · weight + bias, both of `shape`, either of them optional."""
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.shape != shape:
            raise ValueError(f"{who}: {name} {parameter.shape} should have shape {shape}")
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    negative_slope: float = 1.0,
) -> Tensor:
    """Return x with each channel normalised over all other axes, scaled and shifted.

    In training by the batch's own mean and (biased) variance, which also move the running
    averages by `momentum`, the variance unbiased; else by the running averages.

    Args:
        x: (N, ..., C).
        running_mean, running_var: (C,), changed in place in training.
        weight, bias: (C,).
        negative_slope: of a leaky ReLU on the result, 0 for a ReLU; 1, which is none, by default.

    Raises:
        ValueError: a parameter of another shape, a slope outside [0, 1], one value per channel in
            training, or no running averages outside of it.
    """
    if x.ndim < 2:
        raise ValueError(f"batch_norm: needs (N, ..., C), got a tensor of shape {x.shape}")
    check_slope("batch_norm", negative_slope)
    channels, m = x.shape[-1:], math.prod(x.shape[:-1])
    named = {"running_mean": running_mean, "running_var": running_var}
    for name, t in {**named, "weight": weight, "bias": bias}.items():
        if t is not None and t.shape != channels:
            raise ValueError(f"batch_norm: {name} {t.shape} should be {channels}; input {x.shape}")
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: outside of training running_mean and running_var are due")
        scale = 1.0 / sqrt(running_var + eps)
        scale = scale if weight is None else weight * scale
        y = _affine("batch_norm", (x - running_mean) * scale, None, bias, channels)
        return y if negative_slope == 1 else leaky_relu(y, negative_slope)
    if m < 2:
        raise ValueError(
            f"batch_norm: one value per channel has no variance to train on, input {x.shape}: "
            "use a larger batch or image, or eval()"
        )
    xp, op = x.backend.xp, BatchNorm(eps=eps, slope=float(negative_slope))
    ones = Tensor._wrap(xp.ones(channels, dtype=x.dtype), x.backend) if weight is None else weight
    zeros = Tensor._wrap(xp.zeros(channels, dtype=x.dtype), x.backend) if bias is None else bias
    y = op(x, ones, zeros)
    for running, batch in ((running_mean, op.mean), (running_var, op.variance * (m / (m - 1)))):
        if running is not None:
            claim("batch_norm's running averages", running)
            running.data += (batch - running.data) * running.dtype.type(momentum)
    return y


def instance_norm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Return images with each channel of each image normalised (Ulyanov et al. 2016).

    Args:
        x: (N, H, W, C).
        weight, bias: (C,).

    Raises:
        ValueError: no images, images of one pixel, or a parameter of another shape.
    """
    check_image(x, "instance_norm")
    if x.shape[1] * x.shape[2] < 2:
        raise ValueError(f"instance_norm: one pixel per image has no variance, input {x.shape}")
    return _affine("instance_norm", normalize(x, (1, 2), eps)[0], weight, bias, x.shape[3:])


def layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return x normalised over its last axes (Ba et al. 2016).

    Args:
        x: (..., *normalized_shape).
        weight, bias: of `normalized_shape`.

    Raises:
        ValueError: x does not end in that shape, or a parameter has another.
    """
    given = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not given or x.shape[-len(given) :] != given:
        raise ValueError(f"layer_norm: input {x.shape} does not end in normalized_shape {given}")
    axes = tuple(range(x.ndim - len(given), x.ndim))
    return _affine("layer_norm", normalize(x, axes, eps)[0], weight, bias, given)


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return x with each group of channels of each sample normalised (Wu and He 2018).

    Args:
        x: (N, ..., C).
        weight, bias: (C,).

    Raises:
        ValueError: channels that cannot be shared out, or a parameter of another shape.
    """
    if x.ndim < 2 or num_groups < 1 or x.shape[-1] % num_groups:
        raise ValueError(f"group_norm: {num_groups} groups cannot share the channels of {x.shape}")
    grouped = reshape(x, (x.shape[0], -1, num_groups, x.shape[-1] // num_groups))
    normal = reshape(normalize(grouped, (1, 3), eps)[0], x.shape)
    return _affine("group_norm", normal, weight, bias, x.shape[-1:])
