"""Calls side by side that start threads, take locks, or help one another."""

import threading
import time

import numpy as np
import pytest

import minigan as mg
from minigan import workers

PATIENCE = 30  # seconds: only a deadlock takes as long
pytestmark = pytest.mark.usefixtures("threads_put_back")


def thread():
    return threading.current_thread()


def in_a_thread_of_its_own(function, *arguments):
    found = []
    other = threading.Thread(target=lambda: found.append(function(*arguments)), daemon=True)
    other.start()
    other.join(PATIENCE)
    assert found, "a deadlock, or an exception above"
    return found[0]


def until_somebody_rests():
    for _ in range(PATIENCE * 1000):
        if workers.pool.resting:
            return
        time.sleep(0.001)
    pytest.fail("nobody rests")


@pytest.mark.parametrize("threads", [1, 2])
def test_a_call_may_leave_something_to_a_thread(threads):
    """It need not wait for the end of the calls, and what it computes is part of the graph."""
    workers.set_num_threads(threads)
    x = mg.Tensor(np.ones((40, 40), np.float32), requires_grad=True)

    def call():
        trebled = x * 3.0
        doubled = in_a_thread_of_its_own(lambda: (trebled @ x) * 2.0)  # by another clock
        return ((doubled + trebled) * 5.0).sum()

    call().backward()
    expected, x.grad = x.grad, None
    for calls in ((call,), (abs, -1)), ((abs, -1), (call,)):
        loss = next(found for found in mg.side_by_side(*calls) if found != 1)
        loss.backward()
        np.testing.assert_array_equal(x.grad, expected)
        x.grad = None


def test_a_call_that_holds_a_lock_begins_no_other():
    """Backward, at its end, does what waits for a helper: but not a call that wants the lock."""
    workers.set_num_threads(2)
    lock, helper_has_one, first_has_ended = threading.Lock(), threading.Event(), threading.Event()
    v, w = (mg.Tensor(np.ones(4, np.float32), requires_grad=True) for _ in range(2))

    def first():
        assert helper_has_one.wait(PATIENCE)  # and the third is still to be begun
        with lock:
            v.sum().backward()
        first_has_ended.set()

    def second():
        helper_has_one.set()
        assert first_has_ended.wait(PATIENCE)

    def third():
        assert lock.acquire(timeout=1), "a deadlock"
        w.sum().backward()
        lock.release()

    mg.side_by_side((first,), (second,), (third,))
    assert v.grad.tolist() == w.grad.tolist() == [1, 1, 1, 1]


def test_nor_does_one_that_rests_already():
    workers.set_num_threads(2)
    begun, made = threading.Event(), threading.Event()

    def keep():
        begun.set()
        return made.wait(PATIENCE)

    def someone_else():
        until_somebody_rests()
        found = mg.side_by_side((time.sleep, 0.1), (thread,))  # time enough to be taken
        made.set()
        return found[1] is threading.current_thread()

    with workers.postponed() as later:
        later(keep)
        assert begun.wait(PATIENCE)  # by the helper
        other = threading.Thread(target=lambda: found.append(someone_else()), daemon=True)
        found = []
        other.start()
        assert later.rest() == [True]
        other.join(PATIENCE)
    assert found == [True]


def test_who_has_ended_helps_with_what_comes_then():
    workers.set_num_threads(2)
    both = threading.Barrier(2)

    def long():
        both.wait(PATIENCE)
        until_somebody_rests()
        time.sleep(0.02)  # and has found nothing to do
        return workers.each(lambda _: (both.wait(PATIENCE), thread())[1], range(2))

    _, by = mg.side_by_side((both.wait, PATIENCE), (long,))
    assert len(set(by)) == 2
    assert thread() in by
    assert not workers.pool.resting
