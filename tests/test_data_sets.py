"""The data sets by name: where files are looked for, what comes out, and what is said if not."""

import gzip
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from minigan import data
from minigan.data import emoji, mnist_sets, places

NAMES = [name for pair in mnist_sets.FILES.values() for name in pair]


def idx(array):
    """The bytes of an IDX file."""
    shape = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def write_set(folder, count=6, packed=True, seed=0):
    """Four files as MNIST's, of `count` images each, and what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    random, written = np.random.default_rng(seed), {}
    for part, names in mnist_sets.FILES.items():
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = random.integers(0, 10, count, dtype=np.uint8)
        for name, array in zip(names, (images, labels), strict=True):
            path = folder / (name if packed else name.removesuffix(".gz"))
            path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
        written[part] = images[..., None], labels
    return written


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No data set in any of the usual places."""
    monkeypatch.delenv("MINIGAN_DATA", raising=False)
    monkeypatch.setenv("MINIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(places, "SYSTEM", tmp_path / "system")
    return tmp_path


# ------------------------------------------------------------------------------- (Fashion-)MNIST


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("part", ["train", "test"])
def test_images_and_labels_are_those_of_the_part(packed, part, tmp_path):
    images, labels = write_set(tmp_path, packed=packed)[part]
    for read in (data.fashion_mnist, data.mnist):
        got = read(tmp_path, part)
        assert np.array_equal(got.images, images)
        assert got.images.dtype == np.uint8
        assert np.array_equal(got.labels, labels)
        assert got.labels.dtype == np.int64
        assert len(got) == 6
        assert len(got.classes) == 10


def test_it_is_padded_with_black_evenly(tmp_path):
    images, _ = write_set(tmp_path)["train"]
    got = data.fashion_mnist(tmp_path, size=32).images
    assert got.shape == (6, 32, 32, 1)
    assert np.array_equal(got[:, 2:-2, 2:-2], images)
    assert got.astype(int).sum() == images.astype(int).sum()
    odd = data.fashion_mnist(tmp_path, size=29).images
    assert np.array_equal(odd[:, :28, :28], images)
    with pytest.raises(ValueError, match="fashion-mnist: size is 20 but the images have 28"):
        data.fashion_mnist(tmp_path, size=20)


def test_the_order_of_places(nowhere, monkeypatch):
    name = "fashion-mnist"
    order = [
        nowhere / "cache" / name,
        nowhere / "system" / name,
        nowhere / "ours" / name,
        nowhere / "ours",
    ]
    monkeypatch.setenv("MINIGAN_DATA", str(nowhere / "ours"))
    for seed, folder in enumerate(order):  # each is looked into before those of earlier rounds
        images, _ = write_set(folder, seed=seed)["train"]
        assert np.array_equal(data.fashion_mnist().images, images), folder
    images, _ = write_set(nowhere / "asked" / name, seed=9)["train"]
    assert np.array_equal(data.fashion_mnist(nowhere / "asked").images, images)


def test_a_folder_that_is_asked_for_is_the_only_one(nowhere):
    write_set(nowhere / "cache" / "mnist")
    assert len(data.mnist()) == 6
    with pytest.raises(data.MissingDataError, match=r"MNIST: not found in .*empty"):
        data.mnist(nowhere / "empty")


def test_a_folder_with_half_of_the_files_does_not_count(nowhere):
    write_set(nowhere / "system" / "mnist")
    (nowhere / "system" / "mnist" / NAMES[1]).unlink()
    with pytest.raises(data.MissingDataError):
        data.mnist()
    assert len(data.mnist(part="test")) == 6


def test_what_is_missing_is_said_with_three_ways_to_get_it(nowhere):
    with pytest.raises(data.MissingDataError) as caught:
        data.fashion_mnist()
    said = str(caught.value)
    assert said.startswith(f"Fashion-MNIST: not found in {nowhere / 'system' / 'fashion-mnist'}, ")
    for words in ("apt install dataset-fashion-mnist", "MINIGAN_DATA", "download=True", NAMES[0]):
        assert words in said
    with pytest.raises(data.MissingDataError) as caught:
        data.mnist()
    assert "apt" not in str(caught.value)  # there is no such package
    assert isinstance(caught.value, data.DataError)  # so that scripts say it in one line


def test_the_advice_is_code_that_runs(nowhere, monkeypatch):
    with pytest.raises(data.MissingDataError) as caught:
        data.fashion_mnist()
    code = str(caught.value).split('python -c "')[1].removesuffix('"')
    download = "minigan.data.download.download"
    monkeypatch.setattr(download, lambda url, path, *_: write_set(path.parent))
    exec(code)
    assert len(data.fashion_mnist()) == 6


def test_download_is_only_on_request_and_goes_to_the_cache_or_the_folder(nowhere, monkeypatch):
    fetched = []

    def fetch(url, path, sha256, progress):
        fetched.append((url, path, sha256))
        write_set(path.parent)

    monkeypatch.setattr("minigan.data.download.download", fetch)
    with pytest.raises(data.MissingDataError):
        data.fashion_mnist()
    assert fetched == []
    assert len(data.fashion_mnist(download=True)) == 6
    source = mnist_sets.SOURCES["fashion-mnist"]
    folder = nowhere / "cache" / "fashion-mnist"
    assert fetched == [
        (source.url + name, folder / name, sha256)
        for name, sha256 in zip(NAMES, source.sha256, strict=True)
    ]
    data.fashion_mnist(download=True)
    assert len(fetched) == 4  # it is there now
    data.mnist(nowhere / "asked", download=True)
    assert fetched[4][1] == nowhere / "asked" / NAMES[0]


def test_download_of_a_set_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="no data set 'cifar'; there are fashion-mnist, mnist"):
        data.download_mnist("cifar", tmp_path)


