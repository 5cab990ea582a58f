"""Do generated images teach what real ones do? The classification accuracy score."""

from typing import Any

import numpy as np

from minigan import losses, optim
from minigan.data import Batches, to_unit
from minigan.metrics.extract import as_bytes, extract
from minigan.nn import Module
from minigan.tensor import Tensor


def classification_accuracy_score(
    network: Module,
    images: Any,
    labels: np.ndarray,
    real: np.ndarray,
    real_labels: np.ndarray,
    steps: int = 400,
    batch: int = 128,
    seed: int = 0,
) -> float:
    """Train `network` on generated images, test it on real ones: the share that it gets right.

    It falls when images are bad, and when there are too few kinds of them. A generator that takes
    no labels needs another network to say them, from which some of the score then comes.

    Args:
        network: an untrained classifier, as `extract` takes it; trained afterwards.
        images: generated, `(N, H, W, C)`, uint8, or floats in [-1, 1]; N at least 2.
        labels: integers `(N,)`, what each shows.
        real, real_labels: to be tested on, never trained on.
        steps, batch: of Adam, its rate falling from 2e-3 to 0 along a cosine; a batch has all
            images if there are fewer.
        seed: of the order of the images. The network's own weights are drawn before.

    Raises:
        ValueError: images that do not fit; labels of another number; fewer than two images.

    Source: Ravuri and Vinyals 2019 (arXiv 1905.10887).
    """
    pixels, labels = as_bytes(images), np.asarray(labels)
    if len(labels) != len(pixels) or len(real_labels) != len(real):
        raise ValueError(
            f"classification_accuracy_score: {len(pixels)} images with {len(labels)} labels, and "
            f"{len(real)} real ones with {len(real_labels)}; each image needs a label"
        )
    if len(pixels) < 2:
        raise ValueError(
            f"classification_accuracy_score: {len(pixels)} images, but batch normalisation needs 2"
        )
    batch = min(batch, len(pixels))
    floats = to_unit(pixels)
    adam = optim.Adam(network.parameters(), lr=2e-3)
    decay = optim.CosineDecay(adam, steps)
    batches = Batches(len(pixels), batch, seed)
    network.train()
    for _ in range(steps):
        chosen = next(batches)
        loss = losses.cross_entropy(network(Tensor(floats[chosen])), labels[chosen])
        adam.zero_grad()
        loss.backward()
        adam.step()
        decay.step()
    said = extract(network, real)["probabilities"].argmax(axis=1)
    return float((said == real_labels).mean())
