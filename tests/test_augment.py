"""Flips, shifts, and DiffAugment with its gradients."""

import numpy as np
import pytest

import minigan as mg
from minigan.data import diff_augment, flip, shift
from minigan.data.augment import POLICIES


def images(n=5, h=8, w=6, c=3, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, h, w, c))


def fixed(seed=0):
    return np.random.default_rng(seed)


# ------------------------------------------------------------------------------- flips and shifts


def test_flip_mirrors_some_and_leaves_the_others():
    x = images(200).astype(np.float32)
    y = flip(x, fixed())
    assert y.dtype == np.float32
    mirrored = np.array([np.array_equal(b, a[:, ::-1]) for a, b in zip(x, y, strict=True)])
    same = np.array([np.array_equal(a, b) for a, b in zip(x, y, strict=True)])
    assert np.array_equal(mirrored, ~same)
    assert 70 < mirrored.sum() < 130


@pytest.mark.parametrize(("dtype", "fill"), [(np.float32, -1.0), (np.uint8, 0)])
def test_shift_moves_each_image_by_its_own_distance(dtype, fill):
    x = np.full((300, 7, 7, 1), fill, dtype)
    x[:, 3, 3] = 1
    y = shift(x, 2, fixed(), fill)
    assert y.dtype == dtype
    assert y.shape == x.shape
    places = np.argwhere(y[..., 0] == 1)
    assert len(places) == 300
    moved = places[:, 1:] - 3
    assert {tuple(m) for m in moved} == {(a, b) for a in range(-2, 3) for b in range(-2, 3)}
    assert np.count_nonzero(y == fill) == x.size - 300


def test_they_draw_from_the_host_generator():
    x = images(40)
    for change in (flip, lambda x: shift(x, 2), lambda x: diff_augment(mg.Tensor(x)).numpy()):
        results = []
        for seed in (1, 1, 2):
            mg.manual_seed(seed)
            results.append(change(x))
        assert np.array_equal(results[0], results[1])
        assert not np.array_equal(results[0], results[2])


def test_unfit_images_are_refused():
    for change in (flip, lambda x: shift(x, 1), lambda x: diff_augment(mg.Tensor(x))):
        with pytest.raises(ValueError, match=r"images must be \(N, H, W, C\), these are \(8, 8\)"):
            change(np.zeros((8, 8)))
    for pixels in (-1, 9):
        with pytest.raises(ValueError, match=f"shift: pixels is {pixels} but must be in 0 to 6"):
            shift(images(), pixels)
    with pytest.raises(ValueError, match=r"shift: fill is -1\.0, which uint8 cannot hold; 0"):
        shift(np.zeros((1, 4, 4, 1), np.uint8), 1)
    with pytest.raises(ValueError, match=r"unknown policy .'blur'.; there are brightness, satura"):
        diff_augment(mg.Tensor(images()), ["cutout", "blur"])


# ------------------------------------------------------------------------------------ DiffAugment


@pytest.mark.parametrize("policy", [*POLICIES, POLICIES, ()])
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_of_both_orders(policy, channels):
    x = images(2, 8, 6, channels)
    mg.gradcheck(lambda x: diff_augment(x, policy, fixed(4)), [x], order=2)


def augmented(x, policy, seed=0):
    with mg.default_dtype(np.float64):
        return diff_augment(mg.Tensor(x), policy, fixed(seed)).numpy()


def test_brightness_adds_one_number_to_each_image():
    x = images(2000, 2, 2)
    added = (augmented(x, "brightness") - x).reshape(2000, -1)
    assert np.ptp(added, axis=1).max() < 1e-12
    assert added[:, 0].min() == pytest.approx(-0.5, abs=0.01)
    assert added[:, 0].max() == pytest.approx(0.5, abs=0.01)


def test_saturation_stretches_colours_around_grey():
    x = images(2000, 2, 2)
    y = augmented(x, "saturation")
    grey = x.mean(axis=3, keepdims=True)
    assert y.mean(axis=3) == pytest.approx(x.mean(axis=3))
    factors = ((y - grey) / (x - grey)).reshape(2000, -1)
    assert np.ptp(factors, axis=1).max() < 1e-6
    assert factors.min() == pytest.approx(0, abs=0.01)
    assert factors.max() == pytest.approx(2, abs=0.01)
    assert np.array_equal(augmented(x[..., :1], "saturation"), x[..., :1])


def test_contrast_stretches_each_image_around_its_mean():
    x = images(2000, 2, 2)
    y = augmented(x, "contrast")
    middle = x.mean(axis=(1, 2, 3), keepdims=True)
    assert y.mean(axis=(1, 2, 3)) == pytest.approx(x.mean(axis=(1, 2, 3)))
    factors = ((y - middle) / (x - middle)).reshape(2000, -1)
    assert np.ptp(factors, axis=1).max() < 1e-6
    assert factors.min() == pytest.approx(0.5, abs=0.01)
    assert factors.max() == pytest.approx(1.5, abs=0.01)


def test_translation_is_by_up_to_an_eighth_and_leaves_zeros():
    x = images(400, 16, 8, 2)
    y = augmented(x, "translation")
    seen = set()
    for a, b in zip(x, y, strict=True):
        wide = np.pad(a, [(2, 2), (1, 1), (0, 0)])
        fits = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-1, 2)
            if np.array_equal(wide[2 - dy : 18 - dy, 1 - dx : 9 - dx], b)
        ]
        assert len(fits) == 1
        seen |= set(fits)
    assert len(seen) == 15


@pytest.mark.parametrize("side", [8, 6, 5])
def test_cutout_makes_a_square_of_half_the_side_zero(side):
    x = np.abs(images(600, side, side, 1)) + 0.1
    y = augmented(x, "cutout")
    cut = y == 0
    assert np.array_equal(y[~cut], x[~cut])
    half = int(side * 0.5 + 0.5)
    areas = cut.sum(axis=(1, 2, 3))
    assert areas.max() == half * half
    assert areas.min() == (half // 2) ** 2 if half % 2 == 0 else (half // 2 + 1) ** 2
    rows = cut.any(axis=(2, 3)).sum(axis=1) * cut.any(axis=(1, 3)).sum(axis=1)
    assert np.array_equal(rows, areas)  # a rectangle
    assert cut.any(axis=0).all()  # anywhere


def test_policies_go_in_a_fixed_order():
    x = images()
    assert np.array_equal(
        augmented(x, ["cutout", "brightness"]), augmented(x, ["brightness", "cutout"])
    )


def test_float32_stays_float32():
    assert diff_augment(mg.Tensor(images().astype(np.float32))).dtype == np.float32
