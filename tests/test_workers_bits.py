"""The same result to the bit for any number of workers, and right in many pieces."""

from collections import Counter

import numpy as np
import pytest

import minigan as mg
from minigan import backend, losses, nn, optim, workers
from minigan import functional as F
from minigan.models import PatchGAN, UNet
from minigan.ops import down, few, norm, planes, strips, windows, winograd
from minigan.specs import REGISTRY, check, reference

pytestmark = pytest.mark.usefixtures("threads_put_back")


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


@pytest.fixture(params=["columns", "planes", "strips", "schemes", "pairs of lines", "few pixels"])
def tiny_pieces(monkeypatch, request):
    """Cut everything, however small; convolutions in each of the ways that there are."""
    by_strips = request.param not in ("columns", "planes")
    monkeypatch.setattr(strips, "LONG", 1 if by_strips else 1 << 30)
    monkeypatch.setattr(planes, "MOST", 1 << 30 if request.param == "planes" else 0)
    monkeypatch.setattr(winograd, "PART", 1)
    by_schemes, in_pairs = request.param in ("schemes", "pairs of lines"), "pairs" in request.param
    monkeypatch.setattr(winograd, "ENOUGH", 1 if by_schemes else 1 << 30)
    monkeypatch.setattr(winograd, "WASTE", 0 if in_pairs else winograd.WASTE)
    monkeypatch.setattr(down, "WIDE", 1 if in_pairs else down.WIDE)
    monkeypatch.setattr(strips, "MANY", 2)
    monkeypatch.setattr(few, "FEW", 1 << 30 if request.param == "few pixels" else 0)
    monkeypatch.setattr(few, "SHARED_WORK", 64)
    monkeypatch.setattr(strips, "PIECE_WORK", 64)
    monkeypatch.setattr(workers, "BLOCK", 2)
    monkeypatch.setattr(norm, "WIDE", 1)
    monkeypatch.setattr(workers, "PIECE_WORK", 64)
    monkeypatch.setattr(workers, "HANDING_OVER", 64)
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
        *(numbers(1, 161, 130, 64, dtype=t), numbers(5, 4, 64, 64, dtype=t), numbers(64, dtype=t)),
    ),
    "conv2d, three taps": lambda t: gradients(
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
        *(numbers(5, 37, 40, 64, dtype=t), numbers(3, 3, 64, 64, dtype=t), numbers(64, dtype=t)),
    ),
    "conv2d, pairs of lines": lambda t: gradients(
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
        *(numbers(3, 21, 80, 64, dtype=t), numbers(3, 3, 64, 64, dtype=t), numbers(64, dtype=t)),
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
    "concatenate": lambda t: gradients(
        lambda *parts: F.concatenate(parts, axis=3),
        *(numbers(9, 40, 50, c, dtype=t, seed=c) for c in (20, 24)),
    ),
    "concatenate, few channels": lambda t: gradients(
        lambda *parts: F.concatenate(parts, axis=3),
        *(numbers(9, 150, 160, c, dtype=t, seed=c) for c in (1, 3)),
    ),
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
        monkeypatch.setattr(workers, "HANDING_OVER", 1 << 14)
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

KINDS = ("conv", "pool", "norm", "relu", "matmul", "linear", "concatenate")
IN_PIECES = [
    name
    for name in REGISTRY
    if any(word in name.lower() for word in KINDS)
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
