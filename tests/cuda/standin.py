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

import inspect
import json
import sys
import types
import typing
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import executor
import numpy as np
import scipy.special

SURFACE = json.loads(Path(__file__).with_name("cupy_surface.json").read_text())
ASK_THE_DEVICE = {
    "nonzero",
    "flatnonzero",
    "argwhere",
    "unique",
    "extract",
    "compress",
}  # for sizes
ON_THE_HOST = {"result_type", "can_cast", "promote_types", "may_share_memory", "shares_memory"}
ON_THE_HOST |= {"ndim", "shape", "size", "isscalar", "broadcast_shapes", "min_scalar_type"}


@dataclass
class Count:
    """What was asked of the device since `reset`."""

    launches: int = 0
    to_device: int = 0
    to_host: int = 0
    syncs: int = 0

    def reset(self):
        self.__init__()


count = Count()


def signature_of(words):
    """An inspect.Signature of the words that record_surface.py writes; None if there are none."""
    if words is None:
        return None
    p, kind, found = inspect.Parameter, inspect.Parameter.POSITIONAL_OR_KEYWORD, []
    for word in words:
        name = word.strip("*=")
        if word.startswith("**"):
            found.append(p(name, p.VAR_KEYWORD))
        elif word.startswith("*"):
            kind = p.KEYWORD_ONLY
            found += [p(name, p.VAR_POSITIONAL)] if name else []
        else:
            found.append(p(name, kind, default=None if word.endswith("=") else p.empty))
    return inspect.Signature(found)


