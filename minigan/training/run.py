"""A run directory: its configuration, log, checkpoint and metrics, and the count of its steps.

The training loop stays in the script:

    run = Run(args.out, vars(args), total_steps=args.steps, images_per_step=args.batch)
    for step in run.steps():
        ...
        run.log(step, d=d_loss.item(), g=g_loss.item())
        if run.due(step, every=200):
            save(run, parts, step)
    sys.exit(run.exit_code)
"""

import contextlib
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

from minigan import backend
from minigan.tensor import detect_anomaly

from .checkpoint import CheckpointError, load_checkpoint
from .extras import import_extra
from .files import DirectoryLock, append_line, is_other_than_a_file, replace_file, sync_file
from .signals import StopSignals
from .words import Forgiving, warn

# From one part of a run to the next:
MAY_CHANGE = {"steps", "out", "resume", "device", "gif", "data_dir", "download"}
FOLDERS = ("frames", "generators")  # of the run: their files are named by step, 00000500.npz
STATE = {"step": int, "seconds": float, "log_bytes": int, "best": dict, "config": dict}


class RunError(Exception):
    """The run directory cannot be used as asked."""


class DivergenceError(Exception):
    """A logged number or a weight is not finite: training has diverged."""


class Run:
    """The directory `out` of one training run of `total_steps` steps.

    A new run moves the files of an earlier one into `out/previous-N`, so make it when the settings
    are known to be good; with `resume` they stay, and there must be a checkpoint. `images_per_step`
    is for the rate on the progress bar. `config` is the settings as resolved, the seed among them;
    `given` is what the user typed (default: the command line). With `anomaly` the first op that
    makes a NaN or an Inf stops the run and is named (on the CPU only: it costs about 2 % of a step
    there; a GPU would have to be waited for).

    Raises:
        RunError: `out` cannot be written, another run is writing there, or it holds files that are
            not a run's, or something in a file's place that is none.
    """

    def __init__(
        self,
        out: str | os.PathLike,
        config: dict[str, Any],
        total_steps: int,
        images_per_step: int = 1,
        resume: bool = False,
        given: list[str] | None = None,
        anomaly: bool = True,
    ) -> None:
        self.out, self.total_steps, self.images_per_step = Path(out), total_steps, images_per_step
        self.interrupted = False
        self.best: dict[str, float] = {}  # of the named metric by which the best is kept
        self.anomaly = anomaly
        self._given = sys.argv[1:] if given is None else given
        self._lock: DirectoryLock | None = None
        self._signals = StopSignals()
        self._first = 0  # the step before the first of this part
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
        """Where the run's newest checkpoint is."""
        return self.path("checkpoint.npz")

    def older(self, count: int) -> list[Path]:
        """Where `count` checkpoints before the newest are, from young to old."""
        return [self.path(f"checkpoint-{number}.npz") for number in range(1, count + 1)]

    def checkpoints(self) -> list[Path]:
        """The newest checkpoint, whether it is there or not, and the older ones that are."""
        there = {path.name for path in self.out.glob("checkpoint-*.npz")}
        numbers = [name[len("checkpoint-") : -len(".npz")] for name in there]
        ages = sorted(int(number) for number in numbers if number.isdecimal())
        return [self.checkpoint, *(self.path(f"checkpoint-{age}.npz") for age in ages)]

    def steps(self, first: int = 0) -> Iterator[int]:
        """Count first + 1, ..., total_steps behind a progress bar, until a signal asks to stop."""
        tqdm = import_extra("tqdm").tqdm
        total, quiet = self.total_steps, sys.stderr is None or not sys.stderr.isatty()
        bar = tqdm(
            None,
            "training",
            total,
            initial=first,
            unit="step",
            mininterval=10 if quiet else 0.1,
            dynamic_ncols=True,
            file=Forgiving(sys.stderr),
            disable=sys.stderr is None,  # closed
        )
        self._first = first
        with StopSignals() as self._signals, bar as self._bar:
            self._started = time.perf_counter()
            try:
                for step in range(first + 1, total + 1):
                    with self._watch(step):
                        yield step
                    bar.update()
                    if self.interrupted:
                        break
                    self.interrupted = bool(self._signals.received)
            finally:
                self._seconds_before, self._started, self._bar = self.seconds, None, None
                self._release()

    def _watch(self, step: int) -> contextlib.AbstractContextManager:
        watched = self.anomaly and backend.get().name == "cpu"
        return detect_anomaly(f"step {step}") if watched else contextlib.nullcontext()

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
        append_line(self.path("log.jsonl"), json.dumps(line))
        self._lines.append(line)
        if self._bar is not None:
            images = self.images_per_step * (step - self._first)
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
        if self._lock is None:  # after the loop: another run may have begun here
            self._take_lock()
        self._write_json("metrics.json", metrics)

    def state(self, step: int) -> dict[str, Any]:
        """What `restore` needs, to be saved in the checkpoint made after `step`."""
        kept = {name: value for name, value in self.config.items() if name not in MAY_CHANGE}
        return {
            "step": step,
            "total_steps": self.total_steps,
            "seconds": self.seconds,
            "log_bytes": sync_file(self.path("log.jsonl")),  # on disk before what counts it
            "best": dict(self.best),
            "config": kept,
        }

    def check_fits(self, state: dict[str, Any], path: Path | None = None) -> None:
        """Compare a checkpoint's `state` with this run; `path` is where it came from.

        Raises:
            CheckpointError: it is not what `state` returns.
            RunError: it is of a run with other settings, or longer than this one.
        """
        path = path or self.checkpoint
        if not isinstance(state, dict):
            raise CheckpointError(path, "run", f"is {state!r:.40}, expected a dict")
        for name, kind in STATE.items():
            if type(state.get(name)) is not kind:
                said = f"is {state[name]!r:.40}" if name in state else "is missing"
                raise CheckpointError(path, f"run/{name}", f"{said}, expected {kind.__name__}")
        changed = [
            f"--{name.replace('_', '-')} {value}, not {self.config.get(name)}"
            for name, value in state["config"].items()
            if value != self.config.get(name)
        ]
        if changed:
            raise RunError(f"{path} was made with {'; '.join(changed)}")
        if state["step"] > self.total_steps:
            raise RunError(
                f"the checkpoint is of step {state['step']}, beyond --steps {self.total_steps}"
            )

    def restore(self, state: dict[str, Any]) -> int:
        """Go on from `state`: cut the log back to its step, and return it (for `steps`)."""
        self.check_fits(state)
        step, log = state["step"], self.path("log.jsonl")
        lines = [(raw, line) for raw, line in _read_log(log) if line["step"] <= step]
        text = b"".join(raw + b"\n" for raw, _ in lines)
        if len(text) != state["log_bytes"]:
            warn(
                f"{log} has {len(text)} bytes of the steps up to {step}, the checkpoint counted "
                f"{state['log_bytes']}: the curves will have a gap, the training has none"
            )
        before = state.get("total_steps", self.total_steps)  # older checkpoints do not say
        if before != self.total_steps:
            warn(
                f"until now this was a run of {before} steps, and is now one of "
                f"{self.total_steps}: what follows their number, as a decay of the learning rate "
                "does, goes on otherwise than in a run that was as long from its start"
            )
        self._write_config()
        replace_file(log, lambda file: file.write(text))
        for file in self._files_by_step():
            if int(file.stem) > step:
                file.unlink()
        self._lines = [line for _, line in lines]
        self._seconds_before, self.best = state["seconds"], dict(state["best"])
        print(f"going on after step {step} of {self.total_steps}", flush=True)
        return step

    def _files_by_step(self) -> Iterator[Path]:
        """The files in the run's folders that are named by a step."""
        for folder in FOLDERS:
            for file in self.path(folder).glob("*.*"):
                if file.stem.isdecimal() and file.is_file():
                    yield file

    def _claim_directory(self, resume: bool) -> None:
        if resume and not any(os.path.lexists(path) for path in self.checkpoints()):
            raise RunError(f"there is no {self.checkpoint} to go on from; leave out --resume")
        self.out.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        self._refuse_others()
        files = [f for f in self.out.iterdir() if f.is_file() and not f.name.startswith(".")]
        # A checkpoint is proof of a run too, and going on writes config.json anew.
        if files and not self._holds_a_run() and not (resume and self._has_a_checkpoint()):
            raise RunError(
                f"{self.out} holds files that are not a run's: no config.json of one"
                f"{', no checkpoint that loads' * resume}; choose another --out"
            )
        for folder in (self.out, *map(self.path, FOLDERS)):
            for stray in folder.glob(".*.tmp"):  # of a save that was killed
                stray.unlink()
        if files and not resume:
            self._move_aside([*files, *(d for d in map(self.path, FOLDERS) if d.is_dir())])

    def _refuse_others(self) -> None:
        """A folder would fail the first save, and a pipe be waited for for ever."""
        names = ("config.json", "log.jsonl", "metrics.json", "best.npz")
        for path in [*self.checkpoints(), *map(self.path, names)]:
            if is_other_than_a_file(path):
                raise RunError(f"{path} is no regular file; move it away or choose another --out")

    def _has_a_checkpoint(self) -> bool:
        for path in self.checkpoints():
            with contextlib.suppress(CheckpointError):
                load_checkpoint(path)
                return True
        return False

    def _take_lock(self) -> None:
        try:
            self._lock = DirectoryLock(self.out)
        except BlockingIOError:
            raise RunError(f"another run is writing to {self.out}; choose another --out") from None

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

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
        script = Path(sys.argv[0]).stem
        content = {"script": script, "given": self._given, "config": self.config}
        content["versions"] = _versions()
        self._write_json("config.json", content)

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=2, allow_nan=False, default=_to_json) + "\n"
        replace_file(self.path(name), lambda file: file.write(text.encode()))


def _to_json(thing: object) -> object:
    return thing.item() if isinstance(thing, np.generic) else str(thing)  # a Path, say


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("minigan", "numpy", "scipy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a source tree
            found[package] = "not installed"
    return found


def _read_log(path: Path) -> list[tuple[bytes, dict[str, float]]]:
    """The log's lines, raw and read; one without its end, cut off by a crash, does not count."""
    if is_other_than_a_file(path):
        raise RunError(f"{path} is no regular file")
    if not path.exists():
        return []
    raw_lines = path.read_bytes().split(b"\n")[:-1]
    try:
        lines = [(raw, json.loads(raw, parse_constant=_no_constant)) for raw in raw_lines]
        if any(type(line["step"]) is not int for _, line in lines):
            raise ValueError("a step is not a whole number")
        return lines
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path}: not a log of one JSON object a line: {error}") from error


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not finite")
