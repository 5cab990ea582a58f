"""Floor 4: the image-to-image networks of pix2pix (Isola et al. 2017)."""

from __future__ import annotations

from minigan import functional as F
from minigan import nn
from minigan.tensor import Tensor


def normal_weights(module: nn.Module) -> None:
    """Draw a layer's weights as pix2pix and DCGAN do: N(0, 0.02), and N(1, 0.02) for a norm's γ.

    For `network.apply(normal_weights)`.
    """
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.constant_(module.bias, 0.0)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


class Down(nn.Module):
    """Half the size: a 4×4 convolution of stride 2, batchnorm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, norm: bool = True) -> None:
        self.conv = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=not norm)
        self.norm = nn.BatchNorm2d(outputs, negative_slope=0.2) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)  # (N, H/2, W/2, outputs)
        return F.leaky_relu(x, 0.2) if self.norm is None else self.norm(x)


class Up(nn.Module):
    """Back to the size of `skip`, which is then set beside the result."""

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0) -> None:
        self.conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs, negative_slope=0.0)  # and ReLU
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        # A size that was odd on the way down was rounded: the pixel lost is given back here.
        self.conv.output_padding = skip.shape[1] - 2 * x.shape[1], skip.shape[2] - 2 * x.shape[2]
        x = self.dropout(self.norm(self.conv(x)))  # (N, 2H, 2W, outputs)
        return F.concatenate([x, skip], axis=3)


class UNet(nn.Module):
    """Image in, image out: down to a summary, and up again with every level's detail at hand.

    Ronneberger et al. 2015, as pix2pix's generator: channels width · (1, 2, 4, 8, 8, ...), 4×4
    kernels, tanh at the end.

    Args:
        channels: of the input and output images.
        width: channels of the first level.
        depth: how often the size is halved; images need at least 2^depth pixels a side.
        dropout: in the innermost two levels on the way up. pix2pix has 0.5 there, in place of a
            noise input; for the emoji it cost a tenth of the quality.
    """

    def __init__(
        self, channels: int = 3, width: int = 32, depth: int = 5, dropout: float = 0.0
    ) -> None:
        sizes = [width * min(2**level, 8) for level in range(depth)]  # 32 64 128 256 256
        self.depth = depth
        self.down = nn.ModuleList(
            Down(before, after, norm=0 < level < depth - 1)
            for level, (before, after) in enumerate(zip([channels, *sizes], sizes, strict=False))
        )
        inputs = [sizes[-1], *(2 * n for n in sizes[-2:0:-1])]
        self.up = nn.ModuleList(
            Up(before, after, dropout if level < 2 else 0.0)
            for level, (before, after) in enumerate(zip(inputs, sizes[-2::-1], strict=True))
        )
        self.last = nn.ConvTranspose2d(2 * width, channels, 4, stride=2, padding=1)
        self.apply(normal_weights)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, channels) in [-1, 1] -> the same.

        Raises:
            ValueError: images too small to be halved `depth` times.
        """
        if min(x.shape[1:3]) < 2**self.depth:
            raise ValueError(f"UNet: {self.depth} levels need {2**self.depth} pixels, {x.shape}")
        size, skips = x.shape[1:3], []
        for down in self.down:
            x = down(x)  # (N, H/2, W/2, width) ... (N, H/32, W/32, 8·width)
            skips.append(x)
        for up, skip in zip(self.up, skips[-2::-1], strict=True):
            x = up(x, skip)  # (N, H/16, W/16, 16·width) ... (N, H/2, W/2, 2·width)
        self.last.output_padding = size[0] - 2 * x.shape[1], size[1] - 2 * x.shape[2]
        return F.tanh(self.last(x))  # (N, H, W, channels)


class PatchGAN(nn.Module):
    """Scores overlapping patches of an image, given the drawing it was made from.

    Isola et al. 2017, section 3.2: each score sees 34×34 pixels (two halvings), which suits images
    of 64; the paper's 70×70 has one level more.

    Args:
        channels: of drawing and image together.
        width: channels of the first level.
    """

    def __init__(self, channels: int = 6, width: int = 32) -> None:
        self.layers = nn.Sequential(
            Down(channels, width, norm=False),  # (N, H/2, W/2, width)
            Down(width, 2 * width),  # (N, H/4, W/4, 2·width)
            nn.Conv2d(2 * width, 4 * width, 4, padding=1, bias=False),  # (N, H/4 - 1, ..., 4·width)
            nn.BatchNorm2d(4 * width, negative_slope=0.2),
            nn.Conv2d(4 * width, 1, 4, padding=1),  # (N, H/4 - 2, W/4 - 2, 1)
        )
        self.apply(normal_weights)

    def forward(self, drawing: Tensor, image: Tensor) -> Tensor:
        """Return logits, (N, H/4 - 2, W/4 - 2, 1): large where a patch looks real."""
        return self.layers(F.concatenate([drawing, image], axis=3))
