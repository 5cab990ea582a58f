"""Spectral normalisation against NumPy's SVD and against differences; the networks that use it."""

import numpy as np
import pytest

import minigan as mg
from minigan import functional as F
from minigan import losses, nn
from minigan.ema import EMA
from minigan.models import Critic, ResNetDiscriminator, ResNetGenerator
from minigan.training import load_generator, sample, save_generator

RANDOM = np.random.default_rng(0)
LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (2, 6)),
    "conv": (lambda: nn.Conv2d(3, 4, 3, padding=1), (2, 5, 5, 3)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1), (2, 3, 3, 3)),
    "embedding": (lambda: nn.Embedding(5, 3), None),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def made(name):
    mg.manual_seed(0)
    make, shape = LAYERS[name]
    x = np.array([0, 2]) if shape is None else mg.tensor(RANDOM.normal(size=shape))
    return nn.SpectralNorm(make()), x


def largest(weight):
    return np.linalg.svd(weight.reshape(-1, weight.shape[-1]), compute_uv=False)[0]


@every_layer
def test_power_iterations_find_the_largest_singular_value(name):
    normed, x = made(name)
    true = largest(normed.layer.weight.data)
    estimates = [normed.sigma().item()]
    for _ in range(100):
        normed.iterate()
        estimates.append(normed.sigma().item())
    assert estimates == sorted(estimates) or np.ptp(estimates[-50:]) < 1e-5
    assert max(estimates) <= true * (1 + 1e-5)  # from below
    assert estimates[-1] == pytest.approx(true, rel=1e-3)
    divided = normed.layer.weight.data / estimates[-1]
    assert largest(divided) == pytest.approx(1, rel=1e-3)
    expected = normed.layer.with_weight(x, mg.tensor(divided)).numpy()
    np.testing.assert_allclose(normed.eval()(x).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_u_moves_in_training_and_stays_in_evaluation():
    normed, x = made("conv")
    first = normed.u.numpy()
    normed.eval()
    normed(x)
    np.testing.assert_array_equal(normed.u.numpy(), first)
    normed.train()
    normed(x)
    assert not np.array_equal(normed.u.numpy(), first)
    w = normed.layer.weight.numpy().reshape(-1, 4)
    expected = w.T @ (w @ first)  # one power iteration
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(normed.u.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert np.linalg.norm(normed.u.numpy()) == pytest.approx(1, rel=1e-5)


def test_the_size_of_a_weight_does_not_matter():
    normed, x = made("linear")
    normed.eval()
    normed.layer.bias.data[...] = 0
    before = normed(x).numpy()
    normed.layer.weight.data *= 7
    np.testing.assert_allclose(normed(x).numpy(), before, rtol=1e-5)
    normed(x).sum().backward()
    slope = (normed.layer.weight.grad * normed.layer.weight.data).sum()
    assert slope == pytest.approx(0, abs=1e-5)  # so there is no slope along it


def test_the_gradient_is_that_of_the_paper():
    """∂(W/σ): (G − ⟨G, W/σ⟩ v uᵀ) / σ, with u and v of length 1 as constants (equation 12)."""
    normed, x = made("linear")
    normed.eval()
    gy = RANDOM.normal(size=(2, 4)).astype(np.float32)
    normed(x).backward(gy)
    w, u = normed.layer.weight.numpy(), normed.u.numpy()
    v = w @ u / np.linalg.norm(w @ u)
    g, sigma = x.numpy().T @ gy, v @ w @ u
    expected = (g - (g * w).sum() / sigma * np.outer(v, u)) / sigma
    np.testing.assert_allclose(normed.layer.weight.grad, expected, rtol=1e-4, atol=1e-5)


@every_layer
def test_the_gradient_at_the_singular_vector_is_the_true_sigmas(name):
    """There u and v move at no first-order cost: NumPy's σ may be differenced."""
    with mg.default_dtype(np.float64):
        normed, _ = made(name)
        for _ in range(3000):
            normed.iterate()
        normed.sigma().backward()
        weight = normed.layer.weight
        direction = RANDOM.normal(size=weight.shape)
        sides = [largest(weight.data + h * direction) for h in (1e-5, -1e-5)]
        slope = (weight.grad * direction).sum()
        assert slope == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-6)


def test_two_calls_may_have_one_backward():
    """The second call moves u, which the first one's backward reads: it must have kept its own."""
    normed, x = made("conv")
    total = normed(x).sum() + (normed(x) ** 2).sum()
    total.backward()
    assert np.isfinite(normed.layer.weight.grad).all()


def test_u_is_saved_and_copied():
    normed, x = made("linear")
    normed(x)
    state = normed.state_dict()
    assert set(state) == {"layer.weight", "layer.bias", "u"}
    mg.manual_seed(9)
    other = nn.SpectralNorm(nn.Linear(6, 4))
    other.load_state_dict(state)
    np.testing.assert_array_equal(other(x).numpy(), normed(x).numpy())  # and the next one too
    np.testing.assert_array_equal(other(x).numpy(), normed(x).numpy())
    average = EMA(normed)
    normed(x)
    average.update()
    np.testing.assert_array_equal(average.module.u.numpy(), normed.u.numpy())


def test_a_weight_of_zeros_stays_one():
    normed, x = made("linear")
    normed.layer.weight.data[...] = 0
    y = normed(x)
    y.sum().backward()
    assert np.isfinite(y.numpy()).all()
    assert np.isfinite(normed.layer.weight.grad).all()


def test_a_layer_without_a_matrix_is_refused():
    with pytest.raises(TypeError, match="SpectralNorm: ReLU has no weight matrix to divide"):
        nn.SpectralNorm(nn.ReLU())


def test_pytorch_finds_the_same():
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")
    normed, x = made("conv")
    theirs = torch.nn.Conv2d(3, 4, 3, padding=1)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(normed.layer.weight.numpy().transpose(3, 2, 0, 1)))
        theirs.bias.copy_(torch.tensor(normed.layer.bias.numpy()))
    theirs = torch.nn.utils.parametrizations.spectral_norm(theirs)
    images = torch.tensor(x.numpy().transpose(0, 3, 1, 2).copy())
    for _ in range(300):
        ours, other = normed(x), theirs(images)
    gy = RANDOM.normal(size=ours.shape).astype(np.float32)
    ours.backward(gy)
    other.backward(torch.tensor(gy.transpose(0, 3, 1, 2).copy()))
    expected = other.detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-3, atol=1e-5)
    grad = theirs.parametrizations.weight.original.grad.numpy().transpose(2, 3, 1, 0)
    np.testing.assert_allclose(normed.layer.weight.grad, grad, rtol=2e-3, atol=1e-4)


