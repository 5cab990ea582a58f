"""examples/ring.py in a process of its own, and the pictures that it draws."""

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

import minigan as mg
from minigan import data, optim, training
from minigan.training import load_checkpoint

SCRIPT = Path(__file__).resolve().parent.parent / "examples" / "ring.py"
SMALL = ("--batch", "16", "--width", "8")
LOSSES = ("gan", "r1", "wgan-gp")


def run(*flags, code=0):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, flags)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_writes_the_film_the_curves_and_what_it_found(loss, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    flags = ["--loss", loss, *SMALL, "--steps", 3, "--data", "grid" if loss == "r1" else "ring"]
    said = run(*flags, "--out", tmp_path / "run").stdout
    out = tmp_path / "run"
    wrote = {"training.gif", "frames", "samples.png", "curves.png", "log.jsonl", "metrics.json"}
    wrote |= {"checkpoint.npz", "checkpoint-1.npz", "config.json"}
    assert {path.name for path in out.iterdir()} == wrote
    with Image.open(out / "training.gif") as film:
        assert film.n_frames == 3
    found = json.loads((out / "metrics.json").read_text())
    assert set(found) == {
        *("steps", "seconds", "loss", "places", "of", "good", "counts", "total_variation")
    }
    assert found["of"] == len(found["counts"]) == (25 if loss == "r1" else 8)
    assert f"{found['places']} of {found['of']} places" in said
    assert found["good"] == pytest.approx(sum(found["counts"]) / 10000)
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3]
    assert set(log[-1]) == {"step", "d", "g", "places", "good"}
    assert json.loads((out / "config.json").read_text())["script"] == "ring"


def test_interrupted_and_resumed_ends_at_the_same_points(tmp_path):
    flags = [*SMALL, "--loss", "wgan-gp", "--steps", "200"]
    run(*flags, "--out", tmp_path / "whole")
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *flags, "--out", str(tmp_path / "cut")],
        stderr=subprocess.PIPE,
        text=True,
    )
    log, until = tmp_path / "cut" / "log.jsonl", time.monotonic() + 120
    while not log.exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert load_checkpoint(tmp_path / "cut" / "checkpoint.npz")["run"]["step"] < 200
    run(*flags, "--out", tmp_path / "cut", "--resume")
    whole, cut = (load_checkpoint(tmp_path / n / "checkpoint.npz") for n in ("whole", "cut"))
    for part in ("g", "d"):
        for name, weight in whole[part].items():
            assert np.array_equal(weight, cut[part][name]), name


def test_seeds_differ_and_repeat(tmp_path):
    counts = []
    for i, seed in enumerate((1, 1, 2)):
        run(*SMALL, "--steps", 2, "--seed", seed, "--std", "0.3", "--out", tmp_path / str(i))
        counts.append(json.loads((tmp_path / str(i) / "metrics.json").read_text())["counts"])
    assert counts[0] == counts[1] != counts[2]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--loss", "vae"], "invalid choice: 'vae'"),
        (["--data", "moons"], "invalid choice: 'moons'"),
        (["--std", "0"], "--std: must be a number above 0, not '0'"),
        (["--std", "nan"], "--std: must be a number above 0, not 'nan'"),
        (["--slope", "nan"], "--slope must be from 0 to 1"),
        (["--slope", "-3"], "--slope must be from 0 to 1"),
        (["--steps", "0"], "whole number of 1 or more"),
    ],
)
def test_a_bad_flag_exits_with_2_and_the_usage(flags, words):
    said = run(*flags, code=2).stderr
    assert words in said
    assert said.startswith("usage: ring.py")


