"""The CUDA kernels, run on the CPU by the executor: what the tests of each family share.

Every result is computed twice, in the natural order of blocks and threads and in a shuffled one,
and must be the same to the bit. A file of such tests begins with

    index_type, pytestmark = running.index_type, running.pytestmark

test_cuda_sanitizers.py runs FILES again under ASan with UBSan, and under TSan, to which every CUDA
thread is a thread of its own: there, less of everything.
"""

import os

import executor
import numpy as np
import pytest
from target import ON_GPU, xp

from minigan import launch
from minigan.cuda import kernels_dir

FILES = ("test_cuda_windows.py", "test_cuda_channels.py", "test_cuda_adam.py")

pytestmark = pytest.mark.skipif(
    bool(executor.missing()) and not ON_GPU, reason=executor.missing() or "there"
)

SANITIZE = os.environ.get("MINIGAN_SANITIZE", "")
COUNT = {"": 60, "address": 16, "thread": 4}[SANITIZE]
RACES = SANITIZE == "thread"
DTYPES = [np.float32] if RACES else [np.float32, np.float64]
ORDERS = [1] if RACES else [0, 1]  # on a GPU they say nothing: it takes its own, twice
ACCURACY = {np.float32: 2e-5, np.float64: 1e-12}

ODD = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0]

kernels = launch.Kernels(xp, kernels_dir())


@pytest.fixture(params=["int32"] if RACES else ["int32", "int64"], autouse=True)
def index_type(request):
    """Both widths of an index: the wide one, otherwise for more than 2**31 elements, for all."""
    with pytest.MonkeyPatch.context() as patch:
        if RACES and "adam" not in request.module.__name__:
            patch.setattr(launch, "THREADS", 64)
        if request.param == "int64":
            patch.setattr(launch, "INT_LIMIT", 0)
        yield request.param


def set_order(seed):
    """Let the stand-in run blocks and threads in natural order (0), or shuffled."""
    if not ON_GPU:
        xp.RawModule.seed = seed


def count_launches():
    return 0 if ON_GPU else xp.count.launches


def on_device(*arguments):
    """Arguments with arrays copied to the stand-in, also those in lists."""
    copied = []
    for a in arguments:
        if isinstance(a, list):
            a = list(on_device(*a))
        copied.append(xp.asarray(a) if isinstance(a, np.ndarray) else a)
    return tuple(copied)


def run(method, *arguments):
    """The results of a method of `Kernels` on the host: the same in both orders."""
    results = []
    for seed in ORDERS:
        set_order(seed)
        try:
            result = getattr(kernels, method)(*on_device(*arguments))
        finally:
            set_order(None)
        result = result if isinstance(result, tuple) else (result,)
        results.append([array.get() for array in result])
    for a, b in zip(results[0], results[-1], strict=True):
        assert np.array_equal(a, b, equal_nan=True), f"{method}: the order of threads shows"
    return results[0]


def assert_close(got, wanted, dtype, scale=None, slack=1):
    """Within rounding of the largest number: sums of numbers that cancel have no better bound."""
    assert got.dtype == dtype
    assert got.shape == wanted.shape
    wanted = np.asarray(wanted, np.float64)
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
    np.testing.assert_array_equal(got[~finite], wanted[~finite].astype(dtype))
    scale = max(1.0, np.abs(wanted[finite]).max(initial=0)) if scale is None else scale
    error = np.abs(got[finite] - wanted[finite]).max(initial=0)
    assert error <= ACCURACY[dtype] * slack * scale, f"{error:.2e} of {scale:.2e}"


def whole_numbers(shape, seed, dtype):
    """Small whole numbers: sums of them have no rounding, whatever the order."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(dtype)
