"""Floor 0: matrix products that are added to what is there, out += a @ b, as BLAS has them.

NumPy calls its BLAS with β = 0 only, so a sum of products costs a temporary array and one more pass
for each. The library that NumPy has loaded can do better, and threadpoolctl, which we need anyway,
has a handle to it. Where it is not an OpenBLAS, the temporary array it is.

Products come by the dozen (`strips`), all of parts of the same few matrices. All that BLAS is told
of them but the addresses is the same in every step, and put together once: what Python does between
two calls, the other threads wait for. So those that are added to places of their own are one call
(`cblas_sgemm_batch`, where it is there). It may make them at the same time, and what two of them
add to one place would get lost.

Of the same library are y = a·x + b·y (`axpby`), and its number of threads (`blas_threads`).
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import LibController, ThreadpoolController

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

    `order` is how BLAS is to read it, the distance of its rows, and by how many bytes two rows are
    apart, or two matrices of the stack.
    """

    __slots__ = ("address", "array", "order")

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.address = array, _address(array)
        self.order = *_order(array if array.ndim == 2 else array[0]), array.strides[0]


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
    if not products.parts or not k or not n:  # no number to add; BLAS does not take that
        return _add_by_numpy(into, strips, weights, results, products, fresh)
    orders = strips.order, results.order, tuple(w.order for w in weights)
    key = into, fresh, orders, k, n, dtype
    if key not in products.calls:
        products.calls[key] = _blas_calls(into, products, orders, fresh, k, n, dtype)
    calls = products.calls[key]
    if calls is None:
        return _add_by_numpy(into, strips, weights, results, products, fresh)
    calls.make([strips.address, results.address, *(w.address for w in weights)])


def _blas_calls(
    into: str, products: Products, orders: tuple, fresh: bool, k: int, n: int, dtype: np.dtype
) -> _Calls | _Batches | None:
    """Return the calls of BLAS for products; None if it cannot read the matrices."""
    cblas, cblas_batch = _cblas(dtype)
    (how_s, far_s, step_s), (how_r, far_r, step_r), of_weights = orders
    far_s *= products.apart
    readable = how_s == how_r == NO_TRANS and all(how for how, _, _ in of_weights)
    if cblas is None or not readable:
        return None
    numbers = []  # both factors' order, M, N, K, scale, the distances of rows, and β
    places = []  # both factors', and of what they are added to: number of the matrix, bytes
    groups = in_turns(into, products.parts)
    for i, (p, w, s, r, m) in enumerate(products.parts):
        how_w, far_w, step_w = of_weights[p]
        scale, beta = products.scales[p], 0.0 if fresh and i in groups[0] else 1.0
        if into == "results":
            numbers.append((NO_TRANS, how_w, m, n, k, scale, far_s, far_w, far_r, beta))
        elif into == "strips":
            turned = NO_TRANS + TRANS - how_w
            numbers.append((NO_TRANS, turned, m, k, n, scale, far_r, far_w, far_s, beta))
        elif how_w == NO_TRANS:
            numbers.append((TRANS, NO_TRANS, k, n, m, scale, far_s, far_r, far_w, beta))
        else:
            return None
        at = {"strips": (0, s * step_s), "results": (1, r * step_r), "weights": (2 + p, w * step_w)}
        places += [at[name] for name in (*FACTORS[into], into)]
    if cblas_batch is None or min(part.rows for part in products.parts) * k * n <= SMALL:
        return _Calls(cblas, numbers, places)
    return _Batches(cblas_batch, numbers, places, groups, dtype)


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


class _Addresses:
    """Where parts of matrices are, once it is known where the matrices begin."""

    def __init__(self, places: list[tuple[int, int]]) -> None:
        self.matrix, self.bytes = np.array(places, np.int64).T.copy()

    def __call__(self, beginnings: list[int]) -> np.ndarray:
        return np.array(beginnings, np.int64)[self.matrix] + self.bytes


class _Calls:
    """Calls of BLAS, one for each product."""

    def __init__(self, cblas: Callable, numbers: list[tuple], places: list) -> None:
        self.cblas, self.numbers, self.addresses = cblas, numbers, _Addresses(places)

    def make(self, beginnings: list[int]) -> None:
        at = iter(self.addresses(beginnings).tolist())
        calls = zip(self.numbers, at, at, at, strict=True)  # of each three addresses, in turn
        for (*shape, far_a, far_b, far_c, beta), a, b, c in calls:
            self.cblas(ROW_MAJOR, *shape, a, far_a, b, far_b, beta, c, far_c)


