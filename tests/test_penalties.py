"""Penalties on a critic's slope: values in closed form, and derivatives against differences."""

import re

import numpy as np
import pytest

import minigan as mg
from minigan import functional as F
from minigan import losses, nn, optim
from minigan.models import Critic

RANDOM = np.random.default_rng(0)


def linear(weight):
    """A critic whose slope is `weight` (H, W, C) at every image."""
    return lambda x: (x * mg.tensor(weight, dtype=x.dtype)).sum((1, 2, 3))


@pytest.fixture
def images():
    return tuple(mg.tensor(RANDOM.uniform(-1, 1, (3, 4, 4, 2))) for _ in "rf")


# ---- values


@pytest.mark.parametrize("length", [0.25, 1.0, 3.0])
def test_of_a_critic_that_is_linear(length, images):
    weight = RANDOM.normal(size=(4, 4, 2))
    weight *= length / np.linalg.norm(weight)  # over all axes: 4·4·2 numbers of one image
    real, fake = images
    norms = losses.gradient_norm(linear(weight), real).numpy()
    np.testing.assert_allclose(norms, [length] * 3, rtol=1e-6)
    penalty = losses.gradient_penalty(linear(weight), real, fake)
    assert penalty.item() == pytest.approx((length - 1) ** 2, abs=1e-6)
    other = losses.gradient_penalty(linear(weight), real, fake, target=0.0)
    assert other.item() == pytest.approx(length**2, rel=1e-5)
    assert losses.r1_penalty(linear(weight), real).item() == pytest.approx(length**2 / 2, rel=1e-5)


def test_the_norm_is_of_each_sample_and_not_of_the_batch():
    """½·Σ c x² has the slope c x: each image has a length of its own."""
    x = np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]], np.float32)
    norms = losses.gradient_norm(lambda x: (x * x).sum(1) * 0.5, mg.tensor(x))
    np.testing.assert_allclose(norms.numpy(), [5, 2, 1], rtol=1e-6)
    penalty = losses.r1_penalty(lambda x: (x * x).sum(1) * 0.5, mg.tensor(x))
    assert penalty.item() == pytest.approx((25 + 4 + 1) / 3 / 2)


def test_each_pair_is_mixed_in_a_share_of_its_own():
    real, fake = np.ones((50, 2, 3, 1), np.float32), np.zeros((50, 2, 3, 1), np.float32)
    mg.manual_seed(1)
    mixed = losses.between(mg.tensor(real), mg.tensor(fake)).numpy()
    assert mixed.dtype == np.float32
    share = mixed[:, 0, 0, 0]
    np.testing.assert_array_equal(mixed, np.broadcast_to(share[:, None, None, None], mixed.shape))
    assert len(np.unique(share)) == 50
    assert 0 <= share.min() < 0.1 < 0.9 < share.max() <= 1
    mg.manual_seed(1)
    expected = mg.generator().random((50, 1, 1, 1))  # drawn on the host
    np.testing.assert_allclose(share, expected.ravel(), rtol=1e-6)


def test_a_flat_critic_has_a_penalty_and_no_nan(images):
    """The root has no slope at 0; its epsilon is inside."""
    weight = mg.tensor(np.zeros((4, 4, 2)), requires_grad=True)
    penalty = losses.gradient_penalty(lambda x: (x * weight).sum((1, 2, 3)), *images)
    assert penalty.item() == pytest.approx(1, abs=1e-5)
    penalty.backward()
    assert np.isfinite(weight.grad).all()
    losses.r1_penalty(lambda x: (x * weight).sum((1, 2, 3)), images[0]).backward()
    assert np.isfinite(weight.grad).all()


def test_the_hinge_leaves_alone_what_is_right_by_1():
    scores = mg.tensor([-2.0, -0.5, 0.5, 2.0], requires_grad=True)
    real = losses.hinge(scores, True, reduction="none")
    np.testing.assert_array_equal(real.numpy(), [3, 1.5, 0.5, 0])
    real.sum().backward()
    np.testing.assert_array_equal(scores.grad, [-1, -1, -1, 0])
    scores.grad = None
    fake = losses.hinge(scores, False, reduction="none")
    np.testing.assert_array_equal(fake.numpy(), [0, 0.5, 1.5, 3])
    fake.sum().backward()
    np.testing.assert_array_equal(scores.grad, [0, 1, 1, 1])


# ---- derivatives


def smooth_critic(weight, v):
    """A convolution of stride 2, a SiLU and a product: smooth, so that differences hold."""
    return lambda x: (F.silu(F.conv2d(x, weight, stride=2, padding=1)) * v).sum((1, 2, 3))


@pytest.mark.parametrize("penalty", ["gradient_penalty", "r1_penalty"])
def test_the_gradient_in_the_critics_weights_agrees_with_differences(penalty):
    real, fake = (mg.tensor(RANDOM.uniform(-1, 1, (3, 6, 6, 1)), dtype=np.float64) for _ in "rf")
    weight, v = RANDOM.normal(size=(4, 4, 1, 3)), RANDOM.normal(size=3)

    def of_the_weights(weight, v):
        mg.manual_seed(5)  # the same points between
        critic = smooth_critic(weight, v)
        if penalty == "r1_penalty":
            return losses.r1_penalty(critic, real)
        return losses.gradient_penalty(critic, real, fake)

    mg.gradcheck(of_the_weights, [weight, v], order=2)


