"""Floor 4: DCGAN's discriminator without its batchnorm, for losses that look at its slope."""

from __future__ import annotations

import itertools

from minigan import nn
from minigan.models.dcgan import SMALLEST, check_sizes, levels
from minigan.tensor import Tensor


def he_weights(module: nn.Module) -> None:
    """Draw a layer's weights from N(0, 2 / fan_in) (He et al. 2015), its biases 0.

    For `network.apply(he_weights)`: without batchnorm N(0, 0.02) would let the signal die away.
    """
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.he_normal_(module.weight)
        if module.bias is not None:
            nn.init.constant_(module.bias, 0.0)


class Critic(nn.Module):
    """Image in, score out: convolutions of stride 2 and leaky ReLUs of slope 0.2, and no norm.

    The layers of `DCGANDiscriminator`. With batchnorm the score of an image would depend on the
    others in its batch, and a penalty on the slope at *one* image would mean nothing (Gulrajani et
    al. 2017, section 4). Weights as in their code: He et al. 2015, biases 0.

    Args:
        image_shape: (H, W, C), square, 8, 16, 32, ... pixels a side.
        width: channels of the first layer; those after have 2, 4, ... times as many.

    Raises:
        ValueError: another shape of images, a width below 1.
    """

    def __init__(self, image_shape: tuple[int, int, int] = (32, 32, 1), width: int = 64) -> None:
        check_sizes("Critic", width=width)
        count = levels("Critic", tuple(image_shape))
        channels = [image_shape[2], *(width * 2**n for n in range(count))]  # 1 64 128 256
        self.layers = nn.Sequential()
        for before, after in itertools.pairwise(channels):
            self.layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1))
            self.layers.append(nn.LeakyReLU(0.2))
        # (N, 16, 16, 64), (N, 8, 8, 128), (N, 4, 4, 256)
        self.layers.append(nn.Flatten())
        self.layers.append(nn.Linear(SMALLEST * SMALLEST * channels[-1], 1))
        self.apply(he_weights)

    def forward(self, images: Tensor) -> Tensor:
        """(N, H, W, C) in [-1, 1] -> scores (N, 1), large where an image looks real."""
        return self.layers(images)
