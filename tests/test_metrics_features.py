"""Metrics of features and of class probabilities, against closed forms and loops over samples."""

import itertools
import math
import types

import numpy as np
import pytest
import scipy.linalg

import minigan as mg
from minigan import metrics, nn


def samples(seed, n=200, d=3):
    return np.random.default_rng(seed).standard_normal((n, d))


def exactly(mean, covariance, seed=0, n=60):
    """Samples whose mean and covariance (over N − 1) are these up to rounding."""
    x = samples(seed, n, len(mean))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False)).T)
    return x @ np.linalg.cholesky(covariance).T + mean


# ---------------------------------------------------------------------------------------- Fréchet


def test_frechet_of_gaussians_with_diagonal_covariance():
    a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 0.25])
    real, fake = exactly([0, 1, 2], np.diag(a)), exactly([1, 1, -1], np.diag(b), seed=1)
    expected = (1 + 0 + 9) + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert metrics.frechet_distance(real, fake) == pytest.approx(expected, rel=1e-10)


def test_frechet_where_covariances_do_not_commute():
    s1, s2 = (m @ m.T + np.eye(4) for m in (samples(5, 4, 4), samples(6, 4, 4)))
    assert not np.allclose(s1 @ s2, s2 @ s1)
    real, fake = exactly(np.zeros(4), s1), exactly(np.zeros(4), s2, seed=1)
    expected = np.trace(s1 + s2 - 2 * scipy.linalg.sqrtm(s1 @ s2).real)
    assert metrics.frechet_distance(real, fake) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_equal_sets_is_zero_also_when_flat():
    x = samples(1)
    flat = np.concatenate([x, x[:, :1] * 2, np.zeros((200, 1))], axis=1)  # singular
    for y in (x, flat, np.full((10, 2), 7.0)):
        assert 0 <= metrics.frechet_distance(y, y[::-1]) < 1e-6


def test_frechet_of_one_feature_and_of_a_shift():
    x = samples(2, 50, 1)
    assert metrics.frechet_distance(x, x + 3) == pytest.approx(9, rel=1e-12)
    expected = x.std(ddof=1) ** 2 + x.mean() ** 2 * 4
    assert metrics.frechet_distance(x, -x) == pytest.approx(4 * x.mean() ** 2, abs=1e-10)
    assert metrics.frechet_distance(x, 2 * (x - x.mean()) - x.mean()) == pytest.approx(expected)


def test_frechet_is_biased_upward_at_small_n():
    few = metrics.frechet_distance(samples(1, 40, 8), samples(2, 40, 8))
    many = metrics.frechet_distance(samples(1, 4000, 8), samples(2, 4000, 8))
    assert few > 20 * many > 0


def test_frechet_wants_enough_samples_for_its_features():
    x = samples(0, 19, 10)
    with pytest.raises(ValueError, match="19 samples are too few for 10 features; give at least 2"):
        metrics.frechet_distance(x, samples(1, 100, 10))
    metrics.frechet_distance(x, x, least_per_feature=1)
    with pytest.raises(ValueError, match="give at least 100, or"):
        metrics.frechet_distance(x, x, least_per_feature=10)


# -------------------------------------------------------------------------------------------- KID


