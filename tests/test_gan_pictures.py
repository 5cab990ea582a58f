"""What the pictures of a GAN's noise show: walks from end to end, and training images beside."""

import numpy as np
import pytest

from minigan import data, training
from minigan.tensor import Tensor
from minigan.training import gan


class Shown:
    """A generator whose images are its noise: 64 numbers, 8×8 pixels, a tenth of their size."""

    settings, z_size, image_shape, training = {}, 64, (8, 8, 1), False

    def __init__(self, classes=0):
        self.classes = classes

    def __call__(self, z, labels=None):
        images = z.numpy().reshape(-1, 8, 8, 1) / 10
        if labels is not None:
            images[:, 0, 0, 0] = labels / 10
        return Tensor(images)

    def train(self, mode=True):
        pass


@pytest.fixture
def grids(monkeypatch):
    """What was to be drawn."""
    found = []
    monkeypatch.setattr(gan, "save_grid", lambda path, columns, *a, **k: found.append(columns))
    return found


def test_a_walk_goes_from_one_noise_to_another_and_never_near_to_0(grids, tmp_path):
    gan.save_interpolation(tmp_path / "i.png", Shown(), rows=3, steps=5, seed=2)
    walk = grids[0][0].reshape(3, 5, 64) * 10
    ends = np.random.default_rng(2).standard_normal((2, 3, 64))
    np.testing.assert_allclose(walk[:, 0], ends[0], atol=1e-5)
    np.testing.assert_allclose(walk[:, -1], ends[1], atol=1e-5)
    lengths = np.linalg.norm(walk, axis=2)  # a straight line would come much nearer to 0
    assert (lengths > 0.95 * lengths[:, [0, -1]].min(axis=1)[:, None]).all()
    assert (lengths < 1.05 * lengths[:, [0, -1]].max(axis=1)[:, None]).all()
    moved = np.linalg.norm(np.diff(walk, axis=1), axis=2)
    assert (moved.max(axis=1) < 1.2 * moved.min(axis=1)).all()


def test_a_walk_stays_in_its_class(grids, tmp_path):
    gan.save_interpolation(tmp_path / "i.png", Shown(classes=3), rows=4, steps=5)
    classes = np.rint(grids[0][0].reshape(4, 5, 64)[:, :, 0] * 10)
    assert classes.tolist() == [[0] * 5, [1] * 5, [2] * 5, [0] * 5]


def test_the_end_shows_nearest_training_images_beside_what_is_made(grids, tmp_path):
    run = training.Run(tmp_path / "run", {}, 1)
    made = training.sample(Shown(), 10, seed=1)
    far = np.random.default_rng(3).integers(0, 256, (30, 8, 8, 1), np.uint8)
    copies = data.to_bytes(made)
    gan.show_end(run, Shown(), np.concatenate([far, copies[::-1]]))
    shown, nearest, second, third = grids[1]
    np.testing.assert_array_equal(shown, made)
    np.testing.assert_array_equal(nearest, copies)  # it knows these by heart, and one sees it
    gan.show_end(run, Shown(), copies[:2])  # there are no three
    assert len(grids[3]) == 3
    for other in (second, third):
        assert not (other == copies).all(axis=(1, 2, 3)).any()
