"""Floor 0: matrix products that are added to what is there, out += a @ b, as BLAS has them.

NumPy calls its BLAS with β = 0 only, so a sum of products costs a temporary array and one more pass
for each. The library that NumPy has loaded can do better, and threadpoolctl, which we need anyway,
has a handle to it. Where it is not an OpenBLAS, the temporary array it is.

Products come by the dozen (`strips`), all of parts of the same few matrices. All that BLAS is told
of them but the addresses is the same in every step, and put together once: what Python does between
two calls, the other threads wait for. So those that are added to places of their own are one call
(`cblas_sgemm_batch`, where it is there). It may make them at the same time, and what two of them
add to one place would get lost.
"""

from __future__ import annotations

import ctypes
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

ROW_MAJOR, NO_TRANS, TRANS = 101, 111, 112  # enum values of cblas.h
ENUM, SIZE, WHERE = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
NUMBERS = {
    np.dtype(np.float32): ("s", ctypes.c_float),
    np.dtype(np.float64): ("d", ctypes.c_double),
}
SMALL = 1 << 20  # multiplications: for a million OpenBLAS 0.3.31 crashes in `cblas_sgemm_batch`
FACTORS = {  # the two that are multiplied, in this order, to be added to the third
    "results": ("strips", "weights"),
    "weights": ("strips", "results"),
    "strips": ("results", "weights"),
}


class Part(NamedTuple):
    """One product: so many `rows` of the results, from `result` on, and as many of the strips.

    Of the strips it is every so many-th (`Products.apart`), from row `strip` on. `weight` is which
    matrix it is of weights[product], a stack.
    """

    product: int
    weight: int
    strip: int
    result: int
    rows: int


@dataclass(frozen=True, eq=False)
class Products:
    """Products of parts of the same three matrices, and what BLAS is told of them.

    Attributes:
        parts: in the order in which those for the same place are added to it.
        scales: for each product.
        apart: by how many rows two strips of a part are apart.
    """

    parts: tuple[Part, ...]
    scales: tuple[float, ...]
    apart: int = 1
    calls: dict = field(default_factory=dict)  # what was put together, by what it is made for


class Matrix:
    """An array (M, N), or a stack of such, as BLAS takes it: where it begins, and how it is read.

    `step` is by how many bytes two rows are apart, or two matrices of the stack.
    """

    __slots__ = ("address", "array", "layout", "step")

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.address, self.step = array, array.ctypes.data, array.strides[0]
        self.layout = _order(array if array.ndim == 2 else array[0])


def add_products(
    into: str,
    strips: Matrix,
    weights: list[Matrix],
    results: Matrix,
    products: Products,
    fresh: bool = False,
) -> None:
    """Add to one of three matrices products of the other two, all of one dtype.

    For each part, those for the same place one after the other, with S (M, K) some of the strips, R
    (M, N) some of the results, and W (K, N) = weights[product][weight]:

        into "results":  R += scales[product] · S @ W
        into "weights":  W += scales[product] · Sᵀ @ R
        into "strips":   S += scales[product] · R @ Wᵀ

    A place is a product's strips or results, or one of its weights: parts of different products may
    not add to the same number. `fresh`: the first part for a place is put there, whatever it held,
    and is the whole of what the others are added to.
    """
    k, n, dtype = strips.array.shape[1], results.array.shape[1], strips.array.dtype
    parts = products.parts
    if not parts or not k or not n:  # no number to add; BLAS does not take that
        return _add_by_numpy(into, strips, weights, results, products, fresh)
    orders = strips.layout, results.layout, tuple(w.layout for w in weights)
    key = into, fresh, orders, k, n, dtype
    if key not in products.calls:
        products.calls[key] = _blas_call(into, products, orders, fresh, k, n, dtype)
    call = products.calls[key]
    if call is None:
        return _add_by_numpy(into, strips, weights, results, products, fresh)
    at = {
        "strips": [strips.address + s * strips.step for _, _, s, _, _ in parts],
        "weights": [weights[p].address + i * weights[p].step for p, i, _, _, _ in parts],
        "results": [results.address + r * results.step for _, _, _, r, _ in parts],
    }
    a, b = (at[name] for name in FACTORS[into])
    call(a, b, at[into])


def _blas_call(
    into: str, products: Products, orders: tuple, fresh: bool, k: int, n: int, dtype: np.dtype
) -> Callable[[list, list, list], None] | None:
    """Return a function of the addresses of both factors and of what they are added to.

    All else that BLAS is told is the same in every step. None if BLAS cannot read the matrices.
    """
    cblas, cblas_batch = _cblas(dtype)
    (how_s, far_s), (how_r, far_r), of_weights = orders
    far_s *= products.apart
    readable = how_s == how_r == NO_TRANS and all(how for how, _ in of_weights)
    if cblas is None or not readable:
        return None
    calls = []  # both factors' order, M, N, K, scale, the distances of rows, and β
    groups = in_turns(into, products.parts)
    for i, (p, _, _, _, m) in enumerate(products.parts):
        how_w, far_w = of_weights[p]
        scale, beta = products.scales[p], 0.0 if fresh and i in groups[0] else 1.0
        if into == "results":
            calls.append((NO_TRANS, how_w, m, n, k, scale, far_s, far_w, far_r, beta))
        elif into == "strips":
            turned = NO_TRANS + TRANS - how_w
            calls.append((NO_TRANS, turned, m, k, n, scale, far_r, far_w, far_s, beta))
        elif how_w == NO_TRANS:
            calls.append((TRANS, NO_TRANS, k, n, m, scale, far_s, far_r, far_w, beta))
        else:
            return None
    if cblas_batch is None or min(part.rows for part in products.parts) * k * n <= SMALL:
        return functools.partial(_call_each, cblas, calls)
    batches = [(some, _Batch(dtype, [calls[i] for i in some])) for some in groups]
    return functools.partial(_call_batches, cblas_batch, batches)


