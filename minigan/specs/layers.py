"""The specification of the layers of `minigan.nn`, their parameters among the inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from minigan import nn
from minigan.specs import reference
from minigan.specs.case import REGISTRY, Case, spec
from minigan.specs.choices import Choices
from minigan.specs.elementwise import seeded
from minigan.specs.images import (
    batch,
    conv2d_reference,
    conv_options,
    conv_shapes,
    conv_transpose2d_reference,
    transpose_geometry,
)
from minigan.specs.indexing import one_hot, rows_of
from minigan.specs.norms import STORED
from minigan.specs.values import Fill, Shape, draw_inputs, positive, shapes, spread, varied
from minigan.tensor import Tensor


def give_parameters(module: nn.Module, names: list[str], tensors: tuple[Tensor, ...]) -> None:
    """Put tensors in the place of a module's parameters."""
    for name, tensor in zip(names, tensors, strict=True):
        *path, last = name.split(".")
        owner = module
        for step in path:
            owner = getattr(owner, step)
        setattr(owner, last, tensor)


def give_buffers(module: nn.Module, like: Tensor) -> None:
    """Give running averages fresh values, of the type and on the device of `like`."""
    for _, owner in module.named_modules():
        for name, values in (("running_mean", STORED[0]), ("running_var", STORED[1])):
            running = getattr(owner, name, None)
            if running is not None:
                given = np.resize(values, running.shape)
                setattr(owner, name, Tensor(given, dtype=like.dtype, device=like.device))


def module_call(module: nn.Module) -> tuple[Callable[..., Tensor], list[Shape]]:
    """Return a module as a function of (x, *parameters), and its parameters' shapes.

    Running averages start from the same values at each call, so that the function is the same.
    """
    names = [name for name, _ in module.named_parameters()]
    sizes = [parameter.shape for parameter in module.parameters()]

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        give_parameters(module, names, parameters)
        give_buffers(module, x)
        return module(x)

    return call, sizes


def layer_case(
    choose: Choices,
    module: nn.Module,
    shape: Shape,
    expected: Callable[..., np.ndarray],
    note: str = "",
    fill: Fill = spread,
) -> Case:
    """Return a case of a layer: x of that shape, and the parameters, under `expected(x, *them)`."""
    call, sizes = module_call(module)
    inputs = draw_inputs(choose, shape, *sizes, fill=(fill, *[spread] * len(sizes)))
    return Case(call, expected, inputs, note)


# Layers that are a function with its options fixed


def function_layer(name: str, function: str) -> None:
    """Register a layer with the cases of the function that it applies."""

    @spec(f"nn.{name}", "layer")
    def build(choose: Choices) -> Case:
        case = REGISTRY[function].build(choose)
        layer = getattr(nn, name)(**case.options)
        return replace(case, call=layer)


for _name, _function in {
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "ELU": "elu",
    "GELU": "gelu",
    "SiLU": "silu",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "MaxPool2d": "max_pool2d",
    "AvgPool2d": "avg_pool2d",
    "AdaptiveAvgPool2d": "adaptive_avg_pool2d",
    "GlobalAvgPool2d": "global_avg_pool2d",
    "Upsample": "interpolate",
    "PixelShuffle": "pixel_shuffle",
}.items():
    function_layer(_name, _function)


@spec("nn.Lambda", "layer")
def lambda_case(choose: Choices) -> Case:
    """A layer of somebody's own: x, times a number."""

    class Scaled(nn.Lambda):
        function = staticmethod(lambda x, by: x * by)

    by = choose.of(2.0, -0.5)
    return layer_case(choose, Scaled(by=by), shapes(choose), lambda x: by * x, f"by={by}")


@spec("nn.Dropout", "layer")
def dropout_case(choose: Choices) -> Case:
    """In training and in evaluation."""
    case = REGISTRY["dropout"].build(choose)
    layer = nn.Dropout(case.options["p"]).train(case.options["training"])
    call = seeded(lambda x: layer(x * 1.0), case.options["seed"])
    return replace(case, call=call)


@spec("nn.Flatten", "layer")
def flatten_case(choose: Choices) -> Case:
    """All axes but the first in one."""
    shape = shapes(choose, least=1)
    width = int(np.prod(shape[1:]))
    return layer_case(choose, nn.Flatten(), shape, lambda x: x.copy().reshape(shape[0], width))


