"""A run directory: its configuration, log, checkpoint and metrics, and the count of its steps.

The training loop stays in the script:

    run = Run(args.out, vars(args), total_steps=args.steps, images_per_step=args.batch)
    for step in run.steps():
        ...
        run.log(step, d=d_loss.item(), g=g_loss.item())
        if run.due(step, every=200):
            save_checkpoint(run.checkpoint, {..., "run": run.state(step)})
    sys.exit(run.exit_code)
"""

import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .extras import import_extra
from .files import replace_file
from .signals import StopSignals

MAY_CHANGE = {"steps", "out", "resume", "device"}  # from one part of a run to the next


class RunError(Exception):
    """The run directory cannot be used as asked."""


class DivergenceError(Exception):
    """A logged number is not finite: training has diverged."""


class Run:
    """The directory `out` of one training run of `total_steps` steps.

    A new run moves the files of an earlier one into `out/previous-N`; with `resume` they stay, and
    there must be a checkpoint. `images_per_step` is for the rate on the progress bar. Raises
    RunError if `out` cannot be written, or holds files that are not a run's.
    """

    def __init__(
        self,
        out: str | os.PathLike,
        config: dict[str, Any],
        total_steps: int,
        images_per_step: int = 1,
        resume: bool = False,
    ) -> None:
        self.out, self.total_steps, self.images_per_step = Path(out), total_steps, images_per_step
        self.interrupted = False
        self._signals = StopSignals()
        self._decided = 0  # the last step for which `interrupted` was settled
        self._started: float | None = None
        self._seconds_before = 0.0
        self._lines: list[dict[str, float]] = []
        self._bar = None
        self.config = json.loads(json.dumps(config, default=_to_json))
        try:
            self._claim_directory(resume)
            if not resume:  # a resumed run writes its own once it is known to fit
                self._write_config()
        except OSError as error:
            raise RunError(f"cannot write to {self.out}: {error}; choose another --out") from error

    def path(self, name: str) -> Path:
        """Where the run's file `name` is."""
        return self.out / name

    @property
    def checkpoint(self) -> Path:
        """Where the run's checkpoint is."""
        return self.path("checkpoint.npz")

    def steps(self, first: int = 0) -> Iterator[int]:
        """Count first + 1, ..., total_steps behind a progress bar, until a signal asks to stop."""
        tqdm = import_extra("tqdm").tqdm
        total, quiet = self.total_steps, not sys.stderr.isatty()
        bar = tqdm(
            None, "training", total, initial=first, unit="step", mininterval=10 if quiet else 0.1
        )
        with StopSignals() as self._signals, bar as self._bar:
            self._started = time.perf_counter()
            try:
                for step in range(first + 1, total + 1):
                    yield step
                    bar.update()
                    if self.interrupted:
                        break
                    self.interrupted = bool(self._signals.received)
            finally:
                self._seconds_before, self._started, self._bar = self.seconds, None, None

    def due(self, step: int, every: int) -> bool:
        """Whether `step` is a multiple of `every`, the last step, or the one to stop after."""
        # Settled once a step: a signal between two questions must not get a yes to only one.
        if step != self._decided:
            self._decided, self.interrupted = step, bool(self._signals.received)
        return step % every == 0 or step == self.total_steps or self.interrupted

    @property
    def exit_code(self) -> int:
        """0, or after an interruption what a shell expects: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self._signals.received if self.interrupted else 0

    @property
    def seconds(self) -> float:
        """Wall-clock seconds inside `steps`, pictures and saving included, earlier parts too."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self._seconds_before + running

    def log(self, step: int, **numbers: float) -> None:
        """Append the numbers to log.jsonl and show them; DivergenceError if one is not finite."""
        line = {"step": step, **{name: float(number) for name, number in numbers.items()}}
        for name, number in line.items():
            if not math.isfinite(number):
                raise DivergenceError(
                    f"step {step}: {name} is {number}, training has diverged; "
                    "the last checkpoint is kept (a lower learning rate often helps)"
                )
        with open(self.path("log.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._lines.append(line)
        if self._bar is not None:
            images = self.images_per_step * (step - self._bar.initial)
            rate = images / (time.perf_counter() - self._started)
            words = [f"{name} {number:#.3g}" for name, number in list(line.items())[1:]]
            self._bar.set_postfix_str(", ".join([f"{rate:.0f} images/s", *words]), refresh=False)

    def history(self) -> dict[str, tuple[list[int], list[float]]]:
        """For every logged name its (steps, values), earlier parts of a resumed run included."""
        curves: dict[str, tuple[list[int], list[float]]] = {}
        for line in self._lines:
            for name, number in list(line.items())[1:]:  # all but "step"
                steps, values = curves.setdefault(name, ([], []))
                steps.append(line["step"])
                values.append(number)
        return curves

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write metrics.json; ValueError for a number that is not finite, as JSON has none."""
        self._write_json("metrics.json", metrics)

    def state(self, step: int) -> dict[str, Any]:
        """What `restore` needs, to be saved in the checkpoint made after `step`."""
        kept = {name: value for name, value in self.config.items() if name not in MAY_CHANGE}
        return {"step": step, "seconds": self.seconds, "config": kept}

    def check_fits(self, state: dict[str, Any]) -> None:
        """Raise RunError if `state` is of a run with other settings, or longer than this one."""
        changed = [
            f"--{name} {value}, not {self.config.get(name)}"
            for name, value in state["config"].items()
            if value != self.config.get(name)
        ]
        if changed:
            raise RunError(f"{self.checkpoint} was made with {'; '.join(changed)}")
        if state["step"] > self.total_steps:
            raise RunError(
                f"the checkpoint is of step {state['step']}, beyond --steps {self.total_steps}"
            )

    def restore(self, state: dict[str, Any]) -> int:
        """Go on from `state`: cut the log back to its step, and return it (for `steps`)."""
        self.check_fits(state)
        self._write_config()
        step = state["step"]
        self._seconds_before = state["seconds"]
        self._lines = [line for line in _read_log(self.path("log.jsonl")) if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in self._lines)
        replace_file(self.path("log.jsonl"), lambda file: file.write(text.encode()))
        print(f"going on after step {step} of {self.total_steps}", flush=True)
        return step

    def _claim_directory(self, resume: bool) -> None:
        if resume and not self.checkpoint.is_file():
            raise RunError(f"there is no {self.checkpoint} to go on from; leave out --resume")
        self.out.mkdir(parents=True, exist_ok=True)
        files = [f for f in self.out.iterdir() if f.is_file() and not f.name.startswith(".")]
        if files and not self._holds_a_run():
            raise RunError(f"{self.out} holds files that are not a run's; choose another --out")
        for stray in self.out.glob(".*.tmp"):  # of a save that was killed
            stray.unlink()
        if files and not resume:
            self._move_aside(files)

    def _holds_a_run(self) -> bool:
        try:
            return "minigan" in json.loads(self.path("config.json").read_bytes())["versions"]
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _move_aside(self, files: list[Path]) -> None:
        number = 1
        while (aside := self.path(f"previous-{number}")).exists():
            number += 1
        aside.mkdir()
        for file in sorted(files, key=lambda f: f.name == "config.json"):  # the mark of a run last
            file.rename(aside / file.name)
        print(f"the earlier run is now in {aside} (to go on with a run: --resume)", flush=True)

    def _write_config(self) -> None:
        self._write_json("config.json", {"config": self.config, "versions": _versions()})

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=2, allow_nan=False, default=_to_json) + "\n"
        replace_file(self.path(name), lambda file: file.write(text.encode()))


def _to_json(thing: object) -> object:
    return thing.item() if isinstance(thing, np.generic) else str(thing)  # a Path, say


def _versions() -> dict[str, str]:
    try:
        minigan = metadata.version("minigan")
    except metadata.PackageNotFoundError:  # run from a source tree
        minigan = "not installed"
    return {"python": platform.python_version(), "numpy": np.__version__, "minigan": minigan}


def _read_log(path: Path) -> list[dict[str, float]]:
    """The log's lines; a line without its end, cut off by a crash, does not count."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise RunError(f"{path}: not a log of one JSON object a line: {error}") from error
