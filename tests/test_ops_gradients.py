"""Derivatives in special places: at kinks, of one tensor used twice, of rare geometries.

That every operation's derivatives are right in general is checked in `test_specs.py`.
"""

import numpy as np
import pytest

import minigan as mg
from minigan import functional as F


@pytest.mark.parametrize(("padding", "output_padding"), [(0, 1), (1, (1, 2)), ((0, 1), 2)])
def test_output_padding_from_the_stride_up_to_the_dilation(padding, output_padding):
    rng = np.random.default_rng(0)
    mg.gradcheck(
        lambda x, w: F.conv_transpose2d(x, w, None, 1, padding, output_padding, dilation=3),
        [rng.normal(size=(2, 3, 4, 2)), rng.normal(size=(2, 2, 1, 2))],
        order=2,
    )


# The same tensor in several places

TWICE = {
    "x + x": lambda x: x + x,
    "x - x": lambda x: x - x,
    "x * x": lambda x: x * x,
    "x / x": lambda x: x / x,
    "x ** x": lambda x: x**x,
    "matmul(x, x)": lambda x: x @ x,
    "concatenate([x, x])": lambda x: F.concatenate([x, x, x], axis=1),
    "stack([x, x])": lambda x: F.stack([x, x], axis=-1),
    "where(c, x, x)": lambda x: F.where(np.eye(3) > 0, x, x),
    "maximum(x, x + 1)": lambda x: F.maximum(x, x + 1.0),
    "conv2d(x, x)": lambda x: F.conv2d(x.reshape(1, 3, 3, 1), x.reshape(3, 3, 1, 1), padding=1),
    "batch_norm(x, weight=x[0])": lambda x: F.batch_norm(x, None, None, x[0], x[1], training=True),
}


@pytest.mark.parametrize("function", TWICE.values(), ids=TWICE)
def test_one_tensor_used_twice(function):
    x = np.random.default_rng(3).uniform(0.5, 1.5, (3, 3))
    mg.gradcheck(function, [x], order=2)
    leaf = mg.Tensor(x, dtype=np.float64, requires_grad=True)
    y = function(leaf)
    v = np.random.default_rng(7).normal(size=y.shape)
    (one,), (two,) = (mg.grad(y, leaf, v, retain_graph=True) for _ in "ab")
    assert one.data.tobytes() == two.data.tobytes()


# At kinks, where the slope is a matter of choice, and says so in the docstrings


@pytest.mark.parametrize(
    ("function", "at", "slope"),
    [
        (F.relu, 0.0, 0.0),
        (lambda x: F.leaky_relu(x, 0.1), 0.0, 0.1),
        (F.abs, 0.0, 0.0),
        (lambda x: F.clip(x, -1, 1), 1.0, 1.0),
        (lambda x: F.clip(x, -1, 1), -1.0, 1.0),
        (lambda x: F.maximum(x, 2.0), 2.0, 0.5),
        (lambda x: F.minimum(x, 2.0), 2.0, 0.5),
        (lambda x: x**2, 0.0, 0.0),
        (lambda x: x**0, 0.0, 0.0),
        (lambda x: x**1, 0.0, 1.0),
        (lambda x: x ** mg.tensor(0.0), 0.0, 0.0),
        (lambda x: mg.tensor(0.0) ** x, 2.0, 0.0),
    ],
)
def test_slope_at_a_kink(function, at, slope):
    x = mg.tensor(at, requires_grad=True)
    function(x).backward()
    assert x.grad == np.float32(slope)


def test_equal_maxima_share_the_gradient_but_in_a_window_the_first_takes_it():
    x = mg.tensor([[1.0, 5.0, 5.0], [5.0, 0.0, 0.0]], requires_grad=True)
    F.max(x).backward()
    np.testing.assert_allclose(x.grad, np.array([[0, 1, 1], [1, 0, 0]]) / 3, rtol=1e-6)
    (gradient,) = mg.grad(F.min(x, axis=1).sum(), x)
    assert gradient.numpy().tolist() == [[1, 0, 0], [0, 0.5, 0.5]]
    image = mg.Tensor(np.full((1, 2, 2, 1), 3.0), requires_grad=True)
    F.max_pool2d(image, 2).sum().backward()
    assert image.grad.ravel().tolist() == [1, 0, 0, 0]
