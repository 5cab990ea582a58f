"""Optimisers against their papers, written out slowly; schedules; clipping; state."""

import math
import re
import tracemalloc

import numpy as np
import pytest

import minigan as mg
from minigan import losses, nn, optim, workers

STEPS = 5


def parameters(dtype=np.float64, shapes=((3, 2), (4,), ())):
    random = np.random.default_rng(0)
    return [mg.tensor(random.normal(size=s), dtype=dtype, requires_grad=True) for s in shapes]


def gradients(step, params):
    random = np.random.default_rng(100 + step)
    return [random.normal(size=p.shape) for p in params]


def run(optimizer, first=0, last=STEPS):
    for step in range(first, last):
        for p, g in zip(optimizer.params, gradients(step, optimizer.params), strict=True):
            p.grad = np.asarray(g, p.dtype)
        optimizer.step()


# ---- the papers: from p and its gradients g1, g2, ... to p, one parameter at a time


def sgd(p, gs, lr, momentum=0.0, nesterov=False, decay=0.0):
    v = np.zeros_like(p)
    for g in gs:
        g = g + decay * p
        v = momentum * v + g
        p = p - lr * (g + momentum * v if nesterov else v)
    return p


def adam(p, gs, lr, b1=0.9, b2=0.999, eps=1e-8, decay=0.0, decoupled=False):
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gs, start=1):
        if decoupled:
            p = p - lr * decay * p
        else:
            g = g + decay * p
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        p = p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return p


def rmsprop(p, gs, lr, alpha=0.99, eps=1e-8):
    v = np.zeros_like(p)
    for g in gs:
        v = alpha * v + (1 - alpha) * g**2
        p = p - lr * g / (np.sqrt(v) + eps)
    return p


# name: (make the optimiser, the same by its paper)
OPTIMISERS = {
    "SGD": (lambda ps: optim.SGD(ps, lr=0.1), lambda p, gs: sgd(p, gs, 0.1)),
    "SGD, default lr": (optim.SGD, lambda p, gs: sgd(p, gs, 1e-3)),
    "SGD with decay": (
        lambda ps: optim.SGD(ps, lr=0.1, weight_decay=0.3),
        lambda p, gs: sgd(p, gs, 0.1, decay=0.3),
    ),
    "momentum": (
        lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9),
        lambda p, gs: sgd(p, gs, 0.1, 0.9),
    ),
    "Nesterov with decay": (
        lambda ps: optim.SGD(ps, lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.3),
        lambda p, gs: sgd(p, gs, 0.1, 0.8, True, 0.3),
    ),
    "Adam": (optim.Adam, lambda p, gs: adam(p, gs, 1e-3)),
    "Adam for GANs": (
        lambda ps: optim.Adam(ps, lr=2e-4, betas=(0.5, 0.99), eps=1e-3),
        lambda p, gs: adam(p, gs, 2e-4, 0.5, 0.99, 1e-3),
    ),
    "Adam with decay": (
        lambda ps: optim.Adam(ps, lr=0.1, weight_decay=0.3),
        lambda p, gs: adam(p, gs, 0.1, decay=0.3),
    ),
    "AdamW": (
        lambda ps: optim.AdamW(ps, lr=0.1),
        lambda p, gs: adam(p, gs, 0.1, decay=0.01, decoupled=True),
    ),
    "AdamW with more decay": (
        lambda ps: optim.AdamW(ps, lr=0.1, weight_decay=0.5),
        lambda p, gs: adam(p, gs, 0.1, decay=0.5, decoupled=True),
    ),
    "RMSprop": (optim.RMSprop, lambda p, gs: rmsprop(p, gs, 1e-2)),
    "RMSprop, other numbers": (
        lambda ps: optim.RMSprop(ps, lr=0.1, alpha=0.9, eps=1e-2),
        lambda p, gs: rmsprop(p, gs, 0.1, 0.9, 1e-2),
    ),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_steps_follow_the_paper(name):
    make, paper = OPTIMISERS[name]
    params = parameters()
    start = [p.numpy() for p in params]
    run(make(params))
    for i, (p, p0) in enumerate(zip(params, start, strict=True)):
        gs = [gradients(step, params)[i] for step in range(STEPS)]
        np.testing.assert_allclose(p.numpy(), paper(p0, gs), rtol=1e-12, atol=1e-14)
        assert not np.allclose(p.numpy(), p0, rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_float32_stays_float32_in_the_same_memory(name):
    make, paper = OPTIMISERS[name]
    params = parameters(np.float32)
    start, memory = [p.numpy() for p in params], [p.data for p in params]
    optimizer = make(params)
    run(optimizer)
    for i, (p, p0) in enumerate(zip(params, start, strict=True)):
        assert p.data is memory[i]
        assert p.dtype == np.float32
        gs = [gradients(step, params)[i] for step in range(STEPS)]
        np.testing.assert_allclose(p.numpy(), paper(p0.astype(float), gs), rtol=1e-4, atol=1e-5)
    for arrays in optimizer.memory.values():
        assert all(array.dtype == np.float32 for array in arrays)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_step_leaves_gradients_alone_and_counts_the_change(name):
    params = parameters()
    optimizer = OPTIMISERS[name][0](params)
    run(optimizer, 0, 1)
    for p, g in zip(params, gradients(0, params), strict=True):
        np.testing.assert_array_equal(p.grad, g)
        assert p._version.value == 1
    assert optimizer.steps == 1


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_parameter_without_gradient_is_left_alone(name):
    params = parameters()
    optimizer = OPTIMISERS[name][0](params)
    run(optimizer)
    before = params[1].numpy()
    memory = {name: arrays[1].copy() for name, arrays in optimizer.memory.items()}
    for p in params:
        p.grad = np.ones(p.shape)
    params[1].grad = None
    version = params[1]._version.value
    optimizer.step()
    np.testing.assert_array_equal(params[1].numpy(), before)
    assert params[1]._version.value == version
    for name, array in memory.items():
        np.testing.assert_array_equal(optimizer.memory[name][1], array)


@pytest.fixture
def one_worker():
    """With more, it is chance which of them needs its scratch arrays first."""
    before = workers.get_num_threads()
    workers.set_num_threads(1)
    yield
    workers.set_num_threads(before)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_step_allocates_nothing_large(name, one_worker):
    params = parameters(np.float32, [(500, 400), (400, 500), (200_000,)])
    optimizer = OPTIMISERS[name][0](params)
    for p in params:
        p.grad = np.ones(p.shape, np.float32)
    optimizer.step()  # makes the scratch arrays
    tracemalloc.start()
    optimizer.step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000  # one array here has 800,000 bytes


def test_zero_grad_forgets():
    params = parameters()
    optimizer = optim.SGD(params)
    run(optimizer, 0, 1)
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)


