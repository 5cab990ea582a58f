"""Make clothes from noise with a residual GAN with spectral normalisation, on Fashion-MNIST.

    python examples/sngan.py

Every weight of the discriminator is divided by its largest singular value, which bounds how much
larger a layer can make a difference (Miyato et al. 2018). Nothing is clipped and no second
derivative is needed: a power iteration at each call keeps track of the singular values. The loss is
the hinge, which leaves alone what is on the right side by 1 or more.

Cost: ten minutes on two cores, for a small part of the paper's training: 2,500 steps of much
narrower networks. Expect clothes of all kinds, many of them torn, and a fine grid on them.
"""

import argparse
import sys

import numpy as np

import minigan as mg
from minigan import data, losses, optim, training
from minigan import functional as F
from minigan.models import ResNetDiscriminator, ResNetGenerator


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make images from noise with a residual GAN with spectral normalisation.",
        epilog=training.WROTE,
    )
    training.gan_flags(parser, out="runs/sngan", steps=2500, batch=32, width=16, z=128)
    return training.parse_gan_flags(parser)


def main() -> int:
    args = parse_flags()
    training.require_extras("PIL", "tqdm", "matplotlib")
    mg.use(args.device)
    mg.manual_seed(args.seed)

    images = training.load_real(args).images  # bytes, (N, 32, 32, 1)
    batches = data.Batches(len(images), args.batch, args.seed)
    generator = ResNetGenerator(images.shape[1:], args.width, args.z)
    discriminator = ResNetDiscriminator(images.shape[1:], args.width)
    # One step of D for one of G, and these betas: setting C of SNGAN's table 1. Its rate is 2e-4,
    # for 100,000 steps; a few thousand want a larger one, that falls to 0 in the second half.
    adam_g = optim.Adam(generator.parameters(), lr=5e-4, betas=(0.5, 0.999))
    adam_d = optim.Adam(discriminator.parameters(), lr=5e-4, betas=(0.5, 0.999))
    decay = [optim.LinearDecay(adam, args.steps, args.steps // 2) for adam in (adam_g, adam_d)]
    run = training.Run(args.out, vars(args), args.steps, args.batch, args.resume)
    parts = {"g": generator, "d": discriminator, "adam_g": adam_g, "adam_d": adam_d}
    parts |= {"decay_g": decay[0], "decay_d": decay[1], "batches": batches}
    first = training.resume(run, parts) if args.resume else 0

    for step in run.steps(first):
        real = mg.Tensor(data.to_unit(images[next(batches)]))
        noise = mg.generator().standard_normal((args.batch, args.z), np.float32)
        # While the generator makes its images, the discriminator can look at the real ones.
        fake, on_real = mg.side_by_side((generator, mg.Tensor(noise)), (discriminator, real))

        # The discriminator learns to score real images above 1 and generated ones below -1.
        on_fake = discriminator(fake.detach())
        d_loss = losses.hinge(on_real, real=True) + losses.hinge(on_fake, real=False)
        adam_d.zero_grad()
        d_loss.backward()
        adam_d.step()

        # The generator learns to raise the scores of its images, the discriminator frozen.
        discriminator.requires_grad_(False)
        g_loss = -discriminator(fake).mean()
        adam_g.zero_grad()
        g_loss.backward()
        adam_g.step()
        discriminator.requires_grad_(True)
        for schedule in decay:
            schedule.step()

        # Beside the scores: the share of both kinds that is on the wrong side.
        wrong = float(((on_real <= 0).numpy().mean() + (on_fake >= 0).numpy().mean()) / 2)
        now = F.stack([d_loss, g_loss, on_real.mean(), on_fake.mean()]).numpy().tolist()
        run.log(step, **dict(zip(("d", "g", "d_x", "d_gz"), now, strict=True)), wrong=wrong)
        training.save_snapshot(run, step, generator)
        if run.due(step, every=250):
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
