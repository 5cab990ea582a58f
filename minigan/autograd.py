"""Floor 1: tensors, operations, and the graph that derivatives are read from.

An `Op` computes arrays from arrays. While recording it also becomes a node of the graph: it keeps
what its derivative will read, and edges to the nodes that made its inputs. Edges run from node to
node (or to a leaf tensor) and no node refers to its own output, so a tensor that nobody holds dies
at once, and the whole graph dies with the loss. There are no reference cycles to collect.

`Op.backward` is written with tensors. So it can be recorded like any other computation, and a
derivative of a derivative needs no second mechanism.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

from minigan import backend as backends
from minigan.tensor import Tensor, Version, check_finite, cotangent_of, mode, switched
from minigan.workers import claim

OUT = -1  # for Op.save: the op's own output


class Op:
    """One differentiable operation, and its node in the graph.

    A subclass writes `forward(*arrays) -> array` and `backward(gy) -> Tensor or tuple`, one
    gradient (or None) for each input. Keyword arguments of the constructor become attributes.
    Calling the op with tensors computes. In the bodies:

        self.xp        the array module to compute with; `self.backend` for its special functions
        self.shapes    the shapes of the inputs
        self.needs     for each input, whether somebody wants its gradient
        self.save(...) from forward: the inputs (by position) or OUT that backward will read
        self.saved()   from backward: those, as tensors that carry their own history

    What depends smoothly on an input must come from `saved()`, or the second derivative is wrong;
    masks, indices and shapes may be kept as plain attributes.

    A subclass may also give `fused_backward(gy_array) -> array or tuple`, a quicker way to the
    numbers of `backward`. It runs when the gradient itself is not being recorded.

    And it may set `work` in forward: how many multiplications a gradient takes. That is a promise
    that backward makes each by itself, as `needs` says, and as a new array: not gy, nor a view of
    it or of what was kept, for other gradients are added to it, and takes no lock. Those of leaves
    are then left to other threads, if they are worth it, and handed over without a copy.
    """

    view = False  # whether the output may share memory with input 0
    changes_dtype = False
    work = 0
    order: int  # position in time: a node is younger than all of its parents

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)
        self._keep: tuple[int, ...] = ()
        self._saved: tuple | None = ()

    @classmethod
    @cache  # asked for at every call
    def name(cls) -> str:
        """Return the op's name as users call it: Conv2d -> conv2d, LogSoftmax -> log_softmax."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()

    def forward(self, *arrays: Any) -> Any:
        raise NotImplementedError(f"{self.name()}: forward is not written")

    def backward(self, gy: Tensor) -> Any:
        raise NotImplementedError(f"{self.name()}: backward is not written")

    def save(self, *positions: int) -> None:
        """Keep these inputs, or OUT, for `saved()`."""
        self._keep = positions

    def saved(self) -> tuple[Tensor, ...]:
        """Return what `save` named, in its order.

        Raises:
            RuntimeError: one of them was changed in place since forward.
        """
        tensors = []
        for position, kept, version, then in self._saved:
            if version.value != then:
                what = "its output" if position == OUT else f"its input {position}"
                raise RuntimeError(
                    f"{self.name()}: {what}, which backward reads, was changed in place "
                    f"{version.value - then} time(s) after forward (a parameter stepped by an "
                    "optimiser between forward and backward?): run backward before the change, "
                    "or forward again after it"
                )
            tensors.append(
                Tensor._wrap(kept, self.backend, op=self, version=version)
                if position == OUT
                else kept
            )
        return tuple(tensors)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Compute, and record if an input wants a gradient.

        Raises:
            DeviceError: inputs on different devices.
            TypeError: float32 mixed with float64, or a type the engine does not compute in.
            RuntimeError: this op was called before, and is a node of the graph already.
        """
        if "order" in self.__dict__:
            raise RuntimeError(f"{self.name()}: an op is one node: make a new one for each call")
        self.backend = _common_backend(self, inputs)
        self.xp = self.backend.xp
        self.dtype = dtype = _common_dtype(self, inputs)
        self.shapes = tuple(t.shape for t in inputs)
        recording = mode.recording
        self.needs = tuple(recording and t.requires_grad for t in inputs)
        output = self.xp.asarray(self.forward(*(t.data for t in inputs)))
        if output.dtype != dtype and not self.changes_dtype:
            raise TypeError(f"{self.name()}: forward made {output.dtype} from {dtype}")
        if mode.anomaly:
            check_finite(self, output, "forward", [t.data for t in inputs])
        version = Version()
        if self.view and self.xp.may_share_memory(output, inputs[0].data):
            version = inputs[0]._version
        if not any(self.needs):
            return Tensor._wrap(output, self.backend, version=version)
        self.parents = tuple(
            (t._op or t) if need else None for t, need in zip(inputs, self.needs, strict=True)
        )
        ages = [parent.order for parent in self.parents if isinstance(parent, Op)]
        self.order = max([mode.tick(), *(age + 1 for age in ages)])  # clocks may differ
        self._saved = tuple(
            (i, output, version, version.value)
            if i == OUT
            else (i, inputs[i], inputs[i]._version, inputs[i]._version.value)
            for i in self._keep
        )
        return Tensor._wrap(output, self.backend, op=self, version=version)

    def free(self) -> None:
        """Drop what was kept and the edges; a second backward through here is then an error."""
        for key in list(self.__dict__):
            if key not in ("order", "shapes"):
                del self.__dict__[key]
        self._saved = None

    def __repr__(self) -> str:
        return f"<{self.name()} {self.shapes}>"


def _common_backend(op: Op, inputs: Sequence[Tensor]) -> backends.Backend:
    for i, t in enumerate(inputs):
        if not isinstance(t, Tensor):
            raise TypeError(
                f"{op.name()}: operand {i} is a {type(t).__name__}, not a Tensor: use mg.tensor()"
            )
    first = inputs[0].backend
    if any(t.backend is not first for t in inputs):
        places = ", ".join(f"operand {i} {t.shape} on {t.device}" for i, t in enumerate(inputs))
        raise backends.DeviceError(
            f"{op.name()}: operands are on different devices ({places}): move one with .to(device)"
        )
    return first


def _common_dtype(op: Op, inputs: Sequence[Tensor]) -> Any:
    dtype = inputs[0].dtype
    if any(t.dtype != dtype for t in inputs):
        types = ", ".join(f"operand {i} {t.shape} is {t.dtype}" for i, t in enumerate(inputs))
        raise TypeError(f"{op.name()}: {types}: convert one with .astype(dtype)")
    if not (op.changes_dtype or op.view):  # whole numbers can be moved about, not computed with
        backends.check_float(dtype, op.name())
    return dtype


class _Sum:
    """The gradient gathered so far for one edge; only an array of our own is summed into."""

    __slots__ = ("edge", "owned", "value")

    def __init__(self, edge: Op | Tensor) -> None:
        self.edge, self.value, self.owned = edge, None, False

    def add(self, gradient: Tensor, recording: bool, fresh: bool = False) -> None:
        """`fresh`: nobody else holds the gradient's array, unless it is recorded."""
        if self.value is None:
            self.value, self.owned = gradient, fresh
        elif recording:
            self.value = self.value + gradient
        elif self.owned:
            self.value.data += gradient.data
        elif fresh:
            gradient.data += self.value.data
            self.value, self.owned = gradient, True
        else:
            total = gradient.backend.xp.asarray(self.value.data + gradient.data)
            self.value, self.owned = Tensor._wrap(total, gradient.backend), True

    def take(self) -> Any:
        """Return the gradient as an array that nobody else holds, its numbers side by side."""
        array = self.value.data
        owned = self.owned and array.flags.c_contiguous
        self.owned = False
        return array if owned else array.copy()


