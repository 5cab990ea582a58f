"""Floor 3: the layers. Each holds what its function in `minigan.functional` needs, and calls it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigan import functional as F
from minigan.nn import init
from minigan.nn.module import Module, Parameter
from minigan.ops.windows import Pair, as_pair
from minigan.tensor import Tensor


class _Affine(Module):
    """A weight and perhaps a bias, drawn from U(±1/√fan_in) as PyTorch does."""

    def _make(self, shape: tuple[int, ...], outputs: int, bias: bool) -> None:
        self.weight = Parameter(np.zeros(shape))
        bound = 1 / math.sqrt(max(1, init.fans(self.weight)[0]))
        init.uniform_(self.weight, -bound, bound)
        self.bias = init.uniform_(Parameter(np.zeros(outputs)), -bound, bound) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return self.with_weight(x, self.weight)

    def with_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return what the layer makes of x with another weight of the same shape."""
        raise NotImplementedError(f"{type(self).__name__}: with_weight is not written")

    def describe(self) -> str:
        names = ("stride", "padding", "output_padding", "dilation", "groups")
        options = [f"{n}={getattr(self, n)}" for n in names if hasattr(self, n)]
        said = [f"weight {self.weight.shape}", *options, *([] if self.bias is None else ["bias"])]
        return ", ".join(said)


class Linear(_Affine):
    """y = x W + b, (..., in_features) -> (..., out_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        self._make((in_features, out_features), out_features, bias)

    def with_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        y = F.matmul(x, weight)
        return y if self.bias is None else y + self.bias


class Conv2d(_Affine):
    """Convolution, (N, H, W, in_channels) -> (N, OH, OW, out_channels); see `F.conv2d`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        _check_groups("Conv2d", in_channels, out_channels, groups)
        kernel = as_pair(kernel_size, "Conv2d", "kernel_size", 1)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self._make((*kernel, in_channels // groups, out_channels), out_channels, bias)

    def with_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose2d(_Affine):
    """Transposed convolution; see `F.conv_transpose2d`. A 4×4 kernel of stride 2 doubles sizes."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        output_padding: Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Pair = 1,
    ) -> None:
        _check_groups("ConvTranspose2d", in_channels, out_channels, groups)
        kernel = as_pair(kernel_size, "ConvTranspose2d", "kernel_size", 1)
        self.stride, self.padding, self.output_padding = stride, padding, output_padding
        self.groups, self.dilation = groups, dilation
        self._make((*kernel, out_channels // groups, in_channels), out_channels, bias)

    def with_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv_transpose2d(
            x,
            weight,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )


def _check_groups(who: str, inputs: int, outputs: int, groups: int) -> None:
    if groups < 1 or inputs % groups or outputs % groups:
        raise ValueError(f"{who}: groups={groups} must divide {inputs} inputs, {outputs} outputs")


class _Norm(Module):
    """γ = 1 and β = 0 of some shape, unless `affine` is off."""

    def _make(self, shape: Sequence[int], eps: float, affine: bool) -> None:
        self.eps = eps
        self.weight = Parameter(np.ones(shape)) if affine else None
        self.bias = Parameter(np.zeros(shape)) if affine else None
        self.shape = tuple(shape)

    def describe(self) -> str:
        return ", ".join(map(str, self.shape))


class BatchNorm2d(_Norm):
    """Each channel normalised over the batch; see `F.batch_norm`. Takes (N, ..., C).

    With a `negative_slope` a leaky ReLU follows, or with 0 a ReLU, in the same passes.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        negative_slope: float = 1.0,
    ) -> None:
        self._make((num_features,), eps, affine)
        self.negative_slope = negative_slope
        self.momentum, self.running_mean, self.running_var = momentum, None, None
        if track_running_stats:
            self.register_buffer("running_mean", Tensor(np.zeros(num_features)))
            self.register_buffer("running_var", Tensor(np.ones(num_features)))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            self.momentum,
            self.eps,
            self.negative_slope,
        )

    def describe(self) -> str:
        slope = self.negative_slope
        return super().describe() + (f", negative_slope={slope}" if slope != 1 else "")


