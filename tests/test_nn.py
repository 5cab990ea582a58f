"""Modules: every layer, the Module protocol, and initial weights."""

import copy
import math
import re

import numpy as np
import pytest

import minigan as mg
from minigan import functional as F
from minigan import nn
from minigan.nn import init

IMAGE = (2, 8, 8, 4)  # (N, H, W, C)


def draw(shape, seed=0):
    return mg.tensor(np.random.default_rng(seed).normal(size=shape))


def w(layer):
    return (layer.weight, layer.bias)


# name: (make the layer, input shape, the same by a function, parameter shapes, repr)
LAYERS = {
    "Linear": (
        lambda: nn.Linear(4, 3),
        (2, 5, 4),
        lambda m, x: F.matmul(x, m.weight) + m.bias,
        {"weight": (4, 3), "bias": (3,)},
        "Linear(weight (4, 3), bias)",
    ),
    "Linear without bias": (
        lambda: nn.Linear(4, 3, bias=False),
        (2, 4),
        lambda m, x: F.matmul(x, m.weight),
        {"weight": (4, 3)},
        "Linear(weight (4, 3))",
    ),
    "Conv2d": (
        lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), groups=2),
        IMAGE,
        lambda m, x: F.conv2d(x, *w(m), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
        {"weight": (3, 2, 2, 6), "bias": (6,)},
        "Conv2d(weight (3, 2, 2, 6), stride=(2, 1), padding=(1, 0), dilation=(1, 2), "
        "groups=2, bias)",
    ),
    "ConvTranspose2d": (
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, False, 2),
        IMAGE,
        lambda m, x: F.conv_transpose2d(
            x, m.weight, stride=2, padding=1, output_padding=1, groups=2, dilation=2
        ),
        {"weight": (3, 3, 3, 4)},
        "ConvTranspose2d(weight (3, 3, 3, 4), stride=2, padding=1, output_padding=1, "
        "dilation=2, groups=2)",
    ),
    "BatchNorm2d": (
        lambda: nn.BatchNorm2d(4, eps=1e-3),
        IMAGE,
        lambda m, x: F.batch_norm(x, None, None, *w(m), training=True, eps=1e-3),
        {"weight": (4,), "bias": (4,)},
        "BatchNorm2d(4)",
    ),
    "BatchNorm1d": (
        lambda: nn.BatchNorm1d(4, affine=False),
        (5, 4),
        lambda m, x: F.batch_norm(x, training=True),
        {},
        "BatchNorm1d(4)",
    ),
    "InstanceNorm2d": (
        lambda: nn.InstanceNorm2d(4, affine=True),
        IMAGE,
        lambda m, x: F.instance_norm(x, *w(m)),
        {"weight": (4,), "bias": (4,)},
        "InstanceNorm2d(4)",
    ),
    "LayerNorm": (
        lambda: nn.LayerNorm((8, 4)),
        IMAGE,
        lambda m, x: F.layer_norm(x, (8, 4), *w(m)),
        {"weight": (8, 4), "bias": (8, 4)},
        "LayerNorm(8, 4)",
    ),
    "LayerNorm of one axis": (
        lambda: nn.LayerNorm(4, affine=False),
        IMAGE,
        lambda m, x: F.layer_norm(x, 4),
        {},
        "LayerNorm(4)",
    ),
    "GroupNorm": (
        lambda: nn.GroupNorm(2, 4),
        IMAGE,
        lambda m, x: F.group_norm(x, 2, *w(m)),
        {"weight": (4,), "bias": (4,)},
        "GroupNorm(2, 4)",
    ),
    "ReLU": (nn.ReLU, IMAGE, lambda m, x: F.relu(x), {}, "ReLU()"),
    "LeakyReLU": (
        lambda: nn.LeakyReLU(0.2),
        IMAGE,
        lambda m, x: F.leaky_relu(x, 0.2),
        {},
        "LeakyReLU(0.2)",
    ),
    "ELU": (lambda: nn.ELU(alpha=2.0), IMAGE, lambda m, x: F.elu(x, 2.0), {}, "ELU(alpha=2.0)"),
    "GELU": (nn.GELU, IMAGE, lambda m, x: F.gelu(x), {}, "GELU()"),
    "SiLU": (nn.SiLU, IMAGE, lambda m, x: F.silu(x), {}, "SiLU()"),
    "Tanh": (nn.Tanh, IMAGE, lambda m, x: F.tanh(x), {}, "Tanh()"),
    "Sigmoid": (nn.Sigmoid, IMAGE, lambda m, x: F.sigmoid(x), {}, "Sigmoid()"),
    "Softplus": (nn.Softplus, IMAGE, lambda m, x: F.softplus(x), {}, "Softplus()"),
    "Softmax": (lambda: nn.Softmax(1), IMAGE, lambda m, x: F.softmax(x, 1), {}, "Softmax(1)"),
    "LogSoftmax": (nn.LogSoftmax, IMAGE, lambda m, x: F.log_softmax(x), {}, "LogSoftmax()"),
    "MaxPool2d": (
        lambda: nn.MaxPool2d(3, stride=2, padding=1),
        IMAGE,
        lambda m, x: F.max_pool2d(x, 3, 2, 1),
        {},
        "MaxPool2d(3, stride=2, padding=1)",
    ),
    "AvgPool2d": (
        lambda: nn.AvgPool2d(2),
        IMAGE,
        lambda m, x: F.avg_pool2d(x, 2),
        {},
        "AvgPool2d(2)",
    ),
    "AdaptiveAvgPool2d": (
        lambda: nn.AdaptiveAvgPool2d((3, 2)),
        IMAGE,
        lambda m, x: F.adaptive_avg_pool2d(x, (3, 2)),
        {},
        "AdaptiveAvgPool2d((3, 2))",
    ),
    "GlobalAvgPool2d": (
        nn.GlobalAvgPool2d,
        IMAGE,
        lambda m, x: F.global_avg_pool2d(x),
        {},
        "GlobalAvgPool2d()",
    ),
    "Upsample": (
        lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
        IMAGE,
        lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        {},
        "Upsample(scale_factor=2, mode='bilinear')",
    ),
    "PixelShuffle": (
        lambda: nn.PixelShuffle(2),
        IMAGE,
        lambda m, x: F.pixel_shuffle(x, 2),
        {},
        "PixelShuffle(2)",
    ),
    "Flatten": (nn.Flatten, IMAGE, lambda m, x: x.reshape(2, 256), {}, "Flatten()"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_its_function(name):
    make, shape, function, shapes, shown = LAYERS[name]
    layer, x = make(), draw(shape)
    for i, p in enumerate(layer.parameters()):
        init.normal_(p, 1.0, 0.5 + i)  # so that no weight of 1 hides a mistake
    y = layer(x)
    np.testing.assert_array_equal(y.numpy(), function(layer, x).numpy())
    assert y.dtype == np.float32
    assert {name: p.shape for name, p in layer.named_parameters()} == shapes
    assert repr(layer) == shown


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_passes_gradients_in_both_float_types(name):
    make, shape, *_ = LAYERS[name]
    with mg.default_dtype(np.float64):
        layer, x = make(), draw(shape)
        x.requires_grad_()
        y = layer(x)
        (y * draw(y.shape, 1)).sum().backward()
        assert y.dtype == np.float64
    for t in (x, *layer.parameters()):
        assert t.grad.dtype == np.float64
        assert np.abs(t.grad).max() > 0


def test_every_layer_is_in_this_table():
    base = {"Module", "ModuleList", "Parameter", "Sequential", "Lambda", "init", "layers", "module"}
    elsewhere = {"Dropout", "Embedding"}
    names = {name.split(" ")[0] for name in LAYERS}
    assert set(nn.__all__) - base - elsewhere == names


def test_repr_of_the_layers_with_numbers():
    assert repr(nn.Dropout(0.3)) == "Dropout(p=0.3)"
    assert repr(nn.Embedding(5, 2)) == "Embedding(5, 2)"


def test_embedding_looks_up_rows():
    table = nn.Embedding(5, 3)
    indices = np.array([[0, 4], [4, 4]])
    y = table(indices)
    np.testing.assert_array_equal(y.numpy(), table.weight.numpy()[indices])
    y.sum().backward()
    np.testing.assert_array_equal(table.weight.grad, np.outer([1, 0, 0, 0, 3], [1, 1, 1]))
    np.testing.assert_array_equal(table(mg.tensor(indices)).numpy(), y.numpy())


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "Conv2d: groups=2 must divide 3 inputs"),
        (lambda: nn.ConvTranspose2d(4, 3, 3, groups=2), ValueError, "ConvTranspose2d: groups=2"),
        (lambda: nn.Conv2d(3, 4, 0), ValueError, "Conv2d: kernel_size must be"),
        (lambda: nn.GroupNorm(3, 4), ValueError, "GroupNorm: groups=3 must divide"),
        (lambda: nn.Dropout(1.0), ValueError, "Dropout: p must be in [0, 1), got 1.0"),
        (lambda: nn.MaxPool2d(), TypeError, "MaxPool2d: missing a required argument"),
        (lambda: nn.ReLU(inplace=True), TypeError, "ReLU: got an unexpected keyword argument"),
    ],
)
def test_a_layer_is_checked_when_it_is_made(make, error, words):
    with pytest.raises(error, match=re.escape(words)):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "words"),
    [
        (lambda: nn.Linear(3, 2), (4, 5), "matmul: inner sizes differ: (4, 5) @ (3, 2)"),
        (
            lambda: nn.Conv2d(1, 64, 4),
            (8, 32, 32, 3),
            "conv2d: input has 3 channels but weight (4, 4, 1, 64) expects 1; input is "
            "(N, H, W, C) = (8, 32, 32, 3)",
        ),
        (lambda: nn.Conv2d(3, 4, 5), (1, 4, 4, 3), "conv2d: a window of 5x5 pixels does not fit"),
        (lambda: nn.Conv2d(3, 4, 5), (4, 4, 3), "conv2d: needs images (N, H, W, C)"),
        (lambda: nn.BatchNorm2d(3), (2, 4, 4, 5), "batch_norm: running_mean (3,) should be (5,)"),
        (lambda: nn.LayerNorm(3), (2, 5), "layer_norm: input (2, 5) does not end in"),
    ],
)
def test_an_input_that_does_not_fit_is_explained(layer, shape, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        layer()(draw(shape))


# ---- batch normalisation and dropout


def test_running_averages_take_the_unbiased_variance():
    layer, x = nn.BatchNorm2d(4, momentum=0.25), draw((3, 2, 2, 4)) * 3.0 + 5.0
    mean, var = np.zeros(4), np.ones(4)
    for _ in range(3):
        layer(x)
        mean += 0.25 * (x.numpy().mean(axis=(0, 1, 2)) - mean)
        var += 0.25 * (x.numpy().var(axis=(0, 1, 2), ddof=1) - var)
    np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(layer.running_var.numpy(), var, rtol=1e-5)
    assert layer.running_mean.dtype == np.float32


def test_evaluation_uses_the_running_averages_and_leaves_them():
    layer, x = nn.BatchNorm2d(4), draw(IMAGE)
    layer.running_mean.copy_([1, 2, 3, 4])
    layer.running_var.copy_([4, 1, 9, 0.25])
    layer.weight.data[...] = [1, 2, 3, 4]
    layer.bias.data[...] = [5, 6, 7, 8]
    y = layer.eval()(x)
    expected = (x.numpy() - [1, 2, 3, 4]) / np.sqrt(np.array([4, 1, 9, 0.25]) + 1e-5)
    np.testing.assert_allclose(y.numpy(), expected * [1, 2, 3, 4] + [5, 6, 7, 8], rtol=1e-4)
    np.testing.assert_array_equal(layer.running_mean.numpy(), [1, 2, 3, 4])
    assert layer(x[0:1]).shape == (1, 8, 8, 4)  # one image is enough now


def test_training_normalises_by_the_batch():
    y = nn.BatchNorm2d(4)(draw((16, 4, 4, 4)) * 7.0 - 3.0).numpy()
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(axis=(0, 1, 2)), 1, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.BatchNorm1d, (1, 3)), (nn.BatchNorm2d, (1, 1, 1, 3))]
)
def test_a_batch_of_one_cannot_train_batch_normalisation(layer, shape):
    bn = layer(3)
    words = r"batch_norm: one value per channel.*use a larger batch or image, or eval\(\)"
    with pytest.raises(ValueError, match=words):
        bn(mg.tensor(np.ones(shape)))
    np.testing.assert_array_equal(bn.running_mean.numpy(), [0, 0, 0])
    bn(mg.tensor(np.ones((1, 2, 2, 3))))  # one image of several pixels is fine


