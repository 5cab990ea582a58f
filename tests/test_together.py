"""Calls side by side: at the same time, and to the bit as if one came after the other."""

import gc
import threading
import time
import weakref
from functools import partial

import numpy as np
import pytest

import minigan as mg
from minigan import backend, nn, workers
from minigan import functional as F
from minigan.models import PatchGAN, UNet

PATIENCE = 30  # seconds: only a deadlock takes as long
pytestmark = pytest.mark.usefixtures("threads_put_back")


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def thread():
    return threading.current_thread()


# ---- at the same time


def test_results_come_in_the_order_of_the_calls():
    workers.set_num_threads(3)
    release = threading.Event()

    def late(number):
        assert release.wait(PATIENCE)
        return number

    def early(number):
        release.set()
        return number

    found = mg.side_by_side((late, 0), (late, 1), (early, 2), (divmod, 7, 2))
    assert found == [0, 1, 2, (3, 1)]


def test_calls_meet():
    workers.set_num_threads(2)
    both = threading.Barrier(2)
    assert set(mg.side_by_side((both.wait, PATIENCE), (both.wait, PATIENCE))) == {0, 1}


def test_the_first_is_made_here_and_others_by_helpers():
    workers.set_num_threads(2)
    both = threading.Barrier(2)

    def who():
        both.wait(PATIENCE)
        return thread()

    first, second = mg.side_by_side((who,), (who,))
    assert first is thread()
    assert second is not thread()


@pytest.mark.parametrize("alone", ["one thread", "a device", "in a piece", "inside another"])
def test_alone_one_comes_after_the_other(alone, monkeypatch):
    workers.set_num_threads(1 if alone == "one thread" else 2)
    if alone == "a device":
        monkeypatch.setattr(backend.CPU, "postponed", partial(backend.Backend.postponed, None))
    made = []

    def note(i):
        time.sleep(0.02)  # a helper would have time to come
        made.append((i, thread()))
        return i

    def calls(*_):
        assert mg.side_by_side(*((note, i) for i in range(4))) == [0, 1, 2, 3]
        assert [i for i, _ in made] == [0, 1, 2, 3]
        assert len({by for _, by in made}) == 1

    if alone == "in a piece":
        workers.each(lambda i: calls() if i == 0 else None, range(2))
    elif alone == "inside another":
        mg.side_by_side((calls,), (int,))
    else:
        calls()
    assert len(made) == 4


def test_of_nothing_and_of_one():
    assert mg.side_by_side() == []
    assert mg.side_by_side((abs, -2)) == [2]


# ---- the same to the bit


def train(beside):
    """A step of pix2pix: what came out, the gradients, and the running averages."""
    mg.manual_seed(0)
    generator, discriminator = UNet(width=8, depth=3), PatchGAN(width=8)
    drawing, real = (mg.Tensor(numbers(4, 32, 32, 3, seed=i)) for i in range(2))
    if beside:
        fake, on_real = mg.side_by_side((generator, drawing), (discriminator, drawing, real))
    else:
        fake, on_real = generator(drawing), discriminator(drawing, real)
    loss = discriminator(drawing, fake).mean() - on_real.mean() + (fake - real).abs().mean()
    loss.backward()
    states = [*generator.state_dict().values(), *discriminator.state_dict().values()]
    gradients = [p.grad for net in (generator, discriminator) for p in net.parameters()]
    return [np.array(a).tobytes() for a in (fake.data, on_real.data, *gradients, *states)]


def test_as_one_after_the_other_for_any_number_of_threads():
    workers.set_num_threads(1)
    in_turn = train(beside=False)
    for threads in (1, 2, 4):
        workers.set_num_threads(threads)
        assert train(beside=True) == in_turn


@pytest.mark.parametrize("really", ["in turns", "the second first"])
def test_gradients_are_added_in_the_order_of_the_calls(really):
    """Youngest first: (L - L) + 1 + 0, whatever is made when; (L + 1) - L would be 0."""
    workers.set_num_threads(2)
    x = mg.Tensor(np.ones(3, np.float32), requires_grad=True)
    both, second_is_done = threading.Barrier(2), threading.Event()

    def twice(i, a, b):
        if really == "the second first" and i == 0:
            assert second_is_done.wait(PATIENCE)
        found = x * np.float32(a)
        if really == "in turns":
            both.wait(PATIENCE)
        found = (found + x * np.float32(b)).sum()
        if i == 1:
            second_is_done.set()
        return found

    first, second = mg.side_by_side((twice, 0, 0, 1), (twice, 1, -(2**27), 2**27))
    (first + second).backward()
    assert x.grad.tolist() == [1, 1, 1]


