"""Operations on images (N, H, W, C), written from their definitions with NumPy and SciPy.

Slow on purpose: loops over windows and pixels that can be compared with the formula.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import signal

Array = np.ndarray
Pair = tuple[int, int]


def padded(x: Array, pad: Pair, value: float = 0.0) -> Array:
    """`pad` pixels of one value around every image."""
    (ph, pw), sides = pad, x.shape
    y = np.full((sides[0], sides[1] + 2 * ph, sides[2] + 2 * pw, sides[3]), value)
    y[:, ph : ph + sides[1], pw : pw + sides[2]] = x
    return y


def dilated(kernel: Array, dilation: Pair) -> Array:
    """A kernel (KH, KW) with zeros between its taps."""
    (kh, kw), (dh, dw) = kernel.shape, dilation
    wide = np.zeros(((kh - 1) * dh + 1, (kw - 1) * dw + 1))
    wide[::dh, ::dw] = kernel
    return wide


def conv2d(
    x: Array, w: Array, bias: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    """Every output channel of every image is a sum of SciPy correlations, thinned by stride."""
    x, (sh, sw) = padded(x, padding), stride
    per_group, out_channels = w.shape[2], w.shape[3]
    images = []
    for image in x:
        channels = []
        for o in range(out_channels):
            first = o // (out_channels // groups) * per_group
            total = sum(
                signal.correlate(
                    image[:, :, first + i], dilated(w[:, :, i, o], dilation), "valid", "direct"
                )
                for i in range(per_group)
            )
            channels.append(total[::sh, ::sw] + (0 if bias is None else bias[o]))
        images.append(np.stack(channels, axis=-1))
    if images:
        return np.stack(images)
    spans = [(k - 1) * d + 1 for k, d in zip(w.shape, dilation, strict=False)]
    sizes = [(n - e) // s + 1 for n, e, s in zip(x.shape[1:3], spans, stride, strict=True)]
    return np.zeros((0, *sizes, out_channels))


def conv_transpose2d(
    x: Array,
    w: Array,
    bias: Array | None,
    stride: Pair,
    padding: Pair,
    output_padding: Pair,
    groups: int,
    dilation: Pair,
) -> Array:
    """Every input pixel stamps the kernel, times its value, into the output."""
    (n, h, width, c), (kh, kw, per_group, _) = x.shape, w.shape
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    full_h = (h - 1) * sh + (kh - 1) * dh + 1 + output_padding[0]
    full_w = (width - 1) * sw + (kw - 1) * dw + 1 + output_padding[1]
    y = np.zeros((n, full_h, full_w, per_group * groups))
    for i, j, a, b, channel in np.ndindex(h, width, kh, kw, c):
        group = channel // (c // groups)
        place = slice(group * per_group, (group + 1) * per_group)
        stamp = x[:, i, j, channel][:, None] * w[a, b, :, channel]
        y[:, i * sh + a * dh, j * sw + b * dw, place] += stamp
    y = y[:, ph : full_h - ph, pw : full_w - pw]
    return y if bias is None else y + bias


def pool(
    x: Array,
    reduce: Callable[..., Array],
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair = (1, 1),
    outside: float = 0.0,
) -> Array:
    """Each window reduced to one number."""
    x = padded(x, padding, outside)
    (kh, kw), (sh, sw), (dh, dw) = kernel, stride, dilation
    eh, ew = (kh - 1) * dh + 1, (kw - 1) * dw + 1
    oh, ow = (x.shape[1] - eh) // sh + 1, (x.shape[2] - ew) // sw + 1
    y = np.zeros((x.shape[0], oh, ow, x.shape[3]))
    for i, j in np.ndindex(oh, ow):
        window = x[:, i * sh : i * sh + eh : dh, j * sw : j * sw + ew : dw]
        y[:, i, j] = reduce(window, axis=(1, 2))
    return y


def adaptive_avg_pool2d(x: Array, size: Pair) -> Array:
    """Windows as equal as they can be, averaged."""
    y = np.zeros((x.shape[0], *size, x.shape[3]))
    h, w = x.shape[1:3]
    for i, j in np.ndindex(*size):
        top, bottom = int(np.floor(i * h / size[0])), int(np.ceil((i + 1) * h / size[0]))
        left, right = int(np.floor(j * w / size[1])), int(np.ceil((j + 1) * w / size[1]))
        y[:, i, j] = x[:, top:bottom, left:right].mean(axis=(1, 2))
    return y


def interpolate(
    x: Array, size: Pair, scale: tuple[float, float], mode: str, align_corners: bool
) -> Array:
    """Every output pixel looks up its place in the input."""
    y = np.zeros((x.shape[0], *size, x.shape[3]))
    h, w = x.shape[1:3]
    for i, j in np.ndindex(*size):
        if mode == "nearest":
            row, col = int(i / scale[0] + 1e-9), int(j / scale[1] + 1e-9)
            y[:, i, j] = x[:, min(row, h - 1), min(col, w - 1)]
            continue
        (down, above, below), (right, before, behind) = (
            _between(i, h, size[0], scale[0], align_corners),
            _between(j, w, size[1], scale[1], align_corners),
        )
        top = (1 - right) * x[:, above, before] + right * x[:, above, behind]
        bottom = (1 - right) * x[:, below, before] + right * x[:, below, behind]
        y[:, i, j] = (1 - down) * top + down * bottom
    return y


def _between(
    i: int, n: int, count: int, scale: float, align_corners: bool
) -> tuple[float, int, int]:
    """Where output pixel i of `count` lies among n: the share of the second, and both indices."""
    if align_corners:
        place = i * (n - 1) / (count - 1) if count > 1 else 0.0
    else:
        place = min(max((i + 0.5) / scale - 0.5, 0), n - 1)
    first = int(place + 1e-12)
    return place - first, first, min(first + 1, n - 1)


def pixel_shuffle(x: Array, r: int) -> Array:
    """Channel c·r² + i·r + j to row i, column j of each r×r block."""
    n, h, w, c = x.shape
    y = np.zeros((n, h * r, w * r, c // (r * r)))
    for i, j, row, col, channel in np.ndindex(h, w, r, r, c // (r * r)):
        y[:, i * r + row, j * r + col, channel] = x[:, i, j, channel * r * r + row * r + col]
    return y


def standardized(values: Array, eps: float) -> Array:
    """(v − mean) / √(variance + eps) over all of `values`."""
    mean = values.sum() / values.size
    variance = ((values - mean) ** 2).sum() / values.size
    return (values - mean) / (variance + eps) ** 0.5


def affine(x: Array, weight: Any, bias: Any) -> Array:
    """x · weight + bias, both of which may be missing."""
    return x * (1 if weight is None else weight) + (0 if bias is None else bias)


def batch_norm(x: Array, eps: float) -> Array:
    """Each channel over everything else."""
    y = np.zeros(x.shape)
    for c in range(x.shape[-1]):
        y[..., c] = standardized(x[..., c], eps)
    return y


def instance_norm(x: Array, eps: float) -> Array:
    """Each channel of each image."""
    y = np.zeros(x.shape)
    for n, c in np.ndindex(x.shape[0], x.shape[3]):
        y[n, :, :, c] = standardized(x[n, :, :, c], eps)
    return y


def layer_norm(x: Array, axes: int, eps: float) -> Array:
    """The last `axes` axes of each sample."""
    y = np.zeros(x.shape)
    for lead in np.ndindex(*x.shape[: x.ndim - axes]):
        y[lead] = standardized(x[lead], eps)
    return y


def group_norm(x: Array, groups: int, eps: float) -> Array:
    """Each group of channels of each sample."""
    y, width = np.zeros(x.shape), x.shape[-1] // groups
    for n, g in np.ndindex(x.shape[0], groups):
        place = (n, ..., slice(g * width, (g + 1) * width))
        y[place] = standardized(x[place], eps)
    return y


def attention(x: Array, wq: Array, wk: Array, wv: Array) -> Array:
    """Every pixel asks all pixels of its image: Σ_there softmax(⟨q, k_there⟩ / √C) · v_there."""
    y, (n, h, w, c) = np.zeros(x.shape), x.shape
    for image, row, col in np.ndindex(n, h, w):
        query = [sum(x[image, row, col, a] * wq[a, b] for a in range(c)) for b in range(c)]
        total = 0.0
        for i, j in np.ndindex(h, w):
            pixel = x[image, i, j]
            key = [sum(pixel[a] * wk[a, b] for a in range(c)) for b in range(c)]
            weight = np.exp(sum(q * k for q, k in zip(query, key, strict=True)) / np.sqrt(c))
            total += weight
            for b in range(c):
                y[image, row, col, b] += weight * sum(pixel[a] * wv[a, b] for a in range(c))
        y[image, row, col] /= total
    return y
