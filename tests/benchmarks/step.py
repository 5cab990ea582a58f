"""How long a training step takes, and where the time goes.

    python tests/benchmarks/step.py --workload pix2pix
    python tests/benchmarks/step.py --workload dcgan --against torch
    python tests/benchmarks/step.py --workload dcgan --scale
    python tests/benchmarks/step.py --device cuda

Against PyTorch (pip install -e '.[bench]') the two take turns, each in a process of its own, on
the same networks, weights, data and number of threads; the ratio is taken pair by pair, so that
what else the machine is doing hits both.

On a GPU (gpu.py) a step is timed with events, kernel by kernel, with our kernels and with plain
CuPy, and in PyTorch if that is there. The tests run that on the CPU, with a stand-in for CuPy whose
events read the CPU's clock.
"""

import argparse
import importlib.metadata
import importlib.util
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))

from pairs import Engine
from workloads import DEFAULTS, MULTIPLE, Sizes, minigan_step

from minigan import info
from minigan.backend import DeviceError
from minigan.workers import get_num_threads, set_num_threads

CONVOLUTIONS = ("conv2d", "conv_transpose2d", "conv_weight")
KINDS = {
    "columns and waiting in convolutions": CONVOLUTIONS,
    "matrix products": ("matmul",),
    "normalisation": ("batch_norm",),
    "reductions": ("sum", "sum_to", "max", "min"),
    "moving": ("concatenate", "getitem", "putitem", "pad", "reshape", "transpose", "broadcast_to"),
}


