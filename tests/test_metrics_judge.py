"""What judges whole sets of images: the judge, the ladder, what a classifier learns from them."""

import numpy as np
import pytest

import minigan as mg
from minigan import data, metrics, nn
from minigan.models import ImageClassifier


def samples(seed, n=200, d=3):
    return np.random.default_rng(seed).standard_normal((n, d))


# ------------------------------------------------------------------- neighbours, to the last bit


def counted(real, fake, k):
    """The definitions, with distances as differences, squared and added up."""

    def table(a, b):
        return np.square(a[:, None] - b).sum(axis=2)

    real_radii, fake_radii = (np.sort(table(x, x), axis=1)[:, k] for x in (real, fake))
    between = table(real, fake)
    inside = between <= real_radii[:, None]
    return {
        "precision": inside.any(axis=0).mean(),
        "recall": (between <= fake_radii).any(axis=1).mean(),
        "density": inside.sum(axis=0).mean() / k,
        "coverage": inside.any(axis=1).mean(),
    }


@pytest.mark.parametrize("scale", [2.0**-10, 1.0, 2.0**20])
def test_neighbours_on_a_lattice_where_every_distance_is_a_tie(scale):
    """Rounding of the product would put some of these on the wrong side of an edge."""
    random = np.random.default_rng(0)
    real, fake = (scale * (random.integers(0, 4, (300, 12)) + 0.5) for _ in range(2))
    expected = counted(real, fake, 3)
    assert 0 < expected["precision"] < 1
    assert metrics.neighbour_scores(real, fake) == pytest.approx(expected, abs=1e-12)


def test_neighbours_far_from_the_origin():
    real, fake = samples(1, 300, 8) + 1e5, samples(2, 300, 8) + 1e5
    assert metrics.neighbour_scores(real, fake) == pytest.approx(counted(real, fake, 3), abs=1e-12)


def test_equal_points_are_at_distance_0_though_they_are_many():
    copies = np.repeat(samples(1, 10, 64), 30, axis=0)
    assert set(metrics.Balls(copies).radii2) == {0.0}
    got = metrics.neighbour_scores(copies, copies[:40])
    assert got["precision"] == 1
    assert got["recall"] == got["coverage"] == pytest.approx(60 / 300)


def test_a_point_of_another_set_on_the_edge_of_a_ball_is_inside():
    real = samples(3, 50, 16)
    others = real[1:] + 0.0  # each is some real point, so on the edges of its neighbours' balls
    assert metrics.precision_recall(real, others)["precision"] == 1


def test_balls_once_made_serve_for_many_sets():
    real, balls = samples(1), metrics.Balls(samples(1))
    for seed in (2, 3):
        fake = samples(seed) * 1.5
        assert metrics.neighbour_scores(balls, fake) == metrics.neighbour_scores(real, fake)
    with pytest.raises(ValueError, match="k is 5, but the balls were made with 3 and 5"):
        metrics.neighbour_scores(balls, samples(2), k=5)


# ------------------------------------------------------------------------------------- the judge


class Means(nn.Module):
    """Features: the means of the four quarters, and of their squares. Classes: the brightest."""

    image_shape = (4, 4, 1)

    def features(self, x):
        quarters = mg.functional.reshape(x, (-1, 2, 2, 2, 2)).mean(axis=(2, 4)).reshape(-1, 4)
        return mg.functional.concatenate([quarters, quarters * quarters], axis=1)

    def classify(self, features):
        return features[:, :4] * 50.0


