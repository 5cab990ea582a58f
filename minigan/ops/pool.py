"""Floor 2: pooling."""

from __future__ import annotations

from functools import reduce

import numpy as np

from minigan.autograd import Op
from minigan.ops.linalg import matmul
from minigan.ops.reduction import mean
from minigan.ops.shape import getitem, reshape
from minigan.ops.windows import (
    Geometry,
    Pair,
    as_pair,
    check_image,
    geometry,
    pad_image,
    scatter_windows,
    windows,
)
from minigan.tensor import Tensor, is_recording


class Unfold(Op):
    """y (N, OH, OW, KH, KW, C) = the windows of x (N, H, W, C), copied out."""

    def forward(self, x):
        return windows(self.xp, pad_image(self.xp, x, self.geometry), self.geometry).copy()

    def backward(self, gy):
        return Fold(geometry=self.geometry, size=self.shapes[0][1:3])(gy)


class Fold(Op):
    """x (N, H, W, C) = windows added back to images of `size`: Unfold's adjoint."""

    def forward(self, y):
        x = self.xp.zeros((len(y), *self.size, y.shape[5]), dtype=y.dtype)
        scatter_windows(y, x, self.geometry)
        return x

    def backward(self, gx):
        return Unfold(geometry=self.geometry)(gx)


def avg_pool2d(
    x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0
) -> Tensor:
    """Return the mean of each window; padding counts as zeros (as in PyTorch).

    Args:
        x: (N, H, W, C).
        stride: by default the kernel's size, so that windows do not overlap.

    Returns:
        (N, OH, OW, C) with OH = (H + 2·padding − KH) // stride + 1.

    Raises:
        ValueError: x is no batch of images, a window does not fit, or too much padding.
    """
    g = _pooling("avg_pool2d", x, kernel_size, stride, padding)
    return mean(Unfold(geometry=g)(x), (3, 4))


def max_pool2d(
    x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, dilation: Pair = 1
) -> Tensor:
    """Return the largest value of each window; of equal ones the first takes the gradient.

    Max pooling is indexing: where the largest stand is found once, and reading them is `getitem`.

    Args, returns and errors: as `avg_pool2d`; padding never wins.
    """
    g = _pooling("max_pool2d", x, kernel_size, stride, padding, dilation)
    if any(p and d > n for p, d, n in zip(g.padding, g.dilation, x.shape[1:3], strict=True)):
        raise ValueError(
            f"max_pool2d: with dilation {g.dilation} a window is all padding {x.shape}"
        )
    xp, (n, h, w, c) = x.backend.xp, x.shape
    view = windows(xp, pad_image(xp, x.data, g, value=-np.inf), g)
    oh, ow, kh, kw = view.shape[1:5]
    if not (is_recording() and x.requires_grad):  # nobody will ask where they stood
        taps = [view[:, :, :, i, j] for i in range(kh) for j in range(kw)]
        return Tensor(reduce(xp.maximum, taps), x.dtype, device=x.device)
    best = view.transpose(0, 1, 2, 5, 3, 4).reshape(n, oh, ow, c, kh * kw).argmax(axis=4)
    down = xp.arange(oh).reshape(oh, 1, 1) * g.stride[0] - g.padding[0]
    across = xp.arange(ow).reshape(ow, 1) * g.stride[1] - g.padding[1]
    row = xp.clip(down + best // kw * g.dilation[0], 0, h - 1)  # a NaN in the padding's place
    col = xp.clip(across + best % kw * g.dilation[1], 0, w - 1)
    image, channel = xp.arange(n).reshape(n, 1, 1, 1), xp.arange(c)
    return getitem(reshape(x, (-1,)), ((image * h + row) * w + col) * c + channel)


def _pooling(
    who: str, x: Tensor, kernel: Pair, stride: Pair | None, padding: Pair, dilation: Pair = 1
) -> Geometry:
    g = geometry(who, kernel, kernel if stride is None else stride, padding, dilation)
    check_image(x, who, g)
    if any(2 * p > k for p, k in zip(g.padding, g.kernel, strict=True)):
        raise ValueError(f"{who}: padding {g.padding} is over half of the kernel {g.kernel}")
    return g


def global_avg_pool2d(x: Tensor) -> Tensor:
    """Return the mean of each channel of each image, (N, H, W, C) -> (N, C)."""
    check_image(x, "global_avg_pool2d")
    return mean(x, (1, 2))


def adaptive_avg_pool2d(x: Tensor, output_size: Pair) -> Tensor:
    """Return images averaged down to `output_size`, over windows as equal as they can be.

    Window i of n over H pixels is [⌊i·H/n⌋, ⌈(i + 1)·H/n⌉), as in PyTorch.

    Raises:
        ValueError: x is no batch of images, or a size below 1.
    """
    check_image(x, "adaptive_avg_pool2d")
    oh, ow = as_pair(output_size, "adaptive_avg_pool2d", "output_size", 1)
    if 0 in x.shape[1:3]:
        raise ValueError(f"adaptive_avg_pool2d: images without pixels, input {x.shape}")
    return separable(x, _bins(x.shape[1], oh), _bins(x.shape[2], ow))


def _bins(n: int, parts: int) -> np.ndarray:
    """Return the matrix (parts, n) whose rows average the parts of a line of n pixels."""
    rows = np.zeros((parts, n))
    for i in range(parts):
        start, stop = i * n // parts, -(-(i + 1) * n // parts)
        rows[i, start:stop] = 1 / (stop - start)
    return rows


def separable(x: Tensor, down: np.ndarray, across: np.ndarray) -> Tensor:
    """Return images resampled by one matrix along H and one along W: two matrix products.

    Args:
        x: (N, H, W, C).
        down, across: (OH, H) and (OW, W).

    Returns:
        (N, OH, OW, C).
    """
    n, h, w, c = x.shape
    down, across = Tensor(down, x.dtype, device=x.device), Tensor(across, x.dtype, device=x.device)
    x = reshape(matmul(down, reshape(x, (n, h, w * c))), (n * down.shape[0], w, c))
    return reshape(matmul(across, x), (n, down.shape[0], across.shape[0], c))
