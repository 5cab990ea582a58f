"""The GAN scripts whose critics are bounded, as a user runs them: on a few images made up here."""

import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made_up import write_fashion

from minigan import data, optim, training
from minigan.training import load_checkpoint

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SMALL = ("--batch", "4", "--z", "5", "--width", "2")
SCRIPTS = {  # name: flags of its own, and what it logs
    "wgan": (("--critic-steps", "2"), {"distance", "g", "d_x", "d_gz"}),
    "wgan_gp": (("--critic-steps", "2"), {"distance", "penalty", "slope", "g", "d_x", "d_gz"}),
    "sngan": ((), {"d", "g", "d_x", "d_gz", "wrong"}),
    "r1gan": ((), {"d", "g", "d_x", "d_gz", "slope"}),
}
CRITIC = {"wgan": "c", "wgan_gp": "c", "sngan": "d", "r1gan": "d"}  # its name in a checkpoint
WROTE = {"samples.png", "curves.png", "interpolation.png", "neighbours.png", "generators"}
WROTE |= {"log.jsonl", "metrics.json", "checkpoint.npz", "config.json"}

scripts = pytest.mark.parametrize("name", SCRIPTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_fashion(tmp_path_factory.mktemp("data"))


def command(name, *flags):
    own, _ = SCRIPTS[name]
    return [sys.executable, str(EXAMPLES / f"{name}.py"), *SMALL, *own, *map(str, flags)]


def run(name, *flags, code=0):
    done = subprocess.run(command(name, *flags), capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def logged(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def flat(state, prefix=""):
    """The leaves of a checkpoint, without the clock's."""
    for name, value in state.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}/")
        elif name != "seconds":
            yield prefix + name, value


# ---------------------------------------------------------------------------------- whole runs


@scripts
def test_a_run_writes_what_the_gallery_shows(name, folder, tmp_path):
    out = tmp_path / "run"
    run(name, "--steps", 3, "--data-dir", folder, "--out", out)
    assert {path.name for path in out.iterdir()} == WROTE
    assert json.loads((out / "metrics.json").read_text())["steps"] == 3
    assert [line["step"] for line in logged(out)] == [1, 2, 3]
    assert set(logged(out)[0]) == {"step"} | SCRIPTS[name][1]
    assert list(training.snapshots(out)) == [1, 2, 3]
    assert training.load_generator(training.snapshots(out)[3]).image_shape == (32, 32, 1)


@scripts
def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(name, folder, tmp_path):
    """The critic's inner loop, u of the spectral norms, the average and the schedules included."""
    flags = ["--steps", 100, "--data-dir", folder]
    run(name, *flags, "--out", tmp_path / "whole")
    cut = tmp_path / "cut"
    process = subprocess.Popen(
        command(name, *flags, "--out", cut), stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not (cut / "log.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert load_checkpoint(cut / "checkpoint.npz")["run"]["step"] < 100
    run(name, *flags, "--out", cut, "--resume")
    for file in ["checkpoint.npz", *(f"generators/{n:08d}.npz" for n in range(10, 101, 10))]:
        one, other = (
            dict(flat(load_checkpoint(tmp_path / out / file))) for out in ("whole", "cut")
        )
        assert one.keys() == other.keys()
        for leaf, value in one.items():
            assert np.array_equal(value, other[leaf]), (file, leaf)
    assert (cut / "log.jsonl").read_text() == (tmp_path / "whole" / "log.jsonl").read_text()
    assert (cut / "samples.png").read_bytes() == (tmp_path / "whole" / "samples.png").read_bytes()


def test_what_each_keeps_beside_the_networks(folder, tmp_path):
    states = {}
    for name in SCRIPTS:
        run(name, "--steps", 2, "--data-dir", folder, "--out", tmp_path / name)
        states[name] = dict(flat(load_checkpoint(tmp_path / name / "checkpoint.npz")))
    weights = [v for k, v in states["wgan"].items() if re.fullmatch(r"c/.*(weight|bias)", k)]
    assert weights
    assert all(np.abs(w).max() <= np.float32(0.01) for w in weights)
    assert sum(re.fullmatch(r"d/.*\bu", key) is not None for key in states["sngan"]) == 13
    assert states["sngan"]["decay_d/calls"] == states["sngan"]["decay_g/calls"] == 2
    assert states["r1gan"]["average/updates"] == 2
    snapshot = load_checkpoint(tmp_path / "r1gan" / "generators" / "00000002.npz")["network"]
    for part, values in snapshot.items():  # samples are made by the average
        assert np.array_equal(values, states["r1gan"][f"average/module/{part}"])
    assert not np.array_equal(snapshot["last.weight"], states["r1gan"]["g/last.weight"])
    for name in ("wgan", "wgan_gp"):
        assert states[name]["batches/cursor"] == 2 * 2 * 4  # two steps, two batches of four each


def test_a_critic_under_a_penalty_has_no_batchnorm(folder, tmp_path):
    for name in ("wgan_gp", "r1gan", "sngan"):
        run(name, "--steps", 1, "--data-dir", folder, "--out", tmp_path / name)
        critic = load_checkpoint(tmp_path / name / "checkpoint.npz")[CRITIC[name]]
        assert critic
        assert not any("running_mean" in key for key in critic)


# ------------------------------------------------------------------------- whose gradients, when


@scripts
def test_each_learns_while_the_other_stays_as_it_is(name, folder, tmp_path, monkeypatch):
    """Between the ends of two steps of optimisers, only the second one's network has changed."""
    kind = "RMSprop" if name == "wgan" else "Adam"
    bound = 0.01 if name == "wgan" else np.inf
    seen, turns = {}, []

    def state(optimizer):
        grads = [None if p.grad is None else p.grad.copy() for p in optimizer.params]
        return [p.data.copy() for p in optimizer.params], grads

    class Watched(getattr(optim, kind)):
        def step(self):
            for other, (weights, grads) in seen.items():
                if other is self:
                    continue
                now_weights, now_grads = state(other)
                for then, now in zip(weights, now_weights, strict=True):
                    assert np.array_equal(then, now) or np.array_equal(
                        np.clip(then, -bound, bound), now
                    ), "the other one's weights"
                assert all(map(np.array_equal, grads, now_grads)), "the other one's gradients"
            assert any(p.grad is not None and p.grad.any() for p in self.params)
            super().step()
            seen[self] = state(self)
            turns.append(self)

    monkeypatch.setattr(optim, kind, Watched)
    own, _ = SCRIPTS[name]
    flags = ["--steps", "2", "--data-dir", str(folder), "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", [name, *SMALL, *own, *flags])
    found = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    assert module.main() == 0
    critic, generator = turns[0], turns[-1]
    assert critic is not generator
    round_of = [critic] * (2 if own else 1) + [generator]
    assert turns == round_of * 2


# --------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("wgan", ["--clip", "0"], "--clip: must be a number above 0, not '0'"),
        ("wgan", ["--critic-steps", "0"], "--critic-steps: must be a whole number of 1 or more"),
        ("wgan_gp", ["--penalty", "nan"], "--penalty: must be a number above 0, not 'nan'"),
        ("wgan_gp", ["--penalty", "inf"], "--penalty: must be a number above 0, not 'inf'"),
        ("wgan_gp", ["--critic-steps", "x"], "--critic-steps: must be a whole number"),
        ("sngan", ["--size", "48"], "--size for fashion-mnist must be one of 32, 64, 128"),
        ("r1gan", ["--gamma", "-1"], "--gamma: must be a number above 0, not '-1'"),
        ("r1gan", ["--gamma", "ten"], "--gamma: must be a number above 0, not 'ten'"),
    ],
)
def test_a_bad_flag_exits_with_2_and_the_usage(name, flags, words, tmp_path):
    said = run(name, "--out", tmp_path / "run", *flags, code=2).stderr
    assert words in said
    assert said.startswith(f"usage: {name}.py")
    assert not (tmp_path / "run").exists()


@scripts
def test_a_batch_larger_than_the_data_is_refused_before_anything_is_written(name, folder, tmp_path):
    flags = ["--batch", 41, "--data-dir", folder, "--out", tmp_path / "run"]
    said = run(name, *flags, code=2).stderr
    assert said.startswith("error: Batches: batch_size is 41 but must be in 1 to count, which")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "flag", "was", "now"),
    [
        ("wgan", "--clip", "0.01", "0.1"),
        ("wgan_gp", "--penalty", "10.0", "1.0"),
        ("r1gan", "--gamma", "1.0", "2.0"),
    ],
)
def test_going_on_with_another_bound_is_refused(name, flag, was, now, folder, tmp_path):
    flags = ["--data-dir", folder, "--out", tmp_path / "run"]
    run(name, *flags, "--steps", 1, flag, was)
    said = run(name, *flags, "--steps", 2, flag, now, "--resume", code=2).stderr
    assert said.endswith(f"was made with {flag} {was}, not {now}\n")


@scripts
def test_the_scripts_are_short_and_their_help_reads_well(name):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 150
    said = run(name, "--help").stdout
    for flag in ["steps", "seed", "device", "out", "resume", "gif", "data", "size", "batch", "z"]:
        assert re.search(rf"--{flag}\b", said), flag


@scripts
def test_a_critic_learns_the_real_data(name, tmp_path):
    """A few steps make no clothes, but soon real and generated images have different scores."""
    try:
        data.fashion_mnist(part="test")
    except data.MissingDataError as error:
        pytest.skip(str(error))
    flags = ["--steps", 30, "--limit", 300, "--batch", 8, "--width", 4, "--out", tmp_path / "run"]
    run(name, *flags)
    last = logged(tmp_path / "run")[-1]
    assert last["d_x"] > last["d_gz"]
