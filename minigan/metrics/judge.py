"""One set of real images, seen through one classifier, by which any number of sets is judged."""

from typing import Any

import numpy as np

from minigan.data import LabelledImages
from minigan.metrics.classes import inception_score, mode_histogram
from minigan.metrics.distances import frechet_distance, kernel_distance
from minigan.metrics.extract import Classifier, extract, fingerprint
from minigan.metrics.neighbours import Balls, neighbour_scores

LEAST_PER_FEATURE = 2  # samples: with fewer than one a covariance has no inverse
LEAST_RIGHT = 0.5  # of the real images: with less, the classifier was trained on something else
SUBSETS = 50  # for KID: each of 10,000 images is in five of them
HIT = 0.1  # of a class's fair share of images is a hit: a few are always taken for something else


class Judge:
    """Compares sets of images with `real` ones, whose features are extracted once, here.

    Args:
        network: a classifier, such as `minigan.models.ImageClassifier`.
        real: N images and their classes; every set that is judged in full has N images too.
        k: neighbours, for precision and its kin.
        subset_size: images in a subset, for KID; at most N.
        seed: of what is drawn: the subsets, and the parts of the inception score.

    Raises:
        ValueError: images that do not fit the network, or too few of them: for its features, or for
            a subset; a network that takes most of them for something else.

    Attributes:
        count: N.
        classifier: the network's fingerprint.
        accuracy: the share of the real images that it gets right.
        features: of the real images, float64 `(N, d)`.
        fewest: images whose `distance` can be told, 2·d.
    """

    def __init__(
        self,
        network: Classifier,
        real: LabelledImages,
        k: int = 3,
        subset_size: int = 1000,
        seed: int = 0,
    ) -> None:
        self.network, self.k, self.subset_size, self.seed = network, k, subset_size, seed
        self.count, self.classifier = len(real), fingerprint(network)
        seen = extract(network, real.images)
        self.features = seen["features"]
        self.accuracy = float((seen["probabilities"].argmax(axis=1) == real.labels).mean())
        self.fewest = LEAST_PER_FEATURE * self.features.shape[1]
        least = max(self.fewest, subset_size, k + 1)
        if self.count < least:
            raise ValueError(
                f"Judge: {self.count} images are too few: the network has "
                f"{self.features.shape[1]} features, which need {LEAST_PER_FEATURE} times as many, "
                f"and a subset for KID has {subset_size}; give {least} or more"
            )
        if self.accuracy < LEAST_RIGHT:
            raise ValueError(
                f"Judge: the classifier gets {self.accuracy:.1%} of the real images right, and "
                f"{LEAST_RIGHT:.0%} is the least: it was trained on other data, or hardly at all"
            )
        self._balls = Balls(self.features, k)

    def distance(self, images: Any) -> float:
        """The Fréchet distance alone, of any number of images: to compare sets of one size."""
        return frechet_distance(self.features, extract(self.network, images)["features"])

    def labels(self, images: Any) -> np.ndarray:
        """The class that the network sees in each image, int64 `(N,)`."""
        return extract(self.network, images)["probabilities"].argmax(axis=1)

    def scores(self, images: Any, labels: Any = None) -> dict[str, Any]:
        """Every number there is about a set of N images; it takes some seconds.

        Args:
            images: `(N, H, W, C)`, uint8, or floats in [-1, 1].
            labels: what each image was to show, `(N,)`, if it was to show something.

        Returns:
            frechet, kid, kid_std, precision, recall, density, coverage, inception, inception_std;
            counts, classes_hit and total_variation: how the images spread over the classes, as the
            network sees them; as_asked: how often it sees what the labels say, None without any.

        Raises:
            ValueError: another number of images, or images that do not fit.
        """
        if len(images) != self.count:
            raise ValueError(
                f"Judge: {len(images)} images, but there are {self.count} real ones; the distances "
                f"depend on how many there are, so compare sets of one size"
            )
        seen = extract(self.network, images)
        features, p = seen["features"], seen["probabilities"]
        said, classes = p.argmax(axis=1), p.shape[1]
        kid = kernel_distance(self.features, features, self.subset_size, SUBSETS, self.seed)
        inception = inception_score(p, seed=self.seed)
        modes = mode_histogram(said, classes, HIT / classes)
        return {
            "frechet": frechet_distance(self.features, features),
            "kid": kid["mean"],
            "kid_std": kid["std"],
            **neighbour_scores(self._balls, features, self.k),
            "inception": inception["mean"],
            "inception_std": inception["std"],
            "counts": modes["counts"],
            "classes_hit": modes["hit"],
            "total_variation": modes["total_variation"],
            "as_asked": None if labels is None else float(np.mean(said == np.asarray(labels))),
        }
