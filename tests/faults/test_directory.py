"""Output directories that are not there, not ours, taken, or taken away."""

import os
import shutil
import signal
import time

import pytest
from harness import log_steps, nursery, python, start, strays, train

from minigan.training import load_checkpoint


def test_missing(tmp_path):
    """An output directory that is not there, three deep: made"""
    train(tmp_path / "a" / "b" / "c", "--steps", 1)
    assert log_steps(tmp_path / "a" / "b" / "c") == [1]


@pytest.mark.parametrize("below", [False, True], ids=["file", "below"])
def test_a_file(tmp_path, below):
    """The output directory is a file, or below one: exit 2 before training, the file as it was"""
    (tmp_path / "file").write_text("mine")
    said = train(tmp_path / "file" / "run" if below else tmp_path / "file", code=2).stderr
    assert said.startswith("error: cannot write to")
    assert "choose another --out" in said
    assert (tmp_path / "file").read_text() == "mine"


def test_somebody_elses(tmp_path):
    """The output directory holds other files: exit 2, nothing added, nothing removed"""
    (tmp_path / "thesis.tex").write_text("x")
    assert "not a run's" in train(tmp_path, code=2).stderr
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("how", ["new", "resume"])
def test_read_only(how):
    """A read-only output directory, at the start and when going on: exit 2, the checkpoint stays"""
    found = nursery("read_only", how)
    assert found == {"code": 2, "untouched": True, "said": True}


def test_removed(tmp_path):
    """The output directory is removed in the middle of the run: exit 2, and it is said"""
    said = train(tmp_path / "run", "--remove-at", 3, code=2).stderr
    assert "No such file or directory" in said
    assert not (tmp_path / "run").exists()


def test_two_runs(tmp_path):
    """Two runs in one directory: the second exits with 2, the first never notices"""
    first = start(tmp_path, "--steps", 400, "--sleep", 0.02)
    until = time.monotonic() + 90
    while not log_steps(tmp_path):
        assert time.monotonic() < until
        time.sleep(0.01)
    for flags in ([], ["--resume"]):
        said = train(tmp_path, "--steps", 400, *flags, code=2).stderr
        assert "another run is writing to" in said
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=90)
    assert first.returncode == 130
    assert not (tmp_path / "previous-1").exists()
    steps = log_steps(tmp_path)
    assert steps == list(range(1, len(steps) + 1))
    train(tmp_path, "--steps", steps[-1] + 2, "--resume")  # the lock died with its process


def test_a_reader():
    """A reader while another process saves: every load is whole, none is missing"""
    found = nursery("reader_while_saving", 50)
    assert found["wrong"] == []
    assert found["read"] >= 50
    assert found["steps"] > 5


def test_stale_files(tmp_path):
    """Temporary files that a killed save left: swept up at the next start, others are kept"""
    train(tmp_path, "--steps", 2)
    for name in (".checkpoint.npz.0a0b0c0d.tmp", ".best.npz.00000000.tmp", ".log.jsonl.1.tmp"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".notes").write_text("mine")
    train(tmp_path, "--steps", 3, "--resume")
    assert strays(tmp_path) == [".notes"]
    train(tmp_path, "--steps", 1)
    assert (tmp_path / "previous-1" / "checkpoint.npz").exists()
    assert strays(tmp_path) == [".notes"]


@pytest.mark.parametrize("older", [False, True], ids=["alone", "older"])
def test_a_folder_in_the_checkpoints_place(tmp_path, older):
    """A folder in the checkpoint's place, with an older one and without: exit 2, nothing lost"""
    train(tmp_path, "--steps", 2)
    shutil.move(tmp_path / "checkpoint.npz", tmp_path / "kept.npz")
    if not older:
        (tmp_path / "checkpoint-1.npz").unlink()
    (tmp_path / "checkpoint.npz").mkdir()
    for flags in (["--resume"], []):
        said = train(tmp_path, "--steps", 4, *flags, code=2).stderr
        assert f"{tmp_path / 'checkpoint.npz'} is no regular file" in said
    assert load_checkpoint(tmp_path / "kept.npz")["run"]["step"] == 2
    assert log_steps(tmp_path) == [1, 2]


@pytest.mark.parametrize("kind", [os.mkdir, os.mkfifo])
@pytest.mark.parametrize("name", ["checkpoint-1.npz", "best.npz", "log.jsonl", "config.json"])
def test_no_file_in_a_files_place(tmp_path, name, kind):
    """A folder or a FIFO in the place of another file: exit 2 at the start, nobody waits"""
    train(tmp_path, "--steps", 2)
    (tmp_path / name).unlink()
    kind(tmp_path / name)
    for flags in (["--resume"], []):
        said = train(tmp_path, "--steps", 4, *flags, code=2, seconds=20).stderr
        assert f"{tmp_path / name} is no regular file" in said
    assert load_checkpoint(tmp_path / "checkpoint.npz")["run"]["step"] == 2


PIPED_LOG = """
import os, sys
from minigan.training import Run, load_checkpoint, plain_errors
with plain_errors():
    run = Run(sys.argv[1], {}, 9, resume=True)
    os.unlink(run.path("log.jsonl"))
    os.mkfifo(run.path("log.jsonl"))
    if sys.argv[2] == "read":
        run.restore({"step": 2, "seconds": 0.0, "log_bytes": 0, "best": {}, "config": {}})
    elif sys.argv[2] == "save":
        run.state(2)
    else:
        run.log(3, loss=1.0)
"""


@pytest.mark.parametrize("what", ["read", "log", "save"])
def test_a_pipe_in_the_logs_place(tmp_path, what):
    """A FIFO takes the log's place in the middle of a run: exit 2, nobody waits"""
    train(tmp_path, "--steps", 2)
    done = python("-c", PIPED_LOG, tmp_path, what, seconds=20)
    assert done.returncode == 2, done.stderr
    assert f"{tmp_path / 'log.jsonl'}" in done.stderr
    assert "no regular file" in done.stderr