def timed(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return (time.perf_counter() - started) * 1e3


def compare(workload: str, sizes: Sizes, rounds: int, threads: int) -> None:
    """Let minigan and PyTorch take turns, and print both medians and the ratio pair by pair."""
    print(f"{workload} {sizes}, {rounds} pairs of steps, {threads} threads each")
    print(f"PyTorch {importlib.metadata.version('torch')}")
    with (
        Engine("minigan", workload, sizes, threads) as ours,
        Engine("torch", workload, sizes, threads) as theirs,
    ):
        for i in range(3):
            a, b = (engine.step().losses for engine in (ours, theirs))
            print(f"  losses after step {i + 1}: minigan {a[0]:.5f} {a[1]:.5f}, ", end="")
            print(f"torch {b[0]:.5f} {b[1]:.5f}")
        pairs = [(ours.step().milliseconds, theirs.step().milliseconds) for _ in range(rounds)]
        sides = zip(*pairs, strict=True)
        for engine, side in zip((ours, theirs), sides, strict=True):
            median = statistics.median(side)
            print(
                f"  {engine.name:7s} median {median:7.1f} ms (fastest {min(side):.1f})"
                f"  {sizes.batch / median * 1e3:7.1f} images/s"
                f"  peak memory {engine.peak_megabytes():5.0f} MB"
            )
    ratios = sorted(a / b for a, b in pairs)
    print(
        f"  minigan / torch, pair by pair: median {statistics.median(ratios):.3f}, "
        f"from {ratios[0]:.3f} to {ratios[-1]:.3f}"
    )


def profile(step: Callable[[], object], rounds: int) -> None:
    """Time every op's forward and fused backward, and say what share each kind has.

    One after another: gradients of weights, which helpers make beside other ops, do not wait here,
    and calls that would go side by side do not.
    """
    import minigan as mg
    from minigan import gemm, optim, workers
    from minigan.autograd import Op

    spent: Counter[str] = Counter()
    products: list[float] = []  # seconds of each product in a convolution, on whichever thread
    running = ""  # the op that is timed; those that it calls are a part of it
    plain_call, plain_step = Op.__call__, optim.Optimizer.step

    def call(op: Op, *inputs):
        nonlocal running
        if running:
            return plain_call(op, *inputs)
        running, started = op.name(), time.perf_counter()
        try:
            return plain_call(op, *inputs)
        finally:
            spent[running] += time.perf_counter() - started
            running = ""

    def timed_backward(function):
        def backward(op, gy):
            started = time.perf_counter()
            try:
                return function(op, gy)
            finally:
                spent[op.name()] += time.perf_counter() - started

        return backward

    def timed_product(function):
        def multiply(*args):
            started = time.perf_counter()
            function(*args)
            if running in CONVOLUTIONS:
                products.append(time.perf_counter() - started)

        return multiply

    def optimise(optimizer):
        started = time.perf_counter()
        plain_step(optimizer)
        spent["optimiser"] += time.perf_counter() - started

    def in_turns(*calls):
        return [function(*inputs) for function, *inputs in calls]

    for _ in range(3):
        step()
    plain = statistics.median(timed(step) for _ in range(rounds))
    changed = [
        (Op, "__call__", call),
        (optim.Optimizer, "step", optimise),
        (workers.Postponed, "accepts", lambda later, work: False),
        (mg, "side_by_side", in_turns),
        (gemm, "add_products", timed_product(gemm.add_products)),
        (workers, "_matmul", timed_product(workers._matmul)),
    ]
    for op in all_ops(Op):
        if "fused_backward" in vars(op):
            changed.append((op, "fused_backward", timed_backward(op.fused_backward)))
    with ExitStack() as until_done:
        for owner, name, instead in changed:
            until_done.enter_context(mock.patch.object(owner, name, instead))
        total = sum(timed(step) for _ in range(rounds)) / 1e3
    print(f"a step takes {plain:.1f} ms (median of {rounds}); shares, with one op at a time:")
    of_convolutions = sum(products) / workers.get_num_threads()  # as if all threads multiplied
    kinds: Counter[str] = Counter()
    for name, seconds in spent.items():
        kind = next((kind for kind, names in KINDS.items() if name in names), "element-wise")
        kinds["optimiser" if name == "optimiser" else kind] += seconds
    kinds["graph and the rest"] = total - sum(spent.values())
    kinds["matrix products"] += of_convolutions
    kinds["columns and waiting in convolutions"] -= of_convolutions
    for kind, seconds in kinds.most_common():
        print(f"  {seconds / total:6.1%}  {kind}")
    print("  of which:", ", ".join(f"{n} {s / total:.1%}" for n, s in spent.most_common(9)))


def all_ops(op_class: type) -> list[type]:
    return [op_class, *(found for sub in op_class.__subclasses__() for found in all_ops(sub))]


def positive(text: str) -> int:
    """A whole number of at least one, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be a whole number >= 1")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=DEFAULTS, default="pix2pix")
    words = "cuda: time it on a GPU, kernel by kernel; needs CuPy"
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help=words)
    parser.add_argument("--against", choices=["torch"], help="time PyTorch too, turn by turn")
    parser.add_argument("--scale", action="store_true", help="vary batch, image and width")
    parser.add_argument("--plot", type=Path, default=Path("scale.png"), help="where --scale draws")
    parser.add_argument("--rounds", type=positive, default=20, help="steps to time (default: 20)")
    threads = get_num_threads()
    parser.add_argument("--threads", type=positive, default=threads, help=f"default: {threads}")
    for name in ("batch", "image", "width"):
        parser.add_argument(f"--{name}", type=positive, help=f"another {name} than the workload's")
    args = parser.parse_args()
    if args.scale and (args.against or args.batch or args.image or args.width):
        parser.error("--scale times minigan alone, over sizes of its own")
    if args.scale and importlib.util.find_spec("matplotlib") is None:
        parser.error("--scale draws with matplotlib: pip install matplotlib")
    if args.scale and not args.plot.parent.is_dir():
        parser.error(f"--plot {args.plot}: there is no folder {args.plot.parent}")
    if args.against and importlib.util.find_spec(args.against) is None:
        parser.error("--against torch needs PyTorch: pip install -e '.[bench]'")
    default = DEFAULTS[args.workload]
    sizes = Sizes(*(getattr(args, n) or getattr(default, n) for n in ("batch", "image", "width")))
    multiple = MULTIPLE[args.workload]
    if sizes.image % multiple:
        message = f"{args.workload} halves its images: --image must be a multiple of {multiple}"
        parser.error(f"{message}, got {sizes.image}")
    if args.device == "cuda":
        from gpu import report

        try:
            report(args.workload, sizes, args.rounds)
        except DeviceError as error:
            parser.exit(1, f"error: {error}\n")
        return
    print(f"NumPy's BLAS: {info.blas()}")
    for name, value in info.settings():
        print(f"  as the environment says: {name}={value}")
    if args.scale:
        from scale import scale

        scale(args.workload, args.rounds, args.threads, args.plot)
    elif args.against:
        compare(args.workload, sizes, args.rounds, args.threads)
    else:
        print(f"{args.workload} {sizes}, {args.threads} threads")
        set_num_threads(args.threads)
        profile(minigan_step(args.workload, sizes), args.rounds)


if __name__ == "__main__":
    main()
