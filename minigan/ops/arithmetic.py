"""Floor 2: element by element."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan import backend as backends
from minigan.autograd import OUT, Op
from minigan.ops.shape import sum_to
from minigan.tensor import Tensor, lift


class Binary(Op):
    """An op of two tensors that are broadcast together; its subclasses give the two slopes."""

    def backward(self, gy):
        slopes = (self.slope_a, self.slope_b)
        return tuple(
            sum_to(slope(gy), shape) if need else None
            for slope, shape, need in zip(slopes, self.shapes, self.needs, strict=True)
        )


class Add(Binary):
    """y = a + b."""

    def forward(self, a, b):
        return a + b

    def slope_a(self, gy):
        return gy

    def slope_b(self, gy):
        return gy


class Sub(Binary):
    """y = a − b."""

    def forward(self, a, b):
        return a - b

    def slope_a(self, gy):
        return gy

    def slope_b(self, gy):
        return -gy


class Mul(Binary):
    """y = a · b."""

    def forward(self, a, b):
        self.save(0, 1)
        return a * b

    def slope_a(self, gy):
        return gy * self.saved()[1]

    def slope_b(self, gy):
        return gy * self.saved()[0]


class Div(Binary):
    """y = a / b."""

    def forward(self, a, b):
        self.save(0, 1)
        return a / b

    def slope_a(self, gy):
        return gy / self.saved()[1]

    def slope_b(self, gy):
        a, b = self.saved()
        return -(gy / b) * (a / b)  # not a / b², which a float32 loses below b = 1e-19


class Pow(Binary):
    """y = a^b, where both may vary; the slope in b is taken as 0 where a <= 0."""

    def forward(self, a, b):
        self.save(0, 1)
        return a**b

    def slope_a(self, gy):
        a, b = self.saved()
        a = where((a.data == 0) & (b.data == 0), 1.0, a)  # else 0 · 0^-1, which is NaN
        return gy * b * a ** (b - 1.0)

    def slope_b(self, gy):
        a, b = self.saved()
        return gy * a**b * log(where(a.data > 0, a, 1.0))


class Power(Op):
    """y = x^c for a fixed number c."""

    def forward(self, x):
        self.save(0)
        return x**self.exponent

    def backward(self, gy):
        (x,) = self.saved()
        c = self.exponent
        return gy * 0.0 if c == 0 else gy * Power(exponent=c - 1)(x) * c


class Maximum(Binary):
    """y = max(a, b); where they are equal each gets half of the gradient."""

    def forward(self, a, b):
        self.share_a = (a > b) + (a == b) * a.dtype.type(0.5)
        return self.xp.maximum(a, b)

    def slope_a(self, gy):
        return gy * self.share_a

    def slope_b(self, gy):
        return gy * (1.0 - self.share_a)


class Minimum(Maximum):
    """y = min(a, b); where they are equal each gets half of the gradient."""

    def forward(self, a, b):
        self.share_a = (a < b) + (a == b) * a.dtype.type(0.5)
        return self.xp.minimum(a, b)


class Where(Op):
    """y = a where the condition holds, else b."""

    def forward(self, a, b):
        return self.xp.where(self.condition, a, b)

    def backward(self, gy):
        ga = sum_to(Where(condition=self.condition)(*lift(gy, 0.0)), self.shapes[0])
        gb = sum_to(Where(condition=self.condition)(*lift(0.0, gy)), self.shapes[1])
        return ga, gb


class Neg(Op):
    """y = −x."""

    def forward(self, x):
        return -x

    def backward(self, gy):
        return -gy


class Exp(Op):
    """y = e^x."""

    def forward(self, x):
        self.save(OUT)
        return self.xp.exp(x)

    def backward(self, gy):
        (y,) = self.saved()
        return gy * y


class Log(Op):
    """y = ln x."""

    def forward(self, x):
        self.save(0)
        return self.xp.log(x)

    def backward(self, gy):
        (x,) = self.saved()
        return gy / x


class Sqrt(Op):
    """y = √x."""

    def forward(self, x):
        self.save(OUT)
        return self.xp.sqrt(x)

    def backward(self, gy):
        (y,) = self.saved()
        return gy / (y * 2.0)


class Abs(Op):
    """y = |x|; the slope at 0 is taken as 0."""

    def forward(self, x):
        self.sign = self.xp.sign(x)
        return self.xp.abs(x)

    def backward(self, gy):
        return gy * self.sign


class Clip(Op):
    """y = x held between low and high; the slope at the bounds is 1."""

    def forward(self, x):
        y = self.xp.clip(x, self.low, self.high)
        self.inside = (x == y).astype(x.dtype)
        return y

    def backward(self, gy):
        return gy * self.inside


class Cast(Op):
    """y = x in the other float width."""

    changes_dtype = True

    def forward(self, x):
        self.before = x.dtype
        return x.astype(self.after)

    def backward(self, gy):
        return Cast(after=self.before)(gy)


def _broadcasting(op: Op, a: Any, b: Any) -> Tensor:
    a, b = lift(a, b)
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(
            f"{op.name()}: shapes {a.shape} and {b.shape} do not broadcast: counted from the "
            "right, sizes must be equal or 1"
        ) from None
    return op(a, b)


def add(a: Any, b: Any) -> Tensor:
    """Return a + b, broadcast; ValueError if the shapes do not (so for all of two operands)."""
    return _broadcasting(Add(), a, b)


def sub(a: Any, b: Any) -> Tensor:
    """Return a − b, broadcast."""
    return _broadcasting(Sub(), a, b)


def mul(a: Any, b: Any) -> Tensor:
    """Return a · b, broadcast."""
    return _broadcasting(Mul(), a, b)


def div(a: Any, b: Any) -> Tensor:
    """Return a / b, broadcast."""
    return _broadcasting(Div(), a, b)


def pow(a: Any, b: Any) -> Tensor:
    """Return a^b, broadcast. Both may vary; a plain number as b costs no logarithm."""
    if isinstance(b, (int, float)):
        return Power(exponent=float(b))(*lift(a))  # a NumPy float64 would widen
    return _broadcasting(Pow(), a, b)


def maximum(a: Any, b: Any) -> Tensor:
    """Return the larger of a and b, broadcast; equal ones share the gradient."""
    return _broadcasting(Maximum(), a, b)


def minimum(a: Any, b: Any) -> Tensor:
    """Return the smaller of a and b, broadcast; equal ones share the gradient."""
    return _broadcasting(Minimum(), a, b)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """Return a where `condition` (a boolean array or tensor) holds and b elsewhere, broadcast.

    The condition is copied: backward reads it again.

    Raises:
        TypeError: the condition is not boolean.
        ValueError: the shapes do not broadcast.
    """
    a, b = lift(a, b)
    condition = condition.data if isinstance(condition, Tensor) else condition
    if getattr(condition, "dtype", None) != np.bool_:
        raise TypeError(f"where: the condition must be boolean, got {type(condition).__name__}")
    on_host = isinstance(condition, (np.ndarray, np.generic))
    condition = a.backend.from_host(np.array(condition)) if on_host else condition.copy()
    try:
        np.broadcast_shapes(condition.shape, a.shape, b.shape)
    except ValueError:
        shapes = f"{condition.shape}, {a.shape} and {b.shape}"
        raise ValueError(f"where: shapes {shapes} do not broadcast") from None
    return Where(condition=condition)(a, b)


def neg(x: Tensor) -> Tensor:
    """Return −x."""
    return Neg()(x)


def exp(x: Tensor) -> Tensor:
    """Return e^x."""
    return Exp()(x)


def log(x: Tensor) -> Tensor:
    """Return the natural logarithm of x."""
    return Log()(x)


def sqrt(x: Tensor) -> Tensor:
    """Return the square root of x. Its slope at 0 is infinite: put an epsilon inside."""
    return Sqrt()(x)


def abs(x: Tensor) -> Tensor:
    """Return |x|; the slope at 0 is taken as 0."""
    return Abs()(x)


def clip(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """Return x held between `low` and `high`; None leaves that side open.

    Raises:
        ValueError: no bound at all, or low above high.
    """
    if (low is None and high is None) or (None not in (low, high) and low > high):
        raise ValueError(f"clip: needs low <= high, got low={low}, high={high}")
    low, high = (None if bound is None else float(bound) for bound in (low, high))
    return Clip(low=low, high=high)(x)


def cast(x: Tensor, dtype: Any) -> Tensor:
    """Return x as float32 or float64, differentiably; other tensors as any type."""
    dtype = np.dtype(dtype)
    if x.dtype == dtype:
        return x
    if x.dtype.kind != "f" or dtype.kind != "f":
        return Tensor(x.data.astype(dtype), dtype=dtype)
    return Cast(after=backends.check_float(dtype, "astype"))(x)