def test_what_comes_after_the_calls_is_younger():
    """Youngest first: (L - L) + 1 + 0; -L + 1 + 0 + L would be 0."""
    x = mg.Tensor(np.ones(3, np.float32), requires_grad=True)

    def twice(a, b):
        return (x * np.float32(a) + x * np.float32(b)).sum()

    before = x * np.float32(0)
    first, second = mg.side_by_side((twice, 0, 0), (twice, 1, -(2**27)))
    after = x * np.float32(2**27)
    (before.sum() + first + second + after.sum()).backward()
    assert x.grad.tolist() == [1, 1, 1]


# ---- the mode of a thread


def test_what_a_call_switches_is_its_own():
    workers.set_num_threads(2)
    both = threading.Barrier(2)

    def without():
        with mg.no_grad():
            both.wait(PATIENCE)
            return both.wait(PATIENCE), mg.is_recording()

    def with_():
        both.wait(PATIENCE)  # the other is inside of no_grad now
        recording = mg.is_recording()
        return both.wait(PATIENCE), recording

    (_, inside), (_, beside) = mg.side_by_side((without,), (with_,))
    assert not inside
    assert beside
    assert mg.is_recording()


def test_calls_are_in_the_mode_that_they_were_asked_for_in():
    workers.set_num_threads(2)
    both = threading.Barrier(2)

    def look():
        both.wait(PATIENCE)
        return mg.is_recording(), thread()

    with mg.no_grad():
        (here, _), (there, helper) = mg.side_by_side((look,), (look,))
    assert not here
    assert not there
    (_, _), (there, same) = mg.side_by_side((look,), (look,))
    assert there  # and the helper is in its own again
    assert same is helper


def test_anomalies_are_found_in_every_call():
    workers.set_num_threads(2)
    both = threading.Barrier(2)
    zero = mg.Tensor(np.zeros(2, np.float32))

    def divide():
        both.wait(PATIENCE)
        return F.log(zero) * 0.0

    def nothing():
        both.wait(PATIENCE)

    found = pytest.raises(mg.AnomalyError, match="step 3: log forward")
    with np.errstate(all="ignore"), mg.detect_anomaly("step 3"), found:
        mg.side_by_side((nothing,), (divide,))


def test_another_thread_of_the_user_has_its_own_mode():
    inside, looked = threading.Event(), threading.Event()

    def sample():
        with mg.no_grad(), mg.default_dtype(np.float64):
            inside.set()
            assert looked.wait(PATIENCE)

    other = threading.Thread(target=sample)
    other.start()
    assert inside.wait(PATIENCE)
    recording, dtype = mg.is_recording(), mg.tensor([1.0]).dtype
    looked.set()
    other.join()
    assert recording
    assert dtype == np.float32


def test_a_call_has_the_default_dtype_of_the_caller_and_may_change_its_own():
    workers.set_num_threads(2)
    both = threading.Barrier(2)

    def change():
        with mg.default_dtype(np.float32):
            both.wait(PATIENCE)
            found = mg.tensor([1.0]).dtype
            both.wait(PATIENCE)
        return found

    def look():
        both.wait(PATIENCE)  # the other is inside of its context now
        found = mg.tensor([1.0]).dtype
        both.wait(PATIENCE)
        return found

    with mg.default_dtype(np.float64):
        assert mg.side_by_side((change,), (look,)) == [np.float32, np.float64]
        assert mg.tensor([1.0]).dtype == np.float64
    assert mg.side_by_side((change,), (change,)) == [np.float32, np.float32]
    assert mg.tensor([1.0]).dtype == np.float32


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_call_switches_ends_with_it(threads, nested):
    workers.set_num_threads(threads)

    def calls():
        before = np.geterr()
        mg.side_by_side((np.seterr, "raise"), (np.seterr, "raise"))
        return np.geterr() == before

    assert mg.side_by_side((calls,))[0] if nested else calls()


# ---- what no two may change


