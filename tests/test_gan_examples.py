"""The GAN scripts as a user runs them: on a few images made up here, and never downloaded."""

import importlib.util
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
from made_up import run_without, write_fashion

from minigan import data, models, optim, training
from minigan.training import load_checkpoint

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SMALL = ("--batch", "4", "--z", "5")
SCRIPTS = {  # name: its command, small
    "dcgan": ("dcgan.py", "--width", "4"),
    "lsgan": ("dcgan.py", "--loss", "lsgan", "--width", "4"),
    "gan_mlp": ("gan_mlp.py", "--width", "20"),
    "cgan": ("cgan.py", "--width", "4"),
}
KINDS = {"gan_mlp": "MLPGenerator", "cgan": "ConditionalGenerator"}
WROTE = {"samples.png", "curves.png", "interpolation.png", "neighbours.png", "generators"}
WROTE |= {"log.jsonl", "metrics.json", "checkpoint.npz", "config.json"}

scripts = pytest.mark.parametrize("name", SCRIPTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_fashion(tmp_path_factory.mktemp("data"))


def command(name, *flags):
    script, *own = SCRIPTS[name]
    return [sys.executable, str(EXAMPLES / script), *SMALL, *own, *map(str, flags)]


def run(name, *flags, code=0, **environment):
    done = subprocess.run(
        command(name, *flags),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


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
    films = ["--gif"] if name == "cgan" else []
    run(name, "--steps", 3, "--data-dir", folder, "--out", out, *films)
    made = {"frames", "training.gif"} if films else set()
    assert {path.name for path in out.iterdir()} == WROTE | made
    written = json.loads((out / "metrics.json").read_text())
    assert written["steps"] == 3
    assert written["seconds"] > 0
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3]
    assert set(log[0]) == {"step", "d", "g", "d_x", "d_gz"}
    if name != "lsgan":
        assert all(0 < line[said] < 1 for line in log for said in ("d_x", "d_gz"))

    found = training.snapshots(out)
    assert list(found) == [1, 2, 3]
    generator = training.load_generator(found[3])
    assert type(generator).__name__ == KINDS.get(name, "DCGANGenerator")
    assert generator.image_shape == (32, 32, 1)
    trained = load_checkpoint(out / "checkpoint.npz")["g"]
    for part, weights in generator.state_dict().items():
        assert np.array_equal(weights, trained[part]), part


@scripts
def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(name, folder, tmp_path):
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
    assert not (cut / "metrics.json").exists()
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


def test_a_second_run_puts_the_generators_of_the_first_aside(folder, tmp_path):
    for steps in (2, 1):
        run("gan_mlp", "--steps", steps, "--data-dir", folder, "--out", tmp_path / "run")
    assert list(training.snapshots(tmp_path / "run")) == [1]
    assert list(training.snapshots(tmp_path / "run" / "previous-1")) == [1, 2]


def test_seeds_differ_and_repeat(folder, tmp_path):
    logs = []
    for i, seed in enumerate((1, 1, 2)):
        out = tmp_path / str(i)
        run("dcgan", "--steps", 2, "--seed", seed, "--data-dir", folder, "--out", out)
        logs.append((out / "log.jsonl").read_text())
    assert logs[0] == logs[1] != logs[2]


def test_emoji_are_made_in_colour_and_their_artists_named(tmp_path):
    flags = ["--data", "emoji", "--size", 8, "--limit", 8, "--steps", 1, "--out", tmp_path / "run"]
    run("dcgan", *flags, MINIGAN_CACHE=str(tmp_path / "cache"))
    generator = training.load_generator(training.snapshots(tmp_path / "run")[1])
    assert generator.image_shape == (8, 8, 3)
    assert "CC BY-SA 4.0" in (tmp_path / "run" / "ATTRIBUTION.txt").read_text()


# ------------------------------------------------------------------------- whose gradients, when


def load_script(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / SCRIPTS[name][0])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@scripts
def test_each_learns_while_the_other_stays_as_it_is(name, folder, tmp_path, monkeypatch):
    """Between the ends of two steps of optimisers, only the second one's network has changed."""
    seen, turns = {}, []

    def state(adam):
        grads = [None if p.grad is None else p.grad.copy() for p in adam.params]
        return [p.data.copy() for p in adam.params], grads

    class WatchedAdam(optim.Adam):
        def step(self):
            for other, (weights, grads) in seen.items():
                if other is self:
                    continue
                now_weights, now_grads = state(other)
                assert all(map(np.array_equal, weights, now_weights)), "the other one's weights"
                assert all(map(np.array_equal, grads, now_grads)), "the other one's gradients"
            assert all(p.grad is not None and p.grad.any() for p in self.params)
            super().step()
            seen[self] = state(self)
            turns.append(self)

    monkeypatch.setattr(optim, "Adam", WatchedAdam)
    script, *own = SCRIPTS[name]
    flags = ["--steps", "3", "--data-dir", str(folder), "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", [script, *SMALL, *own, *flags])
    assert load_script(name).main() == 0
    assert len(turns) == 6
    assert turns[:2] * 3 == turns
    assert turns[0] is not turns[1]


def test_with_augment_no_image_is_seen_unchanged_and_the_generator_learns_through_it(
    folder, tmp_path, monkeypatch
):
    changed, seen, change = [], [], data.diff_augment
    forward = models.DCGANDiscriminator.forward

    def watched_change(images):
        changed.append((images.requires_grad, change(images)))
        return changed[-1][1]

    def watched(self, images):
        seen.append(images)
        return forward(self, images)

    monkeypatch.setattr(data, "diff_augment", watched_change)
    monkeypatch.setattr(models.DCGANDiscriminator, "forward", watched)
    for flag in ([], ["--augment"]):
        flags = ["--steps", "2", "--data-dir", str(folder), "--out", str(tmp_path / f"run{flag}")]
        monkeypatch.setattr(sys, "argv", ["dcgan.py", *SMALL, "--width", "4", *flags, *flag])
        assert load_script("dcgan").main() == 0
        assert bool(changed) == bool(flag)
    # The real ones, the generated ones cut off, and those through which the generator learns.
    assert [learns for learns, _ in changed] == [False, False, True] * 2
    assert all(a is b for a, (_, b) in zip(seen[6:], changed, strict=True))


# --------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data", "imagenet"], r"invalid choice: 'imagenet'.*digits.*emoji.*fashion-mnist"),
        (["--width", "0"], "--width: must be a whole number of 1 or more, not '0'"),
        (["--z", "-1"], "--z: must be a whole number of 1 or more"),
        (["--batch", "1"], "--batch must be 2 or more"),
        (["--size", "48"], "--size for fashion-mnist must be one of 32, 64, 128"),
        (["--size", "16"], "--size for fashion-mnist must be one of 32, 64, 128"),
        (["--data", "digits", "--size", "9"], "--size for digits must be one of 8, 16, 32"),
        (["--limit", "3"], "--limit must be at least --batch"),
        (["--loss", "wgan"], "invalid choice: 'wgan'"),
    ],
)
def test_a_bad_flag_exits_with_2_and_the_usage(flags, words, tmp_path):
    said = run("dcgan", "--out", tmp_path / "run", *flags, code=2).stderr
    assert re.search(words, said)
    assert said.startswith("usage: dcgan.py")
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_data_is_refused_before_anything_is_written(folder, tmp_path):
    flags = ["--batch", 41, "--data-dir", folder, "--out", tmp_path / "run"]
    said = run("dcgan", *flags, code=2).stderr
    assert said.startswith("error: Batches: batch_size is 41 but must be in 1 to count, which")
    assert not (tmp_path / "run").exists()


