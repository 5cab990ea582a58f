"""Floor 4: a DCGAN that is told what to make (Mirza and Osindero 2014, arXiv 1411.1784).

The class comes in as Miyato and Koyama 2018 (arXiv 1802.05637) have it: in the generator through
batch normalisation (de Vries et al. 2017, arXiv 1707.00683), in the discriminator by a projection.
"""

from __future__ import annotations

import itertools
from typing import Any

from minigan import functional as F
from minigan import nn
from minigan.models.dcgan import SMALLEST, DCGANDiscriminator, check_sizes, levels
from minigan.models.pix2pix import normal_weights
from minigan.tensor import Tensor


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalisation, then a γ and β for each class, then ReLU (de Vries et al. 2017, eq. 3).

    Args:
        channels: C.
        classes: how many there are; labels are 0 to classes − 1.
    """

    def __init__(self, channels: int, classes: int) -> None:
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gamma, self.beta = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
        nn.init.normal_(self.gamma.weight, 1.0, 0.02)
        nn.init.constant_(self.beta.weight, 0.0)

    def forward(self, x: Tensor, labels: Any) -> Tensor:
        """(N, H, W, C) and integers (N,) -> (N, H, W, C), none negative."""
        gamma, beta = (
            F.reshape(vectors(labels), (len(x), 1, 1, x.shape[-1]))
            for vectors in (self.gamma, self.beta)
        )
        return F.relu(self.norm(x) * gamma + beta)


class ConditionalGenerator(nn.Module):
    """Noise and a class in, an image of that class out.

    A DCGAN's generator in which the class chooses γ and β of every batch normalisation, as in the
    generator of Miyato and Koyama 2018. The noise alone goes in at the bottom. A vector of the
    class beside it, as the first conditional GAN has it, was louder than the noise here: within a
    few hundred steps there was one image of each class, whatever the noise.

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
        count = levels("ConditionalGenerator", self.image_shape)
        channels = [width * 2**n for n in range(count - 1, -1, -1)]  # 256 128 64
        self.first = nn.Linear(z_size, SMALLEST * SMALLEST * channels[0], bias=False)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
            for before, after in itertools.pairwise(channels)
        )
        self.last = nn.ConvTranspose2d(width, self.image_shape[2], 4, stride=2, padding=1)
        self.apply(normal_weights)
        self.norms = nn.ModuleList(ConditionalBatchNorm2d(each, classes) for each in channels)

    def forward(self, z: Tensor, labels: Any) -> Tensor:
        """(N, z_size) from N(0, 1) and integers (N,) -> images (N, H, W, C) in [-1, 1]."""
        first, *norms = self.norms
        x = F.reshape(self.first(z), (len(z), SMALLEST, SMALLEST, -1))  # (N, 4, 4, 256)
        x = first(x, labels)
        for up, norm in zip(self.ups, norms, strict=True):
            x = norm(up(x), labels)  # (N, 8, 8, 128), (N, 16, 16, 64)
        return F.tanh(self.last(x))  # (N, 32, 32, C)


class ProjectionDiscriminator(DCGANDiscriminator):
    """Image and class in, score out: does it look real, and like one of that class?

    Miyato and Koyama 2018, equation 4: the score is v·φ + w[class]·φ, for the features φ of the
    image. The first term knows no class; the second is the projection of φ on the vector of the
    class, which is what a log-likelihood ratio comes down to if p(class | image) is a softmax of φ.
    φ is a DCGAN's last layer here, not summed over places as in the paper.

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
