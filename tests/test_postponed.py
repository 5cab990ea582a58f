"""Gradients of leaves, which wait for the end of the walk: made by other threads, and right."""

import gc
import threading
import time
import tracemalloc
import weakref

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import minigan as mg
from minigan import backend, workers
from minigan import functional as F
from minigan.ops.conv import Conv2d, ConvWeight
from minigan.tensor import mode

PATIENCE = 30  # seconds: only a deadlock takes as long
pytestmark = pytest.mark.usefixtures("threads_put_back")


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def everything_waits(monkeypatch):
    """However little work it is."""
    monkeypatch.setattr(workers, "PIECE_WORK", 1)
    monkeypatch.setattr(workers, "HANDING_OVER", 1)


# ---- calls that wait


def test_results_come_in_the_order_of_the_calls():
    workers.set_num_threads(3)
    release = threading.Event()

    def first_last(i):
        if i == 0:
            assert release.wait(PATIENCE)
        elif i == 5:
            release.set()
        return i * i

    with workers.postponed() as later:
        for i in range(6):
            later(lambda i=i: first_last(i))
        assert later.rest() == [0, 1, 4, 9, 16, 25]


@pytest.mark.parametrize("by", ["helper", "caller"])
def test_calls_are_made_as_if_where_they_were_handed_out(by):
    """Whoever makes them, and in whatever context that is."""
    workers.set_num_threads(2)
    begun, made, release = (threading.Event() for _ in range(3))

    def keep():
        begun.set()
        assert release.wait(PATIENCE)

    def look():
        seen = mg.is_recording(), mode.anomaly, np.geterr()["over"], mg.tensor([1.0]).dtype
        made.set()
        return threading.current_thread() is threading.main_thread(), *seen

    with workers.postponed() as later:
        if by == "caller":
            later(keep)
            assert begun.wait(PATIENCE)
        with mg.no_grad(), mg.detect_anomaly("here"), mg.default_dtype(np.float64):
            with np.errstate(over="raise"):
                later(look)
            if by == "helper":
                assert made.wait(PATIENCE)
        assert by == "helper" or later.make_one()
        release.set()
        assert later.rest()[-1] == (by == "caller", False, "here", "raise", np.float64)
    assert mg.is_recording()


def test_nothing_waits_where_there_are_no_helpers_for_it():
    """As on a GPU: only the CPU's backend has them."""
    with backend.Backend.postponed(backend.CPU) as later:
        assert not later.accepts(1 << 60)
    with backend.CPU.postponed() as later:
        assert later.accepts(1 << 60)
        assert later.accepts(workers.HANDING_OVER)
        assert not later.accepts(workers.HANDING_OVER - 1)
        assert not later.accepts(0)


def test_a_helper_begins_before_anybody_asks():
    workers.set_num_threads(2)
    begun = threading.Event()
    with workers.postponed() as later:
        later(begun.set)
        assert begun.wait(PATIENCE)
        later.rest()


def test_whoever_asks_works_too():
    workers.set_num_threads(2)
    both = threading.Barrier(2)
    with workers.postponed() as later:
        for _ in range(2):
            later(lambda: both.wait(PATIENCE))
        assert set(later.rest()) == {0, 1}


def test_pieces_of_the_last_call_are_shared():
    workers.set_num_threads(2)
    both, handed_out = threading.Barrier(2), threading.Event()

    def last():
        def piece(_):
            handed_out.set()
            return both.wait(PATIENCE)

        return workers.each(piece, range(2))

    with workers.postponed() as later:
        later(last)
        assert handed_out.wait(PATIENCE)  # now nothing waits any more but the second piece
        assert set(later.rest()[0]) == {0, 1}


@pytest.mark.parametrize("inside_a_piece", [False, True])
def test_without_helpers_a_call_is_made_at_once(inside_a_piece):
    workers.set_num_threads(2 if inside_a_piece else 1)

    def block(_):
        seen = []
        with workers.postponed() as later:
            later(lambda: seen.append(threading.current_thread()))
            assert seen == [threading.current_thread()]
            later.rest()

    workers.each(block, range(2))


