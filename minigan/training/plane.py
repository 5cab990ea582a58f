"""A picture of a GAN in the plane: the data, what is generated, and what the critic thinks."""

import os
from collections.abc import Callable

import numpy as np

from minigan.tensor import Tensor, no_grad

from .extras import import_extra
from .files import copy_file, replace_file
from .pictures import COLOURS, save_curves
from .run import Run
from .samples import save_film

CELLS = 80  # of the background, along each side


def show_plane(
    run: Run,
    step: int,
    real: np.ndarray,
    fake: np.ndarray,
    critic: Callable[[Tensor], Tensor],
    title: str = "",
) -> None:
    """Write samples.png, curves.png, and a frame of training.gif; at the run's end the film too.

    `critic` gives scores `(K, 1)` of points `(K, 2)`; all else is as for `save_plane`.
    """

    def scores(places: np.ndarray) -> np.ndarray:
        with no_grad():
            return critic(Tensor(places)).numpy()[:, 0]

    frames = run.path("frames")
    frames.mkdir(exist_ok=True)
    frame = frames / f"{step:08d}.png"
    save_plane(frame, real, fake, scores, title)
    copy_file(frame, run.path("samples.png"))
    save_curves(run.path("curves.png"), run.history())
    if step == run.total_steps or run.interrupted:
        save_film(run.path("training.gif"), frames, step)


def save_plane(
    path: str | os.PathLike,
    real: np.ndarray,
    fake: np.ndarray,
    critic: Callable[[np.ndarray], np.ndarray],
    title: str = "",
) -> None:
    """Write a PNG of points in the plane before the critic's scores of every place.

    Real points are grey, generated ones blue. The background is warm where the critic's score is
    above its mean over the picture, and cold where it is below; the scale is each picture's own.

    Args:
        real, fake: `(N, 2)` and `(M, 2)`. The picture reaches a quarter further than the real ones;
            generated points beyond are not seen.
        critic: from float32 `(K, 2)` to scores `(K,)`.
    """
    Figure = import_extra("matplotlib.figure").Figure
    reach = 1.25 * float(np.abs(real).max())
    line = (np.arange(CELLS) + 0.5) * (2 * reach / CELLS) - reach
    places = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2).astype(np.float32)
    field = critic(places).reshape(CELLS, CELLS)
    field = field - field.mean()
    bound = max(float(np.percentile(np.abs(field), 98)), 1e-9)

    figure = Figure(figsize=(4.4, 4.6), dpi=100, layout="constrained")
    panel = figure.subplots()
    around = (-reach, reach, -reach, reach)
    panel.imshow(
        field, cmap="RdBu_r", vmin=-1.6 * bound, vmax=1.6 * bound, extent=around, origin="lower"
    )
    panel.contour(line, line, field, 12, colors="white", linewidths=0.5, alpha=0.6)
    panel.scatter(*real.T, s=3, color="#555555", alpha=0.25, linewidths=0)
    panel.scatter(*fake.T, s=5, color=COLOURS[0], alpha=0.6, linewidths=0)
    panel.set(xlim=around[:2], ylim=around[2:], xticks=[], yticks=[])
    panel.set_title(title, loc="left", fontsize=11)
    replace_file(path, lambda file: figure.savefig(file, format="png"))