def pictures(seed, n=80):
    """Images of 4×4 with one bright quarter, which is the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, n)
    images = random.integers(0, 100, (n, 4, 4, 1))
    for image, label in zip(images, labels, strict=True):
        y, x = label // 2 * 2, label % 2 * 2
        image[y : y + 2, x : x + 2] += 120
    return data.LabelledImages(images.astype(np.uint8), labels, ("a", "b", "c", "d"))


@pytest.fixture(scope="module")
def judge():
    return metrics.Judge(Means(), pictures(0), subset_size=40)


def test_the_judge_says_what_the_metrics_say(judge):
    real, fake = pictures(0), pictures(1).images
    got = judge.scores(fake)
    a, b = (metrics.extract(Means(), images) for images in (real.images, fake))
    assert got["frechet"] == metrics.frechet_distance(a["features"], b["features"])
    assert got["frechet"] == judge.distance(fake)
    four = metrics.neighbour_scores(a["features"], b["features"])
    assert {name: got[name] for name in four} == four
    kid = metrics.kernel_distance(a["features"], b["features"], 40, metrics.judge.SUBSETS, 0)
    assert (got["kid"], got["kid_std"]) == (kid["mean"], kid["std"])
    inception = metrics.inception_score(b["probabilities"])
    assert (got["inception"], got["inception_std"]) == (inception["mean"], inception["std"])
    assert sum(got["counts"]) == 80
    assert got["as_asked"] is None
    assert judge.accuracy > 0.95
    assert judge.classifier == metrics.fingerprint(Means())


def test_equal_sets_are_perfect(judge):
    real = pictures(0)
    got = judge.scores(real.images, real.labels)
    assert got["frechet"] == pytest.approx(0, abs=1e-9)
    assert got["precision"] == got["recall"] == got["coverage"] == 1
    assert got["classes_hit"] == 4
    assert got["as_asked"] == judge.accuracy


def test_a_class_with_less_than_a_tenth_of_its_share_is_not_hit(judge):
    three = pictures(1, 600)
    chosen = three.images[three.labels != 2][:79]
    lone = three.images[three.labels == 2][:1]
    assert judge.scores(np.concatenate([chosen, lone]))["classes_hit"] == 3
    assert judge.labels(lone).tolist() == [2]


def test_the_distance_takes_any_number_but_the_scores_take_n(judge):
    assert judge.distance(pictures(1, 30).images) > 0
    with pytest.raises(ValueError, match="30 images, but there are 80 real ones"):
        judge.scores(pictures(1, 30).images)
    with pytest.raises(ValueError, match="15 samples are too few for 8 features"):
        judge.distance(pictures(1, 15).images)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.full((80, 4, 4, 1), 2.0), "from 2 to 2, but floats must be in"),
        (np.zeros((80, 4, 4, 1), np.int32), "dtype int32"),
        (np.full((80, 4, 4, 1), np.nan), "from nan to nan"),
        (np.zeros((80, 5, 5, 1), np.uint8), r"images are \(80, 5, 5, 1\)"),
    ],
)
def test_unfit_images_are_refused(judge, images, words):
    with pytest.raises(ValueError, match=words):
        judge.scores(images)


def test_a_judge_wants_enough_images_and_a_network_that_knows_them():
    with pytest.raises(ValueError, match="12 images are too few: the network has 8 features"):
        metrics.Judge(Means(), pictures(0, 12), subset_size=5)
    with pytest.raises(ValueError, match="a subset for KID has 1000; give 1000 or more"):
        metrics.Judge(Means(), pictures(0))
    real = pictures(0)
    wrong = data.LabelledImages(real.images, (real.labels + 1) % 4, real.classes)
    with pytest.raises(ValueError, match="right, and 50% is the least: it was trained on other"):
        metrics.Judge(Means(), wrong, subset_size=40)


# ------------------------------------------------------------------------------------ the ladder


def test_noise_has_the_spread_it_says():
    grey = np.full((50, 16, 16, 1), 128, np.uint8)
    made = data.to_unit(metrics.noisy(grey, 0.1)) - data.to_unit(grey)
    assert made.std() == pytest.approx(0.1, rel=0.03)
    assert abs(made.mean()) < 0.003
    assert np.array_equal(metrics.noisy(grey, 0), grey)
    assert np.array_equal(metrics.noisy(grey, 0.1, 3), metrics.noisy(grey, 0.1, 3))
    assert not np.array_equal(metrics.noisy(grey, 0.1, 3), metrics.noisy(grey, 0.1, 4))


def test_a_blurred_point_is_a_bell():
    point = np.zeros((1, 17, 17, 1), np.uint8)
    point[0, 8, 8, 0] = 255
    made = metrics.blurred(point, 1.0)[0, :, :, 0].astype(float)
    line = np.exp(-(np.arange(-8, 9.0) ** 2) / 2)
    bell = np.outer(line, line) / line.sum() ** 2 * 255
    assert np.abs(made - bell).max() <= 0.6  # rounded
    assert np.array_equal(metrics.blurred(point, 0), point)
    white = np.full((2, 8, 8, 3), 255, np.uint8)
    assert np.array_equal(metrics.blurred(white, 2.0), white)  # no dark frame


@pytest.mark.parametrize("worse", [metrics.noisy, metrics.blurred])
def test_noise_and_blur_refuse(worse):
    with pytest.raises(ValueError, match="std is -1 but must be 0 or more"):
        worse(np.zeros((1, 4, 4, 1), np.uint8), -1)
    with pytest.raises(ValueError, match="must be uint8"):
        worse(np.zeros((1, 4, 4, 1)), 1)


def test_the_ladder_goes_up_and_lacks_what_it_says(judge):
    real = pictures(0, 400)
    rungs = dict(metrics.ladder(real, 80))
    assert next(iter(rungs)) == "noise of 0.1"
    assert {"no b", "2 classes of 4", "100 images, copied"} <= set(rungs)
    assert {images.shape for images in rungs.values()} == {(80, 4, 4, 1)}
    assert not (judge.labels(rungs["no b"]) == 1).any()
    assert set(judge.labels(rungs["2 classes of 4"])) == {2, 3}
    scores = {name: judge.distance(images) for name, images in rungs.items()}
    assert scores["noise of 0.1"] < scores["noise of 0.4"]
    assert scores["no b"] < scores["2 classes of 4"]
    again = dict(metrics.ladder(real, 80))
    assert all(np.array_equal(rungs[name], again[name]) for name in rungs)


def test_one_class_alone_is_never_missing():
    one = data.LabelledImages(pictures(0).images, np.zeros(80, np.int64), ("emoji",))
    assert not any(name.startswith("no ") for name, _ in metrics.ladder(one, 10))


def test_what_is_drawn_is_drawn_without_replacement_if_it_can_be():
    real = pictures(0)
    marked = data.LabelledImages(real.images, np.arange(80), real.classes)
    assert sorted(metrics.drawn(marked, 80).labels) == list(range(80))
    assert len(metrics.drawn(marked, 200).labels) == 200
    assert not np.array_equal(metrics.drawn(marked, 80).labels, metrics.drawn(marked, 80, 1).labels)
    with pytest.raises(ValueError, match="0 images of 80"):
        metrics.drawn(marked, 0)


# ---------------------------------------------------------------- what is learnt from the images


def taught(images, labels, **settings):
    mg.manual_seed(0)
    pupil = ImageClassifier((4, 4, 1), 4, width=8, features=16)
    real = pictures(0)
    options = {"steps": 150, "batch": 40, **settings}
    return metrics.classification_accuracy_score(
        pupil, images, labels, real.images, real.labels, **options
    )


def test_good_images_teach_and_wrong_labels_do_not():
    good = pictures(1, 400)
    score = taught(good.images, good.labels)
    assert score > 0.9
    assert score == taught(data.to_unit(good.images), good.labels)
    assert taught(good.images, (good.labels + 1) % 4) < 0.1
    assert score != taught(good.images, good.labels, steps=1)


def test_a_missing_class_costs_its_share():
    some = pictures(1, 600)
    there = some.labels != 3
    share = (pictures(0).labels == 3).mean()
    score = taught(some.images[there], some.labels[there])
    assert 0.85 - share < score <= 1 - share


def test_teaching_refuses():
    good = pictures(1, 100)
    with pytest.raises(ValueError, match="100 images with 99 labels"):
        taught(good.images, good.labels[1:])
    with pytest.raises(ValueError, match="1 images, but batch normalisation needs 2"):
        taught(good.images[:1], good.labels[:1])
    with pytest.raises(ValueError, match="floats must be in"):
        taught(np.full((100, 4, 4, 1), 3.0), good.labels)
