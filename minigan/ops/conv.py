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
are made again whenever they are needed: kept, they would be KH·KW times the size of the image.
Groups are a stack of independent products: G stands first, (G, rows, K) @ (G, K, O/G).
"""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from minigan.autograd import Op
from minigan.ops.arithmetic import add
from minigan.tensor import Tensor, lift

Pair = int | tuple[int, int]

COLUMN_BYTES = 1 << 22  # columns made at a time: more falls out of the cache, less starves BLAS


@dataclass(frozen=True)
class Geometry:
    """How a window moves over an image; pairs are (vertical, horizontal), in pixels."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def span(self) -> tuple[int, int]:
        """Return the extent of a window, the gaps of a dilated one included."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return how many windows fit down and across an image."""
        (sh, sw), (ph, pw), (eh, ew) = self.stride, self.padding, self.span()
        return (height + 2 * ph - eh) // sh + 1, (width + 2 * pw - ew) // sw + 1

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the smallest image that gives this many windows."""
        (sh, sw), (ph, pw), (eh, ew) = self.stride, self.padding, self.span()
        return (height - 1) * sh + eh - 2 * ph, (width - 1) * sw + ew - 2 * pw


def pad_image(xp: Any, x: Any, g: Geometry, value: float = 0.0) -> Any:
    """Return the images (N, H, W, C) with g.padding pixels of `value` around each."""
    (n, h, w, c), (ph, pw) = x.shape, g.padding
    if not ph and not pw:
        return x
    padded = xp.full((n, h + 2 * ph, w + 2 * pw, c), value, dtype=x.dtype)
    padded[:, ph : ph + h, pw : pw + w] = x
    return padded


def windows(xp: Any, padded: Any, g: Geometry) -> Any:
    """Return all windows of padded images as a view (N, OH, OW, KH, KW, C): no copy."""
    n, hp, wp, c = padded.shape
    oh, ow = Geometry(g.kernel, g.stride, (0, 0), g.dilation).output_size(hp, wp)
    (kh, kw), (sh, sw), (dh, dw) = g.kernel, g.stride, g.dilation
    per_image, per_row, per_pixel, per_channel = padded.strides
    return xp.lib.stride_tricks.as_strided(
        padded,
        (n, oh, ow, kh, kw, c),
        (per_image, per_row * sh, per_pixel * sw, per_row * dh, per_pixel * dw, per_channel),
    )


def scatter_windows(patches: Any, images: Any, g: Geometry, top: int = 0) -> None:
    """Add windows (N, OH, OW, KH, KW, ...) to the images they were cut from, without padding.

    `top` is the number of the first row of windows, where they are only some of an image's.
    """
    (kh, kw), (dh, dw), (ph, pw) = g.kernel, g.dilation, g.padding
    for i in range(kh):
        offset = top * g.stride[0] + i * dh - ph
        down, rows = _landing(patches.shape[1], images.shape[1], g.stride[0], offset)
        for j in range(kw):
            across, cols = _landing(patches.shape[2], images.shape[2], g.stride[1], j * dw - pw)
            images[:, rows, cols] += patches[:, down, across, i, j]


def _landing(count: int, size: int, stride: int, offset: int) -> tuple[slice, slice]:
    """Return which windows put their pixel at `offset` inside the image, and where it lands.

    Along one axis: window i puts it at i·stride + offset, and 0 ... size − 1 are inside.
    """
    first = max(0, -(offset // stride))  # the least i with i·stride + offset >= 0
    stop = max(first, min(count, (size - 1 - offset) // stride + 1))
    start = first * stride + offset
    return slice(first, stop), slice(start, start + (stop - first) * stride, stride)


def weight_matrix(w: Any, g: Geometry) -> Any:
    """Return a weight (KH, KW, C/G, O) as one matrix for each group, (G, KH·KW·C/G, O/G)."""
    kh, kw, c, o = w.shape
    return w.reshape(kh * kw * c, g.groups, o // g.groups).transpose(1, 0, 2)


def pixel_matrix(y: Any, g: Geometry) -> Any:
    """Return (N, OH, OW, O) as one matrix for each group, (G, N·OH·OW, O/G)."""
    return y.reshape(-1, g.groups, y.shape[3] // g.groups).transpose(1, 0, 2)


def chunks(y: Any, columns: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cut a batch of results (N, OH, OW, O) into pieces whose columns fit the cache.

    Some images at a time, or some rows of one that is too large. Yields the slices of images and
    of rows, and the slice that they are of the matrix product's N·OH·OW rows.
    """
    n, oh, ow, _ = y.shape
    fit = max(1, COLUMN_BYTES // max(1, ow * columns * y.dtype.itemsize))  # rows of an image
    images, rows = max(1, fit // max(1, oh)), min(fit, oh)
    for first in range(0, n, images):
        last = min(n, first + images)
        for top in range(0, oh, max(1, rows)):
            bottom = min(oh, top + rows)
            start = (first * oh + top) * ow
            size = (last - first) * (bottom - top) * ow
            yield slice(first, last), slice(top, bottom), slice(start, start + size)


class ConvOp(Op):
    """What the three share: `self.geometry`, and columns in a buffer that is used again."""

    def columns(self, view):
        """Return windows (n, oh, ow, KH, KW, C) as columns, (G, n·oh·ow, KH·KW·C/G)."""
        groups = self.geometry.groups
        n, oh, ow, kh, kw, c = view.shape
        if groups > 1:
            view = view.reshape(n, oh, ow, kh, kw, groups, c // groups)
            view = view.transpose(5, 0, 1, 2, 3, 4, 6)
        if getattr(self, "buffer", None) is None:  # the first piece is the largest
            self.buffer = self.xp.empty(view.size, dtype=view.dtype)
        columns = self.buffer[: view.size]
        columns.reshape(view.shape)[...] = view
        return columns.reshape(groups, n * oh * ow, -1)

    def done(self, result):
        """Let go of the buffer before the op becomes a node of the graph."""
        self.__dict__.pop("buffer", None)
        return result


class Conv2d(ConvOp):
    """y (N, OH, OW, O) = convolution of x (N, H, W, C) with w (KH, KW, C/G, O): `size` (OH, OW)."""

    def forward(self, x, w):
        self.save(0, 1)
        g, xp, (oh, ow) = self.geometry, self.xp, self.size
        y = xp.empty((len(x), oh, ow, w.shape[3]), dtype=x.dtype)
        view = windows(xp, pad_image(xp, x, g), g)[:, :oh, :ow]
        weight, out = weight_matrix(w, g), pixel_matrix(y, g)
        for images, rows, pixels in chunks(y, weight.shape[1] * g.groups):
            xp.matmul(self.columns(view[images, rows]), weight, out=out[:, pixels])
        return self.done(y)

    def backward(self, gy):
        x, w = self.saved()
        g = self.geometry
        gx = ConvTranspose2d(geometry=g, size=x.shape[1:3])(gy, w) if self.needs[0] else None
        gw = ConvWeight(geometry=g)(x, gy) if self.needs[1] else None
        return gx, gw


class ConvTranspose2d(ConvOp):
    """x (N, H, W, C) = Conv2d's adjoint in the image, from y (N, OH, OW, O): `size` is (H, W)."""

    def forward(self, y, w):
        self.save(0, 1)
        g, xp = self.geometry, self.xp
        x = xp.zeros((len(y), *self.size, w.shape[2] * g.groups), dtype=y.dtype)
        by_group = x.reshape(*x.shape[:3], g.groups, w.shape[2])
        weight = weight_matrix(w, g).transpose(0, 2, 1)
        pixels = pixel_matrix(y, g)
        for images, rows, some in chunks(y, weight.shape[2] * g.groups):
            columns = xp.matmul(pixels[:, some], weight)
            shape = (g.groups, -1, rows.stop - rows.start, y.shape[2], *w.shape[:3])
            patches = columns.reshape(shape).transpose(1, 2, 3, 4, 5, 0, 6)
            scatter_windows(patches, by_group[images], g, rows.start)
        return x

    def backward(self, gx):
        y, w = self.saved()
        gy = Conv2d(geometry=self.geometry, size=y.shape[1:3])(gx, w) if self.needs[0] else None
        gw = ConvWeight(geometry=self.geometry)(gx, y) if self.needs[1] else None
        return gy, gw


class ConvWeight(ConvOp):
    """w (KH, KW, C/G, O) = Conv2d's adjoint in the weight, from x (N, H, W, C) and y."""

    def forward(self, x, y):
        self.save(0, 1)
        g, xp = self.geometry, self.xp
        (kh, kw), c, o = g.kernel, x.shape[3] // g.groups, y.shape[3]
        w = xp.zeros((g.groups, kh * kw * c, o // g.groups), dtype=x.dtype)
        view = windows(xp, pad_image(xp, x, g), g)[:, : y.shape[1], : y.shape[2]]
        out = pixel_matrix(y, g)
        for images, rows, pixels in chunks(y, kh * kw * c * g.groups):
            columns = self.columns(view[images, rows])
            w += xp.matmul(columns.transpose(0, 2, 1), out[:, pixels])
        return self.done(w.transpose(1, 0, 2).reshape(kh, kw, c, o))

    def backward(self, gw):
        x, y = self.saved()
        g = self.geometry
        gx = ConvTranspose2d(geometry=g, size=x.shape[1:3])(y, gw) if self.needs[0] else None
        gy = Conv2d(geometry=g, size=y.shape[1:3])(x, gw) if self.needs[1] else None
        return gx, gy


def as_pair(value: Pair, who: str, name: str, least: int) -> tuple[int, int]:
    """Return an int or a pair as a pair (vertical, horizontal), each at least `least`.

    Raises:
        ValueError: anything else.
    """
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    whole = all(isinstance(v, numbers.Real) and v % 1 == 0 and v >= least for v in pair)
    if len(pair) != 2 or not whole:
        raise ValueError(
            f"{who}: {name} must be one or two whole numbers >= {least}, got {value!r}"
        )
    return int(pair[0]), int(pair[1])


def geometry(
    who: str, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = 1, groups: int = 1
) -> Geometry:
    """Return the checked geometry of an operation called `who`; ValueError says what is wrong."""
    if int(groups) != groups or groups < 1:
        raise ValueError(f"{who}: groups must be a whole number >= 1, got {groups!r}")
    return Geometry(
        as_pair(kernel, who, "kernel_size", 1),
        as_pair(stride, who, "stride", 1),
        as_pair(padding, who, "padding", 0),
        as_pair(dilation, who, "dilation", 1),
        int(groups),
    )


def check_image(x: Tensor, who: str, g: Geometry | None = None) -> None:
    """Raise ValueError unless x is (N, H, W, C), and large enough for a window of `g`."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{who}: needs a Tensor of images (N, H, W, C), got {type(x).__name__}")
    if x.ndim != 4:
        raise ValueError(f"{who}: needs images (N, H, W, C), got a tensor of shape {x.shape}")
    if g is None:
        return
    (eh, ew), (ph, pw) = g.span(), g.padding
    if x.shape[1] + 2 * ph < eh or x.shape[2] + 2 * pw < ew:
        raise ValueError(
            f"{who}: a window of {eh}x{ew} pixels does not fit an image of {x.shape[1]}x"
            f"{x.shape[2]} with padding {g.padding}; input is (N, H, W, C) = {x.shape}: "
            "use a smaller kernel or more padding"
        )


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


def _with_bias(who: str, y: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return y
    if bias.shape != y.shape[3:]:
        raise ValueError(f"{who}: bias {bias.shape} does not fit {y.shape[3]} output channels")
    return add(y, bias)


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
    y = Conv2d(geometry=g, size=g.output_size(*x.shape[1:3]))(x, weight)
    return _with_bias("conv2d", y, bias)


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
    return _with_bias(who, ConvTranspose2d(geometry=g, size=size)(x, weight), bias)
