"""Are the samples good, and are all kinds there? Four answers from nearest neighbours.

Around each sample lies a ball that reaches to its k-th nearest neighbour of the same set, itself
not counted. All four numbers compare distances between features, in float64.

Two sets of 10,000 have 100 million distances, so a block of them is one matrix product,
|a|² − 2ab + |b|². Rounding leaves it a little off: what lies that near to the edge of a ball is
decided by the differences themselves, squared and added up. So equal points are at distance 0, and
a point lies on the edge of the ball that reaches to it, not beyond.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigan.metrics.features import feature_matrix, feature_pair

ROWS = 128  # of a table of distances that are held at a time: with 10,000 columns, 10 MB
PAIRS = 4096  # whose differences are held at a time
SPARE = 4  # neighbours more than k that are looked at for the k-th


class Balls:
    """A set of features and the ball around each, for a set that many others are compared with.

    Args:
        features: `(N, d)`.
        k: 1 or more, below N.

    Raises:
        ValueError: not more than k samples, not `(N, d)`, values not real and finite.

    Attributes:
        points: the features, float64 `(N, d)`.
        radii2: the squared distance of each to its k-th nearest neighbour, `(N,)`.
    """

    def __init__(self, features: Any, k: int = 3, which: str = "real", who: str = "Balls") -> None:
        if k < 1:
            raise ValueError(f"{who}: k is {k} but must be 1 or more")
        self.points, self.k = feature_matrix(who, which, features, least=k + 1), k
        self.radii2 = np.concatenate(
            [_kth(table, self.points, rows, k) for rows, table, _ in _tables(self.points)]
        )


def precision_recall(real: Any, fake: Any, k: int = 3) -> dict[str, float]:
    """{"precision", "recall"}: good samples, and all kinds of them; each from 0 to 1.

    Precision is the share of generated samples inside the ball of some real one, recall the share
    of real samples inside the ball of some generated one.

    Args:
        real, fake: features `(N, d)` and `(M, d)`; either may be `Balls`, if they have the same k.
        k: 1 or more, below N and M.

    Raises:
        ValueError: not more than k samples; shapes that do not fit; values not real and finite.

    Source: Kynkäänniemi et al. 2019 (arXiv 1904.06991), equations 1 and 2.
    """
    both = _scores("precision_recall", real, fake, k)
    return {name: both[name] for name in ("precision", "recall")}


def density_coverage(real: Any, fake: Any, k: int = 3) -> dict[str, float]:
    """{"density", "coverage"}: as precision and recall, but single outliers weigh little.

    Density counts in how many real balls each generated sample lies, over k; its expectation is 1
    for equal distributions, and it may be above. Coverage is the share of real samples with a
    generated one in their ball; for equal distributions and N = M its expectation is
    1 − (N−1)⋯(N−k) / (2N−1)⋯(2N−k), about 1 − 2^−k.

    Args, Raises: as `precision_recall`.

    Source: Naeem et al. 2020 (arXiv 2002.09797), equations 3 and 4.
    """
    both = _scores("density_coverage", real, fake, k)
    return {name: both[name] for name in ("density", "coverage")}


def neighbour_scores(real: Any, fake: Any, k: int = 3) -> dict[str, float]:
    """All four of `precision_recall` and `density_coverage`, in little more time than one pair."""
    return _scores("neighbour_scores", real, fake, k)


def _scores(who: str, real: Any, fake: Any, k: int) -> dict[str, float]:
    real, fake = (
        balls if isinstance(balls, Balls) else Balls(balls, k, which, who)
        for which, balls in (("real", real), ("generated", fake))
    )
    feature_pair(who, real.points, fake.points)
    if not real.k == fake.k == k:
        raise ValueError(f"{who}: k is {k}, but the balls were made with {real.k} and {fake.k}")
    around = np.zeros(len(fake.points))  # in how many real balls each generated sample lies
    found, covered = [], []  # of each real sample
    for rows, table, slack in _tables(real.points, fake.points):
        pairs = (table, slack, real.points[rows], fake.points)
        in_real = _inside(*pairs, real.radii2[rows, None])
        around += in_real.sum(axis=0)
        covered.append(in_real.any(axis=1))
        found.append(_inside(*pairs, fake.radii2).any(axis=1))
    return {
        "precision": float((around > 0).mean()),
        "recall": float(np.concatenate(found).mean()),
        "density": float(around.mean() / k),
        "coverage": float(np.concatenate(covered).mean()),
    }


def _tables(
    a: np.ndarray, b: np.ndarray | None = None
) -> Iterator[tuple[slice, np.ndarray, float]]:
    """Squared distances from `ROWS` rows of `a` at a time to every row of `b` (default: of `a`).

    Also which rows these are, and how far off rounding may have left the distances.
    """
    b = a if b is None else b
    centre = b.mean(axis=0)  # the nearer to 0 the numbers, the less rounding
    a, b = a - centre, b - centre
    a2, b2 = (np.square(x).sum(axis=1) for x in (a, b))
    slack = 4 * (a.shape[1] + 8) * np.finfo(float).eps * (a2.max() + b2.max())
    for start in range(0, len(a), ROWS):
        rows = slice(start, start + ROWS)
        table = a[rows] @ b.T
        table *= -2
        table += a2[rows, None]
        table += b2
        yield rows, table, slack


def _kth(table: np.ndarray, points: np.ndarray, rows: slice, k: int) -> np.ndarray:
    """The squared distance of each of the `rows` to its k-th neighbour of the same set."""
    # Each row has the sample itself, at distance 0, so the neighbour stands at index k.
    count = min(k + 1 + SPARE, len(points))
    nearest = np.argpartition(table, count - 1, axis=1)[:, :count]
    i = np.repeat(np.arange(rows.start, rows.start + len(table)), count)
    exact = _exact(points, points, i, nearest.ravel()).reshape(nearest.shape)
    return np.sort(exact, axis=1)[:, k]


def _inside(
    table: np.ndarray, slack: float, a: np.ndarray, b: np.ndarray, radii2: np.ndarray
) -> np.ndarray:
    """`table` <= `radii2`: which pairs are no further apart, their edge included."""
    inside = table <= radii2 - slack
    i, j = np.nonzero(inside != (table <= radii2 + slack))
    if len(i):
        inside[i, j] = _exact(a, b, i, j) <= np.broadcast_to(radii2, table.shape)[i, j]
    return inside


def _exact(a: np.ndarray, b: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Squared distances of a[i] and b[j], the same for both orders, and 0 for equal points."""
    return np.concatenate(
        [
            np.square(a[i[p : p + PAIRS]] - b[j[p : p + PAIRS]]).sum(axis=1)
            for p in range(0, len(i), PAIRS)
        ]
    )
