"""The stand-in for CuPy refuses what CuPy refuses, and the whole engine runs on it."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import executor
import numpy as np
import pytest
import standin

import minigan as mg
from minigan import backend, losses, nn, optim
from minigan.specs import REGISTRY
from minigan.specs.cli import main

ADD = 'extern "C" __global__ void add(float* x, float v) { x[threadIdx.x] += v; }'
runs = pytest.mark.skipif(bool(executor.missing()), reason=executor.missing())


@pytest.fixture(scope="module")
def cupy():
    with standin.installed() as module:
        yield module


@pytest.fixture
def arrays(cupy):
    """An array of the device, and the same on the host."""
    host = np.arange(6, dtype=np.float32).reshape(2, 3)
    return cupy.asarray(host), host


# ---- what is refused

MIXED = {
    "device + host": lambda a, n, cp: a + n,
    "host + device": lambda a, n, cp: n + a,
    "ufunc": lambda a, n, cp: cp.add(a, n),
    "out=": lambda a, n, cp: cp.add(a, a, out=n),
    "concatenate": lambda a, n, cp: cp.concatenate([a, n]),
    "where": lambda a, n, cp: cp.where(a > 0, a, n),
    "assignment": lambda a, n, cp: a.__setitem__(slice(None), n),
    "index of the host": lambda a, n, cp: a[np.array([0, 1])],
    "list as index": lambda a, n, cp: a[[0, 1]],
    "np.asarray": lambda a, n, cp: np.asarray(a),
    "np.exp": lambda a, n, cp: np.exp(a),
    "np.sum": lambda a, n, cp: np.sum(a),
    "np.stack": lambda a, n, cp: np.stack([a, a]),
    "a list of device arrays": lambda a, n, cp: cp.array([a[0], a[1]]),
    "lists to a ufunc": lambda a, n, cp: cp.exp([1.0, 2.0]),
    "where=": lambda a, n, cp: cp.add(a, a, where=a > 0),
    "sum(where=)": lambda a, n, cp: cp.sum(a, where=a > 0),
    "method with where=": lambda a, n, cp: a.sum(where=a > 0),
    "a host array to a kernel": lambda a, n, cp: kernel(cp)((1,), (6,), (n, cp.float32(1))),
    "a Python float to a float": lambda a, n, cp: kernel(cp)((1,), (6,), (a, 1.0)),
    "float64 to a kernel of float32": lambda a, n, cp: kernel(cp)(
        (1,), (6,), (a.astype(float), cp.float32(1))
    ),
    "a list as grid": lambda a, n, cp: kernel(cp)([1], (6,), (a, cp.float32(1))),
    "keyword that CuPy has not": lambda a, n, cp: cp.ones(3, like=a),
}


def kernel(cupy):
    return cupy.RawModule(code=ADD).get_function("add")


@pytest.mark.parametrize("name", MIXED)
def test_refused(cupy, arrays, name):
    if "kernel" in name or "float" in name or "grid" in name:
        executor.missing() and pytest.skip(executor.missing())
    with pytest.raises(TypeError):
        MIXED[name](*arrays, cupy)


def test_what_cupy_has_not(cupy):
    for name in ("einsum_path", "errstate", "block", "nditer", "matrix", "float128"):
        with pytest.raises(AttributeError, match="module 'cupy' has no attribute"):
            getattr(cupy, name)
    assert not hasattr(cupy.zeros(3), "setfield")
    with pytest.raises(ValueError, match="Unsupported dtype"):
        cupy.array([None])


def test_undefined_results_are_refused(cupy):
    a = cupy.zeros(3)
    with pytest.raises(RuntimeError, match="twice"):
        a[cupy.asarray([0, 0])] = 1.0
    a[cupy.asarray([0, 1])] = 1.0
    assert a.tolist() == [1, 1, 0]
    assert np.isnan(cupy.empty((2, 2), np.float32).get()).all()


@runs
def test_kernels_on_strided_arrays_are_refused(cupy, arrays):
    with pytest.raises(ValueError, match="strided"):
        kernel(cupy)((1,), (6,), (arrays[0].T, cupy.float32(1)))
    with pytest.raises(RuntimeError, match="named symbol not found: sub"):
        cupy.RawModule(code=ADD).get_function("sub")


# ---- what works, and what it costs


def test_results_stay_on_the_device(cupy, arrays):
    a, host = arrays
    for result in (a.sum(), cupy.sum(a), a[0, 0], a.max(), cupy.allclose(a, a), a > 1, -a, a @ a.T):
        assert type(result) is cupy.ndarray
    assert a.sum().shape == ()
    assert (a * 2.0).dtype == (a * cupy.float32(2)).dtype == np.float32
    assert (a * cupy.float64(2)).dtype == np.float64  # as in NumPy
    host[0, 0] = 99
    assert a.get()[0, 0] == 0  # a copy, always
    part = a[1]
    part += 1
    assert a.get()[1].tolist() == [4, 5, 6]  # and a view


@runs
def test_what_is_counted(cupy, arrays):
    a, _ = arrays
    count = cupy.count

    def cost(work):
        count.reset()
        work()
        return count.launches, count.to_device, count.to_host, count.syncs

    assert cost(lambda: a.T.reshape(6)[0]) == (1, 0, 0, 0)  # reshaping a transpose copies
    assert cost(lambda: a.reshape(3, 2)[0, :1]) == (0, 0, 0, 0)  # views are free
    assert cost(lambda: a + 1 + a) == (2, 0, 0, 0)
    assert cost(lambda: cupy.asarray(np.ones(3))) == (0, 1, 0, 0)
    assert cost(lambda: a.sum()) == (1, 0, 0, 0)
    assert cost(lambda: float(a.sum())) == (1, 0, 1, 1)
    assert cost(lambda: bool((a > 3).any())) == (2, 0, 1, 1)
    assert cost(lambda: cupy.nonzero(a)) == (1, 0, 0, 1)
    assert cost(lambda: a[a > 3]) == (2, 0, 0, 1)
    assert cost(lambda: kernel(cupy)((1,), (6,), (a, cupy.float32(1)))) == (1, 0, 0, 0)


def test_nothing_is_left_behind():
    """After the context `cupy` and the backend are what they were."""
    code = """
