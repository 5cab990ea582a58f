"""What a gradient must be besides right: the same every time, nobody else's, and of one mind.

Each check takes a case and raises AssertionError with what it found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minigan import backend as backends
from minigan import workers
from minigan.autograd import _ancestors, grad
from minigan.ops import down, few, norm, planes, strips, windows, winograd
from minigan.optim import SGD
from minigan.specs.case import Case
from minigan.specs.values import LAYOUTS, lay_out
from minigan.tensor import Tensor

AGREE = 1e-11  # how near two ways to compute the same gradient must come, in float64
SINGLE = 1e-4  # and how near float32 must come to float64
CONTIGUOUS = ("strided", "contiguous")  # names of two values in a message
WIDTHS = ("in float32", "in float64")

Arrays = Sequence[np.ndarray]


def host(array: Any) -> np.ndarray:
    """Return an array of any device as NumPy's."""
    return backends.of(array).to_host(array)


def run(case: Case, arrays: Arrays, dtype: Any = np.float64) -> tuple[list[Tensor], Tensor]:
    """Return leaves on these arrays, whatever their layout, and what the case makes of them."""
    leaves = [Tensor(a, dtype=dtype, requires_grad=True) for a in arrays]
    return leaves, case.call(*leaves)


def cotangent_for(case: Case, output: Tensor) -> np.ndarray:
    """Return a random cotangent of the output's shape and type."""
    normal = np.random.default_rng((case.seed, 7)).normal(size=output.shape)
    return np.asarray(normal, dtype=output.dtype)


