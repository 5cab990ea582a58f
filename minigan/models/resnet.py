"""Floor 4: residual generator, critic with spectral norms (Miyato et al. 2018, appendix B.4).

The blocks are those of the paper's 32×32 networks, narrower, and with one change for the CPU's
sake. Where the discriminator convolves and then takes the mean of 2×2, one convolution of stride 2
with a 4×4 kernel does both, as the two together are such a convolution: 4 products for a pixel and
not 9. The generator could save as much by transposed convolutions of stride 2. But in a residual
block they print a checkerboard on the images, which no later layer has the size to remove.
"""

from __future__ import annotations

import itertools

from minigan import functional as F
from minigan import nn
from minigan.models.critic import he_weights
from minigan.models.dcgan import SMALLEST, check_sizes, levels
from minigan.tensor import Tensor


class UpBlock(nn.Module):
    """Twice the size: batchnorm, ReLU, convolution, twice; the input, enlarged, is added."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.norm1 = nn.BatchNorm2d(inputs, negative_slope=0.0)  # and ReLU
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs, negative_slope=0.0)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.interpolate(self.norm1(x), scale_factor=2))  # (N, 2H, 2W, outputs)
        y = self.conv2(self.norm2(y))
        # 1×1 before enlarging: the same numbers for a quarter of the work.
        return y + F.interpolate(self.skip(x), scale_factor=2)


class DownBlock(nn.Module):
    """ReLU, convolution, twice, with spectral norms; the input is added.

    Args:
        inputs, outputs: channels.
        half: whether to halve the size; else it stays.
        first: no ReLU before the first convolution: it reads the image, which it must not cut off.
    """

    def __init__(self, inputs: int, outputs: int, half: bool = True, first: bool = False) -> None:
        self.half, self.first = half, first
        second = (4, 2, 1) if half else (3, 1, 1)  # kernel, stride, padding
        self.conv1 = nn.SpectralNorm(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.conv2 = nn.SpectralNorm(nn.Conv2d(outputs, outputs, *second))
        self.skip = nn.SpectralNorm(nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x if self.first else F.relu(x))  # (N, H, W, outputs)
        y = self.conv2(F.relu(y))  # (N, H/2, W/2, outputs)
        return y + self.skip(F.avg_pool2d(x, 2) if self.half else x)


class ResNetGenerator(nn.Module):
    """Noise in, image out: a block for each doubling of 4×4, and a convolution to the image.

    Args:
        image_shape: (H, W, C), square, 8, 16, 32, ... pixels a side.
        width: channels of the last block; those before have 2 and 4 times as many.
        z_size: numbers of noise for an image, from N(0, 1).

    Attributes:
        settings: the arguments, from which `training.load_generator` builds it again.
        classes: 0, as it takes no labels.

    Raises:
        ValueError: another shape of images, a width or z_size below 1.
    """

    classes = 0

    def __init__(
        self, image_shape: tuple[int, int, int] = (32, 32, 1), width: int = 32, z_size: int = 128
    ) -> None:
        self.image_shape, self.z_size = tuple(image_shape), z_size
        self.settings = {"image_shape": self.image_shape, "width": width, "z_size": z_size}
        check_sizes("ResNetGenerator", width=width, z_size=z_size)
        count = levels("ResNetGenerator", self.image_shape)
        channels = [width * min(2**n, 4) for n in range(count, -1, -1)]  # 128 128 64 32
        self.first = nn.Linear(z_size, SMALLEST * SMALLEST * channels[0])
        self.blocks = nn.Sequential(*(UpBlock(a, b) for a, b in itertools.pairwise(channels)))
        self.norm = nn.BatchNorm2d(width, negative_slope=0.0)  # and ReLU
        self.last = nn.Conv2d(width, self.image_shape[2], 3, padding=1)
        self.apply(he_weights)

    def forward(self, z: Tensor) -> Tensor:
        """(N, z_size) from N(0, 1) -> images (N, H, W, C) in [-1, 1]."""
        x = F.reshape(self.first(z), (len(z), SMALLEST, SMALLEST, -1))  # (N, 4, 4, 128)
        x = self.blocks(x)  # (N, 8, 8, 128), (N, 16, 16, 64), (N, 32, 32, 32)
        return F.tanh(self.last(self.norm(x)))  # (N, 32, 32, C)


class ResNetDiscriminator(nn.Module):
    """Image in, score out: halving blocks down to 4×4, one block more, and a sum over the pixels.

    Every weight is divided by its largest singular value. There is no batchnorm, so the score of an
    image depends on that image only.

    Args:
        image_shape: as for the generator.
        width: channels of the first block; those after have 2 and 4 times as many.

    Raises:
        ValueError: as for the generator.
    """

    def __init__(self, image_shape: tuple[int, int, int] = (32, 32, 1), width: int = 32) -> None:
        check_sizes("ResNetDiscriminator", width=width)
        count = levels("ResNetDiscriminator", tuple(image_shape))
        channels = [image_shape[2], *(width * min(2**n, 4) for n in range(count))]  # 1 32 64 128
        self.blocks = nn.Sequential(
            *(
                DownBlock(a, b, first=i == 0)
                for i, (a, b) in enumerate(itertools.pairwise(channels))
            ),
            DownBlock(channels[-1], channels[-1], half=False),
        )
        self.last = nn.SpectralNorm(nn.Linear(channels[-1], 1))
        self.apply(he_weights)

    def forward(self, images: Tensor) -> Tensor:
        """(N, H, W, C) in [-1, 1] -> scores (N, 1), large where an image looks real."""
        x = self.blocks(images)  # (N, 16, 16, 32), (N, 8, 8, 64), (N, 4, 4, 128), (N, 4, 4, 128)
        return self.last(F.sum(F.relu(x), axis=(1, 2)))  # (N, 128) -> (N, 1)
