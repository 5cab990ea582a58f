"""Image generators: their networks, their files, images from them, and the pictures of a run."""

import json

import numpy as np
import pytest

import minigan as mg
from minigan import backend, data, models, nn, training
from minigan.training import CheckpointError, DivergenceError
from minigan.training.gan import spherical
from minigan.training.generators import generator_kinds

SMALL = {  # of each kind of generator
    "DCGANGenerator": {"image_shape": (16, 16, 3), "width": 3, "z_size": 5},
    "MLPGenerator": {"image_shape": (9, 7, 2), "width": 6, "z_size": 4},
    "ConditionalGenerator": {"image_shape": (8, 8, 1), "classes": 3, "width": 2, "z_size": 5},
}
kinds = pytest.mark.parametrize("kind", SMALL)


def make(kind, seed=0):
    mg.manual_seed(seed)
    return getattr(models, kind)(**SMALL[kind])


# ------------------------------------------------------------------------------------ networks


def test_every_generator_is_known():
    assert set(SMALL) <= set(generator_kinds())


@kinds
def test_a_generator_keeps_the_contract(kind):
    generator = make(kind)
    given = SMALL[kind]
    assert generator.settings == given
    assert generator.image_shape == given["image_shape"]
    assert generator.z_size == given["z_size"]
    assert generator.classes == given.get("classes", 0)
    z = mg.Tensor(np.random.default_rng(0).standard_normal((6, given["z_size"])))
    labels = (np.arange(6) % 3,) if generator.classes else ()
    images = generator(z, *labels)
    assert images.shape == (6, *given["image_shape"])
    assert images.dtype == np.float32
    assert np.abs(images.numpy()).max() <= 1
    extreme = generator.eval()(z * 1e6, *labels).numpy()
    assert np.abs(extreme).max() == 1  # both ends can be reached, and are not passed


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_dcgan_begins_at_4x4_and_the_discriminator_ends_there(size):
    generator = models.DCGANGenerator((size, size, 1), width=2, z_size=3)
    discriminator = models.DCGANDiscriminator((size, size, 1), width=2)
    images = generator(mg.Tensor(np.zeros((2, 3))))
    assert images.shape == (2, size, size, 1)
    assert discriminator(images).shape == (2, 1)
    widest = 2 * size // 8
    assert generator.first.weight.shape == (3, 16 * widest)
    assert discriminator.last.weight.shape == (16 * widest, 1)


def test_dcgan_of_the_paper_at_32x32():
    """Channels 256, 128, 64; batchnorm but at G's output and D's input; no bias before one."""
    mg.manual_seed(0)
    generator, discriminator = models.DCGANGenerator(), models.DCGANDiscriminator()
    shapes = {name: p.shape for name, p in generator.named_parameters()}
    assert shapes == {
        "first.weight": (100, 4096),
        **{"norm.weight": (256,), "norm.bias": (256,)},
        **{"up.0.weight": (4, 4, 128, 256), "up.1.weight": (128,), "up.1.bias": (128,)},
        **{"up.2.weight": (4, 4, 64, 128), "up.3.weight": (64,), "up.3.bias": (64,)},
        **{"last.weight": (4, 4, 1, 64), "last.bias": (1,)},
    }
    shapes = {name: p.shape for name, p in discriminator.named_parameters()}
    assert shapes == {
        **{"features.0.weight": (4, 4, 1, 64), "features.0.bias": (64,)},
        **{"features.2.weight": (4, 4, 64, 128)},
        **{"features.3.weight": (128,), "features.3.bias": (128,)},
        **{"features.4.weight": (4, 4, 128, 256)},
        **{"features.5.weight": (256,), "features.5.bias": (256,)},
        **{"last.weight": (4096, 1), "last.bias": (1,)},
    }
    for network in (generator, discriminator):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert abs(module.weight.numpy().mean() - 1) < 0.01
                assert 0.015 < module.weight.numpy().std() < 0.025
                assert not module.bias.numpy().any()
            elif isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                weights = module.weight.numpy()
                assert abs(weights.mean()) < 0.003
                assert 0.018 < weights.std() < 0.022
    slopes = {m.negative_slope for m in generator.modules() if isinstance(m, nn.BatchNorm2d)}
    assert slopes == {0.0}
    slopes = {m.negative_slope for m in discriminator.modules() if isinstance(m, nn.BatchNorm2d)}
    assert slopes == {0.2}