@pytest.mark.parametrize("threads", [1, 2])
def test_one_call_may_draw_random_numbers_and_no_second(threads):
    workers.set_num_threads(threads)
    x = mg.Tensor(numbers(3, 5))
    mg.manual_seed(1)
    expected = F.dropout(F.dropout(x)).numpy()
    mg.manual_seed(1)
    _, found = mg.side_by_side((F.relu, x), (lambda: F.dropout(F.dropout(x)),))
    assert found.numpy().tolist() == expected.tolist()
    with pytest.raises(RuntimeError, match=r"both change the state of mg.generator\(\)"):
        mg.side_by_side((F.dropout, x), (F.dropout, x))
    F.dropout(x)
    mg.side_by_side((F.dropout, x), (F.relu, x))  # another time, another call
    with pytest.raises(RuntimeError, match=r"both change the state of mg.generator\(\)"):
        mg.side_by_side((F.dropout, x), (mg.manual_seed, 1))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: nn.BatchNorm2d(4), "batch_norm's running averages"),
        (lambda: nn.SpectralNorm(nn.Conv2d(4, 3, 1)), "SpectralNorm's u"),
    ],
)
def test_a_layer_that_keeps_something_is_in_one_call(make, what, threads):
    workers.set_num_threads(threads)
    x, layer = mg.Tensor(numbers(2, 3, 3, 4)), make()
    with pytest.raises(RuntimeError, match=f"calls . and . both change {what}"):
        mg.side_by_side((layer, x), (layer, x))
    mg.side_by_side((layer, x), (make(), x))
    layer.eval()
    mg.side_by_side((layer, x), (layer, x))  # nothing is changed now


@pytest.mark.parametrize("threads", [1, 2])
def test_one_call_adds_to_a_grad_and_no_second(threads):
    """Not even one after the other: which is first would decide about the last bit."""
    workers.set_num_threads(threads)
    v, w = (mg.Tensor(np.ones(4, np.float32), requires_grad=True) for _ in range(2))
    mg.side_by_side((v.sum().backward,), (w.sum().backward,))
    assert v.grad.tolist() == w.grad.tolist() == [1, 1, 1, 1]
    with pytest.raises(RuntimeError, match=r"both change the \.grad of one tensor"):
        mg.side_by_side((w.sum().backward,), ((w * 2.0).sum().backward,))


@pytest.mark.parametrize("threads", [1, 2])
def test_one_call_walks_a_graph_and_no_second(threads):
    workers.set_num_threads(threads)
    v, w = (mg.Tensor(np.ones((4, 4), np.float32), requires_grad=True) for _ in range(2))
    loss = (v @ w).sum()

    def gradient(of):
        return mg.grad(loss, of, retain_graph=True)[0].numpy()

    with pytest.raises(RuntimeError, match=r"both change the graph that backward walks"):
        mg.side_by_side((gradient, v), (gradient, w))
    shared = v @ w  # to which two calls walk, and no further
    up_to_shared = [(mg.grad, (shared * k).sum(), shared) for k in (1.0, 2.0)]
    (one,), (two,) = mg.side_by_side(*up_to_shared)
    assert (one.numpy() * 2).tolist() == two.numpy().tolist() == [[2.0] * 4] * 4
    found, _ = mg.side_by_side((lambda: gradient(v) + gradient(w),), (abs, -1))
    assert found.tolist() == np.full((4, 4), 8.0).tolist()


# ---- errors, and what is left behind


@pytest.mark.parametrize("call", [abs, [abs, -1], (), (3, abs), mg.tensor([1.0])])
def test_a_call_is_a_function_and_its_arguments(call):
    made = []
    with pytest.raises(TypeError, match=r"side_by_side: expected \(function, argument, ...\)"):
        mg.side_by_side((made.append, 1), call)
    assert made == []


@pytest.mark.parametrize("failing", [0, 1])
def test_an_exception_waits_for_the_other_call(failing):
    workers.set_num_threads(2)
    both, ended = threading.Barrier(2), []

    def fail():
        both.wait(PATIENCE)
        raise KeyError("what")

    def succeed():
        both.wait(PATIENCE)
        threading.Event().wait(0.05)
        ended.append(True)

    calls = [(succeed,), (succeed,)]
    calls[failing] = (fail,)
    with pytest.raises(KeyError, match="what"):
        mg.side_by_side(*calls)
    assert ended == [True]
    assert mg.is_recording()
    assert mg.side_by_side((abs, -1), (abs, -2)) == [1, 2]


def test_nothing_is_held_longer_than_needed():
    workers.set_num_threads(2)
    gc.collect()
    gc.disable()
    try:
        x, w = (mg.Tensor(numbers(50), requires_grad=i == 1) for i in range(2))
        dropped = []

        def network(x):
            dropped.append(weakref.ref((x * w)._op))  # nobody holds this product
            return x + w, dropped[-1]() is None

        (y, gone), (z, gone_too) = mg.side_by_side((network, x), (network, x))
        assert gone
        assert gone_too
        held = weakref.ref(x), weakref.ref(y._op), weakref.ref(z._op)
        del x, y, z
        assert [reference() for reference in held] == [None] * 3
    finally:
        gc.enable()
