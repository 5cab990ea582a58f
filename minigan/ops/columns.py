"""Floor 2: the three products of a convolution where kernels make the columns and add them up.

`conv` has the same functions for a backend without kernels, which move a small piece at a time
through the CPU's cache. A GPU wants few and large steps: one kernel for the columns of a whole
batch, one matrix product, and on the way back one kernel that gathers. A batch is cut, by images,
only where its columns would take more than `backend.column_bytes`.
"""

from __future__ import annotations

import math
from typing import Any

from minigan.backend import Backend
from minigan.ops.windows import Geometry, windows
from minigan.workers import cut


def convolve(backend: Backend, x: Any, w: Any, g: Geometry, y: Any, bias: Any = None) -> None:
    """Write into y (N, OH, OW, O) the product of x's columns with the weight, plus a bias."""
    weight = weight_matrix(w, g)  # (G, KH·KW·C/G, O/G)
    for some in batches(backend, y, g, weight.shape[1]):
        rows = columns_of(backend, x[some], g, y.shape[1:3])  # (G, n·OH·OW, KH·KW·C/G)
        backend.matmul(rows, weight, out=pixel_matrix(y[some], g))
    if bias is not None:
        y += bias


def scatter(
    backend: Backend, y: Any, w: Any, g: Geometry, shape: tuple[int, ...], bias: Any = None
) -> Any:
    """Return images of this shape: y's pixels times the weight, gathered from their windows."""
    xp, size, weight = backend.xp, y.shape[1:3], weight_matrix(w, g)
    parts = []
    for some in batches(backend, y, g, weight.shape[1]):
        pixels = pixel_matrix(y[some], g)  # (G, n·OH·OW, O/G)
        product = xp.empty((*pixels.shape[:2], weight.shape[1]), y.dtype)
        backend.matmul(pixels, weight.transpose(0, 2, 1), out=product)
        images = (some.stop - some.start, *shape[1:])
        parts.append(backend.kernels.col2im(product, images, *numbers(g), size))
    x = parts[0] if len(parts) == 1 else xp.concatenate(parts)
    if bias is not None:
        x += bias
    return x


def correlate(backend: Backend, x: Any, y: Any, g: Geometry) -> Any:
    """Return the weight (KH, KW, C/G, O) of which each number is a sum over pixels of x · y."""
    (kh, kw), c, o = g.kernel, x.shape[3] // g.groups, y.shape[3]
    w = backend.xp.empty((g.groups, kh * kw * c, o // g.groups), dtype=x.dtype)
    for i, some in enumerate(batches(backend, y, g, w.shape[1])):
        rows = columns_of(backend, x[some], g, y.shape[1:3])
        product = w if i == 0 else backend.xp.empty_like(w)
        backend.matmul(rows.transpose(0, 2, 1), pixel_matrix(y[some], g), out=product)
        if i:
            w += product
    return w.transpose(1, 0, 2).reshape(kh, kw, c, o)


def batches(backend: Backend, y: Any, g: Geometry, length: int) -> list[slice]:
    """Cut results y (N, OH, OW, ...) by images, so that their columns fit `column_bytes`."""
    columns = y.shape[0] * y.shape[1] * y.shape[2] * g.groups * length
    count = -(-columns * y.itemsize // backend.column_bytes)
    return list(cut(len(y), count)) or [slice(0, 0)]


def columns_of(backend: Backend, x: Any, g: Geometry, size: tuple[int, int]) -> Any:
    """Return the windows of images as columns, (G, n·OH·OW, KH·KW·C/G); a view where they are."""
    if g.groups == 1 and g.padding == (0, 0):
        view = windows(backend.xp, x, g)
        if view.flags.c_contiguous and view.shape[1:3] == size:
            return view.reshape(1, math.prod(view.shape[:3]), math.prod(view.shape[3:]))
    return backend.kernels.im2col(x, *numbers(g), size)


def numbers(g: Geometry) -> tuple:
    """Return a geometry as the kernels' launchers take it."""
    return g.kernel, g.stride, g.padding, g.dilation, g.groups


def weight_matrix(w: Any, g: Geometry) -> Any:
    """Return a weight (KH, KW, C/G, O) as one matrix for each group, (G, KH·KW·C/G, O/G)."""
    kh, kw, c, o = w.shape
    return w.reshape(kh * kw * c, g.groups, o // g.groups).transpose(1, 0, 2)


def pixel_matrix(y: Any, g: Geometry) -> Any:
    """Return (N, OH, OW, O) as one matrix for each group, (G, N·OH·OW, O/G)."""
    return y.reshape(-1, g.groups, y.shape[3] // g.groups).transpose(1, 0, 2)