def test_maxout_takes_the_largest_of_its_pieces():
    maxout = models.mlp.Maxout(3, units=2, pieces=4)
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    each = x @ maxout.linear.weight.numpy() + maxout.linear.bias.numpy()
    assert np.allclose(maxout(mg.Tensor(x)).numpy(), each.reshape(5, 2, 4).max(axis=2), atol=1e-6)


def test_the_first_discriminator_drops_a_fifth_of_the_pixels_and_half_of_the_rest():
    network = models.MLPDiscriminator((8, 8, 1), width=4, pieces=2)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.2, 0.5, 0.5]
    x = mg.Tensor(np.ones((2, 8, 8, 1)))
    assert network(x).shape == (2, 1)
    assert not np.array_equal(network(x).numpy(), network(x).numpy())
    network.eval()
    assert np.array_equal(network(x).numpy(), network(x).numpy())


def test_a_class_changes_the_image_and_the_score():
    generator = make("ConditionalGenerator").eval()
    z = mg.Tensor(np.repeat(np.random.default_rng(0).standard_normal((1, 5)), 3, axis=0))
    images = generator(z, np.arange(3))
    assert not np.allclose(images.numpy()[0], images.numpy()[1])
    network = models.ProjectionDiscriminator((8, 8, 1), classes=3, width=2).eval()
    scores = network(images, np.arange(3)).numpy()
    features = network.features(images)
    own = (features.numpy() * network.label.weight.numpy()).sum(axis=1, keepdims=True)
    assert scores.shape == (3, 1)
    assert np.allclose(scores, network.last(features).numpy() + own, atol=1e-6)


def test_each_class_has_its_own_scale_and_shift():
    norm = models.conditional.ConditionalBatchNorm2d(4, classes=3)
    random = np.random.default_rng(0)
    x, labels = random.standard_normal((6, 2, 2, 4)), np.array([0, 0, 2, 2, 2, 0])
    gamma, beta = random.standard_normal((2, 3, 4))
    norm.gamma.weight.data[...], norm.beta.weight.data[...] = gamma, beta
    flat = (x - x.mean(axis=(0, 1, 2))) / np.sqrt(x.var(axis=(0, 1, 2)) + 1e-5)
    right = flat * gamma[labels][:, None, None] + beta[labels][:, None, None]
    found = norm(mg.Tensor(x), labels)
    assert np.allclose(found.numpy(), np.maximum(right, 0), atol=1e-5)
    found.sum().backward()
    for vectors in (norm.gamma, norm.beta):
        assert not vectors.weight.grad[1].any()  # nobody asked for class 1
        assert vectors.weight.grad[[0, 2]].any(axis=1).all()


