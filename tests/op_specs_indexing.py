"""The specification of indexing, joining and padding; importing it adds to `op_specs.SPECS`."""

import numpy as np
from hypothesis import strategies as st
from op_cases import SEEDS, Case, draw_inputs, one_axis, shapes
from op_specs import spec

import minigan as mg
from minigan import functional as F


@st.composite
def slices(draw, n):
    """A slice of an axis of size n: any start, stop and step, some of them empty."""
    end = st.one_of(st.none(), st.integers(-n - 1, n + 1))
    return slice(draw(end), draw(end), draw(st.sampled_from([None, 1, 2, -1, -2])))


@st.composite
def indices(draw, shape):
    """An index of an array of this shape, by every kind of part that NumPy has.

    Arrays of integers repeat and count from either end; all of them broadcast together.
    """
    rng = np.random.default_rng(draw(SEEDS))
    if shape and draw(st.integers(0, 4)) == 4:
        return mask_index(draw, shape, rng)
    together = draw(st.sampled_from([(5,), (1,), (2, 3), (0,)]))
    parts = []
    for n in shape[: draw(st.integers(0, len(shape)))]:
        kind = draw(st.sampled_from(["slice", "array", "integer", "slice", "list", "tensor"]))
        if kind == "slice" or n == 0:
            parts.append(draw(slices(n)))
        elif kind == "integer":
            parts.append(int(rng.integers(-n, n)))
        else:
            array = rng.integers(-n, n, size=together)
            as_kind = {"list": np.ndarray.tolist, "tensor": mg.Tensor, "array": np.asarray}
            parts.append(array if array.size == 0 else as_kind[kind](array))
    if draw(st.integers(0, 2)) == 2:
        parts.insert(draw(st.integers(0, len(parts))), None)
    if draw(st.integers(0, 2)) == 2:  # an ellipsis: what stood behind it now counts from the end
        parts = [*parts, ...] if draw(st.booleans()) else [..., *draw_tail(draw, shape, parts)]
    return parts[0] if len(parts) == 1 and draw(st.booleans()) else tuple(parts)


def draw_tail(draw, shape, parts):
    """Keep only parts that fit the last axes whatever they are: slices and new axes."""
    fitting = [p for p in parts if isinstance(p, slice) or p is None]
    return [*fitting, draw(slices(shape[-1]))] if shape and not fitting else fitting


def mask_index(draw, shape, rng):
    """A boolean mask over the first one or two axes, perhaps with a slice behind it."""
    over = draw(st.integers(1, min(2, len(shape))))
    mask = rng.random(shape[:over]) < 0.6
    if over < len(shape) and draw(st.booleans()):
        return mask, draw(slices(shape[over]))
    return mask


def plain(index):
    """The same index for NumPy."""
    if isinstance(index, tuple):
        return tuple(plain(part) for part in index)
    return index.numpy() if isinstance(index, mg.Tensor) else index


@spec("getitem")
def getitem_case(draw):
    shape = draw(shapes())
    index = draw(indices(shape))
    return Case(
        lambda x: F.getitem(x, index),
        lambda x: np.array(x[plain(index)]),
        draw_inputs(draw, shape),
        f"x[{index}]",
    )


@spec("embedding")
def embedding_case(draw):
    count, features = draw(st.integers(1, 5)), draw(st.integers(0, 3))
    wanted = draw(shapes(most=2))
    rows = np.random.default_rng(draw(SEEDS)).integers(0, count, size=wanted)
    given = draw(st.sampled_from([rows, mg.Tensor(rows), rows.astype(np.uint8)]))

    def reference(weight):
        one_hot = (rows[..., None] == np.arange(count)).astype(float)
        return one_hot @ weight

    return Case(
        lambda weight: F.embedding(given, weight),
        reference,
        draw_inputs(draw, (count, features)),
        f"embedding {wanted}",
    )


def paste(pieces, axis):
    """Concatenate by hand: an empty array, and each piece written to its place."""
    sides = list(pieces[0].shape)
    sides[axis] = sum(p.shape[axis] for p in pieces)
    y, start = np.empty(sides), 0
    for p in pieces:
        np.moveaxis(y, axis, 0)[start : start + p.shape[axis]] = np.moveaxis(p, axis, 0)
        start += p.shape[axis]
    return y


@spec("concatenate")
def concatenate_case(draw):
    shape = draw(shapes(least=1))
    axis = draw(one_axis(len(shape)))
    sizes = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    pieces = []
    for n in sizes:
        sides = list(shape)
        sides[axis] = n
        pieces.append(tuple(sides))
    return Case(
        lambda *xs: F.concatenate(xs, axis),
        lambda *xs: paste(xs, axis),
        draw_inputs(draw, *pieces),
        f"concatenate axis={axis}",
    )


@spec("stack")
def stack_case(draw):
    shape = draw(shapes())
    axis = draw(one_axis(len(shape) + 1))
    count = draw(st.integers(1, 3))
    return Case(
        lambda *xs: F.stack(xs, axis),
        lambda *xs: paste([np.expand_dims(x, axis) for x in xs], axis),
        draw_inputs(draw, *[shape] * count),
        f"stack axis={axis}",
    )


@spec("pad")
def pad_case(draw):
    shape = draw(shapes())
    mode = draw(st.sampled_from(["constant", "reflect"]))
    most = [2 if mode == "constant" else max(0, n - 1) for n in shape]
    widths = [(draw(st.integers(0, m)), draw(st.integers(0, m))) for m in most]
    value = draw(st.sampled_from([0.0, -2, 1.5])) if mode == "constant" else 0.0

    def reference(x):
        options = {"constant_values": value} if mode == "constant" else {}
        return np.pad(x, widths or 0, mode=mode, **options)

    return Case(
        lambda x: F.pad(x, widths, mode, value),
        reference,
        draw_inputs(draw, shape),
        f"pad {widths} {mode} {value}",
    )
