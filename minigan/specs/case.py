"""A case is one way to call a function; a specification draws cases; the registry has them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from minigan.backend import generator
from minigan.gradcheck import STEP
from minigan.specs.choices import Choices, from_seed, strategy
from minigan.tensor import Tensor


@dataclass(frozen=True)
class Case:
    """One way to call a function.

    Attributes:
        call: tensors in, tensor out; deterministic.
        reference: the same for float64 arrays, by NumPy and SciPy alone.
        inputs: float64 arrays, some of them in odd memory layouts, away from kinks.
        note: the structure, for the report of a failure.
        options: what `call` passes besides the tensors.
        step: the distance between the points of a difference.
        name: the specification it comes from.
        seed: of cotangents and directions.
        example: the number it was drawn by, if `Spec.example` drew it.
    """

    call: Callable[..., Tensor]
    reference: Callable[..., np.ndarray]
    inputs: tuple[np.ndarray, ...]
    note: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    step: float = STEP
    name: str = ""
    seed: int = 0
    example: int | None = None

    def __repr__(self) -> str:
        shapes = ", ".join(str(a.shape) for a in self.inputs)
        return f"Case({self.name}: {self.note}; shapes {shapes}; seed {self.seed})"


@dataclass(frozen=True)
class Spec:
    """The specification of one function, op, layer, loss or network.

    Attributes:
        name: "conv2d", "ops.SumTo", "nn.Conv2d", "losses.mse", ...
        kind: "function", "op", "layer", "loss" or "composite".
        build: makes a case from choices.
    """

    name: str
    kind: str
    build: Callable[[Choices], Case]

    def draw(self, choose: Choices) -> Case:
        """Return the case that these choices lead to; the host generator stays as it is."""
        stream = generator().bit_generator
        before = stream.state
        try:
            case = self.build(choose)  # layers draw initial weights
        finally:
            stream.state = before
        return replace(case, name=self.name, seed=choose.seed())

    def example(self, number: int) -> Case:
        """Return a case by its number; the same number gives the same case."""
        return replace(self.draw(from_seed(number)), example=number)

    @cached_property
    def cases(self) -> Any:
        """A hypothesis strategy for cases; ImportError says how to get hypothesis."""
        return strategy(self.draw)


REGISTRY: dict[str, Spec] = {}


def spec(name: str, kind: str = "function") -> Callable[[Callable], Callable]:
    """Register a function of `Choices` that returns a `Case`."""

    def register(build: Callable[[Choices], Case]) -> Callable[[Choices], Case]:
        if name in REGISTRY:
            raise ValueError(f"spec: there is one for {name} already")
        REGISTRY[name] = Spec(name, kind, build)
        return build

    return register
