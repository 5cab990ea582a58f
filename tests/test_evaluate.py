"""examples/evaluate.py in a process of its own, and what it is made of; on images made up here."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_up import run_without

import minigan as mg
from minigan import data, losses, metrics, optim, training
from minigan.data import mnist_sets
from minigan.models import ConditionalGenerator, DCGANGenerator, ImageClassifier
from minigan.training import judging, report

SCRIPT = Path(__file__).resolve().parent.parent / "examples" / "evaluate.py"
COUNT, SHAPE = 60, (32, 32, 1)
SMALL = ("--count", COUNT, "--pick", 30, "--subset", 20)


def pictures(seed, count=120):
    """Images of 28×28 with a bright patch whose place tells the class."""
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.uint8) % 10
    images = random.integers(0, 60, (count, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        y, x = label // 5 * 14, label % 5 * 5
        image[y : y + 13, x : x + 6] += 150
    return images, labels


def idx(array):
    shape = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def trained(size, classes, seed=0):
    mg.manual_seed(seed)
    network = ImageClassifier((size, size, 1), classes, width=6, features=8)
    images, labels = pictures(2, 400)
    x = data.to_unit(data.images.padded(images[..., None], size))
    adam = optim.Adam(network.parameters(), lr=1e-2)
    for step in range(150):
        part = slice(step * 40 % 400, step * 40 % 400 + 40)
        loss = losses.cross_entropy(network(mg.Tensor(x[part])), labels[part] % classes)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return network


def write_run(folder, seed, steps=(1, 2), kind=DCGANGenerator, **settings):
    """What a GAN script leaves: generators, its settings, and how long it took."""
    mg.manual_seed(seed)
    shape = settings.pop("shape", SHAPE)
    (folder / "generators").mkdir(parents=True)
    for step in steps:
        training.save_generator(
            folder / "generators" / f"{step:08d}.npz", kind(shape, width=2, z_size=4)
        )
    config = {"data": "fashion-mnist", "size": 32, "seed": seed, "out": str(folder), **settings}
    content = {"script": "dcgan", "config": config, "versions": {}}
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "metrics.json").write_text(json.dumps({"seconds": 100.0 + seed}))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data, a classifier, and runs."""
    place = tmp_path_factory.mktemp("place")
    for seed, (images, labels) in enumerate(mnist_sets.FILES.values()):
        pixels, marks = pictures(seed)
        (place / images).write_bytes(gzip.compress(idx(pixels)))
        (place / labels).write_bytes(gzip.compress(idx(marks)))
    for name, size, classes in (("classifier", 32, 10), ("other", 28, 10), ("five", 32, 5)):
        state = {"network": trained(size, classes).state_dict()}
        training.save_checkpoint(place / f"{name}.npz", state)
    mg.manual_seed(0)
    untrained = ImageClassifier(SHAPE, 10, width=6, features=8).state_dict()
    training.save_checkpoint(place / "untrained.npz", {"network": untrained})
    write_run(place / "dcgan-0", 0)
    write_run(place / "dcgan-1", 1)
    write_run(place / "wide", 0, width=4)
    write_run(place / "conditional", 3, kind=conditional)
    write_run(place / "small", 0, size=16, shape=(16, 16, 1))
    write_run(place / "digits", 0, data="mnist")
    write_run(place / "ring", 0, data="ring")
    write_run(place / "middle", 0, steps=(1, 2, 3))
    damage(place / "middle" / "generators" / "00000002.npz")
    (place / "empty").mkdir()
    write_run(place / "unbegun", 0, steps=())
    images, labels = pictures(1)
    images = data.images.padded(images[..., None], 32)
    np.savez(place / "real.npz", images=images)
    np.savez(place / "labelled.npz", images=images, labels=labels.astype(np.int64))
    eleven = np.arange(len(images)) % 11
    np.savez(place / "eleven.npz", images=images, labels=eleven)
    np.savez(place / "few.npz", images=images[:50])
    np.savez(place / "floats.npz", images=images / 255)
    np.savez(place / "other-name.npz", pictures=images)
    np.savez(place / "shape.npz", images=images[:, :28, :28])
    write_run(place / "archives", 0, steps=())
    for step, name in enumerate(("few.npz", "real.npz"), 1):
        archive = place / "archives" / "generators" / f"{step:08d}.npz"
        archive.write_bytes((place / name).read_bytes())
    (place / "broken.npz").write_bytes((place / "real.npz").read_bytes()[:-200])
    return place


