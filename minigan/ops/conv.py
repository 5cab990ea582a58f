"""Floor 2: convolution, as im2col and one matrix product.

Images are (N, H, W, C) and weights (KH, KW, C, O). `windows` looks at an image as all of its
patches, (N, OH, OW, KH, KW, C), without moving a number. Copied out flat ("im2col") the patches
are the rows of a matrix, and convolution is

    columns (N·OH·OW, KH·KW·C)  @  weight (KH·KW·C, O)  =  output (N·OH·OW, O).

The op is linear in the image and in the weight, so its two derivatives are its two adjoints:

    Conv2d          y  = columns(x) @ w         a number for every window
    ConvTranspose2d x' = scatter(y @ wᵀ)        windows added back where they came from
    ConvWeight      w' = columns(x)ᵀ @ y        the weight's gradient

and the derivatives of each of the three are the other two. That is why any order works. Columns
are made a piece at a time and again whenever they are needed: kept, they would be KH·KW times the
size of the image. Groups are a stack of independent products: (G, rows, K) @ (G, K, O/G).

This file has the plain way to each of the three. Others give the same numbers faster: `strips` for
many channels on the CPU, `planes` for few, and `columns` with kernels on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from minigan.autograd import Op
from minigan.backend import Backend
from minigan.ops import columns, planes, strips
from minigan.ops.columns import pixel_matrix, weight_matrix
from minigan.ops.reduction import sum
from minigan.ops.windows import (
    Geometry,
    Pair,
    as_pair,
    by_images,
    check_image,
    geometry,
    im2col,
    pieces,
    scatter_windows,
)
from minigan.tensor import Tensor, lift
from minigan.workers import PIECES, cut

FEWER = 4  # a side with so many times fewer channels is the one whose columns are made


def convolve(backend: Backend, x: Any, w: Any, g: Geometry, y: Any, bias: Any = None) -> None:
    """Write into y (N, OH, OW, O), any view, the product of x's columns with the weight."""
    weight = weight_matrix(w, g)  # (G, KH·KW·C/G, O/G)
    in_place = y.flags.c_contiguous

    def piece(some):
        columns = im2col(backend, x, g, some, y.shape[2])  # (G, n·oh·ow, KH·KW·C/G)
        out = y[some] if in_place else backend.scratch("out", y[some].shape, y.dtype)
        backend.matmul(columns, weight, out=pixel_matrix(out, g))
        if bias is not None:
            out += bias
        if not in_place:
            y[some] = out

    backend.each(
        piece, pieces(y.shape, g.groups * weight.shape[1], y.itemsize, backend.column_bytes)
    )


def scatter(
    backend: Backend, y: Any, w: Any, g: Geometry, shape: tuple[int, ...], bias: Any = None
) -> Any:
    """Return images of this shape: y's pixels times the weight, added up window by window."""
    weight = weight_matrix(w, g)  # (G, KH·KW·C/G, O/G)
    width = g.groups * weight.shape[1]
    images = filled(backend.xp, shape, y.dtype, bias)
    x = images.reshape(*shape[:3], g.groups, w.shape[2])

    def lane(cuts):
        for some in cuts:
            part = y[some]
            pixels = pixel_matrix(part, g)  # (G, n·oh·ow, O/G)
            product = backend.scratch("product", (*pixels.shape[:2], weight.shape[1]), x.dtype)
            backend.matmul(pixels, weight.transpose(0, 2, 1), out=product)
            patches = product.reshape(g.groups, *part.shape[:3], *w.shape[:3])
            scatter_windows(patches.transpose(1, 2, 3, 4, 5, 0, 6), x[some[0]], g, some[1].start)

    cuts = pieces(y.shape, width, y.itemsize, backend.column_bytes)
    backend.each(lane, by_images(cuts))
    return images


