"""A stand-in for CuPy on NumPy, for machines without a GPU: as strict as CuPy, or stricter.

    with standin.installed() as cupy:
        minigan.use("cuda")  # through minigan/cuda.py, as with the real one

Its arrays hold NumPy arrays that nobody else can see. It offers the functions, methods and
parameters that the real CuPy has (cupy_surface.json, written by record_surface.py), and refuses
what CuPy refuses: host arrays among device arrays, `np` functions on device arrays, `where=`, odd
dtypes. It also refuses where CuPy would go on and be slow or wrong: index arrays of the host (a
hidden copy), assignment through an index that is there twice (any of them wins). Kernels run
through executor.py. `cupy.count` counts launches, copies each way, and synchronisations.

It computes with NumPy: it cannot show how CuPy rounds, nor what CuPy does wrong. A call of a
function counts as one launch; CuPy takes several for some of them (`einsum`, `mean`).
"""

import sys
import time
import types
import typing
from contextlib import contextmanager

import executor
import numpy as np
import scipy.special
from standin_array import (
    SURFACE,
    bare,
    calling,
    count,
    is_view,
    ndarray,
    signature_of,
    wrapped,
)

# ---- functions


class ufunc:
    """`cupy.add` and its kind: no `where=`, no lists."""

    def __init__(self, name):
        self.__name__, self.function = name, getattr(np, name)

    def __call__(self, *args, out=None, dtype=None, casting="same_kind", **others):
        if others:
            raise TypeError(f"cupy.{self.__name__}: wrong arguments {sorted(others)}")
        if any(isinstance(a, (list, tuple)) for a in args):
            raise TypeError(f"cupy.{self.__name__}: unsupported type {list}")
        count.launches += 1
        memory = None if out is None else bare(out)
        result = self.function(*bare(args), out=memory, dtype=dtype, casting=casting)
        return wrapped(result) if out is None else out

    def at(self, a, indices, b=None):
        count.launches += 1
        self.function.at(bare(a), bare(indices), *([] if b is None else [bare(b)]))


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    """The one door from the host: always a copy."""
    if isinstance(obj, ndarray):
        made = np.array(obj.memory, dtype, copy=copy or None, order=order, ndmin=ndmin)
        count.launches += not is_view(made, [obj.memory])
        return ndarray.around(made)
    if isinstance(obj, (list, tuple)) and any(isinstance(part, ndarray) for part in obj):
        raise TypeError("cupy.array: a list of device arrays: use stack")
    count.to_device += 1
    return ndarray.around(np.array(obj, dtype, copy=True, order=order, ndmin=ndmin))


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, bool(copy), order or "K")


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get(stream, order, out) if isinstance(a, ndarray) else np.asarray(a, order=order)


def empty(shape, dtype=float, order="C"):
    """Memory as it may come out of CuPy's pool: full of NaN."""
    return ndarray(shape, dtype, order)


def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    return ndarray(prototype.shape if shape is None else shape, dtype or prototype.dtype)


def get_array_module(*arrays):
    return sys.modules[__name__] if any(isinstance(a, ndarray) for a in arrays) else np


def find(name):
    """What `cupy.name` is, if the real CuPy has it."""
    if name in SURFACE["ufuncs"] and hasattr(np, name):
        return ufunc(name)
    if name in SURFACE["functions"] and hasattr(np, name):
        return calling(name, getattr(np, name), signature_of(SURFACE["functions"][name]))
    given = getattr(np, name, None)
    is_number_type = isinstance(given, type) and issubclass(given, (np.number, np.bool))
    is_number_type &= given not in (np.longdouble, np.clongdouble)
    if is_number_type or name in ("pi", "e", "inf", "nan", "newaxis", "dtype"):
        return given
    raise AttributeError(f"module 'cupy' has no attribute {name!r} (CuPy {SURFACE['version']})")


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    globals()[name] = found = find(name)
    return found


# ---- kernels


