"""Floor 4: the deep convolutional GAN (Radford, Metz and Chintala 2015, arXiv 1511.06434)."""

from __future__ import annotations

import itertools
import math

from minigan import functional as F
from minigan import nn
from minigan.models.pix2pix import normal_weights
from minigan.tensor import Tensor

SMALLEST = 4  # pixels a side, where the generator's convolutions begin and the discriminator's end


def levels(who: str, image_shape: tuple[int, int, int]) -> int:
    """How often 4×4 must be doubled to become an image (H, W, C): 3 times for 32×32.

    Raises:
        ValueError: not square, or not 8, 16, 32, ... pixels a side.
    """
    height, width, channels = image_shape
    doublings = round(math.log2(max(height, 1) / SMALLEST))
    if height != width or doublings < 1 or height != SMALLEST * 2**doublings or channels < 1:
        raise ValueError(
            f"{who}: images must be square and 8, 16, 32, ... pixels a side, as they are made by "
            f"doubling 4×4; these are (H, W, C) = {tuple(image_shape)}"
        )
    return doublings


def check_sizes(who: str, **sizes: int) -> None:
    """ValueError for a width or a number of inputs below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{who}: {name} must be 1 or more, got {size}")


class DCGANGenerator(nn.Module):
    """Noise in, image out: 4×4 patches of features, doubled in size until they are an image.

    The paper's rules: no pooling, but transposed convolutions that learn to enlarge; batchnorm and
    ReLU everywhere but at the output, which is a tanh. Weights N(0, 0.02). As in PyTorch's example,
    γ is N(1, 0.02) and a layer before batchnorm has no bias, which batchnorm would take away again.

    Args:
        image_shape: (H, W, C), square, 8, 16, 32, ... pixels a side.
        width: channels of the last but one layer; those before have 2, 4, ... times as many.
        z_size: numbers of noise for an image, from N(0, 1).

    Attributes:
        settings: the arguments, from which `training.load_generator` builds it again.
        classes: 0, as it takes no labels.

    Raises:
        ValueError: another shape of images, a width or z_size below 1.
    """

    classes = 0

    def __init__(
        self, image_shape: tuple[int, int, int] = (32, 32, 1), width: int = 64, z_size: int = 100
    ) -> None:
        self.image_shape, self.z_size = tuple(image_shape), z_size
        self.settings = {"image_shape": self.image_shape, "width": width, "z_size": z_size}
        check_sizes("DCGANGenerator", width=width, z_size=z_size)
        count = levels("DCGANGenerator", self.image_shape)
        channels = [width * 2**n for n in range(count - 1, -1, -1)]  # 256 128 64
        self.first = nn.Linear(z_size, SMALLEST * SMALLEST * channels[0], bias=False)
        self.norm = nn.BatchNorm2d(channels[0], negative_slope=0.0)  # and ReLU
        self.up = nn.Sequential()
        for before, after in itertools.pairwise(channels):
            self.up.append(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False))
            self.up.append(nn.BatchNorm2d(after, negative_slope=0.0))
        self.last = nn.ConvTranspose2d(width, self.image_shape[2], 4, stride=2, padding=1)
        self.apply(normal_weights)

    def forward(self, z: Tensor) -> Tensor:
        """(N, z_size) from N(0, 1) -> images (N, H, W, C) in [-1, 1]."""
        x = F.reshape(self.first(z), (len(z), SMALLEST, SMALLEST, -1))  # (N, 4, 4, 256)
        x = self.up(self.norm(x))  # (N, 8, 8, 128), (N, 16, 16, 64)
        return F.tanh(self.last(x))  # (N, 32, 32, C)


class DCGANDiscriminator(nn.Module):
    """Image in, score out: the generator's way back, halving with convolutions of stride 2.

    Leaky ReLUs of slope 0.2; batchnorm everywhere but at the input. Because of it the score of an
    image depends on the others in its batch: never mix real and generated ones in one.

    Args:
        image_shape, width: as for the generator.

    Raises:
        ValueError: as for the generator.
    """

    def __init__(self, image_shape: tuple[int, int, int] = (32, 32, 1), width: int = 64) -> None:
        check_sizes("DCGANDiscriminator", width=width)
        count = levels("DCGANDiscriminator", tuple(image_shape))
        channels = [width * 2**n for n in range(count)]  # 64 128 256
        self.features = nn.Sequential(
            nn.Conv2d(image_shape[2], width, 4, stride=2, padding=1),  # (N, 16, 16, 64)
            nn.LeakyReLU(0.2),
        )
        for before, after in itertools.pairwise(channels):
            self.features.append(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False))
            self.features.append(nn.BatchNorm2d(after, negative_slope=0.2))
        # (N, 8, 8, 128), (N, 4, 4, 256)
        self.features.append(nn.Flatten())  # (N, 4·4·256)
        self.last = nn.Linear(SMALLEST * SMALLEST * channels[-1], 1)  # (N, 1)
        self.apply(normal_weights)

    def forward(self, images: Tensor) -> Tensor:
        """(N, H, W, C) in [-1, 1] -> scores (N, 1), large where an image looks real."""
        return self.last(self.features(images))
