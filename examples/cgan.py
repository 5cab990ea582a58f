"""Make clothes of a given kind from noise: a conditional GAN with a projection discriminator.

    python examples/cgan.py

A DCGAN whose generator is told the class (Mirza and Osindero 2014) through its batch normalisation,
and whose discriminator asks whether an image looks real and like one of its class (Miyato and
Koyama 2018). samples.png has a row for each class.

Cost: ten minutes on two cores. Expect rows that can be told apart after 600 steps, and within each
as many sorts of shirt as there are columns.
"""

import argparse
import sys

import numpy as np

import minigan as mg
from minigan import data, losses, optim, training
from minigan import functional as F
from minigan.models import ConditionalGenerator, ProjectionDiscriminator


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make images of a given class with a conditional GAN.",
        epilog=training.WROTE,
    )
    training.gan_flags(parser, out="runs/cgan", steps=6000, width=32)
    return training.parse_gan_flags(parser)


def judged(scores: mg.Tensor, real: bool) -> mg.Tensor:
    """How far the discriminator is from calling all of this real, or all of it fake."""
    return losses.binary_cross_entropy_with_logits(scores, float(real))


def main() -> int:
    args = parse_flags()
    training.require_extras("PIL", "tqdm", "matplotlib")
    mg.use(args.device)
    mg.manual_seed(args.seed)

    found = training.load_real(args)
    images, classes = found.images, len(found.classes)  # bytes, (N, 32, 32, 1)
    batches = data.Batches(len(images), args.batch, args.seed)
    generator = ConditionalGenerator(images.shape[1:], classes, args.width, args.z)
    discriminator = ProjectionDiscriminator(images.shape[1:], classes, args.width)
    # For minutes of training, as in dcgan.py; DCGAN's paper has a rate of 2e-4.
    adam_g = optim.Adam(generator.parameters(), lr=5e-4, betas=(0.5, 0.999))
    adam_d = optim.Adam(discriminator.parameters(), lr=5e-4, betas=(0.5, 0.999))
    decay = [optim.LinearDecay(adam, args.steps, args.steps // 2) for adam in (adam_g, adam_d)]
    run = training.Run(args.out, vars(args), args.steps, args.batch, args.resume)
    parts = {"g": generator, "d": discriminator, "adam_g": adam_g, "adam_d": adam_d}
    parts |= {"batches": batches, "decay_g": decay[0], "decay_d": decay[1]}
    first = training.resume(run, parts) if args.resume else 0

    for step in run.steps(first):
        chosen = next(batches)
        real, labels = mg.Tensor(data.to_unit(images[chosen])), found.labels[chosen]
        noise = mg.generator().standard_normal((args.batch, args.z), np.float32)
        # Of the same classes as the real ones, which the discriminator can look at meanwhile.
        fake, on_real = mg.side_by_side(
            (generator, mg.Tensor(noise), labels), (discriminator, real, labels)
        )

        # The discriminator learns to tell real images from generated ones, a batch of each.
        on_fake = discriminator(fake.detach(), labels)
        d_loss = judged(on_real, True) + judged(on_fake, False)
        adam_d.zero_grad()
        d_loss.backward()
        adam_d.step()

        # The generator learns to fool it, frozen.
        discriminator.requires_grad_(False)
        g_loss = judged(discriminator(fake, labels), True)
        adam_g.zero_grad()
        g_loss.backward()
        adam_g.step()
        discriminator.requires_grad_(True)
        for schedule in decay:
            schedule.step()

        # D(x) and D(G(z)): how real both kinds look to it, from 0 to 1.
        seen = [F.mean(F.sigmoid(scores)) for scores in (on_real, on_fake)]
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
