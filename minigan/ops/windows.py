"""Floor 2: windows over images: where they lie, copying them out, adding them back.

Images are (N, H, W, C). `windows` looks at an image as all of its patches, (N, OH, OW, KH, KW, C),
without moving a number; `im2col` copies them out as the rows of a matrix, `scatter_windows` adds
them back to where they came from. Convolution and pooling stand on these.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from minigan.backend import Backend
from minigan.tensor import Tensor
from minigan.workers import PIECES, cut

Pair = int | tuple[int, int]
Piece = tuple[slice, slice]  # some images of a batch, and some rows of each

PIECE_ROWS = 256  # rows of columns: a product with fewer reads the weight for too little


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
        down, rows = landing(patches.shape[1], images.shape[1], g.stride[0], offset)
        for j in range(kw):
            across, cols = landing(patches.shape[2], images.shape[2], g.stride[1], j * dw - pw)
            images[:, rows, cols] += patches[:, down, across, i, j]


@functools.lru_cache(maxsize=4096)
def landing(count: int, size: int, stride: int, offset: int) -> tuple[slice, slice]:
    """Return which windows put their pixel at `offset` inside the image, and where it lands.

    Along one axis: window i puts it at i·stride + offset, and 0 ... size − 1 are inside.
    """
    first = max(0, -(offset // stride))  # the least i with i·stride + offset >= 0
    stop = max(first, min(count, (size - 1 - offset) // stride + 1))
    start = first * stride + offset
    return slice(first, stop), slice(start, start + (stop - first) * stride, stride)


def pieces(shape: tuple[int, ...], width: int, itemsize: int, limit: int) -> list[Piece]:
    """Cut results of this shape, (N, OH, OW, ...), so that the columns of each fit `limit` bytes.

    A row of columns has `width` numbers. Each piece is some images, or some rows of one image that
    is too large. Where there are rows enough, their number is a multiple of four.
    """
    n, oh, ow = shape[:3]
    rows = n * oh * ow
    fit = max(PIECE_ROWS, limit // max(1, width * itemsize))  # rows of columns
    count = -(-rows // fit)
    if PIECES * rows > max(fit, PIECES * PIECES * PIECE_ROWS):
        count = -(-count // PIECES) * PIECES
    images = cut(n, count)
    return [(some, rows) for some in images for rows in cut(oh, -(-count // max(1, n)))]


def by_images(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """Return the pieces of the same images together: windows overlap, so one thread adds them."""
    found: dict[int, list[Piece]] = {}
    for piece in pieces:
        found.setdefault(piece[0].start, []).append(piece)
    return list(found.values())


def im2col(backend: Backend, x: Any, g: Geometry, piece: Piece, across: int) -> Any:
    """Return the windows of a piece of the results as columns, (G, n·oh·ow, KH·KW·C/G).

    `across` is OW. In a buffer that the next call overwrites; a view where nothing need be moved.
    """
    view = windows(backend.xp, crop(backend, x, g, piece, across), g)
    n, oh, ow, kh, kw, c = view.shape
    if g.groups == 1 and view.flags.c_contiguous:
        return view.reshape(1, n * oh * ow, kh * kw * c)
    if g.groups > 1:
        view = view.reshape(n, oh, ow, kh, kw, g.groups, c // g.groups)
        view = view.transpose(5, 0, 1, 2, 3, 4, 6)
    columns = backend.scratch("columns", view.shape, view.dtype)
    backend.copy_runs(columns, view)
    return columns.reshape(g.groups, n * oh * ow, -1)


def crop(backend: Backend, x: Any, g: Geometry, piece: Piece, across: int) -> Any:
    """Return the part of the padded images that the windows of a piece look at."""
    images, rows = piece
    (_, h, w, c), (sh, sw), (ph, pw), (eh, ew) = x.shape, g.stride, g.padding, g.span()
    top, left = rows.start * sh - ph, -pw
    bottom, right = (rows.stop - 1) * sh - ph + eh, (across - 1) * sw - pw + ew
    if top >= 0 and left >= 0 and bottom <= h and right <= w:
        return x[images, top:bottom, left:right]
    inside = backend.scratch(
        "crop", (images.stop - images.start, bottom - top, right - left, c), x.dtype
    )
    inside[...] = 0
    rows, columns = within(top, bottom, h), within(left, right, w)
    inside[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = x[
        images, rows, columns
    ]
    return inside


def within(start: int, stop: int, size: int) -> slice:
    """Return what of a range is inside 0 ... size; nothing, where windows see only padding."""
    return slice(max(0, min(start, size)), max(0, min(stop, size)))


def as_pair(value: Pair, who: str, name: str, least: int) -> tuple[int, int]:
    """Return an int or a pair as a pair (vertical, horizontal), each at least `least`.

    Raises:
        ValueError: anything else.
    """
    if type(value) is int and value >= least:  # as most are: each convolution comes here four times
        return value, value
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
