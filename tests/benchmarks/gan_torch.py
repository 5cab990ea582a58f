"""The DCGAN of examples/dcgan.py in PyTorch, as PyTorch is usually written: to compare the images.

    pip install -e '.[bench,examples]'
    python tests/benchmarks/gan_torch.py --seed 0 --out runs/gan_torch-0
    python examples/evaluate.py runs/dcgan-0 runs/gan_torch-0

Networks, distributions of the first weights, data and their order, batch, steps, optimiser and the
fall of its rate are those of the script. Ten times over the run it writes 12,000 images, from which
evaluate.py judges it as it judges a run: 10,000 in full, and the others to choose the best.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from minigan import data, training
from minigan.training.generators import SNAPSHOTS

SAMPLES = 12000
SETTINGS = ("steps", "seed", "data", "size", "batch", "width", "z", "limit", "lr")


def normal_weights(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def make_generator(size: int, channels: int, width: int, z: int) -> nn.Module:
    deep = width * size // 8
    layers = [
        nn.Linear(z, 16 * deep, bias=False),
        nn.Unflatten(1, (deep, 4, 4)),
        nn.BatchNorm2d(deep),
        nn.ReLU(inplace=True),
    ]
    while deep > width:
        layers.append(nn.ConvTranspose2d(deep, deep // 2, 4, stride=2, padding=1, bias=False))
        deep //= 2
        layers += [nn.BatchNorm2d(deep), nn.ReLU(inplace=True)]
    layers += [nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1), nn.Tanh()]
    return nn.Sequential(*layers).apply(normal_weights)


def make_discriminator(size: int, channels: int, width: int) -> nn.Module:
    deep = width * size // 8
    layers = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
    while width < deep:
        layers.append(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False))
        width *= 2
        layers += [nn.BatchNorm2d(width), nn.LeakyReLU(0.2, inplace=True)]
    layers += [nn.Flatten(), nn.Linear(16 * deep, 1)]
    return nn.Sequential(*layers).apply(normal_weights)


def judged(scores: torch.Tensor, real: bool) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(real)))


def fall(steps: int) -> Callable[[int], float]:
    """What the rate is multiplied by: 1 for half of the steps, then down to 0."""
    half = steps // 2
    return lambda step: 1 - max(0, step - half) / (steps - half)


def write_images(path: Path, generator: nn.Module, z: int, seed: int) -> None:
    """An archive with `images`, uint8 (SAMPLES, H, W, C)."""
    noise = np.random.default_rng(seed).standard_normal((SAMPLES, z), dtype=np.float32)
    generator.eval()
    with torch.no_grad():
        parts = [generator(torch.from_numpy(part)).numpy() for part in np.split(noise, 48)]
    generator.train()
    images = data.to_bytes(np.concatenate(parts).transpose(0, 2, 3, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, images=images)


def main() -> int:
    parser = argparse.ArgumentParser(description="The recipe of examples/dcgan.py in PyTorch.")
    training.gan_flags(parser, out="runs/gan_torch", steps=6000, width=32)
    parser.add_argument("--lr", type=float, default=5e-4, help="first rate (default: 5e-4)")
    parser.add_argument("--threads", type=training.positive_int, default=2, help="default: 2")
    args = training.parse_gan_flags(parser)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    config = {name: getattr(args, name) for name in SETTINGS}
    config = {"script": "gan_torch", "config": config, "versions": {"torch": torch.__version__}}
    (args.out / "config.json").write_text(json.dumps(config, indent=2))

    images = training.load_real(args).images
    batches = data.Batches(len(images), args.batch, args.seed)
    random = np.random.default_rng(args.seed)
    generator = make_generator(args.size, images.shape[3], args.width, args.z)
    discriminator = make_discriminator(args.size, images.shape[3], args.width)
    adam_g = torch.optim.Adam(generator.parameters(), lr=args.lr, betas=(0.5, 0.999))
    adam_d = torch.optim.Adam(discriminator.parameters(), lr=args.lr, betas=(0.5, 0.999))

    falling = fall(args.steps)
    decay = [torch.optim.lr_scheduler.LambdaLR(adam, falling) for adam in (adam_g, adam_d)]

    seconds = 0.0  # of training: the images are not counted
    for step in range(1, args.steps + 1):
        begun = time.perf_counter()
        chosen = data.to_unit(images[next(batches)]).transpose(0, 3, 1, 2)
        real = torch.from_numpy(np.ascontiguousarray(chosen))
        noise = random.standard_normal((args.batch, args.z), dtype=np.float32)
        fake = generator(torch.from_numpy(noise))

        on_real, on_fake = discriminator(real), discriminator(fake.detach())
        d_loss = judged(on_real, True) + judged(on_fake, False)
        adam_d.zero_grad()
        d_loss.backward()
        adam_d.step()

        discriminator.requires_grad_(False)
        g_loss = judged(discriminator(fake), True)
        adam_g.zero_grad()
        g_loss.backward()
        adam_g.step()
        discriminator.requires_grad_(True)
        for schedule in decay:
            schedule.step()

        seconds += time.perf_counter() - begun
        if step % -(-args.steps // SNAPSHOTS) == 0 or step == args.steps:
            write_images(args.out / "generators" / f"{step:08d}.npz", generator, args.z, args.seed)
            print(f"step {step}: d {d_loss.item():.3f} g {g_loss.item():.3f}, {seconds:.0f} s")
    content = {"steps": args.steps, "seconds": seconds}
    (args.out / "metrics.json").write_text(json.dumps(content, indent=2))
    return 0


if __name__ == "__main__":
    with training.plain_errors():
        sys.exit(main())
