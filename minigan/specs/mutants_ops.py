"""The mistakes that belong to one op: a wrong formula, mask, index, axis or geometry.

`SPECIFIC[op]` maps what is wrong to the rule that has it wrong. Those of an op with a fused rule
are for the composed one, unless they stand under `FUSED_ONLY`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigan.autograd import Op
from minigan.ops import activation, arithmetic, linalg, reduction, shape
from minigan.ops.arithmetic import exp, log
from minigan.ops.shape import reshape, sum_to
from minigan.specs.mutants_base import (
    BACKWARD,
    FUSED,
    Call,
    Mutant,
    Rule,
    attribute,
    forgetful,
    formula,
    helper,
    spoiled,
)
from minigan.specs.mutants_images import BATCH_NORM_FUSED, IMAGES
from minigan.tensor import Tensor

# Sums over axes


def not_summed(x: Tensor, like: Any) -> Tensor:
    """In place of `sum_to`: nothing done."""
    return x


def one_axis_short(x: Tensor, like: Any) -> Tensor:
    """In place of `sum_to`: of the axes to sum, the last is only cut down to its first entry."""
    like = tuple(like)
    if x.shape == like:
        return x
    new = x.ndim - len(like)
    axes = [*range(new), *(a for a in range(new, x.ndim) if like[a - new] != x.shape[a])]
    if not all(x.shape):
        return sum_to(x, like)
    index = tuple(slice(0, 1) if a == axes[-1] else slice(None) for a in range(x.ndim))
    return reshape(sum_to(x[index], like), like) if like else x[index].sum()


def first_kept(x: Tensor, like: Any) -> Tensor:
    """In place of `sum_to`: the first entry along each axis."""
    like = tuple(like)
    if x.shape == like or not all(x.shape):
        return sum_to(x, like)
    new = x.ndim - len(like)
    kept = (
        slice(None) if n == m else slice(0, 1) for n, m in zip(like, x.shape[new:], strict=True)
    )
    return reshape(x[(*[0] * new, *kept)], like)


def mean_to(x: Tensor, like: Any) -> Tensor:
    """In place of `sum_to`: the mean."""
    y = sum_to(x, like)
    return y * (y.size / x.size) if x.size else y


def sums_wrong(module: Any) -> dict[str, Rule]:
    """Return the mistakes of an op that sums down to the shape of an input."""
    return {
        "unbroadcast skipped": helper(module, "sum_to", not_summed),
        "unbroadcast one axis short": helper(module, "sum_to", one_axis_short),
        "unbroadcast keeps the first": helper(module, "sum_to", first_kept),
        "unbroadcast takes the mean": helper(module, "sum_to", mean_to),
    }


def next_axis(op: Op) -> Any:
    """Return the axis, or axes, moved on by one."""
    ndim = len(op.shapes[0])
    if hasattr(op, "axis"):
        return (op.axis + 1) % ndim
    return tuple(sorted((a + 1) % ndim for a in op.axes))


def sum_along_next_axes(call: Call) -> list[Any]:
    """Sum's rule with its axes moved on by one, where the shapes allow."""
    return call.run(axes=next_axis(call.op))


def wrong_kept(call: Call) -> list[Any]:
    """A gradient that goes back along the last axes that have as many entries."""
    op, gy = call.op, call.gy
    sizes = [n for a, n in enumerate(op.shapes[0]) if a not in op.axes]
    flat = reshape(gy, tuple(sizes))
    reverse = tuple(range(flat.ndim))[::-1]
    if flat.ndim < 2 or flat.shape != flat.shape[::-1]:
        return call.run()
    return call.run(reshape(shape.transpose(flat, reverse), gy.shape))


def sum_as_mean(call: Call) -> list[Any]:
    """The gradient of a mean in place of that of a sum."""
    n = reduction.count(call.op.shapes[0], call.op.axes)
    return [g * (1 / n) if n else g for g in call.run()]


def softmax_half_detached(call: Call) -> list[Any]:
    """Softmax's rule with one of its two y as a plain array."""
    (y,), gy = call.op.saved(), call.gy
    return [y * (gy - reduction.sum(gy * y.detach(), call.op.axis, keepdims=True))]


def log_softmax_detached(call: Call) -> list[Any]:
    """Log-softmax's rule with the probabilities as a plain array."""
    (y,), gy = call.op.saved(), call.gy
    return [gy - exp(y).detach() * reduction.sum(gy, call.op.axis, keepdims=True)]


# Masks