class _Batches:
    """Calls of BLAS with several products each, of which no two are added to the same place."""

    def __init__(
        self, cblas: Callable, numbers: list, places: list, groups: list, dtype: np.dtype
    ) -> None:
        self.cblas = cblas
        # Of a group all first factors, then all second, then what they are added to.
        in_groups = [places[3 * i + j] for some in groups for j in range(3) for i in some]
        self.addresses = _Addresses(in_groups)
        number, pointer = NUMBERS[dtype][1], ctypes.sizeof(WHERE)
        kinds = (ENUM, ENUM, SIZE, SIZE, SIZE, number, SIZE, SIZE, SIZE, number, SIZE)
        self.batches, self.kept, first = [], [], 0  # kept: what the batches point to
        for some in groups:
            count, ones = len(some), [1] * len(some)  # as many groups for BLAS, of one product each
            columns = [*zip(*(numbers[i] for i in some), strict=True), ones]
            arrays = [(kind * count)(*c) for kind, c in zip(kinds, columns, strict=True)]
            tables = [pointer * (first + j * count) for j in range(3)]  # bytes into the addresses
            self.kept += arrays
            self.batches.append((*map(ctypes.addressof, arrays), *tables, count))
            first += 3 * count

    def make(self, beginnings: list[int]) -> None:
        at = self.addresses(beginnings)  # as long as it is held, the tables are there
        first = _address(at)
        for *shape, far_a, far_b, far_c, betas, sizes, a, b, c, count in self.batches:
            factors = first + a, far_a, first + b, far_b, betas, first + c, far_c
            self.cblas(ROW_MAJOR, *shape, *factors, count, sizes)


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


def axpby(a: float, x: np.ndarray, b: float, y: np.ndarray) -> bool:
    """y = a·x + b·y, if BLAS can: of arrays of one shape and dtype. Return whether it is done."""
    function = _axpby(y.dtype)
    alike = x.shape == y.shape and x.dtype == y.dtype
    readable = alike and x.flags.c_contiguous and y.flags.c_contiguous and y.flags.writeable
    if function is None or not readable or not a or not b:  # 0 times a NaN is none for BLAS
        return False
    function(y.size, a, _address(x), 1, b, _address(y), 1)
    return True


def _order(matrix: np.ndarray) -> tuple[int | None, int]:
    """Return how BLAS is to read a matrix: transposed or not, and the distance of its rows."""
    (rows, columns), (down, across), one = matrix.shape, matrix.strides, matrix.itemsize
    if (across == one or columns == 1) and down >= columns * one and down % one == 0:
        return NO_TRANS, down // one
    if (down == one or rows == 1) and across >= rows * one and across % one == 0:
        return TRANS, across // one
    return None, 0


def libraries() -> list[LibController]:
    """Return what threadpoolctl knows of each BLAS that is loaded, that of NumPy first.

    SciPy may bring another. NumPy's own lies in a folder that is called after it, numpy.libs, say.
    """
    found = ThreadpoolController().select(user_api="blas").lib_controllers
    return sorted(found, key=lambda one: "numpy" not in Path(one.filepath).parent.name)


def blas_threads() -> list[tuple[Callable[[], int], Callable[[int], Any]]]:
    """Return for each BLAS that is loaded what returns its number of threads, and what sets it.

    threadpoolctl's `limit` would do, but amid a step, when its code is in no cache, it takes 36 µs.
    """
    return [_own_threads(one) or (one.get_num_threads, one.set_num_threads) for one in libraries()]


def _own_threads(library: LibController) -> tuple[Callable, Callable] | None:
    """Return the two functions of an OpenBLAS that has threads of its own."""
    if getattr(library, "threading_layer", "") != "pthreads":
        return None
    for prefix, suffix in itertools.product(("scipy_", ""), ("64_", "_64", "")):
        names = (f"{prefix}openblas_{what}_num_threads{suffix}" for what in ("get", "set"))
        get, set_to = (getattr(library.dynlib, name, None) for name in names)
        if get is not None and set_to is not None:
            return get, set_to
    return None


def _address(array: np.ndarray) -> int:
    address, _ = array.__array_interface__["data"]  # array.ctypes would take 5 µs more, amid a step
    return address


@functools.cache
def _axpby(dtype: np.dtype) -> Callable | None:
    """Return cblas_saxpby or cblas_daxpby of the OpenBLAS that NumPy uses, if it uses one."""
    letter, number = NUMBERS.get(dtype, ("", None))
    function = _function(f"{letter}axpby") if letter else None
    if function is not None:
        function.restype = None
        function.argtypes = [SIZE, number, WHERE, SIZE, number, WHERE, SIZE]
    return function


@functools.cache
def _cblas(dtype: np.dtype) -> tuple[Callable | None, Callable | None]:
    """Return cblas_sgemm or cblas_dgemm of the OpenBLAS that NumPy uses, if it uses one.

    And cblas_sgemm_batch or cblas_dgemm_batch of the same; not every OpenBLAS has them.
    """
    letter, number = NUMBERS[dtype]
    cblas, cblas_batch = _function(f"{letter}gemm"), _function(f"{letter}gemm_batch")
    if cblas is not None:
        cblas.restype, cblas.argtypes = None, [ENUM] * 3 + [SIZE] * 3
        cblas.argtypes += [number, WHERE, SIZE, WHERE, SIZE, number, WHERE, SIZE]
    if cblas_batch is not None:
        cblas_batch.restype = None
        cblas_batch.argtypes = [ENUM, *[WHERE] * 13, SIZE, WHERE]
    return cblas, cblas_batch


def _function(name: str) -> Any:
    """Return a function of the OpenBLAS that NumPy uses, one for whole numbers of 64 bits."""
    for library in (one for one in libraries() if one.internal_api == "openblas"):
        for prefix in ("scipy_cblas_", "cblas_"):
            if hasattr(library.dynlib, f"{prefix}sgemm64_"):
                return getattr(library.dynlib, f"{prefix}{name}64_", None)
    return None
