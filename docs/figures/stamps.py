"""Draw transposed convolution as stamps that are added, and how evenly they cover.

    python docs/figures/stamps.py [folder]

Every panel is the output of `F.conv_transpose2d`: of one pixel alone, or of all of them.
"""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

import minigan as mg
from minigan import functional as F

INK = "#22223b"
COLOURS = ("#e07a5f", "#3d85c6", "#6aa84f", "#b58bd6")


def spread(pixels, kernel, padding):
    """Return the transposed convolution of pixels (H, W) with a kernel of ones, stride 2."""
    x = mg.tensor(pixels.reshape(1, *pixels.shape, 1))
    w = mg.tensor(np.ones((kernel, kernel, 1, 1)))
    return F.conv_transpose2d(x, w, stride=2, padding=padding).numpy()[0, :, :, 0]


def main(folder):
    figure, (one, three, four) = plt.subplots(1, 3, figsize=(10.5, 4.1), dpi=110)

    total = spread(np.ones((2, 2)), 3, 0)
    show(one, total, "2×2 pixels, kernel 3, stride 2:\nfour stamps, added")
    for i, colour in enumerate(COLOURS):
        alone = np.zeros(4)
        alone[i] = 1
        rows, across = np.nonzero(spread(alone.reshape(2, 2), 3, 0))
        inset = 0.06 + 0.07 * i
        corner = across.min() - 0.5 + inset, rows.min() - 0.5 + inset
        width, height = np.ptp(across) + 1 - 2 * inset, np.ptp(rows) + 1 - 2 * inset
        one.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=2.2))
    show(
        three,
        spread(np.ones((5, 5)), 3, 1),
        "5×5 pixels, kernel 3, stride 2:\nuneven, a chequered pattern",
    )
    show(
        four,
        spread(np.ones((5, 5)), 4, 1),
        "5×5 pixels, kernel 4, stride 2:\neven, away from the edge",
    )
    figure.text(
        0.5,
        0.07,
        "All inputs and weights are 1, so each number says how many stamps cover that pixel.",
        ha="center",
        fontsize=9.5,
        color="#555",
    )
    figure.savefig(Path(folder) / "stamps.png", bbox_inches="tight", metadata={"Software": None})


def show(axes, counts, title):
    axes.imshow(counts, cmap="Purples", vmin=0, vmax=7)
    for (i, j), count in np.ndenumerate(counts):
        axes.text(j, i, f"{count:g}", ha="center", va="center", fontsize=9, color=INK)
    axes.set_title(title, fontsize=10, color=INK)
    axes.set_xticks([])
    axes.set_yticks([])


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
