"""The specification of small networks: ops that meet ops, as they do in use.

Where a leaky ReLU follows a normalisation, the shift β of each channel is larger than its scale
lets the normalised numbers be: a channel is wholly on one side of the kink, or wholly on the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special

from minigan import functional as F
from minigan.autograd import grad
from minigan.models import pix2pix
from minigan.specs import reference
from minigan.specs.case import Case, spec
from minigan.specs.choices import Choices
from minigan.specs.layers import module_call
from minigan.specs.norms import STORED
from minigan.specs.values import draw_inputs, far, positive, small, spread, varied
from minigan.tensor import Tensor


def leaky(x: np.ndarray, slope: float) -> np.ndarray:
    """x where it is positive, else slope · x."""
    return np.where(x > 0, x, slope * x)


def convolved(x: np.ndarray, w: np.ndarray, stride: int = 1, padding: int = 0) -> np.ndarray:
    """A plain convolution."""
    return reference.conv2d(x, w, None, (stride,) * 2, (padding,) * 2, (1, 1), 1)


@spec("attention_conv_norm", "composite")
def attention_conv_norm_case(choose: Choices) -> Case:
    """Self-attention over the pixels, a convolution, batch normalisation, leaky ReLU."""
    n, h, w = choose.integer(1, 2), choose.integer(2, 3), choose.integer(1, 3)
    c, o = choose.integer(1, 2), choose.integer(1, 2)
    kernel = choose.of((2, 1), (1, 1)) if w == 1 else choose.of((2, 2), (1, 2))

    def call(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, *rest: Tensor) -> Tensor:
        weight, gamma, beta = rest
        flat = x.reshape((n, h * w, c))
        q, k, v = flat @ wq, flat @ wk, flat @ wv
        weights = F.softmax((q @ k.transpose((0, 2, 1))) * c**-0.5)
        mixed = x + (weights @ v).reshape((n, h, w, c))
        y = F.conv2d(mixed, weight, padding=1)
        return F.leaky_relu(F.batch_norm(y, None, None, gamma, beta, training=True), 0.2)

    def by_definition(x: np.ndarray, *arrays: np.ndarray) -> np.ndarray:
        wq, wk, wv, weight, gamma, beta = arrays
        mixed = x + reference.attention(x, wq, wk, wv)
        y = reference.batch_norm(convolved(mixed, weight, padding=1), 1e-5)
        return leaky(reference.affine(y, gamma, beta), 0.2)

    sizes = [(n, h, w, c), *[(c, c)] * 3, (*kernel, c, o), (o,), (o,)]
    fills = (spread, *[spread] * 4, small, far)
    return Case(call, by_definition, draw_inputs(choose, *sizes, fill=fills), f"{h}x{w}, {kernel}")


@spec("same_size", "composite")
def same_size_case(choose: Choices) -> Case:
    """Two convolutions three rows high that keep the height: the most usual, elsewhere rare."""
    c, hidden, o = (choose.integer(1, 2) for _ in range(3))
    shape = (choose.integer(1, 2), choose.integer(1, 5), choose.integer(1, 4), c)
    first, second = (3, choose.integer(2, 3), c, hidden), (3, 3, hidden, o)

    def call(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
        return F.conv2d(F.tanh(F.conv2d(x, w, padding=1)), v, padding=1)

    def by_definition(x: np.ndarray, w: np.ndarray, v: np.ndarray) -> np.ndarray:
        return convolved(np.tanh(convolved(x, w, padding=1)), v, padding=1)

    inputs = draw_inputs(choose, shape, first, second, fill=(spread, small, small))
    return Case(call, by_definition, inputs, f"{shape}, {first[:2]}")


def slope_at(x: Tensor, critic: Any) -> Tensor:
    """The gradient of a critic's summed score in x, recorded."""
    x = x if x.requires_grad else x.detach().requires_grad_()
    return grad(critic(x).sum(), x, create_graph=True)[0]


@spec("gradient_penalty", "composite")
def gradient_penalty_case(choose: Choices) -> Case:
    """WGAN-GP's mean (‖∇ critic‖ − 1)² as a function of images and the critic's weights.

    The critic is a convolution of stride 2, a SiLU, and a product with one more weight. Its slope
    is known: the adjoint of the convolution applied to v · silu'.
    """
    n, (h, w), c, o = (
        choose.integer(1, 2),
        choose.of((2, 3), (3, 3), (3, 2)),
        2,
        choose.integer(1, 2),
    )

    def call(x: Tensor, weight: Tensor, v: Tensor) -> Tensor:
        slope = slope_at(x, lambda x: F.silu(F.conv2d(x, weight, stride=2, padding=1)) * v)
        norms = F.sqrt((slope * slope).sum((1, 2, 3)))
        return ((norms - 1.0) ** 2).mean()

    def by_definition(x: np.ndarray, weight: np.ndarray, v: np.ndarray) -> np.ndarray:
        z = convolved(x, weight, stride=2, padding=1)
        s = special.expit(z)
        scores = v * (s + z * s * (1 - s))
        back = np.zeros((n, h + 4, w + 4, c))
        for i, j, a, b in np.ndindex(*z.shape[1:3], 2, 2):
            back[:, 2 * i + a, 2 * j + b] += scores[:, i, j] @ weight[a, b].T
        slope = back[:, 1 : 1 + h, 1 : 1 + w]
        return np.mean((np.sqrt((slope**2).sum(axis=(1, 2, 3))) - 1) ** 2)

    sizes = (n, h, w, c), (2, 2, c, o), (o,)
    return Case(call, by_definition, draw_inputs(choose, *sizes, fill=(spread, spread, positive)))