def correlate(backend: Backend, x: Any, y: Any, g: Geometry) -> Any:
    """Return the weight (KH, KW, C/G, O) of which each number is a sum over pixels of x · y."""
    (kh, kw), c, o = g.kernel, x.shape[3] // g.groups, y.shape[3]
    cuts = pieces(y.shape, kh * kw * c * g.groups, y.itemsize, backend.column_bytes)
    lanes = list(cut(len(cuts), PIECES))  # each sums some pieces in turn
    sums = backend.xp.empty((len(lanes), g.groups, kh * kw * c, o // g.groups), dtype=x.dtype)

    def lane(i):
        for j, some in enumerate(cuts[lanes[i]]):
            columns = im2col(backend, x, g, some, y.shape[2]).transpose(0, 2, 1)
            pixels = pixel_matrix(y[some], g)
            if j == 0:
                backend.matmul(columns, pixels, out=sums[i])
            else:
                product = backend.scratch("product", sums.shape[1:], x.dtype)
                backend.matmul(columns, pixels, out=product)
                sums[i] += product

    backend.each(lane, range(len(lanes)))
    w = backend.xp.zeros(sums.shape[1:], dtype=x.dtype)
    for part in sums:
        w += part
    return w.transpose(1, 0, 2).reshape(kh, kw, c, o)


def is_turnable(g: Geometry, image: tuple[int, ...], result: tuple[int, ...]) -> bool:
    """Whether a convolution is also a transposed one: at stride 1, with its kernel turned round.

    Not where there is more padding than the kernel reaches over, or pixels are left over.
    """
    exact = g.output_size(*image[1:3]) == result[1:3]
    reached = all(p < e for p, e in zip(g.padding, g.span(), strict=True))
    return g.stride == (1, 1) and g.groups == 1 and reached and exact


def turned(w: Any) -> Any:
    """Return a weight turned half round, its channels exchanged: (KH, KW, O, C)."""
    return w[::-1, ::-1].transpose(0, 1, 3, 2)


def turned_geometry(g: Geometry) -> Geometry:
    """Return what takes the turned kernel over the outputs to give the inputs."""
    (eh, ew), (ph, pw) = g.span(), g.padding
    return replace(g, padding=(eh - 1 - ph, ew - 1 - pw))


def convolve_with(backend: Backend, g: Geometry, channels: int) -> Callable:
    """Return the `convolve` that suits images of so many channels on this backend."""
    plain = strips.convolve if suit_strips(backend, g, channels) else convolve
    return backend.choose(plain, columns.convolve)


def scatter_with(backend: Backend, g: Geometry, channels: int) -> Callable:
    """Return the `scatter` that suits images of so many channels on this backend."""
    plain = scatter
    if suit_strips(backend, g, channels):
        plain = strips.scatter
    elif backend.adds_products and planes.is_few(g, channels):  # on the CPU, too
        plain = planes.scatter
    return backend.choose(plain, columns.scatter)


def correlate_with(backend: Backend, g: Geometry, channels: int) -> Callable:
    """Return the `correlate` that suits images of so many channels on this backend."""
    plain = strips.correlate if suit_strips(backend, g, channels) else correlate
    return backend.choose(plain, columns.correlate)


def suit_strips(backend: Backend, g: Geometry, channels: int) -> bool:
    """Whether images of so many channels are convolved strip by strip: on the CPU, if long."""
    return backend.adds_products and strips.is_long(g, channels)


class Conv2d(Op):
    """y (N, OH, OW, O) = convolution of x (N, H, W, C) with w (KH, KW, C/G, O), plus a bias (O,).

    `size` is (OH, OW).
    """

    def forward(self, x, w, bias=None):
        self.save(0, 1)
        g, shape = self.geometry, (len(x), *self.size, w.shape[3])
        self.work = math.prod(shape[:3]) * w.size
        few = FEWER * w.shape[3] < x.shape[3] and shape[1:3] != (1, 1)
        if few and is_turnable(g, x.shape, shape):  # the columns of y are smaller than those of x
            scattered = scatter_with(self.backend, g, shape[3])
            return scattered(self.backend, x, turned(w), turned_geometry(g), shape, bias)
        y = self.xp.empty(shape, dtype=x.dtype)
        convolve_with(self.backend, g, x.shape[3])(self.backend, x, w, g, y, bias)
        return y

    def backward(self, gy):
        x, w = self.saved()
        g = self.geometry
        gx = ConvTranspose2d(geometry=g, size=x.shape[1:3])(gy, w) if self.needs[0] else None
        gw = ConvWeight(geometry=g)(x, gy) if self.needs[1] else None
        return (gx, gw, *bias_gradient(self, gy))


class ConvTranspose2d(Op):
    """x (N, H, W, C) = Conv2d's adjoint in the image, from y (N, OH, OW, O), plus a bias (C,).

    `size` is (H, W).
    """

    def forward(self, y, w, bias=None):
        self.save(0, 1)
        g = self.geometry
        shape = (len(y), *self.size, w.shape[2] * g.groups)
        self.work = math.prod(y.shape[:3]) * w.size
        if is_turnable(g, shape, y.shape) and w.shape[3] <= FEWER * w.shape[2]:
            x = self.xp.empty(shape, dtype=y.dtype)
            convolved = convolve_with(self.backend, g, y.shape[3])
            convolved(self.backend, y, turned(w), turned_geometry(g), x, bias)
            return x
        return scatter_with(self.backend, g, shape[3])(self.backend, y, w, g, shape, bias)

    def backward(self, gx):
        y, w = self.saved()
        g = self.geometry
        gy = Conv2d(geometry=g, size=y.shape[1:3])(gx, w) if self.needs[0] else None
        gw = ConvWeight(geometry=g)(gx, y) if self.needs[1] else None
        return (gy, gw, *bias_gradient(self, gx))


def filled(xp: Any, shape: tuple[int, ...], dtype: Any, bias: Any) -> Any:
    """Return images of nothing but the bias."""
    images = xp.zeros(shape, dtype=dtype)
    if bias is not None:
        images += bias
    return images


def bias_gradient(op: Op, gy: Tensor) -> tuple:
    """Return the gradient of the third input, if there is one."""
    return tuple(sum(gy, (0, 1, 2)) if need else None for need in op.needs[2:])


class ConvWeight(Op):
    """w (KH, KW, C/G, O) = Conv2d's adjoint in the weight, from x (N, H, W, C) and y."""

    def forward(self, x, y):
        self.save(0, 1)
        g = self.geometry
        if is_turnable(g, x.shape, y.shape) and FEWER * y.shape[3] < x.shape[3]:
            correlated = correlate_with(self.backend, g, y.shape[3])
            return turned(correlated(self.backend, y, x, turned_geometry(g)))
        return correlate_with(self.backend, g, x.shape[3])(self.backend, x, y, g)

    def backward(self, gw):
        x, y = self.saved()
        g = self.geometry
        gx = ConvTranspose2d(geometry=g, size=x.shape[1:3])(y, gw) if self.needs[0] else None
        gy = Conv2d(geometry=g, size=y.shape[1:3])(x, gw) if self.needs[1] else None
        return gx, gy


def _kernel(who: str, weight: Tensor) -> tuple[int, int]:
    if weight.ndim != 4:
        raise ValueError(f"{who}: weight must have 4 axes (KH, KW, C, O), got {weight.shape}")
    return weight.shape[:2]


def _check_weight(who: str, x: Tensor, weight: Tensor, groups: int, axis: int) -> None:
    """Raise unless the weight's shape fits the image's channels, which stand on its `axis`."""
    expected = weight.shape[axis] * (groups if axis == 2 else 1)
    if x.shape[3] != expected:
        raise ValueError(
            f"{who}: input has {x.shape[3]} channels but weight {weight.shape} expects {expected}"
            f"{f' in {groups} groups' if groups > 1 else ''}; input is (N, H, W, C) = {x.shape}"
        )
    if weight.shape[3] % groups:
        raise ValueError(
            f"{who}: groups={groups} does not divide the {weight.shape[3]} channels on the last "
            f"axis of weight {weight.shape}"
        )


def _check_bias(who: str, bias: Tensor | None, channels: int) -> tuple[Tensor, ...]:
    """Return the bias as the inputs that it adds to an op's."""
    if bias is None:
        return ()
    (bias,) = lift(bias)
    if bias.shape != (channels,):
        raise ValueError(f"{who}: bias {bias.shape} does not fit {channels} output channels")
    return (bias,)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Return the convolution (cross-correlation, as everywhere in deep learning) of images.

    Args:
        x: (N, H, W, C).
        weight: (KH, KW, C / groups, O).
        bias: (O,).
        stride, padding, dilation: in pixels, one number or (vertical, horizontal).

    Returns:
        (N, OH, OW, O) with OH = (H + 2·padding − dilation·(KH − 1) − 1) // stride + 1.

    Raises:
        ValueError: shapes that do not fit together; the message names them and the rule.
    """
    x, weight = lift(x, weight)
    check_image(x, "conv2d")
    g = geometry("conv2d", _kernel("conv2d", weight), stride, padding, dilation, groups)
    _check_weight("conv2d", x, weight, g.groups, axis=2)
    check_image(x, "conv2d", g)
    inputs = (x, weight, *_check_bias("conv2d", bias, weight.shape[3]))
    return Conv2d(geometry=g, size=g.output_size(*x.shape[1:3]))(*inputs)


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Tensor:
    """Return the transposed convolution: the adjoint of `conv2d` with the same weight.

    Args:
        x: (N, H, W, C).
        weight: (KH, KW, O / groups, C), as of the convolution whose adjoint this is.
        bias: (O,).
        output_padding: pixels that the convolution would have left over, < stride or dilation.

    Returns:
        (N, OH, OW, O) with
        OH = (H − 1)·stride − 2·padding + dilation·(KH − 1) + 1 + output_padding.

    Raises:
        ValueError: shapes that do not fit together; the message names them and the rule.
    """
    who = "conv_transpose2d"
    x, weight = lift(x, weight)
    check_image(x, who)
    g = geometry(who, _kernel(who, weight), stride, padding, dilation, groups)
    _check_weight(who, x, weight, g.groups, axis=3)
    extra = as_pair(output_padding, who, "output_padding", 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, g.stride, g.dilation, strict=True)):
        raise ValueError(
            f"{who}: output_padding {extra} must be smaller than stride {g.stride} or dilation "
            f"{g.dilation}: a convolution leaves no more pixels over"
        )
    size = tuple(n + e for n, e in zip(g.input_size(*x.shape[1:3]), extra, strict=True))
    if min(size) < 1:
        raise ValueError(f"{who}: padding {g.padding} leaves nothing of the output; {x.shape}")
    inputs = (x, weight, *_check_bias(who, bias, weight.shape[2] * g.groups))
    return ConvTranspose2d(geometry=g, size=size)(*inputs)
