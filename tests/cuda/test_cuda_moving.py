"""Between the CPU and the GPU, or its stand-in: tensors, modules, optimisers, checkpoints."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from target import ON_GPU, installed, missing

import minigan as mg
from minigan import backend, losses, nn, optim, training
from minigan.ema import EMA

IMAGES = np.random.default_rng(3).normal(size=(4, 8, 8, 3)).astype(np.float32)

if missing:
    pytest.skip(missing, allow_module_level=True)
counted = pytest.mark.skipif(ON_GPU, reason="CuPy does not count")


@pytest.fixture
def cupy():
    with installed() as module:
        yield module


def network():
    mg.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),  # (N, 8, 8, 4)
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 3, 3, padding=1),  # (N, 8, 8, 3)
    )


def steps(net, adam, count):
    """Train on the device where the network is; returns the losses."""
    images = mg.tensor(IMAGES, device=net[0].weight.device)
    history = []
    for _ in range(count):
        loss = losses.mse(net(images), images)
        adam.zero_grad()
        loss.backward()
        adam.step()
        history.append(loss.item())
    return history


def test_a_module_moves_and_its_optimiser_with_it(cupy):
    still, moving = network(), network()
    kept = [*moving.parameters(), *moving.buffers()]
    optimisers = [optim.Adam(net.parameters(), lr=1e-2) for net in (still, moving)]
    for device in ("cuda", "cpu", "cuda"):
        assert moving.to(device) is moving
        assert {t.device for t in kept} == {device}
        assert kept == [*moving.parameters(), *moving.buffers()]  # the same tensors
        wanted = steps(still, optimisers[0], 2)
        np.testing.assert_allclose(steps(moving, optimisers[1], 2), wanted, rtol=1e-4)
        assert type(optimisers[1].memory["m"][0]) is type(kept[0].data)
    state = optimisers[1].state_dict()
    assert all(isinstance(a, np.ndarray) for name, a in state.items() if name.startswith("m."))


def test_gradients_move_too(cupy):
    net = network()
    losses.mse(net(mg.tensor(IMAGES)), IMAGES).backward()
    net.to("cuda")
    assert all(type(p.grad) is cupy.ndarray for p in net.parameters())
    optim.Adam(net.parameters()).step()


def test_a_graph_over_what_has_moved_is_stale(cupy):
    net = network()
    loss = losses.mse(net(mg.tensor(IMAGES)), IMAGES)
    net.to("cuda")
    with pytest.raises(RuntimeError, match="was changed in place"):
        loss.backward()


def test_an_average_follows(cupy):
    still, moving = network(), network()
    averages = [EMA(net) for net in (still, moving)]
    optimisers = [optim.Adam(net.parameters(), lr=1e-2) for net in (still, moving)]
    for device in ("cuda", "cpu", "cuda"):
        moving.to(device)
        for net, adam, average in zip((still, moving), optimisers, averages, strict=True):
            steps(net, adam, 1)
            average.update()
        assert {t.device for _, t in averages[1].module._state()} == {device}
    states = [average.state_dict()["module"] for average in averages]
    for name, array in states[0].items():
        np.testing.assert_allclose(states[1][name], array, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("add_", lambda a, b: a.add_(b)),
        ("mul_", lambda a, b: a.mul_(b)),
        ("setitem", lambda a, b: a.__setitem__(slice(None), b)),
    ],
)
def test_a_change_in_place_over_two_devices(cupy, name, change):
    pair = mg.tensor([1.0, 2.0], device="cuda"), mg.tensor([3.0, 4.0])
    for a, b in (pair, pair[::-1]):
        words = rf"{name}: a tensor \(2,\) on {a.device} .* one \(2,\) on {b.device}: move it"
        with pytest.raises(mg.DeviceError, match=words):
            change(a, b)
    change(pair[0], 2.0)
    assert pair[0].copy_(pair[1]).numpy().tolist() == [3.0, 4.0]  # which says that it copies


def test_what_is_computed_does_not_move(cupy):
    x = mg.tensor([1.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="to_: a computed tensor cannot be moved in place"):
        (x * 2).to_("cuda")
    net = network()
    with pytest.raises(backend.DeviceError, match="unknown: choose"):
        net.to("abacus")
    assert {p.device for p in net.parameters()} == {"cpu"}


@pytest.mark.parametrize(("first", "then"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_checkpoint_goes_on_on_the_other_device(cupy, tmp_path, first, then):
    stays = network()
    adam = optim.Adam(stays.parameters(), lr=1e-2)
    wanted = steps(stays, adam, 4)
    net = network().to(first)
    adam = optim.Adam(net.parameters(), lr=1e-2)
    begun = steps(net, adam, 2)
    states = {"net": net.state_dict(), "adam": adam.state_dict()}
    training.save_checkpoint(tmp_path / "checkpoint.npz", states)
    loaded = training.load_checkpoint(tmp_path / "checkpoint.npz")
    other = network().to(then)
    again = optim.Adam(other.parameters(), lr=1e-2)
    other.load_state_dict(loaded["net"])
    again.load_state_dict(loaded["adam"])
    np.testing.assert_allclose(begun + steps(other, again, 2), wanted, rtol=1e-4)


def test_created_where_it_is_said(cupy):
    assert mg.tensor([1.0], device="cuda").device == mg.Tensor(IMAGES, device="cuda").device
    assert nn.Parameter([1.0], device="cuda").device == "cuda"
    mg.use("cuda")
    made = nn.Linear(2, 3).weight, mg.tensor(IMAGES)
    assert [t.device for t in made] == ["cuda", "cuda"]
    mg.use("cpu")


PROGRAM = """
from target import installed
import minigan as mg
with installed():
    print(mg.tensor([1.0]).device)
