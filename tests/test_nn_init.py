"""Initial weights."""

import math

import numpy as np
import pytest
from test_nn import draw
from test_nn_module import Net

import minigan as mg
from minigan import functional as F
from minigan import nn
from minigan.nn import init


@pytest.fixture(autouse=True)
def seeded():
    mg.manual_seed(0)


# ---- initial weights


def many(*shape):
    return mg.tensor(np.zeros(shape))


def assert_spread(tensor, std, mean=0.0):
    values = tensor.numpy().astype(np.float64)
    n = values.size
    assert abs(values.mean() - mean) < 5 * std / math.sqrt(n)
    assert values.std() == pytest.approx(std, rel=5 / math.sqrt(n))


def test_normal_defaults_to_what_gans_use():
    t = many(300, 400)
    assert init.normal_(t) is t
    assert_spread(t, 0.02)
    assert abs(t.numpy()).max() > 0.06  # not uniform
    assert_spread(init.normal_(t, 3.0, 2.0), 2.0, 3.0)


def test_uniform_and_constant():
    t = init.uniform_(many(300, 400), -1, 3)
    assert -1 <= t.numpy().min() < -0.99
    assert 2.99 < t.numpy().max() < 3
    assert_spread(t, 4 / math.sqrt(12), 1.0)
    np.testing.assert_array_equal(init.constant_(t, 5).numpy(), np.full((300, 400), 5))


# a linear weight (in, out), and a convolution's (KH, KW, in, out)
SHAPES = {(300, 500): (300, 500), (3, 5, 40, 60): (600, 900), (4, 4, 80, 20): (1280, 320)}


@pytest.mark.parametrize("shape", SHAPES)
def test_initialisers_have_the_variance_of_their_papers(shape):
    fan_in, fan_out = SHAPES[shape]
    assert init.fans(many(*shape)) == (fan_in, fan_out)
    xavier, he = math.sqrt(2 / (fan_in + fan_out)), math.sqrt(2 / fan_in)
    assert_spread(init.xavier_normal_(many(*shape), gain=3), 3 * xavier)
    assert_spread(init.he_normal_(many(*shape)), he)
    assert_spread(init.he_normal_(many(*shape), negative_slope=0.5), he / math.sqrt(1.25))
    for make, std in (
        (lambda t: init.xavier_uniform_(t, gain=3), 3 * xavier),
        (init.he_uniform_, he),
        (lambda t: init.kaiming_uniform_(t, 0.5), he / math.sqrt(1.25)),
    ):
        t = make(many(*shape))
        assert_spread(t, std)
        assert abs(t.numpy()).max() < std * math.sqrt(3) * (1 + 1e-6)  # uniform


def test_he_keeps_the_size_of_signals_through_a_deep_network():
    x = draw((64, 512))
    for _ in range(10):
        x = F.relu(F.matmul(x, init.he_normal_(many(512, 512))))
    assert 0.2 < (x.numpy() ** 2).mean() < 5


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (3, 3, 2, 8), (2, 2, 1, 9)])
def test_orthogonal_rows_or_columns(shape):
    t = init.orthogonal_(many(*shape), gain=2).numpy().reshape(-1, shape[-1])
    gram = t.T @ t if t.shape[0] >= t.shape[1] else t @ t.T
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-5)


def test_orthogonal_has_no_preferred_sign():
    diagonal = [init.orthogonal_(many(3, 3)).numpy()[0, 0] for _ in range(400)]
    assert abs(np.mean(diagonal)) < 0.15


def test_fans_and_orthogonal_need_a_matrix():
    for function in (init.fans, init.orthogonal_, init.he_normal_):
        with pytest.raises(ValueError, match=r"init: .*two axes or more, got \(3,\)"):
            function(many(3))


@pytest.mark.parametrize(
    ("layer", "bound"),
    [
        (lambda: nn.Linear(400, 300), 1 / 20),
        (lambda: nn.Conv2d(50, 60, (4, 2)), 1 / 20),
        (lambda: nn.Conv2d(80, 60, (5, 4), groups=4), 1 / 20),
        (lambda: nn.ConvTranspose2d(60, 100, 4, groups=4), 1 / 20),
    ],
)
def test_layers_start_as_pytorchs_do(layer, bound):
    layer = layer()
    assert_spread(layer.weight, bound / math.sqrt(3))
    for p in layer.parameters():
        assert bound * 0.9 < abs(p.numpy()).max() <= bound


def test_norms_start_as_the_identity_and_embeddings_as_normal():
    for norm in (nn.BatchNorm2d(3), nn.LayerNorm(3), nn.GroupNorm(1, 3)):
        np.testing.assert_array_equal(norm.weight.numpy(), [1, 1, 1])
        np.testing.assert_array_equal(norm.bias.numpy(), [0, 0, 0])
    assert_spread(nn.Embedding(300, 200).weight, 1.0)


def test_seeds_repeat_to_the_bit():
    states = []
    for seed in (7, 7, 8):
        mg.manual_seed(seed)
        states.append(Net().state_dict())
    for name, array in states[0].items():
        assert array.tobytes() == states[1][name].tobytes()
    assert not np.array_equal(states[0]["head.2.weight"], states[2]["head.2.weight"])


def test_initialising_counts_as_a_change_and_keeps_the_type():
    with mg.default_dtype(np.float64):
        layer = nn.Linear(3, 3)
    before = layer.weight._version.value
    init.normal_(layer.weight)
    assert layer.weight.dtype == np.float64
    assert layer.weight._version.value == before + 1
