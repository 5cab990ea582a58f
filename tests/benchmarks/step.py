"""How long a training step takes, and where the time goes.

    python tests/benchmarks/step.py --workload pix2pix
    python tests/benchmarks/step.py --workload dcgan --against torch

Against PyTorch (pip install 'minigan[bench]') the two take turns in one process, on the same
networks, weights, data and threads, and the ratio is taken pair by pair, so that what else the
machine is doing hits both. Peak memory is that of each in a process of its own.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from workloads import DEFAULTS, Sizes, minigan_step

KINDS = {
    "convolution (columns and products)": ("conv2d", "conv_transpose2d", "conv_weight"),
    "matrix products": ("matmul",),
    "normalisation": ("batch_norm",),
    "reductions": ("sum", "sum_to", "max", "min"),
    "moving": ("concatenate", "getitem", "putitem", "pad", "reshape", "transpose", "broadcast_to"),
}


def timed(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return (time.perf_counter() - started) * 1e3


def peak_megabytes(flags: list[str], which: str) -> float:
    """Run five steps of one engine in a new process, and return the most memory it ever had."""
    command = [sys.executable, __file__, *flags, "--memory-of", which]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def print_peak(step: Callable[[], object]) -> None:
    """Linux only: getrusage would report the parent's peak where that was higher."""
    for _ in range(5):
        step()
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def compare(workload: str, sizes: Sizes, rounds: int, flags: list[str]) -> None:
    import torch
    from torch_twin import torch_step

    torch.set_num_threads(os.cpu_count() or 1)
    ours, theirs = minigan_step(workload, sizes), torch_step(workload, sizes)
    for i in range(3):
        a, b = ours(), theirs()
        print(
            f"losses after step {i + 1}: minigan {a[0]:.5f} {a[1]:.5f}, torch {b[0]:.5f} {b[1]:.5f}"
        )
    pairs = [(timed(ours), timed(theirs)) for _ in range(rounds)]
    mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    print(f"{workload} {sizes}, {rounds} pairs of steps")
    print(f"  minigan {mine:8.1f} ms  {sizes.batch / mine * 1e3:7.1f} images/s")
    print(f"  torch   {other:8.1f} ms  {sizes.batch / other * 1e3:7.1f} images/s")
    print(
        f"  minigan / torch: median {statistics.median(ratios):.3f}, "
        f"from {ratios[0]:.3f} to {ratios[-1]:.3f}"
    )
    for which in ("minigan", "torch"):
        print(f"  peak memory {which:8s} {peak_megabytes(flags, which):7.0f} MB")


def profile(step: Callable[[], object], rounds: int) -> None:
    """Time every op's forward and fused backward, and say what share each kind has."""
    from minigan import optim
    from minigan.autograd import Op

    spent: Counter[str] = Counter()
    before_call, before_step = Op.__call__, optim.Optimizer.step
    depth = 0

    def call(op: Op, *inputs):
        nonlocal depth
        depth += 1
        started = time.perf_counter()
        try:
            return before_call(op, *inputs)
        finally:
            depth -= 1
            if depth == 0:
                spent[op.name()] += time.perf_counter() - started

    def optimise(optimizer):
        started = time.perf_counter()
        before_step(optimizer)
        spent["optimiser"] += time.perf_counter() - started

    for _ in range(3):
        step()
    plain = statistics.median(timed(step) for _ in range(rounds))
    Op.__call__, optim.Optimizer.step = call, optimise
    fused = {}
    for op_class in all_ops(Op):
        if "fused_backward" in vars(op_class):
            fused[op_class] = op_class.fused_backward

            def timed_backward(op, gy, inner=op_class.fused_backward):
                started = time.perf_counter()
                try:
                    return inner(op, gy)
                finally:
                    spent[op.name()] += time.perf_counter() - started

            op_class.fused_backward = timed_backward
    try:
        total = sum(timed(step) for _ in range(rounds)) / 1e3
    finally:
        Op.__call__, optim.Optimizer.step = before_call, before_step
        for op_class, function in fused.items():
            op_class.fused_backward = function
    print(f"a step takes {plain:.1f} ms (median of {rounds}); shares, timed op by op:")
    kinds: Counter[str] = Counter()
    for name, seconds in spent.items():
        kind = next((kind for kind, names in KINDS.items() if name in names), "element-wise")
        kinds["optimiser" if name == "optimiser" else kind] += seconds
    kinds["graph and the rest"] = total - sum(spent.values())
    for kind, seconds in kinds.most_common():
        print(f"  {seconds / total:6.1%}  {kind}")
    print("  of which:", ", ".join(f"{n} {s / total:.1%}" for n, s in spent.most_common(9)))


def all_ops(op_class: type) -> list[type]:
    return [op_class, *(found for sub in op_class.__subclasses__() for found in all_ops(sub))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=DEFAULTS, default="pix2pix")
    parser.add_argument("--against", choices=["torch"], help="time PyTorch too, turn by turn")
    parser.add_argument("--rounds", type=int, default=20, help="steps to time (default: 20)")
    for name in ("batch", "image", "width"):
        parser.add_argument(f"--{name}", type=int, help=f"another {name} than the workload's")
    parser.add_argument("--memory-of", choices=["minigan", "torch"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    sizes = Sizes(
        *(
            getattr(args, n) or getattr(DEFAULTS[args.workload], n)
            for n in ("batch", "image", "width")
        )
    )
    flags = ["--workload", args.workload]
    for name in ("batch", "image", "width"):
        flags += [f"--{name}", str(getattr(sizes, name))]
    if args.memory_of == "torch":
        from torch_twin import torch_step

        print_peak(torch_step(args.workload, sizes))
    elif args.memory_of:
        print_peak(minigan_step(args.workload, sizes))
    elif args.against:
        compare(args.workload, sizes, args.rounds, flags)
    else:
        profile(minigan_step(args.workload, sizes), args.rounds)


if __name__ == "__main__":
    main()
