"""All that a run must remember to go on exactly: every part's state, and the random numbers'."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from minigan import backend

from .checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from .files import copy_file, set_aside
from .run import DivergenceError, Run
from .words import warn


class Part(Protocol):
    """A network, an optimiser, a source of batches: whatever has a state to save."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def save(
    run: Run,
    parts: Mapping[str, Part],
    step: int,
    keep: int = 2,
    best: Mapping[str, float] | None = None,
) -> None:
    """Write the run's checkpoint after `step`; the `keep` newest stay.

    They are checkpoint.npz, then checkpoint-1.npz and so on. `best` names a metric and its value
    now, {"mse": 0.03}: when it is the lowest of the run so far, the checkpoint stays as best.npz
    too.

    Raises:
        DivergenceError: a number in a part's state, or the metric, is not finite. Nothing is
            written then, so the checkpoints on disk are good ones.
        CheckpointError: the disk refuses.
    """
    state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
    for name, value in {**state, **(best or {})}.items():
        check_finite(step, name, value)
    lowest = {name: float(value) for name, value in (best or {}).items()}
    is_best = any(value < run.best.get(name, math.inf) for name, value in lowest.items())
    state["random"] = backend.generator().bit_generator.state
    try:
        state["run"] = run.state(step)
    except OSError as error:
        raise CheckpointError(run.checkpoint, "log", f"not saved: {error}") from error
    if is_best:
        state["run"]["best"] = {**lowest, "step": step}
    save_checkpoint(run.checkpoint, state, run.older(keep - 1))
    if is_best:
        _keep_best(run, run.checkpoint)
        run.best = state["run"]["best"]


def resume(run: Run, parts: Mapping[str, Part]) -> int:
    """Put everything back as `save` found it, and return the step it was saved after.

    When the newest checkpoint is damaged, an older good one is taken and stderr says so; the
    damaged one is renamed, not deleted. Whatever is raised, the parts are as they were before.

    Raises:
        CheckpointError: every checkpoint is damaged, or it does not fit these parts: something is
            missing, unexpected, or of another shape or type.
        RunError: it is of a run with other settings.
    """
    path, state, damaged = _load_newest(run)
    before = {name: part.state_dict() for name, part in parts.items()}
    random = backend.generator().bit_generator
    expected = {*before, "random", "run"}
    if set(state) != expected:
        missing, extra = sorted(expected - set(state)), sorted(set(state) - expected)
        raise CheckpointError(path, "parts", f"missing {missing}, unexpected {extra}")
    run.check_fits(state["run"], path)  # first: "--width 4, not 6" says more than shapes do
    for name in parts:
        _check_fit(path, name, before[name], state[name])
    _check_random(path, random, state["random"])
    try:
        for name, part in parts.items():
            try:
                part.load_state_dict(state[name])
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                raise CheckpointError(path, name, f"does not fit: {error}") from error
        step = run.restore(state["run"])
        if run.best.get("step") == step:  # saved, but perhaps killed before best.npz was renamed
            _keep_best(run, path)
        for file in damaged:
            warn(f"{file} is now {set_aside(file, 'damaged')}")
    except BaseException:  # all or nothing
        for name, part in parts.items():
            part.load_state_dict(before[name])
        raise
    random.state = state["random"]
    return step


def _keep_best(run: Run, path: Path) -> None:
    best = run.path("best.npz")
    try:
        copy_file(path, best)
    except OSError as error:
        raise CheckpointError(best, "writing", f"not saved: {error}") from error


def _load_newest(run: Run) -> tuple[Path, dict[str, Any], list[Path]]:
    """The newest good checkpoint, its state, and the damaged ones that are newer."""
    errors: list[CheckpointError] = []
    for path in run.checkpoints():
        try:
            state = load_checkpoint(path)
        except CheckpointError as error:
            errors.append(error)
            continue
        for error in errors:
            warn(f"{error}\n  GOING ON FROM THE OLDER {path}")
        return path, state, [error.path for error in errors if error.path.is_file()]
    raise errors[0]


def check_finite(step: int, name: str, value: object) -> None:
    """DivergenceError if a number anywhere in `value` is NaN or infinite."""
    if isinstance(value, dict):
        for key, inner in value.items():
            check_finite(step, f"{name}/{key}", inner)
    elif isinstance(value, (float, np.floating, np.ndarray)):
        wrong = np.size(value) - np.count_nonzero(np.isfinite(value))
        if wrong:
            raise DivergenceError(
                f"step {step}: {name} holds {wrong} numbers that are NaN or infinite, of "
                f"{np.size(value)}: training has diverged; the last good checkpoint is kept"
            )


def _check_fit(path: Path, name: str, own: object, saved: object) -> None:
    """CheckpointError unless `saved` has the names, shapes and types of `own`, all finite."""
    if isinstance(own, dict) and isinstance(saved, dict):
        for key in [*own, *saved]:
            if key not in saved or key not in own:
                what = "missing" if key not in saved else "unexpected: nothing here has that name"
                raise CheckpointError(path, f"{name}/{key}", what)
            _check_fit(path, f"{name}/{key}", own[key], saved[key])
        return
    if _kind(own) != _kind(saved) and own is not None and saved is not None:
        raise CheckpointError(path, name, f"is {_kind(saved)}, expected {_kind(own)}")
    if isinstance(saved, (float, np.ndarray)) and not np.isfinite(saved).all():
        raise CheckpointError(path, name, "holds numbers that are NaN or infinite")


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return f"list of {len(value)}" if isinstance(value, list) else type(value).__name__


def _check_random(path: Path, own: np.random.BitGenerator, saved: object) -> None:
    trial, reason = type(own)(), f"no state of {type(own).__name__}"
    try:
        trial.state = saved
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise CheckpointError(path, "random", f"{reason}: {error}") from error
    if trial.state != saved:
        raise CheckpointError(path, "random", f"{reason}: it changed when it was set")
