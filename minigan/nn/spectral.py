"""Floor 3: spectral normalisation, for critics whose slope must be bounded."""

from __future__ import annotations

from typing import Any

from minigan import backend as backends
from minigan import functional as F
from minigan import workers
from minigan.nn.module import Module
from minigan.tensor import Tensor, no_grad

EPS = 1e-12  # under the root, so that a weight of zeros stays one


class SpectralNorm(Module):
    """A layer whose weight is divided by its largest singular value σ (Miyato et al. 2018).

    The weight is read as a matrix W, the last axis against the rest: (in, out) of a Linear,
    (KH·KW·in, out) of a convolution. For a vector u of length 1, ‖W u‖ is at most σ, and equal
    where u is the singular vector. `u` is kept, and moved there by one power iteration at each call
    in training (algorithm 1); in evaluation it stays. That takes three products of W with a vector.

    The gradient passes through σ to the weight, while u counts as constant: W/σ has no slope along
    W, as it does not change with the size of W (equation 12).

    Args:
        layer: a Linear, Conv2d, ConvTranspose2d or Embedding. It keeps its weight as it is trained.

    Raises:
        TypeError: a layer without a weight that could be divided.
    """

    def __init__(self, layer: Module) -> None:
        if not hasattr(layer, "with_weight"):
            raise TypeError(f"SpectralNorm: {type(layer).__name__} has no weight matrix to divide")
        self.layer = layer
        columns = layer.weight.shape[-1]
        u = Tensor(backends.generator().normal(size=columns), dtype=layer.weight.dtype)
        self.register_buffer("u", _unit(u).to(layer.weight.device))

    def matrix(self) -> Tensor:
        """Return the layer's weight as (everything else, last axis)."""
        weight = self.layer.weight
        return F.reshape(weight, (-1, weight.shape[-1]))

    def sigma(self) -> Tensor:
        """Return ‖W u‖, the estimate of σ as u is now."""
        return F.sqrt((F.matmul(self.matrix(), self.u) ** 2).sum() + EPS)

    def iterate(self) -> None:
        """Move u one power iteration nearer to the singular vector: Wᵀ W u, of length 1."""
        with no_grad():
            w = self.matrix()
            # A new tensor: what was recorded with the old u still has its backward to do.
            self.u = _unit(F.matmul(_unit(F.matmul(w, self.u)), w))

    def forward(self, x: Any) -> Tensor:
        if self.training:
            workers.claim("SpectralNorm's u", self)
            self.iterate()
        return self.layer.with_weight(x, self.layer.weight / self.sigma())


def _unit(vector: Tensor) -> Tensor:
    return vector / F.sqrt((vector * vector).sum() + EPS)