def _ancestors(roots: Sequence[Op | Tensor]) -> list[Op]:
    """Return every op from which `roots` were computed, oldest first."""
    found: dict[int, Op] = {}
    stack = [edge for edge in roots if isinstance(edge, Op)]
    while stack:
        op = stack.pop()
        if id(op) in found:
            continue
        if op._saved is None:
            raise RuntimeError(
                f"backward: the graph through {op.name()} {op.shapes} was freed by an earlier "
                "backward: compute the output again, or pass retain_graph=True the first time"
            )
        found[id(op)] = op
        stack.extend(parent for parent in op.parents if isinstance(parent, Op))
    return sorted(found.values(), key=lambda op: op.order)


def _walk(
    roots: Sequence[tuple[Op | Tensor, Tensor]],
    wanted: dict[int, Op | Tensor] | None,
    create_graph: bool,
    retain_graph: bool,
) -> dict[int, _Sum]:
    """Carry gradients from `roots` down to `wanted` edges (all leaves for None).

    The youngest op goes first, so that every contribution to an op is in before it is passed on.
    No op waits for the gradient of a leaf, so the large ones are made meanwhile by other threads.
    """
    if not roots:
        return {}
    ops = _ancestors([edge for edge, _ in roots])
    useful: dict[int, tuple[bool, ...]] = {}  # op -> which inputs lead to a wanted edge
    for op in ops:  # oldest first: parents are decided before their children
        useful[id(op)] = tuple(
            parent is not None
            and (
                (not isinstance(parent, Op) if wanted is None else id(parent) in wanted)
                or any(useful.get(id(parent), ()))
            )
            for parent in op.parents
        )
        if any(useful[id(op)]):  # the others are neither run nor freed
            claim("the graph that backward walks", op)
    sums: dict[int, _Sum] = {}
    results: dict[int, _Sum] = {}

    def send(edge: Op | Tensor, gradient: Tensor, fresh: bool = False) -> None:
        sums.setdefault(id(edge), _Sum(edge)).add(gradient, create_graph, fresh)

    late_sums: dict[int, _Sum] = {}  # apart, so that the order does not depend on when they come

    def receive(late: list[list[tuple[Op | Tensor, Tensor]]]) -> None:
        for leaf, gradient in itertools.chain(*late):
            late_sums.setdefault(id(leaf), _Sum(leaf)).add(gradient, recording=False, fresh=True)

    with roots[0][1].backend.postponed() as later, switched("recording", create_graph):
        for edge, gradient in roots:
            send(edge, gradient)
        while ops:
            op = ops.pop()  # the youngest, and with it goes the last hold on what it kept
            gathered = sums.pop(id(op), None)
            if gathered is None:
                continue
            if wanted is not None and id(op) in wanted:
                results[id(op)] = gathered
            gy, now, late = gathered.value, useful[id(op)], ()
            if not create_graph and not mode.anomaly and later.accepts(op.work):
                now, late = _apart(op, now)
            if any(now):
                for parent, gradient in _gradients_of(op, gy, now, create_graph):
                    send(parent, gradient, fresh=op.work > 0)  # as it promises
            if any(late):
                later(partial(_gradients_of_leaves, op, gy, late, retain_graph))
                receive(later.take())
            elif any(now) and not retain_graph:
                op.free()
        receive(later.rest())
        for gathered in late_sums.values():
            send(gathered.edge, gathered.value, fresh=True)
    return results | sums