def test_hashes_are_hashes():
    hashes = [h for source in mnist_sets.SOURCES.values() for h in source.sha256]
    assert len(set(hashes)) == 8
    assert all(len(h) == 64 and int(h, 16) for h in hashes)


def test_an_unknown_part(tmp_path):
    with pytest.raises(ValueError, match="part is 'val' but must be 'train' or 'test'"):
        data.fashion_mnist(tmp_path, part="val")


def test_the_real_fashion_mnist():
    try:
        train, test = (data.fashion_mnist(part=part) for part in ("train", "test"))
    except data.MissingDataError as error:
        pytest.skip(str(error))
    assert train.images.shape == (60000, 28, 28, 1)
    assert test.images.shape == (10000, 28, 28, 1)
    assert np.bincount(train.labels).tolist() == [6000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert train.classes[train.labels[0]] == "ankle boot"
    assert train.images.mean() == pytest.approx(72.94, abs=0.01)  # 0.2860 of 255


# ---------------------------------------------------------------------------------------- digits


def stand_in(monkeypatch):
    """scikit-learn with digits of which pixel (0, 0) says the index, modulo 17."""
    pixels = np.zeros((1797, 64))
    pixels[:, 0] = np.arange(1797) % 17
    module = types.ModuleType("sklearn.datasets")
    module.load_digits = lambda return_X_y: (pixels, np.arange(1797) % 10)
    monkeypatch.setitem(sys.modules, "sklearn", types.ModuleType("sklearn"))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", module)


def test_digits_fill_the_bytes_and_are_split_in_order(monkeypatch):
    stand_in(monkeypatch)
    train, test = data.digits(), data.digits("test", size=12)
    assert train.images.shape == (1500, 8, 8, 1)
    assert test.images.shape == (297, 12, 12, 1)
    assert train.images.dtype == np.uint8
    assert train.images[:17, 0, 0, 0].tolist() == np.rint(np.arange(17) * 255 / 16).tolist()
    assert test.images[0, 2, 2, 0] == np.rint(1500 % 17 * 255 / 16)
    assert test.labels[:3].tolist() == [0, 1, 2]
    assert test.labels.dtype == np.int64


def test_the_real_digits():
    pytest.importorskip("sklearn", reason="scikit-learn, with the digits, is not installed")
    train = data.digits()
    assert train.images.max() == 255
    assert train.labels[:10].tolist() == list(range(10))
    assert len(train) + len(data.digits("test")) == 1797


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"digits needs scikit-learn.*pip install scikit-learn"):
        data.digits()


@pytest.mark.parametrize(("options", "words"), [({"part": "x"}, "part is 'x'"), ({"size": 7}, "8")])
def test_digits_refuse(options, words, monkeypatch):
    stand_in(monkeypatch)
    with pytest.raises(ValueError, match=f"digits: .*{words}"):
        data.digits(**options)


# ---------------------------------------------------------------------------------------- points


