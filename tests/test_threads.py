"""The threads themselves: forks, Control-C, the limit on BLAS, and how many they are."""

import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import minigan as mg
from minigan import functional as F
from minigan import gemm, threads, workers

PATIENCE = 30  # seconds: only a deadlock takes as long
pytestmark = pytest.mark.usefixtures("threads_put_back")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_workers_of_its_own():
    code = """
import os, threading
from minigan import workers
workers.set_num_threads(2)
def meet(_, both=threading.Barrier(2)):
    return both.wait(30)
assert set(workers.each(meet, range(2))) == {0, 1}  # the parent's helper runs
child = os.fork()
if child == 0:
    workers.set_num_threads(2)
    os._exit(0 if set(workers.each(meet, range(2))) == {0, 1} else 1)
assert os.waitpid(child, 0)[1] == 0
assert set(workers.each(meet, range(2))) == {0, 1}
print("both")
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "both", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_as_many_threads_as_were_asked_for():
    code = """
import os
from minigan import workers
workers.set_num_threads(5)
child = os.fork()
if child == 0:
    os._exit(workers.get_num_threads())
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "5", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_inside_of_the_limit_on_blas_has_its_threads_back():
    code = """
import os
from threadpoolctl import ThreadpoolController
from minigan import workers
blas = ThreadpoolController().select(user_api="blas")
count = lambda: [library.get_num_threads() for library in blas.lib_controllers]
before = count()
with workers.postponed():
    assert count() == [1] * len(before) != before, count()
    child = os.fork()
    if child == 0:
        os._exit(0 if count() == before else 1)
    assert os.waitpid(child, 0)[1] == 0
print("back")
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "back", done.stderr


def test_control_c_in_the_middle_of_a_step():
    """A real signal, anywhere; then the pool works, and BLAS has as many threads as before."""
    code = """
import _thread, signal, threading, time
import numpy as np
import minigan as mg
from minigan import functional as F, workers
from threadpoolctl import threadpool_info
signal.signal(signal.SIGINT, signal.default_int_handler)
workers.set_num_threads(2)
x = mg.Tensor(np.ones((16, 64, 64, 16)))
w = mg.Tensor(np.ones((3, 3, 16, 16)))
due = F.conv2d(x, w).numpy()
before = [library["num_threads"] for library in threadpool_info()]
for i in range(20):
    timer = threading.Timer(0.001 + 0.002 * i, _thread.interrupt_main)
    try:
        timer.start()
        while True:
            F.conv2d(x, w)
    except KeyboardInterrupt:
        pass
    assert not workers._busy()
    assert np.array_equal(F.conv2d(x, w).numpy(), due)
assert [library["num_threads"] for library in threadpool_info()] == before
print("works")
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "works", done.stderr


def test_helpers_let_go_of_what_they_worked_on():
    """The arrays of a result are freed when the caller forgets them, not at the next operation."""
    workers.set_num_threads(2)
    both, array = threading.Barrier(2), np.ones(10)
    freed = threading.Event()
    weakref.finalize(array, freed.set)

    def piece(i, array=array):
        both.wait(PATIENCE)  # so that the helper has its hand on it
        return i

    assert workers.each(piece, range(2)) == [0, 1]
    del piece, array
    assert freed.wait(5), "a helper still holds the arrays of the last operation"


def test_blas_is_limited_from_any_thread():
    """The second thread while the first, which was the first to limit it, is alive."""
    code = """
import threading
from threadpoolctl import ThreadpoolController, threadpool_limits
from minigan import workers
blas = ThreadpoolController().select(user_api="blas")
count = lambda _: [library.get_num_threads() for library in blas.lib_controllers]
before, seen = count(0), [workers.each(count, range(2))]
def second():
    seen.append(workers.each(count, range(2)))
    with threadpool_limits(1):  # the user's own limit is not in our way, nor ours in his
        seen.append([count(0)])
thread = threading.Thread(target=second)
thread.start(); thread.join()
assert all(n == 1 for counts in seen for found in counts for n in found), seen
assert count(0) == before
print("limited")
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["limited"], done.stderr


def test_blas_gets_its_threads_back_when_users_overlap():
    """Nor has it two threads, which add in another order, while one of them is still at work."""
    code = """
import threading
from threadpoolctl import ThreadpoolController
from minigan import workers
blas = ThreadpoolController().select(user_api="blas")
count = lambda: [library.get_num_threads() for library in blas.lib_controllers]
before = count()
workers.set_num_threads(1)
entered, left, seen = threading.Event(), threading.Event(), []
def a(i):
    entered.wait(30)
def b(i):
    entered.set()
    left.wait(30)
    seen.append(count())
first = threading.Thread(target=lambda: (workers.each(a, range(2)), left.set()))
first.start()
while workers.pool.blas is None: pass
second = threading.Thread(target=lambda: workers.each(b, range(2)))
second.start(); first.join(); second.join()
assert all(n == 1 for counts in seen for n in counts), f"while B still worked: {seen}"
assert count() == before, f"{count()} of {before} left"
print("back")
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "back", done.stderr


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: F.batch_norm(x, training=True).sum().backward(),
        lambda x: x.sum((0, 1, 2)),
        lambda x: F.conv2d(x, np.ones((3, 3, 64, 8), np.float32)),
        lambda x: F.conv2d(x, np.ones((1, 1, 64, 8), np.float32)),
    ],
    ids=["batch_norm", "sum", "conv2d in strips", "conv2d"],
)
def test_no_product_is_made_outside_of_the_limit(operation, monkeypatch):
    """Not even of a single piece: threads of BLAS that wait take the cores from ours."""
    seen = []

    def watched(function):
        def call(*args, **options):
            seen.extend(count() for count, _ in gemm.blas_threads())
            return function(*args, **options)

        return call

    for name in ("matmul", "dot"):
        monkeypatch.setattr(np, name, watched(getattr(np, name)))
    monkeypatch.setattr(gemm, "add_products", watched(gemm.add_products))
    with threadpool_limits(2, user_api="blas"):
        operation(mg.tensor(np.ones((2, 6, 6, 64)), requires_grad=True))
    assert seen
    assert set(seen) == {1}


# ---- how many


@pytest.mark.parametrize("count", [0, -1, 1.5, None, "2", float("inf"), float("nan")])
def test_a_number_of_threads_that_makes_no_sense(count):
    before = workers.get_num_threads()
    with pytest.raises(ValueError, match=rf"set_num_threads: .* whole number >= 1, got {count!r}"):
        workers.set_num_threads(count)
    assert workers.get_num_threads() == before


def import_with(**environment):
    code = "from minigan import workers; print(workers.get_num_threads())"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_variable_sets_the_number():
    assert import_with(MINIGAN_THREADS="3").stdout.strip() == "3"


@pytest.mark.parametrize("setting", ["0", "-2", "many", "1.5", ""])
def test_a_variable_that_makes_no_sense(setting):
    done = import_with(MINIGAN_THREADS=setting)
    assert f"ValueError: MINIGAN_THREADS={setting!r}: should be a whole number >= 1" in done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_unasked_there_is_one_for_each_core_that_we_may_use(monkeypatch):
    assert threads._count(None) == min(8, len(os.sched_getaffinity(0)))
    for cores, count in ((1, 1), (3, 3), (8, 8), (64, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert threads._count(None) == count
    assert threads._count("64") == 64
