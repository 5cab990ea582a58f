"""Floor 4: a small convolutional classifier, by whose last but one layer images are judged."""

from __future__ import annotations

from minigan import functional as F
from minigan import nn
from minigan.tensor import Tensor


class ImageClassifier(nn.Module):
    """Two convolutions, each with pooling, batchnorm and ReLU, then two dense layers.

    Args:
        image_shape: (H, W, C); H and W at least 4. It is kept as an attribute.
        classes: how many there are.
        width: channels of the first convolution; the second has twice as many.
        features: numbers that are left of an image before the last layer.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (32, 32, 1),
        classes: int = 10,
        width: int = 32,
        features: int = 128,
    ) -> None:
        height, across, channels = self.image_shape = tuple(image_shape)
        if min(height, across) < 4:
            raise ValueError(f"ImageClassifier: images of 4 pixels or more, not {image_shape}")
        self.seen = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),  # (N, H, W, width)
            nn.MaxPool2d(2),  # (N, H/2, W/2, width): first, so that the rest has less to do
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
            nn.MaxPool2d(2),  # (N, H/4, W/4, 2·width)
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear((height // 4) * (across // 4) * 2 * width, features),
        )
        self.dropout = nn.Dropout(0.3)
        self.last = nn.Linear(features, classes)

    def features(self, x: Tensor) -> Tensor:
        """(N, H, W, C) in [-1, 1] -> (N, features), 0 or more."""
        return F.relu(self.seen(x))

    def classify(self, features: Tensor) -> Tensor:
        """(N, features) -> logits (N, classes)."""
        return self.last(self.dropout(features))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (N, classes)."""
        return self.classify(self.features(x))
