"""Bad input to convolution, pooling and normalisation; the rest is in `test_ops_errors.py`."""

import re

import numpy as np
import pytest

import minigan as mg
from minigan import functional as F


def t(*shape):
    return mg.tensor(np.ones(shape))


IMAGE = t(8, 32, 32, 3)
SMALL = t(2, 4, 4, 6)

ERRORS = {
    # convolution
    "conv2d channels": (
        lambda: F.conv2d(IMAGE, t(4, 4, 1, 64)),
        "conv2d: input has 3 channels but weight (4, 4, 1, 64) expects 1; "
        "input is (N, H, W, C) = (8, 32, 32, 3)",
    ),
    "conv2d group channels": (
        lambda: F.conv2d(SMALL, t(3, 3, 6, 4), groups=2),
        "conv2d: input has 6 channels but weight (3, 3, 6, 4) expects 12",
        "2 groups",
        "(2, 4, 4, 6)",
    ),
    "conv2d groups": (
        lambda: F.conv2d(SMALL, t(3, 3, 3, 5), groups=2),
        "conv2d: groups=2 does not divide the 5 channels",
        "(3, 3, 3, 5)",
    ),
    "conv2d no groups": (lambda: F.conv2d(SMALL, t(3, 3, 6, 4), groups=0), "groups must be", "0"),
    "conv2d half a group": (lambda: F.conv2d(SMALL, t(3, 3, 6, 4), groups=1.5), "got 1.5"),
    "conv2d kernel": (
        lambda: F.conv2d(SMALL, t(5, 3, 6, 4)),
        "conv2d: a window of 5x3 pixels does not fit an image of 4x4 with padding (0, 0)",
        "(2, 4, 4, 6)",
        "smaller kernel or more padding",
    ),
    "conv2d dilation": (
        lambda: F.conv2d(SMALL, t(3, 3, 6, 4), dilation=2),
        "conv2d: a window of 5x5 pixels does not fit an image of 4x4",
    ),
    "conv2d image": (lambda: F.conv2d(t(4, 4, 3), t(3, 3, 3, 1)), "conv2d: needs images", "(4, 4"),
    "conv2d weight": (lambda: F.conv2d(SMALL, t(3, 6, 4)), "conv2d: weight must have 4", "(3, 6"),
    "conv2d bias": (
        lambda: F.conv2d(SMALL, t(3, 3, 6, 4), t(3)),
        "conv2d: bias (3,) does not fit 4 output channels",
    ),
    "conv2d stride": (lambda: F.conv2d(SMALL, t(1, 1, 6, 4), stride=0), "conv2d: stride must", "0"),
    "conv2d stride 3": (lambda: F.conv2d(SMALL, t(1, 1, 6, 4), stride=(1, 1, 1)), "(1, 1, 1)"),
    "conv2d padding": (lambda: F.conv2d(SMALL, t(1, 1, 6, 4), padding=-1), "padding must", "-1"),
    "conv2d half": (lambda: F.conv2d(SMALL, t(1, 1, 6, 4), padding=0.5), "padding must", "0.5"),
    "conv2d gaps": (lambda: F.conv2d(SMALL, t(1, 1, 6, 4), dilation=0), "dilation must", "0"),
    "transpose channels": (
        lambda: F.conv_transpose2d(SMALL, t(4, 4, 1, 5)),
        "conv_transpose2d: input has 6 channels but weight (4, 4, 1, 5) expects 5",
        "(2, 4, 4, 6)",
    ),
    "transpose groups": (
        lambda: F.conv_transpose2d(SMALL, t(3, 3, 2, 6), groups=4),
        "conv_transpose2d: groups=4 does not divide the 6 channels",
    ),
    "transpose output_padding": (
        lambda: F.conv_transpose2d(SMALL, t(3, 3, 2, 6), stride=2, output_padding=2),
        "conv_transpose2d: output_padding (2, 2) must be smaller than stride (2, 2)",
    ),
    "transpose negative": (
        lambda: F.conv_transpose2d(SMALL, t(3, 3, 2, 6), output_padding=-1),
        "conv_transpose2d: output_padding must be",
        "-1",
    ),
    "transpose padding": (
        lambda: F.conv_transpose2d(SMALL, t(1, 1, 2, 6), padding=2),
        "conv_transpose2d: padding (2, 2) leaves nothing of the output",
    ),
    "transpose image": (lambda: F.conv_transpose2d(t(4), t(3, 3, 2, 6)), "conv_transpose2d: needs"),
    "transpose bias": (
        lambda: F.conv_transpose2d(SMALL, t(3, 3, 2, 6), t(6)),
        "conv_transpose2d: bias (6,) does not fit 2 output channels",
    ),
    # pooling
    "avg_pool2d window": (
        lambda: F.avg_pool2d(SMALL, 5),
        "avg_pool2d: a window of 5x5 pixels does not fit an image of 4x4",
    ),
    "avg_pool2d padding": (
        lambda: F.avg_pool2d(SMALL, 3, padding=2),
        "avg_pool2d: padding (2, 2) is over half of the kernel (3, 3)",
    ),
    "avg_pool2d image": (lambda: F.avg_pool2d(t(4, 4), 2), "avg_pool2d: needs images", "(4, 4)"),
    "avg_pool2d kernel": (lambda: F.avg_pool2d(SMALL, 0), "avg_pool2d: kernel_size must be", "0"),
    "max_pool2d window": (lambda: F.max_pool2d(SMALL, (2, 9)), "max_pool2d: a window of 2x9"),
    "max_pool2d padding": (
        lambda: F.max_pool2d(SMALL, 1, padding=(0, 1)),
        "max_pool2d: padding (0, 1) is over half of the kernel (1, 1)",
    ),
    "max_pool2d all padding": (
        lambda: F.max_pool2d(t(1, 2, 2, 1), 2, stride=1, padding=1, dilation=3),
        "max_pool2d: with dilation (3, 3) a window is all padding",
        "(1, 2, 2, 1)",
    ),
    "global_avg_pool2d": (lambda: F.global_avg_pool2d(t(4)), "global_avg_pool2d: needs", "(4,)"),
    "adaptive size": (lambda: F.adaptive_avg_pool2d(SMALL, 0), "output_size must be", "0"),
    "adaptive image": (lambda: F.adaptive_avg_pool2d(t(3), 1), "adaptive_avg_pool2d: needs"),
    "adaptive empty": (
        lambda: F.adaptive_avg_pool2d(t(1, 4, 0, 2), 1),
        "adaptive_avg_pool2d: images without pixels",
        "(1, 4, 0, 2)",
    ),
    # normalisation
    "batch_norm of one": (
        lambda: F.batch_norm(t(1, 5), training=True),
        "batch_norm: one value per channel has no variance to train on",
        "(1, 5)",
        "larger batch or image, or eval()",
    ),
    "batch_norm of one pixel": (
        lambda: F.batch_norm(t(1, 1, 1, 5), training=True),
        "batch_norm: one value per channel",
    ),
    "batch_norm ndim": (lambda: F.batch_norm(t(5), training=True), "batch_norm: needs (N, ..., C)"),
    "batch_norm weight": (
        lambda: F.batch_norm(t(4, 3), weight=t(4), training=True),
        "batch_norm: weight (4,) should be (3,)",
        "(4, 3)",
    ),
    "batch_norm bias": (lambda: F.batch_norm(t(4, 3), bias=t(3, 1), training=True), "bias (3, 1)"),
    "batch_norm mean": (lambda: F.batch_norm(t(4, 3), t(2), t(3)), "running_mean (2,) should be"),
    "batch_norm var": (lambda: F.batch_norm(t(4, 3), t(3), t(4)), "running_var (4,) should be (3,"),
    "batch_norm eval": (
        lambda: F.batch_norm(t(4, 3)),
        "batch_norm: outside of training running_mean and running_var are due",
    ),
    "instance_norm image": (lambda: F.instance_norm(t(4, 3)), "instance_norm: needs", "(4, 3)"),
    "instance_norm pixel": (
        lambda: F.instance_norm(t(4, 1, 1, 3)),
        "instance_norm: one pixel per image has no variance",
        "(4, 1, 1, 3)",
    ),
    "instance_norm weight": (
        lambda: F.instance_norm(SMALL, t(5)),
        "instance_norm: weight (5,) should have shape (6,)",
    ),
    "layer_norm shape": (
        lambda: F.layer_norm(t(4, 3), (4,)),
        "layer_norm: input (4, 3) does not end in normalized_shape (4,)",
    ),
    "layer_norm nothing": (lambda: F.layer_norm(t(4, 3), ()), "layer_norm: input (4, 3)", "()"),
    "layer_norm bias": (
        lambda: F.layer_norm(t(4, 3), 3, None, t(4)),
        "layer_norm: bias (4,) should have shape (3,)",
    ),
    "group_norm groups": (
        lambda: F.group_norm(SMALL, 4),
        "group_norm: 4 groups cannot share the channels of (2, 4, 4, 6)",
    ),
    "group_norm none": (lambda: F.group_norm(SMALL, 0), "group_norm: 0 groups cannot share"),
    "group_norm weight": (
        lambda: F.group_norm(SMALL, 2, t(2)),
        "group_norm: weight (2,) should have shape (6,)",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_is_told_in_words(name):
    call, *words = ERRORS[name]
    with pytest.raises(ValueError, match=".*".join(map(re.escape, words))):
        call()


def test_a_refused_batch_leaves_the_running_averages_alone():
    mean, var = t(3), t(3)
    with pytest.raises(ValueError, match="no variance"):
        F.batch_norm(t(1, 3) * 5.0, mean, var, training=True)
    assert mean.numpy().tolist() == var.numpy().tolist() == [1, 1, 1]


@pytest.mark.parametrize("stride", [None, "2", 1.5, (1, 2, 3), (1, None)])
def test_a_stride_that_is_no_whole_number_is_named(stride):
    with pytest.raises(ValueError, match=r"avg_pool2d: stride|conv2d: stride must be one or two"):
        F.conv2d(mg.Tensor(np.zeros((1, 5, 5, 2))), mg.Tensor(np.zeros((3, 3, 2, 1))), None, stride)


def test_an_array_where_a_tensor_is_due_is_named():
    with pytest.raises(TypeError, match="max_pool2d: needs a Tensor of images"):
        F.max_pool2d(np.zeros((1, 4, 4, 1)), 2)