def shifted(name: str) -> Rule:
    """Return the rule that reads the op's mask one place off."""
    return attribute(**{name: lambda op: np.roll(np.asarray(getattr(op, name)), 1)})


def complement(name: str) -> Rule:
    """Return the rule that reads 1 − mask."""
    return attribute(**{name: lambda op: (1 - getattr(op, name)).astype(op.dtype)})


def all_ones(name: str) -> Rule:
    """Return the rule that reads a mask of ones."""
    return attribute(**{name: lambda op: np.ones_like(getattr(op, name))})


EXTREMUM = {
    "mask complemented": complement("share_a"),
    "mask off by one": shifted("share_a"),
    "all to the first": all_ones("share_a"),
    "mask of greater for less": attribute(
        share_a=lambda op: op.share_a[..., ::-1] if np.ndim(op.share_a) else 1 - op.share_a
    ),
}
SHARED = {
    "mask complemented": complement("share"),
    "mask off by one": shifted("share"),
    "all get the whole": all_ones("share"),
    "an equal share for each": attribute(
        share=lambda op: np.ones_like(op.share) / max(1, reduction.count(op.shapes[0], op.axes))
    ),
    "axes moved on by one": sum_along_next_axes,
    "results in another order": wrong_kept,
}


# Indices


def index_off_by_one(op: Op) -> Any:
    """Return the op's index with its arrays and whole numbers one place off."""
    parts = op.index if isinstance(op.index, tuple) else (op.index,)
    return tuple(_part_off_by_one(part) for part in parts)


def _part_off_by_one(part: Any) -> Any:
    if hasattr(part, "dtype") and part.ndim:
        return np.roll(part, 1)
    if isinstance(part, (int, np.integer)) and not isinstance(part, bool):
        return part - 1 if part > 0 else part
    return part


def slices_from_zero(op: Op) -> Any:
    """Return the op's index with its slices moved to the start."""
    parts = op.index if isinstance(op.index, tuple) else (op.index,)
    return tuple(
        slice(0, p.stop - p.start, p.step)
        if isinstance(p, slice) and p.start and p.stop and 0 < p.start < p.stop
        else p
        for p in parts
    )


def slices_backwards(op: Op) -> Any:
    """Return the op's index with the whole slices reversed."""
    parts = op.index if isinstance(op.index, tuple) else (op.index,)
    return tuple(
        slice(None, None, -1) if isinstance(p, slice) and p == slice(None) else p for p in parts
    )


INDEXED = {
    "index off by one": attribute(index=index_off_by_one),
    "slices from zero": attribute(index=slices_from_zero),
    "whole slices reversed": attribute(index=slices_backwards),
}


def concatenate_order(call: Call) -> list[Any]:
    """The pieces handed out from the last input to the first."""
    return call.run(shapes=call.op.shapes[::-1])[::-1]


def concatenate_first(call: Call) -> list[Any]:
    """Every input gets the first piece, where the shapes are one."""
    gradients = call.run()
    first = gradients[0]
    alike = first is not None and len(set(call.op.shapes)) == 1
    return [first if alike and g is not None else g for g in gradients]


def fortran_order(call: Call) -> list[Any]:
    """The numbers of a reshape taken in column-major order."""
    gy, target = call.gy, call.op.shapes[0]
    by_column = shape.transpose(reshape(shape.transpose(gy), target[::-1]))
    return [by_column]


# All of them

RELU: dict[str, Rule] = {
    "slope 1 everywhere": attribute(slope=lambda op: 1.0),
    "slope 0.01 below 0": attribute(slope=lambda op: 0.01),
    "slope where it should not be": formula(0, lambda gy, y: gy * (y.data <= 0)),
    "times y": formula(0, lambda gy, y: gy * y),
}
LEAKY_RELU: dict[str, Rule] = {
    "slope 0 below 0": attribute(slope=lambda op: 0.0),
    "slope squared below 0": attribute(slope=lambda op: op.slope**2),
    "slope 1 everywhere": attribute(slope=lambda op: 1.0),
    "slope of the default": attribute(slope=lambda op: 0.01),
}

