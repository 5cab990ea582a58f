"""Floor 3: initial weights, drawn from the host generator (`mg.manual_seed`) into a tensor.

Weights are (in, out) or (KH, KW, in, out): every axis but the last feeds one output.
"""

from __future__ import annotations

import math

import numpy as np

from minigan import backend as backends
from minigan.tensor import Tensor


def _fill(tensor: Tensor, values: np.ndarray) -> Tensor:
    tensor.data[...] = tensor.backend.from_host(values.astype(tensor.dtype))
    tensor.bump_version()
    return tensor


def fans(tensor: Tensor) -> tuple[int, int]:
    """Return how many inputs feed an output, and how many outputs an input feeds.

    Raises:
        ValueError: fewer than two axes.
    """
    if tensor.ndim < 2:
        raise ValueError(f"init: fans need a weight of two axes or more, got {tensor.shape}")
    window = math.prod(tensor.shape[:-2])
    return window * tensor.shape[-2], window * tensor.shape[-1]


def constant_(tensor: Tensor, value: float) -> Tensor:
    """Fill with one number; returns the tensor, as all of these do."""
    return _fill(tensor, np.full(tensor.shape, value))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 0.02) -> Tensor:
    """Fill from N(mean, std²); 0.02 is DCGAN's and pix2pix's choice."""
    return _fill(tensor, backends.generator().normal(mean, std, tensor.shape))


def uniform_(tensor: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Fill from the uniform distribution on [low, high)."""
    return _fill(tensor, backends.generator().uniform(low, high, tensor.shape))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Fill uniformly with variance 2 gain² / (fan_in + fan_out) (Glorot and Bengio 2010)."""
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Fill normally with variance 2 gain² / (fan_in + fan_out) (Glorot and Bengio 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor))))


def he_uniform_(tensor: Tensor, negative_slope: float = 0.0) -> Tensor:
    """Fill uniformly with variance 2 / ((1 + slope²) fan_in), for leaky ReLUs (He et al. 2015)."""
    bound = math.sqrt(6 / ((1 + negative_slope**2) * fans(tensor)[0]))
    return uniform_(tensor, -bound, bound)


def he_normal_(tensor: Tensor, negative_slope: float = 0.0) -> Tensor:
    """Fill normally with variance 2 / ((1 + slope²) fan_in), for leaky ReLUs (He et al. 2015)."""
    return normal_(tensor, 0.0, math.sqrt(2 / ((1 + negative_slope**2) * fans(tensor)[0])))


kaiming_uniform_, kaiming_normal_ = he_uniform_, he_normal_  # He's given name, as PyTorch has it


def orthogonal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Fill so that rows or columns, the last axis against the rest, are orthonormal times gain.

    Saxe et al. 2013, by the QR decomposition of a Gaussian matrix.

    Raises:
        ValueError: fewer than two axes.
    """
    if tensor.ndim < 2:
        raise ValueError(f"init: orthogonal needs two axes or more, got {tensor.shape}")
    columns = tensor.shape[-1]
    rows = tensor.size // columns
    flat = backends.generator().normal(size=(max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(flat)
    q *= np.sign(np.diag(r))  # else the distribution depends on LAPACK's choice of signs
    return _fill(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))
