"""Floor 0: where arrays live, what type their numbers have, and where randomness comes from.

A backend is a small object: an array module `xp` with NumPy's interface, its special functions, and
copies from and to the host. The engine asks `of(array)` once for every operation and hands the op
that backend's `xp`; op bodies never ask which device they run on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import numpy as np

from minigan import gemm, memory, workers

FLOAT_TYPES = (np.dtype(np.float32), np.dtype(np.float64))


class DeviceError(RuntimeError):
    """A device that is not there, or an operation over tensors of several devices."""


class Backend:
    """What the engine needs of a device; a subclass overrides what it does better.

    Attributes:
        name: the device as users write it, "cpu" or "cuda".
        xp: the array module that op bodies compute with.
        array_type: the class of its arrays, by which `of` recognises them.
        column_bytes: how much of a convolution's columns is made at a time.
        adds_products: whether it has `matrix` and `add_products`, as `gemm` has them; elsewhere few
            large products are better.
        kernels: `launch.Kernels` where there are hand-written ones, else None.
    """

    name: str
    xp: Any
    array_type: type
    column_bytes = 1 << 28
    adds_products = False
    kernels: Any = None

    def __reduce__(self) -> tuple:
        """Copies and pickles of a tensor share its backend: there is one for each device."""
        return get, (self.name,)

    @property
    def special(self) -> Any:
        """The array module's special functions (erf, ...)."""
        raise NotImplementedError

    def from_host(self, array: np.ndarray) -> Any:
        """Return a NumPy array as an array of this backend (no copy where none is needed)."""
        raise NotImplementedError

    def to_host(self, array: Any) -> np.ndarray:
        """Return an array of this backend as a NumPy array (no copy where none is needed)."""
        raise NotImplementedError

    def choose(self, plain: Any, with_kernels: Any) -> Any:
        """Return which of two ways to the same result is taken; only `kernels` take the second."""
        return plain

    def each(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Return `function` of every item; the CPU's workers share them."""
        return [function(item) for item in items]

    def blocks(self, function: Callable[..., Any], *arrays: Any) -> list[Any]:
        """Call `function` on arrays of equal length; the CPU's workers share blocks of them."""
        return [function(*arrays)]

    def postponed(self, of_user: bool = False) -> Any:
        """Return a context with a `workers.Postponed`; only the CPU has workers for it."""
        return nullcontext(workers.Postponed(helpers=0, accepting=False))

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        """out = a @ b."""
        self.xp.matmul(a, b, out=out)

    def axpby(self, a: float, x: Any, b: float, y: Any) -> None:
        """y = a·x + b·y."""
        if b != 1:
            y *= b
        y += a * x

    def copy_runs(self, to: Any, source: Any) -> None:
        """to[...] = source, arrays (..., K, C) with few numbers on the last two axes."""
        to[...] = source

    def add_at(self, y: Any, index: Any, x: Any) -> None:
        """y[index] += x, once for every time that an entry is named; always in the same order."""
        self.xp.add.at(y, index, x)

    def concatenate(self, arrays: Sequence[Any], axis: int) -> Any:
        """Return arrays one after another along an axis."""
        return self.xp.concatenate(arrays, axis=axis)

    def scratch(self, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an array to work in, with nothing in it; on the CPU it is used again and again."""
        return self.xp.empty(shape, dtype)


class Host(Backend):
    """NumPy, and the threads of `workers`."""

    name, xp, array_type = "cpu", np, np.ndarray
    column_bytes = 1 << 21  # more falls out of the cache, less starves BLAS
    few_channels = 4  # of more, planes are slower than pixels
    adds_products = True
    each = staticmethod(workers.each)
    blocks = staticmethod(workers.blocks)
    postponed = staticmethod(workers.postponed)
    matmul = staticmethod(workers.matmul)
    matrix = gemm.Matrix
    add_products = staticmethod(workers.add_products)
    scratch = staticmethod(workers.scratch)

    def axpby(self, a: float, x: np.ndarray, b: float, y: np.ndarray) -> None:
        """As any backend's; in one pass where BLAS can do it."""
        if not gemm.axpby(a, x, b, y):
            super().axpby(a, x, b, y)

    def copy_runs(self, to: np.ndarray, source: np.ndarray) -> None:
        """As any backend's; K·C numbers that lie side by side are moved as if they were one."""
        k, c = to.shape[-2:]
        beside = c * to.itemsize, to.itemsize
        alike = to.size and to.dtype == source.dtype
        if alike and to.strides[-2:] == source.strides[-2:] == beside:
            run = np.dtype((np.void, k * c * to.itemsize))
            to, source = (a.reshape(*a.shape[:-2], k * c).view(run) for a in (to, source))
        to[...] = source

    def concatenate(self, arrays: Sequence[np.ndarray], axis: int) -> np.ndarray:
        """As NumPy's, by the workers; of few channels plane by plane, not pixel by pixel."""
        if axis == 0:  # along which the workers' blocks are cut
            return np.concatenate(arrays)
        shape = list(arrays[0].shape)
        shape[axis] = sum(a.shape[axis] for a in arrays)
        y = np.empty(shape, np.result_type(*arrays))
        by_channel = y.ndim == 4 and axis == 3
        few = by_channel and max(a.shape[3] for a in arrays) <= self.few_channels

        def join(out: np.ndarray, *parts: np.ndarray) -> None:
            if not few:
                np.concatenate(parts, axis=axis, out=out)
                return
            planes = (part[..., channel] for part in parts for channel in range(part.shape[3]))
            for channel, plane in enumerate(planes):
                out[..., channel] = plane

        self.blocks(join, y, *arrays)
        return y

    @property
    def special(self) -> Any:
        import scipy.special  # a tenth of a second to import, and few programs need it

        return scipy.special

    def from_host(self, array: np.ndarray) -> Any:
        """Return the array itself."""
        return array

    def to_host(self, array: Any) -> np.ndarray:
        """Return the array itself."""
        return array


CPU = Host()
memory.keep_freed_memory()


class _Settings:
    """What `use` and `manual_seed` change.

    MINIGAN_DEVICE says which device is the default; it is looked for when the first tensor is made.
    """

    def __init__(self) -> None:
        self.device = os.environ.get("MINIGAN_DEVICE", "cpu")
        self.generator = np.random.default_rng()


_settings = _Settings()
_default_dtype = ContextVar("default_dtype", default=FLOAT_TYPES[0])
_backends: dict[str, Backend] = {"cpu": CPU}
_by_array_type: dict[type, Backend] = {np.ndarray: CPU}


def register(backend: Backend) -> Backend:
    """Make a backend known under its name and by the type of its arrays."""
    _backends[backend.name] = backend
    _by_array_type[backend.array_type] = backend
    return backend


def get(device: str | None = None) -> Backend:
    """Return the backend called `device`; the default one for None.

    Raises:
        DeviceError: no such device, or CUDA where CuPy, a driver or a GPU is missing.
    """
    name = _settings.device if device is None else device
    if name not in _backends and name == "cuda":
        from minigan import cuda  # CuPy takes a second to import: only for those who ask

        register(cuda.load_backend())
    if name not in _backends:
        by = " (MINIGAN_DEVICE)" if name == os.environ.get("MINIGAN_DEVICE") else ""
        raise DeviceError(f"device {name!r}{by} is unknown: choose 'cpu' or 'cuda'")
    return _backends[name]


def of(array: Any) -> Backend:
    """Return the backend that an array belongs to; TypeError for anything that is no array."""
    backend = _by_array_type.get(type(array))
    if backend is None:
        raise TypeError(f"expected an array of a known backend, got {type(array).__name__}")
    return backend


def use(device: str) -> None:
    """Create tensors on `device` ("cpu" or "cuda") from now on, unless told otherwise.

    Raises:
        DeviceError: as `get`; the default is then left as it was.
    """
    _settings.device = get(device).name


def get_default_dtype() -> np.dtype:
    """Return the dtype of new floating-point tensors: float32 unless `default_dtype` says not."""
    return _default_dtype.get()


@contextmanager
def default_dtype(dtype: Any) -> Iterator[None]:
    """Within the context, and for its thread, creation functions make `dtype`.

    Args:
        dtype: np.float32 or np.float64.

    Raises:
        TypeError: any other dtype.
    """
    before = get_default_dtype()
    _default_dtype.set(check_float(np.dtype(dtype), "default_dtype"))
    try:
        yield
    finally:
        _default_dtype.set(before)


def check_float(dtype: np.dtype, who: str) -> np.dtype:
    """Return `dtype` if the engine computes in it, else raise TypeError in the name of `who`."""
    if dtype not in FLOAT_TYPES:
        raise TypeError(f"{who}: {dtype} is not a type minigan computes in: use float32 or float64")
    return dtype


def as_array(data: Any, dtype: Any = None, device: str | None = None) -> Any:
    """Return `data` as an array of a backend, by the dtype policy.

    Floating-point data, and Python numbers and lists, become the default float type (float32
    unless changed); integer and boolean NumPy arrays keep their type, as indices and masks need.

    Args:
        data: an array, number or nested list.
        dtype: overrides the policy.
        device: "cpu" or "cuda"; by default where `data` already is, or else the default device.

    Raises:
        TypeError: data that is no real number (objects, strings, complex), or an unusable dtype.
        ValueError: nested lists of unequal lengths.
    """
    backend = _by_array_type.get(type(data))
    if backend is None and isinstance(data, getattr(sys.modules.get("cupy"), "ndarray", ())):
        backend = get("cuda")  # CuPy's own, before anybody has asked for its backend
    if backend is None:
        keeps_type = hasattr(data, "dtype")  # NumPy scalars, memory maps
        try:
            data = np.asarray(data)
        except ValueError as error:
            raise ValueError(f"tensor: the nested lists are ragged ({error})") from None
        if dtype is None and data.dtype.kind in "iub" and not keeps_type:
            dtype = get_default_dtype()
        backend = CPU
    if data.dtype.kind not in "fiub":
        raise TypeError(f"tensor: cannot hold {data.dtype}: give real numbers")
    if dtype is None and data.dtype.kind == "f":
        dtype = get_default_dtype()
    wanted = data.dtype if dtype is None else np.dtype(dtype)
    if wanted.kind not in "iub":
        check_float(wanted, "tensor")
    data = data.astype(wanted, copy=False)
    target = get(device) if device is not None or backend is CPU else backend
    return data if target is backend else target.from_host(backend.to_host(data))


def manual_seed(seed: int) -> None:
    """Seed the host generator that initialisers and dropout draw from.

    Raises:
        ValueError: a negative seed.
        RuntimeError: another function of `side_by_side` draws from it.
    """
    if seed < 0:
        raise ValueError(f"manual_seed: seed must not be negative, got {seed}")
    workers.claim("the state of mg.generator()", _settings)
    _settings.generator = np.random.default_rng(seed)


def generator() -> np.random.Generator:
    """Return the host generator, so that every device sees the same numbers.

    Its state is `generator().bit_generator.state`, which may be read and assigned (checkpoints).

    Raises:
        RuntimeError: two functions of `side_by_side` ask for it.
    """
    workers.claim("the state of mg.generator()", _settings)
    return _settings.generator
