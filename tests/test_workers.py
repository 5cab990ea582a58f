"""Work in pieces: the same result to the bit for any number of workers, and threads that behave."""

import os
import subprocess
import sys
import threading
import weakref
from collections import Counter

import numpy as np
import pytest

import minigan as mg
from minigan import backend, losses, memory, nn, optim, workers
from minigan import functional as F
from minigan.models import PatchGAN, UNet
from minigan.ops import strips, windows
from minigan.specs import REGISTRY, check, reference

PATIENCE = 30  # seconds: only a deadlock takes as long


@pytest.fixture(autouse=True)
def _threads_put_back():
    before = workers.get_num_threads()
    yield
    workers.set_num_threads(before)


@pytest.fixture
def handed_out(monkeypatch):
    """Counts how often work was cut into so many pieces."""
    sizes, each = Counter(), workers.each

    def spy(function, items):
        items = list(items)
        sizes[len(items)] += not workers._busy()
        return each(function, items)

    monkeypatch.setattr(workers, "each", spy)  # blocks and matmul
    monkeypatch.setattr(backend.CPU, "each", spy, raising=False)  # the convolutions
    return sizes


@pytest.fixture(params=["columns", "strips"])
def tiny_pieces(monkeypatch, request):
    """Cut everything, however small; convolutions by columns of windows, or strip by strip."""
    monkeypatch.setattr(strips, "LONG", 1 if request.param == "strips" else 1 << 30)
    monkeypatch.setattr(strips, "MANY", 2)
    monkeypatch.setattr(strips, "PIECE_WORK", 64)
    monkeypatch.setattr(workers, "BLOCK", 2)
    monkeypatch.setattr(workers, "PIECE_WORK", 64)
    monkeypatch.setattr(windows, "PIECE_ROWS", 2)
    monkeypatch.setattr(backend.Host, "column_bytes", 64)


def same_for_any_number(function):
    """Run `function`, which returns arrays, with 1, 2 and 4 workers; return the arrays."""
    found = {}
    for count in (1, 2, 4):
        workers.set_num_threads(count)
        found[count] = [np.array(array) for array in function()]
    for count in (2, 4):
        for i, (one, other) in enumerate(zip(found[1], found[count], strict=True)):
            assert one.dtype == other.dtype
            assert one.tobytes() == other.tobytes(), f"array {i} differs with {count} workers"
    return found[1]


def numbers(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def gradients(function, *arrays):
    """The value of function(*tensors), and the gradients of its sum with random weights."""
    inputs = [mg.Tensor(a, requires_grad=True, dtype=a.dtype) for a in arrays]
    y = function(*inputs)
    y.backward(numbers(*y.shape, dtype=y.dtype, seed=9))
    return [y.data, *(x.grad for x in inputs)]


# ---- to the bit

SAME = {
    "conv2d": lambda t: gradients(
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
        *(numbers(8, 36, 33, 16, dtype=t), numbers(3, 3, 16, 24, dtype=t), numbers(24, dtype=t)),
    ),
    "conv2d, one large image": lambda t: gradients(
        lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1),
        *(numbers(1, 161, 130, 8, dtype=t), numbers(5, 4, 8, 16, dtype=t), numbers(16, dtype=t)),
    ),
    "conv2d, one large image in strips": lambda t: gradients(
        lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1),
        *(numbers(1, 161, 130, 32, dtype=t), numbers(5, 4, 32, 32, dtype=t), numbers(32, dtype=t)),
    ),
    "conv2d, to few channels": lambda t: gradients(
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
        *(numbers(8, 40, 40, 32, dtype=t), numbers(3, 3, 32, 3, dtype=t), numbers(3, dtype=t)),
    ),
    "conv2d, groups and dilation": lambda t: gradients(
        lambda x, w, b: F.conv2d(x, w, b, stride=1, padding=2, dilation=2, groups=4),
        *(numbers(8, 36, 36, 16, dtype=t), numbers(3, 3, 4, 16, dtype=t), numbers(16, dtype=t)),
    ),
    "conv_transpose2d": lambda t: gradients(
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1),
        *(numbers(16, 20, 20, 32, dtype=t), numbers(4, 4, 32, 32, dtype=t), numbers(32, dtype=t)),
    ),
    "conv_transpose2d, groups": lambda t: gradients(
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=3, output_padding=2, groups=2),
        *(numbers(8, 20, 20, 16, dtype=t), numbers(2, 4, 8, 16, dtype=t), numbers(16, dtype=t)),
    ),
    "batch_norm": lambda t: gradients(
        lambda x, g, b: F.batch_norm(x, weight=g, bias=b, training=True),
        *(numbers(8, 40, 60, 64, dtype=t), numbers(64, dtype=t), numbers(64, dtype=t)),
    ),
    "leaky_relu": lambda t: gradients(
        lambda x: F.leaky_relu(x, 0.2), numbers(4, 101, 73, 41, dtype=t)
    ),
    "relu": lambda t: gradients(F.relu, numbers(4, 101, 73, 41, dtype=t)),
    "matmul": lambda t: gradients(F.matmul, numbers(700, 300, dtype=t), numbers(300, 400, dtype=t)),
    "sum": lambda t: gradients(lambda x: x.sum(axis=(0, 1, 2)), numbers(8, 70, 70, 64, dtype=t)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", SAME)
def test_the_same_to_the_bit(name, dtype, handed_out):
    found = same_for_any_number(lambda: SAME[name](dtype))
    assert all(array.dtype == dtype for array in found)
    assert max(handed_out) >= workers.PIECES  # or nothing was shown
    assert all(np.isfinite(array).all() for array in found)


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW, optim.SGD, optim.RMSprop])
def test_optimisers_to_the_bit(kind, handed_out):
    def steps():
        p = mg.Tensor(numbers(1100, 1003), requires_grad=True)
        optimizer = kind([p], lr=1e-2)
        for seed in range(2):
            p.grad = numbers(1100, 1003, seed=seed)
            optimizer.step()
        return [p.data, *(array for arrays in optimizer.memory.values() for array in arrays)]

    same_for_any_number(steps)
    assert max(handed_out) >= workers.PIECES