@pytest.mark.parametrize("count", [1, 2])
def test_an_exception_is_raised_with_the_results(count):
    workers.set_num_threads(count)
    made = []

    def call(i):
        if i in (1, 3):
            raise ValueError(f"call {i}")
        made.append(i)

    for _ in range(3):
        with workers.postponed() as later:
            for i in range(5):
                later(lambda i=i: call(i))
            with pytest.raises(ValueError, match="call 1"):
                later.rest()
        assert sorted(made) == [0, 2, 4]
        made.clear()


def test_after_an_error_in_the_block_nothing_goes_on():
    workers.set_num_threads(2)
    helpers = max(1, workers.pool.helpers)  # earlier tests may have started more than one
    begun, go_on, ended = threading.Barrier(helpers + 1), threading.Event(), []

    def slow():
        begun.wait(PATIENCE)
        assert go_on.wait(PATIENCE)
        ended.append("slow")

    def block():
        with workers.postponed() as later:
            for _ in range(helpers):
                later(slow)
            begun.wait(PATIENCE)  # now no helper is free
            later(lambda: ended.append("never"))
            threading.Timer(0.2, go_on.set).start()
            raise ValueError("in the block")

    with pytest.raises(ValueError, match="in the block"):
        block()
    assert ended == ["slow"] * helpers  # what had begun was waited for
    assert workers.each(abs, [-1, -2]) == [1, 2]


def test_blas_has_one_thread_meanwhile_and_then_its_own_again():
    blas = ThreadpoolController().select(user_api="blas")

    def count():
        return [library.get_num_threads() for library in blas.lib_controllers]

    before = count()
    for threads in (1, 2):
        workers.set_num_threads(threads)
        with workers.postponed() as later:
            later(count)
            assert set(later.rest()[0]) <= {1}
            assert set(count()) <= {1}
            workers.blocks(lambda a: a, np.ones(3))  # leaves again, and does not lift the limit
            assert set(count()) <= {1}
        assert count() == before


def wait_for_helpers(later):
    """Until all calls are made, without making one."""
    while not later.calls[-1].ended:
        later.ended.get(timeout=PATIENCE)


def test_as_many_helpers_as_threads_are_asked_for():
    workers.set_num_threads(4)
    together = threading.Barrier(3)
    with workers.postponed() as later:
        for _ in range(3):
            later(lambda: together.wait(PATIENCE))
        wait_for_helpers(later)
        assert set(later.rest()) == {0, 1, 2}


def test_no_more_helpers_than_threads_are_asked_for():
    """Though there are more, from before."""
    for count in (4, 2):
        workers.set_num_threads(count)
        workers.each(lambda _: time.sleep(0.01), range(8))
    at_once, working = [], []

    def work():
        working.append(None)
        time.sleep(0.1)
        at_once.append(len(working))
        working.pop()

    with workers.postponed() as later:
        for _ in range(4):
            later(work)
        wait_for_helpers(later)
        later.rest()
    assert at_once == [1] * 4


def test_results_are_taken_as_they_come():
    workers.set_num_threads(2)
    with workers.postponed() as later:
        go_on = threading.Event()
        later(lambda: "first")
        later(lambda: go_on.wait(PATIENCE) and "second")
        found = []
        while not found:
            found = later.take()
        assert found == ["first"]
        assert later.take() == []
        go_on.set()
        assert later.rest() == ["second"]


def test_inside_a_piece_nothing_else_is_begun():
    workers.set_num_threads(2)
    open_pieces, depths = threading.local(), []

    def piece(_):
        open_pieces.count = getattr(open_pieces, "count", 0) + 1
        with workers.postponed() as later:
            later(lambda: None)
            later.rest()
        depths.append((open_pieces.count, workers._busy()))
        open_pieces.count -= 1

    workers.each(piece, range(8))
    assert depths == [(1, True)] * 8


# ---- in backward


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
