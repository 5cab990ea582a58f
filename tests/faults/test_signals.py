"""Asked to stop: the step and the save are finished, or, asked twice, nothing is touched."""

import contextlib
import signal
import subprocess
import time

import pytest
from harness import cases, log_steps, nursery, start, strays, train

from minigan.training import load_checkpoint


def wait_for_step(out, step, seconds=90):
    until = time.monotonic() + seconds
    while step not in log_steps(out):
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_mid_step(tmp_path, number, code):
    """SIGINT and SIGTERM in the middle of a step: it is finished and saved"""
    process = start(tmp_path, "--steps", 500, "--every", 500, "--sleep", 0.1)
    wait_for_step(tmp_path, 3)
    process.send_signal(number)
    _, said = process.communicate(timeout=90)
    assert process.returncode == code
    assert "finishing this step, then saving" in said
    assert "Traceback" not in said
    step = load_checkpoint(tmp_path / "checkpoint.npz")["run"]["step"]
    assert step == log_steps(tmp_path)[-1]
    assert strays(tmp_path) == []


def test_twice(tmp_path):
    """SIGINT twice in a long step: exit at once, the old checkpoint untouched"""
    train(tmp_path, "--steps", 2)
    before = (tmp_path / "checkpoint.npz").read_bytes()
    process = start(tmp_path, "--steps", 9, "--resume", "--sleep", 300)
    time.sleep(1)
    try:
        for _ in range(10):  # the first ones may come before there is anything to ask
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1)
                break
    finally:
        process.kill()
    process.stderr.close()
    assert process.returncode == 130
    assert (tmp_path / "checkpoint.npz").read_bytes() == before
    assert strays(tmp_path) == []


@cases(30)
def test_mid_save():
    """SIGINT at every open, read, write, sync and rename of a save: it is finished, exit 130"""
    found = nursery("signals_in_save", "signal")
    assert len(found) >= 30
    assert all(row[1:] == [130, 4, []] for row in found), found  # one step more, and its save


@cases(30)
def test_twice_mid_save():
    """SIGINT and SIGTERM at each of them: exit at once, old or new, nothing between"""
    found = nursery("signals_in_save", "signals")
    assert len(found) >= 30
    for name, code, step, left in found:
        assert code in (130, 143)
        assert step in (2, 3), name
        assert left == []
    assert {step for _, _, step, _ in found} == {2, 3}