def dcgan(dtype):
    generator = nn.Sequential(
        nn.ConvTranspose2d(10, 16, 4, bias=False),  # (N, 4, 4, 16)
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 4, 2, 1),  # (N, 8, 8, 8)
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 1, 4, 2, 1),  # (N, 16, 16, 1)
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1),  # (N, 8, 8, 8)
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 16, 4, 2, 1, bias=False),  # (N, 4, 4, 16)
        nn.BatchNorm2d(16),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 1, 4),  # (N, 1, 1, 1)
    )
    z, real = numbers(6, 1, 1, 10, dtype=dtype), numbers(6, 16, 16, 1, dtype=dtype, seed=1)
    return generator, discriminator, discriminator, mg.Tensor(z), mg.Tensor(real)


def pix2pix(dtype):
    generator, discriminator = UNet(width=4), PatchGAN(width=4)
    drawing, real = (mg.Tensor(numbers(2, 64, 64, 3, dtype=dtype, seed=s)) for s in (0, 1))
    return generator, discriminator, lambda image: discriminator(drawing, image), drawing, real


@pytest.mark.usefixtures("tiny_pieces")
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("networks", [dcgan, pix2pix])
def test_training_to_the_bit(networks, dtype, handed_out, monkeypatch):
    if networks is pix2pix:  # some hundred pieces a product, not a hundred thousand
        monkeypatch.setattr(backend.Host, "column_bytes", 1 << 16)
        monkeypatch.setattr(workers, "BLOCK", 1 << 10)
        monkeypatch.setattr(workers, "PIECE_WORK", 1 << 14)
        monkeypatch.setattr(strips, "PIECE_WORK", 1 << 14)

    def train():
        mg.manual_seed(0)
        generator, discriminator, judge, source, real = networks(dtype)
        adam_g, adam_d = (optim.Adam(n.parameters(), 2e-4) for n in (generator, discriminator))
        history = []
        for _ in range(3):
            fake = generator(source)
            d_loss = ((judge(real) - 1.0) ** 2).mean() + (judge(fake.detach()) ** 2).mean()
            adam_d.zero_grad()
            d_loss.backward()
            adam_d.step()
            g_loss = ((judge(fake) - 1.0) ** 2).mean() + losses.l1(fake, real)
            adam_g.zero_grad()
            g_loss.backward()
            adam_g.step()
            history += [d_loss.data, g_loss.data]
        states = [network.state_dict() for network in (generator, discriminator)]
        return [*history, *(array for state in states for array in state.values())]

    with mg.default_dtype(dtype):
        found = same_for_any_number(train)
    assert sum(times for count, times in handed_out.items() if count > 1) > 300
    d_losses = found[:6:2]
    assert len({float(loss) for loss in d_losses}) == 3  # it does train
    assert all(np.isfinite(array).all() for array in found)


# ---- right in many pieces

IN_PIECES = [
    name
    for name in REGISTRY
    if any(word in name.lower() for word in ("conv", "pool", "norm", "relu", "matmul", "linear"))
    or name in ("sum", "mean", "tanh", "ops.Fold", "ops.Unfold", "gradient_penalty", "unet_block")
]


@pytest.mark.usefixtures("tiny_pieces")
@pytest.mark.parametrize("name", IN_PIECES)
def test_gradient_checks_in_many_pieces(name):
    workers.set_num_threads(2)
    for k in range(4):
        check(REGISTRY[name].example(k))


@pytest.mark.usefixtures("tiny_pieces")
def test_the_pieces_of_the_gradient_checks_are_many(handed_out):
    for name in ("conv2d", "conv_transpose2d", "batch_norm", "leaky_relu", "matmul"):
        handed_out.clear()
        for k in range(8):
            check(REGISTRY[name].example(k), order=1, parts=["forward"])
        assert max(handed_out, default=0) > 1, name