class RawModule:
    """A CUDA source, run by the executor: in natural order, or shuffled by a `seed`.

    All blocks, or so many of the `last` (for arrays too large to touch).
    """

    programs: typing.ClassVar[dict] = {}
    seed, last = None, 0

    def __init__(self, *, code=None, path=None, options=(), backend="nvrtc", **others):
        if not isinstance(options, tuple):
            raise TypeError("RawModule: options must be a tuple")
        if others or path or backend != "nvrtc":
            raise NotImplementedError("RawModule: the stand-in knows code and options")
        name = code.rpartition('#line 1 "')[2].partition('"')[0] or "kernel.cu"
        key = code, options
        if key not in self.programs:
            self.programs[key] = executor.Program(code, options, name)
        self.program = self.programs[key]

    def get_function(self, name):
        if name not in self.program.kernels:
            raise RuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
        return lambda grid, block, args, **others: self.run(name, grid, block, args, **others)

    def run(self, name, grid, block, args, *, shared_mem=0, stream=None):
        if not (isinstance(grid, tuple) and isinstance(block, tuple)) or shared_mem:
            raise TypeError("kernel: grid and block must be tuples; shared_mem is not known here")
        given = []
        for a in args:
            if isinstance(a, np.ndarray) and a.dtype.names is None:
                raise TypeError("kernel: a host array among the arguments")
            if isinstance(a, (int, float)) and not isinstance(a, np.generic):
                a = np.int64(a) if isinstance(a, int) else np.float64(a)  # 8 bytes, whatever is due
            given.append(a.memory if isinstance(a, ndarray) else a)
        count.launches += 1
        self.program.launch(name, grid, block, given, self.seed, self.last)


# ---- modules


class Stream:
    """Streams, events and the device: there is nothing to wait for, but waiting is counted."""

    def __init__(self, *args, **options):
        self.id = 0

    def synchronize(self):
        count.syncs += 1


class Event(Stream):
    """A moment, by the clock of the CPU: what runs here has run when the call returns."""

    def record(self, stream=None):
        self.moment = time.perf_counter()


def get_elapsed_time(start, stop):
    """Milliseconds between two events."""
    return (stop.moment - start.moment) * 1e3


Device = Stream


def module(name, **members):
    made = types.ModuleType(name)
    made.__dict__.update(members)
    return made


PROPERTIES = {
    "name": b"a stand-in on this machine's CPU",
    "major": 9,
    "minor": 0,
    "totalGlobalMem": 0,
    "multiProcessorCount": 1,
}
runtime = module(
    "cupy.cuda.runtime",
    getDeviceCount=lambda: 1,
    getDeviceProperties=lambda device: PROPERTIES,
    driverGetVersion=lambda: 13000,
    runtimeGetVersion=lambda: 13000,
    deviceSynchronize=Stream().synchronize,
    CUDARuntimeError=type("CUDARuntimeError", (RuntimeError,), {}),
)
cuda = module("cupy.cuda", runtime=runtime, Device=Device, Stream=Stream, Event=Event)
cuda.get_elapsed_time = get_elapsed_time
cuda.nvrtc = module("cupy.cuda.nvrtc", getVersion=lambda: (13, 0))
cuda.get_cublas_handle = lambda: 1
linalg = module(
    "cupy.linalg",
    **{
        name: calling(f"linalg.{name}", getattr(np.linalg, name), signature_of(words))
        for name, words in SURFACE["linalg"].items()
        if hasattr(np.linalg, name)
    },
)
stride_tricks = module(
    "cupy.lib.stride_tricks",
    **{
        name: calling(name, getattr(np.lib.stride_tricks, name), signature_of(words))
        for name, words in SURFACE["stride_tricks"].items()
    },
)
lib = module("cupy.lib", stride_tricks=stride_tricks)
special = module(
    "cupyx.scipy.special",
    **{
        name: calling(name, getattr(scipy.special, name), None)
        for name in SURFACE["special"]
        if hasattr(scipy.special, name)
    },
)
cupyx_scipy = module("cupyx.scipy", special=special)
cupyx = module("cupyx", scipy=cupyx_scipy)
__version__ = f"{SURFACE['version']} (stand-in)"


@contextmanager
def installed():
    """Within the context, `import cupy` gives this module; it and its backend are gone after."""
    from minigan import backend

    names = ["cupy", "cupyx", "cupyx.scipy", "cupyx.scipy.special", "cupy.cuda"]
    modules = [sys.modules[__name__], cupyx, cupyx_scipy, special, cuda]
    before = {name: sys.modules.get(name) for name in names}
    tables = backend._backends, backend._by_array_type
    entries = [dict(table) for table in tables]
    device = backend._settings.device
    backend._backends.pop("cuda", None)
    sys.modules.update(zip(names, modules, strict=True))
    count.reset()
    try:
        yield modules[0]
    finally:
        for name, was in before.items():
            if was is None:
                del sys.modules[name]
            else:
                sys.modules[name] = was
        for table, kept in zip(tables, entries, strict=True):
            table.clear()
            table.update(kept)
        backend._settings.device = device