def check_dtype(dtype):
    """The dtype, if CuPy has arrays of it."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "biufc" or dtype in (np.longdouble, np.clongdouble):
        raise ValueError(f"Unsupported dtype {dtype}")
    return dtype


def bare(value):
    """The NumPy arrays inside of arguments; TypeError for one that was never on the device."""
    if isinstance(value, ndarray):
        return value.memory
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {np.ndarray}: a host array among device arrays")
    if isinstance(value, (tuple, list)):
        return type(value)(map(bare, value))
    return value


def wrapped(value):
    """Results as arrays of the device: numbers too, since CuPy does not fetch them."""
    if isinstance(value, (np.ndarray, np.generic, bool)):
        return ndarray.around(np.asarray(value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(wrapped, value))
    return value


def calling(name, function, signature):
    """A function of the device that runs `function` on the memory of its arguments."""

    def call(*args, **options):
        if signature is not None:
            try:
                signature.bind(*args, **options)
            except TypeError as error:
                raise TypeError(f"cupy.{name}: {error}") from None
        out = options.get("out")
        args, options = bare(args), {key: bare(value) for key, value in options.items()}
        if options.get("dtype") is not None:
            check_dtype(options["dtype"])
        result = function(*args, **options)
        if name in ON_THE_HOST:
            return result
        if name in ASK_THE_DEVICE:
            count.syncs += 1
        if out is not None or not is_view(result, args):
            count.launches += 1
        return wrapped(result) if out is None else out

    call.__name__ = name
    return call


def is_view(result, arguments):
    """Whether a result is the memory of an argument, seen in another way: no work for a device."""
    results = result if isinstance(result, (tuple, list)) else [result]
    given = [a for a in arguments if isinstance(a, np.ndarray)]
    return all(
        isinstance(r, np.ndarray) and (not r.size or any(np.may_share_memory(r, a) for a in given))
        for r in results
    )


class Pointer:
    """Where an array is, as `array.data.ptr`."""

    def __init__(self, memory):
        self.ptr = memory.ctypes.data


class ndarray:
    """An array of the device."""

    __hash__ = None
    __slots__ = ("__weakref__", "memory")

    def __init__(self, shape, dtype=float, order="C"):
        self.memory = np.empty(shape, check_dtype(dtype), order)
        flat = self.memory.reshape(-1, order="A").view(np.uint8)
        flat[...] = 0xFF if self.memory.dtype != bool else 1  # NaN, as anything may be in it

    @classmethod
    def around(cls, memory):
        check_dtype(memory.dtype)
        made = object.__new__(cls)
        made.memory = memory
        return made

    # ---- what would copy to the host and not say so

    def __array__(self, *args, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed: use .get()")

    def __array_ufunc__(self, ufunc, *args, **options):
        raise TypeError(f"numpy.{ufunc.__name__} was called on a device array: use xp")

    def __array_function__(self, function, *args, **options):
        raise TypeError(f"numpy.{function.__name__} was called on a device array: use xp")

    # ---- what copies to the host, and waits for the device

    def get(self, stream=None, order="C", out=None, blocking=True):
        count.to_host += 1
        count.syncs += 1
        if out is None:
            return self.memory.copy(order)
        out[...] = self.memory
        return out

    def item(self, *args):
        return self.get().item(*args)

    def tolist(self):
        return self.get().tolist()

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __bool__(self):
        return bool(self.get())

    def __index__(self):
        return self.get().__index__()

    def __repr__(self):
        return repr(self.get())

    def __format__(self, spec):
        return format(self.get(), spec)

    def __reduce__(self):
        return asarray, (self.get(),)

    def set(self, array, stream=None):
        if type(array) is not np.ndarray or array.shape != self.shape:
            raise TypeError("set: needs a NumPy array of the same shape")
        count.to_device += 1
        self.memory[...] = array

    # ---- parts

    def __len__(self):
        return len(self.memory)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        check_index(index)
        parts = bare(index) if isinstance(index, tuple) else (bare(index),)
        if not any(part is ... for part in parts):
            parts += (...,)  # an array comes out, not a number
        result = self.memory[parts]
        if not is_view(result, [self.memory]):
            count.launches += 1
        return ndarray.around(result)

    def __setitem__(self, index, value):
        check_index(index)
        for part in index if isinstance(index, tuple) else (index,):
            if isinstance(part, ndarray) and part.dtype.kind in "iu" and not repeats_alike(part):
                raise RuntimeError("assignment through an index that is there twice: undefined")
        count.launches += 1
        self.memory[bare(index)] = bare(value)

    # ---- attributes

    shape = property(lambda self: self.memory.shape)
    T = property(lambda self: ndarray.around(self.memory.T))
    data = property(lambda self: Pointer(self.memory))
    device = property(lambda self: Device(0))


for _name in ("dtype", "ndim", "size", "strides", "nbytes", "itemsize", "flags"):
    setattr(ndarray, _name, property(lambda self, n=_name: getattr(self.memory, n)))


def check_index(index):
    """What CuPy would copy to the device for an index, or fetch from it."""
    for part in index if isinstance(index, tuple) else (index,):
        if isinstance(part, (list, np.ndarray)):
            raise TypeError("an index of the host: copy it to the device once, with asarray")
        if isinstance(part, ndarray) and part.dtype == bool:
            count.syncs += 1  # how many are true?


def repeats_alike(index):
    """Whether no position is there twice in one index array."""
    return np.unique(index.memory).size == index.size


def method_of(name, words):
    return lambda self, *args, **options: calling(
        f"ndarray.{name}",
        lambda memory, *a, **o: getattr(memory, name)(*a, **o),
        None if words is None else signature_of(["self", *words]),
    )(self, *args, **options)


for _name, _words in SURFACE["methods"].items():
    if not hasattr(ndarray, _name) and hasattr(np.ndarray, _name):
        setattr(ndarray, _name, method_of(_name, _words))


def operator_of(name):
    def operate(self, *others):
        if any(isinstance(other, (list, tuple)) for other in others):
            raise TypeError(f"Unsupported type {list}")
        result = getattr(self.memory, name)(*bare(others))
        if result is NotImplemented:
            return result
        count.launches += 1
        return self if result is self.memory else wrapped(result)

    return operate


BINARY = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"]
OTHERS = ["lt", "le", "eq", "ne", "gt", "ge", "neg", "pos", "abs", "invert"]
OPERATORS = [f"__{side}{name}__" for name in BINARY for side in ("", "r", "i")]
OPERATORS += [f"__{name}__" for name in OTHERS]
for _name in OPERATORS:
    if _name in SURFACE["operators"]:
        setattr(ndarray, _name, operator_of(_name))


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
    """A CUDA source, run by the executor: in natural order, or shuffled by a `seed`."""

    programs: typing.ClassVar[dict] = {}
    seed = None

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
        self.program.launch(name, grid, block, given, self.seed)


# ---- modules


class Stream:
    """Streams, events and the device: there is nothing to wait for, but waiting is counted."""

    def __init__(self, *args, **options):
        self.id = 0

    def synchronize(self):
        count.syncs += 1


Device = Event = Stream


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