def test_batch_norm_without_running_averages():
    layer = nn.BatchNorm2d(4, track_running_stats=False)
    assert layer.buffers() == []
    x = draw(IMAGE)
    np.testing.assert_array_equal(layer(x).numpy(), layer.eval()(x).numpy())


def test_a_change_of_running_averages_is_counted():
    layer, x = nn.BatchNorm2d(4), draw(IMAGE)
    x.requires_grad_()
    y = layer.eval()(x)
    layer.train()(x)
    assert layer.running_var._version.value > 0
    y.sum().backward()  # and does not disturb what evaluation had computed from them


def test_dropout_keeps_the_mean_and_is_off_in_evaluation():
    mg.manual_seed(0)
    layer, x = nn.Dropout(0.3), mg.tensor(np.ones((200, 500)), requires_grad=True)
    y = layer(x)
    assert set(np.unique(y.numpy())) == {np.float32(0), np.float32(1 / 0.7)}
    share = float((y.numpy() == 0).mean())
    assert abs(share - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 1e5)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, y.numpy())  # the same mask
    assert not np.array_equal(layer(x).numpy(), y.numpy())  # and a new one each time
    assert layer.eval()(x) is x


def test_dropout_repeats_with_the_seed_in_both_float_types():
    masks = []
    for dtype in (np.float32, np.float32, np.float64):
        mg.manual_seed(1)
        masks.append(F.dropout(mg.tensor(np.ones(1000), dtype=dtype)).numpy() > 0)
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])