class BatchNorm1d(BatchNorm2d):
    """The same for (N, C): channels are last, so nothing differs but the name."""


class InstanceNorm2d(_Norm):
    """Each channel of each image normalised; see `F.instance_norm`."""

    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = False) -> None:
        self._make((num_features,), eps, affine)

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, self.weight, self.bias, self.eps)


class LayerNorm(_Norm):
    """The last axes of each sample normalised; see `F.layer_norm`."""

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5, affine: bool = True
    ) -> None:
        is_one = isinstance(normalized_shape, int)
        self._make((normalized_shape,) if is_one else normalized_shape, eps, affine)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.shape, self.weight, self.bias, self.eps)


class GroupNorm(_Norm):
    """Groups of channels of each sample normalised; see `F.group_norm`."""

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True
    ) -> None:
        _check_groups("GroupNorm", num_channels, num_channels, num_groups)
        self.num_groups = num_groups
        self._make((num_channels,), eps, affine)

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def describe(self) -> str:
        return f"{self.num_groups}, {self.shape[0]}"


class Embedding(Module):
    """A table of N(0, 1) vectors, looked up by integers: (...) -> (..., embedding_dim)."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        self.weight = init.normal_(Parameter(np.zeros((num_embeddings, embedding_dim))), 0.0, 1.0)

    def forward(self, indices: Any) -> Tensor:
        return self.with_weight(indices, self.weight)

    def with_weight(self, indices: Any, weight: Tensor) -> Tensor:
        """Return rows of another table of the same shape."""
        return F.embedding(indices, weight)

    def describe(self) -> str:
        return ", ".join(map(str, self.weight.shape))


class Dropout(Module):
    """Values zeroed with probability p while training; see `F.dropout`."""

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p must be in [0, 1), got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training)

    def describe(self) -> str:
        return f"p={self.p}"


class Lambda(Module):
    """Any function as a module, with its options fixed."""

    function: Callable[..., Tensor]

    def __init__(self, *args: Any, **options: Any) -> None:
        try:
            inspect.signature(type(self).function).bind(None, *args, **options)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}: {error}") from None
        self.args, self.options = args, options

    def forward(self, x: Tensor) -> Tensor:
        return type(self).function(x, *self.args, **self.options)

    def describe(self) -> str:
        given = [repr(a) for a in self.args]
        return ", ".join(given + [f"{name}={value!r}" for name, value in self.options.items()])


def _layer(name: str, function: Callable[..., Tensor]) -> type[Lambda]:
    """Return a class whose constructor takes the function's options and whose call applies it."""
    return type(name, (Lambda,), {"function": staticmethod(function), "__doc__": function.__doc__})


ReLU = _layer("ReLU", F.relu)
LeakyReLU = _layer("LeakyReLU", F.leaky_relu)
ELU = _layer("ELU", F.elu)
GELU = _layer("GELU", F.gelu)
SiLU = _layer("SiLU", F.silu)
Tanh = _layer("Tanh", F.tanh)
Sigmoid = _layer("Sigmoid", F.sigmoid)
Softplus = _layer("Softplus", F.softplus)
Softmax = _layer("Softmax", F.softmax)
LogSoftmax = _layer("LogSoftmax", F.log_softmax)
MaxPool2d = _layer("MaxPool2d", F.max_pool2d)
AvgPool2d = _layer("AvgPool2d", F.avg_pool2d)
AdaptiveAvgPool2d = _layer("AdaptiveAvgPool2d", F.adaptive_avg_pool2d)
GlobalAvgPool2d = _layer("GlobalAvgPool2d", F.global_avg_pool2d)
Upsample = _layer("Upsample", F.interpolate)
PixelShuffle = _layer("PixelShuffle", F.pixel_shuffle)


class Flatten(Module):
    """(N, ...) -> (N, everything else)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.reshape(x, (x.shape[0], math.prod(x.shape[1:])))
