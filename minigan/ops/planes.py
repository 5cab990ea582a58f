"""Floor 2: the transposed convolution onto images of few channels, on the CPU, plane by plane.

Images are (N, H, W, C), and with three channels an addition to some pixels is a loop of three
numbers. So here the product is made the other way round, (KH, KW, C, N, OH, OW): rows of pixels,
for each tap of the kernel and each channel. Pixels of an image that are `stride` apart make up a
plane, one for each *phase*, in which they lie side by side too. A tap is added to one of them, a
few places further on:

    h = stride·oh + i·dilation − padding = stride·(oh + shift) + phase

In the end the planes are put together. Only there the loop runs along every third number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from minigan.backend import Backend
from minigan.ops.windows import Geometry, by_images, landing, pieces

MOST = 8  # channels; of 8 it takes two thirds of the time, of 12 nine tenths
APART = 16  # numbers between rows: a power of two apart, they share few places of the cache


def is_few(g: Geometry, channels: int) -> bool:
    """Whether images of so many channels are better added up plane by plane.

    Not of one: the pixels of a window lie side by side there, and the plain way is as good.
    """
    return g.groups == 1 and 1 < channels <= MOST


@dataclass(frozen=True)
class Phases:
    """How the planes of one axis lie: where they begin, their length, and what each tap meets.

    Attributes:
        stride: by how many pixels of the image two of a plane are apart.
        first: the pixel stride · first + phase of the image is the first of a plane; it may be
            beyond the edge, or missing.
        length: of a plane.
        taps: for each of the kernel, its phase and by how many places it is moved.
    """

    stride: int
    first: int
    length: int
    taps: tuple[tuple[int, int], ...]

    def landing(self, phase: int, size: int) -> tuple[slice, slice]:
        """Return which part of a plane is inside of an image of this size, and where."""
        return landing(self.length, size, self.stride, self.stride * self.first + phase)


def phases(g: Geometry, axis: int, count: int, size: int) -> Phases:
    """Return the phases of axis 0 or 1, of `size` pixels, that `count` windows are added to."""
    stride, dilation, padding = g.stride[axis], g.dilation[axis], g.padding[axis]
    met = [divmod(i * dilation - padding, stride) for i in range(g.kernel[axis])]
    first = min(0, *(shift for shift, _ in met))
    taps = tuple((phase, shift - first) for shift, phase in met)
    length = max(-(-size // stride) - first, count + max(shift for _, shift in taps))
    return Phases(stride, first, length, taps)


def scatter(
    backend: Backend, y: Any, w: Any, g: Geometry, shape: tuple[int, ...], bias: Any = None
) -> Any:
    """Return images of this shape: y's pixels times the weight, added up tap by tap."""
    down, across = (phases(g, axis, y.shape[1 + axis], shape[1 + axis]) for axis in (0, 1))
    x = backend.xp.empty(shape, dtype=y.dtype)

    def lane(cuts):
        images = x[cuts[0][0]]
        size = *g.stride, shape[3], len(images), down.length, across.length
        planes = backend.scratch("planes", size, y.dtype)
        planes[...] = 0 if bias is None else bias.reshape(-1, 1, 1, 1)
        for some in cuts:
            add_taps(planes, products(backend, y[some], w), down, across, some[1].start)
        put_together(images, planes, down, across)

    lanes = by_images(pieces(y.shape, w[..., 0].size, y.itemsize, backend.column_bytes))
    backend.each(lane, lanes)
    if not lanes:  # no line of y
        x[...] = 0 if bias is None else bias
    return x


def products(backend: Backend, y: Any, w: Any) -> Any:
    """Return the weight (KH, KW, C, O) times y (n, oh, OW, O), as (KH, KW, C, n, oh, OW)."""
    weight, pixels = (a.reshape(math.prod(a.shape[:3]), a.shape[3]) for a in (w, y))
    rows, count = len(weight), len(pixels)
    product = backend.scratch("product", (rows, count + APART), y.dtype)[:, :count]
    backend.matmul(weight, pixels.T, out=product)
    return product.reshape(*w.shape[:3], *y.shape[:3])


def add_taps(planes: Any, taps: Any, down: Phases, across: Phases, top: int) -> None:
    """Add taps (KH, KW, C, n, oh, OW) to planes (SH, SW, C, n, H', W').

    `top` is the number of the first row of windows, where they are only some of an image's.
    """
    oh, ow = taps.shape[-2:]
    for i, (r, lower) in enumerate(down.taps):
        rows = slice(top + lower, top + lower + oh)
        for j, (q, further) in enumerate(across.taps):
            planes[r, q, ..., rows, further : further + ow] += taps[i, j]


def put_together(images: Any, planes: Any, down: Phases, across: Phases) -> None:
    """Write into images (n, H, W, C) what the planes (SH, SW, C, n, H', W') hold of them."""
    for r in range(down.stride):
        rows, lines = down.landing(r, images.shape[1])
        for q in range(across.stride):
            places, columns = across.landing(q, images.shape[2])
            for channel, plane in enumerate(planes[r, q, ..., rows, places]):
                images[:, lines, columns, channel] = plane
