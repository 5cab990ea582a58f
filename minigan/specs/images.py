"""The specification of the functions of images: convolution, pooling, resampling."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan import functional as F
from minigan.specs import reference
from minigan.specs.case import Case, spec
from minigan.specs.choices import Choices
from minigan.specs.values import Shape, as_pair, distinct, draw_inputs


def batch(choose: Choices) -> int:
    """Return a number of images: now and then none at all."""
    return 0 if choose.yes(12) else choose.of(2, 1, 3)


def kernel_size(choose: Choices) -> tuple[int, int]:
    """Return a kernel's height and width, which differ more often than not."""
    return choose.of((2, 3), (3, 2), (1, 1), (3, 3), (2, 2), (1, 3), (2, 1), (3, 1))


def span(kernel: Any, dilation: Any) -> tuple[int, int]:
    """Return the extent of a dilated kernel."""
    (kh, kw), (dh, dw) = as_pair(kernel), as_pair(dilation)
    return (kh - 1) * dh + 1, (kw - 1) * dw + 1


def image_sides(choose: Choices, spans: tuple[int, int], padding: Any) -> tuple[int, int]:
    """Return (H, W) in which a window fits, with up to 4 pixels more: some are left over."""
    (eh, ew), (ph, pw) = spans, as_pair(padding)
    return (
        max(1, eh - 2 * ph) + choose.integer(0, 4),
        max(1, ew - 2 * pw) + choose.integer(0, 4),
    )


# Convolution


def conv_options(choose: Choices) -> dict[str, Any]:
    """Return stride, padding, dilation and groups of a convolution."""
    return {
        "stride": choose.pair(1, 3),
        "padding": choose.pair(0, 3),
        "dilation": choose.pair(1, 2),
        "groups": choose.of(1, 2, 1, 3),
    }


def conv_shapes(choose: Choices, options: dict[str, Any]) -> tuple[Shape, Shape, Shape]:
    """Return shapes of image, weight and bias that fit the options."""
    kernel, groups = kernel_size(choose), options["groups"]
    sides = image_sides(choose, span(kernel, options["dilation"]), options["padding"])
    c, o = choose.integer(1, 2), groups * choose.integer(1, 2)
    return (batch(choose), *sides, c * groups), (*kernel, c, o), (o,)


def conv2d_reference(options: dict[str, Any], *arrays: np.ndarray) -> np.ndarray:
    """Convolve image, weight and perhaps bias by definition."""
    x, w, b = (*arrays, None)[:3]
    pairs = [as_pair(options[name]) for name in ("stride", "padding", "dilation")]
    return reference.conv2d(x, w, b, *pairs, options["groups"])


@spec("conv2d")
def conv2d_case(choose: Choices) -> Case:
    """Any geometry, with and without bias."""
    options = conv_options(choose)
    sizes = conv_shapes(choose, options)[: choose.of(2, 3)]
    return Case(
        lambda *xs: F.conv2d(*xs, **options),
        lambda *xs: conv2d_reference(options, *xs),
        draw_inputs(choose, *sizes),
        f"{options}",
        options,
    )