# Layers with parameters


@spec("nn.Linear", "layer")
def linear_case(choose: Choices) -> Case:
    """Any number of leading axes, with and without bias."""
    features, outputs, bias = choose.of(2, 3, 1), choose.of(3, 2, 1), choose.yes()
    return layer_case(
        choose,
        nn.Linear(features, outputs, bias),
        (*shapes(choose, most=2), features),
        lambda x, w, b=0.0: np.einsum("...i,io->...o", x, w) + b,
        f"bias={bias}",
    )


@spec("nn.Conv2d", "layer")
def conv2d_case(choose: Choices) -> Case:
    """Any geometry."""
    options, bias = conv_options(choose), choose.yes()
    image, weight, (outputs,) = conv_shapes(choose, options)
    layer = nn.Conv2d(image[3], outputs, weight[:2], **options, bias=bias)
    return layer_case(
        choose, layer, image, lambda *xs: conv2d_reference(options, *xs), f"{options} bias={bias}"
    )


@spec("nn.ConvTranspose2d", "layer")
def conv_transpose2d_case(choose: Choices) -> Case:
    """Any geometry."""
    (options, (image, weight, (outputs,))), bias = transpose_geometry(choose), choose.yes()
    layer = nn.ConvTranspose2d(image[3], outputs, weight[:2], **options, bias=bias)
    return layer_case(
        choose,
        layer,
        image,
        lambda *xs: conv_transpose2d_reference(options, *xs),
        f"{options} bias={bias}",
    )


def batch_norm_case(choose: Choices, cls: type[nn.BatchNorm2d], lead: Shape) -> Case:
    """In training and in evaluation, with and without γ and β."""
    channels, affine, training = choose.integer(1, 3), choose.yes(), not choose.yes(4)
    mean, var = (s[:channels] for s in STORED)

    def expected(x: np.ndarray, weight: Any = None, bias: Any = None) -> np.ndarray:
        normal = reference.batch_norm(x, 1e-5) if training else (x - mean) / np.sqrt(var + 1e-5)
        return reference.affine(normal, weight, bias)

    layer = cls(channels, affine=affine).train(training)
    note = f"affine={affine} training={training}"
    return layer_case(choose, layer, (*lead, channels), expected, note, varied)


@spec("nn.BatchNorm1d", "layer")
def batch_norm1d_case(choose: Choices) -> Case:
    """Rows of features."""
    return batch_norm_case(choose, nn.BatchNorm1d, (choose.integer(3, 6),))


@spec("nn.BatchNorm2d", "layer")
def batch_norm2d_case(choose: Choices) -> Case:
    """Images."""
    return batch_norm_case(choose, nn.BatchNorm2d, choose.of((2, 3, 2), (1, 2, 2), (3, 1, 2)))


@spec("nn.InstanceNorm2d", "layer")
def instance_norm_case(choose: Choices) -> Case:
    """Each channel of each image."""
    channels, affine = choose.integer(1, 3), choose.yes()
    return layer_case(
        choose,
        nn.InstanceNorm2d(channels, affine=affine),
        (batch(choose), choose.integer(2, 3), choose.integer(1, 4), channels),
        lambda x, w=None, b=None: reference.affine(reference.instance_norm(x, 1e-5), w, b),
        f"affine={affine}",
        varied,
    )


@spec("nn.LayerNorm", "layer")
def layer_norm_case(choose: Choices) -> Case:
    """The last axis, or the last two."""
    tail, affine = choose.of((3,), (2, 3), (4,)), choose.yes()
    return layer_case(
        choose,
        nn.LayerNorm(tail if len(tail) > 1 else tail[0], affine=affine),
        (*shapes(choose, most=2), *tail),
        lambda x, w=None, b=None: reference.affine(reference.layer_norm(x, len(tail), 1e-5), w, b),
        f"{tail} affine={affine}",
        varied,
    )