def test_data_that_is_nowhere_is_said_before_anything_is_written(tmp_path):
    flags = ["--data-dir", tmp_path / "none", "--out", tmp_path / "run"]
    said = run("dcgan", *flags, code=2).stderr
    assert said.startswith("error: Fashion-MNIST: not found in")
    assert not (tmp_path / "run").exists()


def test_a_package_that_is_not_there_is_said_in_one_line(tmp_path):
    flags = "--data", "digits", "--out", tmp_path / "run"
    done = run_without("sklearn", EXAMPLES / "dcgan.py", *flags)
    assert done.returncode == 2
    assert done.stderr.startswith("error: digits needs scikit-learn")


def test_going_on_with_another_loss_is_refused(folder, tmp_path):
    flags = ["--data-dir", folder, "--out", tmp_path / "run"]
    run("dcgan", *flags, "--steps", 1)
    said = run("dcgan", *flags, "--steps", 2, "--loss", "lsgan", "--resume", code=2).stderr
    assert said.endswith("was made with --loss gan, not lsgan\n")


def test_the_data_may_have_moved_when_a_run_goes_on(folder, tmp_path):
    run("gan_mlp", "--data-dir", folder, "--out", tmp_path / "run", "--steps", 1)
    run("gan_mlp", "--out", tmp_path / "run", "--steps", 2, "--resume", MINIGAN_DATA=str(folder))


@pytest.mark.parametrize("script", sorted({own[0] for own in SCRIPTS.values()}))
def test_the_scripts_are_short_and_their_help_reads_well(script):
    assert len((EXAMPLES / script).read_text().splitlines()) < 150
    said = subprocess.run(
        [sys.executable, str(EXAMPLES / script), "--help"], capture_output=True, text=True
    ).stdout
    for flag in ["steps", "seed", "device", "out", "resume", "gif", "data", "size", "batch", "z"]:
        assert re.search(rf"--{flag}\b", said), flag


@scripts
def test_a_discriminator_learns_the_real_data(name, tmp_path):
    """Forty steps make no clothes, but soon real and generated images can be told apart."""
    try:
        data.fashion_mnist(part="test")
    except data.MissingDataError as error:
        pytest.skip(str(error))
    flags = ["--steps", 40, "--limit", 500, "--batch", 16, "--out", tmp_path / "run"]
    run(name, *flags, *(["--width", 200] if name == "gan_mlp" else []))
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert last["d_x"] > last["d_gz"] + 0.05
