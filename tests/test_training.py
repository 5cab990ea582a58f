"""The run directory, stopping by signal, pictures and flags."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from minigan.training import (
    DivergenceError,
    MissingExtraError,
    Run,
    RunError,
    extras,
    files,
    load_checkpoint,
    natural_int,
    plain_errors,
    positive_int,
    require_extras,
    save_checkpoint,
    save_curves,
    save_grid,
    standard_flags,
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
    assert set(config["versions"]) == {"python", "numpy", "minigan"}
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
    save_checkpoint(run.checkpoint, {"run": {"step": 2, "seconds": 100.0, "config": {}}})
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


# ---- signals


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_loop_after_its_step(tmp_path, number, code, capfd):
    before, saved = handlers(), []
    signal.signal(signal.SIGINT, signal.default_int_handler)  # even under nohup
    run = Run(tmp_path, {}, total_steps=10)
    for step in run.steps():
        assert handlers() != before
        if step == 3:
            signal.raise_signal(number)
        if run.due(step, every=100):
            saved.append(step)
    assert saved == [3]
    assert run.interrupted
    assert run.exit_code == code
    assert "finishing this step, then saving" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before[0])
    assert handlers() == before


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_a_signal_at_any_moment_skips_no_save(tmp_path, moment):
    """Pictures and checkpoint of the step the run stops after are both due, whenever it came."""
    yes, seen = [], []
    run = Run(tmp_path, {}, total_steps=10)
    for step in run.steps():
        seen.append(step)
        if step == 3 and moment == "before":
            signal.raise_signal(signal.SIGTERM)
        yes += [("pictures", step)] if run.due(step, every=100) else []
        if step == 3 and moment == "between":
            signal.raise_signal(signal.SIGTERM)
        yes += [("checkpoint", step)] if run.due(step, every=100) else []
        if step == 3 and moment == "after":
            signal.raise_signal(signal.SIGTERM)
    assert yes == [("pictures", seen[-1]), ("checkpoint", seen[-1])]
    assert seen[-1] == (3 if moment == "before" else 4)
    assert run.exit_code == 143


def test_a_loop_that_never_asks_stops_too(tmp_path):
    run = Run(tmp_path, {}, total_steps=10)
    for step in run.steps():
        if step == 3:
            signal.raise_signal(signal.SIGTERM)
    assert step == 4
    assert run.exit_code == 143


def test_handlers_return_after_an_error_in_the_loop(tmp_path):
    before = handlers()
    run = Run(tmp_path, {}, total_steps=10)

    def loop():
        for step in run.steps():
            raise ZeroDivisionError(step)

    with pytest.raises(ZeroDivisionError):
        loop()
    assert handlers() == before
    assert run.seconds < 1


LOOP = """
    import signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from minigan.training import Run, load_checkpoint, plain_errors, save_checkpoint

    with plain_errors():
        resume = "--resume" in sys.argv
        run = Run(sys.argv[1], {}, total_steps=int(sys.argv[2]), resume=resume)
        first = run.restore(load_checkpoint(run.checkpoint)["run"]) if resume else 0
        for step in run.steps(first):
            run.log(step, loss=1.0)
            time.sleep(float(sys.argv[3]))
            if run.due(step, every=2):
                save_checkpoint(run.checkpoint, {"run": run.state(step)})
        sys.exit(run.exit_code)
