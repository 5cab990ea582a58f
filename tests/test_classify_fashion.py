"""examples/classify_fashion.py in a process of its own, on a few images made up here."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made_up import write_fashion

import minigan as mg
from minigan import data, metrics, nn, optim, training
from minigan.models import ImageClassifier
from minigan.training import load_checkpoint

SCRIPT = Path(__file__).resolve().parent.parent / "examples" / "classify_fashion.py"
SMALL = ("--batch", "8", "--width", "2", "--size", "28")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_fashion(tmp_path_factory.mktemp("data"))


def run(*flags, code=0, **environment):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, flags)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_a_run_writes_the_network_its_hash_and_the_confusions(folder, tmp_path):
    out = tmp_path / "run"
    said = run(*SMALL, "--steps", 3, "--data-dir", folder, "--out", out).stdout
    wrote = {"samples.png", "curves.png", "confusion.png", "log.jsonl", "config.json"}
    wrote |= {"metrics.json", "checkpoint.npz", "classifier.npz"}
    assert {path.name for path in out.iterdir()} == wrote
    written = json.loads((out / "metrics.json").read_text())
    confusion = np.array(written["confusion"])
    assert confusion.sum() == written["test_images"] == 40
    assert confusion.sum(axis=1).tolist() == [4] * 10  # a row for each true class
    assert written["accuracy"] == np.trace(confusion) / 40
    assert f"{written['accuracy']:.2%} of 40 test images right" in said

    about = written["classifier"]
    network = ImageClassifier(about["image_shape"], 10, about["width"])
    network.load_state_dict(load_checkpoint(out / "classifier.npz")["network"])
    assert metrics.fingerprint(network) == about["sha256"]
    images, labels = (data.fashion_mnist(folder, "test"), np.arange(40) % 10)
    guess = metrics.extract(network, images.images)["probabilities"].argmax(axis=1)
    again = np.zeros((10, 10), int)
    np.add.at(again, (labels, guess), 1)
    assert np.array_equal(again, confusion)


def test_a_seed_gives_the_same_network_to_the_bit(folder, tmp_path):
    hashes = []
    for i, seed in enumerate((1, 1, 2)):
        flags = ["--steps", 2, "--seed", seed, "--data-dir", folder, "--out", tmp_path / str(i)]
        run(*SMALL, *flags)
        written = json.loads((tmp_path / str(i) / "metrics.json").read_text())
        hashes.append(written["classifier"]["sha256"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_interrupted_and_resumed_ends_at_the_same_network(folder, tmp_path):
    flags = [*SMALL, "--steps", "300", "--data-dir", str(folder)]
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
    assert not (tmp_path / "cut" / "classifier.npz").exists()
    run(*flags, "--out", tmp_path / "cut", "--resume")
    whole, cut = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "cut")
    )
    assert whole["classifier"] == cut["classifier"]
    assert whole["confusion"] == cut["confusion"]


def test_data_that_is_nowhere_is_said_in_one_line_before_anything_is_written(tmp_path):
    flags = ["--data-dir", tmp_path / "none", "--out", tmp_path / "run"]
    said = run(*SMALL, *flags, code=2).stderr
    assert said.startswith("error: Fashion-MNIST: not found in")
    assert "apt install dataset-fashion-mnist" in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_the_environment_says_where_the_data_is(folder, tmp_path):
    flags = [*SMALL, "--limit", "20", "--steps", 1, "--out", tmp_path / "run"]
    run(*flags, MINIGAN_DATA=str(folder))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test_images"] == 20


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--size", "20"], "--size must be from 28 (the images of fashion-mnist)"),
        (["--data", "digits", "--size", "7"], "--size must be from 8 (the images of digits)"),
        (["--data", "emoji"], "invalid choice: 'emoji'"),
        (["--batch", "1"], "--batch must be 2 or more"),
        (["--limit", "5"], "--limit must be at least --batch"),
        (["--steps", "0"], "whole number of 1 or more"),
    ],
)
def test_a_bad_flag_exits_with_2_and_the_usage(flags, words):
    said = run(*flags, code=2).stderr
    assert words in said
    assert said.startswith("usage: classify_fashion.py")


def test_a_batch_larger_than_the_data_is_refused_before_anything_is_written(folder, tmp_path):
    flags = ["--batch", 41, "--data-dir", folder, "--out", tmp_path / "run"]
    said = run(*flags, code=2).stderr
    assert said.startswith("error: Batches: batch_size is 41 but must be in 1 to count")
    assert not (tmp_path / "run").exists()


def test_digits_are_not_mirrored(folder, tmp_path, monkeypatch):
    """Clothes are; and the same files, named mnist, are read as digits."""
    flipped = []
    monkeypatch.setattr(data, "flip", lambda x: flipped.append(len(x)) or x)
    spec = importlib.util.spec_from_file_location("classify_fashion", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name, times in (("mnist", 0), ("fashion-mnist", 2)):
        flags = ["--data", name, "--steps", "2", "--data-dir", str(folder)]
        monkeypatch.setattr(sys, "argv", ["x", *SMALL, *flags, "--out", str(tmp_path / name)])
        assert script.main() == 0
        assert len(flipped) == times
        written = json.loads((tmp_path / name / "metrics.json").read_text())
        assert written["classes"][:1] == ["0" if name == "mnist" else "T-shirt"]


def test_the_script_is_short_and_has_five_blocks():
    text = SCRIPT.read_text()
    assert len(text.splitlines()) < 150
    for number, name in enumerate(("Data", "Model", "Loss", "Optimiser", "Evaluation"), 1):
        assert f"    # {number}. {name}: " in text


def test_it_learns_the_real_data(tmp_path):
    """A hundred small steps are far from the 91 % of the whole run, and far from chance too."""
    try:
        data.fashion_mnist(part="test")
    except data.MissingDataError as error:
        pytest.skip(str(error))
    flags = ["--width", "8", "--steps", 60, "--batch", 64, "--limit", 4000]
    run(*flags, "--out", tmp_path / "run")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["accuracy"] > 0.7


# ---------------------------------------------------------------------------------- what it uses


def test_the_classifier_is_its_features_and_its_last_layer():
    mg.manual_seed(0)
    network = ImageClassifier((13, 9, 3), classes=4, width=2, features=5).eval()
    x = mg.Tensor(np.random.default_rng(0).uniform(-1, 1, (3, 13, 9, 3)))
    features = network.features(x)
    assert features.shape == (3, 5)
    assert features.numpy().min() >= 0
    assert np.array_equal(network(x).numpy(), network.last(features).numpy())
    network.train()
    assert not np.array_equal(network.classify(features).numpy(), network.last(features).numpy())
    with pytest.raises(ValueError, match=r"ImageClassifier: images of 4 pixels or more"):
        ImageClassifier((3, 32, 1))


def test_the_classifier_learns_by_heart():
    mg.manual_seed(0)
    random = np.random.default_rng(0)
    x, y = mg.Tensor(random.uniform(-1, 1, (16, 8, 8, 1))), random.integers(0, 3, 16)
    network = ImageClassifier((8, 8, 1), 3, width=4, features=16)
    adam = optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        loss = mg.losses.cross_entropy(network(x), y)
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert (network.eval()(x).numpy().argmax(axis=1) == y).all()
    assert isinstance(network.last, nn.Linear)


def test_a_confusion_matrix_is_drawn_with_rows_as_truth(tmp_path):
    image = pytest.importorskip("PIL.Image")
    counts = np.array([[0, 10, 0], [0, 10, 0], [0, 0, 0]])
    training.save_confusion(tmp_path / "c.png", counts, ["aaa", "bbb", "ccc"])
    with image.open(tmp_path / "c.png") as file:
        picture = np.asarray(file.convert("RGB")).astype(int)
    dark = picture[..., 2] - picture[..., 0] > 50  # deep blue
    rows, columns = np.nonzero(dark)
    assert 1.6 < (np.ptp(rows) + 1) / (np.ptp(columns) + 1) < 2.4  # two cells above each other


@pytest.mark.parametrize("counts", [np.zeros((2, 3), int), np.zeros((3, 3)), -np.eye(3, dtype=int)])
def test_a_confusion_matrix_of_other_counts_is_refused(counts, tmp_path):
    with pytest.raises(ValueError, match=r"save_confusion: counts must be \(3, 3\), integers"):
        training.save_confusion(tmp_path / "c.png", counts, ["a", "b", "c"])
    assert list(tmp_path.iterdir()) == []
