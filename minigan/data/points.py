"""Points in the plane around known centres: toys on which a GAN's lost modes can be seen.

The ring of 8 and the grid of 25 Gaussians, as in PacGAN (Lin et al. 2018, arXiv 1712.04086,
section 4.1): a point counts for the nearest centre if it is within three standard deviations.
"""

import operator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Points:
    """Points drawn from Gaussians of equal weight.

    Attributes:
        points: float32 `(N, 2)`.
        labels: int64 `(N,)`, the centre that each was drawn around.
        centres: float32 `(modes, 2)`.
        std: the standard deviation of each Gaussian, along each axis.
    """

    points: np.ndarray
    labels: np.ndarray
    centres: np.ndarray
    std: float

    def __len__(self) -> int:
        return len(self.labels)

    def nearest(self, points: np.ndarray, within: float = 3.0) -> np.ndarray:
        """The nearest centre of each of `points` `(M, 2)`: int64 `(M,)`.

        -1 for a point that is further than `within` standard deviations from all of them.

        Raises:
            ValueError: if the points are not `(M, 2)`, or not finite.
        """
        points = np.asarray(points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
            raise ValueError(f"nearest: points must be finite and (M, 2), these are {points.shape}")
        distances = np.linalg.norm(points[:, None] - self.centres, axis=2)
        closest = distances.argmin(axis=1)
        return np.where(distances.min(axis=1) <= within * self.std, closest, -1)


def ring(
    count: int, modes: int = 8, radius: float = 1.0, std: float = 0.01, seed: int = 0
) -> Points:
    """`count` points around `modes` centres on a circle, each centre equally likely.

    Raises:
        ValueError: fewer than one point or mode, or a radius or std that is not positive.
    """
    angles = 2 * np.pi * np.arange(_positive("ring", "modes", modes)) / modes
    if not radius > 0:
        raise ValueError(f"ring: radius is {radius} but must be above 0")
    centres = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return _drawn("ring", count, centres, std, seed)


def grid(
    count: int, side: int = 5, spacing: float = 2.0, std: float = 0.05, seed: int = 0
) -> Points:
    """`count` points around the centres of a square grid, 25 of them from (-4, -4) to (4, 4).

    Raises:
        ValueError: fewer than one point or row, or a spacing or std that is not positive.
    """
    line = (np.arange(_positive("grid", "side", side)) - (side - 1) / 2) * spacing
    if not spacing > 0:
        raise ValueError(f"grid: spacing is {spacing} but must be above 0")
    centres = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    return _drawn("grid", count, centres, std, seed)


def _drawn(who: str, count: int, centres: np.ndarray, std: float, seed: int) -> Points:
    if not std > 0:
        raise ValueError(f"{who}: std is {std} but must be above 0")
    random = np.random.default_rng(seed)
    labels = random.integers(len(centres), size=_positive(who, "count", count))
    points = centres[labels] + std * random.standard_normal((count, 2))
    return Points(points.astype(np.float32), labels, centres.astype(np.float32), std)


def _positive(who: str, name: str, number: int) -> int:
    if operator.index(number) < 1:
        raise ValueError(f"{who}: {name} is {number} but must be 1 or more")
    return number