def test_a_batch_larger_than_the_data_is_refused_before_anything_is_written(tmp_path):
    said = run("--batch", 20001, "--out", tmp_path / "run", code=2).stderr
    assert said.startswith("error: Batches: batch_size is 20001 but must be in 1 to count")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("ring", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("loss", LOSSES)
def test_the_losses_are_the_formulas(loss, script):
    """Of the critic a·x, whose slope is a everywhere."""
    a = np.array([3.0, -4.0], np.float32)  # ‖a‖ = 5
    real, fake = (
        mg.Tensor(np.random.default_rng(i).standard_normal((6, 2), np.float32)) for i in (0, 1)
    )
    on_real, on_fake = (x.numpy().astype(float) @ a for x in (real, fake))
    got = script.loss_d(loss, lambda x: x @ mg.Tensor(a[:, None]), real, fake).item()
    log_d = np.logaddexp(0, -on_real).mean() + np.logaddexp(0, on_fake).mean()
    expected = {
        "gan": log_d,
        "r1": log_d + script.GAMMA / 2 * 5**2,
        "wgan-gp": on_fake.mean() - on_real.mean() + script.LAMBDA * (5 - 1) ** 2,
    }
    assert got == pytest.approx(expected[loss], rel=1e-5)
    scores = mg.Tensor(on_fake[:, None], dtype=np.float32)
    expected_g = -on_fake.mean() if loss == "wgan-gp" else np.logaddexp(0, -on_fake).mean()
    assert script.loss_g(loss, scores).item() == pytest.approx(expected_g, rel=1e-5)


def test_a_place_is_found_by_a_tenth_of_its_fair_share(script):
    real = data.load_points("ring", 10, std=0.05)
    made = real.centres[[0] * 965 + [1] * 13 + [2] * 12 + [3] * 10]
    made[-10:] *= 2  # near no place
    found = script.places_found(real, made)
    assert (found["places"], found["of"]) == (2, 8)  # 12.5 points are a tenth of an eighth
    assert found["counts"] == [965, 13, 12, 0, 0, 0, 0, 0]
    assert found["good"] == pytest.approx(0.99)


@pytest.mark.parametrize("loss", LOSSES)
def test_each_learns_while_the_other_stays_as_it_is(loss, script, tmp_path, monkeypatch):
    before, turns = {}, []

    class Watched(optim.Adam):
        def step(self):
            for other, (weights, gradients) in before.items():
                if other is not self:
                    assert all(map(np.array_equal, weights, (p.data for p in other.params)))
                    assert all(map(np.array_equal, gradients, (p.grad for p in other.params)))
            super().step()
            now = ([p.data.copy() for p in self.params], [p.grad.copy() for p in self.params])
            before[self] = now
            turns.append(self)

    monkeypatch.setattr(optim, "Adam", Watched)
    flags = ["--loss", loss, "--steps", "2", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["ring.py", *SMALL, *flags])
    assert script.main() == 0
    critic, generator = turns[0], turns[-1]
    assert critic is not generator
    assert turns == ([critic] * script.CRITIC_STEPS[loss] + [generator]) * 2


def test_the_script_is_short_and_its_help_reads_well():
    assert len(SCRIPT.read_text().splitlines()) < 150
    said = run("--help").stdout
    for flag in ["steps", "seed", "device", "out", "resume", "loss", "data", "std", "slope"]:
        assert re.search(rf"--{flag}\b", said), flag


@pytest.mark.long
@pytest.mark.parametrize("loss", LOSSES)
def test_the_plain_gan_loses_places_and_a_penalty_keeps_them(loss, tmp_path):
    run("--loss", loss, "--out", tmp_path / "run")
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (found["places"] == 8) == (loss != "gan"), found


# ---------------------------------------------------------------------------------- what it uses


def test_the_picture_is_warm_where_the_critic_is_high_and_shows_both_kinds_of_points(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    real = np.array([[0.8, 0.8], [-0.8, 0.8], [0.8, -0.8], [-0.8, -0.8]])
    fake = np.full((50, 2), 0.4)
    training.save_plane(tmp_path / "p.png", real, fake, lambda places: places[:, 0], "a title")
    with Image.open(tmp_path / "p.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    left, right = (pixels[height // 2, int(width * share)] for share in (0.08, 0.92))
    assert left[2] - left[0] > 50  # cold
    assert right[0] - right[2] > 50  # warm
    ink = np.abs(pixels - np.array([0x2A, 0x6F, 0xDB])).sum(axis=2) < 30
    rows, columns = np.nonzero(ink)
    assert len(rows) > 3
    assert columns.mean() > width * 0.55  # above and to the right of the middle
    assert rows.mean() < height * 0.5


def test_a_critic_that_says_the_same_everywhere_can_be_drawn(tmp_path):
    points = data.load_points("ring", 20).points
    training.save_plane(tmp_path / "p.png", points, points, lambda places: np.zeros(len(places)))
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_points_take_another_spread():
    narrow, wide = (data.load_points("ring", 2000, std=std) for std in (0.01, 0.2))
    assert narrow.std == 0.01
    assert wide.points.std() > narrow.points.std()
    assert data.load_points("grid", 10).std == 0.05
    with pytest.raises(ValueError, match="std is 0 but must be above 0"):
        data.load_points("ring", 10, std=0)