def in_turns(into: str, parts: tuple[Part, ...]) -> list[list[int]]:
    """Return which parts go together: the first for each place, then the second, and so on."""
    turns: list[list[int]] = []
    before: Counter[tuple] = Counter()
    for i, part in enumerate(parts):
        place = part.product, part.weight if into == "weights" else 0
        if before[place] == len(turns):
            turns.append([])
        turns[before[place]].append(i)
        before[place] += 1
    return turns


def _call_each(cblas: Callable, calls: list[tuple], a: list, b: list, out: list) -> None:
    for (*shape, far_a, far_b, far_out, beta), *at in zip(calls, a, b, out, strict=True):
        cblas(ROW_MAJOR, *shape, at[0], far_a, at[1], far_b, beta, at[2], far_out)


class _Batch:
    """Products of which no two are added to the same place, in one call of BLAS."""

    def __init__(self, dtype: np.dtype, calls: list[tuple]) -> None:
        number, count = NUMBERS[dtype][1], len(calls)
        kinds = (ENUM, ENUM, SIZE, SIZE, SIZE, number, SIZE, SIZE, SIZE, number)
        columns = zip(*calls, strict=True)
        *self.shape, self.far_a, self.far_b, self.far_out, self.betas = (
            (kind * count)(*column) for kind, column in zip(kinds, columns, strict=True)
        )
        self.addresses = WHERE * count
        self.sizes = SIZE(count), (SIZE * count)(*[1] * count)  # as many groups, of one product

    def call(self, cblas_batch: Callable, a: list, b: list, out: list) -> None:
        a, b, out = self.addresses(*a), self.addresses(*b), self.addresses(*out)
        far_a, far_b, far_out = self.far_a, self.far_b, self.far_out
        factors = (a, far_a, b, far_b, self.betas, out, far_out)
        cblas_batch(ENUM(ROW_MAJOR), *self.shape, *factors, *self.sizes)


def _call_batches(cblas_batch: Callable, groups: list, a: list, b: list, out: list) -> None:
    for some, batch in groups:
        batch.call(cblas_batch, [a[i] for i in some], [b[i] for i in some], [out[i] for i in some])


def _add_by_numpy(
    into: str,
    strips: Matrix,
    weights: list[Matrix],
    results: Matrix,
    products: Products,
    fresh: bool,
) -> None:
    first = in_turns(into, products.parts)[:1] if fresh else []
    for j, (p, i, s, r, m) in enumerate(products.parts):
        strip = strips.array[s:][: m * products.apart : products.apart]
        weight, result = weights[p].array[i], results.array[r : r + m]
        scale = strip.dtype.type(products.scales[p])
        if into == "results":
            out, product = result, scale * (strip @ weight)
        elif into == "weights":
            out, product = weight, scale * (strip.T @ result)
        else:
            out, product = strip, scale * (result @ weight.T)
        if first and j in first[0]:
            out[...] = product
        else:
            out += product


def _order(matrix: np.ndarray) -> tuple[int | None, int]:
    """Return how BLAS is to read a matrix: transposed or not, and the distance of its rows."""
    (rows, columns), (down, across), one = matrix.shape, matrix.strides, matrix.itemsize
    if (across == one or columns == 1) and down >= columns * one and down % one == 0:
        return NO_TRANS, down // one
    if (down == one or rows == 1) and across >= rows * one and across % one == 0:
        return TRANS, across // one
    return None, 0


@functools.cache
def _cblas(dtype: np.dtype) -> tuple[Callable | None, Callable | None]:
    """Return cblas_sgemm or cblas_dgemm of the OpenBLAS that NumPy uses, if it uses one.

    And cblas_sgemm_batch or cblas_dgemm_batch of the same; not every OpenBLAS has them.
    """
    letter, number = NUMBERS[dtype]
    found = ThreadpoolController().select(internal_api="openblas").lib_controllers
    for library in sorted(found, key=lambda library: "numpy" not in library.filepath):
        for prefix in ("scipy_cblas_", "cblas_"):
            cblas: Any = getattr(library.dynlib, f"{prefix}{letter}gemm64_", None)
            cblas_batch: Any = getattr(library.dynlib, f"{prefix}{letter}gemm_batch64_", None)
            if cblas is not None:
                cblas.restype, cblas.argtypes = None, [ENUM] * 3 + [SIZE] * 3
                cblas.argtypes += [number, WHERE, SIZE, WHERE, SIZE, number, WHERE, SIZE]
                if cblas_batch is not None:
                    cblas_batch.restype = None
                return cblas, cblas_batch
    return None, None
