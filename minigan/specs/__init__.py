"""What every operation, layer and loss should compute, and the check of all their derivatives.

    REGISTRY["conv2d"]             the specification of `F.conv2d`, a `Spec`
    REGISTRY["conv2d"].example(7)  a way to call it, a `Case`, always the same for 7
    check(case, order=2)           everything that is checked about it; raises GradcheckError

There is an entry for every function of `minigan.functional` (under its name), for every op that
only other ops use ("ops.SumTo"), for every layer ("nn.Conv2d"), for every loss ("losses.mse"), and
for a few networks made of them. An entry draws the structure of a case (shapes, axes, strides,
layouts in memory) and a seed; the numbers come from the seed. It needs a reference for the forward
value and none for the derivatives: those are compared with finite differences.

`python -m minigan.gradcheck` runs all of it. In the tests hypothesis draws the structure
(`Spec.cases`), so that a failure is shrunk to its smallest; nothing else here needs hypothesis.
"""

from minigan.specs import (
    composites,
    elementwise,
    images,
    indexing,
    layers,
    losses,
    moving,
    norms,
    primitives,
    reductions,
)
from minigan.specs.case import REGISTRY, Case, Spec
from minigan.specs.check import PARTS, CheckResult, check, ops_of

__all__ = ["PARTS", "REGISTRY", "Case", "CheckResult", "Spec", "check", "ops_of"]

# Importing these filled the registry.
FAMILIES = (
    elementwise,
    reductions,
    moving,
    indexing,
    images,
    norms,
    primitives,
    layers,
    losses,
    composites,
)