def test_noise_makes_as_much_of_an_image_as_the_class_does():
    """At the start. Where the class was louder, a few hundred steps made one image of each."""
    mg.manual_seed(0)
    generator = models.ConditionalGenerator((16, 16, 1), classes=4, width=8, z_size=20)
    z = np.random.default_rng(0).standard_normal((64, 20)).astype(np.float32)
    labels = np.arange(64) % 4
    images = generator(mg.Tensor(z), labels).numpy()
    of_noise = np.mean([images[labels == k].std(axis=0).mean() for k in range(4)])
    of_class = np.std([images[labels == k].mean(axis=0) for k in range(4)], axis=0).mean()
    assert of_noise > of_class


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: models.DCGANGenerator((28, 28, 1)), r"square and 8, 16, 32.*\(28, 28, 1\)"),
        (lambda: models.DCGANGenerator((4, 4, 1)), r"\(4, 4, 1\)"),
        (lambda: models.DCGANGenerator((32, 16, 1)), r"\(32, 16, 1\)"),
        (lambda: models.DCGANGenerator((32, 32, 0)), r"\(32, 32, 0\)"),
        (lambda: models.DCGANGenerator(width=0), "width must be 1 or more, got 0"),
        (lambda: models.DCGANGenerator(z_size=0), "z_size must be 1 or more, got 0"),
        (lambda: models.DCGANDiscriminator((33, 33, 1)), "DCGANDiscriminator: images must be"),
        (lambda: models.DCGANDiscriminator(width=-2), "width must be 1 or more, got -2"),
        (lambda: models.MLPGenerator((0, 3, 1)), "pixels must be 1 or more, got 0"),
        (lambda: models.MLPDiscriminator(pieces=0), "pieces must be 1 or more, got 0"),
        (lambda: models.ConditionalGenerator(classes=0), "classes must be 1 or more, got 0"),
        (lambda: models.ProjectionDiscriminator(classes=0), "classes must be 1 or more, got 0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()


# --------------------------------------------------------------------------------------- files


@kinds
def test_a_generator_comes_back_from_its_file(kind, tmp_path):
    generator = make(kind)
    training.sample(generator.train(), 4, seed=0)
    training.save_generator(tmp_path / "g.npz", generator)
    mg.manual_seed(3)
    before = backend.generator().bit_generator.state
    again = training.load_generator(tmp_path / "g.npz")
    assert backend.generator().bit_generator.state == before
    assert type(again) is type(generator)
    assert again.settings == generator.settings
    assert not again.training
    assert all(not module.training for module in again.modules())
    for seed in (0, 1):
        images = training.sample(generator, 5, seed)
        assert np.array_equal(images, training.sample(again, 5, seed))


def damaged(tmp_path, **changes):
    path = tmp_path / "g.npz"
    training.save_generator(path, make("DCGANGenerator"))
    state = training.load_checkpoint(path)
    state["settings"].update(changes.pop("settings", {}))
    training.save_checkpoint(path, {**state, **changes})
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "StyleGAN"}, "'StyleGAN' is no generator of minigan.models: .*DCGANGenerator"),
        ({"kind": "PatchGAN"}, "'PatchGAN' is no generator"),
        ({"kind": 3}, "3 is no generator"),
        ({"settings": {"width": 4}}, r"(?s)cannot be built with .*'width': 4.*shape: .*expected"),
        ({"settings": {"width": 0}}, "width must be 1 or more"),
        ({"settings": {"depth": 3}}, "unexpected keyword argument 'depth'"),
        ({"settings": {"image_shape": [20, 20, 1]}}, "images must be square"),
        ({"settings": {"image_shape": 16}}, "cannot be built with"),
        ({"network": {"a": np.zeros(3)}}, "(?s)missing: .*unexpected: a"),
        ({"network": 3}, "settings and network must be dicts"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_words(changes, words, tmp_path):
    path = damaged(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=words) as caught:
        training.load_generator(path)
    assert caught.value.path == path


def test_a_flipped_bit_and_a_file_that_is_not_there(tmp_path):
    path = tmp_path / "g.npz"
    with pytest.raises(CheckpointError, match="no such file"):
        training.load_generator(path)
    training.save_generator(path, make("DCGANGenerator"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        training.load_generator(path)


# -------------------------------------------------------------------------------------- samples


@kinds
def test_samples_repeat_whatever_the_batch_and_the_mode(kind):
    generator = make(kind)
    first = training.sample(generator, 7, seed=5)
    assert first.dtype == np.float32
    assert first.shape == (7, *generator.image_shape)
    mg.manual_seed(9)  # nothing of it is drawn from there
    assert np.array_equal(training.sample(generator, 7, seed=5), first)
    assert np.allclose(training.sample(generator, 7, seed=5, batch=2), first, atol=1e-5)
    assert not np.allclose(training.sample(generator, 7, seed=6), first)
    for mode in (True, False):
        generator.train(mode)
        before = generator.state_dict()
        training.sample(generator, 3, seed=0)
        assert all(module.training is mode for module in generator.modules())
        for name, value in generator.state_dict().items():  # running averages too
            assert np.array_equal(value, before[name])


def test_labels_are_taken_in_turn_unless_given():
    generator = make("ConditionalGenerator")
    turns = training.sample(generator, 6, seed=0)
    assert np.array_equal(training.sample(generator, 6, 0, labels=np.arange(6) % 3), turns)
    zeros = training.sample(generator, 6, 0, labels=np.zeros(6, int))
    assert np.allclose(zeros[[0, 3]], turns[[0, 3]])
    assert not np.allclose(zeros[1], turns[1])


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("DCGANGenerator", {"count": 0}, "count is 0"),
        ("DCGANGenerator", {"count": 2, "batch": 0}, "batch 0"),
        ("DCGANGenerator", {"count": 2, "labels": np.zeros(2, int)}, "takes no labels"),
        ("ConditionalGenerator", {"count": 2, "labels": np.zeros(3, int)}, "2 integers"),
        ("ConditionalGenerator", {"count": 2, "labels": np.zeros(2)}, "2 integers"),
        ("ConditionalGenerator", {"count": 2, "labels": np.array([0, 3])}, "from 0 to 3"),
        ("ConditionalGenerator", {"count": 2, "labels": np.array([-1, 0])}, "from -1 to 0"),
    ],
)
def test_samples_that_cannot_be_drawn(kind, options, words):
    with pytest.raises(ValueError, match=words):
        training.sample(make(kind), seed=0, **options)


class Odd(nn.Module):
    """A generator that does not keep its word."""

    z_size, image_shape, classes = 3, (2, 2, 1), 0

    def __init__(self, value, shape=(2, 2, 1)):
        self.value, self.shape = value, shape

    def forward(self, z):
        return mg.Tensor(np.full((len(z), *self.shape), self.value))


def test_images_that_are_not_as_declared():
    with pytest.raises(ValueError, match=r"values from 1\.5 to 1\.5; images are in \[-1, 1\]"):
        training.sample(Odd(1.5), 2, 0)
    with pytest.raises(ValueError, match=r"images \(3, 2, 1\), but declares \(2, 2, 1\)"):
        training.sample(Odd(0.5, (3, 2, 1)), 2, 0)
    with pytest.raises(DivergenceError, match="NaN or infinite"):
        training.sample(Odd(np.nan), 2, 0)
    assert training.sample(Odd(-1), 2, 0).min() == -1


# ------------------------------------------------------------------------------------ snapshots


def train(out, steps, resume=False, until=None):
    run = training.Run(out, {}, steps, resume=resume)
    generator = make("MLPGenerator")
    parts = {"g": generator}
    first = training.resume(run, parts) if resume else 0
    for step in run.steps(first):
        run.log(step, d=1)
        training.save_snapshot(run, step, generator)
        if step == until:
            break
        if run.due(step, every=4):
            training.save(run, parts, step)
    return list(training.snapshots(out))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (3000, list(range(300, 3001, 300))),
        (25, [3, 6, 9, 12, 15, 18, 21, 24, 25]),
        (10, list(range(1, 11))),
        (1, [1]),
    ],
)
def test_about_ten_snapshots_over_a_run(steps, expected, tmp_path):
    kept = train(tmp_path, steps) if steps < 100 else None
    if kept is None:  # without three thousand steps
        run, generator = training.Run(tmp_path, {}, steps), make("MLPGenerator")
        for step in range(100, steps + 1, 100):
            training.save_snapshot(run, step, generator)
        kept = list(training.snapshots(tmp_path))
    assert kept == expected