@pytest.mark.parametrize("name", data.sets.POINTS)
def test_points_have_the_centres_weights_and_spread_they_say(name):
    drawn = data.load_points(name, 50_000, seed=3)
    modes = len(drawn.centres)
    assert modes == {"ring": 8, "grid": 25}[name]
    assert drawn.points.dtype == np.float32
    assert drawn.points.shape == (50_000, 2)
    counts = np.bincount(drawn.labels, minlength=modes)
    assert np.abs(counts - 50_000 / modes).max() < 5 * np.sqrt(50_000 / modes)
    offsets = drawn.points.astype(float) - drawn.centres[drawn.labels]
    assert offsets.std(axis=0) == pytest.approx([drawn.std] * 2, rel=0.02)
    assert np.abs(offsets.mean(axis=0)).max() < 5 * drawn.std / np.sqrt(50_000)
    got = drawn.nearest(drawn.points)
    inside = got >= 0
    assert np.array_equal(got[inside], drawn.labels[inside])
    assert inside.mean() == pytest.approx(1 - np.exp(-4.5), abs=0.002)  # Rayleigh, 3 σ


def test_centres_of_ring_and_grid():
    ring = data.ring(1, modes=4, radius=2.0)
    assert ring.centres == pytest.approx(np.array([[2, 0], [0, 2], [-2, 0], [0, -2]]), abs=1e-6)
    line = [-4, -2, 0, 2, 4]
    assert sorted(map(tuple, data.grid(1).centres)) == [(x, y) for x in line for y in line]


def test_points_repeat_by_seed():
    first, again, other = (data.ring(20, seed=s).points for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_nearest_is_minus_one_far_away():
    ring = data.ring(1, std=0.1)
    assert ring.nearest([[1.29, 0], [1.31, 0], [0, 0], [0, -1]]).tolist() == [0, -1, -1, 6]
    for wrong in (np.zeros(2), np.zeros((3, 3)), [[np.nan, 0]]):
        with pytest.raises(ValueError, match=r"nearest: points must be finite and \(M, 2\)"):
            ring.nearest(wrong)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: data.ring(0), "ring: count is 0"),
        (lambda: data.ring(5, modes=0), "ring: modes is 0"),
        (lambda: data.ring(5, radius=-1), "ring: radius is -1"),
        (lambda: data.ring(5, std=0), "ring: std is 0"),
        (lambda: data.grid(5, side=0), "grid: side is 0"),
        (lambda: data.grid(5, spacing=0), "grid: spacing is 0"),
    ],
)
def test_points_refuse(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# --------------------------------------------------------------------------------------- by name


def test_images_by_name(tmp_path, monkeypatch):
    stand_in(monkeypatch)
    write_set(tmp_path)
    for name in ("fashion-mnist", "mnist"):
        assert data.load_images(name, data_dir=tmp_path).images.shape == (6, 28, 28, 1)
        assert data.load_images(name, "test", 32, tmp_path).images.shape == (6, 32, 32, 1)
    assert data.load_images("mnist", data_dir=tmp_path).classes[3] == "3"
    assert data.load_images("fashion-mnist", data_dir=tmp_path).classes[3] == "dress"
    assert data.load_images("digits").images.shape == (1500, 8, 8, 1)
    assert data.load_images("digits", size=16).images.shape == (1500, 16, 16, 1)


def test_emoji_by_name_are_in_colour_at_any_size(monkeypatch, tmp_path):
    few = [0x1F34C, 0x1F355, 0x1F604, 0x1F607]
    monkeypatch.setattr(emoji, "_colored_codepoints", lambda font: few)
    monkeypatch.setenv("MINIGAN_CACHE", str(tmp_path))
    pairs = data.load_emoji(24, progress=False)
    got = data.load_images("emoji", size=24), data.load_images("emoji", "test", 24)
    assert np.array_equal(got[0].images, pairs.train.color)
    assert np.array_equal(got[1].images, pairs.heldout.color)
    assert len(got[0]) + len(got[1]) == 4
    assert set(got[0].labels) == {0}
    assert got[0].classes == ("emoji",)


def test_unknown_names_list_what_there_is():
    words = "no data set 'cifar'; there are digits, emoji, fashion-mnist, mnist .*grid, ring"
    with pytest.raises(ValueError, match=words):
        data.load_images("cifar")
    with pytest.raises(ValueError, match=r"no data set 'mnist'; there are grid, ring .*mnist"):
        data.load_points("mnist", 5)
    with pytest.raises(ValueError, match="load_images: part is 'all'"):
        data.load_images("digits", "all")


def test_the_first_few():
    some = data.LabelledImages(np.zeros((5, 2, 2, 1), np.uint8), np.arange(5), ("a",))
    assert some.first(2).labels.tolist() == [0, 1]
    assert len(some.first(9)) == 5


def test_debians_folder_is_the_one_in_its_package():
    assert Path("/usr/share/datasets/fashion-mnist") == places.SYSTEM / "fashion-mnist"
