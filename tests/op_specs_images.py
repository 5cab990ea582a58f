"""The specification of the functions that know images; importing it adds to `op_specs.SPECS`."""

import numpy as np
import op_reference as reference
from hypothesis import strategies as st
from op_cases import Case, as_pair, distinct, draw_inputs, shapes, small_pair, spread
from op_specs import spec

import minigan as mg
from minigan import functional as F


@st.composite
def image_sides(draw, spans, padding, most=4):
    """(H, W) in which at least one window fits, with up to `most` pixels more."""
    return tuple(
        max(1, span - 2 * p) + draw(st.integers(0, most))
        for span, p in zip(spans, as_pair(padding), strict=True)
    )


def span(kernel, dilation):
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, as_pair(dilation), strict=True))


BATCH = st.sampled_from([2, 1, 3, 0])
KERNELS = st.tuples(st.integers(1, 3), st.integers(1, 3))


# Convolution


@spec("conv2d")
def conv2d_case(draw):
    kernel, groups = draw(KERNELS), draw(st.sampled_from([1, 1, 2, 3]))
    stride, dilation = draw(small_pair(1, 3)), draw(small_pair(1, 2))
    padding = draw(small_pair(0, 3))
    sides = draw(image_sides(span(kernel, dilation), padding))
    c, o = draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    has_bias = draw(st.booleans())
    sizes = [(draw(BATCH), *sides, c * groups), (*kernel, c, o), (o,)][: 2 + has_bias]
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    pairs = [as_pair(v) for v in (stride, padding, dilation)]
    return Case(
        lambda x, w, b=None: F.conv2d(x, w, b, **options),
        lambda x, w, b=None: reference.conv2d(x, w, b, *pairs, groups),
        draw_inputs(draw, *sizes),
        f"conv2d {options}",
    )