# ---- the networks


@pytest.mark.parametrize("shape", [(32, 32, 1), (8, 8, 3), (64, 64, 1)])
def test_shapes_and_ranges(shape):
    mg.manual_seed(0)
    generator = ResNetGenerator(shape, width=2, z_size=5)
    images = generator(mg.tensor(RANDOM.normal(size=(3, 5))))
    assert images.shape == (3, *shape)
    assert np.abs(images.numpy()).max() <= 1
    for network in (ResNetDiscriminator(shape, width=2), Critic(shape, width=2)):
        assert network(images).shape == (3, 1)


@pytest.mark.parametrize("cls", [ResNetDiscriminator, Critic])
def test_the_score_of_an_image_depends_on_no_other(cls):
    """Else a penalty on its slope would mean nothing."""
    mg.manual_seed(0)
    network = cls((8, 8, 1), width=3).eval()  # evaluation: u moves from call to call in training
    x = mg.tensor(RANDOM.uniform(-1, 1, (4, 8, 8, 1)))
    together = network(x).numpy()
    alone = np.concatenate([network(x[i : i + 1]).numpy() for i in range(4)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())


def test_every_weight_of_the_residual_discriminator_is_divided():
    mg.manual_seed(0)
    network = ResNetDiscriminator((8, 8, 1), width=2)
    divided = {id(m.layer) for m in network.modules() if isinstance(m, nn.SpectralNorm)}
    for module in network.modules():
        if hasattr(module, "with_weight"):
            assert id(module) in divided
    assert len(divided) == 2 * 3 + 1


def test_a_residual_block_can_pass_its_input_on():
    mg.manual_seed(0)
    network = ResNetGenerator((8, 8, 1), width=2, z_size=3)
    (block,) = network.blocks
    block.conv2.weight.data[...] = 0
    x = mg.tensor(RANDOM.normal(size=(2, 4, 4, 4)))
    expected = np.repeat(np.repeat(block.skip(x).numpy(), 2, axis=1), 2, axis=2)
    np.testing.assert_allclose(block(x).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_penalties_go_through_all_of_the_networks():
    mg.manual_seed(0)
    for network in (ResNetDiscriminator((8, 8, 1), width=2), Critic((8, 8, 1), width=2)):
        x = mg.tensor(RANDOM.uniform(-1, 1, (3, 8, 8, 1)))
        losses.r1_penalty(network, x).backward()
        for name, p in network.named_parameters():
            if not name.endswith("bias"):
                assert np.abs(p.grad).max() > 0, name


def test_a_generator_is_built_again_from_its_file(tmp_path):
    mg.manual_seed(0)
    generator = ResNetGenerator((8, 8, 3), width=3, z_size=4)
    generator(mg.tensor(RANDOM.normal(size=(6, 4))))  # running means
    save_generator(tmp_path / "g.npz", generator)
    again = load_generator(tmp_path / "g.npz")
    assert type(again) is ResNetGenerator
    np.testing.assert_array_equal(sample(again, 5, seed=1), sample(generator, 5, seed=1))


@pytest.mark.parametrize("cls", [ResNetGenerator, ResNetDiscriminator, Critic])
def test_sizes_that_cannot_be_made_are_refused(cls):
    with pytest.raises(ValueError, match=f"{cls.__name__}: images must be square and 8, 16, 32"):
        cls((28, 28, 1))
    with pytest.raises(ValueError, match=f"{cls.__name__}: width must be 1 or more, got 0"):
        cls((8, 8, 1), width=0)


def test_convolving_and_taking_the_mean_is_one_convolution():
    """What resnet.py says in its head: 3×3 and the mean of 2×2 is one 4×4 kernel of stride 2."""
    y, v = RANDOM.normal(size=(1, 6, 6, 2)), RANDOM.normal(size=(3, 3, 2, 4))
    slow = F.avg_pool2d(F.conv2d(mg.tensor(y), mg.tensor(v), padding=1), 2).numpy()
    kernel = np.zeros((4, 4, 2, 4))
    for i, j in np.ndindex(2, 2):
        kernel[i : i + 3, j : j + 3] += v / 4
    quick = F.conv2d(mg.tensor(y), mg.tensor(kernel), stride=2, padding=1).numpy()
    np.testing.assert_allclose(quick, slow, rtol=1e-4, atol=1e-5)
