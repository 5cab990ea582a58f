"""The specification of the functions that move numbers about: shapes, orders and joints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigan import functional as F
from minigan.specs.case import Case, spec
from minigan.specs.choices import Choices
from minigan.specs.values import (
    broadcastable,
    chosen,
    draw_inputs,
    either_sign,
    one_axis,
    shapes,
    some_axes,
)


@spec("broadcast_to")
def broadcast_to_case(choose: Choices) -> Case:
    """New axes in front, and axes of size 1 repeated."""
    target = shapes(choose, most=4)
    return Case(
        lambda x: F.broadcast_to(x, target),
        lambda x: x * np.ones(target),
        draw_inputs(choose, broadcastable(choose, target)),
        f"to {target}",
    )


@spec("reshape")
def reshape_case(choose: Choices) -> Case:
    """The sizes in another order, fours cut into two twos, and perhaps a -1."""
    shape = shapes(choose)
    target = choose.order([f for n in shape for f in ((2, 2) if n == 4 else (n,))])
    if target and 0 not in target and choose.yes():
        target = [*target[:-1], -1]
    return Case(
        lambda x: F.reshape(x, target),
        lambda x: np.array(list(x.flat)).reshape(target),
        draw_inputs(choose, shape),
        f"to {target}",
    )


@spec("transpose")
def transpose_case(choose: Choices) -> Case:
    """Any order, by axes counted from either end."""
    shape = shapes(choose, most=4)
    order = None if choose.yes(4) else choose.order(range(len(shape)))
    axes = None if order is None else [either_sign(choose, a, len(shape)) for a in order]
    letters = "abcd"[: len(shape)]
    moved = letters[::-1] if order is None else "".join(letters[a] for a in order)
    return Case(
        lambda x: F.transpose(x, axes),
        lambda x: np.einsum(f"{letters}->{moved}", x),
        draw_inputs(choose, shape),
        f"axes {axes}",
    )


@spec("squeeze")
def squeeze_case(choose: Choices) -> Case:
    """All axes of size 1, or some of them."""
    shape = shapes(choose, most=4)
    ones = [a for a, n in enumerate(shape) if n == 1]
    axis = None
    if choose.yes():
        axis = tuple(either_sign(choose, a, len(shape)) for a in choose.some(ones))
        axis = axis[0] if len(axis) == 1 and choose.yes() else axis
    return Case(
        lambda x: F.squeeze(x, axis),
        lambda x: np.squeeze(x, axis),
        draw_inputs(choose, shape),
        f"axis={axis}",
    )


@spec("expand_dims")
def expand_dims_case(choose: Choices) -> Case:
    """One new axis or two."""
    shape = shapes(choose)
    new = choose.order(range(len(shape) + 1))[: choose.integer(1, 2)]
    ndim = len(shape) + len(new)
    axis = tuple(either_sign(choose, a, ndim) for a in new)
    axis = axis[0] if len(axis) == 1 and choose.yes() else axis
    return Case(
        lambda x: F.expand_dims(x, axis),
        lambda x: np.expand_dims(x, axis),
        draw_inputs(choose, shape),
        f"axis={axis}",
    )


@spec("flip")
def flip_case(choose: Choices) -> Case:
    """Along some axes or all."""
    shape = shapes(choose)
    axis = some_axes(choose, len(shape))

    def reference(x: np.ndarray) -> np.ndarray:
        for a in chosen(axis, x.ndim):
            x = np.take(x, range(x.shape[a])[::-1], axis=a) if x.shape[a] else x
        return x

    return Case(lambda x: F.flip(x, axis), reference, draw_inputs(choose, shape), f"axis={axis}")


def paste(pieces: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Concatenate by hand: an empty array, and each piece written to its place."""
    sides = list(pieces[0].shape)
    sides[axis] = sum(p.shape[axis] for p in pieces)
    y, start = np.empty(sides), 0
    for p in pieces:
        np.moveaxis(y, axis, 0)[start : start + p.shape[axis]] = np.moveaxis(p, axis, 0)
        start += p.shape[axis]
    return y


@spec("concatenate")
def concatenate_case(choose: Choices) -> Case:
    """One to three pieces of different sizes, some of them empty."""
    shape = shapes(choose, least=1)
    axis = one_axis(choose, len(shape))
    pieces = []
    for _ in range(choose.integer(1, 3)):
        sides = list(shape)
        sides[axis] = choose.of(2, 3, 1, 0)
        pieces.append(tuple(sides))
    return Case(
        lambda *xs: F.concatenate(xs, axis),
        lambda *xs: paste(xs, axis),
        draw_inputs(choose, *pieces),
        f"axis={axis}",
    )


@spec("stack")
def stack_case(choose: Choices) -> Case:
    """One to three pieces of one shape."""
    shape = shapes(choose)
    axis = one_axis(choose, len(shape) + 1)
    return Case(
        lambda *xs: F.stack(xs, axis),
        lambda *xs: paste([np.expand_dims(x, axis) for x in xs], axis),
        draw_inputs(choose, *[shape] * choose.integer(1, 3)),
        f"axis={axis}",
    )


@spec("pad")
def pad_case(choose: Choices) -> Case:
    """Constants of any value, or reflections, of different widths on every side."""
    shape = shapes(choose)
    mode = choose.of("constant", "reflect")
    most = [2 if mode == "constant" else max(0, n - 1) for n in shape]
    widths = [(choose.integer(0, m), choose.integer(0, m)) for m in most]
    value = choose.of(0.0, -2, 1.5) if mode == "constant" else 0.0

    def reference(x: np.ndarray) -> np.ndarray:
        options = {"constant_values": value} if mode == "constant" else {}
        return np.pad(x, widths or 0, mode=mode, **options)

    return Case(
        lambda x: F.pad(x, widths, mode, value),
        reference,
        draw_inputs(choose, shape),
        f"{widths} {mode} {value}",
    )
