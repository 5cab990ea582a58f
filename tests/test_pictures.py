"""The sheets of samples and the curves."""

import os
import sys

import numpy as np
import pytest

from minigan.training import Run, save_curves, save_film, save_grid, save_samples


def read_png(path):
    from PIL import Image

    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def test_a_grid_holds_the_images_side_by_side(tmp_path):
    red, blue = np.zeros((2, 8, 8, 3), np.float32) - 1, np.zeros((2, 8, 8, 3), np.uint8)
    red[..., 0], blue[..., 2] = 1, 255
    grey = np.zeros((2, 8, 8, 1))
    save_grid(tmp_path / "a.png", [red, grey, blue], scale=2)
    sheet = read_png(tmp_path / "a.png")
    for colour in ((255, 0, 0), (128, 128, 128), (0, 0, 255)):
        assert (sheet == colour).all(axis=2).sum() == 2 * 16 * 16
    row = sheet[sheet.shape[0] // 4]
    found = [np.flatnonzero((row == c).all(axis=1)) for c in ((255, 0, 0), (128,) * 3, (0, 0, 255))]
    assert found[0].max() < found[1].min()
    assert found[1].max() < found[2].min()


@pytest.mark.parametrize("n", [6, 12, 16, 24, 64])
def test_a_sheet_of_triples_is_roughly_four_to_three(tmp_path, n):
    images = np.ones((n, 16, 16, 3))
    save_grid(tmp_path / "a.png", [images] * 3, titles=["line art", "generated", "true"])
    height, width, _ = read_png(tmp_path / "a.png").shape
    assert 0.75 < width / height < 2.2
    assert width > 700


def test_titles_are_written(tmp_path):
    images = [np.ones((1, 32, 32, 3))] * 2
    save_grid(tmp_path / "a.png", images, titles=["left", "right"])
    sheet = read_png(tmp_path / "a.png")
    assert (sheet[:20] < 100).any()
    assert (sheet[40:] > 200).all()


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, 8, 8)), r"must be \(N, H, W, 3\)"),
        (np.zeros((2, 3, 8, 8)), r"must be \(N, H, W, 3\)"),
        (np.zeros((0, 8, 8, 3)), r"must be \(N, H, W, 3\)"),
        (np.zeros((2, 8, 8, 3), int), "these are int64"),
        (np.full((2, 8, 8, 3), np.nan), "finite"),
    ],
)
def test_images_that_cannot_be_shown(tmp_path, images, words):
    (tmp_path / "a.png").write_text("old")
    with pytest.raises(ValueError, match=words):
        save_grid(tmp_path / "a.png", [images])
    assert (tmp_path / "a.png").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("n", [1, 2, 41, 500])
def test_curves(tmp_path, n):
    steps = list(range(1, n + 1))
    history = {"d": (steps, [0.5] * n), "g": (steps, [1 / s for s in steps])}
    save_curves(tmp_path / "c.png", history, titles={"d": "discriminator loss"})
    picture = read_png(tmp_path / "c.png")
    assert picture.shape[1] == 960
    assert "matplotlib.pyplot" not in sys.modules
    with pytest.raises(ValueError, match="nothing was logged"):
        save_curves(tmp_path / "c.png", {})
    assert os.listdir(tmp_path) == ["c.png"]


# ---- the samples of a run


def train_with_samples(out, config, steps=4, every=1):
    run = Run(out, config, total_steps=steps)
    for step in run.steps():
        run.log(step, loss=1 / step)
        if run.due(step, every):
            save_samples(run, step, [np.full((2, 8, 8, 3), step / 4)])
    return sorted(path.name for path in out.iterdir())


def test_samples_and_curves_of_a_run(tmp_path):
    assert train_with_samples(tmp_path, {}) == [
        "config.json",
        "curves.png",
        "log.jsonl",
        "samples.png",
    ]


def test_a_film_shows_every_picture_and_an_earlier_one_is_kept(tmp_path):
    from PIL import Image

    for _ in range(2):
        files = train_with_samples(tmp_path, {"gif": True})
    assert {"frames", "training.gif", "previous-1"} <= set(files)
    for folder in (tmp_path, tmp_path / "previous-1"):
        with Image.open(folder / "training.gif") as film:
            assert film.n_frames == 4
            shades = []
            for i in range(4):
                film.seek(i)
                shades.append(int(np.asarray(film.convert("RGB"))[..., 0].sum()))
    assert shades == sorted(set(shades))
    assert len(list((tmp_path / "frames").iterdir())) == 4


def test_a_long_film_is_thinned_out_and_ends_with_the_last_picture(tmp_path):
    from PIL import Image

    for step in range(1, 252):
        Image.new("RGB", (4, 4), (step, 0, 0)).save(tmp_path / f"{step:08d}.png")
    save_film(tmp_path / "a.gif", tmp_path, last=250)  # a run that was cut back to step 250
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames <= 100
        film.seek(film.n_frames - 1)
        assert np.asarray(film.convert("RGB"))[0, 0, 0] == 250
    with pytest.raises(ValueError, match="no picture"):
        save_film(tmp_path / "a.gif", tmp_path / "none", last=3)