@pytest.mark.parametrize(
    "make",
    [
        lambda ps: optim.SGD(ps, lr=0.05, momentum=0.9, nesterov=True),
        lambda ps: optim.Adam(ps, lr=0.05),
        lambda ps: optim.AdamW(ps, lr=0.05),
        lambda ps: optim.RMSprop(ps, lr=0.01),
    ],
)
def test_they_train(make):
    mg.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = make(model.parameters())
    x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    target = (x[:, :1] * x[:, 1:]).astype(np.float32)
    history = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = losses.mse(model(mg.tensor(x)), target)
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.1 * history[0]


# ---- state


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_restored_state_goes_on_to_the_bit(name):
    make = OPTIMISERS[name][0]
    straight = parameters(np.float32)
    run(make(straight), 0, 2 * STEPS)

    stopped = parameters(np.float32)
    optimizer = make(stopped)
    run(optimizer)
    state = optimizer.state_dict()
    resumed = [mg.tensor(p.numpy(), requires_grad=True) for p in stopped]
    other = make(resumed)
    other.lr = 77.0  # comes back with the state
    other.load_state_dict(state)
    for array in state.values():
        if isinstance(array, np.ndarray):
            array[...] = 99  # it was copied
    run(other, STEPS, 2 * STEPS)
    for a, b in zip(straight, resumed, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


def test_a_state_is_a_copy_of_plain_arrays_and_numbers():
    params = parameters()
    optimizer = optim.Adam(params)
    run(optimizer, 0, 1)
    state = optimizer.state_dict()
    arrays = {f"{name}.{i}" for name in "mv" for i in range(3)}
    assert set(state) == {"steps", "lr", "updates", *arrays}
    assert (state["steps"], state["lr"], state["updates"]) == (1, 1e-3, [1, 1, 1])
    kept = state["m.0"].copy()
    run(optimizer, 1, 2)
    np.testing.assert_array_equal(state["m.0"], kept)


def test_a_parameter_thawed_late_is_corrected_for_its_own_count():
    early, late = params = parameters(shapes=((3,), (3,)))
    optimizer = optim.Adam(params, lr=0.1)
    first, gs = late.numpy(), [np.full(3, 2.0), np.full(3, -1.0)]
    for step, g in enumerate([None, None, *gs]):
        early.grad, late.grad = np.ones(3) * step, g
        optimizer.step()
    np.testing.assert_allclose(late.numpy(), adam(first, gs, lr=0.1), rtol=1e-12)


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing():
    optimizer = optim.Adam(parameters())
    run(optimizer)
    before = optimizer.state_dict()
    state = {**before, "m.1": np.zeros(9), "velocity.0": np.zeros(1), "m.0": np.zeros((3, 2))}
    del state["v.2"]
    with pytest.raises(ValueError, match="load_state_dict: Adam cannot take it") as caught:
        optimizer.load_state_dict(state)
    assert str(caught.value).splitlines()[1:] == [
        "  missing: v.2",
        "  unexpected: velocity.0",
        "  shape: m.1 is (9,), expected (4,)",
    ]
    after = optimizer.state_dict()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


# ---- errors


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: optim.SGD([]), ValueError, "SGD: no parameters to optimise"),
        (lambda: optim.Adam([np.ones(2)]), TypeError, "Adam: parameter 0 is not a leaf tensor"),
        (
            lambda: optim.Adam([parameters()[0] * 2]),
            TypeError,
            "Adam: parameter 0 is not a leaf tensor",
        ),
        (
            lambda: optim.Adam(nn.Linear(1, 1).named_parameters()),
            TypeError,
            "Adam: parameter 0 is not a leaf tensor: ('weight'",
        ),
        (
            lambda: optim.Adam(parameters()[:1] * 2),
            ValueError,
            "Adam: a parameter is listed twice, and would be stepped twice",
        ),
        (
            lambda: optim.SGD(parameters(), lr=-1),
            ValueError,
            "SGD: lr must be a finite number >= 0",
        ),
        (lambda: optim.SGD(parameters(), lr=math.nan), ValueError, "SGD: lr must be a finite"),
        (
            lambda: optim.SGD(parameters(), nesterov=True),
            ValueError,
            "SGD: nesterov needs a momentum > 0",
        ),
        (
            lambda: optim.AdamW(parameters(), betas=(0.9, 1.0)),
            ValueError,
            "AdamW: betas must be in [0, 1), got (0.9, 1.0)",
        ),
        (
            lambda: optim.StepLR(optim.SGD(parameters()), 0),
            ValueError,
            "StepLR: step_size must be at least 1, got 0",
        ),
        (
            lambda: optim.LinearDecay(optim.SGD(parameters()), end=5, start=5),
            ValueError,
            "LinearDecay: needs 0 <= start < end, got 5 and 5",
        ),
        (
            lambda: optim.CosineDecay(optim.SGD(parameters()), 0),
            ValueError,
            "CosineDecay: end must be at least 1, got 0",
        ),
        (lambda: optim.clip_grad_norm_(parameters(), 0), ValueError, "max_norm must be positive"),
    ],
)
def test_errors_say_what_is_wrong(make, error, words):
    with pytest.raises(error, match=re.escape(words)):
        make()


