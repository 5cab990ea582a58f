"""Settings, data and surroundings that cannot work: said before a step is lost."""

import os
import subprocess
import sys

import numpy as np
import pytest
from harness import GIB, SCRIPT, cases, environment, log_steps, python, strays, train

from minigan import Tensor, data, functional, nn, optim
from minigan.training import load_checkpoint


def check_diverged(out, said, step):
    """The op and the step are named, and the last good checkpoint is the newest."""
    assert f"error: step {step}: " in said
    assert "forward: made NaN or Inf" in said or "backward: made NaN or Inf" in said
    assert "training has diverged" in said
    if step > 1:
        state = load_checkpoint(out / "checkpoint.npz")
        assert state["run"]["step"] == step - 1 == log_steps(out)[-1]
        assert all(np.isfinite(a).all() for a in state["g"].values())
    assert strays(out) == []


@pytest.mark.parametrize("image", range(3))
def test_nan_in_the_data(tmp_path, image):
    """NaN in the data: the step that meets it stops the run, exit 3, the op is named"""
    said = train(tmp_path, "--nan-image", image, code=3).stderr
    order = data.Batches(10, 4, 0)
    met = next(step for step in range(1, 20) if image in next(order))
    check_diverged(tmp_path, said, met)
    assert "conv2d forward" in said


def test_a_learning_rate_far_too_high(tmp_path):
    """A learning rate of 1e30: exit 3, op and step are named, the last good checkpoint is kept"""
    said = train(tmp_path, "--lr", 1e30, code=3).stderr
    check_diverged(tmp_path, said, 1)


def test_divergence_after_good_steps(tmp_path):
    """Divergence after going on: the good checkpoint from before stays and can be gone on from"""
    train(tmp_path, "--steps", 3)
    code = f"""
import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})
import tiny_gan
from minigan import optim, training
real = optim.Adam.step
def step(self):
    self.lr = 1e30 if self.steps >= 5 else self.lr
    real(self)
optim.Adam.step = step
with training.plain_errors():
    sys.exit(tiny_gan.main(["--out", {str(tmp_path)!r}, "--steps", "9", "--resume"]))
"""
    done = python("-c", code)
    assert done.returncode == 3, done.stderr
    check_diverged(tmp_path, done.stderr, log_steps(tmp_path)[-1] + 1)
    train(tmp_path, "--steps", 9, "--resume")


def test_a_learning_rate_of_zero(tmp_path):
    """A learning rate of 0: a run that changes no weight"""
    train(tmp_path, "--lr", 0, "--steps", 2)
    newest, older = (load_checkpoint(tmp_path / f"checkpoint{i}.npz") for i in ("", "-1"))
    np.testing.assert_array_equal(newest["g"]["0.weight"], older["g"]["0.weight"])


@pytest.mark.parametrize("lr", [-1e-3, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop])
def test_learning_rates_that_are_none(kind, lr):
    """A negative, NaN or infinite learning rate, in each optimiser"""
    with pytest.raises(ValueError, match=f"{kind.__name__}: lr must be a finite number >= 0"):
        kind(nn.Linear(2, 1).parameters(), lr=lr)


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["--lr", -1], "Adam: lr must be"), (["--lr", "nan"], "Adam: lr"), (["--batch", 99], "batch")],
)
def test_settings_that_are_refused(tmp_path, flags, words):
    """A script's learning rate or batch is refused: exit 2 in words, the earlier run not moved"""
    train(tmp_path, "--steps", 2)
    said = train(tmp_path, *flags, code=2).stderr
    assert said.startswith("error: ")
    assert words in said
    assert len(said.splitlines()) == 1
    assert log_steps(tmp_path) == [1, 2]
    assert not (tmp_path / "previous-1").exists()


def test_a_mistake_in_a_program():
    """A ValueError that is no setting's: the traceback stays, for who wrote the script"""
    code = """
from minigan import Tensor, training
with training.plain_errors():
    Tensor([1.0, 2.0]).reshape(3)
"""
    done = python("-c", code)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@cases(3)
def test_batches_larger_than_the_data():
    """A batch larger than the data, of none, of less than none"""
    for size in (11, 0, -1):
        with pytest.raises(ValueError, match=f"batch_size is {size} but must be in 1 to count"):
            data.Batches(10, size, 0)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), nn.BatchNorm2d(3)])
