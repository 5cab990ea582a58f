"""Gradients of leaves, which wait for the end of the walk: made by other threads, and right."""

import gc
import threading
import tracemalloc
import weakref

import numpy as np
import pytest

import minigan as mg
from minigan import functional as F
from minigan import workers
from minigan.ops.conv import Conv2d, ConvWeight

PATIENCE = 30  # seconds: only a deadlock takes as long
pytestmark = pytest.mark.usefixtures("threads_put_back")


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def everything_waits(monkeypatch):
    """However little work it is."""
    monkeypatch.setattr(workers, "PIECE_WORK", 1)
    monkeypatch.setattr(workers, "HANDING_OVER", 1)


def two_uses(x, w):
    """The weight in a convolution, in another on top of it, and by itself."""
    y = F.conv2d(F.conv2d(x, w, padding=1), w, padding=1)
    return (y * y).mean() + (w * w).sum() * 0.5


@pytest.mark.usefixtures("everything_waits")
def test_gradients_of_one_leaf_are_added_up():
    x, w = numbers(4, 9, 8, 6), numbers(3, 3, 6, 6, seed=1)
    found = []
    for count in (1, 2, 4):
        workers.set_num_threads(count)
        tx, tw = (mg.Tensor(a.copy(), requires_grad=True) for a in (x, w))
        two_uses(tx, tw).backward()
        found.append([tx.grad, tw.grad])
    for gx, gw in found[1:]:
        assert gx.tobytes() == found[0][0].tobytes()
        assert gw.tobytes() == found[0][1].tobytes()
    x, w = x.astype(np.float64), w.astype(np.float64)
    with mg.default_dtype(np.float64):  # along one direction, by differences
        tx, tw = (mg.tensor(a, requires_grad=True) for a in (x, w))
        gx, gw = mg.grad(two_uses(tx, tw), [tx, tw])
        dx, dw = numbers(*x.shape, seed=2) * 1e-6, numbers(*w.shape, seed=3) * 1e-6
        ahead, behind = (
            two_uses(mg.tensor(x + s * dx), mg.tensor(w + s * dw)).item() for s in (1.0, -1.0)
        )
    slope = np.vdot(gx.numpy(), dx) + np.vdot(gw.numpy(), dw)
    assert (ahead - behind) / 2 == pytest.approx(slope, rel=1e-4)
    np.testing.assert_allclose(found[0][1], gw.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("everything_waits")
def test_a_helper_makes_the_gradient_of_a_weight(monkeypatch):
    """While the walk goes on: the convolution before this one is not reached before it is made."""
    workers.set_num_threads(2)
    made, forward, backward = threading.Event(), ConvWeight.forward, Conv2d.backward
    threads = []

    def spied(self, x, y):
        threads.append(threading.current_thread())
        made.set()
        return forward(self, x, y)

    def patient(self, gy):
        assert not self.first or made.wait(PATIENCE)
        return backward(self, gy)

    monkeypatch.setattr(ConvWeight, "forward", spied)
    monkeypatch.setattr(Conv2d, "backward", patient)
    x, w = (mg.Tensor(numbers(*s), requires_grad=True) for s in ((2, 6, 6, 3), (3, 3, 3, 3)))
    before = F.conv2d(x * 2.0, w, padding=1)  # its own input has an op that is waiting
    after = F.conv2d(before, w, padding=1)
    before._op.first, after._op.first = True, False
    after.sum().backward()
    assert threads[0] is not threading.current_thread()


@pytest.mark.usefixtures("everything_waits")
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("outputs", [1, 8])  # of few, the kernel is turned, and its gradient
def test_gradients_that_nobody_else_holds(count, outputs, monkeypatch):
    """A `.grad` is an array of its own, in order, and a second backward adds to it."""
    workers.set_num_threads(count)
    x, w, v = (
        mg.Tensor(numbers(*shape), requires_grad=True)
        for shape in ((5, 7, 7, 8), (3, 3, 8, outputs), (outputs, 6))
    )

    made, forward = [], ConvWeight.forward
    monkeypatch.setattr(
        ConvWeight, "forward", lambda *args: made.append(forward(*args)) or made[-1]
    )

    def loss():
        return (F.conv2d(x, w, padding=1) @ v).sum()

    loss().backward()
    in_order = made[0].flags.c_contiguous  # else it was copied, to put it in order
    assert np.shares_memory(w.grad, made[0]) == in_order
    once = [t.grad.copy() for t in (x, w, v)]
    assert all(t.grad.flags.c_contiguous for t in (x, w, v))
    loss().backward()
    for t, gradient in zip((x, w, v), once, strict=True):
        assert t.grad.tobytes() == (gradient + gradient).tobytes()
        assert not any(np.shares_memory(t.grad, other.data) for other in (x, w, v))


@pytest.mark.usefixtures("everything_waits")
@pytest.mark.parametrize("count", [1, 2])
def test_the_graph_is_freed_or_kept_as_asked(count):
    workers.set_num_threads(count)
    x, w = (mg.Tensor(numbers(*s), requires_grad=True) for s in ((2, 5, 5, 3), (3, 3, 3, 2)))
    images = F.conv2d(x, w)
    y = images.sum()
    y.backward(retain_graph=True)
    assert len(images._op.saved()) == 2
    once = w.grad.copy()
    y.backward()
    assert w.grad.tobytes() == (once + once).tobytes()
    assert images._op._saved is None  # what it kept can go
    with pytest.raises(RuntimeError, match="freed by an earlier backward"):
        y.backward()


@pytest.mark.usefixtures("everything_waits")
@pytest.mark.parametrize("count", [1, 2])
def test_an_error_of_a_late_gradient_is_told(count):
    """The input was changed after forward, and the gradient of the weight reads it."""
    workers.set_num_threads(count)
    x, w = (mg.Tensor(numbers(*s), requires_grad=True) for s in ((2, 5, 5, 3), (3, 3, 3, 2)))
    y = F.conv2d(x, w).sum()
    with mg.no_grad():
        x.add_(1.0)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(RuntimeError, match=r"conv2d: its input 0.* changed in place"):
            y.backward()
        held = weakref.ref(x)
        del x, y
        assert held() is None  # no cycle holds it until the collector runs
    finally:
        gc.enable()
    assert w.grad is None
    F.conv2d(mg.Tensor(numbers(2, 5, 5, 3)), w).sum().backward()
    assert w.grad is not None


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_recorded_does_not_wait(count, monkeypatch):
    """The gradient of a gradient, which has to know both uses of the weight."""
    workers.set_num_threads(count)
    found = []
    for least in (1 << 40, 1):  # nothing would wait; everything would
        monkeypatch.setattr(workers.Postponed, "accepts", lambda later, work, n=least: work >= n)
        x, w = (mg.Tensor(numbers(*s), requires_grad=True) for s in ((2, 5, 5, 3), (3, 3, 3, 3)))
        (gw,) = mg.grad(two_uses(x, w), [w], create_graph=True)
        found.append(mg.grad((gw * gw).sum(), [x, w]))
    for one, other in zip(*found, strict=True):  # what waits is added in another order
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("everything_waits")
@pytest.mark.usefixtures("everything_waits")
def test_a_late_gradient_is_not_recorded():
    """Whoever makes it: what is recorded is a matter of each thread."""
    workers.set_num_threads(2)
    helper, seen = threading.Event(), []

    class Scaled(mg.Op):  # with no quicker way back, in arrays
        def forward(self, x, w):
            self.work = 1 << 30
            self.save(0, 1)
            return x * w

        def backward(self, gy):
            x, w = self.saved()
            if self.needs[1]:
                seen.append((mg.is_recording(), threading.current_thread()))
                helper.set()
                return None, gy * x
            return gy * w, None

    class Waiting(mg.Op):
        def forward(self, x):
            return x + 1

        def backward(self, gy):
            assert helper.wait(PATIENCE)
            return gy

    x, w = (mg.Tensor(numbers(4, seed=i), requires_grad=True) for i in range(2))
    Scaled()(Waiting()(x), w).sum().backward()
    [(recording, thread)] = seen
    assert not recording
    assert thread is not threading.current_thread()
    assert np.allclose(w.grad, x.numpy() + 1)


def test_an_anomaly_is_found_in_the_name_of_the_op():
    workers.set_num_threads(2)
    x, w = (mg.Tensor(numbers(*s), requires_grad=True) for s in ((2, 5, 5, 3), (3, 3, 3, 2)))
    y = F.conv2d(x, w)
    seed = np.ones(y.shape, np.float32)
    seed[0, 0, 0, 0] = np.inf
    quiet, found = np.errstate(all="ignore"), pytest.raises(mg.AnomalyError, match="conv2d back")
    with quiet, mg.detect_anomaly(), found:
        y.backward(seed)


@pytest.mark.usefixtures("everything_waits")
def test_a_leaf_used_often_has_one_gradient_at_a_time():
    """With one thread: each is added to the sum before the next is made."""
    workers.set_num_threads(1)
    w, x = mg.Tensor(numbers(256, 256) / 16, requires_grad=True), mg.Tensor(numbers(4, 256))
    for _ in range(40):
        x = (x @ w).tanh()
    loss = x.sum()
    tracemalloc.start()
    loss.backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * w.data.nbytes


@pytest.mark.usefixtures("everything_waits")
def test_without_helpers_an_error_is_raised_at_once(monkeypatch):
    workers.set_num_threads(1)
    begun = []

    def wrong(self, x, y):
        begun.append(None)
        raise KeyboardInterrupt

    monkeypatch.setattr(ConvWeight, "forward", wrong)
    w, x = mg.Tensor(numbers(3, 3, 2, 2), requires_grad=True), mg.Tensor(numbers(1, 6, 6, 2))
    for _ in range(5):
        x = F.conv2d(x, w, padding=1)
    loss = x.sum()
    with pytest.raises(KeyboardInterrupt):
        loss.backward()
    assert len(begun) == 1


def test_the_gradient_of_nothing():
    x = mg.Tensor(numbers(3), requires_grad=True)
    assert mg.grad([], [x], allow_unused=True) == (None,)
    with pytest.raises(RuntimeError, match="do not depend on input 0"):
        mg.grad([], [x])