def test_snapshots_after_the_checkpoint_are_cut_when_a_run_goes_on(tmp_path):
    frames = tmp_path / "frames"
    assert train(tmp_path, 30, until=11) == [3, 6, 9]  # the checkpoint is of step 8
    frames.mkdir()
    for step in (4, 8, 12):
        (frames / f"{step:08d}.png").write_bytes(b"picture")
    (frames / "notes.txt").write_text("somebody's")
    run = training.Run(tmp_path, {}, 30, resume=True)
    training.resume(run, {"g": make("MLPGenerator")})
    assert list(training.snapshots(tmp_path)) == [3, 6]
    assert {path.name for path in frames.iterdir()} == {
        "00000004.png",
        "00000008.png",
        "notes.txt",
    }


def test_what_a_killed_save_left_behind_is_swept_away(tmp_path):
    train(tmp_path, 2)
    left = tmp_path / "generators" / ".00000002.npz.1234abcd.tmp"
    left.write_bytes(b"half")
    training.Run(tmp_path, {}, 2, resume=True)
    assert not left.exists()


def test_a_snapshot_of_a_diverged_generator_is_not_written(tmp_path):
    run, generator = training.Run(tmp_path, {}, 1), make("MLPGenerator")
    generator.parameters()[0].data[0] = np.nan
    with pytest.raises(DivergenceError, match="step 1: generator/"):
        training.save_snapshot(run, 1, generator)
    assert not training.snapshots(tmp_path)


# ------------------------------------------------------------------------------------- pictures


