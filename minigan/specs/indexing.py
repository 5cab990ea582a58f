"""The specification of indexing: every kind of index that NumPy has, repeats among them."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan import functional as F
from minigan.specs.case import Case, spec
from minigan.specs.choices import Choices
from minigan.specs.values import Shape, draw_inputs, shapes
from minigan.tensor import Tensor


def some_slice(choose: Choices, n: int) -> slice:
    """Return a slice of an axis of size n: any start, stop and step, some of them empty."""

    def end() -> int | None:
        return None if choose.yes() else choose.integer(-n - 1, n + 1)

    return slice(end(), end(), choose.of(None, 1, 2, -1, -2))


def some_index(choose: Choices, shape: Shape) -> Any:
    """Return an index of an array of this shape.

    Arrays of integers repeat and count from either end; all of them broadcast together.
    """
    rng = np.random.default_rng(choose.seed())
    if shape and choose.yes(5):
        return some_mask(choose, shape, rng)
    together = choose.of((5,), (1,), (2, 3), (0,))
    parts: list[Any] = []
    for n in shape[: choose.integer(0, len(shape))]:
        kind = choose.of("slice", "array", "integer", "list", "tensor")
        if kind == "slice" or n == 0:
            parts.append(some_slice(choose, n))
        elif kind == "integer":
            parts.append(int(rng.integers(-n, n)))
        else:
            array = rng.integers(-n, n, size=together)
            as_kind = {"list": np.ndarray.tolist, "tensor": Tensor, "array": np.asarray}
            parts.append(as_kind[kind](array) if array.size else array)
    if choose.yes(3):
        parts.insert(choose.integer(0, len(parts)), None)
    if choose.yes(3):  # an ellipsis: what stands behind it counts from the end
        parts = [*parts, ...] if choose.yes() else [..., *_tail(choose, shape, parts)]
    return parts[0] if len(parts) == 1 and choose.yes() else tuple(parts)


def _tail(choose: Choices, shape: Shape, parts: list[Any]) -> list[Any]:
    """Keep only parts that fit the last axes whatever they are: slices and new axes."""
    fitting = [p for p in parts if isinstance(p, slice) or p is None]
    return [*fitting, some_slice(choose, shape[-1])] if shape and not fitting else fitting


def some_mask(choose: Choices, shape: Shape, rng: np.random.Generator) -> Any:
    """Return a boolean mask over the first one or two axes, perhaps with a slice behind it."""
    over = choose.integer(1, min(2, len(shape)))
    mask = rng.random(shape[:over]) < 0.6
    if over < len(shape) and choose.yes():
        return mask, some_slice(choose, shape[over])
    return mask


def plain(index: Any) -> Any:
    """Return the same index for NumPy."""
    if isinstance(index, tuple):
        return tuple(plain(part) for part in index)
    return index.numpy() if isinstance(index, Tensor) else index


@spec("getitem")
def getitem_case(choose: Choices) -> Case:
    """Slices, integers, arrays, lists, tensors, masks, new axes and ellipses."""
    shape = shapes(choose)
    index = some_index(choose, shape)
    return Case(
        lambda x: F.getitem(x, index),
        lambda x: np.array(x[plain(index)]),
        draw_inputs(choose, shape),
        f"x[{index}]",
    )


def rows_of(choose: Choices, count: int) -> tuple[np.ndarray, Any]:
    """Return row numbers below `count`, with repeats; as an array, and as somebody gives them."""
    rows = np.random.default_rng(choose.seed()).integers(0, count, size=shapes(choose, most=2))
    return rows, choose.of(rows, Tensor(rows), rows.astype(np.uint8))


def one_hot(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Look rows up by a product with a matrix of zeros and ones."""
    return (rows[..., None] == np.arange(len(weight))).astype(float) @ weight


@spec("embedding")
def embedding_case(choose: Choices) -> Case:
    """Rows in any order, any number of times."""
    count, features = choose.integer(1, 5), choose.of(2, 3, 1, 0)
    rows, given = rows_of(choose, count)
    return Case(
        lambda weight: F.embedding(given, weight),
        lambda weight: one_hot(rows, weight),
        draw_inputs(choose, (count, features)),
        f"rows {rows.shape}",
    )
