"""Forks children that train and save, kills them, and looks at what they left. Prints JSON.

    python nursery.py TASK FOLDER ...

Forked, since numpy and minigan are then imported once and not for each of hundreds of processes;
yet each child is a process of its own, and SIGKILL is the kernel's.
"""

import json
import os
import platform
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import scipy.special  # here and not in every child
import tiny_gan
import tqdm
from disk import Disk
from harness import flat, strays

from minigan import manual_seed, training
from minigan.training import CheckpointError, Run, load_checkpoint, plain_errors


def fork(function, *args, kill_after=None):
    """Call `function` in a child: its exit code, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            with plain_errors():
                code = function(*args) or 0
        except SystemExit as stop:
            code = stop.code
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def gan(out, *flags):
    return tiny_gan.main(["--out", str(out), *map(str, flags)])


def outcome(out):
    """All that a finished run leaves and that should be equal to the bit."""
    load_checkpoint(out / "checkpoint-1.npz")  # good, but a kill can make it one save older
    kept = {name: flat(load_checkpoint(out / name)) for name in ("checkpoint.npz", "best.npz")}
    return kept | {name: (out / name).read_text() for name in ("log.jsonl", "metrics.json")}


def go_on(out, *flags):
    """The next start after a kill: --resume, or from the beginning if nothing was saved yet."""
    resumed = (out / "checkpoint.npz").exists()
    return fork(gan, out, *flags, *(["--resume"] if resumed else [])), resumed


def cut_points(folder, steps):
    """Every cut point: k steps, SIGKILL, the rest; compared with the run without a cut."""
    assert fork(gan, folder / "whole", "--steps", steps) == 0
    whole, equal = outcome(folder / "whole"), []
    for k in range(1, steps):
        out = folder / f"cut-{k}"
        assert fork(gan, out, "--steps", steps, "--die-at", k) == -signal.SIGKILL
        assert load_checkpoint(out / "checkpoint.npz")["run"]["step"] == k
        code, _ = go_on(out, "--steps", steps)
        equal.append([k, code == 0 and outcome(out) == whole and not strays(out)])
    return equal


def random_kills(folder, kills, seed):
    """SIGKILL at random times, also of a run that goes on; each is then finished and compared."""
    flags, rng, found = ["--steps", 30, "--every", 3], random.Random(seed), []
    began = time.monotonic()
    assert fork(gan, folder / "whole", *flags) == 0
    duration, whole = time.monotonic() - began, outcome(folder / "whole")
    while sum(run["died"] == -signal.SIGKILL for run in found) < kills and len(found) < 4 * kills:
        out, began = folder / f"run-{len(found)}", time.monotonic()
        died = fork(gan, out, *flags, kill_after=rng.uniform(0.01, duration))
        if died == 0:  # it was done before: the machine is quicker now
            duration = max(0.05, 0.9 * min(duration, time.monotonic() - began))
        kept = (out / "checkpoint.npz").exists()
        if rng.random() < 0.3 and kept:  # and once more while it goes on
            fork(gan, out, *flags, "--resume", kill_after=rng.uniform(0.0, duration / 2))
        code, resumed = go_on(out, *flags)
        good = code == 0 and outcome(out) == whole and not strays(out)
        found.append({"died": died, "resumed": resumed, "equal": good})
        shutil.rmtree(out)
    return found


# ---- one save, and every call that it makes


def prepared(folder):
    """A run of two steps, with an older checkpoint and a best one."""
    assert fork(gan, folder, "--steps", 2) == 0
    return folder


def resumed_save(out, disk):
    """Go on from `out`'s last step and save once more, on a disk that fails."""
    manual_seed(5)
    generator, _ = tiny_gan.make_networks(tiny_gan.parse_flags([]))
    run = Run(out, {}, 9, resume=True)
    run.best = {"darkness": 1.0, "step": 1}
    disk.install()
    training.save(run, {"g": generator}, 3, best={"darkness": 0.5})
    disk.remove()


