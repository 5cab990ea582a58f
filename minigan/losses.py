"""Floor 3: losses. All average over everything unless `reduction` says "sum" or "none"."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigan import functional as F
from minigan.tensor import Tensor, lift


def _reduce(who: str, loss: Tensor, reduction: str) -> Tensor:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{who}: reduction {reduction!r} is unknown: use mean, sum or none")
    return loss if reduction == "none" else getattr(F, reduction)(loss)


def _pair(who: str, prediction: Tensor, target: Any) -> tuple[Tensor, Tensor]:
    prediction, target = lift(prediction, target)
    if prediction.shape != target.shape:
        raise ValueError(
            f"{who}: prediction {prediction.shape} and target {target.shape} differ in shape"
        )
    return prediction, target


def mse(prediction: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """Return (prediction − target)².

    Args:
        prediction, target: of one shape.
        reduction: "mean", "sum" or "none".

    Raises:
        ValueError: other shapes, or an unknown reduction (so in all of this file).
    """
    prediction, target = _pair("mse", prediction, target)
    difference = prediction - target
    return _reduce("mse", difference * difference, reduction)


def l1(prediction: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """Return |prediction − target|; the slope where they are equal is 0."""
    prediction, target = _pair("l1", prediction, target)
    return _reduce("l1", F.abs(prediction - target), reduction)


def smooth_l1(
    prediction: Tensor, target: Any, beta: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Return d²/(2·beta) where d = |prediction − target| < beta, else d − beta/2 (Girshick 2015).

    Raises:
        ValueError: also for beta <= 0.
    """
    if beta <= 0:
        raise ValueError(f"smooth_l1: beta must be positive, got {beta} (for 0 use l1)")
    prediction, target = _pair("smooth_l1", prediction, target)
    difference = prediction - target
    near = F.clip(difference, -beta, beta)  # d²/2β, and from there on a line of the same slope
    return _reduce("smooth_l1", near * (difference - near * 0.5) * (1 / beta), reduction)


def cross_entropy(
    logits: Tensor, labels: Any, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """Return −log softmax(logits)[label], with a share of the weight spread over all classes.

    Args:
        logits: (..., C).
        labels: integers in [0, C), of shape (...).
        label_smoothing: ε; the target is (1 − ε) one-hot + ε/C (Szegedy et al. 2016).

    Raises:
        TypeError: labels that are not integers.
        ValueError: shapes that do not fit, a label out of range, or ε outside [0, 1].
    """
    labels = np.asarray(labels.numpy() if isinstance(labels, Tensor) else labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: labels must be integers (class numbers), {labels.dtype}")
    if logits.ndim < 1 or labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"cross_entropy: labels {labels.shape} should be {logits.shape[:-1]}, one for each "
            f"row of logits (..., C) = {logits.shape}"
        )
    classes = logits.shape[-1]
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"cross_entropy: labels from {labels.min()} to {labels.max()} for {classes} classes"
        )
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing {label_smoothing} is outside [0, 1]")
    log_p = F.log_softmax(logits, axis=-1)
    chosen = F.getitem(F.reshape(log_p, (-1, classes)), (np.arange(labels.size), labels.ravel()))
    loss = -F.reshape(chosen, labels.shape)
    if label_smoothing:
        loss = loss * (1 - label_smoothing) - F.mean(log_p, axis=-1) * label_smoothing
    return _reduce("cross_entropy", loss, reduction)


def binary_cross_entropy(probability: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """Return −t·log p − (1 − t)·log(1 − p), the logarithms held above −100 as in PyTorch.

    Raises:
        ValueError: also for a probability outside [0, 1].
    """
    who = "binary_cross_entropy"
    probability, target = _pair(who, probability, target)
    inside = (probability.data >= 0) & (probability.data <= 1)
    if not bool(inside.all()):
        raise ValueError(
            f"{who}: probabilities must be in [0, 1]; for raw scores use {who}_with_logits"
        )
    log_p, log_q = _log_held(probability), _log_held(1.0 - probability)
    return _reduce(who, -(target * log_p + (1.0 - target) * log_q), reduction)


def _log_held(p: Tensor) -> Tensor:
    """Return log p, or −100 with no slope where p is so small that 1/p would overflow."""
    safe = p.data > max(math.exp(-100), float(np.finfo(p.dtype).tiny))
    return F.where(safe, F.log(F.where(safe, p, 1.0)), -100.0)


def binary_cross_entropy_with_logits(
    logits: Tensor, target: Any, reduction: str = "mean"
) -> Tensor:
    """Return binary_cross_entropy(sigmoid(logits), target), exact at both ends.

    t·softplus(−x) + (1 − t)·softplus(x), which neither overflows nor cancels; softplus(x) − t·x
    is the same but for x = 20 and t = 1 float32 would make 0 of 2e-9.

    A target that is a number stands for all: 1.0 says that all of it is real, 0.0 that none is.
    """
    who = "binary_cross_entropy_with_logits"
    if isinstance(target, (int, float)):
        if target in (0, 1):  # the other term is 0
            return _reduce(who, F.softplus(-logits if target else logits), reduction)
        loss = F.softplus(-logits) * target + F.softplus(logits) * (1 - target)
        return _reduce(who, loss, reduction)
    logits, target = _pair(who, logits, target)
    loss = target * F.softplus(-logits) + (1.0 - target) * F.softplus(logits)
    return _reduce(who, loss, reduction)
