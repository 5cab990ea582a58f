"""Are the samples good, and are all kinds there? Four answers from nearest neighbours.

Around each sample lies a ball that reaches to its k-th nearest neighbour of the same set, itself
not counted. All four numbers compare distances between features, in float64.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from minigan.metrics.features import feature_pair

ROWS = 1000  # of a table of distances that are held at a time


def precision_recall(real: Any, fake: Any, k: int = 3) -> dict[str, float]:
    """{"precision", "recall"}: good samples, and all kinds of them; each from 0 to 1.

    Precision is the share of generated samples inside the ball of some real one, recall the share
    of real samples inside the ball of some generated one.

    Args:
        real, fake: features `(N, d)` and `(M, d)`.
        k: 1 or more, below N and M.

    Raises:
        ValueError: not more than k samples; shapes that do not fit; values not real and finite.

    Source: Kynkäänniemi et al. 2019 (arXiv 1904.06991), equations 1 and 2.
    """
    real, fake = _checked("precision_recall", real, fake, k)
    return {
        "precision": float((_balls_around(fake, real, _radii(real, k)) > 0).mean()),
        "recall": float((_balls_around(real, fake, _radii(fake, k)) > 0).mean()),
    }


def density_coverage(real: Any, fake: Any, k: int = 3) -> dict[str, float]:
    """{"density", "coverage"}: as precision and recall, but single outliers weigh little.

    Density counts in how many real balls each generated sample lies, over k; its expectation is 1
    for equal distributions, and it may be above. Coverage is the share of real samples with a
    generated one in their ball; for equal distributions and N = M its expectation is
    1 − (N−1)⋯(N−k) / (2N−1)⋯(2N−k), about 1 − 2^−k.

    Args, Raises: as `precision_recall`.

    Source: Naeem et al. 2020 (arXiv 2002.09797), equations 3 and 4.
    """
    real, fake = _checked("density_coverage", real, fake, k)
    radii = _radii(real, k)
    nearest = np.concatenate([table.min(axis=1) for table in _tables(real, fake)])
    return {
        "density": float(_balls_around(fake, real, radii).mean() / k),
        "coverage": float((nearest <= radii).mean()),
    }


def _checked(who: str, real: Any, fake: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    if k < 1:
        raise ValueError(f"{who}: k is {k} but must be 1 or more")
    return feature_pair(who, real, fake, least=k + 1)


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """The distance of each sample to its k-th nearest neighbour: `(N,)`."""
    # Each row has the sample itself, at distance 0, so the neighbour stands at index k.
    return np.concatenate([np.partition(table, k, axis=1)[:, k] for table in _tables(x, x)])


def _balls_around(points: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """In how many balls each point lies, their edges included: `(N,)`."""
    return np.concatenate([(t <= radii).sum(axis=1) for t in _tables(points, centres)])


def _tables(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """Distances from every row of `a` to every row of `b`, `ROWS` of `a` at a time."""
    from scipy.spatial.distance import cdist  # here, so that `import minigan` stays quick

    # Differences are squared one by one: |a|² − 2ab + |b|² would not give 0 for equal rows.
    return (cdist(a[i : i + ROWS], b) for i in range(0, len(a), ROWS))