@spec("unet_block", "composite")
def unet_block_case(choose: Choices) -> Case:
    """Down and up again beside the skip, on images with odd sides too."""
    h, w = choose.of((4, 5), (5, 4), (6, 4), (5, 5))
    n, c, o = choose.integer(1, 2), choose.integer(1, 2), choose.integer(1, 2)
    down, up = pix2pix.Down(c, o), pix2pix.Up(o, c)
    down_call, down_sizes = module_call(down)
    up_conv = (4, 4, c, o)

    def call(x: Tensor, dw: Tensor, dg: Tensor, db: Tensor, *rest: Tensor) -> Tensor:
        below = down_call(x, dw, dg, db)
        up.conv.weight, up.norm.weight, up.norm.bias = rest
        up.norm.running_mean = up.norm.running_var = None
        return up(below, x)

    def by_definition(x: np.ndarray, *arrays: np.ndarray) -> np.ndarray:
        dw, dg, db, uw, ug, ub = arrays
        below = reference.batch_norm(convolved(x, dw, stride=2, padding=1), 1e-5)
        below = leaky(reference.affine(below, dg, db), 0.2)
        lost = h - 2 * below.shape[1], w - 2 * below.shape[2]
        above = reference.conv_transpose2d(below, uw, None, (2, 2), (1, 1), lost, 1, (1, 1))
        above = leaky(reference.affine(reference.batch_norm(above, 1e-5), ug, ub), 0.0)
        return np.concatenate([above, x], axis=3)

    sizes = [(n, h, w, c), *down_sizes, up_conv, (c,), (c,)]
    fills = (spread, spread, small, far, spread, small, far)
    return Case(call, by_definition, draw_inputs(choose, *sizes, fill=fills), f"{h}x{w}")


@spec("shared_weight", "composite")
def shared_weight_case(choose: Choices) -> Case:
    """One matrix used three times, once transposed, and a result used twice."""
    k = choose.integer(1, 3)

    def call(x: Tensor, w: Tensor) -> Tensor:
        hidden = F.tanh(x @ w)
        return (hidden @ w.T) * hidden + x @ w

    def by_definition(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        hidden = np.tanh(np.dot(x, w))
        return np.dot(hidden, w.T) * hidden + np.dot(x, w)

    return Case(call, by_definition, draw_inputs(choose, (choose.integer(1, 3), k), (k, k)))


@spec("views", "composite")
def views_case(choose: Choices) -> Case:
    """Views of views of one tensor, which overlap, multiplied and joined."""
    h, w = choose.integer(2, 4), choose.integer(2, 4)

    def call(x: Tensor) -> Tensor:
        left, right = x[:, :-1], x[:, 1:]
        turned = F.flip(x, 0).T.reshape(-1)
        return F.concatenate(
            [(left * right).reshape(-1), turned * turned, x.broadcast_to((2, h, w)).reshape(-1)]
        )

    def by_definition(x: np.ndarray) -> np.ndarray:
        turned = x[::-1].T.ravel()
        return np.concatenate([(x[:, :-1] * x[:, 1:]).ravel(), turned**2, x.ravel(), x.ravel()])

    return Case(call, by_definition, draw_inputs(choose, (h, w)), f"{h}x{w}")


@spec("batch_norm_leaky_relu", "composite")
def batch_norm_leaky_relu_case(choose: Choices) -> Case:
    """Batch normalisation with the activation in the same passes."""
    channels, slope = choose.integer(1, 3), choose.of(0.2, 0.0)
    shape, training = (*choose.of((3,), (4, 2), (2, 3, 2)), channels), not choose.yes(4)
    mean, var = (s[:channels] for s in STORED)

    def call(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        running = (Tensor(s.copy(), dtype=x.dtype, device=x.device) for s in (mean, var))
        options = {"training": training, "negative_slope": slope}
        return F.batch_norm(x, *running, weight, bias, **options)

    def by_definition(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        normal = reference.batch_norm(x, 1e-5) if training else (x - mean) / np.sqrt(var + 1e-5)
        return leaky(reference.affine(normal, weight, bias), slope)

    sizes = shape, (channels,), (channels,)
    inputs = draw_inputs(choose, *sizes, fill=(varied, spread, spread))
    return Case(call, by_definition, inputs, f"training={training} slope={slope}")
