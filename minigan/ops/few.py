"""Floor 2: the three products of a convolution with few pixels and a large weight, on the CPU.

In the middle of a U-Net there are 4×4 pixels and a million weights. Cut by images, as in `strips`,
each piece would read the whole weight for a handful of pixels, and each partial sum of a gradient
would be as large as the weight. So here the rows of the kernel are shared out: each is a part of
the weight that no other product reads or writes, and meets its strips of all images at once. What
they add to the same place, of which there is little, is added up in the order of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minigan.backend import Backend
from minigan.gemm import Part
from minigan.ops.lines import add_strips, cut_strips, empty_strips, matrix, parts, stack, trimmed
from minigan.ops.windows import Geometry, Piece
from minigan.ops.winograd import PLAIN, Tiling

FEW = 512  # pixels of results: with so many, a piece has work enough for the weight that it reads
SHARED_WORK = 1 << 25  # multiplications: less is over before it is handed out


def is_few(y: Any, g: Geometry) -> bool:
    """Whether results y (N, OH, OW, O) have few pixels, and no row is left over by two threads."""
    return math.prod(y.shape[:3]) < FEW and g.kernel[0] % 2 == 0


def convolve(backend: Backend, x: Any, w: Any, g: Geometry, y: Any, bias: Any = None) -> None:
    """As `strips.convolve`."""
    g, w, tiling, whole = in_one_piece(g, w, x.shape[2], y)
    strips = cut_strips(backend, x, g, whole, tiling)
    rows, weight = strips.reshape(-1, g.kernel[1] * x.shape[3]), stack(w)
    sums = backend.scratch("lines", (y.shape[1], len(y), *y.shape[2:]), y.dtype)
    sums[...] = 0 if bias is None else bias
    products = backend.scratch("products", (len(w), *matrix(sums).shape), y.dtype)

    def product(part):
        met, results = rows[part.strip :][: part.rows], matrix(sums)[part.result :][: part.rows]
        added = products[part.weight, : part.rows]
        backend.matmul(met, weight[part.weight], out=added)
        return results, added

    all_parts = parts(g, tiling, strips.shape, whole[1], x.shape[1]).parts
    for results, added in shared_out(backend, product, all_parts, w):
        results += added
    y[...] = sums.swapaxes(0, 1)


def correlate(backend: Backend, x: Any, y: Any, g: Geometry) -> Any:
    """As `strips.correlate`."""
    w = backend.xp.empty((*g.kernel, x.shape[3], y.shape[3]), dtype=x.dtype)
    g, seen, tiling, whole = in_one_piece(g, w, x.shape[2], y)
    strips = cut_strips(backend, x, g, whole, tiling)
    rows, weight = strips.reshape(-1, g.kernel[1] * x.shape[3]), stack(seen)
    pixels = matrix(lines_first(backend, y))

    def product(part):
        met, results = rows[part.strip :][: part.rows], pixels[part.result :][: part.rows]
        backend.matmul(met.T, results, out=weight[part.weight])

    all_parts = parts(g, tiling, strips.shape, whole[1], x.shape[1]).parts
    if len(all_parts) < len(w) or seen.shape != w.shape:
        w[...] = 0
    shared_out(backend, product, all_parts, seen)
    return w


def scatter(
    backend: Backend, y: Any, w: Any, g: Geometry, shape: tuple[int, ...], bias: Any = None
) -> Any:
    """As `strips.scatter`."""
    x = backend.xp.empty(shape, dtype=y.dtype)
    x[...] = 0 if bias is None else bias
    g, w, tiling, whole = in_one_piece(g, w, shape[2], y)
    strips = empty_strips(backend, x, g, whole[1], tiling)
    strips[...] = 0
    rows, weight = strips.reshape(-1, g.kernel[1] * shape[3]), stack(w)
    pixels = matrix(lines_first(backend, y))
    products = backend.scratch("products", (len(w), len(pixels), rows.shape[1]), y.dtype)

    def product(part):
        met, results = rows[part.strip :][: part.rows], pixels[part.result :][: part.rows]
        added = products[part.weight, : part.rows]
        backend.matmul(results, weight[part.weight].T, out=added)
        return met, added

    all_parts = parts(g, tiling, strips.shape, whole[1], shape[1]).parts
    for met, added in shared_out(backend, product, all_parts, w):
        met += added
    add_strips(backend, strips, x, g, whole[1], tiling, is_first=False)
    return x


def in_one_piece(g: Geometry, w: Any, width: int, y: Any) -> tuple[Geometry, Any, Tiling, Piece]:
    """Return what `trimmed` does, how strips lie without a scheme, and all results as a piece."""
    g, w = trimmed(g, w, width, y.shape[2])
    whole = slice(0, len(y)), slice(0, y.shape[1])
    return g, w, Tiling(PLAIN, g.kernel[1], 1, y.shape[2]), whole


def lines_first(backend: Backend, y: Any) -> Any:
    """Return results y (N, OH, OW, O) as (OH, N, OW, O), as strips lie, in a buffer."""
    lines = backend.scratch("lines", (y.shape[1], len(y), *y.shape[2:]), y.dtype)
    lines[...] = y.swapaxes(0, 1)
    return lines


def shared_out(
    backend: Backend, product: Callable[[Part], Any], all_parts: tuple[Part, ...], w: Any
) -> list[Any]:
    """Return `product` of each part, one for each row of the kernel that meets a strip."""
    work = sum(part.rows for part in all_parts) * w[:1].size
    each = backend.each if work >= SHARED_WORK else map
    return list(each(product, all_parts))
