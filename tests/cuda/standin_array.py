"""The arrays of the stand-in for CuPy, and what is counted; see standin.py."""

import inspect
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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


def rebuilt(memory):
    """An unpickled array."""
    count.to_device += 1
    return ndarray.around(memory)


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
        return rebuilt, (self.get(),)

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
