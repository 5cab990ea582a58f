"""Pictures of a run: sheets of images beside each other, and curves of what was logged."""

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from .extras import import_extra
from .files import replace_file

PAPER, INK = (236, 236, 236), (70, 70, 70)  # grey paper: white images stand out from it
COLOURS = ("#2a6fdb", "#d1495b", "#2e8b57", "#8e5ea2", "#e08e0b", "#5b6770")


def save_grid(
    path: str | os.PathLike,
    columns: Sequence[np.ndarray],
    titles: Sequence[str] = (),
    scale: int | None = None,
    across: int | None = None,
) -> None:
    """Write a PNG sheet on which images i of all `columns` stand side by side, for every i.

    Each column is (N, H, W, 3) or (N, H, W, 1), of one N, H, W: uint8, or floats in [-1, 1]
    (clipped). `titles` names the columns; `scale` enlarges pixels (default: to about 128 a side).
    `across` is how many i there are in a row (default: so many that the sheet is about 4:3).
    Raises ValueError for other shapes or dtypes, and for floats that are not finite.
    """
    Image, ImageDraw = import_extra("PIL.Image"), import_extra("PIL.ImageDraw")
    groups = np.stack([to_rgb(column) for column in columns], axis=1)  # (N, K, H, W, 3)
    n, k, height, width, _ = groups.shape
    scale = scale or max(1, round(128 / max(height, width)))
    height, width = height * scale, width * scale
    thin = max(2, width // 40)
    wide = 5 * thin if k > 1 else thin
    step_x, step_y = k * (width + thin) - thin + wide, height + (2 * thin if k > 1 else thin)
    across = across or _groups_across(n, step_x, step_y)
    down = math.ceil(n / across)
    font = _title_font(titles, width) if titles else None
    top = int(font.size * 1.6) if font else wide
    sheet = Image.new("RGB", (across * step_x + wide, top + down * step_y + wide // 2), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, group in enumerate(groups):
        for j, pixels in enumerate(group):
            x = wide + i % across * step_x + j * (width + thin)
            y = top + i // across * step_y
            big = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(big, (x, y))
            if font and i < across:
                draw.text((x + width // 2, y - font.size // 2), titles[j], INK, font, anchor="ms")
    replace_file(path, lambda file: sheet.save(file, "PNG"))


def save_curves(
    path: str | os.PathLike,
    history: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    titles: Mapping[str, str] | None = None,
    together: Sequence[Sequence[str]] = (),
) -> None:
    """Write a PNG with one panel for every name in `history` (from `Run.history`).

    The raw values are faint, their moving average is a strong line. `titles` maps names to what
    should stand above their panels, units included. `together` lists names that share a panel.
    Raises ValueError if `history` is empty.
    """
    if not history:
        raise ValueError("save_curves: nothing was logged")
    Figure = import_extra("matplotlib.figure").Figure
    groups = _grouped(list(history), together)
    figure = Figure(figsize=(8, 0.6 + 1.9 * len(groups)), dpi=120, layout="constrained")
    panels = figure.subplots(len(groups), sharex=True, squeeze=False)[:, 0]
    colours = itertools.cycle(COLOURS)
    for panel, names in zip(panels, groups, strict=True):
        _draw_curves(panel, {name: history[name] for name in names}, titles or {}, colours)
    panels[-1].set_xlabel("training step")
    replace_file(path, lambda file: figure.savefig(file, format="png"))


def _grouped(names: list[str], together: Sequence[Sequence[str]]) -> list[list[str]]:
    """The names, each group of `together` where the first of it stands."""
    groups: list[list[str]] = []
    for name in names:
        group = next((list(g) for g in together if name in g), [name])
        there = [n for n in group if n in names]
        if there not in groups:
            groups.append(there)
    return groups


def _draw_curves(
    panel: "Axes",  # noqa: F821
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    titles: Mapping[str, str],
    colours: Iterator[str],
) -> None:
    limits = []
    for name, (steps, values) in curves.items():
        colour, smooth = next(colours), _moving_average(values)
        said = f"{titles.get(name, name)}  {smooth[-1]:.3g}"
        mark = "." if len(steps) == 1 else ""
        panel.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
        panel.plot(steps, smooth, color=colour, linewidth=1.8, marker=mark, label=said)
        limits.append(_limits(values, smooth))
    if len(curves) == 1:
        panel.set_title(titles.get(name, name), loc="left", fontsize=11)
        panel.set_title(f"{smooth[-1]:.3g}", loc="right", fontsize=11, color=colour)
    else:
        panel.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(curves), frameon=False)
    lows, highs = zip(*limits, strict=True)
    panel.set_ylim(min(lows), max(highs))
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def to_rgb(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) of uint8 or [-1, 1] images with 3 channels or 1; ValueError for others."""
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"images must be (N, H, W, 3) or (N, H, W, 1), not {images.shape}")
    if images.dtype != np.uint8:
        if images.dtype.kind != "f" or not np.isfinite(images).all():
            raise ValueError(f"images must be uint8 or finite floats, these are {images.dtype}")
        images = np.round((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)
    return np.broadcast_to(images, (*images.shape[:3], 3))


def _groups_across(n: int, width: int, height: int) -> int:
    """How many groups side by side make a sheet of about 4:3 with few places left empty."""

    def badness(across: int) -> float:
        down = math.ceil(n / across)
        return abs(math.log(across * width / (down * height) * 3 / 4)) + (across * down - n) / n

    return min(range(1, n + 1), key=badness)


def _title_font(titles: Sequence[str], width: int) -> "ImageFont.FreeTypeFont":  # noqa: F821
    """The largest font in which every title fits over a column `width` pixels wide."""
    font = import_extra("PIL.ImageFont").load_default
    return next(
        (f for f in map(font, range(22, 9, -1)) if max(map(f.getlength, titles)) <= width), font(9)
    )


def _moving_average(values: Sequence[float]) -> np.ndarray:
    """The mean under a centred bell (Hann) over a tenth of the values, cut off at both ends."""
    window = np.hanning(2 * (len(values) // 20) + 3)[1:-1]
    count = np.convolve(np.ones(len(values)), window, "same")
    return np.convolve(values, window, "same") / count


def _limits(values: Sequence[float], smooth: np.ndarray) -> tuple[float, float]:
    """Axis limits that leave out the rare spikes which would flatten the rest."""
    low, high = np.percentile(values, [1, 99])
    low, high = min(low, smooth.min()), max(high, smooth.max())
    margin = 0.08 * (high - low) or 0.1
    return low - margin, high + margin


def save_confusion(path: str | os.PathLike, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Write a PNG of a confusion matrix: a row for each true class, a column for each guess.

    `counts` is (C, C), integers; the colour is the share of the row. Raises ValueError for counts
    of another shape than `classes` asks for, or below 0.
    """
    counts = np.asarray(counts)
    if counts.shape != (len(classes),) * 2 or counts.dtype.kind not in "iu" or counts.min() < 0:
        raise ValueError(
            f"save_confusion: counts must be {(len(classes),) * 2}, integers from 0, one row and "
            f"column a class; these are {counts.dtype} {counts.shape}"
        )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    Figure = import_extra("matplotlib.figure").Figure
    side = 2.2 + 0.55 * len(classes)
    figure = Figure(figsize=(side, side), dpi=120, layout="constrained")
    panel = figure.subplots()
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            ink = "white" if shares[row, column] > 0.5 else "black"
            panel.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=8)
    places = range(len(classes))
    panel.set_xticks(places, classes, rotation=45, ha="right")
    panel.set_yticks(places, classes)
    panel.set_xlabel("what the network says")
    panel.set_ylabel("what it is")
    replace_file(path, lambda file: figure.savefig(file, format="png"))
