"""Every operation as a function, under the name that PyTorch gives it; imported as `F`."""

from minigan.ops.activation import (
    dropout,
    elu,
    gelu,
    leaky_relu,
    log_softmax,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from minigan.ops.arithmetic import (
    abs,
    add,
    clip,
    div,
    exp,
    log,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    sqrt,
    sub,
    where,
)
from minigan.ops.conv import conv2d, conv_transpose2d
from minigan.ops.linalg import matmul
from minigan.ops.norm import batch_norm, group_norm, instance_norm, layer_norm
from minigan.ops.pool import adaptive_avg_pool2d, avg_pool2d, global_avg_pool2d, max_pool2d
from minigan.ops.reduction import logsumexp, max, mean, min, sum, var
from minigan.ops.resample import interpolate, pixel_shuffle
from minigan.ops.shape import (
    broadcast_to,
    concatenate,
    embedding,
    expand_dims,
    flip,
    getitem,
    pad,
    reshape,
    squeeze,
    stack,
    transpose,
)

# The same under PyTorch's other names
cat, clamp, permute, unsqueeze = concatenate, clip, transpose, expand_dims

__all__ = [name for name in dir() if not name.startswith("_")]
