"""Killed: at every call, at every step, at any time. What goes on is what would have been."""

import signal

import pytest
from harness import cases, nursery, train

from minigan.training import load_checkpoint

KILLED = -signal.SIGKILL


@cases(60)
@pytest.mark.parametrize("when", ["kill", "torn"])
def test_a_kill_at_every_call_of_a_save(when):
    """SIGKILL at every I/O call of a save, and in the middle of every write"""
    found = nursery("one_save", when)
    names = [name for name, *_ in found]
    if when == "kill":
        assert len(found) >= 60
        assert {"write", "fsync", "replace", "link", "unlink"} <= set(names)
    assert names.count("write") >= 15
    for name, died, newest, best_loads, left, files in found:
        assert died == KILLED
        assert newest in ("old", "new"), name
        assert best_loads
        assert left == []
        assert "checkpoint-1.npz" in files
    last_old = max(i for i, row in enumerate(found) if row[2] == "old")
    assert all(row[2] == "old" for row in found[:last_old])  # once new, it stays new


@cases(19)
def test_every_cut_point():
    """20 steps = k steps, SIGKILL, 20 − k steps: equal to the bit for every k"""
    found = nursery("cut_points", 20)
    assert found == [[k, True] for k in range(1, 20)]


def check_kills(kills):
    found = nursery("random_kills", kills, 1)
    assert [run["died"] for run in found].count(KILLED) == kills  # others were done before
    assert {run["died"] for run in found} <= {KILLED, 0}
    assert sum(run["resumed"] for run in found) >= 0.2 * kills  # not killed before the first save
    assert all(run["equal"] for run in found)


@cases(20)
def test_random_kills():
    """SIGKILL of a training process at random times; resumed it equals the uninterrupted run"""
    check_kills(20)


@cases(100)
@pytest.mark.long
def test_a_hundred_random_kills():
    """The same, behind the marker `long`"""
    check_kills(100)


@pytest.mark.parametrize("step", [4, 5], ids=["edge", "middle"])
def test_going_on_at_an_epochs_edge_and_in_its_middle(tmp_path, step):
    """Resume at an epoch's edge and in its middle: the same batches follow"""
    train(tmp_path / "whole", "--steps", 7)
    train(tmp_path / "cut", "--steps", 7, "--die-at", step, code=KILLED)
    state = load_checkpoint(tmp_path / "cut" / "checkpoint.npz")["batches"]
    assert (state["epoch"], state["cursor"]) == ((2, 0) if step == 4 else (2, 4))
    train(tmp_path / "cut", "--steps", 7, "--resume")
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "cut")]
    assert logs[0] == logs[1]
