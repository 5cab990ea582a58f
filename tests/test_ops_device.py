"""Every operation on a second device: an array class that refuses to meet plain NumPy arrays.

CuPy raises where a host array gets among its own. So does this stand-in, on any machine: an op
body that reaches for `np` instead of `self.xp`, or forgets `from_host`, fails here.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigan as mg
from minigan import backend as backends
from minigan.specs import REGISTRY
from minigan.specs.cli import main

FUNCTIONS = sorted(name for name, spec in REGISTRY.items() if spec.kind == "function")


def refuse_host_arrays(who, *values):
    for value in values:
        if isinstance(value, (tuple, list)):
            refuse_host_arrays(who, *value)
        elif type(value) is np.ndarray and value.ndim > 0:
            raise TypeError(f"{who}: host array among device arrays")


def bare(value):
    """The memory of a device array as NumPy's own class."""
    if isinstance(value, (tuple, list)):
        return type(value)(map(bare, value))
    return value.view(np.ndarray) if isinstance(value, DeviceArray) else value


def wrapped(value):
    is_array = isinstance(value, (np.ndarray, np.generic))
    return np.asarray(value).view(DeviceArray) if is_array else value


class DeviceArray(np.ndarray):
    """An array that NumPy's functions may not touch, and that knows its like alone."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        refuse_host_arrays(ufunc.__name__, *inputs)
        if out is None:
            return wrapped(getattr(ufunc, method)(*bare(inputs), **options))
        getattr(ufunc, method)(*bare(inputs), out=bare(out), **options)
        return out[0]

    def __array_function__(self, function, types, args, options):
        raise TypeError(f"numpy.{function.__name__} was called on a device array: use xp")

    def __getitem__(self, index):
        refuse_host_arrays("getitem", index)
        return wrapped(bare(self)[bare(index)])

    def __setitem__(self, index, value):
        refuse_host_arrays("setitem", index, value)
        bare(self)[bare(index)] = bare(value)


class DeviceModule:
    """NumPy's functions, or SciPy's, for `DeviceArray` alone."""

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        found = getattr(self.module, name)
        if type(found) is type(np):
            return DeviceModule(found)
        if isinstance(found, type) or not callable(found):
            return found

        def call(*args, **options):
            refuse_host_arrays(f"xp.{name}", args, tuple(options.values()))
            options = {key: bare(value) for key, value in options.items()}
            return wrapped(found(*bare(args), **options))

        if name == "add":

            def add_at(*args):
                refuse_host_arrays("xp.add.at", args)
                np.add.at(*bare(args))

            call.at = add_at
        return call


class Device(backends.Backend):
    name, array_type, xp = "stand-in", DeviceArray, DeviceModule(np)

    @property
    def special(self):
        from scipy import special

        return DeviceModule(special)

    def from_host(self, array):
        return np.array(bare(array)).view(DeviceArray)

    def to_host(self, array):
        return np.array(bare(array))


@pytest.fixture(scope="module")
def device():
    tables = backends._backends, backends._by_array_type
    before = [dict(table) for table in tables]
    backends.register(Device())
    yield Device.name
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


def test_the_stand_in_refuses_host_arrays(device):
    x = mg.tensor([1.0, 2.0], device=device)
    for call in (
        lambda: x.data + np.ones(2),
        lambda: np.ones(2) * x.data,
        lambda: x.data[np.array([0, 1])],
        lambda: x.backend.xp.concatenate([x.data, np.ones(2)]),
        lambda: x.backend.xp.maximum(np.ones(2), x.data),
    ):
        with pytest.raises(TypeError, match="host array among device arrays"):
            call()
    with pytest.raises(TypeError, match="use xp"):
        np.concatenate([x.data])


def values_and_gradients(case, where):
    """The value, the gradients, and the gradients of their squares, as NumPy arrays."""
    leaves = [mg.Tensor(a, dtype=a.dtype, device=where, requires_grad=True) for a in case.inputs]
    y = case.call(*leaves)
    v = mg.Tensor(np.random.default_rng(5).normal(size=y.shape), dtype=y.dtype, device=where)
    y.backward(v, retain_graph=True)
    first = mg.grad(y, leaves, v, create_graph=True)
    total = sum((g * g).sum() for g in first)
    second = mg.grad(total, leaves, allow_unused=True) if total.requires_grad else []
    made = [y, *first, *(g for g in second if g is not None)]
    for array in [*(t.data for t in made), *(leaf.grad for leaf in leaves)]:
        assert type(array) is y.backend.array_type
    assert y.device == where
    return [t.numpy() for t in made]


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=8)
@given(data=st.data())
def test_the_same_numbers_come_from_the_other_device(device, name, data):
    case = data.draw(REGISTRY[name].cases)
    here, there = values_and_gradients(case, "cpu"), values_and_gradients(case, device)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", REGISTRY)
def test_the_whole_check_runs_on_the_other_device(device, name):
    assert mg.tensor(1.0).device == "cpu"
    code = main(["--op", name, "--examples", "2", "--device", device, "--json"])
    assert code == 0
    assert mg.tensor(1.0).device == "cpu"