def mmd2_by_loops(x, y):
    def k(a, b):
        return (np.dot(a, b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(a, b) for a, b in itertools.permutations(x, 2)) / (n * (n - 1))
    yy = sum(k(a, b) for a, b in itertools.permutations(y, 2)) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_kid_of_the_whole_sets_is_the_formula():
    x, y = samples(1, 12), samples(2, 12) + 0.5
    got = metrics.kernel_distance(x, y, subset_size=12, subsets=3)
    assert got["mean"] == pytest.approx(mmd2_by_loops(x, y), rel=1e-12)
    assert got["std"] == pytest.approx(0, abs=1e-12)


def test_kid_of_two_gaussians_is_that_of_their_moments():
    """(xy + 1)³ sees three moments: MMD² = 3(Δm₁)² + 3(Δm₂)² + (Δm₃)², 22 for N(0,1), N(1,1)."""
    x, y = samples(1, 100_000, 1), samples(2, 100_000, 1) + 1
    got = metrics.kernel_distance(x, y, subset_size=500, subsets=200)
    assert got["mean"] == pytest.approx(22, abs=4 * got["std"] / math.sqrt(200))
    assert got["std"] / math.sqrt(200) < 0.5


def test_kid_is_unbiased_so_it_is_negative_at_times():
    values = [
        metrics.kernel_distance(samples(s, 20), samples(s + 1000, 20), 20, 1)["mean"]
        for s in range(300)
    ]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(300)


def test_kid_repeats_by_seed():
    x, y = samples(1), samples(2)
    first, again, other = (metrics.kernel_distance(x, y, 50, 4, seed=s) for s in (1, 1, 2))
    assert first == again != other


def test_kid_refuses_fewer_samples_than_a_subset():
    with pytest.raises(ValueError, match="200 samples are fewer than the 1000 of a subset"):
        metrics.kernel_distance(samples(1), samples(2, 2000))
    for size, count in ((1, 5), (50, 0)):
        with pytest.raises(ValueError, match=f"{count} subsets of {size} samples, but it takes 1"):
            metrics.kernel_distance(samples(1), samples(2), size, count)


# ------------------------------------------------------------------------------------- neighbours


def four_by_loops(real, fake, k):
    """The four definitions, a pair at a time."""

    def radius(set_, i):
        return sorted(math.dist(set_[i], x) for j, x in enumerate(set_) if j != i)[k - 1]

    def inside(point, set_):
        return [math.dist(point, x) <= radius(set_, i) for i, x in enumerate(set_)]

    return {
        "precision": np.mean([any(inside(f, real)) for f in fake]),
        "recall": np.mean([any(inside(r, fake)) for r in real]),
        "density": np.mean([sum(inside(f, real)) for f in fake]) / k,
        "coverage": np.mean(
            [any(math.dist(f, r) <= radius(real, i) for f in fake) for i, r in enumerate(real)]
        ),
    }


def four(real, fake, k=3):
    return metrics.precision_recall(real, fake, k) | metrics.density_coverage(real, fake, k)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_neighbours_are_the_definitions(k, monkeypatch):
    monkeypatch.setattr(metrics.neighbours, "ROWS", 7)
    real, fake = samples(1, 40, 2), samples(2, 25, 2) * 0.7 + 0.4
    expected = four_by_loops(real, fake, k)
    assert four(real, fake, k) == pytest.approx(expected, abs=1e-12)
    assert 0 < expected["recall"] < 1
    assert expected["recall"] != expected["precision"]


def test_a_worked_example_on_a_line():
    real, fake = np.array([[0.0], [1], [2], [10]]), np.array([[0.5], [9.0], [30]])
    # k = 1: real balls 0±1, 1±1, 2±1, 10±8; generated ones 0.5±8.5, 9±8.5, 30±21.
    assert four(real, fake, 1) == pytest.approx(
        {"precision": 2 / 3, "recall": 1, "density": 1.0, "coverage": 3 / 4}
    )


def test_precision_and_recall_are_not_swapped():
    real = samples(1, 400, 2)
    collapsed = np.random.default_rng(2).normal(0, 0.01, (400, 2))  # good, but all alike
    got = four(real, collapsed)
    assert got["precision"] == 1
    assert got["recall"] < 0.05
    assert got["coverage"] < 0.05
    scattered = samples(3, 400, 2) * 10  # all kinds, and mostly bad
    got = four(real, scattered)
    assert got["precision"] < 0.2
    assert got["recall"] > 0.9
    assert four(collapsed, real)["recall"] == four(real, collapsed)["precision"]


def test_equal_sets_are_perfect_and_far_sets_are_nothing():
    x = samples(1)
    same = four(x, x)
    assert [same[name] for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert set(four(x, x + 100).values()) == {0.0}


def test_density_and_coverage_of_equal_distributions_are_those_of_the_paper():
    n, k = 200, 3
    results = [metrics.density_coverage(samples(s, n), samples(s + 500, n), k) for s in range(60)]
    density, coverage = (np.mean([r[name] for r in results]) for name in ("density", "coverage"))
    missed = math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    assert density == pytest.approx(1, abs=0.03)
    assert coverage == pytest.approx(1 - missed, abs=0.015)


def test_neighbours_want_more_than_k_samples():
    for metric in (metrics.precision_recall, metrics.density_coverage):
        with pytest.raises(ValueError, match="3 generated samples, but at least 4 are needed"):
            metric(samples(1), samples(2, 3))
        with pytest.raises(ValueError, match="k is 0 but must be 1 or more"):
            metric(samples(1), samples(2), k=0)


# -------------------------------------------------------------------------------- what all refuse

ALL = {
    "frechet_distance": metrics.frechet_distance,
    "kernel_distance": lambda a, b: metrics.kernel_distance(a, b, 10, 2),
    "precision_recall": metrics.precision_recall,
    "density_coverage": metrics.density_coverage,
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("real", "fake", "words"),
    [
        (samples(0, 50, 3), samples(0, 50, 4), r"\(50, 3\) and generated ones \(50, 4\) differ"),
        (samples(0)[0], samples(0), r"real features must be \(N, d\), these are \(3,\)"),
        (samples(0), np.zeros((50, 0)), r"generated features must be \(N, d\)"),
        (samples(0), np.full((50, 3), np.nan), "generated features hold 150 values that are NaN"),
        (np.zeros((50, 3), complex), samples(0), "real features have dtype complex128"),
        (samples(0), np.zeros((0, 3)), "0 generated samples, but at least"),
    ],
)
def test_unfit_features_are_refused_in_words(name, real, fake, words):
    with pytest.raises(ValueError, match=f"^{name}: .*{words}"):
        ALL[name](real, fake)


@pytest.mark.parametrize("name", ALL)
def test_float32_and_tensors_are_computed_in_float64(name):
    x, y = samples(1).astype(np.float32) + 100, samples(2).astype(np.float32) + 100
    expected = ALL[name](x.astype(np.float64), y.astype(np.float64))
    assert ALL[name](x, y) == expected
    assert ALL[name](mg.Tensor(x), mg.Tensor(y)) == expected


# ---------------------------------------------------------------------------------------- classes


def test_inception_score_at_its_ends():
    sure = np.eye(10)[np.arange(1000) % 10]
    assert metrics.inception_score(sure, splits=1)["mean"] == pytest.approx(10, rel=1e-12)
    assert metrics.inception_score(np.full((50, 10), 0.1))["mean"] == pytest.approx(1, rel=1e-12)
    one_class = np.eye(10)[np.zeros(100, int)]
    assert metrics.inception_score(one_class) == pytest.approx({"mean": 1, "std": 0})


def test_inception_score_of_two_classes_is_the_capacity_of_a_channel():
    """Half of the images 90 to 10, half the other way: exp(ln 2 − H(0.9))."""
    p = np.tile([[0.9, 0.1], [0.1, 0.9]], (50, 1))
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    got = metrics.inception_score(p, splits=1)["mean"]
    assert got == pytest.approx(math.exp(math.log(2) - entropy), rel=1e-12)


def test_inception_score_shuffles_before_it_splits():
    in_order = np.eye(4)[np.repeat(np.arange(4), 250)]  # unshuffled, each split has one class
    got = metrics.inception_score(in_order, splits=4)
    assert got["mean"] > 3.9
    assert got == metrics.inception_score(in_order, splits=4)
    assert got != metrics.inception_score(in_order, splits=4, seed=1)


@pytest.mark.parametrize(
    ("p", "splits", "words"),
    [
        (np.full((5, 2), 0.5), 10, "5 class samples, but at least 10"),
        (np.full((20, 2), 0.6), 10, "add up to 1.2 to 1.2; put a softmax before"),
        (np.tile([1.5, -0.5], (20, 1)), 10, "from -0.5 to 1.5"),
        (np.ones(20), 10, r"must be \(N, d\)"),
        (np.full((20, 2), 0.5), 0, "splits is 0"),
    ],
)
def test_inception_score_refuses(p, splits, words):
    with pytest.raises(ValueError, match=f"inception_score: .*{words}"):
        metrics.inception_score(p, splits)


def test_mode_histogram():
    even = metrics.mode_histogram(np.arange(40) % 8, 8)
    assert even == {"counts": [5] * 8, "hit": 8, "total_variation": 0.0, "missed": 0.0}
    alone = metrics.mode_histogram([2, 2, 2], 4)
    assert alone["counts"] == [0, 0, 3, 0]
    assert (alone["hit"], alone["total_variation"]) == (1, 0.75)
    half = metrics.mode_histogram([0, 1, -1, -1], 2)
    assert (half["missed"], half["hit"], half["total_variation"]) == (0.5, 2, 0.0)
    nothing = metrics.mode_histogram([-1, -1], 2)
    assert nothing == {"counts": [0, 0], "hit": 0, "total_variation": 1.0, "missed": 1.0}
    rare = [0] * 99 + [1]
    assert metrics.mode_histogram(rare, 2)["hit"] == 2
    assert metrics.mode_histogram(rare, 2, least_share=0.02)["hit"] == 1


@pytest.mark.parametrize(
    ("labels", "modes", "error", "words"),
    [
        ([0, 3], 3, ValueError, "labels from 0 to 3 for 3 modes"),
        ([-2, 0], 3, ValueError, "labels from -2 to 0"),
        ([], 3, ValueError, "N from 1"),
        ([[0]], 3, ValueError, r"\(1, 1\)"),
        ([0.5], 3, TypeError, "float64"),
        ([0], 0, ValueError, "modes is 0"),
    ],
)
def test_mode_histogram_refuses(labels, modes, error, words):
    with pytest.raises(error, match=f"mode_histogram: .*{words}"):
        metrics.mode_histogram(labels, modes)


# ---------------------------------------------------------------------------------------- extract


class Means(nn.Module):
    """Features: the mean of each channel. Classes: whether the first is above 0."""

    image_shape = (4, 4, 2)

    def features(self, x):
        assert not self.training
        assert not mg.is_recording()
        return x.mean(axis=(1, 2))

    def classify(self, features):
        return mg.functional.concatenate([features[:, :1], -features[:, :1]], axis=1) * 100.0


def test_extract_gives_features_and_probabilities_batch_by_batch():
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 2), dtype=np.uint8)
    network = Means()
    got = metrics.extract(network, images, batch=3)
    floats = images / 127.5 - 1
    assert got["features"] == pytest.approx(floats.mean(axis=(1, 2)), abs=1e-6)
    assert got["features"].dtype == got["probabilities"].dtype == np.float64
    assert got["probabilities"].sum(axis=1) == pytest.approx(np.ones(7), abs=1e-12)
    assert np.array_equal(got["probabilities"][:, 0] > 0.5, floats[..., 0].mean(axis=(1, 2)) > 0)
    assert network.training
    assert np.array_equal(got["features"], metrics.extract(network, images)["features"])


