"""Calls that wait: whoever makes them, their results, their errors and their surroundings."""

import threading
import time

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import minigan as mg
from minigan import backend, workers
from minigan.tensor import mode

PATIENCE = 30  # seconds: only a deadlock takes as long
pytestmark = pytest.mark.usefixtures("threads_put_back")


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