def test_a_real_critics_penalty_agrees_with_differences_of_each_weight():
    """Leaky ReLUs have no second derivative, but their slopes meet in products of the weights."""
    with mg.default_dtype(np.float64):
        mg.manual_seed(0)
        critic = Critic((8, 8, 1), width=2)
        real, fake = (mg.Tensor(RANDOM.uniform(-1, 1, (2, 8, 8, 1))) for _ in "rf")

        def penalty():
            mg.manual_seed(3)
            return losses.gradient_penalty(critic, real, fake)

        penalty().backward()
        for name, p in critic.named_parameters():
            if name.endswith("bias"):  # moves the kinks only
                continue
            index = tuple(RANDOM.integers(0, n) for n in p.shape)
            gradient, before, sides = p.grad[index], p.data[index], []
            for h in (1e-6, -1e-6):
                p.data[index] = before + h
                p.bump_version()
                sides.append(penalty().item())
            p.data[index] = before
            assert gradient == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5, abs=1e-8), name


@pytest.mark.parametrize("penalty", ["gradient_penalty", "r1_penalty"])
def test_pytorch_says_the_same(penalty):
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")
    mg.manual_seed(0)
    critic = Critic((8, 8, 1), width=3)
    real, fake = (RANDOM.uniform(-1, 1, (4, 8, 8, 1)).astype(np.float32) for _ in "rf")
    mg.manual_seed(2)
    given = [mg.tensor(real)] + [mg.tensor(fake)] * (penalty == "gradient_penalty")
    ours = getattr(losses, penalty)(critic, *given)
    ours.backward()

    mg.manual_seed(2)
    share = mg.generator().random((4, 1, 1, 1)).astype(np.float32)
    at = fake + (real - fake) * share if penalty == "gradient_penalty" else real
    weights = {n: torch.tensor(p.numpy()).requires_grad_() for n, p in critic.named_parameters()}
    x = torch.tensor(at.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    y, names = x, [n for n in weights if n.endswith("weight")]
    for name in names[:-1]:
        kernel = weights[name].permute(3, 2, 0, 1)
        bias = weights[name.replace("weight", "bias")]
        y = torch.nn.functional.conv2d(y, kernel, bias, stride=2, padding=1)
        y = torch.nn.functional.leaky_relu(y, 0.2)
    last = names[-1]
    y = y.permute(0, 2, 3, 1).reshape(4, -1) @ weights[last]
    y = y + weights[last.replace("weight", "bias")]
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    squares = slope.square().sum((1, 2, 3))
    if penalty == "r1_penalty":
        theirs = squares.mean() / 2
    else:
        theirs = ((squares + 1e-12).sqrt() - 1).square().mean()
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    for name, p in critic.named_parameters():
        expected = weights[name].grad
        found = np.zeros(p.shape) if p.grad is None else p.grad
        expected = np.zeros(p.shape) if expected is None else expected.numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6, err_msg=name)


def test_detached_images_keep_their_generator_out_of_it():
    critic = smooth_critic(mg.tensor(RANDOM.normal(size=(4, 4, 2, 3))), mg.tensor(np.ones(3)))
    generator = nn.Linear(4, 8 * 8 * 2)
    made = F.reshape(generator(mg.tensor(RANDOM.normal(size=(3, 4)))), (3, 8, 8, 2))
    real = mg.tensor(RANDOM.uniform(-1, 1, (3, 8, 8, 2)))
    losses.gradient_penalty(critic, real, made.detach()).backward()
    assert generator.weight.grad is None
    losses.gradient_penalty(critic, real, made).backward()
    assert np.abs(generator.weight.grad).max() > 0
    assert real.grad is None


# ---- errors


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda x: losses.between(x, x[:2]),
            "between: real (3, 4, 4, 2) and fake (2, 4, 4, 2) must be of one shape, (N, ...)",
        ),
        (
            lambda x: losses.r1_penalty(lambda x: x.mean(), x),
            "r1_penalty: the critic made () of images (3, 4, 4, 2); it must give a score for each "
            "image, (N, ...), and take no mean over them",
        ),
        (
            lambda x: losses.gradient_norm(lambda x: x[:1], x),
            "gradient_norm: the critic made (1, 4, 4, 2) of images (3, 4, 4, 2)",
        ),
        (
            lambda x: losses.hinge(x, True, reduction="average"),
            "hinge: reduction 'average' is unknown: use mean, sum or none",
        ),
    ],
)
def test_errors_say_what_is_wrong(call, words, images):
    with pytest.raises(ValueError, match=re.escape(words)):
        call(images[0])


def test_a_critic_that_does_not_look_is_named(images):
    with pytest.raises(RuntimeError, match="does not depend on anything that requires a gradient"):
        losses.r1_penalty(lambda x: mg.tensor(np.zeros(3)), images[0])


# ---- clipping of weights


def test_weights_are_clipped_in_place_and_the_change_is_counted():
    layer = nn.Linear(2, 2)
    weight = layer.weight
    weight.data[...] = [[0.5, -0.5], [0.005, -0.005]]
    array = weight.data
    y = layer(mg.tensor(np.ones((1, 2)), requires_grad=True)).sum()
    optim.clip_weights_(layer.parameters(), 0.01)
    assert weight.data is array
    np.testing.assert_allclose(array, [[0.01, -0.01], [0.005, -0.005]])
    assert np.abs(layer.bias.data).max() <= np.float32(0.01)
    with pytest.raises(RuntimeError, match="changed in place 1 time"):
        y.backward()
    optim.clip_weights_(weight, 0.001)  # one tensor will do
    assert np.abs(array).max() == np.float32(0.001)


@pytest.mark.parametrize("bound", [0, -1, float("nan")])
def test_a_bound_that_is_none_is_refused(bound):
    layer = nn.Linear(2, 2)
    before = layer.weight.numpy()
    with pytest.raises(ValueError, match="clip_weights_: bound must be positive, got"):
        optim.clip_weights_(layer.parameters(), bound)
    np.testing.assert_array_equal(layer.weight.data, before)