def frozen(array: np.ndarray) -> np.ndarray:
    """Return a view that nobody can write into: an op that changes what it is given raises."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def backward(output: Tensor, leaves: list[Tensor], cotangent: Any) -> list[np.ndarray]:
    """Return what backward leaves in `.grad`, which is then empty again; the graph is kept."""
    if not output.requires_grad:
        return [np.zeros(leaf.shape, dtype=leaf.dtype) for leaf in leaves]
    output.backward(Tensor(frozen(cotangent), dtype=output.dtype), retain_graph=True)
    found = []
    for leaf in leaves:
        missing = np.zeros(leaf.shape, dtype=leaf.dtype)
        found.append(missing if leaf.grad is None else host(leaf.grad))
        leaf.grad = None
    return found


def recorded(output: Tensor, leaves: list[Tensor], cotangent: Any) -> list[np.ndarray]:
    """Return the gradients that can be differentiated again, as arrays."""
    if not output.requires_grad:
        return [np.zeros(leaf.shape, dtype=leaf.dtype) for leaf in leaves]
    v = Tensor(frozen(cotangent), dtype=output.dtype)
    found = grad(output, leaves, v, create_graph=True, allow_unused=True)
    return [
        np.zeros(leaf.shape, dtype=leaf.dtype) if g is None else g.numpy()
        for leaf, g in zip(leaves, found, strict=True)
    ]


def same(
    what: str,
    found: Arrays,
    expected: Arrays,
    share: float = 0.0,
    names: tuple[str, str] = ("found", "expected"),
    of: str = "input",
    first: int = 0,
) -> None:
    """Assert that gradients are equal, to the bit or up to a share of the largest number.

    Args:
        names: what the two are, for the message.
        of: what they are gradients of, or "output" for values.
        first: the number of the first of them.
    """
    for i, (g, e) in enumerate(zip(found, expected, strict=True), first):
        assert g.shape == e.shape, f"{what}: {of} {i} is {g.shape}, not {e.shape}"
        if share == 0.0 and g.tobytes() == e.tobytes():
            continue
        allowed = share * max(1.0, np.abs(e).max(initial=0))
        off = ~(np.abs(g - e) <= allowed) if share else g != e
        if not off.any():
            continue  # a zero of the other sign
        index = tuple(int(k) for k in np.argwhere(off)[0])
        raise AssertionError(
            f"{what}: {of} {i}, element {index}: {names[0]} {g[index]:.17g}, "
            f"{names[1]} {e[index]:.17g}; {off.sum()} of {off.size} differ"
        )


def check_forward(case: Case) -> None:
    """The value is what the definition says, of the right type, in float32 too."""
    single = [a.astype(np.float32) for a in case.inputs]
    for dtype, arrays, share in ((np.float64, case.inputs, 1e-12), (np.float32, single, 2e-5)):
        expected = np.asarray(case.reference(*(a.astype(np.float64) for a in arrays)))
        y = case.call(*(Tensor(a, dtype=dtype) for a in arrays))
        assert isinstance(y, Tensor), f"value: {type(y).__name__}, no Tensor"
        assert y.dtype == dtype, f"value: {y.dtype} from {np.dtype(dtype)}"
        names = ("the operation", "the reference")
        same(f"value in {np.dtype(dtype)}", [y.numpy()], [expected], share, names, "output")


def check_repeat(case: Case) -> None:
    """Two backward passes are equal to the bit, recorded or not.

    Even with one of the same function at another point in between, for what it leaves behind.
    """
    leaves, y = run(case, case.inputs)
    other_leaves, other = run(case, [np.flip(a) for a in case.inputs])
    v, w = cotangent_for(case, y), cotangent_for(case, other)
    for how in (backward, recorded):
        first = how(y, leaves, v)
        how(other, other_leaves, -w)
        same("the second backward", how(y, leaves, v), first, 0.0, ("second", "first"))


def check_linear(case: Case) -> None:
    """Backward of the sum of two cotangents is the sum of theirs.

    That finds numbers rounded to float32 on the way, too little for differences to see.
    """
    leaves, y = run(case, case.inputs)
    exact = not any(op.changes_dtype for op in _ancestors([y._op] if y._op else []))
    v = cotangent_for(case, y)
    w = np.asarray(np.random.default_rng((case.seed, 9)).normal(size=v.shape))
    for how in (backward, recorded):
        parts = zip(how(y, leaves, v), how(y, leaves, w), strict=True)
        found = how(y, leaves, np.asarray(v + w))
        names = ("of the sum", "sum of each alone")
        share = AGREE if exact else SINGLE
        same("backward of a sum of cotangents", found, [a + b for a, b in parts], share, names)


def check_zero(case: Case) -> None:
    """A zero cotangent gives exactly zero."""
    leaves, y = run(case, case.inputs)
    for how in (backward, recorded):
        found = how(y, leaves, np.zeros(y.shape))
        same("under a zero cotangent", found, [np.zeros(leaf.shape) for leaf in leaves])


def check_ownership(case: Case) -> None:
    """Gradients are arrays of their own, of the input's type; nothing given has changed."""
    for dtype in (np.float64, np.float32):
        arrays = [np.array(a, dtype=dtype) for a in case.inputs]
        leaves, y = run(case, arrays, dtype)
        if not y.requires_grad:
            return
        v = Tensor(cotangent_for(case, y), dtype=dtype)
        given = {f"input {i}": leaf.data for i, leaf in enumerate(leaves)}
        given |= {"the cotangent": v.data, "the output": y.data}
        before = {name: host(array).tobytes() for name, array in given.items()}
        grad(y, leaves, v, create_graph=True, allow_unused=True)
        y.backward(v, retain_graph=True)
        for name, array in given.items():
            assert host(array).tobytes() == before[name], f"backward changed {name}"
        taken = dict(given)
        for i, leaf in enumerate(leaves):
            _check_own(f"the gradient of input {i}", leaf, taken)
            taken[f"the gradient of input {i}"] = leaf.grad


def _check_own(what: str, leaf: Tensor, taken: dict[str, Any]) -> None:
    g = leaf.grad
    if g is None:
        return
    assert type(g) is leaf.backend.array_type, f"{what} is a {type(g).__name__}"
    assert g.shape == leaf.shape, f"{what} is {g.shape}, not {leaf.shape}"
    assert g.dtype == leaf.dtype, f"{what} is {g.dtype}, not {leaf.dtype}"
    assert getattr(g.flags, "writeable", True), f"{what} cannot be written to"
    for name, other in taken.items():
        assert not leaf.backend.xp.may_share_memory(g, other), f"{what} shares memory with {name}"