# ---- schedules


SCHEDULES = {
    "step": (lambda o: optim.StepLR(o, 3, gamma=0.5), lambda t: 0.5 ** (t // 3)),
    "step by default": (lambda o: optim.StepLR(o, 2), lambda t: 0.1 ** (t // 2)),
    "linear": (lambda o: optim.LinearDecay(o, end=8), lambda t: 1 - min(t, 8) / 8),
    "linear, held first": (
        lambda o: optim.LinearDecay(o, end=8, start=4, final=0.2),
        lambda t: 1 if t <= 4 else max(1 - 0.8 * (t - 4) / 4, 0.2),
    ),
    "cosine": (
        lambda o: optim.CosineDecay(o, end=8),
        lambda t: (1 + math.cos(math.pi * min(t, 8) / 8)) / 2,
    ),
    "cosine to a floor": (
        lambda o: optim.CosineDecay(o, end=8, final=0.1),
        lambda t: 0.1 + 0.9 * (1 + math.cos(math.pi * min(t, 8) / 8)) / 2,
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    make, factor = SCHEDULES[name]
    optimizer = optim.SGD(parameters(), lr=0.3)
    schedule = make(optimizer)
    for t in range(12):
        assert optimizer.lr == pytest.approx(0.3 * factor(t), abs=1e-12)
        run(optimizer, t, t + 1)
        schedule.step()


def test_a_schedule_resumes_with_its_optimiser():
    def start():
        optimizer = optim.Adam(parameters(np.float32), lr=0.3)
        return optimizer, optim.CosineDecay(optimizer, end=10)

    def go_on(optimizer, schedule, first, last):
        for t in range(first, last):
            run(optimizer, t, t + 1)
            schedule.step()

    straight = start()
    go_on(*straight, 0, 8)
    stopped, resumed = start(), start()
    go_on(*stopped, 0, 4)
    for new, old in zip(resumed, stopped, strict=True):
        new.load_state_dict(old.state_dict())
    with pytest.raises(ValueError, match="load_state_dict: CosineDecay cannot take"):
        resumed[1].load_state_dict(stopped[0].state_dict())
    for new, old in zip(resumed[0].params, stopped[0].params, strict=True):
        new.data = old.numpy()
    go_on(*resumed, 4, 8)
    assert resumed[0].lr == straight[0].lr
    for a, b in zip(straight[0].params, resumed[0].params, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


def test_the_lr_of_a_schedule_is_the_one_used():
    params = [mg.tensor([0.0], requires_grad=True)]
    optimizer = optim.SGD(params, lr=1.0)
    schedule = optim.LinearDecay(optimizer, end=2)
    moved = []
    for _ in range(3):
        before = params[0].item()
        params[0].grad = np.ones(1, np.float32)
        optimizer.step()
        schedule.step()
        moved.append(before - params[0].item())
    np.testing.assert_allclose(moved, [1, 0.5, 0])


# ---- clipping


def test_clipping_scales_all_gradients_together():
    params = parameters()
    for p, g in zip(params, gradients(0, params), strict=True):
        p.grad = np.array(g)
    before = [p.grad.copy() for p in params]
    norm = math.sqrt(sum((g**2).sum() for g in before))
    assert optim.clip_grad_norm_(params, norm / 4) == pytest.approx(norm)
    for p, g in zip(params, before, strict=True):
        np.testing.assert_allclose(p.grad, g / 4, rtol=1e-12)
    assert optim.clip_grad_norm_(iter(params), 10 * norm) == pytest.approx(norm / 4)
    for p, g in zip(params, before, strict=True):
        np.testing.assert_allclose(p.grad, g / 4, rtol=1e-12)


def test_clipping_keeps_float32_and_skips_what_has_no_gradient():
    a, b = parameters(np.float32)[:2]
    a.grad = np.full(a.shape, 1e30, np.float32)  # its square is beyond float32
    grad = a.grad
    norm = optim.clip_grad_norm_([a, b], 1.0)
    assert norm == pytest.approx(1e30 * math.sqrt(6))
    assert a.grad is grad
    assert a.grad.dtype == np.float32
    np.testing.assert_allclose(a.grad, 1 / math.sqrt(6), rtol=1e-6)
    assert b.grad is None
    assert optim.clip_grad_norm_([b], 1.0) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clipping_refuses_what_is_not_finite(bad):
    a = parameters()[0]
    a.grad = np.full(a.shape, bad)
    with pytest.raises(ValueError, match=f"clip_grad_norm_: the norm of the gradients is {bad}"):
        optim.clip_grad_norm_([a], 1.0)
    np.testing.assert_array_equal(a.grad, np.full(a.shape, bad))


def test_a_schedule_counts_its_own_calls_as_in_an_epoch():
    optimizer = optim.SGD(parameters(), lr=1.0)
    schedule = optim.StepLR(optimizer, step_size=2)
    for _ in range(3):
        run(optimizer, 0, 10)
        schedule.step()
    assert optimizer.lr == pytest.approx(0.1)


def test_one_tensor_is_clipped_and_not_optimised():
    p = mg.tensor([3.0, 4.0], requires_grad=True)
    p.grad = np.array([30.0, 40.0], np.float32)
    assert optim.clip_grad_norm_(p, 5.0) == pytest.approx(50)
    np.testing.assert_allclose(p.grad, [3, 4], rtol=1e-6)
    with pytest.raises(TypeError, match="Adam: give a list of parameters"):
        optim.Adam(p)