def transpose_geometry(choose: Choices) -> tuple[dict[str, Any], tuple[Shape, Shape, Shape]]:
    """Return options of a transposed convolution, and shapes of image, weight and bias."""
    kernel, groups = kernel_size(choose), choose.of(1, 2, 1, 3)
    stride, dilation = choose.pair(1, 3), choose.pair(1, 2)
    steps, spans = as_pair(stride), span(kernel, dilation)
    room = [max(s, d) - 1 for s, d in zip(steps, as_pair(dilation), strict=True)]
    extra = choose.integer(0, room[0]), choose.integer(0, room[1])
    sides = choose.integer(1, 4), choose.integer(1, 4)
    full = [
        (n - 1) * s + e + more for n, s, e, more in zip(sides, steps, spans, extra, strict=True)
    ]
    padding = tuple(choose.integer(0, min(2, (n - 1) // 2)) for n in full)
    c, o = groups * choose.integer(1, 2), choose.integer(1, 2)
    options = {
        "stride": stride,
        "padding": padding,
        "output_padding": extra,
        "groups": groups,
        "dilation": dilation,
    }
    return options, ((batch(choose), *sides, c), (*kernel, o, c), (o * groups,))


def conv_transpose2d_reference(options: dict[str, Any], *arrays: np.ndarray) -> np.ndarray:
    """Stamp image times weight, plus perhaps bias, by definition."""
    x, w, b = (*arrays, None)[:3]
    names = ("stride", "padding", "output_padding", "groups", "dilation")
    stride, padding, extra, groups, dilation = (options[name] for name in names)
    return reference.conv_transpose2d(
        x, w, b, as_pair(stride), as_pair(padding), as_pair(extra), groups, as_pair(dilation)
    )


@spec("conv_transpose2d")
def conv_transpose2d_case(choose: Choices) -> Case:
    """Any geometry, with and without bias."""
    options, sizes = transpose_geometry(choose)
    return Case(
        lambda *xs: F.conv_transpose2d(*xs, **options),
        lambda *xs: conv_transpose2d_reference(options, *xs),
        draw_inputs(choose, *sizes[: choose.of(2, 3)]),
        f"{options}",
        options,
    )


# Pooling


def pooling(choose: Choices, dilation: Any = 1) -> tuple[Shape, dict[str, Any]]:
    """Return the shape of images, and kernel, stride and padding that fit them."""
    kernel, gaps = choose.pair(1, 3), as_pair(dilation)
    padding = tuple(choose.integer(0, k // 2) for k in as_pair(kernel))
    sides = image_sides(choose, span(kernel, dilation), padding)
    sides = tuple(max(n, d) for n, d in zip(sides, gaps, strict=True))  # else all is padding
    stride = None if choose.yes(3) else choose.pair(1, 3)
    shape = (batch(choose), *sides, choose.integer(1, 2))
    return shape, {"kernel_size": kernel, "stride": stride, "padding": padding}


def pool_reference(
    x: np.ndarray, reduce: Any, options: dict[str, Any], dilation: Any = 1, outside: float = 0.0
) -> np.ndarray:
    """Reduce each window by definition."""
    kernel, stride = options["kernel_size"], options["stride"]
    step = as_pair(kernel if stride is None else stride)
    pairs = as_pair(kernel), step, options["padding"], as_pair(dilation)
    return reference.pool(x, reduce, *pairs, outside)


@spec("avg_pool2d")
def avg_pool2d_case(choose: Choices) -> Case:
    """Padding counts as zeros."""
    shape, options = pooling(choose)
    return Case(
        lambda x: F.avg_pool2d(x, **options),
        lambda x: pool_reference(x, np.mean, options),
        draw_inputs(choose, shape),
        f"{options}",
        options,
    )


@spec("max_pool2d")
def max_pool2d_case(choose: Choices) -> Case:
    """Padding never wins; no two numbers are close."""
    dilation = choose.pair(1, 2)
    shape, options = pooling(choose, dilation)
    return Case(
        lambda x: F.max_pool2d(x, **options, dilation=dilation),
        lambda x: pool_reference(x, np.max, options, dilation, -np.inf),
        draw_inputs(choose, shape, fill=distinct),
        f"{options} dilation={dilation}",
        {**options, "dilation": dilation},
    )


def images(choose: Choices, most: int = 4) -> Shape:
    """Return a shape of images of up to `most` pixels a side."""
    return batch(choose), choose.integer(1, most), choose.integer(1, most), choose.integer(1, 2)


@spec("global_avg_pool2d")
def global_avg_pool2d_case(choose: Choices) -> Case:
    """The mean of each channel."""
    return Case(
        F.global_avg_pool2d,
        lambda x: reference.adaptive_avg_pool2d(x, (1, 1))[:, 0, 0],
        draw_inputs(choose, images(choose)),
    )


@spec("adaptive_avg_pool2d")
def adaptive_avg_pool2d_case(choose: Choices) -> Case:
    """To smaller sizes and to larger ones."""
    size = choose.pair(1, 5)
    return Case(
        lambda x: F.adaptive_avg_pool2d(x, size),
        lambda x: reference.adaptive_avg_pool2d(x, as_pair(size)),
        draw_inputs(choose, images(choose)),
        f"{size}",
        {"output_size": size},
    )


# Resampling


@spec("interpolate")
def interpolate_case(choose: Choices) -> Case:
    """To a size or by a factor, whole or not, larger or smaller."""
    mode = choose.of("nearest", "bilinear")
    align = mode == "bilinear" and choose.yes()
    shape = images(choose)
    options: dict[str, Any]
    if choose.yes():
        size = choose.pair(1, 7)
        options, target = {"size": size}, as_pair(size)
        scale = tuple(m / n for m, n in zip(target, shape[1:3], strict=True))
    else:
        factor = choose.of(2, (1, 3), (2.5, 2), 2.4, 3)
        options, scale = {"scale_factor": factor}, as_pair(factor)
        target = tuple(int(n * s) for n, s in zip(shape[1:3], scale, strict=True))
    options |= {"mode": mode, "align_corners": align}
    return Case(
        lambda x: F.interpolate(x, **options),
        lambda x: reference.interpolate(x, target, scale, mode, align),
        draw_inputs(choose, shape),
        f"{options}",
        options,
    )


@spec("pixel_shuffle")
def pixel_shuffle_case(choose: Choices) -> Case:
    """Channels to pixels."""
    r = choose.integer(1, 3)
    n, h, w, c = images(choose, most=3)
    return Case(
        lambda x: F.pixel_shuffle(x, r),
        lambda x: reference.pixel_shuffle(x, r),
        draw_inputs(choose, (n, h, w, c * r * r)),
        f"{r}",
        {"upscale_factor": r},
    )