@spec("nn.GroupNorm", "layer")
def group_norm_case(choose: Choices) -> Case:
    """Groups of channels."""
    groups, width, affine = choose.integer(1, 3), choose.integer(2, 3), choose.yes()
    return layer_case(
        choose,
        nn.GroupNorm(groups, groups * width, affine=affine),
        (choose.integer(1, 2), *choose.of((), (2,), (2, 2)), groups * width),
        lambda x, w=None, b=None: reference.affine(reference.group_norm(x, groups, 1e-5), w, b),
        f"{groups} groups affine={affine}",
        varied,
    )


@spec("nn.Embedding", "layer")
def embedding_case(choose: Choices) -> Case:
    """The table is the one input."""
    count, features = choose.integer(1, 5), choose.of(2, 3, 1)
    rows, given = rows_of(choose, count)
    layer = nn.Embedding(count, features)

    def call(weight: Tensor) -> Tensor:
        layer.weight = weight
        return layer(given)

    inputs = draw_inputs(choose, (count, features))
    return Case(call, lambda weight: one_hot(rows, weight), inputs, f"rows {rows.shape}")


@spec("nn.SpectralNorm", "layer")
def spectral_norm_case(choose: Choices) -> Case:
    """In evaluation, where u does not depend on the weight; a layer of each kind.

    Weight and u are positive, so that W u, which is divided by, is not near 0.
    """
    features, outputs = choose.of(2, 3, 1), choose.of(3, 2, 1)
    kind, bias = choose.of("linear", "conv", "transposed"), choose.yes()
    if kind == "linear":
        layer: nn.Module = nn.Linear(features, outputs, bias)
        shape: Shape = (choose.integer(1, 3), features)
    else:
        cls = nn.Conv2d if kind == "conv" else nn.ConvTranspose2d
        layer, shape = cls(features, outputs, 2, bias=bias), (batch(choose), 3, 2, features)
    normed = nn.SpectralNorm(layer).eval()
    u = np.abs(normed.u.numpy().astype(np.float64)) + 0.1

    def by_definition(x: np.ndarray, w: np.ndarray, b: Any = None) -> np.ndarray:
        w = w / np.sqrt(((w.reshape(-1, w.shape[-1]) @ u) ** 2).sum() + 1e-12)
        if kind == "linear":
            return np.einsum("ni,io->no", x, w) + (0.0 if b is None else b)
        if kind == "conv":
            return reference.conv2d(x, w, b, (1, 1), (0, 0), (1, 1), 1)
        return reference.conv_transpose2d(x, w, b, (1, 1), (0, 0), (0, 0), 1, (1, 1))

    call, sizes = module_call(normed)

    def with_u(x: Tensor, *parameters: Tensor) -> Tensor:
        normed.u = Tensor(u, dtype=x.dtype, device=x.device)
        return call(x, *parameters)

    fills = (spread, positive, *[spread] * (len(sizes) - 1))
    inputs = draw_inputs(choose, shape, *sizes, fill=fills)
    return Case(with_u, by_definition, inputs, f"{kind} bias={bias}")


# Layers in a row


def _dense(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ni,io->no", x, w) + b


@spec("nn.Sequential", "layer")
def sequential_case(choose: Choices) -> Case:
    """Two dense layers with a tanh between."""
    a, b, c = choose.of(2, 3, 1), choose.of(3, 2, 1), choose.of(2, 1)
    return layer_case(
        choose,
        nn.Sequential(nn.Linear(a, b), nn.Tanh(), nn.Linear(b, c)),
        (choose.integer(1, 3), a),
        lambda x, w, b, v, c: _dense(np.tanh(_dense(x, w, b)), v, c),
    )


@spec("nn.ModuleList", "layer")
def module_list_case(choose: Choices) -> Case:
    """Two branches of the same input, added."""
    a, b = choose.of(2, 3, 1), choose.of(3, 2, 1)

    class Branches(nn.Module):
        def __init__(self) -> None:
            self.branches = nn.ModuleList(nn.Linear(a, b), nn.Linear(a, b))

        def forward(self, x: Tensor) -> Tensor:
            one, other = (branch(x) for branch in self.branches)
            return one + other

    return layer_case(
        choose,
        Branches(),
        (choose.integer(1, 3), a),
        lambda x, w, b, v, c: _dense(x, w, b) + _dense(x, v, c),
    )