def _apart(op: Op, needs: tuple[bool, ...]) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """Return which gradients the walk goes on with, and which nobody reads before its end."""
    late = tuple(n and isinstance(p, Tensor) for n, p in zip(needs, op.parents, strict=True))
    return tuple(n and not waits for n, waits in zip(needs, late, strict=True)), late


def _gradients_of_leaves(
    op: Op, gy: Tensor, needs: tuple[bool, ...], retain_graph: bool
) -> list[tuple[Op | Tensor, Tensor]]:
    """Run the rest of an op's backward, perhaps on another thread, and be done with it."""
    pairs = _gradients_of(op, gy, needs, create_graph=False)
    if not retain_graph:
        op.free()
    return pairs


def _gradients_of(
    op: Op, gy: Tensor, needs: tuple[bool, ...], create_graph: bool
) -> list[tuple[Op | Tensor, Tensor]]:
    """Run one op's backward and check what it returns."""
    op.needs = needs
    if hasattr(op, "fused_backward") and not create_graph:
        arrays = op.fused_backward(gy.data)
        arrays = arrays if isinstance(arrays, tuple) else (arrays,)
        gradients = tuple(
            None if a is None else Tensor._wrap(op.xp.asarray(a), op.backend) for a in arrays
        )
    else:  # anomalies are looked for below, in the name of this op and not of those it uses
        with switched("anomaly", False), switched("recording", create_graph):  # of this thread
            gradients = op.backward(gy)
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    if len(gradients) != len(op.parents):
        raise RuntimeError(
            f"{op.name()}: backward gave {len(gradients)} gradients for {len(op.parents)} input(s)"
        )
    pairs = []
    for i, (parent, gradient) in enumerate(zip(op.parents, gradients, strict=True)):
        if not needs[i]:
            continue
        is_tensor = isinstance(gradient, Tensor)
        if not is_tensor or gradient.shape != op.shapes[i] or gradient.dtype != op.dtype:
            other = "nothing" if gradient is None else f"a {type(gradient).__name__}"
            got = f"{gradient.shape} {gradient.dtype}" if is_tensor else other
            raise RuntimeError(
                f"{op.name()}: backward gave {got} for input {i} of shape {op.shapes[i]} {op.dtype}"
            )
        if mode.anomaly:
            check_finite(op, gradient.data, "backward", [gy.data])
        pairs.append((parent, gradient))
    return pairs


