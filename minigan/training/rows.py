"""A picture of several kinds of images: a row for each kind, its name at the left."""

import os
from collections.abc import Mapping

import numpy as np

from .extras import import_extra
from .files import replace_file
from .pictures import INK, PAPER, to_rgb


def save_rows(
    path: str | os.PathLike, rows: Mapping[str, np.ndarray], scale: int | None = None
) -> None:
    """Write a PNG with a row of images for each entry, its name at the left.

    Each is (N, H, W, C) as `save_grid` takes them; a name may have several lines.
    """
    Image, ImageDraw = import_extra("PIL.Image"), import_extra("PIL.ImageDraw")
    font = import_extra("PIL.ImageFont").load_default(16)
    pictures = {name: to_rgb(images) for name, images in rows.items()}
    height, width = next(iter(pictures.values())).shape[1:3]
    scale = scale or max(1, round(64 / max(height, width)))
    gap, high, wide = 4, height * scale, width * scale
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left = int(max(ruler.multiline_textbbox((0, 0), name, font)[2] for name in rows)) + 6 * gap
    across = left + max(map(len, pictures.values())) * (wide + gap) + 2 * gap
    sheet = Image.new("RGB", (across, len(rows) * (high + gap) + 3 * gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, (name, images) in enumerate(pictures.items()):
        top = 2 * gap + row * (high + gap)
        draw.multiline_text((3 * gap, top + high // 2), name, INK, font, anchor="lm")
        for i, pixels in enumerate(images):
            big = Image.fromarray(pixels).resize((wide, high), Image.Resampling.NEAREST)
            sheet.paste(big, (left + i * (wide + gap), top))
    replace_file(path, lambda file: sheet.save(file, "PNG"))