# ---- the Module protocol


class Block(nn.Module):
    def __init__(self):
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.scale = nn.Parameter([2.0])
        self.note = "not a parameter"

    def forward(self, x):
        return self.norm(self.conv(x)) * self.scale


class Net(nn.Module):
    def __init__(self):
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(256, 2))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


BLOCK = ["scale", "conv.weight", "conv.bias", "norm.weight", "norm.bias"]
BUFFERS = ["norm.running_mean", "norm.running_var"]


def test_names_of_parameters_and_buffers():
    net = Net()
    parameters = [f"blocks.{i}.{name}" for i in range(2) for name in BLOCK]
    parameters += ["head.2.weight", "head.2.bias"]
    buffers = [f"blocks.{i}.{name}" for i in range(2) for name in BUFFERS]
    assert [name for name, _ in net.named_parameters()] == parameters
    assert [name for name, _ in net.named_buffers()] == buffers
    assert list(net.state_dict()) == parameters + buffers
    assert len(net.parameters()) == len(parameters)
    assert all(p.requires_grad and isinstance(p, nn.Parameter) for p in net.parameters())
    assert not any(b.requires_grad for b in net.buffers())
    names = ["", "blocks", "blocks.0", "blocks.0.conv", "blocks.0.norm"]
    assert [name for name, _ in net.named_modules()][:5] == names