def backward(output: Tensor, gradient: Any = None, retain_graph: bool = False) -> None:
    """Add d output / d leaf, times `gradient`, to `.grad` of every leaf that requires it.

    Args:
        output: a tensor that was computed from such leaves.
        gradient: the cotangent, an array or tensor of output's shape; 1 for a scalar.
        retain_graph: keep the graph for another backward.

    Raises:
        RuntimeError: nothing to differentiate, the graph was freed, or a saved array was changed.
        TypeError: a cotangent of another type or device.
        ValueError: a cotangent of another shape, or none for an output that is no scalar.
    """
    root = _root_of(output, "backward")
    seed = cotangent_of(output, gradient, "backward")
    for gathered in _walk([(root, seed)], None, False, retain_graph).values():
        leaf = gathered.edge
        claim("the .grad of one tensor", leaf)
        if leaf.grad is None:
            leaf.grad = gathered.take()
        else:
            leaf.grad += gathered.value.data


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of `outputs` with respect to `inputs`, as tensors of inputs' shapes.

    Only paths that lead to `inputs` are walked, and no `.grad` is touched.

    Args:
        outputs: one or several tensors.
        inputs: one or several tensors, leaves or not.
        grad_outputs: the cotangents, one for each output; 1 for scalars.
        create_graph: record the computation, so that the result can be differentiated again.
        retain_graph: keep the graph of `outputs`; by default as `create_graph`.
        allow_unused: give None for an input that the outputs do not depend on.

    Raises:
        RuntimeError: as `backward`, or an input that the outputs do not depend on.
        TypeError, ValueError: as `backward`.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if grad_outputs is None or not isinstance(grad_outputs, (list, tuple)):
        grad_outputs = [grad_outputs] * len(outputs)
    if len(grad_outputs) != len(outputs):
        raise ValueError(f"grad: {len(outputs)} outputs but {len(grad_outputs)} grad_outputs")
    roots = [
        (_root_of(output, "grad"), cotangent_of(output, cotangent, "grad"))
        for output, cotangent in zip(outputs, grad_outputs, strict=True)
    ]
    for i, tensor in enumerate(inputs):
        if not tensor.requires_grad:
            raise RuntimeError(f"grad: input {i} {tensor.shape} does not require a gradient")
    wanted = {id(edge): edge for edge in (t._op or t for t in inputs)}
    retain_graph = create_graph if retain_graph is None else retain_graph
    results = _walk(roots, wanted, create_graph, retain_graph)
    gradients = []
    for i, tensor in enumerate(inputs):
        gathered = results.get(id(tensor._op or tensor))
        if gathered is None and not allow_unused:
            raise RuntimeError(
                f"grad: the outputs do not depend on input {i} {tensor.shape}: "
                "check the inputs, or pass allow_unused=True to get None"
            )
        if gathered is None or create_graph:
            gradients.append(gathered and gathered.value)
        else:
            gradients.append(Tensor._wrap(gathered.take(), tensor.backend))
    return tuple(gradients)


def _root_of(output: Tensor, who: str) -> Op | Tensor:
    if not output.requires_grad:
        raise RuntimeError(
            f"{who}: the output {output.shape} does not depend on anything that requires a "
            "gradient (was it computed under no_grad, or from detached tensors?)"
        )
    return output._op or output


Tensor.backward = backward
