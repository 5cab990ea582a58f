"""Floor 1: the tensor, an array that knows which op made it.

The arithmetic methods (`+`, `.sum()`, ...) are attached by `minigan.ops`, one floor up.
"""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from minigan import backend as backends


class AnomalyError(ArithmeticError):
    """Anomaly mode found the op that made a NaN or an Inf."""


class _Here:
    """An attribute that every context (PEP 567) has for itself, and so every thread."""

    def __init__(self, default: Any) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.variable = ContextVar(name, default=self.default)

    def __get__(self, mode: Mode, owner: type) -> Any:
        return self.variable.get()

    def __set__(self, mode: Mode, value: Any) -> None:
        self.variable.set(value)


class Mode:
    """What `no_grad` and `detect_anomaly` switch, and the clock that numbers ops.

    What a thread hands to others (`workers`) is done in its own context, whoever does it.
    """

    recording = _Here(True)
    anomaly = _Here(False)
    clock = _Here(None)  # of a call of `side_by_side`; all others have the common one
    common_clock = itertools.count()

    def tick(self) -> int:
        """Return a number that is larger than those that this clock gave before."""
        return next(self.clock or Mode.common_clock)


mode = Mode()
_eras = itertools.count(1)


def clocks(count: int) -> list[Iterator[int]]:
    """Return clocks of which each is ahead of the one before it, and set the common one ahead."""
    *found, Mode.common_clock = (itertools.count(next(_eras) << 32) for _ in range(count + 1))
    return found


@contextmanager
def switched(name: str, value: bool) -> Iterator[None]:
    """Within the context, `mode` has another value."""
    before = getattr(mode, name)
    setattr(mode, name, value)
    try:
        yield
    finally:
        setattr(mode, name, before)


def no_grad() -> Any:
    """Return a context in which nothing is recorded and results need no gradient."""
    return switched("recording", False)


def detect_anomaly(when: str = "") -> Any:
    """Return a context that raises AnomalyError at the first op that makes a NaN or an Inf.

    Forward and backward, with the op's name and shapes, and before them `when`, say "step 37". It
    reads every result once more.
    """
    return switched("anomaly", when or True)


def check_finite(op: Any, result: Any, when: str, sources: Sequence[Any]) -> None:
    """Raise AnomalyError, in the name of an op, if its result has a NaN or an Inf."""
    if op.xp.isfinite(result).all():
        return
    came_in = [i for i, a in enumerate(sources) if not op.xp.isfinite(a).all()]
    cause = f"; operand {came_in[0]} already held one" if came_in else " from finite numbers"
    moment = f"{mode.anomaly}: " if isinstance(mode.anomaly, str) else ""
    raise AnomalyError(
        f"{moment}{op.name()} {when}: made NaN or Inf in a result of shape {tuple(result.shape)}, "
        f"inputs {', '.join(map(str, op.shapes))}{cause}"
    )


def is_recording() -> bool:
    """Return whether operations are being recorded."""
    return mode.recording