def test_repr_shows_the_tree():
    assert repr(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU()))) == (
        "Sequential(\n"
        "  (0): Linear(weight (2, 3), bias)\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "  )\n"
        ")"
    )


def test_train_and_eval_reach_every_module():
    net = Net()
    assert net.training
    assert net.eval() is net
    assert not any(m.training for _, m in net.named_modules())
    net.blocks[1].train()
    assert not net.training
    net.train()
    assert all(m.training for _, m in net.named_modules())


def test_apply_visits_children_first_and_self_last():
    net, seen = Net(), []
    assert net.apply(seen.append) is net
    assert seen[0] is net.blocks[0].conv
    assert seen[-1] is net
    assert len(seen) == len(list(net.named_modules()))


def test_zero_grad_and_requires_grad_():
    net, x = Net(), draw(IMAGE)
    net(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert net.requires_grad_(False) is net
    assert not net(x).requires_grad
    assert net.requires_grad_()(x).requires_grad


def test_state_dict_is_a_copy_and_round_trips():
    mg.manual_seed(0)
    a, b = Net(), Net()
    x = draw(IMAGE)
    a(x)
    state = a.state_dict()
    assert all(type(v) is np.ndarray for v in state.values())
    b.load_state_dict(state)
    np.testing.assert_array_equal(a.eval()(x).numpy(), b.eval()(x).numpy())
    for array in state.values():
        array[...] = 77
    assert not np.any(a.head[2].weight.numpy() == 77)
    assert not np.any(b.head[2].weight.numpy() == 77)


def test_loading_keeps_type_identity_and_optimisers_memory():
    layer = nn.Linear(2, 2)
    weight, memory = layer.weight, layer.weight.data
    layer.load_state_dict({"weight": np.eye(2), "bias": np.arange(2)})
    assert layer.weight is weight
    assert layer.weight.data is memory
    assert layer.weight.dtype == np.float32
    np.testing.assert_array_equal(memory, np.eye(2))


def test_loading_is_a_change_in_place():
    layer, x = nn.Linear(2, 2), draw((3, 2))
    x.requires_grad_()
    y = layer(x).sum()
    layer.load_state_dict(layer.state_dict())
    with pytest.raises(RuntimeError, match="was changed in place"):
        y.backward()


def test_load_state_dict_lists_everything_wrong_and_leaves_the_module():
    layer = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = layer.state_dict()
    state = {
        **before,
        "0.bias": np.zeros(4),
        "1.running_var": np.array(["a", "b", "c"]),
        "1.weight": np.full(3, 9.0),
        "extra": np.zeros(1),
    }
    del state["0.weight"]
    with pytest.raises(ValueError, match="load_state_dict: Sequential cannot take it") as caught:
        layer.load_state_dict(state)
    assert str(caught.value).splitlines()[1:] == [
        "  missing: 0.weight (2, 3)",
        "  unexpected: extra",
        "  shape: 0.bias is (4,), expected (3,)",
        "  type: 1.running_var is <U1, expected float32",
    ]
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_shared_parameters_are_listed_and_loaded_once():
    class Tied(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight
            self.again = self.a

    tied = Tied()
    assert [name for name, _ in tied.named_parameters()] == ["a.weight", "a.bias", "b.bias"]
    tied.load_state_dict({"a.weight": np.eye(3), "a.bias": np.ones(3), "b.bias": np.zeros(3)})
    assert tied.b.weight is tied.a.weight
    np.testing.assert_array_equal(tied.b.weight.numpy(), np.eye(3))


@pytest.mark.parametrize("wrap", [list, tuple, lambda items: {"a": items[0]}])
@pytest.mark.parametrize("make", [nn.ReLU, lambda: nn.Parameter([1.0])])
def test_a_plain_list_of_modules_or_parameters_is_refused(wrap, make):
    class Lost(nn.Module):
        def __init__(self):
            self.parts = wrap([make(), make()])

    with pytest.raises(TypeError, match=r"Lost.parts: .*would not be trained.*use nn.ModuleList"):
        Lost()


def test_plain_lists_of_other_things_are_fine():
    m = nn.Module()
    m.sizes, m.names, m.empty = [1, 2], ("a",), []
    assert m.sizes == [1, 2]


def test_module_list_and_sequential_are_lists():
    layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)]
    for container in (nn.ModuleList(layers), nn.ModuleList(*layers), nn.Sequential(*layers)):
        assert len(container) == 3
        assert list(container) == layers
        assert container[0] is layers[0]
        assert container[-1] is layers[-1]
        assert len(container.parameters()) == 4
    container.append(nn.Tanh())
    x = draw((4, 2))
    expected = F.tanh(layers[2](F.relu(layers[0](x))))
    np.testing.assert_array_equal(container(x).numpy(), expected.numpy())
    assert len(nn.ModuleList()) == 0
    assert nn.Sequential()(x) is x
    with pytest.raises(TypeError, match="ModuleList: 3 is not a Module"):
        nn.ModuleList([3])