@spec("conv_transpose2d")
def conv_transpose2d_case(draw):
    kernel, groups = draw(KERNELS), draw(st.sampled_from([1, 1, 2, 3]))
    stride, dilation = draw(small_pair(1, 3)), draw(small_pair(1, 2))
    extra = tuple(draw(st.integers(0, s - 1)) for s in as_pair(stride))
    sides = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    full = [
        (n - 1) * s + e + more
        for n, s, e, more in zip(sides, as_pair(stride), span(kernel, dilation), extra, strict=True)
    ]
    padding = tuple(draw(st.integers(0, min(2, (n - 1) // 2))) for n in full)
    c, o = groups * draw(st.integers(1, 2)), draw(st.integers(1, 2))
    has_bias = draw(st.booleans())
    sizes = [(draw(BATCH), *sides, c), (*kernel, o, c), (o * groups,)][: 2 + has_bias]
    options = {
        "stride": stride,
        "padding": padding,
        "output_padding": extra,
        "groups": groups,
        "dilation": dilation,
    }
    return Case(
        lambda x, w, b=None: F.conv_transpose2d(x, w, b, **options),
        lambda x, w, b=None: reference.conv_transpose2d(
            x, w, b, as_pair(stride), padding, extra, groups, as_pair(dilation)
        ),
        draw_inputs(draw, *sizes),
        f"conv_transpose2d {options}",
    )


# Pooling


def draw_pooling(draw, dilation=1):
    kernel, gaps = draw(small_pair(1, 3)), as_pair(dilation)
    padding = tuple(draw(st.integers(0, k // 2)) for k in as_pair(kernel))
    sides = draw(image_sides(span(as_pair(kernel), dilation), padding))
    sides = tuple(max(n, d) for n, d in zip(sides, gaps, strict=True))  # else all is padding
    stride = draw(st.one_of(st.none(), small_pair(1, 3)))
    shape = (draw(BATCH), *sides, draw(st.integers(1, 2)))
    return shape, kernel, stride, padding


@spec("avg_pool2d")
def avg_pool2d_case(draw):
    shape, kernel, stride, padding = draw_pooling(draw)
    step = as_pair(kernel if stride is None else stride)
    return Case(
        lambda x: F.avg_pool2d(x, kernel, stride, padding),
        lambda x: reference.pool(x, np.mean, as_pair(kernel), step, padding),
        draw_inputs(draw, shape),
        f"avg_pool2d {kernel} stride={stride} padding={padding}",
    )


@spec("max_pool2d")
def max_pool2d_case(draw):
    dilation = draw(small_pair(1, 2))
    shape, kernel, stride, padding = draw_pooling(draw, dilation)
    step = as_pair(kernel if stride is None else stride)
    return Case(
        lambda x: F.max_pool2d(x, kernel, stride, padding, dilation),
        lambda x: reference.pool(
            x, np.max, as_pair(kernel), step, padding, as_pair(dilation), -np.inf
        ),
        draw_inputs(draw, shape, fill=distinct),
        f"max_pool2d {kernel} stride={stride} padding={padding} dilation={dilation}",
    )


@st.composite
def images(draw, least=1, most=4, channels=2):
    sides = st.integers(least, most)
    return (draw(BATCH), draw(sides), draw(sides), draw(st.integers(1, channels)))


@spec("global_avg_pool2d")
def global_avg_pool2d_case(draw):
    return Case(
        F.global_avg_pool2d,
        lambda x: reference.adaptive_avg_pool2d(x, (1, 1))[:, 0, 0],
        draw_inputs(draw, draw(images())),
    )


@spec("adaptive_avg_pool2d")
def adaptive_avg_pool2d_case(draw):
    size = draw(small_pair(1, 5))
    return Case(
        lambda x: F.adaptive_avg_pool2d(x, size),
        lambda x: reference.adaptive_avg_pool2d(x, as_pair(size)),
        draw_inputs(draw, draw(images())),
        f"adaptive_avg_pool2d {size}",
    )


# Resampling


@spec("interpolate")
def interpolate_case(draw):
    mode = draw(st.sampled_from(["nearest", "bilinear"]))
    align = mode == "bilinear" and draw(st.booleans())
    shape = draw(images())
    sides = shape[1:3]
    if draw(st.booleans()):
        size = draw(small_pair(1, 7))
        options, target = {"size": size}, as_pair(size)
        scale = tuple(m / n for m, n in zip(target, sides, strict=True))
    else:
        factor = draw(st.sampled_from([2, (1, 3), (2.5, 2), 2.4, 3]))
        options, scale = {"scale_factor": factor}, as_pair(factor)
        target = tuple(int(n * s) for n, s in zip(sides, scale, strict=True))
    return Case(
        lambda x: F.interpolate(x, mode=mode, align_corners=align, **options),
        lambda x: reference.interpolate(x, target, scale, mode, align),
        draw_inputs(draw, shape),
        f"interpolate {options} {mode} align_corners={align}",
    )


@spec("pixel_shuffle")
def pixel_shuffle_case(draw):
    r = draw(st.integers(1, 3))
    n, h, w, c = draw(images(most=3))
    return Case(
        lambda x: F.pixel_shuffle(x, r),
        lambda x: reference.pixel_shuffle(x, r),
        draw_inputs(draw, (n, h, w, c * r * r)),
        f"pixel_shuffle {r}",
    )


# Normalisation: x, and a weight and bias that may be missing


def normalisation(draw, shape, parameters, call, expected, note):
    """A case of `call(x, weight, bias)`, of which `expected(x)` is the part before the affine."""
    has_weight, has_bias = draw(st.booleans()), draw(st.booleans())

    def split(x, *rest):
        rest = list(rest)
        weight = rest.pop(0) if has_weight else None
        return x, weight, rest.pop(0) if has_bias else None

    def by_definition(*arrays):
        x, weight, bias = split(*arrays)
        return reference.affine(expected(x), weight, bias)

    inputs = draw_inputs(
        draw, shape, *[parameters] * (has_weight + has_bias), fill=spread_out(has_weight + has_bias)
    )
    return Case(lambda *xs: call(*split(*xs)), by_definition, inputs, note)


def spread_out(parameters):
    """Inputs with a variance well over zero, so that the normalisation is well conditioned."""
    return (lambda rng, shape: 2 * distinct(rng, shape) + 0.5, *[spread] * parameters)


EPS = st.sampled_from([1e-5, 1e-2])


@spec("batch_norm")
def batch_norm_case(draw):
    channels, eps = draw(st.integers(1, 3)), draw(EPS)
    lead = draw(st.sampled_from([(3,), (4, 2), (2, 3, 2), (2, 1, 3), (5,)]))
    training = draw(st.sampled_from([True, True, False]))
    stored = np.array([0.3, -0.2, 0.1])[:channels], np.array([0.7, 1.5, 0.9])[:channels]

    def call(x, weight, bias):
        mean, var = (mg.Tensor(s.copy(), dtype=x.dtype, device=x.device) for s in stored)
        return F.batch_norm(x, mean, var, weight, bias, training=training, eps=eps)

    def expected(x):
        if training:
            return reference.batch_norm(x, eps)
        return (x - stored[0]) / np.sqrt(stored[1] + eps)

    note = f"batch_norm training={training} eps={eps}"
    return normalisation(draw, (*lead, channels), (channels,), call, expected, note)


@spec("instance_norm")
def instance_norm_case(draw):
    channels, eps = draw(st.integers(1, 3)), draw(EPS)
    shape = (draw(BATCH), draw(st.integers(2, 3)), draw(st.integers(1, 4)), channels)
    return normalisation(
        draw,
        shape,
        (channels,),
        lambda x, weight, bias: F.instance_norm(x, weight, bias, eps),
        lambda x: reference.instance_norm(x, eps),
        f"instance_norm eps={eps}",
    )


@spec("layer_norm")
def layer_norm_case(draw):
    eps = draw(EPS)
    tail = draw(st.sampled_from([(3,), (2, 3), (4,), (3, 1)]))
    shape = (*draw(shapes(most=2)), *tail)
    given = tail[0] if len(tail) == 1 and draw(st.booleans()) else tail
    return normalisation(
        draw,
        shape,
        tail,
        lambda x, weight, bias: F.layer_norm(x, given, weight, bias, eps),
        lambda x: reference.layer_norm(x, len(tail), eps),
        f"layer_norm {given} eps={eps}",
    )


@spec("group_norm")
def group_norm_case(draw):
    groups, width, eps = draw(st.integers(1, 3)), draw(st.integers(2, 3)), draw(EPS)
    middle = draw(st.sampled_from([(), (2,), (2, 2)]))
    shape = (draw(st.integers(1, 2)), *middle, groups * width)
    return normalisation(
        draw,
        shape,
        shape[-1:],
        lambda x, weight, bias: F.group_norm(x, groups, weight, bias, eps),
        lambda x: reference.group_norm(x, groups, eps),
        f"group_norm {groups} eps={eps}",
    )
