"""Make clothes from noise with a deep convolutional GAN (Radford et al. 2015), on Fashion-MNIST.

    python examples/dcgan.py

The generator makes an image of 100 random numbers. The discriminator sees images, some of them
real, and says which. Each learns from the other, and nothing else says what an image should be.

Cost: nine minutes on two cores. Expect blots in the shape of clothes after 400 steps, and most
kinds after a thousand. What stays difficult are sandals, bags and prints.

`--loss lsgan` asks the discriminator for a number near 1 or 0, and takes the square of its error
(Mao et al. 2016, arXiv 1611.04076) in place of the logarithm of a probability.

`--data mnist`, `digits` or `emoji` makes other things; `--gif` films it. Where images are few, as
those of the emoji, the discriminator learns them by heart: `--augment` shows it none unchanged.
"""

import argparse
import sys

import numpy as np

import minigan as mg
from minigan import data, losses, optim, training
from minigan import functional as F
from minigan.models import DCGANDiscriminator, DCGANGenerator


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make images from noise with a deep convolutional GAN.", epilog=training.WROTE
    )
    training.gan_flags(parser, out="runs/dcgan", steps=6000, width=32)
    parser.add_argument("--loss", choices=["gan", "lsgan"], default="gan", help="default: gan")
    parser.add_argument("--augment", action="store_true", help="DiffAugment, for few images")
    return training.parse_gan_flags(parser)


def judged(scores: mg.Tensor, real: bool, loss: str) -> mg.Tensor:
    """How far the discriminator is from calling all of this real, or all of it fake."""
    if loss == "lsgan":
        error = scores - float(real)
        return F.mean(error * error) * 0.5
    return losses.binary_cross_entropy_with_logits(scores, float(real))


def main() -> int:
    args = parse_flags()
    training.require_extras("PIL", "tqdm", "matplotlib")
    mg.use(args.device)
    mg.manual_seed(args.seed)

    images = training.load_real(args).images  # bytes, (N, 32, 32, 1)
    batches = data.Batches(len(images), args.batch, args.seed)
    generator = DCGANGenerator(images.shape[1:], args.width, args.z)
    discriminator = DCGANDiscriminator(images.shape[1:], args.width)
    # The paper has a rate of 2e-4, for hours of training. For minutes this is better: a Fréchet
    # classifier distance of 112 in place of 162 after 2,000 steps.
    adam_g = optim.Adam(generator.parameters(), lr=5e-4, betas=(0.5, 0.999))
    adam_d = optim.Adam(discriminator.parameters(), lr=5e-4, betas=(0.5, 0.999))
    decay = [optim.LinearDecay(adam, args.steps, args.steps // 2) for adam in (adam_g, adam_d)]
    run = training.Run(args.out, vars(args), args.steps, args.batch, args.resume)
    parts = {"g": generator, "d": discriminator, "adam_g": adam_g, "adam_d": adam_d}
    parts |= {"batches": batches, "decay_g": decay[0], "decay_d": decay[1]}
    first = training.resume(run, parts) if args.resume else 0

    def shown(x: mg.Tensor) -> mg.Tensor:
        """Images as the discriminator sees them: with --augment changed at random, of both kinds.

        Zhao et al. 2020 (arXiv 2006.10738). G's gradient goes through the change.
        """
        return data.diff_augment(x) if args.augment else x

    for step in run.steps(first):
        real = mg.Tensor(data.to_unit(images[next(batches)]))
        noise = mg.generator().standard_normal((args.batch, args.z), np.float32)
        # While the generator makes its images, the discriminator can look at the real ones.
        fake, on_real = mg.side_by_side((generator, mg.Tensor(noise)), (discriminator, shown(real)))

        # The discriminator learns to tell real images from generated ones, a batch of each.
        on_fake = discriminator(shown(fake.detach()))
        d_loss = judged(on_real, True, args.loss) + judged(on_fake, False, args.loss)
        adam_d.zero_grad()
        d_loss.backward()
        adam_d.step()

        # The generator learns to fool it, frozen.
        discriminator.requires_grad_(False)
        g_loss = judged(discriminator(shown(fake)), True, args.loss)
        adam_g.zero_grad()
        g_loss.backward()
        adam_g.step()
        discriminator.requires_grad_(True)
        for schedule in decay:
            schedule.step()

        # D(x) and D(G(z)): how real both kinds look to it, from 0 to 1.
        seen = [F.mean(F.sigmoid(s) if args.loss == "gan" else s) for s in (on_real, on_fake)]
        now = F.stack([d_loss, g_loss, *seen]).numpy().tolist()  # one wait for a GPU
        run.log(step, **dict(zip(("d", "g", "d_x", "d_gz"), now, strict=True)))
        training.save_snapshot(run, step, generator)
        if run.due(step, every=200):
            training.save(run, parts, step)
            training.show_generator(run, step, generator)
    if run.interrupted:
        return run.exit_code

    training.show_end(run, generator, images)
    run.write_metrics({"steps": args.steps, "seconds": run.seconds})
    print(f"{args.steps} steps in {run.seconds:.0f} s; look at {run.path('samples.png')}")
    return 0


if __name__ == "__main__":
    with training.plain_errors():
        sys.exit(main())
