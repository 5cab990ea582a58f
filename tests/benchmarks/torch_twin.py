"""The same networks, weights, data and step in PyTorch, as PyTorch is usually written: NCHW.

One call comes after the other: on a second thread the discriminator gained nothing (docs/speed.md).
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from workloads import BETAS, Sizes, data, networks

import minigan


def convolution(layer: minigan.nn.Module) -> nn.Module:
    """The twin of a convolution, transposed or not: (KH, KW, a, b) becomes (b, a, KH, KW)."""
    kh, kw, a, b = layer.weight.shape
    options = {"stride": layer.stride, "padding": layer.padding, "bias": layer.bias is not None}
    if isinstance(layer, minigan.nn.ConvTranspose2d):
        twin = nn.ConvTranspose2d(b, a, (kh, kw), **options)
    else:
        twin = nn.Conv2d(a, b, (kh, kw), **options)
    put(twin.weight, layer.weight.numpy().transpose(3, 2, 0, 1))
    if layer.bias is not None:
        put(twin.bias, layer.bias.numpy())
    return twin


def put(parameter: torch.Tensor, array) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(array.copy()))


def batch_norm(layer: minigan.nn.Module) -> nn.Module:
    twin = nn.BatchNorm2d(layer.weight.size)
    put(twin.weight, layer.weight.numpy())
    put(twin.bias, layer.bias.numpy())
    return twin


def dense(layer: minigan.nn.Module, size: int) -> nn.Module:
    """The twin of Dense after Flatten, whose inputs PyTorch flattens channels first."""
    inputs, outputs = layer.weight.shape
    channels = inputs // size**2
    weight = layer.weight.numpy().reshape(size, size, channels, outputs)
    twin = nn.Linear(inputs, outputs)
    put(twin.weight, weight.transpose(3, 2, 0, 1).reshape(outputs, inputs))
    put(twin.bias, layer.bias.numpy())
    return twin


def sequential(layers: minigan.nn.Sequential, size: int) -> nn.Sequential:
    twins = {
        "Conv2d": convolution,
        "ConvTranspose2d": convolution,
        "BatchNorm2d": batch_norm,
        "ReLU": lambda _: nn.ReLU(inplace=True),
        "LeakyReLU": lambda _: nn.LeakyReLU(0.2, inplace=True),
        "Tanh": lambda _: nn.Tanh(),
        "Flatten": lambda _: nn.Flatten(),
        "Linear": lambda layer: dense(layer, size),
    }

    def unrolled(module):
        for layer in module:
            if type(layer).__name__ == "Down":
                yield convolution(layer.conv)
                if layer.norm is not None:
                    yield batch_norm(layer.norm)
                yield nn.LeakyReLU(0.2, inplace=True)
            else:
                yield twins[type(layer).__name__](layer)
                slope = getattr(layer, "negative_slope", 1.0)
                if isinstance(layer, minigan.nn.BatchNorm2d) and slope != 1:
                    yield nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)

    return nn.Sequential(*unrolled(layers))


class UNet(nn.Module):
    """The twin of minigan.models.UNet without dropout, for sizes that halve evenly."""

    def __init__(self, network: minigan.nn.Module) -> None:
        super().__init__()
        self.down = nn.ModuleList(sequential([layer], 0) for layer in network.down)
        self.up = nn.ModuleList(
            nn.Sequential(convolution(layer.conv), batch_norm(layer.norm), nn.ReLU(inplace=True))
            for layer in network.up
        )
        self.last = convolution(network.last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        for up, skip in zip(self.up, skips[-2::-1], strict=True):
            x = torch.cat([up(x), skip], dim=1)
        return torch.tanh(self.last(x))


def torch_step(
    workload: str, sizes: Sizes, device: str = "cpu"
) -> Callable[[], tuple[float, float]]:
    """A function that trains for one step and returns both losses."""
    ours_g, ours_d = networks(workload, sizes)
    if workload == "dcgan":
        generator, discriminator = sequential(ours_g, 0), sequential(ours_d, 0)
    else:
        discriminator = sequential(ours_d.layers, sizes.image)
        generator = UNet(ours_g) if workload == "pix2pix" else sequential(ours_g.layers, 0)
    generator.to(device), discriminator.to(device)
    source, real = (
        torch.from_numpy(a).permute(0, 3, 1, 2).contiguous().to(device)
        for a in data(workload, sizes)
    )
    adam_g = torch.optim.Adam(generator.parameters(), 2e-4, BETAS)
    adam_d = torch.optim.Adam(discriminator.parameters(), 2e-4, BETAS)

    def judge(image: torch.Tensor) -> torch.Tensor:
        both = torch.cat([source, image], dim=1) if workload == "pix2pix" else image
        return discriminator(both)

    def judged(logits: torch.Tensor, real: bool) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))

    def step() -> tuple[float, float]:
        fake = generator(source)
        d_loss = (judged(judge(real), True) + judged(judge(fake.detach()), False)) * 0.5
        adam_d.zero_grad()
        d_loss.backward()
        adam_d.step()
        if workload != "dcgan":
            discriminator.requires_grad_(False)
        g_loss = judged(judge(fake), True)
        if workload != "dcgan":
            g_loss = g_loss + F.l1_loss(fake, real) * 100.0
        adam_g.zero_grad()
        g_loss.backward()
        adam_g.step()
        discriminator.requires_grad_(True)
        return d_loss.item(), g_loss.item()

    return step
