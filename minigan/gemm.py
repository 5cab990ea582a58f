"""Floor 0: a matrix product that is added to what is there, out += a @ b, as BLAS has it.

NumPy calls its BLAS with β = 0 only, so a sum of products costs a temporary array and one more pass
for each. The library that NumPy has loaded can do better, and threadpoolctl, which we need anyway,
has a handle to it. Where it is not an OpenBLAS, the temporary array it is.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import numpy as np
from threadpoolctl import ThreadpoolController

ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112  # enum values of cblas.h
NUMBERS = {
    np.dtype(np.float32): ("s", ctypes.c_float),
    np.dtype(np.float64): ("d", ctypes.c_double),
}


def add_product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out (M, N) += a (M, K) @ b (K, N), of one dtype.

    In place where each of the three has rows, or the two factors columns, of numbers side by side.
    """
    cblas = _cblas(out.dtype)
    how_a, how_b, how_out = _order(a), _order(b), _order(out)
    if cblas is None or None in (how_a, how_b) or how_out is None or how_out[0] != PLAIN:
        out += np.matmul(a, b)
    elif a.size and b.size:
        (m, k), n = a.shape, b.shape[1]
        cblas(
            *(ROW_MAJOR, how_a[0], how_b[0], m, n, k, 1.0, a.ctypes.data, how_a[1]),
            *(b.ctypes.data, how_b[1], 1.0, out.ctypes.data, how_out[1]),
        )


def _order(matrix: np.ndarray) -> tuple[int, int] | None:
    """Return how BLAS is to read a matrix: transposed or not, and the distance of its rows."""
    (rows, columns), (down, across), one = matrix.shape, matrix.strides, matrix.itemsize
    if (across == one or columns == 1) and down >= columns * one and down % one == 0:
        return PLAIN, down // one
    if (down == one or rows == 1) and across >= rows * one and across % one == 0:
        return TRANSPOSED, across // one
    return None


@functools.cache
def _cblas(dtype: np.dtype) -> Callable | None:
    """Return cblas_sgemm or cblas_dgemm of the OpenBLAS that NumPy uses, if it uses one."""
    letter, number = NUMBERS[dtype]
    found = ThreadpoolController().select(internal_api="openblas").lib_controllers
    for library in sorted(found, key=lambda library: "numpy" not in library.filepath):
        for name in (f"scipy_cblas_{letter}gemm64_", f"cblas_{letter}gemm64_"):
            if function := getattr(library.dynlib, name, None):
                size, where = ctypes.c_int64, ctypes.c_void_p
                enum = ctypes.c_int
                function.argtypes = [enum] * 3 + [size] * 3 + [number, where, size, where, size]
                function.argtypes += [number, where, size]
                function.restype = None
                return function
    return None
