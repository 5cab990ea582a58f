"""Convolution by kernels: a batch in one piece or in several, as on the CPU."""

import numpy as np
import pytest
from target import ON_GPU, installed, missing

import minigan as mg
from minigan import backend
from minigan import functional as F

pytestmark = pytest.mark.skipif(bool(missing), reason=missing)

CASES = {
    "padding": ((3, 6, 5, 4), (3, 3, 4, 6), {"padding": 1}),
    "stride": ((5, 7, 6, 2), (4, 2, 2, 3), {"stride": 2, "padding": (1, 0)}),
    "groups": ((3, 6, 6, 4), (3, 3, 2, 6), {"stride": 2, "padding": 1, "groups": 2}),
    "dilation": ((4, 9, 9, 2), (3, 2, 2, 3), {"dilation": (2, 3)}),
    "one pixel": ((3, 4, 4, 5), (1, 1, 5, 2), {}),
    "the whole image": ((3, 4, 4, 5), (4, 4, 5, 2), {}),
    "few outputs": ((2, 5, 5, 9), (3, 3, 9, 1), {"padding": 1}),
    "more padding than kernel": ((2, 5, 7, 2), (1, 2, 2, 2), {"padding": (1, 3)}),
    "the same, few outputs": ((2, 5, 7, 9), (1, 2, 9, 1), {"padding": 1}),
    "no images": ((0, 5, 5, 2), (3, 3, 2, 3), {}),
}


def results(device, name, transposed):
    """An output, and the gradients of image, weight and bias, as host arrays."""
    shape, weight_shape, options = CASES[name]
    rng = np.random.default_rng(0)
    channels = weight_shape[2] * options.get("groups", 1) if transposed else weight_shape[3]
    if transposed:  # from as many channels as the weight gives
        shape = (*shape[:3], weight_shape[3])
    arrays = [rng.normal(size=size) for size in (shape, weight_shape, (channels,))]
    leaves = [mg.tensor(a, np.float64, requires_grad=True, device=device) for a in arrays]
    if transposed and options.get("dilation"):
        options = {**options, "output_padding": 1}
    y = (F.conv_transpose2d if transposed else F.conv2d)(*leaves, **options)
    (y * y).sum().backward()
    return [y.numpy(), *(leaf.backend.to_host(leaf.grad) for leaf in leaves)]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("limit", [1 << 28, 1 << 10, 1])
@pytest.mark.parametrize("name", CASES)
def test_pieces_of_a_batch(name, limit, transposed, monkeypatch):
    wanted = results("cpu", name, transposed)
    with installed():
        monkeypatch.setattr(backend.get("cuda"), "column_bytes", limit)
        for got, due in zip(results("cuda", name, transposed), wanted, strict=True):
            np.testing.assert_allclose(got, due, rtol=1e-10, atol=1e-10)


@pytest.mark.skipif(ON_GPU, reason="CuPy does not count")
def test_the_launches_of_a_convolution():
    """One kernel and one product, however many windows."""
    with installed() as cupy:
        x = mg.tensor(np.ones((2, 8, 8, 3)), device="cuda")
        w = mg.tensor(np.ones((4, 4, 3, 5)), device="cuda")
        cupy.count.reset()
        F.conv2d(x, w, stride=2, padding=1)
        assert cupy.count.launches == 2
