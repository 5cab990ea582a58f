"""Floor 2: normalisation, each in two passes over the data: first the mean, then the variance.

(The one-pass formula E[x²] − E[x]² cancels: for mean 1000 and σ 0.1, float32 keeps no digit.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minigan.autograd import Op
from minigan.ops.arithmetic import sqrt
from minigan.ops.conv import check_image
from minigan.ops.reduction import mean, sum
from minigan.ops.shape import reshape
from minigan.tensor import Tensor


class BatchNorm(Op):
    """y = γ (x − μ) / √(σ² + ε) + β, with μ and σ² of each channel (the last axis) over the rest.

    Ioffe and Szegedy 2015. `mean` and `variance`, (C,), are left for the running averages.
    """

    def forward(self, x, gamma, beta):
        self.save(0, 1)
        rows = x.reshape(-1, x.shape[-1])
        self.near = column_means(rows)  # the mean is near + left: far from zero, the rounded sum
        y = rows - self.near  # of the two would be off by more than the data vary
        self.left = left = column_means(y)
        self.mean = self.near + left
        self.variance = column_dots(self.xp, y, y) / len(rows) - left * left
        self.inv_std = 1 / self.xp.sqrt(self.variance + x.dtype.type(self.eps))
        scale = self.inv_std * gamma
        y *= scale
        y += beta - left * scale
        return y.reshape(x.shape)

    def backward(self, gy):
        x, gamma = self.saved()
        axes = tuple(range(x.ndim - 1))
        normal, inv_std = normalize(x, axes, self.eps)
        g_beta, g_gamma = sum(gy, axes), sum(gy * normal, axes)
        m = x.size // x.shape[-1]
        gx = gamma * inv_std * (gy - g_beta * (1 / m) - normal * (g_gamma * (1 / m)))
        return gx, g_gamma, g_beta

    def fused_backward(self, gy):
        x, gamma = (t.data for t in self.saved())
        rows, g_rows = x.reshape(-1, x.shape[-1]), gy.reshape(-1, x.shape[-1])
        m = len(rows)
        gx = rows - self.near
        g_beta = column_means(g_rows) * m
        g_gamma = (column_dots(self.xp, g_rows, gx) - self.left * g_beta) * self.inv_std
        slope = self.inv_std * g_gamma * (-1 / m)
        gx *= slope
        gx += g_rows
        gx -= g_beta * (1 / m) + self.left * slope
        gx *= gamma * self.inv_std
        return gx.reshape(x.shape), g_gamma, g_beta


def column_means(rows: Any) -> Any:
    """Return the mean of each column of (M, C), summed in blocks, so that errors stay small."""
    m, block = len(rows), 256
    whole = m - m % block
    total = rows[whole:].sum(axis=0)
    if whole:
        total = total + rows[:whole].reshape(-1, block, rows.shape[1]).sum(axis=1).sum(axis=0)
    return total / rows.dtype.type(m)


def column_dots(xp: Any, a: Any, b: Any) -> Any:
    """Return Σ a·b of each column of two (M, C) arrays."""
    return xp.einsum("mc,mc->c", a, b)


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
) -> Tensor:
    """Return x with each channel normalised over all other axes, scaled and shifted.

    In training by the batch's own mean and (biased) variance, which also move the running
    averages by `momentum`, the variance unbiased; else by the running averages.

    Args:
        x: (N, ..., C).
        running_mean, running_var: (C,), changed in place in training.
        weight, bias: (C,).

    Raises:
        ValueError: a parameter of another shape, one value per channel in training, or no running
            averages outside of it.
    """
    if x.ndim < 2:
        raise ValueError(f"batch_norm: needs (N, ..., C), got a tensor of shape {x.shape}")
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
        return _affine("batch_norm", (x - running_mean) * scale, None, bias, channels)
    if m < 2:
        raise ValueError(
            f"batch_norm: one value per channel has no variance to train on, input {x.shape}: "
            "use a larger batch or image, or eval()"
        )
    xp, op = x.backend.xp, BatchNorm(eps=eps)
    ones = Tensor._wrap(xp.ones(channels, dtype=x.dtype), x.backend) if weight is None else weight
    zeros = Tensor._wrap(xp.zeros(channels, dtype=x.dtype), x.backend) if bias is None else bias
    y = op(x, ones, zeros)
    for running, batch in ((running_mean, op.mean), (running_var, op.variance * (m / (m - 1)))):
        if running is not None:
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
