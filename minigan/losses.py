"""Floor 3: losses. All average over everything unless `reduction` says "sum" or "none"."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minigan import backend as backends
from minigan import functional as F
from minigan.autograd import grad
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


def hinge(scores: Tensor, real: bool, reduction: str = "mean") -> Tensor:
    """Return max(0, 1 − score) for real images and max(0, 1 + score) for generated ones.

    What a discriminator minimises (Lim and Ye 2017; Miyato et al. 2018, equation 16): who is on the
    right side by 1 or more is left alone. The generator's part is a mean: `-scores.mean()`.

    Args:
        scores: of any shape, unbounded.
        real: whether they are of real images.
    """
    return _reduce("hinge", F.relu(1.0 - scores if real else 1.0 + scores), reduction)


# Penalties on the slope of a critic. They are made of a gradient and differentiated once more.


def between(real: Tensor, fake: Tensor) -> Tensor:
    """Return a point on the line from each real image to the generated one beside it.

    x̂ = εx + (1 − ε)G(z), with ε from U[0, 1), one for each pair, from the host generator (Gulrajani
    et al. 2017, algorithm 1).

    Raises:
        ValueError: other shapes, or none.
    """
    real, fake = lift(real, fake)
    if real.shape != fake.shape or not real.ndim:
        raise ValueError(
            f"between: real {real.shape} and fake {fake.shape} must be of one shape, (N, ...)"
        )
    share = backends.generator().random((len(real), *[1] * (real.ndim - 1)))
    return fake + (real - fake) * Tensor(share, dtype=real.dtype, device=real.device)


def gradient_norm(critic: Callable[[Tensor], Tensor], images: Tensor, eps: float = 1e-12) -> Tensor:
    """Return ‖∂ critic / ∂ image‖ of each image: (N, ...) -> (N,). It can be differentiated.

    The norm is over all axes but the first, √(Σ g² + eps): without eps the root has no slope where
    the gradient is 0. A critic whose score of one image depends on the others, as batch
    normalisation's does, has no such norm.

    Raises:
        ValueError: a critic that gives no score for each image.
    """
    return F.sqrt(_square_norm("gradient_norm", critic, images) + eps)


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, target: float = 1.0
) -> Tensor:
    """Return the mean of (‖∇ critic(x̂)‖ − target)², x̂ between real and generated images.

    Gulrajani et al. 2017, equation 3, without its factor λ; see `between` and `gradient_norm`.

    Args:
        critic: (N, ...) -> (N, 1), or scores of another shape that begins with N.
        real, fake: (N, ...); detach the generated images, or their generator is trained too.

    Raises:
        ValueError: other shapes, or a critic that gives no score for each image.
    """
    return ((gradient_norm(critic, between(real, fake)) - target) ** 2).mean()


def r1_penalty(critic: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """Return ½ · the mean of ‖∇ critic(x)‖² at real images x.

    Mescheder et al. 2018, equation 9, without its factor γ. There is no root here, and no target:
    where real and generated images are one, a good critic is flat.

    Raises:
        ValueError: a critic that gives no score for each image.
    """
    return _square_norm("r1_penalty", critic, real).mean() * 0.5


def _square_norm(who: str, critic: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return Σ (∂ critic / ∂ image)² of each image, (N,), recorded."""
    images = images if images.requires_grad else images.detach().requires_grad_()
    scores = critic(images)
    if not scores.ndim or not images.ndim or scores.shape[0] != images.shape[0]:
        raise ValueError(
            f"{who}: the critic made {scores.shape} of images {images.shape}; it must give a score "
            "for each image, (N, ...), and take no mean over them"
        )
    # An image moves no score but its own, so the gradient of the sum has all gradients in it.
    (slope,) = grad(scores.sum(), images, create_graph=True)
    return (slope * slope).sum(tuple(range(1, images.ndim)))