def one_save(folder, kind):
    """Let every call of a save fail in turn as `kind` says; what was left each time."""
    before = prepared(folder / "prepared")
    old = flat(load_checkpoint(before / "checkpoint.npz"))
    trial = shutil.copytree(before, folder / "trial")
    counting = Disk()
    resumed_save(trial, counting)
    calls = counting.calls
    new, found = flat(load_checkpoint(trial / "checkpoint.npz")), []
    action = int(kind) if kind.isdigit() else kind
    for n, name in enumerate(calls):
        if kind in ("torn", "short") and name != "write":
            continue
        out = folder / f"out-{n}"
        shutil.copytree(before, out)
        died = fork(resumed_save, out, Disk({n: action}))
        loads = {path.name: flat(load_checkpoint(path)) for path in out.glob("*.npz")}
        newest = loads["checkpoint.npz"]
        which = "new" if newest == new else "old" if newest == old else "neither"
        Run(out, {}, 9, resume=True)  # the next start sweeps up
        names = sorted(path.name for path in out.iterdir())
        found.append([name, died, which, "best.npz" in loads, strays(out), names])
        shutil.rmtree(out)
    return found


def signals_in_save(folder, how):
    """A signal at every call of a save but seeks, or two; exit codes, and what was left."""
    before = prepared(folder / "prepared")
    trial = shutil.copytree(before, folder / "trial")
    assert fork(resumed_loop, trial, Disk(), folder) == 0
    calls, found = json.loads((folder / "calls").read_text()), []
    for n, name in enumerate(calls):
        if name == "seek":
            continue
        out = shutil.copytree(before, folder / f"out-{n}")
        code = fork(resumed_loop, out, Disk({n: how}))
        step = load_checkpoint(out / "checkpoint.npz")["run"]["step"]
        found.append([name, code, step, strays(out)])
        shutil.rmtree(out)
    return found


def resumed_loop(out, disk, report=None):
    """Go on from step 2, and let the disk act in the save of step 3."""
    real = training.save

    def save(run, parts, step, **options):
        if step == 3:
            disk.install()
        try:
            real(run, parts, step, **options)
        finally:
            if step == 3:
                disk.remove()

    training.save = save
    code = gan(out, "--steps", 9, "--resume")
    if report:
        (report / "calls").write_text(json.dumps(disk.calls))
    return code


def read_only(folder, how):
    """A directory that its user may not write to; root, who may everywhere, becomes nobody."""
    out = prepared(folder / "run")
    before = (out / "checkpoint.npz").read_bytes()
    gan(folder / "warm", "--steps", 1)  # nobody may not be allowed to read the Python files
    os.chmod(folder, 0o755)
    os.chmod(out, 0o555)

    def nobody():
        os.dup2(os.open(folder / "said", os.O_WRONLY), 2)
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        return gan(out, "--steps", 4, *(["--resume"] if how == "resume" else []))

    (folder / "said").touch()
    code = fork(nobody)
    os.chmod(out, 0o755)
    said = (folder / "said").read_text()
    untouched = (out / "checkpoint.npz").read_bytes() == before
    return {"code": code, "untouched": untouched, "said": "Permission denied" in said}


def reader_while_saving(folder, loads):
    """A reader loads the newest checkpoint again and again while another process saves."""
    out, read, wrong, steps = folder / "run", 0, [], set()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(gan(out, "--steps", 100_000))
    until = time.monotonic() + 120
    while not (out / "best.npz").exists() and time.monotonic() < until:  # made after the other
        time.sleep(0.01)
    while (read < loads or len(steps) < 20) and not wrong and time.monotonic() < until:
        for name in ("checkpoint.npz", "best.npz"):
            try:
                steps.add(load_checkpoint(out / name)["run"]["step"])
                read += 1
            except CheckpointError as error:
                wrong.append(str(error))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return {"read": read, "steps": len(steps), "wrong": wrong}


WARM = (scipy.special, tqdm.tqdm, platform.platform())

TASKS = {
    "cut_points": lambda folder, steps: cut_points(folder, int(steps)),
    "random_kills": lambda folder, kills, seed: random_kills(folder, int(kills), int(seed)),
    "one_save": one_save,
    "signals_in_save": signals_in_save,
    "read_only": read_only,
    "reader_while_saving": lambda folder, loads: reader_while_saving(folder, int(loads)),
}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])))
