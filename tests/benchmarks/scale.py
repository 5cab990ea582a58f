"""How a step's time grows with the batch, the image and the width: a table, a plot, exponents."""

import itertools
import statistics
from pathlib import Path

import numpy as np
from pairs import Engine
from workloads import MULTIPLE, Sizes

BATCHES, IMAGES, WIDTHS = (8, 16, 32, 64, 128, 256), (16, 32, 64, 128), (16, 32, 64, 128)
MIDDLE = Sizes(batch=32, image=32, width=32)


def lines(workload: str) -> dict[str, list[Sizes]]:
    """For each size that is varied, those along its line that the workload's networks can take."""
    b, i, w = MIDDLE.batch, MIDDLE.image, MIDDLE.width
    images = [image for image in IMAGES if image % MULTIPLE[workload] == 0]
    return {
        "batch": [Sizes(batch, i, w) for batch in BATCHES],
        "image": [Sizes(b, image, w) for image in images],
        "width": [Sizes(b, i, width) for width in WIDTHS],
    }


def measure(workload: str, rounds: int, threads: int) -> dict[str, tuple[list[int], list[float]]]:
    """Return, for each size that is varied, its values and the milliseconds of a step."""
    found = {}
    for name, sizes in lines(workload).items():
        times = []
        for size in sizes:
            with Engine("minigan", workload, size, threads) as engine:
                warm, timed = itertools.repeat(None, 2), itertools.repeat(None, rounds)
                for _ in warm:
                    engine.step()
                times.append(statistics.median(engine.step().milliseconds for _ in timed))
            print(
                f"  batch {size.batch:3d}  image {size.image:3d}  width {size.width:3d}"
                f"  {times[-1]:9.1f} ms",
                flush=True,
            )
        values = [getattr(size, name) for size in sizes]
        if name == "image":  # twice as high is four times the pixels
            name, values = "pixels", [value**2 for value in values]
        found[name] = values, times
    return found


def exponent(values: list[int], times: list[float]) -> float:
    """Return the slope of log time over log value, by least squares."""
    return float(np.polyfit(np.log(values), np.log(times), 1)[0])


def scale(workload: str, rounds: int, threads: int, picture: Path) -> None:
    """Print the table and the exponents, and draw the plot."""
    from matplotlib.figure import Figure

    print(f"{workload}, {threads} threads, median of {rounds} steps")
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    for name, (values, times) in measure(workload, rounds, threads).items():
        slope, last = exponent(values, times), exponent(values[-2:], times[-2:])
        print(f"  time ~ {name} ** {slope:.2f} (over the last doubling {last:.2f})")
        axes.loglog(
            np.array(values) / values[0],
            times,
            "o-",
            label=f"{name} {values[0]} ... {values[-1]}: {slope:.2f}",
        )
    axes.set(
        xlabel="times the smallest",
        ylabel="ms a step",
        title=f"{workload}: time of a step, fitted exponents",
    )
    axes.legend()
    figure.savefig(picture, dpi=120, bbox_inches="tight")
    print(f"  drawn in {picture}")