def damage(path):
    """Flip a byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def conditional(shape, width, z_size):
    return ConditionalGenerator(shape, classes=10, width=width, z_size=z_size)


def run(place, *flags, code=0, classifier="classifier.npz"):
    command = [sys.executable, str(SCRIPT), "--data-dir", place, "--classifier", place / classifier]
    done = subprocess.run(
        [*map(str, command), *map(str, flags)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def judged(place, out, *flags):
    run(place, *SMALL, "--out", out, *flags)
    return json.loads((out / "evaluation.json").read_text())


def test_without_runs_it_gives_the_floor_and_the_ladder(place, tmp_path):
    said = run(place, *SMALL, "--out", tmp_path / "e").stdout
    assert {f.name for f in (tmp_path / "e").iterdir()} == {
        *("evaluation.json", "evaluation.md", "ladder.png")
    }
    assert (tmp_path / "e" / "evaluation.md").read_text().strip() == said.strip()
    found = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert (found["count"], found["pick"], found["subset"]) == (COUNT, 30, 20)
    assert len(found["classifier"]["sha256"]) == 64
    assert found["classifier"]["sha256"][:12] in said
    assert found["floor"]["classes_hit"] == 10
    assert len(found["ladder"]) == 9
    assert found["floor"]["frechet"] < found["ladder"]["noise of 0.4"]["frechet"]
    assert found["ladder"]["no trousers"]["classes_hit"] == 9
    assert found["ladder"]["5 classes of 10"]["total_variation"] == pytest.approx(0.5, abs=0.1)


def test_runs_that_differ_in_their_seed_are_one_row(place, tmp_path):
    runs = [place / name for name in ("dcgan-0", "dcgan-1", "wide", "conditional")]
    found = judged(place, tmp_path / "e", "--no-ladder", *runs)
    assert [r["seed"] for r in found["runs"]] == [0, 1, 0, 3]
    for one in found["runs"]:
        distances = {int(step): value for step, value in one["distances"].items()}
        assert one["best"]["step"] == min(distances, key=distances.get)
        assert one["last"]["step"] == 2
        assert one["seconds"] == 100 + one["seed"]
    text = (tmp_path / "e" / "evaluation.md").read_text()
    first, second = text.split("Each run:")
    assert "best of 3 runs" in first or "last of 2 runs" in first
    assert "100 ± 1" in first or "101 ± 2" in first
    assert first.count("\n| dcgan") >= 4
    assert second.count("dcgan-0") == 2
    assert found["runs"][3]["last"]["as_asked"] is not None
    assert found["runs"][0]["last"]["as_asked"] is None
    again = judged(place, tmp_path / "again", "--no-ladder", *runs)
    assert again == found


def test_the_floor_is_training_images_and_the_best_is_chosen_by_other_noise(place, tmp_path):
    runs = [place / "conditional", place / "real.npz"]
    found = judged(place, tmp_path / "e", "--no-ladder", "--seed", 5, *runs)
    train, test = (data.fashion_mnist(place, part, 32) for part in ("train", "test"))
    classifier = training.load_classifier(place / "classifier.npz", test)
    judge = metrics.Judge(classifier, test.first(COUNT), subset_size=20)
    drawn = metrics.drawn(train, COUNT, seed=5).images
    assert found["floor"]["frechet"] == pytest.approx(judge.distance(drawn), rel=1e-6)
    made, archive = (judging.find_candidate(run, "fashion-mnist", SHAPE, COUNT) for run in runs)
    for run, one in zip(found["runs"], (made, archive), strict=True):
        for step, distance in run["distances"].items():
            other = one.images(int(step), 30, seed=6, from_end=True)[0]
            assert distance == pytest.approx(judge.distance(other), rel=1e-6)
        last = one.images(run["last"]["step"], COUNT, seed=5)[0]
        assert run["last"]["frechet"] == pytest.approx(judge.distance(last), rel=1e-6, abs=1e-9)


def test_an_archive_of_the_test_images_is_perfect(place, tmp_path):
    runs = [place / "real.npz", place / "labelled.npz"]
    found = judged(place, tmp_path / "e", "--no-ladder", *runs)
    for one in found["runs"]:
        assert one["last"]["frechet"] == pytest.approx(0, abs=1e-6)
        assert one["last"]["precision"] == one["last"]["recall"] == 1
    assert found["runs"][0]["last"]["as_asked"] is None
    assert found["runs"][1]["last"]["as_asked"] == found["classifier"]["accuracy"]


def test_a_folder_may_hold_archives_in_place_of_generators(place, tmp_path):
    images, _ = pictures(1)
    folder = tmp_path / "torch" / "generators"
    folder.mkdir(parents=True)
    padded = data.images.padded(images[..., None], 32)
    np.savez(folder / "00000010.npz", images=padded[::-1] // 2)
    np.savez(folder / "00000020.npz", images=padded)
    config = {"data": "fashion-mnist", "size": 32, "seed": 0}
    content = {"script": "gan_torch", "config": config}
    (tmp_path / "torch" / "config.json").write_text(json.dumps(content))
    found = judged(place, tmp_path / "e", "--no-ladder", tmp_path / "torch")
    assert found["runs"][0]["best"]["step"] == 20
    assert found["runs"][0]["script"] == "gan_torch"
    assert found["runs"][0]["seconds"] is None


def test_teaching_has_a_column_of_its_own(place, tmp_path):
    flags = ["--count", 120, "--pick", 30, "--subset", 20, "--no-ladder"]
    run(place, *flags, "--out", tmp_path / "e", "--cas", "--cas-steps", 2, place / "real.npz")
    found = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert 0 <= found["floor"]["teaches"] <= 1
    assert "teaches" in (tmp_path / "e" / "evaluation.md").read_text()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "is no run: there is no config.json"),
        ("empty", "is no run: there is no config.json"),
        ("unbegun", "has no generators"),
        ("small", "was trained with --size 16, but is to be compared with --size 32"),
        (
            "digits",
            "was trained with --data mnist, but is to be compared with --data fashion-mnist",
        ),
        ("eleven.npz", "labels from 0 to 10, but the data has 10 classes, from 0 on"),
        ("few.npz", "has 50 images, but 60 are to be judged"),
        ("floats.npz", "images: expected uint8"),
        ("other-name.npz", "is no archive with an array `images`"),
        ("shape.npz", "its images are (H, W, C) = (28, 28, 1)"),
        ("broken.npz", "is no archive"),
        ("middle", "middle/generators/00000002.npz: network/"),
        ("archives", "00000001.npz has 50 images, but 60 are to be judged"),
        ("ring", "was trained on ring; only runs that make images are judged"),
    ],
)
def test_a_run_that_cannot_be_judged_is_said_in_one_line(name, words, place, tmp_path):
    said = run(place, *SMALL, "--no-ladder", "--out", tmp_path / "e", place / name, code=2).stderr
    assert "Traceback" not in said
    assert words in said.splitlines()[-1], said
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--count", 121], "--count 121, but there are 120 test images"),
        (["--count", 15, "--subset", 5], "15 images are too few: the network has 8 features"),
        (["--count", 60, "--subset", 61], "a subset for KID has 61"),
        (["--classifier", "none.npz"], "train it with: python examples/classify_fashion.py"),
        (["--pick", 10], "--pick 10, but the features need 16 images"),
        (["--subset", 1], "--subset must be 2 or more"),
        (["--size", 20], "--size 20 cannot be: fashion-mnist: size is 20 but the images have 28"),
        (["--data", "cifar"], "invalid choice: 'cifar'"),
        (["--size", 28], "does not fit the data"),
        (["--data-dir", "nowhere"], "Fashion-MNIST: not found in"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(flags, words, place, tmp_path):
    said = run(place, *SMALL, "--no-ladder", "--out", tmp_path / "e", *flags, code=2).stderr
    assert "Traceback" not in said
    assert words in said


@pytest.mark.parametrize(
    ("classifier", "words"),
    [
        ("other.npz", "images of about 28×28×1"),
        ("five.npz", "is for 5 classes"),
        ("untrained.npz", "was trained on other data, or hardly at all"),
        ("real.npz", "missing: this is not a minigan checkpoint"),
        ("dcgan-0/generators/00000001.npz", "is not that of an ImageClassifier"),
    ],
)
def test_a_classifier_that_does_not_fit_is_refused(classifier, words, place, tmp_path):
    said = run(place, *SMALL, "--out", tmp_path / "e", classifier=classifier, code=2).stderr
    assert "Traceback" not in said
    assert words in said.splitlines()[-1], said


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_judged(place, tmp_path):
    (tmp_path / "file").write_text("")
    said = run(place, *SMALL, "--out", tmp_path / "file" / "e", code=2).stderr
    assert said.startswith("error: cannot write to"), said  # no progress bar before
    assert said.endswith("choose another --out\n")


def test_a_run_that_is_given_twice_is_no_second_seed(place, tmp_path):
    runs = [place / "dcgan-0", place / "wide" / ".." / "dcgan-0"]
    said = run(place, *SMALL, "--out", tmp_path / "e", *runs, code=2).stderr
    assert said.endswith("dcgan-0 is given twice; a run has one row\n")


def test_an_archive_needs_as_many_images_as_the_choice_of_the_best(place, tmp_path):
    flags = ["--count", 60, "--subset", 20, "--pick", 121, "--out", tmp_path / "e"]
    said = run(place, *flags, place / "real.npz", code=2).stderr
    assert said.startswith("error:"), said
    assert said.endswith("real.npz has 120 images, but 121 are to be judged\n")


def test_the_environment_names_the_device(place, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGAN_DEVICE", "abacus")
    said = run(place, *SMALL, "--out", tmp_path / "e", code=2).stderr
    assert said.startswith("error: device 'abacus'")


def test_a_package_that_is_not_there_is_said_in_one_line(tmp_path):
    flags = "--data", "digits", "--out", tmp_path / "e"
    done = run_without("sklearn", SCRIPT, *flags)
    assert done.returncode == 2
    assert done.stderr.startswith("error: digits needs scikit-learn")


def test_the_advice_is_a_command_that_makes_what_is_missing(place):
    digits = data.LabelledImages(np.zeros((9, 8, 8, 1), np.uint8), np.zeros(9, int), tuple("0123"))
    for path, words in (("none.npz", "there is no classifier"), ("classifier.npz", "does not fit")):
        with pytest.raises(training.RunError, match=words) as caught:
            training.load_classifier(place / path, digits, "digits")
        command = str(caught.value).split("with: ")[1]
        assert command == "python examples/classify_fashion.py --data digits --size 8"
    emoji = data.LabelledImages(np.zeros((9, 32, 32, 3), np.uint8), np.zeros(9, int), ("emoji",))
    with pytest.raises(training.RunError, match="--data emoji has one class only: no classifier"):
        training.load_classifier(place / "classifier.npz", emoji, "emoji")
    with pytest.raises(training.RunError, match="there is no classifier"):  # a folder
        training.load_classifier(place, data.fashion_mnist(place, "test", 32))


def test_the_script_is_short_and_its_help_reads_well():
    assert len(SCRIPT.read_text().splitlines()) < 150
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True
    )
    for flag in ("classifier", "count", "pick", "cas", "seed", "device", "out", "no-ladder"):
        assert f"--{flag}" in done.stdout


# ---------------------------------------------------------------------------------- what it uses


def test_the_table_shows_a_number_or_a_mean_and_a_spread():
    one, two = ({"frechet": f, "kid": 0.5, "kid_std": 0.1} for f in (1.0, 3.0))
    text = report.table([("a", "x", [one]), ("b", "y", [one, two]), ("c", "z", [{}])])
    lines = text.splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == ["", "images", "Fréchet", "KID"]
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["a", "x", "1.00", "0.50 ± 0.10"]
    assert [cell.strip() for cell in lines[3].split("|")[3:-1]] == ["2.00 ± 1.41", "0.50 ± 0.00"]
    assert [cell.strip() for cell in lines[4].split("|")[3:-1]] == ["", ""]
    assert len(set(map(len, lines))) == 1


def test_groups_are_named_by_what_they_differ_in():
    def one(script, seed, path="p", **settings):
        return {"script": script, "seed": seed, "settings": settings, "path": path}

    runs = [one("wgan", 0, clip=1), one("dcgan", 0), one("wgan", 1, clip=1), one("wgan", 0, clip=2)]
    runs += [one("a", None, "x/a.npz"), one("a", None, "y/a.npz"), one("dcgan", 0, "copy")]
    named = report.groups(runs)
    assert {name: len(group) for name, group in named.items()} == {
        **{"wgan (clip 1)": 2, "dcgan": 1, "wgan (clip 2)": 1},
        **{"a": 1, "y/a.npz": 1, "copy": 1},
    }


@pytest.mark.parametrize("name", ["dcgan-0", "dcgan_12", "dcgan-seed3", "dcgan-s1", "dcgan/3"])
def test_runs_of_before_are_named_by_their_folder(name, tmp_path):
    write_run(tmp_path / name, 0, steps=(1,))
    config = json.loads((tmp_path / name / "config.json").read_text())
    del config["script"]
    (tmp_path / name / "config.json").write_text(json.dumps(config))
    assert judging.find_candidate(tmp_path / name, "fashion-mnist", SHAPE, COUNT).script == "dcgan"


def test_a_generator_with_classes_is_asked_for_as_many_of_each(place):
    one = judging.find_candidate(place / "conditional", "fashion-mnist", SHAPE, COUNT)
    images, labels = one.images(1, 20, seed=0)
    assert np.bincount(labels).tolist() == [2] * 10
    assert images.shape == (20, *SHAPE)
    assert np.array_equal(images, one.images(1, 20, seed=0)[0])
    assert not np.array_equal(images, one.images(1, 20, seed=1)[0])


def test_an_archive_gives_its_first_images_or_its_last(place):
    one = judging.find_candidate(place / "real.npz", "fashion-mnist", SHAPE, COUNT)
    first, last = (one.images(0, 60, 0, from_end)[0] for from_end in (False, True))
    both = np.concatenate([first, last])
    assert np.array_equal(both, data.images.padded(pictures(1)[0][..., None], 32))


def test_rows_of_images_with_their_names(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    white, black = np.full((3, 8, 8, 1), 255, np.uint8), np.zeros((2, 8, 8, 3), np.uint8)
    training.save_rows(tmp_path / "r.png", {"white\ntwo lines": white, "black": black}, scale=2)
    with Image.open(tmp_path / "r.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert (pixels == 255).sum() == 3 * 16 * 16
    assert (pixels == 0).sum() == 2 * 16 * 16
    rows = [np.nonzero(pixels == value)[0].mean() for value in (255, 0)]
    assert rows[0] < rows[1]
