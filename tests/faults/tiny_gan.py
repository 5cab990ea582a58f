"""A whole GAN in miniature, for breaking: batch norm, dropout, two Adams, schedules, an average.

    python tiny_gan.py --out DIR --steps 20 [--resume]

A script like those in examples/, but a step takes a few milliseconds. The last flags break things
on purpose.
"""

import argparse
import os
import shutil
import signal
import sys
import time

import numpy as np

import minigan as mg
from minigan import data, losses, nn, optim, training
from minigan.ema import EMA

BREAKERS = ("die_at", "sleep", "remove_at")  # no settings of the training


def parse_flags(argv):
    parser = argparse.ArgumentParser()
    training.standard_flags(parser, out="runs/tiny", steps=20)
    parser.add_argument("--every", type=int, default=1, help="steps between checkpoints")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--count", type=int, default=10, help="images in the data set")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--kernel", type=int, default=4)
    parser.add_argument("--nan-image", type=int, help="this image of the data holds a NaN")
    parser.add_argument("--die-at", type=int, help="SIGKILL after the checkpoint of this step")
    parser.add_argument("--sleep", type=float, default=0.0, help="seconds in every step")
    parser.add_argument("--remove-at", type=int, help="delete --out in this step")
    return parser.parse_args(argv)


class ToImage(nn.Module):
    def forward(self, x):
        return x.reshape(x.shape[0], 3, 3, -1)


def make_networks(args):
    generator = nn.Sequential(
        nn.Linear(4, 9 * args.width),
        ToImage(),
        nn.BatchNorm2d(args.width),
        nn.ReLU(),
        nn.ConvTranspose2d(args.width, 1, 4, stride=2, padding=1),  # (N, 6, 6, 1)
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, args.width, args.kernel, stride=2, padding=1),  # (N, 3, 3, width)
        nn.BatchNorm2d(args.width),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(9 * args.width, 1),
    )
    return generator, discriminator


def judged(logits, real):
    labels = np.full(logits.shape, real, np.float32)
    return losses.binary_cross_entropy_with_logits(logits, labels)


def darkness(generator):
    """A number to choose the best by: the mean pixel of images from fixed noise."""
    noise = np.random.default_rng(2).normal(size=(2, 4)).astype(np.float32)
    with mg.no_grad():
        return float(generator(mg.Tensor(noise)).numpy().mean())


def main(argv=None):
    args = parse_flags(argv)
    mg.use(args.device)
    mg.manual_seed(args.seed)
    config = {name: value for name, value in vars(args).items() if name not in BREAKERS}
    images = np.random.default_rng(1).uniform(-1, 1, (args.count, 6, 6, 1)).astype(np.float32)
    if args.nan_image is not None:
        images[args.nan_image, 0, 0] = np.nan

    generator, discriminator = make_networks(args)
    average = EMA(generator, decay=0.9)
    adam_g = optim.Adam(generator.parameters(), args.lr, (0.5, 0.999))
    adam_d = optim.Adam(discriminator.parameters(), args.lr, (0.5, 0.999))
    decay_g, decay_d = (optim.LinearDecay(a, args.steps + 1) for a in (adam_g, adam_d))
    batches = data.Batches(args.count, args.batch, args.seed)
    parts = {"g": generator, "d": discriminator, "average": average, "batches": batches}
    parts |= {"adam_g": adam_g, "adam_d": adam_d, "decay_g": decay_g, "decay_d": decay_d}
    run = training.Run(args.out, config, args.steps, args.batch, args.resume)
    first = training.resume(run, parts) if args.resume else 0

    for step in run.steps(first):
        if step == args.remove_at:
            shutil.rmtree(args.out)
        real = mg.Tensor(images[next(batches)])
        noise = mg.generator().normal(size=(args.batch, 4)).astype(np.float32)
        fake = generator(mg.Tensor(noise))
        d = judged(discriminator(real), True) + judged(discriminator(fake.detach()), False)
        adam_d.zero_grad()
        d.backward()
        adam_d.step()

        discriminator.requires_grad_(False)
        g = judged(discriminator(fake), True)
        adam_g.zero_grad()
        g.backward()
        adam_g.step()
        discriminator.requires_grad_(True)
        average.update()
        decay_g.step()
        decay_d.step()
        time.sleep(args.sleep)

        run.log(step, d=d.item(), g=g.item())
        if run.due(step, args.every):
            training.save(run, parts, step, best={"darkness": darkness(average.module)})
        if step == args.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
    if run.interrupted:
        return run.exit_code
    run.write_metrics({"steps": args.steps, "darkness": darkness(average.module)})
    return 0


if __name__ == "__main__":
    with training.plain_errors():
        sys.exit(main())