class Version:
    """Counts the in-place changes of one block of memory; views and detached tensors share it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Tensor:
    """An array of numbers that can be differentiated through.

    Args:
        data: an array, number or nested list; an array of the right type is shared, not copied.
        dtype: np.float32 or np.float64, or an integer type for indices; by default float32
            (see `default_dtype`), while integer arrays keep their type.
        requires_grad: whether `backward` shall fill `.grad`, an array like `.data`.
        device: "cpu" or "cuda"; by default where `data` is, or the device of `mg.use`.

    Raises:
        TypeError: data that is no real number, or integers that shall require a gradient.
    """

    __slots__ = ("__weakref__", "_data", "_op", "_version", "backend", "grad", "requires_grad")
    __array_ufunc__ = None  # so that `array * tensor` asks the tensor, not NumPy

    def __init__(
        self,
        data: Any,
        dtype: Any = None,
        requires_grad: bool = False,
        device: str | None = None,
    ) -> None:
        source = data if isinstance(data, Tensor) else None
        self._data = backends.as_array(data if source is None else source._data, dtype, device)
        self.backend = backends.of(self._data)
        shared = source is not None and source._data is self._data
        self._version = source._version if shared else Version()
        self._op, self.grad = None, None
        self.requires_grad = False
        self.requires_grad_(requires_grad)

    @classmethod
    def _wrap(
        cls, array: Any, backend: backends.Backend, op: Any = None, version: Version | None = None
    ) -> Tensor:
        """Make a tensor around an array that is known to be in order."""
        tensor = object.__new__(Tensor)
        tensor._data, tensor.backend, tensor._op = array, backend, op
        tensor._version = Version() if version is None else version
        tensor.requires_grad, tensor.grad = op is not None, None
        return tensor

    # What it is

    @property
    def data(self) -> Any:
        """The array itself. Whoever writes into it says so with `bump_version()`."""
        return self._data

    @data.setter
    def data(self, array: Any) -> None:
        array = backends.as_array(array, self.dtype, self.device)
        if array.shape != self.shape:
            raise ValueError(f"data: cannot put {array.shape} into a tensor of shape {self.shape}")
        self._data = array
        self.bump_version()

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def ndim(self) -> int:
        return self._data.ndim

    @property
    def size(self) -> int:
        return self._data.size

    @property
    def dtype(self) -> np.dtype:
        return self._data.dtype

    @property
    def device(self) -> str:
        return self.backend.name

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded op made this tensor."""
        return self._op is None

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("a tensor of shape () has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        values = np.array2string(self.numpy(), separator=", ", prefix="tensor(", threshold=100)
        notes = [] if self.dtype == np.float32 else [f"dtype={self.dtype}"]
        notes += [] if self.device == "cpu" else [f"device={self.device!r}"]
        if self._op is not None:
            notes.append(f"op={self._op.name()}")
        elif self.requires_grad:
            notes.append("requires_grad=True")
        return f"tensor({', '.join([values, *notes])})"

    # Out of the engine

    def numpy(self) -> np.ndarray:
        """Return the values as a NumPy array of its own, on the host."""
        return np.array(self.backend.to_host(self._data))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def item(self) -> float | int | bool:
        """Return the one value as a Python number; ValueError if there are several."""
        if self.size != 1:
            raise ValueError(f"item: a tensor of shape {self.shape} has {self.size} values, not 1")
        return self.backend.to_host(self._data).item()

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    # Its place in the graph

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Say whether this leaf wants a gradient; returns itself.

        Raises:
            TypeError: integers have no gradient.
            RuntimeError: the result of a recorded op cannot be told to forget it: use `detach()`.
        """
        if requires_grad and self.dtype.kind != "f":
            raise TypeError(f"requires_grad: only floating-point tensors can, this is {self.dtype}")
        if self._op is not None and not requires_grad:
            raise RuntimeError(f"requires_grad: {self!r} was computed; use detach() instead")
        self.requires_grad = bool(requires_grad)
        return self

    def detach(self) -> Tensor:
        """Return a tensor on the same memory that is not part of the graph."""
        return Tensor._wrap(self._data, self.backend, version=self._version)

    def to(self, device: str) -> Tensor:
        """Return this tensor on `device`: itself if it is there, else a copy outside the graph.

        Raises:
            RuntimeError: a computed tensor that wants a gradient (copies are not recorded).
        """
        target = backends.get(device)
        if target is self.backend:
            return self
        if self._op is not None:
            raise RuntimeError("to: a copy to another device is not recorded: detach() first")
        array = target.from_host(self.backend.to_host(self._data))
        return Tensor._wrap(array, target).requires_grad_(self.requires_grad)

    def to_(self, device: str) -> Tensor:
        """Move this leaf, and its gradient, to `device`; returns itself, so that holders keep it.

        A graph recorded over it before is stale. What shared its memory (`detach`) stays behind.

        Raises:
            DeviceError: no such device; nothing is moved then.
            RuntimeError: a computed tensor.
        """
        target, source = backends.get(device), self.backend
        if self._op is not None:
            raise RuntimeError("to_: a computed tensor cannot be moved in place: use detach().to()")
        if target is not source:
            self._data = target.from_host(source.to_host(self._data))
            if self.grad is not None:
                self.grad = target.from_host(source.to_host(self.grad))
            self.backend = target
            self.bump_version()
        return self

    # Changes in place

    def bump_version(self) -> None:
        """Note that the memory was written to, so that a stale graph over it is noticed."""
        self._version.value += 1

    def _change(self, what: str, write: Callable[[Any], None]) -> Tensor:
        if self.requires_grad and mode.recording:
            raise RuntimeError(
                f"{what}: a tensor that requires a gradient cannot be changed in place while "
                "operations are recorded: do it under no_grad(), or compute a new tensor"
            )
        write(self._data)
        self.bump_version()
        return self

    def _operand(self, what: str, other: Any, any_shape: bool = False) -> Any:
        """Return the array that shall change this tensor; an error where it cannot."""
        other = lift(other, self)[0]
        if other.backend is not self.backend:
            raise backends.DeviceError(
                f"{what}: a tensor {self.shape} on {self.device} cannot be changed by one "
                f"{other.shape} on {other.device}: move it with .to(device)"
            )
        if other.dtype.kind == "f" and other.dtype != self.dtype:
            raise TypeError(f"{what}: {other.dtype} does not go into a tensor of {self.dtype}")
        fits = other.ndim <= self.ndim and all(
            n in (1, m) for n, m in zip(other.shape[::-1], self.shape[::-1], strict=False)
        )
        if not (fits or any_shape):
            raise ValueError(f"{what}: {other.shape} does not broadcast to {self.shape}")
        return other.data

    def copy_(self, source: Any) -> Tensor:
        """Overwrite the values with those of an array or tensor of the same shape."""
        source = Tensor(source, dtype=self.dtype, device=self.device).data
        if source.shape != self.shape:
            raise ValueError(f"copy_: cannot copy {source.shape} into {self.shape}")

        def write(data: Any) -> None:
            data[...] = source

        return self._change("copy_", write)

    def zero_(self) -> Tensor:
        """Set all values to zero."""
        return self._change("zero_", lambda data: data.fill(0))

    def add_(self, other: Any) -> Tensor:
        """Add a number, array or tensor to the values."""
        other = self._operand("add_", other)
        return self._change("add_", lambda data: data.__iadd__(other))

    def mul_(self, other: Any) -> Tensor:
        """Multiply the values by a number, array or tensor."""
        other = self._operand("mul_", other)
        return self._change("mul_", lambda data: data.__imul__(other))

    def __setitem__(self, index: Any, value: Any) -> None:
        value = self._operand("setitem", value, any_shape=True)
        self._change("setitem", lambda data: data.__setitem__(index, value))


def tensor(
    data: Any, dtype: Any = None, requires_grad: bool = False, device: str | None = None
) -> Tensor:
    """Return a new tensor on memory of its own; arguments and errors as for `Tensor`."""
    made = Tensor(data, dtype, requires_grad, device)
    made._data, made._version = made._data.copy(), Version()
    return made


def lift(*operands: Any) -> tuple[Tensor, ...]:
    """Return the operands as tensors: numbers become constants of the others' type and device.

    Raises:
        TypeError: an operand that is neither tensor, number nor array.
    """
    like = next((operand for operand in operands if isinstance(operand, Tensor)), None)
    return tuple(o if isinstance(o, Tensor) else _constant(o, like) for o in operands)


def _constant(value: Any, like: Tensor | None) -> Tensor:
    is_number = isinstance(value, (numbers.Number, np.number, np.bool_, list, tuple))
    if not is_number and not hasattr(value, "dtype"):
        raise TypeError(f"expected a tensor, number or array, got {type(value).__name__}")
    if like is None:
        return Tensor(value)
    if like.dtype.kind != "f":  # indices and masks: `labels < 0.5` must not round the number
        return Tensor(np.asarray(value) if is_number else value, device=like.device)
    if is_number:
        return Tensor(value, dtype=like.dtype, device=like.device)
    return Tensor(value, dtype=value.dtype if value.dtype.kind == "f" else like.dtype)


def cotangent_of(output: Tensor, gradient: Any, who: str) -> Tensor:
    """Return `gradient` as a tensor like `output`, 1 for None; an error in the name of `who`."""
    if gradient is None:
        if output.size != 1:
            raise ValueError(
                f"{who}: the output has shape {output.shape}; only a scalar has a gradient of "
                "its own: pass a cotangent of that shape, or reduce it with .sum() or .mean()"
            )
        return Tensor._wrap(output.backend.xp.ones_like(output.data), output.backend)
    gradient = lift(gradient, output)[0]
    if gradient.shape != output.shape:
        raise ValueError(f"{who}: cotangent {gradient.shape} for an output of shape {output.shape}")
    if gradient.dtype != output.dtype or gradient.backend is not output.backend:
        raise TypeError(
            f"{who}: the cotangent is {gradient.dtype} on {gradient.device}, the output "
            f"{output.dtype} on {output.device}: convert it with .astype(dtype) or .to(device)"
        )
    return gradient
