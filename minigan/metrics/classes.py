"""What a classifier says about generated images: inception score and mode histogram."""

from typing import Any

import numpy as np

from minigan.metrics.features import feature_matrix


def inception_score(probabilities: Any, splits: int = 10, seed: int = 0) -> dict[str, float]:
    """exp of the mean KL(p(y|x) ‖ p(y)): {"mean", "std"} over splits; from 1 to the class count.

    Large if the classifier is sure of each image, and all classes are there. It knows nothing of
    real images, and one perfect image of each class has the best score. With our own classifier it
    is not the published score, which is made with one particular Inception network.

    Args:
        probabilities: `(N, classes)`, each row adds up to 1.
        splits: parts into which the shuffled rows are split, each with a score of its own.
        seed: of the shuffling.

    Raises:
        ValueError: fewer rows than splits, rows that are no probabilities, or not `(N, classes)`.

    Source: Salimans et al. 2016 (arXiv 1606.03498), section 4.
    """
    who = "inception_score"
    if splits < 1:
        raise ValueError(f"{who}: splits is {splits} but must be 1 or more")
    p = feature_matrix(who, "class", probabilities, least=splits)
    if p.min() < 0 or np.abs(p.sum(axis=1) - 1).max() > 1e-4:
        raise ValueError(
            f"{who}: rows must be probabilities that add up to 1; these are from {p.min():.4g} to "
            f"{p.max():.4g}, and add up to {p.sum(axis=1).min():.4g} to "
            f"{p.sum(axis=1).max():.4g}; put a softmax before"
        )
    p = p[np.random.default_rng(seed).permutation(len(p))]
    scores = [_score(part) for part in np.array_split(p, splits)]
    return {"mean": float(np.mean(scores)), "std": float(np.std(scores))}


def _score(p: np.ndarray) -> float:
    marginal = np.broadcast_to(p.mean(axis=0), p.shape)
    there = p > 0  # 0 · log 0 is 0
    terms = p[there] * np.log(p[there] / marginal[there])
    return float(np.exp(terms.sum() / len(p)))


def mode_histogram(labels: Any, modes: int, least_share: float = 0.0) -> dict[str, Any]:
    """How samples spread over classes or modes: {"counts", "hit", "total_variation", "missed"}.

    Args:
        labels: integers `(N,)`, below `modes`; -1 for a sample that belongs to none.
        modes: how many there are.
        least_share: the share of samples a mode needs to count as hit; with 0, one sample does.

    Returns:
        counts: a list of `modes` integers. hit: how many modes have one sample or more, and at
        least that share. total_variation: ½ Σ |share − 1/modes| over the samples that belong to
        one, 0 if they spread evenly, 1 − 1/modes if all are in one; 1.0 if there are none. missed:
        the share of samples that belong to none.

    Raises:
        ValueError: no labels, not one axis, a label out of range, no modes, or a share outside
            [0, 1].
        TypeError: labels that are not integers.
    """
    labels = np.asarray(labels.numpy() if hasattr(labels, "numpy") else labels)
    if modes < 1 or not 0 <= least_share <= 1:
        raise ValueError(
            f"mode_histogram: modes is {modes} and least_share {least_share}, but must be 1 or "
            f"more, and in [0, 1]"
        )
    if labels.ndim != 1 or not labels.size:
        raise ValueError(f"mode_histogram: labels must be (N,), N from 1; these: {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"mode_histogram: labels must be integers, these are {labels.dtype}")
    if not -1 <= labels.min() <= labels.max() < modes:
        raise ValueError(
            f"mode_histogram: labels from {labels.min()} to {labels.max()} for {modes} modes"
        )
    counts = np.bincount(labels[labels >= 0].astype(np.int64), minlength=modes)
    inside = counts.sum()
    spread = 0.5 * np.abs(counts / inside - 1 / modes).sum() if inside else 1.0
    return {
        "counts": counts.tolist(),
        "hit": int(np.count_nonzero(counts >= max(1, least_share * labels.size))),
        "total_variation": float(spread),
        "missed": float(1 - inside / labels.size),
    }
