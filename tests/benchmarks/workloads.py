"""The training steps that are timed: networks and data for minigan, and the same in PyTorch.

A step is what an example does: D on real and on generated images, Adam; G through D, Adam. D's
weight gradients are computed in both halves in `dcgan`, as PyTorch's own example does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import minigan as mg
from minigan import losses, nn, optim
from minigan.models import ArticleDiscriminator, ArticleGenerator, PatchGAN, UNet, normal_weights

BETAS = (0.5, 0.999)


@dataclass
class Sizes:
    """What `--scale` varies."""

    batch: int
    image: int
    width: int


DEFAULTS = {
    "dcgan": Sizes(batch=64, image=32, width=64),
    "pix2pix": Sizes(batch=16, image=64, width=32),
    "article": Sizes(batch=4, image=100, width=64),
}
MULTIPLE = {"dcgan": 8, "pix2pix": 32, "article": 1}  # of which an image's sides must be one


def dcgan_generator(image: int, width: int) -> nn.Module:
    """z (N, 1, 1, 100) -> images (N, image, image, 1), from 4·width channels at an eighth."""
    first = image // 8
    return nn.Sequential(
        nn.ConvTranspose2d(100, 4 * width, first, bias=False),  # (N, image/8, image/8, 4·width)
        nn.BatchNorm2d(4 * width, negative_slope=0.0),  # and ReLU
        nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(2 * width, negative_slope=0.0),  # and ReLU
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width, negative_slope=0.0),  # and ReLU
        nn.ConvTranspose2d(width, 1, 4, 2, 1, bias=False),  # (N, image, image, 1)
        nn.Tanh(),
    ).apply(normal_weights)


def dcgan_discriminator(image: int, width: int) -> nn.Module:
    """Images (N, image, image, 1) -> logits (N, 1, 1, 1)."""
    return nn.Sequential(
        nn.Conv2d(1, width, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(2 * width, negative_slope=0.2),
        nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(4 * width, negative_slope=0.2),
        nn.Conv2d(4 * width, 1, image // 8, bias=False),  # (N, 1, 1, 1)
    ).apply(normal_weights)


def networks(workload: str, sizes: Sizes) -> tuple[nn.Module, nn.Module]:
    """The generator and the discriminator, with the same weights every time."""
    mg.manual_seed(0)
    if workload == "dcgan":
        return dcgan_generator(sizes.image, sizes.width), dcgan_discriminator(
            sizes.image, sizes.width
        )
    if workload == "article":
        return ArticleGenerator(sizes.width), ArticleDiscriminator(sizes.image, sizes.width)
    return UNet(width=sizes.width), PatchGAN(width=sizes.width)


def data(workload: str, sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """What the generator reads, and the real images; float32, channels last, in [-1, 1]."""
    random = np.random.default_rng(0)
    channels = 1 if workload == "dcgan" else 3
    shape = (sizes.batch, sizes.image, sizes.image, channels)
    real = random.uniform(-1, 1, shape).astype(np.float32)
    if workload == "dcgan":
        return random.standard_normal((sizes.batch, 1, 1, 100), dtype=np.float32), real
    return random.uniform(-1, 1, shape).astype(np.float32), real


def judged(logits: mg.Tensor, real: bool) -> mg.Tensor:
    return losses.binary_cross_entropy_with_logits(logits, float(real))


def minigan_step(workload: str, sizes: Sizes) -> Callable[[], tuple[float, float]]:
    """A function that trains for one step and returns both losses."""
    generator, discriminator = networks(workload, sizes)
    source, real = (mg.Tensor(array) for array in data(workload, sizes))
    adam_g = optim.Adam(generator.parameters(), 2e-4, BETAS)
    adam_d = optim.Adam(discriminator.parameters(), 2e-4, BETAS)

    def judge(image: mg.Tensor) -> mg.Tensor:
        return discriminator(image) if workload == "dcgan" else discriminator(source, image)

    def step() -> tuple[float, float]:
        fake, on_real = mg.side_by_side((generator, source), (judge, real))
        d_loss = (judged(on_real, True) + judged(judge(fake.detach()), False)) * 0.5
        adam_d.zero_grad()
        d_loss.backward()
        adam_d.step()
        if workload != "dcgan":
            discriminator.requires_grad_(False)
        g_loss = judged(judge(fake), True)
        if workload != "dcgan":
            g_loss = g_loss + losses.l1(fake, real) * 100.0
        adam_g.zero_grad()
        g_loss.backward()
        adam_g.step()
        discriminator.requires_grad_(True)
        return d_loss.item(), g_loss.item()

    return step