SUM = {
    "gradient of a mean": sum_as_mean,
    "axes moved on by one": sum_along_next_axes,
    "results in another order": wrong_kept,
    "scale left out": attribute(scale=lambda op: 1.0),
}
CONCATENATE = {
    "pieces in reverse": concatenate_order,
    "the first piece for all": concatenate_first,
    "along the next axis": attribute(axis=next_axis),
}
SPECIFIC: dict[str, dict[str, Rule]] = {
    "Add": sums_wrong(arithmetic),
    "Sub": sums_wrong(arithmetic) | {"b's sign": formula(1, lambda gy: gy)},
    "Mul": sums_wrong(arithmetic)
    | {
        "a's slope is a": formula(0, lambda gy, a, b: gy * a),
        "b's slope is b": formula(1, lambda gy, a, b: gy * b),
        "a's slope is a · b": formula(0, lambda gy, a, b: gy * a * b),
    },
    "Div": sums_wrong(arithmetic)
    | {
        "a's slope is b": formula(0, lambda gy, a, b: gy * b),
        "b's slope without its sign": formula(1, lambda gy, a, b: gy / b * (a / b)),
        "b's slope without a": formula(1, lambda gy, a, b: -(gy / b) / b),
        "b's slope with one b too few": formula(1, lambda gy, a, b: -(gy / b) * a),
        "b's slope with one b too many": formula(1, lambda gy, a, b: -(gy / b) * (a / b) / b),
    },
    "Pow": sums_wrong(arithmetic)
    | {
        "exponent not lowered": formula(0, lambda gy, a, b: gy * b * a**b),
        "exponent lowered twice": formula(0, lambda gy, a, b: gy * b * a ** (b - 2.0)),
        "factor b left out": formula(0, lambda gy, a, b: gy * a ** (b - 1.0)),
        "logarithm left out": formula(1, lambda gy, a, b: gy * a**b),
        "logarithm of b": formula(1, lambda gy, a, b: gy * a**b * log(arithmetic.abs(b))),
        "logarithm to base 2": formula(1, lambda gy, a, b: gy * a**b * log(a) / math.log(2)),
    },
    "Power": {
        "exponent off by one": attribute(exponent=lambda op: op.exponent + 1),
        "exponent negated": attribute(exponent=lambda op: -op.exponent),
        "factor left out": lambda call: [
            call.gy * arithmetic.Power(exponent=call.op.exponent - 1)(*call.op.saved())
        ],
        "exponent not lowered": lambda call: [
            call.gy
            * arithmetic.Power(exponent=call.op.exponent)(*call.op.saved())
            * call.op.exponent
        ],
    },
    "Maximum": sums_wrong(arithmetic) | EXTREMUM,
    "Minimum": sums_wrong(arithmetic) | EXTREMUM,
    "Where": sums_wrong(arithmetic)
    | {
        "condition inverted": attribute(condition=lambda op: ~np.asarray(op.condition)),
        "condition always true": attribute(condition=lambda op: np.ones_like(op.condition)),
        "condition always false": attribute(condition=lambda op: np.zeros_like(op.condition)),
        "condition off by one": shifted("condition"),
    },
    "Exp": {
        "slope x for e^x": formula(0, lambda gy, y: gy * log(y)),
        "slope 1": formula(0, lambda gy, y: gy * 1.0),
        "slope e^x + 1": formula(0, lambda gy, y: gy * (y + 1.0)),
    },
    "Log": {
        "slope x": formula(0, lambda gy, x: gy * x),
        "slope 1/x²": formula(0, lambda gy, x: gy / (x * x)),
        "slope of log2": formula(0, lambda gy, x: gy / x / math.log(2)),
    },
    "Sqrt": {
        "2 left out": formula(0, lambda gy, y: gy / y),
        "slope 1/(2x)": formula(0, lambda gy, y: gy / (y * y * 2.0)),
        "slope √x / 2": formula(0, lambda gy, y: gy * y * 0.5),
    },
    "Abs": {"sign always 1": all_ones("sign"), "sign off by one": shifted("sign")},
    "Clip": {
        "mask inverted": complement("inside"),
        "mask of ones": all_ones("inside"),
        "mask off by one": shifted("inside"),
    },
    "Cast": {"gradient in the width of the output": attribute(before=lambda op: op.after)},
    "Relu": RELU,
    "LeakyRelu": LEAKY_RELU,
    "Elu": {
        "alpha left out": attribute(alpha=lambda op: 0.0),
        "alpha of the default": attribute(alpha=lambda op: 1.0),
        "mask inverted": attribute(positive=lambda op: ~op.positive),
        "mask off by one": shifted("positive"),
        "slope 1 everywhere": formula(0, lambda gy, y: gy * 1.0),
    },
    "Tanh": {
        "1 + y² for 1 − y²": formula(0, lambda gy, y: gy * (1.0 + y * y)),
        "1 − y for 1 − y²": formula(0, lambda gy, y: gy * (1.0 - y)),
        "y² left out": formula(0, lambda gy, y: gy * 1.0),
        "slope detached": forgetful(formula(0, lambda gy, y: gy * (1.0 - y * y).detach())),
    },
    "Sigmoid": {
        "1 − y left out": formula(0, lambda gy, y: gy * y),
        "y left out": formula(0, lambda gy, y: gy * (1.0 - y)),
        "1 + y for 1 − y": formula(0, lambda gy, y: gy * y * (1.0 + y)),
        "half detached": forgetful(formula(0, lambda gy, y: gy * y * (1.0 - y.detach()))),
    },
    "Softplus": {
        "sigmoid of −x": formula(0, lambda gy, x: gy * activation.sigmoid(-x)),
        "tanh for sigmoid": formula(0, lambda gy, x: gy * activation.tanh(x)),
        "a step for sigmoid": formula(0, lambda gy, x: gy * (x.data > 0)),
    },
    "Erf": {
        "2/√π left out": formula(0, lambda gy, x: gy * exp(-x * x)),
        "2 left out": formula(0, lambda gy, x: gy * exp(-x * x) * math.pi**-0.5),
        "e^(−x²/2)": formula(0, lambda gy, x: gy * exp(x * x * -0.5) * (2 * math.pi**-0.5)),
    },
    "Softmax": {
        "sum's term dropped": formula(0, lambda gy, y: y * gy),
        "slope of a sigmoid": formula(0, lambda gy, y: gy * y * (1.0 - y)),
        "axis moved on by one": attribute(axis=next_axis),
        "sum over everything": attribute(axis=lambda op: tuple(range(len(op.shapes[0])))),
        "half detached": forgetful(softmax_half_detached),
    },
    "LogSoftmax": {
        "sum's term dropped": formula(0, lambda gy, y: gy * 1.0),
        "e^y detached": forgetful(log_softmax_detached),
        "mean for sum": helper(activation, "sum", reduction.mean),
        "axis moved on by one": attribute(axis=next_axis),
    },
    "Sum": SUM,
    "Max": SHARED,
    "Min": SHARED,
    "BroadcastTo": sums_wrong(shape),
    "SumTo": {
        "as a mean": lambda call: [
            g * (call.gy.size / g.size) if g.size else g for g in call.run()
        ],
    },
    "Reshape": {"in column-major order": fortran_order},
    "Transpose": {
        "axes for their inverse": attribute(axes=lambda op: tuple(np.argsort(op.axes))),
        "axes reversed": attribute(axes=lambda op: tuple(range(len(op.axes)))[::-1]),
        "not transposed": attribute(axes=lambda op: tuple(range(len(op.axes)))),
    },
    "Getitem": INDEXED
    | {"repeats written and not added": helper(shape, "has_array", lambda index: False)},
    "Putitem": INDEXED,
    "Concatenate": CONCATENATE,
    "Pad": {
        "sides exchanged": attribute(widths=lambda op: [pair[::-1] for pair in op.widths]),
        "one more before": attribute(widths=lambda op: [(a + 1, b) for a, b in op.widths]),
        "one less before": attribute(widths=lambda op: [(max(0, a - 1), b) for a, b in op.widths]),
        "axes exchanged": attribute(widths=lambda op: op.widths[::-1]),
    },
    "Matmul": sums_wrong(linalg)
    | {
        "neither transposed": helper(linalg, "swap_last", lambda x: x),
        "a's product in the wrong order": formula(0, lambda gy, a, b: linalg.Matmul()(b, gy)),
        "b's product in the wrong order": formula(1, lambda gy, a, b: linalg.Matmul()(gy, a)),
    },
    **IMAGES,
}
ONLY_FUSED: dict[str, dict[str, Rule]] = {
    "BatchNorm": BATCH_NORM_FUSED,
    "Concatenate": CONCATENATE,
    "LeakyRelu": LEAKY_RELU,
    "Relu": RELU,
    "Sum": SUM,
    "Tanh": {
        "1 + y² for 1 − y²": formula(0, lambda gy, y: gy * (1.0 + y * y)),
        "1 − y for 1 − y²": formula(0, lambda gy, y: gy * (1.0 - y)),
        "y² left out": formula(0, lambda gy, y: gy * 1.0),
    },
}


def specific_mutants(cls: type[Op]) -> Iterator[Mutant]:
    """Yield the mutants that only this op has."""
    for route, table in ((BACKWARD, SPECIFIC), (FUSED, ONLY_FUSED)):
        where = {FUSED: "fused: "}.get(route, "backward: " if hasattr(cls, FUSED) else "")
        for name, rule in table.get(cls.__name__, {}).items():
            yield Mutant(cls.__name__, where + name, spoiled(cls, route, rule))