"""


def start_loop(out, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(LOOP), str(out), *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def wait_for_step(out, step):
    until = time.monotonic() + 20
    while not ((out / "log.jsonl").exists() and step in log_steps(out)):
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_process_saves_and_goes_on(tmp_path, number, code):
    process = start_loop(tmp_path, 1000, 0.05)
    wait_for_step(tmp_path, 3)
    process.send_signal(number)
    _, words = process.communicate(timeout=20)
    assert process.returncode == code
    assert "finishing this step, then saving" in words
    assert "Traceback" not in words
    step = load_checkpoint(tmp_path / "checkpoint.npz")["run"]["step"]
    assert step == log_steps(tmp_path)[-1] < 1000
    process = start_loop(tmp_path, step + 3, 0, "--resume")
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert log_steps(tmp_path) == list(range(1, step + 4))


def test_a_second_ctrl_c_exits_at_once_with_the_old_checkpoint(tmp_path):
    process = start_loop(tmp_path, 2, 0)
    process.communicate(timeout=20)
    before = (tmp_path / "checkpoint.npz").read_bytes()
    process = start_loop(tmp_path, 1000, 60, "--resume")
    wait_for_step(tmp_path, 3)
    process.send_signal(signal.SIGINT)
    words = ""
    while "again: exit now" not in words:
        words += process.stderr.read(1)
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=20)
    assert time.monotonic() - asked < 10
    assert process.returncode == 130
    assert "Traceback" not in words
    assert (tmp_path / "checkpoint.npz").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.npz", "config.json", "log.jsonl"]


# ---- pictures


def read_png(path):
    from PIL import Image

    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def test_a_grid_holds_the_images_side_by_side(tmp_path):
    red, blue = np.zeros((2, 8, 8, 3), np.float32) - 1, np.zeros((2, 8, 8, 3), np.uint8)
    red[..., 0], blue[..., 2] = 1, 255
    grey = np.zeros((2, 8, 8, 1))
    save_grid(tmp_path / "a.png", [red, grey, blue], scale=2)
    sheet = read_png(tmp_path / "a.png")
    for colour in ((255, 0, 0), (128, 128, 128), (0, 0, 255)):
        assert (sheet == colour).all(axis=2).sum() == 2 * 16 * 16
    row = sheet[sheet.shape[0] // 4]
    found = [np.flatnonzero((row == c).all(axis=1)) for c in ((255, 0, 0), (128,) * 3, (0, 0, 255))]
    assert found[0].max() < found[1].min()
    assert found[1].max() < found[2].min()


@pytest.mark.parametrize("n", [6, 12, 16, 24, 64])
def test_a_sheet_of_triples_is_roughly_four_to_three(tmp_path, n):
    images = np.ones((n, 16, 16, 3))
    save_grid(tmp_path / "a.png", [images] * 3, titles=["line art", "generated", "true"])
    height, width, _ = read_png(tmp_path / "a.png").shape
    assert 0.75 < width / height < 2.2
    assert width > 700


def test_titles_are_written(tmp_path):
    images = [np.ones((1, 32, 32, 3))] * 2
    save_grid(tmp_path / "a.png", images, titles=["left", "right"])
    sheet = read_png(tmp_path / "a.png")
    assert (sheet[:20] < 100).any()
    assert (sheet[40:] > 200).all()


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, 8, 8)), r"must be \(N, H, W, 3\)"),
        (np.zeros((2, 3, 8, 8)), r"must be \(N, H, W, 3\)"),
        (np.zeros((0, 8, 8, 3)), r"must be \(N, H, W, 3\)"),
        (np.zeros((2, 8, 8, 3), int), "these are int64"),
        (np.full((2, 8, 8, 3), np.nan), "finite"),
    ],
)
def test_images_that_cannot_be_shown(tmp_path, images, words):
    (tmp_path / "a.png").write_text("old")
    with pytest.raises(ValueError, match=words):
        save_grid(tmp_path / "a.png", [images])
    assert (tmp_path / "a.png").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("n", [1, 2, 41, 500])
def test_curves(tmp_path, n):
    steps = list(range(1, n + 1))
    history = {"d": (steps, [0.5] * n), "g": (steps, [1 / s for s in steps])}
    save_curves(tmp_path / "c.png", history, titles={"d": "discriminator loss"})
    picture = read_png(tmp_path / "c.png")
    assert picture.shape[1] == 960
    assert "matplotlib.pyplot" not in sys.modules
    with pytest.raises(ValueError, match="nothing was logged"):
        save_curves(tmp_path / "c.png", {})
    assert os.listdir(tmp_path) == ["c.png"]


# ---- flags and extras


def parse(*arguments):
    parser = argparse.ArgumentParser()
    standard_flags(parser, out="runs/x", steps=100)
    parser.add_argument("--batch", type=positive_int, default=16)
    return parser.parse_args(arguments)


def test_flags():
    args = vars(parse())
    assert args == {
        "steps": 100,
        "seed": 0,
        "device": "cpu",
        "out": Path("runs/x"),
        "resume": False,
        "batch": 16,
    }
    assert parse("--seed", "0", "--steps", "5", "--resume", "--device", "cuda").steps == 5


@pytest.mark.parametrize(
    "wrong",
    [
        ["--steps", "0"],
        ["--steps", "1.5"],
        ["--steps", "many"],
        ["--seed", "-1"],
        ["--device", "tpu"],
        ["--batch", "-3"],
        ["--stepz", "3"],
    ],
)
def test_wrong_flags_exit_with_usage(wrong, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(*wrong)
    assert caught.value.code == 2
    words = capsys.readouterr().err
    assert words.startswith("usage:")
    assert wrong[0] in words


def test_natural_int():
    assert natural_int("0") == 0
    with pytest.raises(argparse.ArgumentTypeError, match="0 or more, not '-1'"):
        natural_int("-1")


def test_a_missing_extra_says_what_to_run(capsys):
    require_extras("PIL", "tqdm", "matplotlib")
    with pytest.raises(SystemExit) as caught:
        require_extras("PIL", "no_such_package.part")
    assert caught.value.code == 2
    words = capsys.readouterr().err
    assert "'no_such_package' is not installed" in words
    assert "pip install 'minigan[examples]'" in words
    with pytest.raises(MissingExtraError):
        extras.import_extra("no_such_package")


@pytest.mark.parametrize(
    ("error", "code"), [(RunError("words"), 2), (DivergenceError("words"), 3)], ids=["run", "nan"]
)
def test_plain_errors(error, code, capsys):
    with pytest.raises(SystemExit) as caught, plain_errors():
        raise error
    assert caught.value.code == code
    assert capsys.readouterr().err == "error: words\n"


def test_importing_needs_no_extras():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['PIL', 'tqdm', 'matplotlib']));"
        "import minigan.training"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