"""


@pytest.mark.parametrize(("device", "said"), [("cuda", "cuda"), ("cpu", "cpu")])
def test_the_device_of_the_environment(device, said):
    assert ask(PROGRAM, device).stdout.strip() == said


def test_a_device_of_the_environment_that_is_not_there():
    failed = ask("import minigan as mg; mg.tensor([1.0])", "abacus")
    assert "device 'abacus' (MINIGAN_DEVICE) is unknown: choose 'cpu' or 'cuda'" in failed.stderr


def ask(program, device):
    here = Path(__file__).resolve().parent
    path = os.pathsep.join([str(here), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "MINIGAN_DEVICE": device}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


# ---- optimisers


@counted
def test_one_launch_for_all_parameters(cupy):
    net = network().to("cuda")
    adam = optim.AdamW(net.parameters(), lr=1e-2)
    steps(net, adam, 1)
    cupy.count.reset()
    adam.step()
    assert (cupy.count.launches, cupy.count.syncs) == (1, 0)


@pytest.mark.parametrize("make", [optim.Adam, optim.AdamW])
def test_types_counts_and_strides_that_differ(cupy, make):
    """Each (type, count of steps) is a launch; what is not contiguous takes the plain way."""
    rng = np.random.default_rng(0)
    shapes = [((3, 4), np.float32), ((5,), np.float64), ((2, 6), np.float32), ((4, 3), np.float32)]
    values = [rng.normal(size=shape).astype(dtype) for shape, dtype in shapes]
    results = []
    for device in ("cpu", "cuda"):
        params = [mg.tensor(a, dtype=a.dtype, requires_grad=True, device=device) for a in values]
        params[3]._data = params[3]._data.T  # (3, 4), against the grain
        adam = make(params, lr=1e-2, weight_decay=0.1)
        for left_out in (None, 2, None):  # parameter 2 is a step behind from here on
            rng = np.random.default_rng(1)
            for i, p in enumerate(params):
                g = rng.normal(size=p.shape).astype(p.dtype)
                p.grad = None if i == left_out else p.backend.from_host(g)
            adam.step()
        results.append([p.numpy() for p in params])
    for here, there in zip(*results, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-5 if here.dtype == np.float32 else 1e-12)


@counted
def test_clipping_waits_once(cupy):
    params = [mg.tensor(np.full(n, 2.0), requires_grad=True, device="cuda") for n in (3, 5, 8)]
    for p in params:
        p.grad = p.data * 1.0
    cupy.count.reset()
    assert optim.clip_grad_norm_(params, 4.0) == 8.0
    assert (cupy.count.syncs, cupy.count.to_device) == (1, 0)
    assert params[0].grad.tolist() == [1.0] * 3


def test_clipping_over_two_devices(cupy):
    params = [mg.tensor([3.0], requires_grad=True), mg.tensor([4.0], requires_grad=True)]
    params[1].to_("cuda")
    for p in params:
        p.grad = p.data * 1.0
    assert optim.clip_grad_norm_(params, 10.0) == 5.0


def test_an_array_of_cupy_is_where_it_is(cupy):
    """Before anybody has asked for "cuda", too."""
    array = cupy.ones(3, "float32")
    made = mg.Tensor(array)
    assert made.device == "cuda"
    assert made.data.data.ptr == array.data.ptr


def test_chance_is_the_same_on_both(cupy):
    """Initial weights and dropout are drawn on the host, one after another."""
    drawn = {}
    for device in ("cpu", "cuda"):
        mg.use(device)
        mg.manual_seed(7)
        drop, ones = nn.Dropout(0.5), mg.tensor(np.ones((64,)))
        made = [*network().parameters(), drop(ones), drop(ones), *nn.Linear(3, 4).parameters()]
        assert {t.device for t in made} == {device}
        drawn[device] = [t.numpy() for t in made]
    mg.use("cpu")
    for here, there in zip(*drawn.values(), strict=True):
        np.testing.assert_array_equal(there, here)