def check_accumulation(case: Case) -> None:
    """A second backward doubles `.grad`; so does a result that is used twice. Both to the bit."""
    leaves, y = run(case, case.inputs)
    if not y.requires_grad:
        return
    v = cotangent_for(case, y)
    doubled = [2 * g for g in backward(y, leaves, v)]
    for _ in "ab":
        y.backward(Tensor(v, dtype=np.float64), retain_graph=True)
    found = [np.zeros(leaf.shape) if leaf.grad is None else host(leaf.grad) for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    names = ("found", "twice that of one pass")
    same("after two backward passes", found, doubled, 0.0, names)
    same("with the output used twice", backward(y + y, leaves, v), doubled, AGREE, names)


def check_layouts(case: Case) -> None:
    """Strided inputs and cotangents give what contiguous ones give."""
    plain = [np.ascontiguousarray(a).reshape(a.shape) for a in case.inputs]
    transposed = [lay_out(a, "transposed") for a in plain]
    leaves, y = run(case, plain)
    v = cotangent_for(case, y)
    expected = backward(y, leaves, v)
    for what, arrays in (("other layouts", case.inputs), ("transposed layout", transposed)):
        other_leaves, other_y = run(case, arrays)
        found = backward(other_y, other_leaves, v)
        same(f"with inputs in {what}", found, expected, AGREE, CONTIGUOUS)
    rng = np.random.default_rng((case.seed, 8))
    for layout in ("transposed", rng.choice(LAYOUTS[1:]), "repeated"):
        strided = lay_out(v, layout)
        if layout == "repeated":
            expected = backward(y, leaves, np.array(strided))
        what = f"with a cotangent that is {layout}"
        found = backward(other_y, other_leaves, strided)
        same(what, found, expected, AGREE, CONTIGUOUS)
        found = recorded(other_y, other_leaves, strided)
        same(f"{what}, recorded", found, expected, AGREE, CONTIGUOUS)


def check_float32(case: Case) -> None:
    """float32 gradients are near those of the same numbers in float64; so is one from a cast."""
    single = [a.astype(np.float32) for a in case.inputs]
    leaves, y = run(case, [a.astype(np.float64) for a in single])
    v = cotangent_for(case, y).astype(np.float32)
    expected = backward(y, leaves, v.astype(np.float64))
    leaves, y = run(case, single, np.float32)
    for how in (backward, recorded):
        found = how(y, leaves, v)
        types = {str(g.dtype) for g in found}
        assert types == {"float32"}, f"gradients of float32 are {types}"
        same("in float32", found, expected, SINGLE, WIDTHS)
    leaves = [Tensor(a, dtype=np.float64, requires_grad=True) for a in single]
    y = case.call(*(leaf.astype(np.float32) for leaf in leaves))
    same("cast to float32", backward(y, leaves, v), expected, SINGLE, WIDTHS)


def check_fused_agrees(case: Case) -> None:
    """Backward as it runs and backward as it is recorded (fused or not) agree."""
    leaves, y = run(case, case.inputs)
    v = cotangent_for(case, y)
    one, other = recorded(y, leaves, v), backward(y, leaves, v)
    what = "backward recorded (composed) and not recorded (fused, if the op has that) differ"
    same(what, one, other, AGREE, ("recorded", "not recorded"))


def check_each_alone(case: Case) -> None:
    """An input that alone requires a gradient gets the one that it gets among all."""
    leaves, y = run(case, case.inputs)
    v = cotangent_for(case, y)
    together = backward(y, leaves, v)
    for i, expected in enumerate(together if len(together) > 1 else []):
        alone = [Tensor(a, dtype=np.float64) for a in case.inputs]
        alone[i].requires_grad_()
        for how in (backward, recorded):
            found = how(case.call(*alone), [alone[i]], v)
            names = ("alone", "among all")
            same(f"input {i} alone", found, [expected], AGREE, names, first=i)
        others = [t for j, t in enumerate(alone) if j != i]
        assert all(t.grad is None for t in others), f"input {i} alone: others got gradients"


def check_pieces(case: Case) -> None:
    """Cut up as small as can be, an operation gives what it gives in one piece.

    The cases are far too small to be cut up otherwise, and the sums over pieces would go unseen.
    """
    leaves, y = run(case, case.inputs)
    v = cotangent_for(case, y)
    whole, gradients = host(y.data), backward(y, leaves, v)
    for how in ("in pieces", "in planes", "in strips", "by schemes", "in pairs", "few pixels"):
        with small_pieces(how):
            leaves, y = run(case, case.inputs)
            found = [backward(y, leaves, v), recorded(y, leaves, v)]
        names = (how, "in one")
        same("in pieces", [host(y.data)], [whole], AGREE, names, of="output")
        for gradient in found:
            same("in pieces", gradient, gradients, AGREE, names)


@contextmanager
def small_pieces(how: str) -> Iterator[None]:
    """Within the context one row of columns, or one number of a block, is a piece.

    A convolution of few channels, as all cases are, goes the plain way then, and plane by plane "in
    planes". "in strips" it goes strip by strip, "by schemes" with fewer products, as "in pairs" of
    lines, and with "few pixels" a row of the kernel is a piece.
    """
    by_schemes = how in ("by schemes", "in pairs")
    changed = {
        (workers, "BLOCK"): 1,
        (norm, "WIDE"): 1,
        (workers, "PIECE_WORK"): 1,
        (workers, "HANDING_OVER"): 1,
        (windows, "PIECE_ROWS"): 1,
        (strips, "PIECE_WORK"): 1,
        (strips, "MANY"): 1,
        (few, "FEW"): 1 << 30 if how == "few pixels" else 0,
        (few, "SHARED_WORK"): 1,
        (strips, "LONG"): strips.LONG if how in ("in pieces", "in planes") else 1,
        (planes, "MOST"): planes.MOST if how == "in planes" else 0,
        (winograd, "PART"): 1,
        (winograd, "ENOUGH"): 1 if by_schemes else winograd.ENOUGH,
        (winograd, "WASTE"): 0 if how == "in pairs" else winograd.WASTE,
        (down, "WIDE"): 1 if how == "in pairs" else down.WIDE,
        (backends.Host, "column_bytes"): 1,
    }
    before = {(owner, name): getattr(owner, name) for owner, name in changed}
    try:
        for (owner, name), value in changed.items():
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name), value in before.items():
            setattr(owner, name, value)


