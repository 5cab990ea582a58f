"""What a run shows while it trains: the newest samples, the curves, and a film of the samples."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .extras import import_extra
from .files import replace_file
from .pictures import save_curves, save_grid
from .run import Run

# The two players of a GAN, and how real the discriminator finds real and generated images
TOGETHER = (("d", "g"), ("d_x", "d_gz"))
TITLES = {"d": "loss of D", "g": "loss of G", "d_x": "D(x)", "d_gz": "D(G(z))"}
MOST_FRAMES = 100  # of a film; of more, every second one and so on


def save_samples(
    run: Run,
    step: int,
    columns: Sequence[np.ndarray],
    titles: Sequence[str] = (),
    across: int | None = None,
) -> None:
    """Write samples.png, as `save_grid`, and curves.png; with --gif a frame of training.gif too.

    Make the samples from the same noise or the same inputs each time, so that they can be compared.
    """
    save_grid(run.path("samples.png"), columns, titles, across=across)
    if run.history():
        save_curves(run.path("curves.png"), run.history(), TITLES, TOGETHER)
    if run.config.get("gif"):
        frames = run.path("frames")
        frames.mkdir(exist_ok=True)
        save_grid(frames / f"{step:08d}.png", columns, titles, across=across)
        if step == run.total_steps or run.interrupted:
            save_film(run.path("training.gif"), frames, step)


def save_film(path: Path, frames: Path, last: int) -> None:
    """Write an animated GIF of the pictures `frames`/00000050.png and so on, up to step `last`.

    A quarter of a second each, the last one for three; ValueError if there are none.
    """
    Image = import_extra("PIL.Image")
    files = [file for file in sorted(frames.glob("*.png")) if int(file.stem) <= last]
    if not files:
        raise ValueError(f"save_film: no picture in {frames}")
    files = files[:: -1 * (-(-len(files) // MOST_FRAMES))][::-1]  # from the end: the last one stays
    pictures = []
    for file in files:
        with Image.open(file) as picture:
            pictures.append(picture.convert("P", palette=Image.Palette.ADAPTIVE))
    times = [250] * (len(pictures) - 1) + [3000]
    first, *rest = pictures
    replace_file(
        path,
        lambda file: first.save(
            file, "GIF", save_all=True, append_images=rest, duration=times, loop=0
        ),
    )
