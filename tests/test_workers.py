"""Work that is shared: `each`, cuts, buffers and the memory they keep."""

import gc
import sys
import threading
import time
import weakref

import numpy as np
import pytest

import minigan as mg
from minigan import functional as F
from minigan import memory, threads, workers
from minigan.ops import windows

PATIENCE = 30  # seconds: only a deadlock takes as long
pytestmark = pytest.mark.usefixtures("threads_put_back")


# ---- each


def within_patience(function):
    """Call `function` in a thread of its own; fail, and do not hang, if it never ends."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "a deadlock"
    assert found, "an exception in the thread, above"
    return found[0]


def test_results_come_in_the_order_of_the_items():
    workers.set_num_threads(4)
    release = threading.Event()

    def first_last(i):
        if i == 0:
            assert release.wait(PATIENCE)  # the first item ends after all others
        elif i == 9:
            release.set()
        return i * i

    assert workers.each(first_last, range(10)) == [i * i for i in range(10)]
    assert workers.each(str, iter([])) == []
    assert workers.each(str, (7,)) == ["7"]


def test_pieces_run_side_by_side():
    workers.set_num_threads(2)
    both = threading.Barrier(2)  # passed only by two that wait at the same time
    assert set(workers.each(lambda _: both.wait(PATIENCE), range(2))) == {0, 1}


def test_one_thread_is_the_caller():
    workers.set_num_threads(1)
    names = workers.each(lambda _: threading.current_thread(), range(8))
    assert set(names) == {threading.current_thread()}


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_is_raised_when_all_pieces_have_ended(kind, count):
    workers.set_num_threads(count)
    begun, ended = [], []

    def piece(i):
        begun.append(i)
        if i in (2, 5):
            raise kind(f"piece {i}")
        ended.append(i)

    def rounds():
        for _ in range(3):
            with pytest.raises(kind, match="piece 2"):
                workers.each(piece, range(20))
            assert sorted(begun) == list(range(20))
            assert len(ended) == 18
            begun.clear()
            ended.clear()
        assert not workers._busy()
        return workers.each(abs, [-1, -2, -3])  # the pool still works

    assert within_patience(rounds) == [1, 2, 3]


def test_an_exception_leaves_no_cycle_behind():
    """The arrays of the pieces are freed at once, without the garbage collector."""

    class Array:
        pass

    def fail(array):
        raise ValueError("piece")

    arrays = [Array(), Array()]
    alive = [weakref.ref(array) for array in arrays]
    gc.disable()
    try:
        with pytest.raises(ValueError, match="piece") as raised:
            workers.each(fail, arrays)
        del arrays, raised
        end = time.monotonic() + PATIENCE
        while any(one() for one in alive) and time.monotonic() < end:
            time.sleep(0.001)  # a helper is on its way out
        assert [one() for one in alive] == [None, None]
    finally:
        gc.enable()


def test_the_exception_of_the_first_item_is_raised_whoever_is_first():
    workers.set_num_threads(2)
    second_has_ended = threading.Event()

    def fail(i):
        try:
            if i == 0:
                assert second_has_ended.wait(PATIENCE)
                time.sleep(0.02)  # it is on its way out
            raise ValueError(f"item {i}")
        finally:
            if i == 1:
                second_has_ended.set()

    with pytest.raises(ValueError, match="item 0"):
        workers.each(fail, range(2))


def test_every_piece_is_in_the_context_of_the_caller():
    workers.set_num_threads(2)
    both = threading.Barrier(2)

    def look(_):
        both.wait(PATIENCE)
        return threading.current_thread(), np.geterr()["over"], mg.tensor([1.0]).dtype

    with np.errstate(over="raise"), mg.default_dtype(np.float64):
        (one, *seen), (another, *there) = workers.each(look, range(2))
    assert one is not another
    assert seen == there == ["raise", np.float64]


def test_while_a_helper_is_in_a_long_call_no_array_is_kept_for_it(monkeypatch):
    workers.set_num_threads(2)
    monkeypatch.setattr(threads, "JOBS", 30)
    begun, release = threading.Event(), threading.Event()

    def long():
        begun.set()
        assert release.wait(PATIENCE)

    with workers.postponed() as later:
        later(long)
        assert begun.wait(PATIENCE)
        for _ in range(50):
            x = np.ones(10)
            held = weakref.ref(x)
            results = workers.each(lambda i, x=x: x + i, range(3))
            held_too = weakref.ref(results[0])
            del x, results
            assert held() is held_too() is None
        assert workers.pool.jobs.qsize() <= 30
        release.set()
        later.rest()


def test_what_a_piece_calls_is_not_cut_again():
    workers.set_num_threads(4)

    def outer(i):
        here = threading.current_thread()
        inner = workers.each(lambda j: (i * 10 + j, threading.current_thread()), range(5))
        assert {thread for _, thread in inner} == {here}
        return [value for value, _ in inner]

    found = within_patience(lambda: workers.each(outer, range(8)))
    assert found == [[i * 10 + j for j in range(5)] for i in range(8)]


def test_several_threads_of_the_user_at_once():
    workers.set_num_threads(2)
    random = np.random.default_rng(0)
    x, w = (mg.Tensor(random.standard_normal(s)) for s in ((8, 36, 33, 16), (3, 3, 16, 24)))
    due = F.conv2d(x, w).data.tobytes()
    right, start = [], threading.Barrier(4)

    def user():
        start.wait(PATIENCE)
        for _ in range(5):
            right.append(F.conv2d(x, w).data.tobytes() == due)
            right.append(workers.each(lambda i: i + 1, range(100)) == list(range(1, 101)))

    users = [threading.Thread(target=user, daemon=True) for _ in range(4)]
    for thread in users:
        thread.start()
    for thread in users:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in users), "a deadlock"
    assert right == [True] * 40


# ---- cuts and buffers


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 17, 1000])
@pytest.mark.parametrize("pieces", [1, 2, 4, 7])
def test_cuts_cover_everything_once(length, pieces):
    slices = list(workers.cut(length, pieces))
    assert [i for some in slices for i in range(length)[some]] == list(range(length))
    sizes = [some.stop - some.start for some in slices]
    assert len(slices) == min(length, pieces)
    assert not sizes or max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("rows", "pieces"), [(0, 1), (8, 1), (9, 2), (16, 2), (17, 4), (33, 6)])
def test_blocks_begin_above_the_limit_and_are_even(rows, pieces, monkeypatch):
    monkeypatch.setattr(workers, "BLOCK", 16)
    array = np.arange(2 * rows).reshape(rows, 2)
    found = workers.blocks(lambda some: some, array)
    assert len(found) == pieces
    np.testing.assert_array_equal(np.concatenate(found), array)


@pytest.mark.parametrize("shape", [(1, 5, 4), (7, 5, 4), (2, 301, 16), (0, 5, 4), (64, 8, 8)])
@pytest.mark.parametrize("limit", [1, 4096, 1 << 20])
def test_pieces_cover_everything_once_and_share_out_evenly(shape, limit):
    seen = np.zeros(shape[:2], int)
    todo = windows.pieces((*shape, 8), 36, 4, limit)
    for images, rows in todo:
        seen[images, rows] += 1
    assert (seen == 1).all()
    if len(todo) > 1 and limit > 1:
        largest = max(np.zeros(shape)[some].size * 36 * 4 for some in todo)
        assert largest <= max(limit, windows.PIECE_ROWS * 36 * 4, shape[2] * 36 * 4)


def test_a_buffer_is_used_again_and_grows():
    one = workers.scratch("test", (100, 10), np.dtype(np.float32))
    again = workers.scratch("test", (10, 20), np.dtype(np.float64))
    assert np.shares_memory(one, again)
    assert (again.shape, again.dtype) == ((10, 20), np.float64)
    assert not np.shares_memory(one, workers.scratch("other", (100, 10), np.dtype(np.float32)))
    larger = workers.scratch("test", (200, 10), np.dtype(np.float32))
    assert larger.shape == (200, 10)
    assert np.shares_memory(larger, workers.scratch("test", (5,), np.dtype(np.float32)))
    assert workers.scratch("test", (0, 3), np.dtype(np.float32)).shape == (0, 3)


def test_a_buffer_belongs_to_one_thread():
    workers.set_num_threads(2)
    both = threading.Barrier(2)

    def buffer(_):
        both.wait(PATIENCE)
        return workers.scratch("test", (100,), np.dtype(np.float32))

    one, two = workers.each(buffer, range(2))
    assert not np.shares_memory(one, two)


def test_buffers_are_bounded():
    def large():
        return workers.scratch("large", (workers.SCRATCH_BYTES + 8,), np.dtype(np.uint8))

    assert not np.shares_memory(first := large(), large())
    assert first.nbytes > workers.SCRATCH_BYTES
    assert all(b.nbytes <= workers.SCRATCH_BYTES for b, _ in workers.pool.mine.buffers.values())


def test_a_buffer_in_a_shape_is_made_once_and_follows_it_when_it_grows():
    small = workers.scratch("grows", (5, 7), np.dtype(np.float32))
    assert workers.scratch("grows", (5, 7), np.dtype(np.float32)) is small
    large = workers.scratch("grows", (50, 70), np.dtype(np.float32))
    for again in (
        workers.scratch("grows", (5, 7), np.dtype(np.float32)),
        workers.scratch("grows", (5, 7), np.dtype(np.float64)),
    ):
        assert again.shape == (5, 7)
        assert np.shares_memory(again, large)
    assert again.dtype == np.float64
    for n in range(3 * workers.SHAPES):
        workers.scratch("grows", (n,), np.dtype(np.float32))
        _, shaped = workers.pool.mine.buffers["grows"]
        assert len(shaped) <= workers.SHAPES


# ---- memory


def test_keeping_memory_can_be_refused(monkeypatch):
    def never(_):
        raise AssertionError("malloc was to be left alone")

    monkeypatch.setenv("MINIGAN_KEEP_MEMORY", "0")
    monkeypatch.setattr(memory.ctypes, "CDLL", never)
    assert memory.keep_freed_memory() is False


def test_keeping_memory_where_there_is_nothing_to_tell(monkeypatch):
    monkeypatch.delenv("MINIGAN_KEEP_MEMORY", raising=False)

    def raises(error):
        def library(_):
            raise error

        return library

    for library in (raises(OSError()), raises(TypeError()), lambda _: object()):
        monkeypatch.setattr(memory.ctypes, "CDLL", library)
        assert memory.keep_freed_memory() is False


def test_keeping_memory_sets_both_thresholds(monkeypatch):
    monkeypatch.delenv("MINIGAN_KEEP_MEMORY", raising=False)
    told = {}

    class Glibc:
        def mallopt(self, option, value):
            told[option] = value
            return accepts

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: Glibc())
    for accepts in (1, 0):
        assert memory.keep_freed_memory() is bool(accepts)
        assert told == {
            memory.M_TRIM_THRESHOLD: memory.LARGEST,
            memory.M_MMAP_THRESHOLD: memory.LARGEST,
        }
        told.clear()


# ---- products


@pytest.mark.parametrize("shape", [(1, 16), (1, 1, 16), (20, 25), (30, 40)])  # of the result
def test_a_product_lets_other_threads_run(shape):
    """NumPy's matmul would keep the interpreter's lock for one with few numbers."""
    *stack, m, n = shape
    k = 1 << 17
    a, b, out = (np.ones((*stack, *of), np.float32) for of in ((m, k), (k, n), (m, n)))
    ready, ran = threading.Semaphore(0), threading.Event()

    def another():
        ready.acquire()
        ran.set()

    thread = threading.Thread(target=another, daemon=True)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e3)  # seconds: who does not let go of the lock is not asked to
    try:
        ready.release()
        for _ in range(100):  # the other thread may be slow to wake up
            workers._matmul(a, b, out)
            if ran.is_set():
                break
    finally:
        sys.setswitchinterval(interval)
    assert ran.is_set()
    thread.join(PATIENCE)
    assert (out == k).all()


def test_products_with_few_results_of_views():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 3, 50)), random.normal(size=(2, 50, 4))
    stack, view = np.empty((2, 3, 4)), np.empty((3, 8))[:, ::2]
    workers.matmul(a, b, out=stack)
    np.testing.assert_allclose(stack, a @ b)
    workers.matmul(a[0], b[0], out=view)
    np.testing.assert_allclose(view, a[0] @ b[0])
    workers.matmul(b[0].T[:, ::-2], a[0].T[::-2], out=stack[0].T)
    np.testing.assert_allclose(stack[0].T, b[0].T[:, ::-2] @ a[0].T[::-2])