def check_used_twice(case: Case) -> None:
    """One tensor given as two inputs gets the sum of what two equal tensors get."""
    for j, b in enumerate(case.inputs):
        for i, a in enumerate(case.inputs[:j]):
            if a.shape != b.shape:
                continue
            arrays = [a if k == j else x for k, x in enumerate(case.inputs)]
            leaves, y = run(case, arrays)
            v = cotangent_for(case, y)
            apart = backward(y, leaves, v)
            same_leaf = [leaves[i] if k == j else leaf for k, leaf in enumerate(leaves)]
            found = backward(case.call(*same_leaf), [leaves[i]], v)
            names = ("one tensor", "sum of two equal ones")
            what = f"one tensor as inputs {i} and {j}"
            same(what, found, [apart[i] + apart[j]], AGREE, names, first=i)
            return


def check_stale(case: Case) -> None:
    """After an optimiser has stepped an input, backward refuses, or does not read what it saved.

    Recorded or not. A gradient from numbers of before and of after the step would be of nothing.
    """
    for how in (backward, recorded):
        leaves, y = run(case, [np.array(a) for a in case.inputs])
        v = cotangent_for(case, y)
        before = how(y, leaves, v)
        for leaf in leaves:
            leaf.grad = leaf.backend.xp.ones(leaf.shape, leaf.dtype)
        SGD(leaves, lr=0.5).step()
        for leaf in leaves:
            leaf.grad = None
        try:
            after = how(y, leaves, v)
        except RuntimeError as error:
            if "changed in place" not in str(error):
                raise
            continue
        same("after an optimiser's step", after, before, 0.0, ("after", "before"))
