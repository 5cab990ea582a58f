"""Stopping a run by signal, and going on with it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from minigan.training import Run, load_checkpoint


def log_steps(out):
    return [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]


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
