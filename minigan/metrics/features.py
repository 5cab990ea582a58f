"""What every metric of features checks first."""

from typing import Any

import numpy as np


def feature_pair(who: str, real: Any, fake: Any, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Both sets as float64 `(N, d)` and `(M, d)`.

    Raises:
        ValueError: not two axes, another d, fewer than `least` samples, not real or not finite.
    """
    real, fake = (
        feature_matrix(who, which, features, least)
        for which, features in (("real", real), ("generated", fake))
    )
    if real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"{who}: real features {real.shape} and generated ones {fake.shape} differ in their "
            f"second axis; take both from the same network"
        )
    return real, fake


def feature_matrix(who: str, which: str, features: Any, least: int = 1) -> np.ndarray:
    """One set as float64 `(N, d)`; errors as for `feature_pair`."""
    features = np.asarray(features.numpy() if hasattr(features, "numpy") else features)
    if features.dtype.kind not in "iuf":
        raise ValueError(f"{who}: {which} features have dtype {features.dtype}, not real numbers")
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"{who}: {which} features must be (N, d), these are {features.shape}")
    if len(features) < least:
        raise ValueError(f"{who}: {len(features)} {which} samples, but at least {least} are needed")
    features = features.astype(np.float64)
    wrong = np.count_nonzero(~np.isfinite(features))
    if wrong:
        raise ValueError(f"{who}: {which} features hold {wrong} values that are NaN or infinite")
    return features
