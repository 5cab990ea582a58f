"""step.py --device cuda: a step timed on a GPU by its own clock, kernel by kernel.

Times are between two events in the GPU's queue. A step as it is taken waits for Python, which asks
for one launch after the other. So one more step is asked for while the GPU is busy with something
else: all of it lies ready when its turn comes, and its times are the GPU's alone. A pair of events
costs a few microseconds, so a kernel that is over sooner looks slower than it is. The least time of
a kernel is that of the bytes in its arguments, each once, at the speed at which this GPU copies a
large array.
"""

import statistics
from collections import defaultdict
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from workloads import Sizes, minigan_step

from minigan import backend
from minigan.cuda import kernels_dir
from minigan.kernels import KERNELS
from minigan.launch import Kernels

WARM_UP = 3  # steps that compile the kernels and fill the memory pool


def milliseconds(cuda: Any, work: Callable[[], object]) -> float:
    """The time of some work on the GPU; waits for it."""
    start, stop = cuda.Event(), cuda.Event()
    start.record()
    work()
    stop.record()
    stop.synchronize()
    return cuda.get_elapsed_time(start, stop)


def bandwidth(xp: Any, megabytes: int = 256) -> float:
    """Bytes a millisecond that a large copy reads and writes: the median of ten."""
    source = xp.ones(megabytes << 18, dtype="float32")
    target = xp.empty_like(source)

    def copy() -> None:
        target[...] = source

    copy()
    return 2 * source.nbytes / statistics.median(milliseconds(xp.cuda, copy) for _ in range(10))


def head_start(xp: Any, least: float) -> None:
    """Give the GPU work for at least so many milliseconds, and do not wait for it."""
    a = xp.ones((2048, 2048), dtype="float32")

    def product() -> None:
        xp.matmul(a, a)

    product()  # the first takes longer
    once = milliseconds(xp.cuda, product)
    for _ in range(int(least / once) + 1):
        product()


def bytes_of(name: str, arguments: dict[str, Any]) -> int:
    """The bytes in the arrays of a launch, each once: no kernel can move fewer."""
    arrays = [arguments[p.name] for p in KERNELS[name].arrays]
    if "table" in arguments:  # Adam reads p, g, m, v and writes p, m, v
        return 7 * int(arguments["table"]["size"].sum()) * arguments["itemsize"]
    return sum(a.nbytes for a in arrays)


class Watch:
    """Within the context, every launch of our kernels stands between two events."""

    def __init__(self, cuda: Any) -> None:
        self.cuda, self.launches = cuda, []

    def __enter__(self) -> "Watch":
        self.before = before = Kernels.launch

        def launch(kernels: Kernels, name: str, grid: Any, block: Any, real: Any, **given: Any):
            start, stop = self.cuda.Event(), self.cuda.Event()
            start.record()
            before(kernels, name, grid, block, real, **given)
            stop.record()
            moved = bytes_of(name, {**given, "itemsize": real.itemsize})
            self.launches.append((name, start, stop, moved))

        Kernels.launch = launch
        return self

    def __exit__(self, *error: object) -> None:
        Kernels.launch = self.before

    def table(self) -> dict[str, tuple[int, float, int]]:
        """Launches, milliseconds and bytes of each kernel; the GPU must be done with them."""
        sums: dict[str, list] = defaultdict(lambda: [0, 0.0, 0])
        for name, start, stop, moved in self.launches:
            row = sums[name]
            row[0] += 1
            row[1] += self.cuda.get_elapsed_time(start, stop)
            row[2] += moved
        return {name: tuple(row) for name, row in sums.items()}


def report(workload: str, sizes: Sizes, rounds: int) -> None:
    """Print a step's time with our kernels, without them, in PyTorch, and kernel by kernel.

    Raises:
        DeviceError: CuPy, a driver or a GPU is missing.
    """
    device = backend.get("cuda")
    cuda, speed = device.xp.cuda, bandwidth(device.xp)
    print(f"{workload} {sizes}, {rounds} steps, on {name_of(cuda)}")
    print(f"a large copy moves {speed / 1e6:.0f} GB/s")
    before, kernels = backend._settings.device, device.kernels
    try:
        backend.use("cuda")
        device.kernels = kernels or Kernels(device.xp, kernels_dir())
        step = warm(workload, sizes)
        times = [milliseconds(cuda, step) for _ in range(rounds)]
        said("our kernels", times)
        with Watch(cuda) as watch:
            head_start(device.xp, 4 * max(times))
            total = milliseconds(cuda, step)
        device.kernels = None
        plain = warm(workload, sizes)
        said("plain CuPy", [milliseconds(cuda, plain) for _ in range(rounds)])
    finally:
        device.kernels = kernels
        backend.use(before)
    against_torch(workload, sizes, rounds)
    print(f"kernel by kernel, in a step that takes the GPU alone {total:.3f} ms:")
    print("  kernel                      launches      ms   least  least/ms  share")
    in_ours = 0.0
    for name, (count, spent, moved) in sorted(watch.table().items(), key=lambda row: -row[1][1]):
        least, in_ours = moved / speed, in_ours + spent
        print(
            f"  {name:27s} {count:8d} {spent:7.3f} {least:7.3f}"
            f" {least / max(spent, 1e-9):9.0%} {spent / total:6.1%}"
        )
    print(f"  {'matrix products, the rest':27s} {'':8s} {total - in_ours:7.3f}")


def name_of(cuda: Any) -> str:
    return cuda.runtime.getDeviceProperties(0)["name"].decode()


def warm(workload: str, sizes: Sizes) -> Callable[[], object]:
    """A step that has been taken a few times."""
    step = minigan_step(workload, sizes)
    for _ in range(WARM_UP):
        step()
    return step


def said(what: str, times: list[float]) -> None:
    print(f"  {what:12s} median {statistics.median(times):8.3f} ms (fastest {min(times):.3f})")


def against_torch(workload: str, sizes: Sizes, rounds: int) -> None:
    """Time the same step in PyTorch, if it is there and sees the GPU."""
    if find_spec("torch") is None:
        print("  PyTorch      is not installed")
        return
    import torch

    if not torch.cuda.is_available():
        print("  PyTorch      sees no GPU")
        return
    from torch_twin import torch_step

    step = torch_step(workload, sizes, "cuda")
    for _ in range(WARM_UP):
        step()
    times = []
    for _ in range(rounds):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    said("PyTorch", times)
