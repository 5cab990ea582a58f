"""Draw a convolution as what it is: windows, laid out as rows, times a matrix.

    python docs/figures/columns.py [folder]

The windows come from the engine's own `windows`, the result from `F.conv2d`, and the picture is
only drawn if the matrix product gives the same numbers.
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
from minigan.ops.windows import Geometry, windows

INK = "#22223b"
COLOURS = ("#e07a5f", "#3d85c6", "#6aa84f", "#b58bd6")


def main(folder):
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 2, 0]], dtype=np.float32).reshape(3, 3, 1, 1)
    view = windows(np, image, Geometry((3, 3)))  # (1, 2, 2, 3, 3, 1)
    columns, weight = view.reshape(4, 9), kernel.reshape(9, 1)
    output = F.conv2d(mg.tensor(image), mg.tensor(kernel)).numpy()  # (1, 2, 2, 1)
    assert np.array_equal((columns @ weight).ravel(), output.ravel())

    figure, axes = plt.subplots(figsize=(11, 4.1), dpi=110)
    grid(axes, 0, 2.5, image[0, :, :, 0])
    for i in range(4):
        row, across = divmod(i, 2)
        inset = 0.07 + 0.07 * i
        axes.add_patch(
            Rectangle(
                (across + inset, 2.5 + row + inset),
                3 - 2 * inset,
                3 - 2 * inset,
                fill=False,
                edgecolor=COLOURS[i],
                linewidth=2.4,
            )
        )
    caption(axes, 2, 1.9, "image (4, 4)\nand its four 3×3 windows")

    left = 6.2
    grid(axes, left, 2.5, columns, rows=COLOURS)
    caption(axes, left + 4.5, 1.9, "columns (4, 9)\none window a row")
    axes.text(left + 9.5, 4.5, "@", ha="center", va="center", fontsize=16, color=INK)
    grid(axes, left + 10, 0, weight)
    caption(axes, left + 10.5, -0.3, "weight (3, 3)\nlaid out as (9, 1)")
    axes.text(left + 11.6, 4.5, "=", ha="center", va="center", fontsize=16, color=INK)
    grid(axes, left + 12.2, 2.5, output.reshape(4, 1), rows=COLOURS)
    caption(axes, left + 12.7, 1.9, "product\n(4, 1)")
    axes.text(left + 14.25, 4.5, "=", ha="center", va="center", fontsize=16, color=INK)
    each = np.array(COLOURS).reshape(2, 2)
    grid(axes, left + 15.3, 3.5, output[0, :, :, 0], cells=each)
    caption(axes, left + 16.3, 1.9, "the same numbers\nas an image (2, 2)")
    axes.annotate(
        "",
        xy=(left - 0.2, 4.5),
        xytext=(4.2, 4.5),
        arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.4},
    )
    axes.text(5.2, 4.2, "copy", ha="center", va="bottom", fontsize=9, color=INK)
    axes.set_xlim(-0.3, left + 18.6)
    axes.set_ylim(9.2, -1.6)
    axes.set_aspect("equal")
    axes.axis("off")
    figure.savefig(Path(folder) / "columns.png", bbox_inches="tight", metadata={"Software": None})


def grid(axes, x, y, values, rows=None, cells=None):
    """Draw a matrix of numbers with its corner at (x, y), rows or cells in colour."""
    for (i, j), value in np.ndenumerate(values):
        colour = cells[i, j] if cells is not None else rows[i] if rows else "white"
        shade = (*mpl.colors.to_rgb(colour), 0.28) if colour != "white" else colour
        axes.add_patch(
            Rectangle((x + j, y + i), 1, 1, facecolor=shade, edgecolor="#9a9ab0", linewidth=0.7)
        )
        axes.text(
            x + j + 0.5,
            y + i + 0.5,
            f"{value:g}".replace("-", "−"),
            ha="center",
            va="center",
            fontsize=9,
            color=INK,
        )


def caption(axes, x, y, text):
    axes.text(x, y, text, ha="center", va="bottom", fontsize=9.5, color=INK)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
