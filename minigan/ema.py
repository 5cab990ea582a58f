"""Floor 3: a slow copy of a network, whose weights are a running average of the trained one's.

A GAN's generator never settles; each step pushes it to and fro. The average of its last few
hundred steps makes better images than any of them (Yazıcı et al. 2019, "The unusual effectiveness
of averaging in GAN training").
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from minigan.nn.module import Module


class EMA:
    """A copy of `module` in evaluation mode, in `module`, that follows it slowly.

        average <- decay·average + (1 − decay)·weight

    Call `update()` after each step of the optimiser; the average follows to another device. Early
    on the decay is (1 + t) / (10 + t), as long as that is smaller, so that the random weights of
    the beginning are soon forgotten. Buffers (running means) are averages already, and are copied.

    Attributes:
        module: the averaged network; sample from this one.
        updates: how many there were.

    Raises:
        ValueError: a decay that is not in [0, 1).
    """

    def __init__(self, module: Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA: decay must be in [0, 1), got {decay}")
        self.decay, self.updates = decay, 0
        self._source = module
        self.module = copy.deepcopy(module).requires_grad_(False).eval()

    def update(self) -> None:
        """Move the averages a little way to where the weights are now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for average, p in zip(self.module.parameters(), self._source.parameters(), strict=True):
            average.to_(p.device)
            average.data += (1 - decay) * (p.data - average.data)
            average.bump_version()
        for copied, buffer in zip(self.module.buffers(), self._source.buffers(), strict=True):
            copied.to_(buffer.device)
            copied.data[...] = buffer.data
            copied.bump_version()

    def state_dict(self) -> dict[str, Any]:
        """Return the count of updates and the averaged network's state."""
        return {"updates": self.updates, "module": self.module.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state_dict; ValueError if it is of another network, nothing changes then."""
        if set(state) != {"updates", "module"}:
            raise ValueError(f"load_state_dict: EMA cannot take {sorted(state)}")
        if type(state["updates"]) is not int:
            raise ValueError(f"load_state_dict: EMA cannot take {state['updates']!r} updates")
        self.module.load_state_dict(state["module"])
        self.updates = int(state["updates"])
