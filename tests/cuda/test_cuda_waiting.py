"""No operation waits for the device, but for those that say why; and each kernel is for its op."""

import executor
import numpy as np
import pytest
import standin

import minigan as mg
from minigan import backend, kernels, launch, optim
from minigan.specs import REGISTRY

EXAMPLES = 4
# What has to ask the device for a number, and what for.
WAITING = {
    "losses.binary_cross_entropy": "are the probabilities in [0, 1]?",
    "losses.cross_entropy": "are the labels, where they are on the device, those of classes?",
    "embedding": "are the indices, where they are on the device, those of rows?",
    "nn.Embedding": "the same",
    "getitem": "how many are true, where the index is a mask?",
    "ops.Putitem": "the same, backward",
}


@pytest.fixture(params=["our kernels", "plain CuPy"])
def cupy(request, monkeypatch):
    if request.param == "our kernels" and executor.missing():
        pytest.skip(executor.missing())
    monkeypatch.setenv("MINIGAN_KERNELS", "1" if request.param == "our kernels" else "0")
    with standin.installed() as module:
        mg.use("cuda")
        yield module


def forward_and_backward(name, cupy):
    """How often a few cases of an entry of the registry waited, or copied to the host."""
    waits = 0
    for number in range(EXAMPLES):
        with mg.default_dtype(np.float64):
            case = REGISTRY[name].example(number)
            inputs = [mg.tensor(a, dtype=np.float64, requires_grad=True) for a in case.inputs]
            cupy.count.reset()
            y = case.call(*inputs)
            if y.requires_grad:
                y.backward(mg.Tensor(cupy.ones(y.shape)))
            waits += cupy.count.syncs + cupy.count.to_host
    return waits


@pytest.mark.parametrize("name", REGISTRY)
def test_nothing_waits_unsaid(cupy, name):
    assert bool(forward_and_backward(name, cupy)) == (name in WAITING)


@pytest.mark.skipif(bool(executor.missing()), reason=executor.missing())
def test_each_kernel_is_launched_by_what_it_serves(monkeypatch):
    launched, before = set(), launch.Kernels.launch

    def note(self, name, *args, **arguments):
        launched.add(name)
        before(self, name, *args, **arguments)

    monkeypatch.setattr(launch.Kernels, "launch", note)
    with standin.installed() as cupy:
        mg.use("cuda")
        for served in {kernel.serves for kernel in kernels.KERNELS.values()}:
            launched.clear()
            if served == "optim.Adam":
                p = mg.tensor([1.0, 2.0], requires_grad=True)
                p.grad = p.data * 2
                optim.Adam([p]).step()
            else:
                forward_and_backward(served, cupy)
            named = {name for name, kernel in kernels.KERNELS.items() if kernel.serves == served}
            assert named <= launched, served
    assert backend.get().name == "cpu"
