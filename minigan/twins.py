"""Floor 0: the NumPy twin of every CUDA kernel: what it computes, as plainly as can be said.

A twin takes and returns what the method of the same name of `launch.Kernels` does, on NumPy
arrays. Nothing in the engine calls one: they are what the tests hold the kernels against.
"""

from __future__ import annotations

import numpy as np

Pair = tuple[int, int]
Array = np.ndarray


def im2col(
    x: Array,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    size: Pair,
) -> Array:
    """Return the windows of images (N, H, W, C) as rows, (groups, N·OH·OW, KH·KW·C/groups).

    `size` is (OH, OW), how many windows are taken down and across.
    """
    n, _, _, c = x.shape
    ph, pw = padding
    padded = np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    columns = np.zeros((n, *size, *kernel, c), x.dtype)
    for (i, j), (rows, cols) in _places(kernel, stride, dilation, size):
        columns[:, :, :, i, j] = padded[:, rows, cols]
    rows, places, share = n * size[0] * size[1], kernel[0] * kernel[1], c // groups
    columns = columns.reshape(rows, places, groups, share).transpose(2, 0, 1, 3)
    return columns.reshape(groups, rows, places * share)


def col2im(
    columns: Array,
    shape: tuple[int, int, int, int],
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    size: Pair,
) -> Array:
    """Return images of `shape` (N, H, W, C): every window added back where it came from.

    The adjoint of `im2col`. Pixels that no window covers are 0.
    """
    n, h, w, c = shape
    ph, pw = padding
    windows = columns.reshape(groups, n, *size, *kernel, c // groups)
    windows = windows.transpose(1, 2, 3, 4, 5, 0, 6).reshape(n, *size, *kernel, c)
    padded = np.zeros((n, h + 2 * ph, w + 2 * pw, c), columns.dtype)
    for (i, j), (rows, cols) in _places(kernel, stride, dilation, size):
        padded[:, rows, cols] += windows[:, :, :, i, j]
    return padded[:, ph : ph + h, pw : pw + w]


def _places(kernel: Pair, stride: Pair, dilation: Pair, size: Pair) -> list:
    """For each place (i, j) in a window: the pixels that stand there, of all windows, as slices."""

    def pixels(axis: int, place: int) -> slice:
        start = place * dilation[axis]
        return slice(start, start + (size[axis] - 1) * stride[axis] + 1, stride[axis])

    if 0 in size:
        return []
    return [
        ((i, j), (pixels(0, i), pixels(1, j))) for i in range(kernel[0]) for j in range(kernel[1])
    ]


def activation(v: Array, slope: float) -> Array:
    """Return v where it is positive, else slope · v: slope 1 is none, 0 is ReLU."""
    return np.maximum(v, v * v.dtype.type(slope)) if slope else np.maximum(v, 0)


def activation_slope(v: Array, slope: float) -> Array:
    """Return the derivative of `activation`."""
    return np.where(v > 0, 1, slope).astype(v.dtype)


def batch_norm_forward(
    x: Array, gamma: Array, beta: Array, eps: float, slope: float = 1.0
) -> tuple[Array, Array]:
    """Return act(γ (x − mean) / √(variance + eps) + β), and the statistics.

    x is (..., C), statistics (4, C): the mean as `near` + `left`, variance, 1 / √(variance + eps).
    """
    rows = x.reshape(-1, x.shape[-1])
    near = rows.mean(axis=0)
    left = (rows - near).mean(axis=0)
    variance = np.square(rows - near - left).mean(axis=0)
    inv_std = 1 / np.sqrt(variance + x.dtype.type(eps))
    y = activation((x - near - left) * inv_std * gamma + beta, slope)
    return y, np.stack([near, left, variance, inv_std])


def batch_norm_backward(
    x: Array, gy: Array, gamma: Array, beta: Array, statistics: Array, slope: float = 1.0
) -> tuple[Array, Array, Array]:
    """Return the gradients of x, γ and β, given that of y; all but `gy` as forward had them."""
    near, left, _, inv_std = statistics
    normal = (x - near - left) * inv_std
    g = gy * activation_slope(normal * gamma + beta, slope)
    rows = tuple(range(x.ndim - 1))
    g_gamma, g_beta = (g * normal).sum(rows), g.sum(rows)
    count = x.dtype.type(x.size // x.shape[-1])
    gx = gamma * inv_std * (g - g_beta / count - normal * (g_gamma / count))
    return gx, g_gamma, g_beta


def bias_act_forward(x: Array, bias: Array, slope: float) -> Array:
    """Return act(x + bias) for x (..., C) and bias (C,)."""
    return activation(x + bias, slope)


def bias_act_backward(y: Array, gy: Array, slope: float) -> tuple[Array, Array]:
    """Return the gradients of x and bias, given y and its gradient."""
    gx = gy * activation_slope(y, slope)
    return gx, gx.sum(tuple(range(y.ndim - 1)))


def adam_step(
    params: list[Array],
    grads: list[Array],
    m: list[Array],
    v: list[Array],
    lr: float,
    betas: Pair,
    eps: float,
    t: int,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> None:
    """Change params, m and v in place: Adam's step number t; AdamW's if the decay is decoupled."""
    beta1, beta2 = betas
    for p, g, m1, v1 in zip(params, grads, m, v, strict=True):
        if decoupled:
            p *= 1 - lr * weight_decay
        elif weight_decay:
            g = g + weight_decay * p
        m1[...] = beta1 * m1 + (1 - beta1) * g
        v1[...] = beta2 * v1 + (1 - beta2) * g * g
        p -= lr / (1 - beta1**t) * m1 / (np.sqrt(v1 / (1 - beta2**t)) + eps)
