"""Floor 4: the networks of the first GAN, dense layers only (Goodfellow et al. 2014, 1406.2661)."""

from __future__ import annotations

import math

from minigan import functional as F
from minigan import nn
from minigan.models.dcgan import check_sizes
from minigan.tensor import Tensor


class MLPGenerator(nn.Module):
    """Noise in, image out: two layers of rectifiers and one of sigmoids.

    As in the authors' MNIST script: 100 numbers of noise, 1,200 units a layer. Their pixels were in
    [0, 1] and came out of a sigmoid; ours are in [-1, 1], and 2·sigmoid(x) − 1 is tanh(x/2).

    Args:
        image_shape: (H, W, C), any.
        width: units of each hidden layer.
        z_size: numbers of noise for an image, from N(0, 1).

    Attributes:
        settings: the arguments, from which `training.load_generator` builds it again.
        classes: 0, as it takes no labels.

    Raises:
        ValueError: a size below 1.
    """

    classes = 0

    def __init__(
        self, image_shape: tuple[int, int, int] = (32, 32, 1), width: int = 1200, z_size: int = 100
    ) -> None:
        self.image_shape, self.z_size = tuple(image_shape), z_size
        self.settings = {"image_shape": self.image_shape, "width": width, "z_size": z_size}
        pixels = math.prod(self.image_shape)
        check_sizes("MLPGenerator", width=width, z_size=z_size, pixels=pixels)
        self.layers = nn.Sequential(
            nn.Linear(z_size, width),  # (N, 1200)
            nn.ReLU(),
            nn.Linear(width, width),  # (N, 1200)
            nn.ReLU(),
            nn.Linear(width, pixels),  # (N, H·W·C)
        )

    def forward(self, z: Tensor) -> Tensor:
        """(N, z_size) from N(0, 1) -> images (N, H, W, C) in [-1, 1]."""
        x = F.tanh(self.layers(z) * 0.5)
        return F.reshape(x, (len(z), *self.image_shape))


class Maxout(nn.Module):
    """Each unit is the largest of several linear functions (Goodfellow et al. 2013, 1302.4389).

    (N, in_features) -> (N, units). ValueError for a size below 1.
    """

    def __init__(self, in_features: int, units: int, pieces: int) -> None:
        check_sizes("Maxout", in_features=in_features, units=units, pieces=pieces)
        self.units, self.pieces = units, pieces
        self.linear = nn.Linear(in_features, units * pieces)

    def forward(self, x: Tensor) -> Tensor:
        return F.max(F.reshape(self.linear(x), (len(x), self.units, self.pieces)), axis=2)


class MLPDiscriminator(nn.Module):
    """Image in, score out: two layers of maxout, with dropout before every layer.

    As in the authors' MNIST script: 240 units of 5 pieces, a fifth of the pixels and half of the
    hidden units dropped. Without dropout it soon knows every training image by heart.

    Args:
        image_shape: (H, W, C), any.
        width: units of each hidden layer.
        pieces: linear functions of a unit.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(
        self, image_shape: tuple[int, int, int] = (32, 32, 1), width: int = 240, pieces: int = 5
    ) -> None:
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.2),
            Maxout(math.prod(image_shape), width, pieces),  # (N, 240)
            nn.Dropout(0.5),
            Maxout(width, width, pieces),  # (N, 240)
            nn.Dropout(0.5),
            nn.Linear(width, 1),  # (N, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, H, W, C) in [-1, 1] -> scores (N, 1), large where an image looks real."""
        return self.layers(images)
