"""Draw the live graph of y = tanh(a·b + a), with the gradients that travel back through it.

    python docs/figures/graph.py [folder]

The nodes are found by following `parents` from the result, and the numbers on the edges are what
`mg.grad` says. Nothing about this expression is written down here twice.
"""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

import minigan as mg
from minigan.autograd import OUT

STEP = 1.6  # from column to column
INK, LEAF, NODE, HELD, BACK = "#22223b", "#d8f0e3", "#e4e6fb", "#fdf0d5", "#b23a48"


def main(folder):
    a = mg.tensor(0.5, requires_grad=True)
    b = mg.tensor(2.0, requires_grad=True)
    m = a * b
    s = m + a
    y = s.tanh()
    names = {id(a): "a", id(b): "b"}
    slopes = mg.grad(y, [y, s, m, a, b], retain_graph=True)
    arriving = {id(t._op or t): g.item() for t, g in zip((y, s, m, a, b), slopes, strict=True)}

    nodes = discover(y._op)
    places = layout(nodes)
    first = min(node.order for node in nodes if isinstance(node, mg.Op))

    figure, axes = plt.subplots(figsize=(10.5, 3.7), dpi=110)
    for node in nodes:
        x, level = places[id(node)]
        if isinstance(node, mg.Op):
            title = f"{node.name()}   #{node.order - first + 1}"
            note = kept(node, names)
            box(axes, x, level, NODE, title, note)
            for i, parent in enumerate(node.parents):
                edge(axes, places[id(node)], places[id(parent)], f"input {i}")
        else:
            box(axes, x, level, LEAF, f"leaf {names[id(node)]} = {node.item():g}", "")
        axes.text(
            x,
            level - 0.235,
            f"dy / d({label(node, names)}) = {arriving[id(node)]:.3f}",
            ha="center",
            va="top",
            fontsize=9,
            color=BACK,
        )
    end = places[id(y._op)]
    held = (end[0] + STEP, end[1])
    box(axes, *held, HELD, f"y = {y.item():.3f}", "a tensor you hold")
    edge(axes, held, end, "y._op")

    axes.set_xlim(-0.5, held[0] + 0.5)
    axes.set_ylim(-0.5, 1.42)
    axes.axis("off")
    axes.set_title(
        "y = tanh(a·b + a): every reference points back in time",
        fontsize=12,
        color=INK,
        loc="left",
    )
    axes.text(
        -0.5,
        -0.48,
        "black arrows: references from node to node     # order of creation; backward runs "
        "#3, #2, #1     red: what arrives there",
        fontsize=8.5,
        color="#555",
    )
    figure.savefig(Path(folder) / "graph.png", bbox_inches="tight", metadata={"Software": None})


def discover(root):
    """Return the ops and leaves that `root` was computed from, itself included."""
    found, stack = {}, [root]
    while stack:
        node = stack.pop()
        if id(node) not in found:
            found[id(node)] = node
            stack.extend(getattr(node, "parents", ()))
    return list(found.values())


def layout(nodes):
    """Return (column, height) of each node: right of its parents, midway between them."""
    leaves = [node for node in nodes if not isinstance(node, mg.Op)]
    places = {id(leaf): (0.0, 1.0 - i) for i, leaf in enumerate(leaves)}
    for node in sorted((n for n in nodes if isinstance(n, mg.Op)), key=lambda op: op.order):
        above = [places[id(parent)] for parent in node.parents]
        places[id(node)] = max(x for x, _ in above) + STEP, sum(h for _, h in above) / len(above)
    return places


def label(node, names):
    if not isinstance(node, mg.Op):
        return names[id(node)]
    inside = [label(parent, names) for parent in node.parents]
    if len(inside) == 1:
        return "y"
    return {"add": " + ", "mul": "·"}[node.name()].join(inside)


def kept(node, names):
    positions = [i for i, *_ in node._saved]
    if not positions:
        return "keeps nothing"
    if positions == [OUT]:
        return "keeps its output"
    return f"keeps inputs {', '.join(map(str, positions))}"


def box(axes, x, y, colour, title, note):
    axes.add_patch(
        FancyBboxPatch(
            (x - 0.4, y - 0.16),
            0.8,
            0.32,
            boxstyle="round,pad=0.02,rounding_size=0.06",
            facecolor=colour,
            edgecolor=INK,
            linewidth=1.2,
            zorder=3,
        )
    )
    shift = 0.055 if note else 0
    axes.text(x, y + shift, title, ha="center", va="center", fontsize=10.5, color=INK, zorder=4)
    axes.text(x, y - 0.075, note, ha="center", va="center", fontsize=7.5, color="#555", zorder=4)


def edge(axes, start, end, text):
    (x0, y0), (x1, y1) = start, end
    long = x0 - x1 > 1.5 * STEP  # goes over the heads of others
    axes.annotate(
        "",
        xy=(x1 + 0.43, y1 + 0.03 * long),
        xytext=(x0 - 0.43, y0 + 0.1 * long),
        arrowprops={
            "arrowstyle": "-|>",
            "color": INK,
            "linewidth": 1.3,
            "connectionstyle": f"arc3,rad={0.12 * long}",
        },
        zorder=2,
    )
    axes.text(
        (x0 + x1) / 2,
        (y0 + y1) / 2 + 0.23 * long,
        text,
        ha="center",
        va="center",
        fontsize=8,
        color="#555",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        zorder=2.5,
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
