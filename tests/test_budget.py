"""What a training step costs, counted and not timed: arrays, bytes, and the peak of memory.

The counts depend on the shapes alone, so they are the same on every machine. Each has a budget, as
recorded. A change that needs more must say why; after one that needs less, record it again:

    python tests/test_budget.py
"""

import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

from workloads import Sizes, minigan_step

from minigan import Op, backend, workers

SIZES = {
    "dcgan": Sizes(batch=8, image=32, width=16),
    "pix2pix": Sizes(batch=2, image=64, width=8),
    "article": Sizes(batch=3, image=64, width=16),
    "article, in pairs of lines": Sizes(batch=1, image=80, width=64),
}


@dataclass
class Cost:
    """What one step takes.

    Attributes:
        arrays: how many the ops ask the array module for (`a * b` is not among them).
        moved: kB of columns and the like, written to buffers.
        buffers: kB of those buffers, which are kept.
        taken: kB that each op takes at its highest, its result included; summed over all ops.
        peak: kB that the step takes at its highest.
    """

    arrays: int
    moved: int
    buffers: int
    taken: int
    peak: int


BUDGETS = {
    "dcgan": Cost(arrays=267, moved=11743, buffers=1828, taken=8403, peak=1330),
    "pix2pix": Cost(arrays=378, moved=20299, buffers=2110, taken=9568, peak=1877),
    "article": Cost(arrays=322, moved=210092, buffers=3352, taken=43506, peak=15814),
    "article, in pairs of lines": Cost(
        arrays=438, moved=200782, buffers=5453, taken=90117, peak=31192
    ),
}
SLACK = 1.02  # Python's own objects, which are not the same in all its versions


class CountingModule:
    """NumPy, counting the calls that return a new array."""

    def __init__(self) -> None:
        self.arrays = 0

    def __getattr__(self, name: str):
        value = getattr(np, name)
        if not callable(value) or isinstance(value, type):
            return value

        def counted(*args, **options):
            result = value(*args, **options)
            new = isinstance(result, np.ndarray) and result.base is None
            self.arrays += new and options.get("out") is None
            return result

        return counted


def cost_of(step: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Cost:
    """Count one step. One worker: with more, whose buffers are there first is chance."""
    module, moved, taken = CountingModule(), [0], [0]
    scratch, depth = backend.CPU.scratch, [0]

    def counted_scratch(name, shape, dtype):
        buffer = scratch(name, shape, dtype)
        moved[0] += buffer.nbytes
        return buffer

    def measured(function):
        def call(*args):
            if depth[0] == 0:
                before = tracemalloc.get_traced_memory()[0]
                highest[0] = max(highest[0], tracemalloc.get_traced_memory()[1])
                tracemalloc.reset_peak()
            depth[0] += 1
            try:
                return function(*args)
            finally:
                depth[0] -= 1
                if depth[0] == 0:
                    taken[0] += tracemalloc.get_traced_memory()[1] - before

        return call

    before_step, highest = tracemalloc.get_traced_memory()[0], [0]
    with monkeypatch.context() as patch:
        patch.setattr(backend.CPU, "xp", module)
        patch.setattr(backend.CPU, "scratch", counted_scratch, raising=False)
        patch.setattr(Op, "__call__", measured(Op.__call__))
        for op in all_ops(Op):
            if "fused_backward" in vars(op):
                patch.setattr(op, "fused_backward", measured(op.fused_backward))
        step()
    highest[0] = max(highest[0], tracemalloc.get_traced_memory()[1])
    buffers = sum(buffer.nbytes for buffer, _ in workers.pool.mine.buffers.values())
    all_bytes = (moved[0], buffers, taken[0], highest[0] - before_step)
    return Cost(module.arrays, *(number // 1024 for number in all_bytes))


def a_step(workload: str) -> Callable[[], object]:
    """Return a step of the workload that is named first."""
    return minigan_step(workload.split(",")[0], SIZES[workload])


def all_ops(op: type) -> list[type]:
    return [op, *(found for sub in op.__subclasses__() for found in all_ops(sub))]


@pytest.fixture
def counting():
    """Memory is traced, and one worker does everything."""
    threads = workers.get_num_threads()
    workers.set_num_threads(1)
    workers.pool.mine.__dict__.pop("buffers", None)  # other tests' may be large already
    tracemalloc.start()
    yield
    tracemalloc.stop()
    workers.set_num_threads(threads)


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("workload", SIZES)
def test_a_step_stays_in_its_budget(workload, monkeypatch):
    step = a_step(workload)
    step()  # makes what is kept: buffers, gradients
    cost, budget = cost_of(step, monkeypatch), BUDGETS[workload]
    within = [a <= b * SLACK for a, b in zip(astuple(cost), astuple(budget), strict=True)]
    assert all(within), f"a step of {workload} takes {cost}, the budget is {budget}"


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("workload", SIZES)
def test_a_step_leaves_nothing_behind(workload):
    """Activations are freed: what is held after a step is what was held before it."""
    step = a_step(workload)
    step()
    held = []
    for _ in range(3):
        step()
        arrays = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)]
        )
        held.append(sum(trace.size for trace in arrays.traces))
    assert held[0] == held[1] == held[2] > 0, f"bytes of arrays after each step: {held}"


def main() -> None:
    """Print the costs, as they should be recorded above."""
    workers.set_num_threads(1)
    tracemalloc.start()
    for workload in SIZES:
        workers.pool.mine.__dict__.pop("buffers", None)
        step = a_step(workload)
        step()
        with pytest.MonkeyPatch.context() as monkeypatch:
            print(f'    "{workload}": {cost_of(step, monkeypatch)},')


if __name__ == "__main__":
    main()