def test_a_module_without_forward_says_so():
    class Half(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Half: forward is not written"):
        Half()(draw((1,)))


# ---- initial weights


def many(*shape):
    return mg.tensor(np.zeros(shape))


def assert_spread(tensor, std, mean=0.0):
    values = tensor.numpy().astype(np.float64)
    n = values.size
    assert abs(values.mean() - mean) < 5 * std / math.sqrt(n)
    assert values.std() == pytest.approx(std, rel=5 / math.sqrt(n))


@pytest.fixture(autouse=True)
def seeded():
    mg.manual_seed(0)


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


def test_a_copied_module_works_and_is_its_own():
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    twin = copy.deepcopy(module)
    x = mg.tensor(np.random.default_rng(0).normal(size=(5, 3)))
    assert np.array_equal(module(x).numpy(), twin(x).numpy())
    with mg.no_grad():
        twin[0].weight.zero_()
    assert module[0].weight.numpy().any()
    twin(x).sum().backward()
    assert module[0].weight.grad is None


def test_children_modules_and_slices_are_as_in_pytorch():
    module = nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.ReLU(), nn.Tanh()))
    assert [type(m).__name__ for m in module.children()] == ["Linear", "Sequential"]
    assert [name for name, _ in module.named_children()] == ["0", "1"]
    assert len(list(module.modules())) == 5
    first = module[:1]
    assert isinstance(first, nn.Sequential)
    assert first(mg.tensor(np.ones((1, 3)))).shape == (1, 2)