def test_a_last_batch_of_one(layer):
    """A batch of one with batch normalisation: refused, as it has no variance; nothing changes"""
    before = layer.state_dict()
    shape = (1, 3) if type(layer) is nn.BatchNorm1d else (1, 1, 1, 3)
    with pytest.raises(ValueError, match="batch_norm"):
        layer(Tensor(np.ones(shape)))
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    batches = data.Batches(9, 4, 0)  # which hands out no short one: the ninth item waits
    assert [len(next(batches)) for _ in range(9)] == [4] * 9


@pytest.mark.parametrize("function", ["conv2d", "max_pool2d"])
def test_a_kernel_larger_than_the_image(function):
    """A kernel larger than the image, in a convolution and in pooling"""
    image = Tensor(np.ones((1, 4, 4, 1)))
    kernel = Tensor(np.ones((9, 9, 1, 1))) if function == "conv2d" else 9
    with pytest.raises(ValueError, match=function):
        getattr(functional, function)(image, kernel)


def test_out_of_memory_in_a_convolution():
    """Out of memory in a convolution, under RLIMIT_AS: exit 2, the bytes it wanted are said"""
    code = """
import numpy as np
from minigan import Tensor, functional, training
with training.plain_errors():
    x = Tensor(np.broadcast_to(np.float32(1), (4096, 64, 64, 3)))
    functional.conv2d(x, Tensor(np.ones((3, 3, 3, 64))), padding=1)
"""
    done = python("-c", code, memory=3 * GIB // 2, seconds=60)
    assert done.returncode == 2, done.stderr
    assert "Unable to allocate" in done.stderr
    assert "GiB" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["stdout", "stderr", "both", "a pipe nobody reads"])
def test_closed_outputs(tmp_path, closed):
    """stdout closed, stderr closed, both, or a pipe whose reader is gone: the run is whole"""
    shell = {"stdout": ">&-", "stderr": "2>&-", "both": ">&- 2>&-"}.get(closed, "| true")
    command = f'"$0" "$1" --out "$2" --steps 3 {shell}'
    arguments = [sys.executable, str(SCRIPT), str(tmp_path / "run")]
    done = subprocess.run(
        ["sh", "-c", command, *arguments], env=environment(), capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert log_steps(tmp_path / "run") == [1, 2, 3]
    assert (tmp_path / "run" / "metrics.json").exists()


def test_the_numbers_of_closed_outputs(tmp_path):
    """stdout and stderr closed: no file gets their numbers, into which a library may write"""
    code = """
import os, sys
from minigan.training import plain_errors
with plain_errors(), open(sys.argv[1], "w") as file:
    os.write(2, b"a library's warning")
    file.write(str(file.fileno()))
"""
    command = ["sh", "-c", '"$0" -c "$1" "$2" >&- 2>&-', sys.executable, code, tmp_path / "file"]
    subprocess.run(command, env=environment(), timeout=60, check=True)
    assert int((tmp_path / "file").read_text()) > 2


@pytest.mark.parametrize("name", ["run", "Läufe-学習"])
def test_the_c_locale(tmp_path, name):
    """LC_ALL=C without UTF-8 mode, and a directory whose name is not ASCII"""
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    out = os.fsencode(tmp_path / name)
    for flags in ([], ["--steps", "4", "--resume"], []):
        command = [sys.executable, str(SCRIPT), "--out", out, *(flags or ["--steps", "3"])]
        done = subprocess.run(
            command, env=environment(**ascii_only), capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
    assert log_steps(tmp_path / name) == [1, 2, 3]
    assert log_steps(tmp_path / name / "previous-1") == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "flags", [["--stepz", 3], ["--steps", 0], ["--steps", "ten"], ["--seed", -1], ["--device", "x"]]
)
def test_misspelt_flags(tmp_path, flags):
    """A misspelt flag, and values that are none: exit 2 with the usage, nothing is written"""
    said = train(tmp_path / "run", *flags, code=2).stderr
    assert said.startswith("usage: ")
    assert str(flags[0]) in said
    assert not (tmp_path / "run").exists()
