"""The run directory: its files, its log, and going on with it."""

import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minigan.training import (
    DivergenceError,
    Run,
    RunError,
    files,
    load_checkpoint,
    save_checkpoint,
)


def log_steps(out):
    return [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]


def run_to(out, last, **options):
    """A run that logs and saves as the examples do."""
    run = Run(out, {"seed": 1}, total_steps=last, **options)
    first = run.restore(load_checkpoint(run.checkpoint)["run"]) if options.get("resume") else 0
    for step in run.steps(first):
        run.log(step, loss=1 / step)
        if run.due(step, every=5):
            save_checkpoint(run.checkpoint, {"run": run.state(step)})
    return run


# ---- the directory


def test_a_run_writes_its_files(tmp_path):
    run = run_to(tmp_path / "deep" / "out", 7)
    run.write_metrics({"steps": 7, "mse": np.float32(0.5), "out": Path("x")})
    assert sorted(os.listdir(run.out)) == [
        "checkpoint.npz",
        "config.json",
        "log.jsonl",
        "metrics.json",
    ]
    config = json.loads(run.path("config.json").read_text())
    assert config["config"] == {"seed": 1}
    assert config["given"] == sys.argv[1:]
    assert set(config["versions"]) == {"python", "platform", "numpy", "scipy", "minigan"}
    assert json.loads(run.path("metrics.json").read_text())["mse"] == 0.5
    assert run.history() == {"loss": (list(range(1, 8)), [1 / n for n in range(1, 8)])}
    assert load_checkpoint(run.checkpoint)["run"]["step"] == 7  # the last step is always due
    assert run.exit_code == 0


def test_an_earlier_run_is_moved_aside(tmp_path, capsys):
    for n in (1, 2, 3):
        run_to(tmp_path, n)
    assert sorted(os.listdir(tmp_path)) == [
        "checkpoint.npz",
        "config.json",
        "log.jsonl",
        "previous-1",
        "previous-2",
    ]
    assert log_steps(tmp_path / "previous-1") == [1]
    assert log_steps(tmp_path / "previous-2") == [1, 2]
    assert load_checkpoint(tmp_path / "previous-2" / "checkpoint.npz")["run"]["step"] == 2
    assert log_steps(tmp_path) == [1, 2, 3]
    assert f"the earlier run is now in {tmp_path / 'previous-2'}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["thesis.tex", "config.json", "checkpoint.npz"])
def test_files_that_are_not_a_runs_stay(tmp_path, name):
    (tmp_path / name).write_text("{}")
    (tmp_path / ".mine.tmp").write_text("")
    with pytest.raises(RunError, match="not a run's"):
        Run(tmp_path, {}, total_steps=1)
    assert sorted(os.listdir(tmp_path)) == sorted([name, ".mine.tmp"])
    assert (tmp_path / name).read_text() == "{}"


def test_what_a_killed_save_left_is_swept_up(tmp_path):
    run_to(tmp_path, 5)
    (tmp_path / ".checkpoint.npz.00ff00ff.tmp").write_bytes(b"half")
    run_to(tmp_path, 10, resume=True)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.npz", "config.json", "log.jsonl"]


def test_out_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below", "/dev/null/x", "/proc/none/x"):
        with pytest.raises(RunError, match=r"cannot write to .*choose another --out"):
            Run(out, {}, total_steps=1)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_is_a_run_error(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(RunError, match="No space left"):
        Run(tmp_path, {}, total_steps=1)
    assert os.listdir(tmp_path) == []


# ---- log, history, divergence


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float32("-inf")])
def test_a_number_that_is_not_finite_stops_the_run(tmp_path, bad):
    run = Run(tmp_path, {}, total_steps=3)
    run.log(1, d=0.5, g=np.float32(0.25))
    with pytest.raises(DivergenceError, match=r"step 2: g is -?(nan|inf)"):
        run.log(2, d=0.5, g=bad)
    assert run.path("log.jsonl").read_text() == '{"step": 1, "d": 0.5, "g": 0.25}\n'


def test_names_may_be_logged_at_different_steps(tmp_path):
    run = Run(tmp_path, {}, total_steps=3)
    run.log(1, d=1, g=2)
    run.log(2, d=3)
    run.log(2, mse=4)
    assert run.history() == {"d": ([1, 2], [1, 3]), "g": ([1], [2]), "mse": ([2], [4])}
    assert list(run.history()) == ["d", "g", "mse"]


def test_metrics_of_no_finite_number_keep_the_old_file(tmp_path):
    run = Run(tmp_path, {}, total_steps=1)
    run.write_metrics({"psnr": 20.0})
    with pytest.raises(ValueError, match="JSON"):
        run.write_metrics({"psnr": float("inf")})
    assert json.loads(run.path("metrics.json").read_text()) == {"psnr": 20.0}


# ---- going on


def test_resume_cuts_the_log_back_to_the_checkpoint(tmp_path):
    run = run_to(tmp_path, 5)
    for step in (6, 7):  # steps after the checkpoint, which the run will do again
        run.log(step, loss=9)
    with run.path("log.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # and a line that a crash cut short
    run = run_to(tmp_path, 12, resume=True)
    assert log_steps(tmp_path) == list(range(1, 13))
    assert run.history()["loss"] == (list(range(1, 13)), [1 / n for n in range(1, 13)])


def test_resume_of_a_finished_run_does_nothing_more(tmp_path):
    run_to(tmp_path, 5)
    run = run_to(tmp_path, 5, resume=True)
    assert log_steps(tmp_path) == [1, 2, 3, 4, 5]
    assert run.exit_code == 0


def test_resume_needs_a_checkpoint(tmp_path):
    with pytest.raises(RunError, match=r"there is no .*checkpoint\.npz to go on from"):
        Run(tmp_path / "none", {}, total_steps=1, resume=True)
    assert not (tmp_path / "none").exists()


def test_resume_beyond_the_end(tmp_path):
    run_to(tmp_path, 5)
    with pytest.raises(RunError, match="step 5, beyond --steps 3"):
        run_to(tmp_path, 3, resume=True)
    assert log_steps(tmp_path) == [1, 2, 3, 4, 5]


def test_a_broken_log_is_named(tmp_path):
    run_to(tmp_path, 5)
    (tmp_path / "log.jsonl").write_text("what\n")
    with pytest.raises(RunError, match=r"log\.jsonl: not a log"):
        run_to(tmp_path, 6, resume=True)


def test_seconds_add_up_over_the_parts(tmp_path):
    run = Run(tmp_path, {}, total_steps=2)
    for step in run.steps():
        time.sleep(0.05)
        state = run.state(step)
    assert 0.1 <= state["seconds"] <= run.seconds < 1
    first = run.seconds
    assert run.seconds == first  # the clock stands outside the loop
    save_checkpoint(run.checkpoint, {"run": {**state, "seconds": 100.0}})
    run = Run(tmp_path, {}, total_steps=3, resume=True)
    for _ in run.steps(run.restore(load_checkpoint(run.checkpoint)["run"])):
        time.sleep(0.05)
    assert 100.05 <= run.seconds < 101


def test_the_bar_shows_losses_and_rate(tmp_path, capsys):
    run = Run(tmp_path, {}, total_steps=13, images_per_step=16)
    for step in run.steps(10):
        time.sleep(0.05)
        run.log(step, d=0.5, g=1.25)
    words = capsys.readouterr().err
    assert "13/13" in words
    rate = re.search(r"(\d+) images/s, d 0\.500, g 1\.25", words)
    assert 100 < int(rate[1]) < 325  # 16 images in a bit over 0.05 s