import sys
import standin
import minigan as mg
from minigan import backend
with standin.installed() as cupy:
    mg.use("cuda")
    assert sys.modules["cupy"] is cupy and mg.tensor([1.0]).device == "cuda"
    assert type(mg.tensor([1.0]).data) is cupy.ndarray
assert "cupy" not in sys.modules and "cuda" not in backend._backends
assert mg.tensor([1.0]).device == "cpu"
"""
    here = Path(__file__).resolve().parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


# ---- the engine on it


def test_both_devices_in_one_program(cupy):
    here, there = mg.tensor([1.0, 2.0]), mg.tensor([1.0, 2.0], device="cuda")
    assert there.backend.kernels is not None
    with pytest.raises(Exception, match=r"mul: .*cpu.*cuda"):
        here * there
    assert (here.to("cuda") * there).to("cpu").numpy().tolist() == [1, 4]
    assert copy.deepcopy(there).device == "cuda"
    assert pickle.loads(pickle.dumps(backend.get("cuda"))) is backend.get("cuda")


def test_plain_cupy_on_request(cupy, monkeypatch):
    from minigan import cuda

    monkeypatch.setenv("MINIGAN_KERNELS", "0")
    assert cuda.load_backend().kernels is None
    monkeypatch.delenv("MINIGAN_KERNELS")
    assert cuda.load_backend().kernels is not None


@pytest.fixture(params=["our kernels", "plain CuPy"])
def either(request, cupy, monkeypatch):
    """The backend with our kernels, and as MINIGAN_KERNELS=0 makes it."""
    if request.param == "our kernels" and executor.missing():
        pytest.skip(executor.missing())
    monkeypatch.setenv("MINIGAN_KERNELS", "1" if request.param == "our kernels" else "0")
    backend._backends.pop("cuda", None)  # the next to ask makes a new one
    yield cupy
    backend._backends.pop("cuda", None)


@pytest.mark.parametrize("name", REGISTRY)
def test_the_gradients_of_every_entry_of_the_registry(either, name):
    cupy = either
    assert main(["--op", name, "--examples", "2", "--device", "cuda", "--json"]) == 0
    assert cupy.count.launches > 0
    cupy.count.reset()


def network(device):
    mg.manual_seed(0)
    mg.use(device)
    try:
        return nn.Sequential(
            # No bias before a norm: its gradient is 0 but for rounding, which Adam makes a step of.
            nn.Conv2d(3, 4, 3, padding=1, bias=False),  # (N, 8, 8, 4)
            nn.BatchNorm2d(4),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4, 3, 3, padding=1),  # (N, 8, 8, 3)
        )
    finally:
        mg.use("cpu")


def train(device, steps):
    """Losses of a few steps, on random images; the last one's costs."""
    net = network(device)
    adam = optim.Adam(net.parameters(), lr=1e-2)
    images = mg.tensor(np.random.default_rng(1).normal(size=(2, 8, 8, 3)), device=device)
    history = []
    for _ in range(steps):
        standin.count.reset()
        loss = losses.mse(net(images), images)
        adam.zero_grad()
        loss.backward()
        adam.step()
        costs = copy.copy(standin.count)
        history.append(loss)
    return [loss.item() for loss in history], costs, net.state_dict()


def test_a_training_step_is_the_same_on_both(either):
    here, _, weights = train("cpu", 4)
    there, costs, moved = train("cuda", 4)
    np.testing.assert_allclose(there, here, rtol=1e-5)
    for name, array in weights.items():
        np.testing.assert_allclose(np.asarray(moved[name]), np.asarray(array), rtol=1e-4, atol=1e-6)
    assert (costs.syncs, costs.to_device, costs.to_host) == (0, 0, 0)
    assert costs.launches < 400
