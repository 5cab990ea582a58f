"""All that a run must remember to go on exactly: every part's state, and the random numbers'."""

from collections.abc import Mapping
from typing import Any, Protocol

from minigan import backend

from .checkpoint import load_checkpoint, save_checkpoint
from .run import Run, RunError


class Part(Protocol):
    """A network, an optimiser, a source of batches: whatever has a state to save."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def save(run: Run, parts: Mapping[str, Part], step: int) -> None:
    """Write the run's checkpoint after `step`; CheckpointError if the disk refuses."""
    state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
    state["random"] = backend.generator().bit_generator.state
    state["run"] = run.state(step)
    save_checkpoint(run.checkpoint, state)


def resume(run: Run, parts: Mapping[str, Part]) -> int:
    """Put everything back as `save` found it, and return the step it was saved after.

    Raises:
        CheckpointError: the file is damaged.
        RunError: it is of another run: other parts, or networks of another shape.
    """
    state = load_checkpoint(run.checkpoint)
    if set(state) != {*parts, "random", "run"}:
        raise RunError(f"{run.checkpoint} holds {sorted(state)}, not this script's parts")
    run.check_fits(state["run"])
    for name, part in parts.items():
        try:
            part.load_state_dict(state[name])
        except ValueError as error:
            raise RunError(f"{run.checkpoint}: {name} does not fit: {error}") from error
    backend.generator().bit_generator.state = state["random"]
    return run.restore(state["run"])
