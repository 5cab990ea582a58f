"""Floor 4: a DCGAN that is told what to make (Mirza and Osindero 2014, arXiv 1411.1784)."""

from __future__ import annotations

from typing import Any

from minigan import functional as F
from minigan import nn
from minigan.models.dcgan import DCGANDiscriminator, DCGANGenerator, check_sizes
from minigan.tensor import Tensor


class ConditionalGenerator(nn.Module):
    """Noise and a class in, an image of that class out.

    Each class has a vector of its own, learnt, as long and as strong as the noise, and set beside
    it: a one-hot label times a matrix, as in the paper.

    Args:
        image_shape, width, z_size: as for `DCGANGenerator`.
        classes: how many there are; labels are 0 to classes − 1.

    Attributes:
        settings: the arguments, from which `training.load_generator` builds it again.

    Raises:
        ValueError: a size below 1, or images that are not square and 8, 16, 32, ... a side.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (32, 32, 1),
        classes: int = 10,
        width: int = 64,
        z_size: int = 100,
    ) -> None:
        self.image_shape, self.classes, self.z_size = tuple(image_shape), classes, z_size
        self.settings = {"image_shape": self.image_shape, "classes": classes}
        self.settings |= {"width": width, "z_size": z_size}
        check_sizes("ConditionalGenerator", classes=classes, width=width, z_size=z_size)
        self.label = nn.Embedding(classes, z_size)
        self.network = DCGANGenerator(image_shape, width, 2 * z_size)

    def forward(self, z: Tensor, labels: Any) -> Tensor:
        """(N, z_size) from N(0, 1) and integers (N,) -> images (N, H, W, C) in [-1, 1]."""
        x = F.concatenate([z, self.label(labels)], axis=1)  # (N, 2·z_size)
        return self.network(x)  # (N, H, W, C)


class ProjectionDiscriminator(DCGANDiscriminator):
    """Image and class in, score out: does it look real, and like one of that class?

    Miyato and Koyama 2018 (arXiv 1802.05637), equation 4: the score is v·φ + w[class]·φ, for the
    features φ of the image. The first term knows no class; the second is the projection of φ on the
    vector of the class, which is what a log-likelihood ratio comes down to if p(class | image) is a
    softmax of φ. φ is a DCGAN's last layer here, not summed over places as in the paper.

    Args:
        image_shape, width: as for `DCGANDiscriminator`.
        classes: how many there are.
    """

    def __init__(
        self, image_shape: tuple[int, int, int] = (32, 32, 1), classes: int = 10, width: int = 64
    ) -> None:
        check_sizes("ProjectionDiscriminator", classes=classes)
        super().__init__(image_shape, width)
        self.label = nn.Embedding(classes, self.last.weight.shape[0])
        nn.init.normal_(self.label.weight, 0.0, 0.02)

    def forward(self, images: Tensor, labels: Any) -> Tensor:
        """(N, H, W, C) in [-1, 1] and integers (N,) -> scores (N, 1)."""
        features = self.features(images)  # (N, 4·4·256)
        projection = F.sum(features * self.label(labels), axis=1, keepdims=True)  # (N, 1)
        return self.last(features) + projection
