"""Arrays of 2**31 numbers and more, on a machine that has no memory for them.

Such an array is a mapping with nothing behind it: a page of memory comes into being when it is
touched, and what never was reads as 0. The executor runs the last blocks of a grid alone. So what
a kernel does at the far end of an array can be seen, where a 32-bit index would have gone round.
"""

import mmap

import numpy as np
import standin
from standin_array import ndarray

from minigan import launch, twins

NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
# How many numbers, and of what: as many single ones as 32-bit indices do for, or more; or pixels of
# several channels, more numbers than that, but fewer pixels.
KINDS = ("int32", "int64", "int64, channels")
METHODS = ("im2col", "col2im", "batch_norm", "bias_act", "adam")
ROUNDING = 1e-4  # of the largest number


def zeros(shape, dtype=np.float32):
    """A host array of 0s, of any size."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    kept = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE)
    return np.frombuffer(kept, np.uint8)[:size].view(dtype).reshape(shape)


class Device:
    """What `launch.Kernels` asks of CuPy. `empty` is 0: as if the blocks left out had found 0s."""

    ndarray, RawModule = ndarray, standin.RawModule
    ascontiguousarray = staticmethod(standin.ascontiguousarray)

    @staticmethod
    def empty(shape, dtype):
        return ndarray.around(zeros(shape, dtype))


def missing():
    """Why there can be no such arrays here; "" if they can."""
    try:
        zeros(1 << 36, np.uint8)
    except OSError as error:
        return f"this machine maps no memory that it has not got: {error}"
    return ""


def question(method, kind):
    """What a kernel gives at the far end of its arrays, and what it should.

    Args:
        method: one of METHODS.
        kind: one of KINDS.

    Returns:
        a function of `launch.Kernels` on `Device` that returns arrays, and the host arrays due.
    """
    ask = {"im2col": windows, "col2im": windows, "adam": adam}.get(method, channels)
    single = launch.INT_LIMIT - 1 if kind == "int32" else 2**31 + 5
    answer, wanted = ask(method, None if kind == "int64, channels" else single)

    def answered(kernels):
        standin.RawModule.last = 2
        try:
            return answer(kernels)
        finally:
            standin.RawModule.last = 0

    return answered, wanted


def windows(method, single):
    """The last two images of a batch: `single` of one pixel, or larger ones."""
    rng = np.random.default_rng(1)
    if single:
        groups = 1 if single < launch.INT_LIMIT else 2  # of one channel each
        one, geometry = (1, 1, groups), ((1, 1), (1, 1), (0, 0), (1, 1), groups, (1, 1))
        count = single
    else:
        one, geometry, count = (4, 4, 8), ((2, 2), (2, 2), (0, 0), (1, 1), 2, (2, 2)), 2**24 + 2
    two = rng.integers(1, 9, (2, *one)).astype(np.float32)
    columns_of_two = twins.im2col(two, *geometry)  # (groups, rows, length)
    groups, rows, length = columns_of_two.shape
    if method == "im2col":
        x = zeros((count, *one))
        x[-2:] = two

        def answer(kernels):
            return [kernels.im2col(ndarray.around(x), *geometry)[-1, -rows:]]

        return answer, [columns_of_two[-1]]
    columns = zeros((groups, count * rows // 2, length))
    columns[:, -rows:] = columns_of_two

    def answer(kernels):
        device = ndarray.around(columns)
        return [kernels.col2im(device, (count, *one), *geometry)[-2:]]

    return answer, [twins.col2im(columns_of_two, (2, *one), *geometry)]


def channels(method, single):
    """The rows of the last chunk; all others are 0."""
    rng = np.random.default_rng(2)
    shape = (single, 1) if single else (2**28 + 64, 8)
    numbers = launch.tiles("far", shape)[2]
    some = shape[0] - (shape[0] - 1) // numbers["chunk"] * numbers["chunk"]  # rows of that chunk
    x, gy = zeros(shape), zeros(shape)
    x[-some:], gy[-some:] = rng.integers(-4, 5, (2, some, shape[1]))
    gamma, beta = rng.uniform(0.5, 1, (2, shape[1])).astype(np.float32)
    exact, g = x[-some:].astype(np.float64), gy[-some:].astype(np.float64)
    device = [ndarray.around(a) for a in (x, gamma, beta, gy)]
    if method == "bias_act":

        def answer(kernels):
            y = kernels.bias_act_forward(*device[:2], 0.2)
            gx, g_bias = kernels.bias_act_backward(y, device[3], 0.2)
            return [y[-some:], gx[-some:], g_bias]

        y = twins.bias_act_forward(exact, gamma, 0.2)
        return answer, [y, *twins.bias_act_backward(y, g, 0.2)]

    def answer(kernels):
        y, statistics = kernels.batch_norm_forward(*device[:3], 1e-5)
        gx, *rest = kernels.batch_norm_backward(device[0], device[3], *device[1:3], statistics)
        return [y[-some:], gx[-some:], *rest]

    mean, square = exact.sum(0) / shape[0], np.square(exact).sum(0) / shape[0]
    inv_std = 1 / np.sqrt(square - mean * mean + 1e-5)
    normal = (exact - mean) * inv_std
    g_gamma, g_beta = (g * normal).sum(0), g.sum(0)
    gx = gamma * inv_std * (g - g_beta / shape[0] - normal * g_gamma / shape[0])
    return answer, [normal * gamma + beta, gx, g_gamma, g_beta]


def adam(method, single):
    """The last numbers of a large parameter, and a small one behind it."""
    rng = np.random.default_rng(3)
    sizes = single or 2**32 + 5, 3
    tensors = [[zeros(n) for n in sizes] for _ in range(4)]  # p, g, m, v
    ends = [a[-3:] for arrays in tensors for a in arrays]
    start = rng.uniform(1, 2, (len(ends), 3)).astype(np.float32)
    options = 0.1, (0.5, 0.9), 1e-8, 2
    wanted = start.astype(np.float64)
    twins.adam_step(*wanted.reshape(4, 2, 3), *options)

    def answer(kernels):
        for end, numbers in zip(ends, start, strict=True):
            end[...] = numbers
        kernels.adam_step(*([ndarray.around(a) for a in part] for part in tensors), *options)
        return [ndarray.around(end) for end in ends]

    return answer, wanted
