"""Everything that is checked about a case: its value, its derivatives, and what gradients must be.

`PARTS` names the checks; `check` runs them and says of a failure which case and which part it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from minigan import backend as backends
from minigan.autograd import Op, _ancestors, grad
from minigan.gradcheck import GradcheckError, KinkError
from minigan.gradcheck.differences import ROUNDING, Problem, bounded, compare, derivative, leaf
from minigan.specs import properties
from minigan.specs.case import Case
from minigan.tensor import Tensor

ROWS = 200  # of a Hessian, to say where it is not symmetric
SPARE = 2  # directions of a case that may be rejected for differences that disagree


@dataclass
class CheckResult:
    """What `check` found of a case that is right.

    Attributes:
        worst: the largest error of a derivative, as a share of what is allowed.
        rejected: how many random directions were, because differences disagreed.
        by_order: the largest error at each order.
    """

    worst: float = 0.0
    rejected: int = 0
    by_order: dict[int, float] = field(default_factory=dict)


class Failed(GradcheckError):
    """A case that is wrong.

    Attributes:
        case: the case.
        part: the name, in `PARTS`, of the check that found it.
        at_kink: whether differences disagreed among themselves, so that there is no verdict.
    """

    def __init__(
        self, case: Case, part: str, reason: Exception, order: int = 2, directions: int = 0
    ) -> None:
        self.case, self.part, self.at_kink = case, part, isinstance(reason, KinkError)
        kind = "" if isinstance(reason, AssertionError) else f"{type(reason).__name__}: "
        sizes = ", ".join(str(a.shape) for a in case.inputs)
        again = f"  seed of cotangents and directions: {case.seed}"
        if case.example is not None:
            command = f"python -m minigan.gradcheck --op {case.name} --seed {case.example}"
            again = f"  to run it again: {command} --examples 1"
            again += f" --order {order}" if order != 2 else ""
            again += f" --directions {directions}" if directions else ""
            device = backends._settings.device
            again += f" --device {device}" if device != "cpu" else ""
        super().__init__(
            f"{case.name}, {part}: {kind}{reason}\n"
            f"  case: {case.note or 'no options'}; inputs {sizes}\n{again}"
        )


def check(
    case: Case,
    order: int = 2,
    seed: int = 0,
    parts: Iterable[str] | None = None,
    explain: bool = True,
) -> CheckResult:
    """Check a case.

    Args:
        case: from `Spec.example` or `Spec.cases`.
        order: up to which order derivatives are compared with differences.
        seed: for other cotangents and directions than the case's own.
        parts: the names in `PARTS` to run; all by default.
        explain: whether a wrong gradient is located, which takes differences of every element.

    Raises:
        GradcheckError: something is wrong; names the case, the part, the input, the element, both
            values, and the command that runs it again. It has the attributes `case` and `part`.
    """
    case = replace(case, seed=case.seed + seed)
    result = CheckResult()
    for part in PARTS if parts is None else parts:
        run, level = PARTS[part], ORDERS.get(part, 0)
        if level > order:
            continue
        try:
            if level:
                worst, rejected = run(case, explain)
                result.by_order[level] = worst
                result.worst = max(result.worst, worst)
                result.rejected += rejected
            else:
                run(case)
        except Exception as error:
            raise Failed(case, part, error, order, seed) from error
    return result


def check_gradient(case: Case, explain: bool = True) -> tuple[float, int]:
    """Backward against differences of the value."""
    return _check_order(case, 1, explain)


def check_second_order(case: Case, explain: bool = True) -> tuple[float, int]:
    """Backward of (x, v) ↦ vᵀJ against its differences; and the Hessian must be symmetric."""
    found = _check_order(case, 2, explain)
    check_symmetry(case, explain)
    return found


def check_third_order(case: Case, explain: bool = True) -> tuple[float, int]:
    """One order more."""
    return _check_order(case, 3, explain)


def _check_order(case: Case, order: int, explain: bool) -> tuple[float, int]:
    random = np.random.default_rng((case.seed, order))
    function: Callable[..., Tensor] = case.call
    arrays = [np.array(a) for a in case.inputs]
    for _ in range(order - 1):
        cotangent = bounded(random, function(*map(leaf, arrays)).shape)
        function, arrays = derivative(function, len(arrays)), [*arrays, cotangent]
    cotangent = bounded(random, function(*map(leaf, arrays)).shape)
    problem = Problem(function, arrays, cotangent, order)
    return compare(problem, random, step=case.step, spare=SPARE, explain=explain)


def check_symmetry(case: Case, explain: bool = True) -> None:
    """⟨u, H w⟩ = ⟨w, H u⟩ for the Hessian H of x ↦ ⟨v, f(x)⟩ and random u, w.

    Bounded like differences: by how far the gradient moves along u.
    """
    random = np.random.default_rng((case.seed, 0))
    arrays = [np.array(a) for a in case.inputs]
    v = leaf(bounded(random, case.call(*map(leaf, arrays)).shape))
    gradient = derivative(case.call, len(arrays))

    def slopes(*xs: Tensor) -> Tensor:
        return gradient(*xs, v)

    u, w = ([bounded(random, a.shape) for a in arrays] for _ in "uw")
    flat_u, flat_w = (np.concatenate([d.ravel() for d in side]) for side in (u, w))
    moved = [
        slopes(*(leaf(a + t * d) for a, d in zip(arrays, u, strict=True))).numpy() * flat_w
        for t in (case.step, -case.step)
    ]
    allowed = 1e-8 * np.abs(moved[0] - moved[1]).sum() / (2 * case.step)
    allowed += ROUNDING * (np.abs(moved[0]).sum() + v.size + flat_u.size)
    hu, hw = (Problem(slopes, arrays, side).gradients() for side in (flat_u, flat_w))
    one, other = (
        sum(float((g * d).sum()) for g, d in zip(h, side, strict=True))
        for h, side in ((hw, u), (hu, w))
    )
    if not abs(one - other) <= allowed:
        where = _most_lopsided(slopes, arrays) if explain else ""
        raise GradcheckError(
            f"the Hessian is not symmetric:\n{where}  along random u and w: "
            f"⟨u, H w⟩ = {one:.12g}, ⟨w, H u⟩ = {other:.12g}"
        )


def _most_lopsided(slopes: Callable[..., Tensor], arrays: list[np.ndarray]) -> str:
    """Return the two elements whose two mixed second derivatives differ most.

    Of large inputs only ROWS elements, spread out.
    """
    names = [(i, tuple(map(int, k))) for i, a in enumerate(arrays) for k in np.ndindex(a.shape)]
    rows = np.linspace(0, len(names) - 1, min(len(names), ROWS)).astype(int)
    hessian = np.stack(
        [
            np.concatenate([g.ravel() for g in Problem(slopes, arrays, unit).gradients()])[rows]
            for unit in np.eye(len(names))[rows]
        ]
    )
    difference = np.abs(hessian - hessian.T)
    difference[np.isnan(difference)] = np.inf
    j, k = np.unravel_index(difference.argmax(), difference.shape)
    one, other = (f"input {i}, element {index}" for i, index in (names[rows[j]], names[rows[k]]))
    return (
        f"  worst: the gradient of {one}, has a slope of {hessian[j, k]:.10g} along {other};\n"
        f"  the gradient of {other}, has a slope of {hessian[k, j]:.10g} along {one}\n"
    )


PARTS: dict[str, Callable] = {
    "forward": properties.check_forward,
    "gradient": check_gradient,
    "fused_agrees": properties.check_fused_agrees,
    "second_order": check_second_order,
    "third_order": check_third_order,
    "repeat": properties.check_repeat,
    "zero": properties.check_zero,
    "linear": properties.check_linear,
    "ownership": properties.check_ownership,
    "accumulation": properties.check_accumulation,
    "layouts": properties.check_layouts,
    "float32": properties.check_float32,
    "each_alone": properties.check_each_alone,
    "used_twice": properties.check_used_twice,
    "pieces": properties.check_pieces,
    "stale": properties.check_stale,
}
ORDERS = {"gradient": 1, "second_order": 2, "third_order": 3}


def ops_of(case: Case) -> set[type[Op]]:
    """Return the classes of ops whose backward runs when derivatives up to the second are taken."""
    leaves = [Tensor(a, dtype=np.float64, requires_grad=True) for a in case.inputs]
    y = case.call(*leaves)
    if not y.requires_grad:
        return set()
    v = Tensor(np.ones(y.shape), dtype=np.float64, requires_grad=True)
    first = grad(y, leaves, v, create_graph=True, allow_unused=True)
    return _classes([y]) | _classes([g for g in first if g is not None])


def _classes(tensors: Sequence[Tensor]) -> set[type[Op]]:
    return {type(op) for op in _ancestors([t._op for t in tensors if t._op is not None])}
