"""One engine in a process of its own, that takes a step whenever it is told to.

Two such processes taking turns meet the same disturbances, and neither changes the other's memory
allocator, threads or caches. PyTorch is measured as it comes: its process leaves malloc alone.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from workloads import Sizes, minigan_step


@dataclass
class Step:
    """What one training step gave: milliseconds, and the losses of D and G."""

    milliseconds: float
    losses: tuple[float, float]


class Engine:
    """A child process that trains; a context manager that ends it."""

    def __init__(self, engine: str, workload: str, sizes: Sizes, threads: int) -> None:
        self.name = engine
        sizes_as_words = [str(size) for size in (sizes.batch, sizes.image, sizes.width)]
        environment = {**os.environ, "MINIGAN_THREADS": str(threads)}
        if engine == "torch":
            environment |= {"MINIGAN_KEEP_MEMORY": "0", "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [sys.executable, __file__, engine, workload, *sizes_as_words],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def step(self) -> Step:
        milliseconds, *losses = map(float, self._ask("step"))
        return Step(milliseconds, tuple(losses))

    def peak_megabytes(self) -> float:
        """The most memory the process ever had (Linux)."""
        return float(self._ask("peak")[0])

    def _ask(self, what: str) -> list[str]:
        time.sleep(0.02)  # OpenMP's threads go on spinning for a moment after a step
        answer = []
        with suppress(BrokenPipeError):
            print(what, file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline().split()
        if not answer:
            raise SystemExit(f"the process ended: {' '.join(map(str, self.process.args))}")
        return answer


def main() -> None:
    engine, workload, *sizes = sys.argv[1:]
    sizes = Sizes(*map(int, sizes))
    if engine == "torch":
        import torch
        from torch_twin import torch_step

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        step = torch_step(workload, sizes)
    else:
        step = minigan_step(workload, sizes)
    for request in sys.stdin:
        if request.strip() == "peak":
            status = Path("/proc/self/status").read_text()
            print(int(status.split("VmHWM:")[1].split()[0]) / 1024, flush=True)
        else:
            started = time.perf_counter()
            losses = step()
            print((time.perf_counter() - started) * 1e3, *losses, flush=True)


if __name__ == "__main__":
    main()