def test_extract_rounds_generated_images_to_bytes():
    byte = np.full((1, 4, 4, 2), 200, np.uint8)
    exact = metrics.extract(Means(), byte)["features"]
    for off in (-0.4, 0.4):
        near = ((byte + off) / 127.5 - 1).astype(np.float32)
        assert np.array_equal(metrics.extract(Means(), near)["features"], exact)
        assert np.array_equal(metrics.extract(Means(), mg.Tensor(near))["features"], exact)


def test_extract_takes_the_range_it_is_told():
    byte = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 2), dtype=np.uint8)
    expected = metrics.extract(Means(), byte)["features"]
    for black, white in ((-1, 1), (0, 1), (0, 255)):
        floats = black + byte / 255 * (white - black)
        got = metrics.extract(Means(), floats, value_range=(black, white))["features"]
        assert np.array_equal(got, expected)
    with pytest.raises(ValueError, match=r"from -0.1 to -0.1, but floats must be in \[0, 1\]"):
        metrics.extract(Means(), np.full((1, 4, 4, 2), -0.1), value_range=(0, 1))
    for wrong in ((1, 0), (0, np.inf), (np.nan, 1)):
        with pytest.raises(ValueError, match=r"value_range is .* in order"):
            metrics.extract(Means(), np.zeros((1, 4, 4, 2)), value_range=wrong)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, 4, 4, 2), np.int64), "dtype int64, but must be uint8, or floats"),
        (np.full((2, 4, 4, 2), 1.01), r"from 1.01 to 1.01, but floats must be in \[-1, 1\]"),
        (np.full((2, 4, 4, 2), np.nan), "from nan to nan"),
        (np.zeros((2, 5, 4, 2)), r"\(2, 5, 4, 2\), but this network takes \(N, 4, 4, 2\)"),
        (np.zeros((4, 4, 2), np.uint8), r"images are \(4, 4, 2\)"),
        (np.zeros((0, 4, 4, 2)), r"images are \(0, 4, 4, 2\)"),
    ],
)
def test_extract_refuses(images, words):
    with pytest.raises(ValueError, match=f"extract: .*{words}"):
        metrics.extract(Means(), images)


def test_fingerprint_sees_every_bit_name_and_shape():
    def of(**state):
        return metrics.fingerprint(types.SimpleNamespace(state_dict=lambda: state))

    a = np.arange(6, dtype=np.float32)
    first = of(w=a, b=a)
    assert len(first) == 64
    assert first == of(b=a.copy(), w=a.astype(">f4"))  # neither order nor byte order
    changed = a.copy()
    changed[5] = np.nextafter(a[5], np.float32(9))
    different = [of(w=changed, b=a), of(w=a, c=a), of(w=a.reshape(2, 3), b=a)]
    different += [of(w=a.astype(np.float64), b=a), of(w=a)]
    assert len({first, *different}) == 6