ODD = [  # n, size, kernel, stride, padding, dilation, groups
    (1, (9, 7), (3, 3), 1, 1, 1, 1),
    (1, (11, 8), (4, 4), 2, 1, 1, 1),  # a row left over
    (3, (10, 11), (3, 2), 3, 1, 1, 1),
    (2, (9, 10), (2, 1), 3, 0, 1, 1),  # pixels that no window sees
    (2, (7, 8), (1, 1), 2, 0, 1, 1),
    (2, (9, 9), (3, 3), 1, 2, 2, 1),
    (2, (10, 9), (2, 3), 2, 2, 3, 1),
    (2, (8, 8), (3, 3), 1, 1, 1, 2),
    (2, (8, 9), (4, 3), 2, 1, 1, 4),
    (2, (5, 5), (5, 5), 1, 0, 1, 1),
    (2, (4, 4), (3, 3), 1, 3, 1, 1),  # windows that see only padding
    (0, (6, 6), (3, 3), 1, 1, 1, 1),
    (0, (6, 6), (4, 4), 2, 1, 1, 2),
]


@pytest.mark.usefixtures("tiny_pieces")
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("outputs", [4, 20])  # columns of x, and of y where those are smaller
@pytest.mark.parametrize("case", ODD, ids=str)
def test_odd_convolutions_in_many_pieces(case, outputs, dtype):
    n, size, kernel, stride, padding, dilation, groups = case
    x, b = numbers(n, *size, 20, dtype=dtype), numbers(outputs, dtype=dtype, seed=1)
    w = numbers(*kernel, 20 // groups, outputs, dtype=dtype, seed=2)
    y, gx, gw, gb = same_for_any_number(
        lambda: gradients(
            lambda x, w, b: F.conv2d(x, w, b, stride, padding, dilation, groups), x, w, b
        )
    )
    scale = {"rtol": 0, "atol": 1e-10 if dtype == np.float64 else 2e-3}
    pairs = [(number, number) for number in (stride, padding, dilation)]
    np.testing.assert_allclose(y, reference.conv2d(x, w, b, *pairs, groups), **scale)
    gy = numbers(*y.shape, dtype=dtype, seed=9)
    # The adjoints, with the bias taken off: <conv(x), gy> = <x, gx> = <w, gw>.
    inner = float(np.vdot((y - b).astype(np.float64), gy))
    for a, ga in ((x, gx), (w, gw)):
        assert float(np.vdot(a.astype(np.float64), ga)) == pytest.approx(
            inner, rel=1e-10 if dtype == np.float64 else 1e-4, abs=1e-8 if n == 0 else 1e-2
        )
    np.testing.assert_allclose(gb, gy.sum(axis=(0, 1, 2)), **scale)
    # The transposed convolution is the same gradient, by its own name.
    small = windows.Geometry(kernel, *pairs, groups).input_size(*y.shape[1:3])
    extra = tuple(full - least for full, least in zip(size, small, strict=True))
    if max(extra) < max(stride, dilation):
        back, *_ = same_for_any_number(
            lambda: gradients(
                lambda y, w: F.conv_transpose2d(
                    y, w, None, stride, padding, extra, groups, dilation
                ),
                *(gy, w),
            )
        )
        assert back.tobytes() == gx.tobytes()


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
    x, w = mg.Tensor(numbers(8, 36, 33, 16)), mg.Tensor(numbers(3, 3, 16, 24))
    due = F.conv2d(x, w).data.tobytes()
    right, start = [], threading.Barrier(4)

    def user():
        start.wait(PATIENCE)
        for _ in range(5):
            right.append(F.conv2d(x, w).data.tobytes() == due)
            right.append(workers.each(lambda i: i + 1, range(100)) == list(range(1, 101)))

    threads = [threading.Thread(target=user, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a deadlock"
    assert right == [True] * 40


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
    entered.wait(0.3)  # in vain, where one operation waits for the other
def b(i):
    entered.set()
    left.wait(0.3)
    seen.append(count())
first = threading.Thread(target=lambda: (workers.each(a, range(2)), left.set()))
first.start()
while not workers._pool.blas: pass
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


# ---- how many


@pytest.mark.parametrize("count", [0, -1, 1.5])
def test_a_number_of_threads_that_makes_no_sense(count):
    before = workers.get_num_threads()
    with pytest.raises(ValueError, match=rf"set_num_threads: .* whole number >= 1, got {count}"):
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
def test_unasked_there_is_one_for_each_core_that_we_may_use():
    assert workers._count(None) == len(os.sched_getaffinity(0))


# ---- cuts and buffers


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 17, 1000])
@pytest.mark.parametrize("pieces", [1, 2, 4, 7])
def test_cuts_cover_everything_once(length, pieces):
    slices = list(workers.cut(length, pieces))
    assert [i for some in slices for i in range(length)[some]] == list(range(length))
    sizes = [some.stop - some.start for some in slices]
    assert len(slices) == min(length, pieces)
    assert not sizes or max(sizes) - min(sizes) <= 1


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
    assert all(b.nbytes <= workers.SCRATCH_BYTES for b in workers._pool.mine.buffers.values())


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
