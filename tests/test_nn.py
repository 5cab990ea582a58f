"""Modules: every layer, the Module protocol, and initial weights."""

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
    base = {"Module", "ModuleList", "Parameter", "Sequential", "Lambda"}
    base |= {"init", "layers", "module", "spectral"}
    elsewhere = {"Dropout", "Embedding", "SpectralNorm"}
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


@pytest.fixture(autouse=True)
def seeded():
    mg.manual_seed(0)
