"""Floor 4: the two networks of the article, as printed; docs/article.md says how they fare."""

from __future__ import annotations

from minigan import nn
from minigan.models.pix2pix import normal_weights
from minigan.tensor import Tensor


def three_convolutions(width: int) -> list[nn.Module]:
    """Return the stack that both networks begin with: 3×3 convolution, batchnorm, ReLU, thrice."""
    layers: list[nn.Module] = []
    for inputs in (3, width, width):
        layers.append(nn.Conv2d(inputs, width, 3, padding=1))  # (N, H, W, width)
        layers.append(nn.BatchNorm2d(width, negative_slope=0.0))  # and ReLU
    return layers


class ArticleGenerator(nn.Module):
    """Image in, image out, at full size throughout: every output pixel sees 11×11 input pixels.

    Args:
        width: channels inside; the article has 64.
    """

    def __init__(self, width: int = 64) -> None:
        self.layers = nn.Sequential(
            *three_convolutions(width),  # (N, H, W, width)
            nn.Conv2d(width, 3, 3, padding=1),  # (N, H, W, 3)
            nn.Tanh(),
            nn.Conv2d(3, 3, 3, padding=1),  # after tanh, as printed: nothing bounds the output
        )
        self.apply(normal_weights)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, 3) in [-1, 1] -> (N, H, W, 3), mostly in [-1, 1]."""
        return self.layers(x)


class ArticleDiscriminator(nn.Module):
    """One score for a whole image: the same three convolutions, Flatten, Dense(1).

    Args:
        size: height and width of the images, which Dense(1) depends on; the article has 100.
        width: channels inside; the article has 64.
    """

    def __init__(self, size: int = 100, width: int = 64) -> None:
        self.layers = nn.Sequential(
            *three_convolutions(width),  # (N, size, size, width)
            nn.Flatten(),  # (N, size·size·width): 640,000 as printed
            nn.Linear(size * size * width, 1),  # (N, 1)
        )
        self.apply(normal_weights)

    def forward(self, drawing: Tensor, image: Tensor) -> Tensor:
        """Return logits, (N, 1). The article's judge does not see the drawing."""
        return self.layers(image)
