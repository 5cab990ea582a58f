"""Draw how far differences are from the derivative, for steps of all sizes.

    python docs/figures/differences.py [folder]

The function is a layer of tanh, run by the engine in float64 and in float32; the derivative that
the differences are compared with is backward's.
"""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import minigan as mg
from minigan import functional as F
from minigan.gradcheck import STEP

RULES = {  # what is added up, as {multiple of h: factor}, and then divided by h
    "one-sided": {1: 1, 0: -1},
    "two points": {1: 1 / 2, -1: -1 / 2},
    "four points": {1: 8 / 12, -1: -8 / 12, 2: -1 / 12, -2: 1 / 12},
}
COLOURS = {"one-sided": "#9a8c98", "two points": "#4a7fb5", "four points": "#b23a48"}


def main(folder):
    rng = np.random.default_rng(0)
    x, w, v = (rng.normal(size=shape) for shape in ((8, 6), (6, 4), (8, 4)))
    u = rng.choice([-1.0, 1.0], size=x.shape)

    def phi(t, dtype):
        arrays = (mg.tensor(a, dtype=dtype) for a in (x + t * u, w))
        return (F.tanh(F.matmul(*arrays)) * mg.tensor(v, dtype=dtype)).sum().item()

    leaf = mg.tensor(x, dtype=np.float64, requires_grad=True)
    y = F.tanh(leaf @ mg.tensor(w, dtype=np.float64))
    (gradient,) = mg.grad(y, leaf, v)
    slope = float((gradient.numpy() * u).sum())

    steps = np.logspace(-11, 0, 89)
    figure, axes = plt.subplots(figsize=(9, 4.6), dpi=95)
    for name, rule in RULES.items():
        for dtype, style in ((np.float64, "-"), (np.float32, ":")):
            if dtype == np.float32 and name != "two points":
                continue
            differences = [
                sum(factor * phi(k * h, dtype) for k, factor in rule.items()) / h for h in steps
            ]
            errors = np.abs(np.array(differences) - slope) / abs(slope)
            label = name if dtype == np.float64 else f"{name}, in float32"
            axes.loglog(steps, np.maximum(errors, 1e-16), style, color=COLOURS[name], label=label)
    axes.axvline(STEP, color="#22223b", linewidth=1)
    axes.text(STEP * 1.15, 3, f"h = {STEP:g}, gradcheck's", fontsize=9)
    axes.axhline(1e-8, color="#22223b", linewidth=1, linestyle="--")
    axes.text(1.5, 1.5e-8, "what gradcheck\nallows: 1e-8", fontsize=9)
    axes.set_ylim(1e-15, 20)
    axes.set_xlabel("h")
    axes.set_ylabel("error, relative to the derivative")
    axes.set_title(
        "To the left rounding takes over, to the right the bend of the curve",
        loc="left",
        fontsize=11,
    )
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(
        Path(folder) / "differences.png", bbox_inches="tight", metadata={"Software": None}
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
