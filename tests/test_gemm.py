"""Products of matrices that are added to what is there, against NumPy's."""

from functools import partial

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from minigan import gemm
from minigan.backend import CPU, Backend

LAYOUTS = {
    "rows": lambda a: np.ascontiguousarray(a),
    "columns": lambda a: np.asfortranarray(a),
    "part of wider rows": lambda a: np.pad(a, [(0, 0), (1, 2)])[:, 1:-2],
    "part of longer columns": lambda a: np.asfortranarray(np.pad(a, [(1, 2), (0, 0)]))[1:-2],
    "every second number": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "backwards": lambda a: np.ascontiguousarray(a[::-1])[::-1],
}


KINDS = {"strips": 0, "weights": 1, "results": 2}


def added(into, strip, weight, result, scale):
    """What `add_products` should leave in the matrix that it adds to."""
    if into == "results":
        return result + scale * strip @ weight
    if into == "weights":
        return weight + scale * strip.T @ result
    return strip + scale * result @ weight.T


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("library", ["NumPy's", "none"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("other", ["strips", "weights", "results"])
@pytest.mark.parametrize("into", KINDS)
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("hop", [1, 2])
def test_a_product_is_added(hop, fresh, into, other, layout, library, dtype, monkeypatch):
    """Whatever one of the three looks like in memory. Or it is put there, if it is the first."""
    if library == "none":  # what NumPy uses is no OpenBLAS
        monkeypatch.setattr(gemm, "_cblas", lambda dtype: (None, None))
    random = np.random.default_rng(0)
    for m, k, n in ((3, 4, 5), (1, 7, 2), (6, 1, 1), (17, 33, 65), (2, 0, 3), (0, 2, 3), (2, 3, 0)):
        shapes = {"strips": (m * hop + 3, k), "weights": (k, n), "results": (m + 2, n)}
        made = {kind: random.normal(size=shape).astype(dtype) for kind, shape in shapes.items()}
        wide = np.full([size + 3 for size in shapes[into]], 7, dtype)  # what is beside it stays
        wide[1:-2, 1:-2] = made[into]
        made[into] = wide[1:-2, 1:-2]
        made[other] = LAYOUTS[layout](made[other])
        s, w, r = made.values()
        before = [a.copy() for a in (s, w, r)]
        expected = [a.copy() for a in (s, w, r)]
        rows = slice(2, 2 + m * hop, hop), slice(None), slice(1, m + 1)
        kind, there = KINDS[into], rows[KINDS[into]]
        if fresh:
            before[kind][there], expected[kind][there], made[into][there] = 0, 0, np.nan
        strip, weight, result = (a[some] for a, some in zip(before, rows, strict=True))
        expected[kind][there] = added(into, strip, weight, result, -0.5)
        products = gemm.Products((gemm.Part(0, 1, 2, 1, m),), (-0.5,), hop)
        # A stack of matrices with w's memory, the second of which is meant.
        stacked = np.lib.stride_tricks.as_strided(w, (2, *w.shape), (0, *w.strides))
        matrices = gemm.Matrix(s), [gemm.Matrix(stacked)], gemm.Matrix(r)
        gemm.add_products(into, *matrices, products, fresh)
        for found, right in zip((s, stacked[1], r), expected, strict=True):
            np.testing.assert_allclose(found, right, rtol=2e-5, atol=1e-6)
        wide[1:-2, 1:-2] = 7
        assert (wide == 7).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("into", KINDS)
@pytest.mark.parametrize("library", ["NumPy's", "none"])
@pytest.mark.parametrize("fresh", [False, True])
def test_products_are_added_one_after_the_other(fresh, library, into, dtype, monkeypatch):
    """To the same place, whatever number of threads BLAS has: none may get lost."""
    if library == "none":
        monkeypatch.setattr(gemm, "_cblas", lambda dtype: (None, None))
    random = np.random.default_rng(0)
    m, k, n, count = 128, 128, 96, 6
    strip_rows, result_rows = (m if into == kind else m * count for kind in ("strips", "results"))
    shapes = (strip_rows, k), (count, k, n), (result_rows, n)
    made = [random.normal(size=shape).astype(dtype) for shape in shapes]
    s, w, r = expected = [a.copy() for a in made]
    parts = []
    for i in range(count):
        first = [0 if into == kind else i * m for kind in ("strips", "results")]
        weight = 0 if into == "weights" else i
        some_s, some_r = (slice(start, start + m) for start in first)
        target = {"strips": s[some_s], "weights": w[weight], "results": r[some_r]}[into]
        if fresh and i == 0:
            target[...] = 0
        target[...] = added(into, s[some_s], w[weight], r[some_r], 0.5)
        parts.append(gemm.Part(0, weight, *first, m))
    if fresh:
        made[KINDS[into]][0 if into == "weights" else slice(m)] = np.nan
    s, w, r = (gemm.Matrix(a) for a in made)
    gemm.add_products(into, s, [w], r, gemm.Products(tuple(parts), (0.5,)), fresh)
    for found, right in zip(made, expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-2 if dtype == np.float32 else 1e-9)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("into", KINDS)
def test_large_products_are_made_together(into, dtype, threads, monkeypatch):
    """In as few calls as there are products for one place, if the library can; and they are right.

    Several matrices of each kind, of which some are read as they are and some turned.
    """
    calls, make = [], gemm._Batches.make

    def counted(batches, beginnings):
        calls.extend(count for *_, count in batches.batches)
        make(batches, beginnings)

    monkeypatch.setattr(gemm._Batches, "make", counted)
    random = np.random.default_rng(0)
    m, k, n, count, rows = 150, 96, 80, 3, 2  # of products, and of rows of the kernel
    turned = into == "results"
    stacked = (count, rows, n, k) if turned else (count, rows, k, n)
    shapes = (count * (m + 9), k), stacked, (count * (m + 9), n)
    s, w, r = (random.normal(size=shape).astype(dtype) for shape in shapes)
    assert m * k * n > gemm.SMALL
    parts = tuple(
        gemm.Part(p, i, p * (m + 9) + i + 1, p * (m + 9) + 2 * i, m + p)
        for p in range(count)
        for i in range(rows)
    )
    products = gemm.Products(parts, (1.0, -0.5, 2.0))

    def matrices(s, w, r):
        weights = [gemm.Matrix(of.swapaxes(1, 2) if turned else of) for of in w]
        return gemm.Matrix(s), weights, gemm.Matrix(r)

    made, expected = [s, w, r], [s.copy(), w.copy(), r.copy()]
    gemm._add_by_numpy(into, *matrices(*expected), products, False)
    with threadpool_limits(threads):
        gemm.add_products(into, *matrices(*made), products)
    for found, right in zip(made, expected, strict=True):
        np.testing.assert_allclose(
            found, right, rtol=0, atol=1e-3 if dtype == np.float32 else 1e-11
        )
    if gemm._cblas(np.dtype(dtype))[1] is not None:
        assert calls == ([count * rows] if into == "weights" else [count] * rows)


def test_small_products_are_not_made_together(monkeypatch):
    """An OpenBLAS that crashes on them is in many wheels of NumPy."""
    monkeypatch.setattr(gemm._Batches, "make", lambda *_: pytest.fail("made together"))
    s, w, r = np.ones((106, 100)), np.ones((2, 100, 100)), np.zeros((106, 100))
    products = gemm.Products((gemm.Part(0, 0, 0, 0, 106), gemm.Part(0, 1, 0, 0, 100)), (1.0,))
    gemm.add_products("results", gemm.Matrix(s), [gemm.Matrix(w)], gemm.Matrix(r), products)
    assert (r[:100] == 200).all()


def test_one_plan_serves_any_size_of_its_matrices():
    """Products of the same rows, of matrices with other columns and the same distance of rows."""
    random = np.random.default_rng(0)
    products = gemm.Products((gemm.Part(0, 0, 0, 0, 5),), (1.0,))
    s, w, r = (random.normal(size=shape) for shape in ((5, 9), (1, 9, 8), (5, 8)))
    for k, n in ((9, 8), (4, 8), (4, 3), (9, 3)):
        out = np.zeros_like(r)
        matrices = gemm.Matrix(s[:, :k]), [gemm.Matrix(w[:, :k, :n])], gemm.Matrix(out[:, :n])
        gemm.add_products("results", *matrices, products)
        np.testing.assert_allclose(out[:, :n], s[:, :k] @ w[0, :k, :n])
        assert not out[:, n:].any()


def test_numpy_s_own_library_is_called():
    """Where NumPy has the OpenBLAS of its wheels, as on Linux; else nothing would be faster."""
    config = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    if config["name"] != "scipy-openblas":
        pytest.skip(f"this NumPy uses {config['name']}, not the OpenBLAS of its wheels")
    assert gemm._cblas(np.dtype(np.float32))[0] is not None
    assert gemm._cblas(np.dtype(np.float64))[0] is not None
    for dtype in (np.float32, np.float64):
        assert gemm.axpby(2.0, np.ones(3, dtype), 0.5, np.ones(3, dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("library", ["NumPy's", "none", "of another backend"])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (5, 7), (1000,)])
def test_a_multiple_is_added(shape, library, dtype, monkeypatch):
    axpby = CPU.axpby
    if library == "none":
        monkeypatch.setattr(gemm, "_axpby", lambda dtype: None)
    elif library == "of another backend":
        axpby = partial(Backend.axpby, CPU)
    random = np.random.default_rng(0)
    x, y = (np.array(random.normal(size=shape)).astype(dtype) for _ in range(2))
    for a, b in ((0.3, 0.7), (-2.0, 1.0), (1.0, 0.0)):
        expected, there = a * x + b * y, y
        axpby(a, x, b, y)
        assert y is there
        assert y.dtype == dtype
        np.testing.assert_allclose(y, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("which", ["x", "y"])
def test_a_multiple_of_numbers_that_lie_apart_is_added(which):
    """And of one number, or of another dtype, as NumPy would."""
    x, y = np.arange(12.0).reshape(3, 4), np.ones((3, 4))
    if which == "x":
        x = np.asfortranarray(x)
    else:
        y = np.asfortranarray(y)
    CPU.axpby(2.0, x, 0.5, y)
    np.testing.assert_array_equal(y, 2 * np.arange(12.0).reshape(3, 4) + 0.5)
    CPU.axpby(1.0, np.float64(3), 0.0, y)
    CPU.axpby(1.0, np.ones((3, 4), np.float32), 1.0, y)
    np.testing.assert_array_equal(y, np.full((3, 4), 4.0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_is_written_that_may_not_be(dtype):
    """BLAS would not ask."""
    y = np.frombuffer(np.ones(8, dtype).tobytes(), dtype)
    with pytest.raises(ValueError, match="read-only"):
        CPU.axpby(1.0, np.ones(8, dtype), 0.5, y)
    assert (y == 1).all()


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_nothing_times_nan_is_nan(a, b):
    """However the numbers lie; BLAS does not read what it multiplies by 0."""
    nan, one = np.full(8, np.nan), np.ones(8)
    for x, y in ((nan, one.copy()), (one, nan.copy())):
        expected = a * x + b * y
        CPU.axpby(a, x, b, y)
        np.testing.assert_array_equal(y, expected)


def test_the_threads_of_a_blas_are_set_and_counted():
    with threadpool_limits(2):
        for count, set_count in gemm.blas_threads():
            before = count()
            set_count(1)
            assert count() == 1
            set_count(before)
            assert count() == before
