"""How far apart two sets of features are: Fréchet distance and kernel distance.

On the features of our own classifier the first is not the published FID, which is made with one
particular Inception network; compare it only with numbers from the same network and the same N.
"""

from typing import Any

import numpy as np

from minigan.metrics.features import feature_pair


def frechet_distance(real: Any, fake: Any, least_per_feature: float = 2.0) -> float:
    """Fréchet distance between the Gaussians that two sets of features would fit.

    |μ₁ − μ₂|² + Tr(S₁ + S₂ − 2(S₁S₂)^½), with the covariances S divided by N − 1. The trace of the
    root is the sum of the roots of the eigenvalues of S₁^½ S₂ S₁^½, which are those of S₁S₂ and
    real; what rounding makes negative is taken as 0. It is too large when N is small: always
    compare at one N.

    Args:
        real, fake: features `(N, d)` and `(M, d)`.
        least_per_feature: how many samples there must be for each of the d features. With fewer
            than one a covariance has no inverse; ten is what a number that counts should have.

    Raises:
        ValueError: too few samples for that many features; shapes that do not fit; values that are
            not real and finite.

    Source: Heusel et al. 2017 (arXiv 1706.08500), equation 6; Dowson and Landau 1982.
    """
    who = "frechet_distance"
    real, fake = feature_pair(who, real, fake, least=2)
    fewest, d = min(len(real), len(fake)), real.shape[1]
    if fewest < least_per_feature * d:
        raise ValueError(
            f"{who}: {fewest} samples are too few for {d} features; give at least "
            f"{int(np.ceil(least_per_feature * d))}, or a network with fewer features"
        )
    difference = real.mean(axis=0) - fake.mean(axis=0)
    s1, s2 = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (real, fake))
    root = _root(s1)
    eigenvalues = np.linalg.eigvalsh(root @ s2 @ root)
    trace_of_root = np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    distance = difference @ difference + np.trace(s1) + np.trace(s2) - 2 * trace_of_root
    return float(max(distance, 0.0))  # rounding again: of equal sets it is ±1e-13 or so


def _root(s: np.ndarray) -> np.ndarray:
    """The symmetric root of a covariance."""
    values, vectors = np.linalg.eigh(s)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def kernel_distance(
    real: Any, fake: Any, subset_size: int = 1000, subsets: int = 100, seed: int = 0
) -> dict[str, float]:
    """KID: unbiased squared MMD under the kernel (x·y/d + 1)³, {"mean", "std"} over subsets.

    Each subset is drawn without replacement, the same for the same seed. No bias, so the mean may
    be a little below 0; `std` is the spread of single subsets, not the error of the mean.

    Args:
        real, fake: features `(N, d)` and `(M, d)`.
        subset_size: samples of each set in a subset, 2 to the smaller of N and M.
        subsets: how many.

    Raises:
        ValueError: fewer samples than a subset, a subset below 2, no subsets; shapes and values as
            for `frechet_distance`.

    Source: Bińkowski et al. 2018 (arXiv 1801.01401), section 4; Gretton et al. 2012, equation 3.
    """
    who = "kernel_distance"
    real, fake = feature_pair(who, real, fake)
    if subsets < 1 or subset_size < 2:
        raise ValueError(
            f"{who}: {subsets} subsets of {subset_size} samples, but it takes 1 or more, of 2 or "
            f"more samples"
        )
    fewest = min(len(real), len(fake))
    if fewest < subset_size:
        raise ValueError(
            f"{who}: {fewest} samples are fewer than the {subset_size} of a subset; give more, or "
            f"a smaller subset_size, and compare only numbers of one subset_size"
        )
    random = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        x, y = (random.choice(a, subset_size, replace=False) for a in (real, fake))
        values.append(_mmd2(x, y))
    return {"mean": float(np.mean(values)), "std": float(np.std(values))}


def _mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate: a sample is never compared with itself."""
    n = len(x)
    kxx, kyy, kxy = _cubic(x, x), _cubic(y, y), _cubic(x, y)
    within = (kxx.sum() - np.trace(kxx) + kyy.sum() - np.trace(kyy)) / (n * (n - 1))
    return within - 2 * kxy.mean()


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    k = x @ y.T
    k /= x.shape[1]
    k += 1
    return k * k * k  # as k**3 it would take ten times as long