def test_a_walk_on_the_sphere_keeps_its_length_and_meets_both_ends():
    a, b = np.random.default_rng(0).standard_normal((2, 6, 100))
    a, b = (10 * x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    walk = spherical(a, b, np.linspace(0, 1, 9))
    assert walk.shape == (6, 9, 100)
    assert np.allclose(walk[:, 0], a)
    assert np.allclose(walk[:, -1], b)
    assert np.allclose(np.linalg.norm(walk, axis=2), 10)
    steps = np.linalg.norm(np.diff(walk, axis=1), axis=2)
    assert np.allclose(steps, steps[:, :1])  # even ones
    straight = (a + b) / 2
    assert np.linalg.norm(straight, axis=1).max() < 8.5


def test_a_walk_between_points_in_one_direction_is_straight():
    a = np.array([[1.0, 0.0], [0.0, 2.0]])
    walk = spherical(a, 3 * a, np.array([0, 0.5, 1]))
    assert np.allclose(walk, np.stack([a, 2 * a, 3 * a], axis=1))


def test_nearest_finds_copies_and_tells_distances():
    random = np.random.default_rng(0)
    real = random.integers(0, 256, (30, 4, 4, 3), dtype=np.uint8)
    made = data.to_unit(real[[7, 21]])
    made[1, 0, 0, 0] = np.clip(made[1, 0, 0, 0] + 0.5, -1, 1)
    order, distances = training.nearest(made, real, count=3, piece=8)
    assert order[:, 0].tolist() == [7, 21]
    pixels = data.to_unit(real).astype(np.float64)
    every = np.sqrt(((made[:, None] - pixels) ** 2).mean(axis=(2, 3, 4)))
    assert np.array_equal(order, np.argsort(every, axis=1)[:, :3])
    assert np.allclose(distances, np.sort(every, axis=1)[:, :3], atol=1e-3)


@pytest.mark.parametrize(
    ("made", "real", "words"),
    [
        (np.zeros((1, 4, 4, 1)), np.zeros((9, 4, 4, 3), np.uint8), "must be of one shape"),
        (np.zeros((1, 4, 4, 1)), np.zeros((2, 4, 4, 1), np.uint8), "3 real ones or more"),
        (np.full((1, 4, 4, 1), 2.0), np.zeros((9, 4, 4, 1), np.uint8), r"floats in \[-1, 1\]"),
        (np.full((1, 4, 4, 1), np.nan), np.zeros((9, 4, 4, 1), np.uint8), r"floats in \[-1, 1\]"),
        (np.zeros((1, 4, 4, 1), np.uint8), np.zeros((9, 4, 4, 1), np.uint8), "floats in"),
        (np.zeros((1, 4, 4, 1)), np.zeros((9, 4, 4, 1)), "must be uint8"),
    ],
)
def test_neighbours_of_images_in_another_range_are_refused(made, real, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        training.save_neighbours(tmp_path / "n.png", made, real)
    assert not (tmp_path / "n.png").exists()


def size_of(path):
    from PIL import Image

    with Image.open(path) as picture:
        return picture.size


def test_the_pictures_have_a_row_for_each_class_or_walk(tmp_path):
    pytest.importorskip("PIL")
    generator = make("ConditionalGenerator")
    run = training.Run(tmp_path, {}, 1)
    training.show_generator(run, 1, generator)
    width, height = size_of(tmp_path / "samples.png")
    assert 2.4 < width / height < 2.8  # 8 across, 3 classes down
    training.save_interpolation(tmp_path / "i.png", generator, rows=2, steps=6)
    width, height = size_of(tmp_path / "i.png")
    assert 2.7 < width / height < 3.1


def test_samples_show_the_same_noise_each_time(tmp_path):
    generator = make("DCGANGenerator")
    run = training.Run(tmp_path, {}, 2)
    pictures = []
    for step in (1, 2):
        training.show_generator(run, step, generator)
        pictures.append((tmp_path / "samples.png").read_bytes())
        training.sample(generator, 3, seed=4)
    assert pictures[0] == pictures[1]


def test_curves_of_both_players_share_a_panel(tmp_path):
    history = {name: ([1, 2, 3], [0.1, 0.2, 0.3]) for name in ("d", "g", "d_x", "d_gz", "penalty")}
    training.save_curves(tmp_path / "apart.png", history)
    together = (("d", "g"), ("d_x", "d_gz"), ("never", "logged"))
    training.save_curves(tmp_path / "shared.png", history, together=together)
    apart, shared = size_of(tmp_path / "apart.png"), size_of(tmp_path / "shared.png")
    assert shared[0] == apart[0]
    assert abs((apart[1] - 72) / (shared[1] - 72) - 5 / 3) < 0.02


def test_the_settings_of_a_generator_are_what_json_can_hold(tmp_path):
    for kind in SMALL:
        settings = make(kind).settings
        assert json.loads(json.dumps(settings)) == {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in settings.items()
        }
