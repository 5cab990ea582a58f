"""Disks that are full, that fail, that do half: the old checkpoint stays, and one line says why."""

import errno
import os
import shutil
import subprocess
import sys

import pytest
from harness import SCRIPT, cases, environment, nursery, python, strays, train

from minigan.training import load_checkpoint


def newest_step(out):
    return load_checkpoint(out / "checkpoint.npz")["run"]["step"]


@cases(60)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_a_failing_call(code):
    """Every I/O call of a save fails, with ENOSPC and with EIO: exit 2, old or new, no strays"""
    found = nursery("one_save", code)
    assert len(found) >= 60
    for name, exit_code, newest, best_loads, left, _ in found:
        assert exit_code in (0, 2), name
        assert newest == ("new" if exit_code == 0 else newest)
        assert newest in ("old", "new")
        assert best_loads
        assert left == []
    assert sum(row[1] == 2 for row in found) > 0.9 * len(found)
    assert {row[0] for row in found if row[1] == 2} >= {"open", "write", "fsync", "replace"}


@cases(15)
def test_short_writes():
    """Every write does half of its work and says so: the rest follows, the save is whole"""
    found = nursery("one_save", "short")
    assert len(found) >= 15
    assert all(row[:4] == ["write", 0, "new", True] for row in found)


def test_a_limit_on_the_size_of_files(tmp_path):
    """RLIMIT_FSIZE cuts off the checkpoint: exit 2, the old one stays"""
    train(tmp_path, "--steps", 2)
    before = (tmp_path / "checkpoint.npz").read_bytes()
    said = train(tmp_path, "--steps", 4, "--resume", code=2, file_bytes=9000).stderr
    assert "checkpoint.npz: writing: not saved: [Errno 27]" in said
    assert (tmp_path / "checkpoint.npz").read_bytes() == before
    assert strays(tmp_path) == []
    train(tmp_path, "--steps", 4, "--resume")
    assert newest_step(tmp_path) == 4


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("what", ["log", "stdout"])
def test_a_full_device(tmp_path, what):
    """/dev/full in place of the log, and of stdout: exit 2, the checkpoint stays"""
    train(tmp_path, "--steps", 2)
    if what == "log":
        done = python("-c", FULL_LOG, tmp_path)
        assert done.returncode == 2
        assert "[Errno 28]" in done.stderr
    else:
        with open("/dev/full", "w") as full:
            done = python(
                SCRIPT, "--out", tmp_path, "--steps", 4, "--resume",
                capture_output=False, stdout=full, stderr=subprocess.PIPE,
            )  # fmt: skip
        assert done.returncode == 2
        assert "[Errno 28]" in done.stderr
        assert "Traceback" not in done.stderr
    assert newest_step(tmp_path) == 2
    assert strays(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@cases(3)
def test_a_full_stderr(tmp_path):
    """/dev/full in place of stderr: new, warned about damage, and refused, the codes stay"""

    def run(steps, *flags):
        command = [SCRIPT, "--out", tmp_path, "--steps", steps, *flags]
        quiet = {"capture_output": False, "stdout": subprocess.DEVNULL}
        with open("/dev/full", "w") as full:  # buffered, as it is for everybody
            buffered = {"PYTHONUNBUFFERED": ""}
            return python(*command, **quiet, stderr=full, env=buffered).returncode

    assert run(3) == 0
    assert newest_step(tmp_path) == 3
    (tmp_path / "checkpoint.npz").write_bytes(b"damaged")
    assert run(5, "--resume") == 0
    assert newest_step(tmp_path) == 5
    assert run(4, "--resume") == 2
    assert newest_step(tmp_path) == 5


FULL_LOG = """
import os, sys
from minigan.training import Run, plain_errors
with plain_errors():
    run = Run(sys.argv[1], {}, 9, resume=True)
    os.unlink(run.path("log.jsonl"))
    os.symlink("/dev/full", run.path("log.jsonl"))
    for step in run.steps(2):
        run.log(step, loss=1.0)
"""


def test_a_small_tmpfs(tmp_path):
    """A file system of 128 kB, where mounting is allowed: exit 2, the old one stays"""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        out = place / "run"
        train(out, "--steps", 2)
        (place / "filler").write_bytes(bytes(shutil.disk_usage(place).free - 20_000))
        said = train(out, "--steps", 4, "--resume", code=2).stderr
        assert "No space left" in said
        assert newest_step(out) == 2
        assert strays(out) == []
        (place / "filler").unlink()
        train(out, "--steps", 4, "--resume")
    finally:
        subprocess.run(["umount", str(place)], check=True)


def can_trace():
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_trace(), reason="strace is not here, or not allowed")
@pytest.mark.parametrize("fault", ["fsync:error=EIO", "rename:error=ENOSPC"])
def test_the_kernel_says_no(tmp_path, fault):
    """fsync and rename fail in the kernel (strace), where it is available: exit 2, old one stays"""
    train(tmp_path, "--steps", 2)
    before = (tmp_path / "checkpoint.npz").read_bytes()
    # config.json, log.jsonl and best.npz come first, then the checkpoint's own calls
    call, when = fault.split(":")[0], 7 if fault.startswith("fsync") else 4
    calls = "rename,renameat,renameat2" if call == "rename" else call
    command = ["strace", "-f", "-o", os.devnull, "-e", f"trace={calls}", "-e"]
    command += [f"inject={calls}:{fault.split(':')[1]}:when={when}+"]
    command += [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--steps", "4", "--resume"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "checkpoint.npz: writing: not saved" in done.stderr
    assert (tmp_path / "checkpoint.npz").read_bytes() == before
    assert strays(tmp_path) == []
