"""Bad input to the operations: one clear error each, that names the operation, shapes and rule."""

import re

import numpy as np
import pytest

import minigan as mg
from minigan import backend as backends
from minigan import functional as F


def t(*shape, dtype=np.float32):
    return mg.tensor(np.ones(shape), dtype=dtype)


IMAGE = t(8, 32, 32, 3)
SMALL = t(2, 4, 4, 6)

# The call, the type of the error, and words that its message holds, in this order.
ERRORS = {
    # arithmetic
    "add shapes": (
        lambda: t(2, 3) + t(2),
        ValueError,
        "add: shapes (2, 3) and (2,) do not broadcast: counted from the right, sizes must be",
    ),
    "sub shapes": (lambda: F.sub(t(3), t(2)), ValueError, "sub: shapes (3,) and (2,)"),
    "mul shapes": (lambda: t(0) * t(2), ValueError, "mul: shapes (0,) and (2,)"),
    "div shapes": (lambda: t(3) / t(2), ValueError, "div: shapes (3,) and (2,)"),
    "pow shapes": (lambda: t(3) ** t(2), ValueError, "pow: shapes (3,) and (2,)"),
    "maximum shapes": (lambda: F.maximum(t(3), t(2)), ValueError, "maximum: shapes (3,) and (2,)"),
    "minimum shapes": (lambda: F.minimum(t(3), t(2)), ValueError, "minimum: shapes (3,) and (2,)"),
    "where shapes": (
        lambda: F.where(np.ones((2, 2), bool), t(3), t(1)),
        ValueError,
        "where: shapes (2, 2), (3,) and (1,) do not broadcast",
    ),
    "where condition": (
        lambda: F.where(np.ones(3), t(3), t(3)),
        TypeError,
        "where: the condition must be boolean",
    ),
    "clip order": (lambda: F.clip(t(3), 2, 1), ValueError, "clip: needs low <= high, got low=2"),
    "clip bounds": (lambda: F.clip(t(3)), ValueError, "clip: needs low <= high, got low=None"),
    "operand": (lambda: t(3) * "two", TypeError, "expected a tensor, number or array, got str"),
    "complex": (lambda: t(3) * 1j, TypeError, "cannot hold complex"),
    "array": (lambda: F.exp(np.ones(3)), TypeError, "exp: operand 0 is a ndarray, not a Tensor"),
    "number": (lambda: F.tanh(1.0), TypeError, "tanh: operand 0 is a float, not a Tensor"),
    # types
    "integers": (lambda: mg.tensor(np.arange(3)).exp(), TypeError, "exp: int64 is not a type"),
    "booleans": (lambda: (t(3) > 0).sum(), TypeError, "sum: bool is not a type", "float32 or"),
    "float16": (lambda: mg.tensor(np.ones(2), dtype=np.float16), TypeError, "float16", "float32"),
    "float16 operand": (lambda: t(2) + np.ones(2, np.float16), TypeError, "float16", "float32"),
    "mixed floats": (
        lambda: t(2, 3) * t(3, dtype=np.float64),
        TypeError,
        "mul: operand 0 (2, 3) is float32, operand 1 (3,) is float64: convert one with .astype",
    ),
    "mixed floats, array": (
        lambda: t(2) + np.ones(2),
        TypeError,
        "add: operand 0 (2,) is float32, operand 1 (2,) is float64",
    ),
    "mixed floats, matmul": (
        lambda: t(2, 3) @ t(3, 2, dtype=np.float64),
        TypeError,
        "matmul: operand 0 (2, 3) is float32, operand 1 (3, 2) is float64",
    ),
    "mixed floats, conv2d": (
        lambda: F.conv2d(IMAGE, t(3, 3, 3, 4, dtype=np.float64)),
        TypeError,
        "conv2d: operand 0 (8, 32, 32, 3) is float32, operand 1 (3, 3, 3, 4) is float64",
    ),
    "mixed floats, concatenate": (
        lambda: F.concatenate([t(2), t(2, dtype=np.float64)]),
        TypeError,
        "concatenate: operand 0 (2,) is float32, operand 1 (2,) is float64",
    ),
    "mixed floats, where": (
        lambda: F.where(np.ones(2, bool), t(2), t(2, dtype=np.float64)),
        TypeError,
        "where: operand 0 (2,) is float32, operand 1 (2,) is float64",
    ),
    "mixed floats, batch_norm": (
        lambda: F.batch_norm(t(4, 2), weight=t(2, dtype=np.float64), training=True),
        TypeError,
        "batch_norm: operand 0 (4, 2) is float32, operand 1 (2,) is float64",
    ),
    "int and float": (
        lambda: t(2, 2) @ mg.tensor(np.eye(2, dtype=np.int64)),
        TypeError,
        "matmul: operand 0 (2, 2) is float32, operand 1 (2, 2) is int64: convert one with .astype",
    ),
    "astype": (lambda: t(2).astype(np.float16), TypeError, "astype: float16 is not a type"),
    # reductions
    "sum axis": (lambda: t(2, 3).sum(2), ValueError, "sum: axis 2 is out of range for 2"),
    "sum twice": (lambda: t(2, 3).sum((1, -1)), ValueError, "sum: axis (1, -1) names one", "twice"),
    "sum of 1.5": (lambda: t(2).sum(1.5), TypeError, "sum: axis must be", "got 1.5"),
    "mean axis": (lambda: t(2, 3).mean(-3), ValueError, "mean: axis -3 is out of range"),
    "mean empty": (lambda: t(0, 3).mean(0), ValueError, "mean: of no elements", "(0, 3)"),
    "max axis": (lambda: t(2).max(1), ValueError, "max: axis 1 is out of range for 1"),
    "max empty": (lambda: t(0, 3).max(), ValueError, "max: of no elements", "(0, 3)"),
    "min axis": (lambda: t(2).min((0, 3)), ValueError, "min: axis (0, 3) is out of range"),
    "min empty": (lambda: t(3, 0).min(1), ValueError, "min: of no elements", "(3, 0)"),
    "var axis": (lambda: t(2).var(1), ValueError, "var: axis 1 is out of range"),
    "var of one": (lambda: t(1, 3).var(0), ValueError, "var: of 1 element(s)", "correction=1"),
    "logsumexp axis": (lambda: F.logsumexp(t(2), 1), ValueError, "logsumexp: axis 1 is out"),
    "logsumexp empty": (lambda: F.logsumexp(t(0)), ValueError, "of no elements"),
    "softmax axis": (lambda: F.softmax(t(2), 1), ValueError, "softmax: axis 1 is out of range"),
    "softmax of a scalar": (lambda: F.softmax(t()), ValueError, "softmax: axis -1 is out of"),
    "softmax empty": (lambda: F.softmax(t(2, 0)), ValueError, "softmax: nothing along", "(2, 0)"),
    "log_softmax axis": (lambda: F.log_softmax(t(2), 4), ValueError, "log_softmax: axis 4 is out"),
    "log_softmax empty": (lambda: F.log_softmax(t(0)), ValueError, "log_softmax: nothing along"),
    # shape
    "reshape": (lambda: t(2, 3).reshape(4), ValueError, "reshape: (2, 3) has 6 elements, (4,)"),
    "reshape -1": (lambda: t(2, 3).reshape(4, -1), ValueError, "reshape: (2, 3) has 6"),
    "reshape -1 twice": (lambda: t(6).reshape(-1, -1), ValueError, "reshape: (6,) has 6 elements"),
    "reshape -2": (lambda: t(6).reshape(-2, -3), ValueError, "reshape: (-2, -3) is no shape"),
    "reshape 1.5": (lambda: t(6).reshape(1.5, 4), ValueError, "reshape: (1.5, 4) is no shape"),
    "transpose": (lambda: t(2, 3).transpose(0, 0), ValueError, "transpose:", "(0, 0)"),
    "transpose few": (lambda: t(2, 3).transpose((0,)), ValueError, "not an order of 2 axes"),
    "broadcast_to": (
        lambda: t(2, 3).broadcast_to((3, 2)),
        ValueError,
        "broadcast_to: (2, 3) does not broadcast to (3, 2)",
    ),
    "broadcast_to fewer": (lambda: t(1, 2).broadcast_to((2,)), ValueError, "broadcast_to: (1, 2)"),
    "squeeze": (lambda: t(2, 1).squeeze(0), ValueError, "squeeze: axis 0 of (2, 1) is not of size"),
    "squeeze axis": (lambda: t(2).squeeze(1), ValueError, "squeeze: axis 1 is out of range"),
    "expand_dims": (lambda: t(2).expand_dims(3), ValueError, "expand_dims: axis 3 is out of range"),
    "expand_dims 1.5": (lambda: t(2).expand_dims(1.5), TypeError, "expand_dims: axis must be"),
    "flip": (lambda: t(2).flip(1), ValueError, "flip: axis 1 is out of range"),
    "concatenate nothing": (lambda: F.concatenate([]), ValueError, "concatenate: no tensors"),
    "concatenate shapes": (
        lambda: F.concatenate([t(2, 3), t(2, 4)]),
        ValueError,
        "concatenate: (2, 3), (2, 4) differ elsewhere than on axis 0",
    ),
    "concatenate ndim": (
        lambda: F.concatenate([t(2, 3), t(2)], axis=1),
        ValueError,
        "concatenate: (2, 3), (2,) differ",
    ),
    "concatenate axis": (lambda: F.concatenate([t(2)], 1), ValueError, "concatenate: axis 1 is"),
    "stack nothing": (lambda: F.stack([]), ValueError, "stack: needs tensors of one shape", "noth"),
    "stack shapes": (lambda: F.stack([t(2), t(3)]), ValueError, "stack: needs", "(2,), (3,)"),
    "stack axis": (lambda: F.stack([t(2)], 2), ValueError, "stack: axis 2 is out of range for 2"),
    "pad pairs": (lambda: F.pad(t(2, 2), [(1, 1)]), ValueError, "pad: [(1, 1)] is not one (before"),
    "pad numbers": (lambda: F.pad(t(2, 2), [1, 1]), ValueError, "pad:", "per axis (2, 2)"),
    "pad negative": (lambda: F.pad(t(2), [(0, -1)]), ValueError, "pad: [(0, -1)]", ">= 0"),
    "pad mode": (lambda: F.pad(t(2), [(1, 1)], "wrap"), ValueError, "pad: mode 'wrap' is unknown"),
    "pad reflect": (
        lambda: F.pad(t(2), [(2, 0)], "reflect"),
        ValueError,
        "pad: reflecting (2, 0) needs more than 2 entries",
    ),
    "index range": (lambda: t(3)[3], IndexError, "getitem:", "out of bounds", "shape (3,)"),
    "index array": (lambda: t(3)[[0, 4]], IndexError, "getitem:", "out of bounds", "shape (3,)"),
    "index too many": (lambda: t(3)[0, 0], IndexError, "getitem: too many indices", "shape (3,)"),
    "index float": (lambda: t(3)[1.0], IndexError, "getitem: only integers", "shape (3,)"),
    "index floats": (
        lambda: t(3)[[0.5]],
        IndexError,
        "getitem: an index must be integers",
        "float",
    ),
    "index mask": (lambda: t(3)[np.ones(4, bool)], IndexError, "getitem: boolean index did not"),
    "embedding floats": (
        lambda: F.embedding([0.5], t(3, 2)),
        IndexError,
        "embedding: indices must be integers, got float64",
    ),
    "embedding range": (
        lambda: F.embedding([0, 3], t(3, 2)),
        IndexError,
        "embedding: indices from 0 to 3 for 3 rows",
    ),
    "embedding negative": (lambda: F.embedding([-1], t(3, 2)), IndexError, "indices from -1 to -1"),
    # matmul
    "matmul scalar": (lambda: t() @ t(2), ValueError, "matmul: needs at least vectors, got ()"),
    "matmul inner": (lambda: t(2, 3) @ t(2, 3), ValueError, "inner sizes differ: (2, 3) @ (2, 3)"),
    "matmul vector": (lambda: t(2, 3) @ t(2), ValueError, "inner sizes differ: (2, 3) @ (2,)"),
    "matmul stacks": (
        lambda: t(2, 1, 3) @ t(3, 3, 1),
        ValueError,
        "matmul: stacks do not broadcast: (2, 1, 3) @ (3, 3, 1)",
    ),
    # activations
    "leaky_relu": (lambda: F.leaky_relu(t(2), 1.5), ValueError, "negative_slope must be in [0, 1]"),
    "dropout": (lambda: F.dropout(t(2), 1.0), ValueError, "dropout: p must be in [0, 1), got 1.0"),
    # resampling
    "interpolate both": (
        lambda: F.interpolate(SMALL, 2, 2),
        ValueError,
        "interpolate: give either size or scale_factor",
    ),
    "interpolate neither": (lambda: F.interpolate(SMALL), ValueError, "either size or scale"),
    "interpolate mode": (
        lambda: F.interpolate(SMALL, 2, mode="cubic"),
        ValueError,
        "interpolate: mode 'cubic' is unknown: use 'nearest' or 'bilinear'",
    ),
    "interpolate size": (lambda: F.interpolate(SMALL, 0), ValueError, "interpolate: size must be"),
    "interpolate factor": (lambda: F.interpolate(SMALL, None, 0.1), ValueError, "got (0, 0)"),
    "interpolate shape": (lambda: F.interpolate(t(4, 4), 2), ValueError, "(N, H, W, C)", "(4, 4)"),
    "interpolate empty": (lambda: F.interpolate(t(1, 0, 2, 3), 2), ValueError, "without pixels"),
    "pixel_shuffle": (
        lambda: F.pixel_shuffle(SMALL, 2),
        ValueError,
        "pixel_shuffle: 6 channels cannot be shared among 2x2 pixels",
    ),
    "pixel_shuffle shape": (lambda: F.pixel_shuffle(t(4), 2), ValueError, "pixel_shuffle: needs"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_is_told_in_words(name):
    call, kind, *words = ERRORS[name]
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert re.search(".*".join(map(re.escape, words)), str(caught.value)), str(caught.value)


# Devices


class OtherArray(np.ndarray):
    """Stands in for the arrays of another device."""


class OtherBackend(backends.Backend):
    name, xp, array_type = "other", np, OtherArray

    def from_host(self, array):
        return array.view(OtherArray)

    def to_host(self, array):
        return array.view(np.ndarray)


@pytest.fixture
def other_device(monkeypatch):
    monkeypatch.setattr(backends, "_backends", dict(backends._backends))
    monkeypatch.setattr(backends, "_by_array_type", dict(backends._by_array_type))
    backends.register(OtherBackend())
    return "other"


def test_operands_on_two_devices_are_refused_by_name(other_device):
    here, there = t(2, 3), t(3).to(other_device)
    assert there.device == "other"
    words = "operand 0 (2, 3) on cpu, operand 1 (3,) on other): move one with .to(device)"
    for name in ("add", "mul", "maximum"):
        with pytest.raises(mg.DeviceError) as caught:
            getattr(F, name)(here, there)
        assert words in str(caught.value)
        assert str(caught.value).startswith(f"{name}: operands are on different devices")
    for name, call in {
        "matmul": lambda: here @ there,
        "concatenate": lambda: F.concatenate([t(3), there]),
        "where": lambda: F.where(np.ones(3, bool), t(3), there),
        "conv2d": lambda: F.conv2d(t(1, 4, 4, 1), t(3, 3, 1, 1).to(other_device)),
        "batch_norm": lambda: F.batch_norm(t(4, 3), weight=there, training=True),
    }.items():
        with pytest.raises(mg.DeviceError, match=f"^{name}: .*cpu.*other"):
            call()


def test_an_unknown_device_is_named():
    with pytest.raises(mg.DeviceError, match="device 'tpu' is unknown: choose 'cpu' or 'cuda'"):
        t(2).to("tpu")
