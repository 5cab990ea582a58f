"""Make clothes from noise with a residual GAN with spectral normalisation, on Fashion-MNIST.

    python examples/sngan.py

Every weight of the discriminator is divided by its largest singular value, so that no layer can
make a difference larger (Miyato et al. 2018). Nothing is clipped and no second derivative is
needed: one power iteration a step keeps track of the singular values. The loss is the hinge, which
leaves alone what is on the right side by 1 or more.
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
    # The paper takes 5, for batches of 64 and 100,000 steps; in a few minutes, 1 gets further.
    add, number = parser.add_argument, training.positive_int
    add("--critic-steps", type=number, default=1, help="of D, for one of G (default: 1)")
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
    # SNGAN, section 4 and appendix B: setting B's betas, a rate that falls to 0 on a line.
    adam_g = optim.Adam(generator.parameters(), lr=2e-4, betas=(0.0, 0.9))
    adam_d = optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.0, 0.9))
    decay_g, decay_d = (optim.LinearDecay(adam, args.steps) for adam in (adam_g, adam_d))
    run = training.Run(args.out, vars(args), args.steps, args.batch, args.resume)
    parts = {"g": generator, "d": discriminator, "adam_g": adam_g, "adam_d": adam_d}
    parts |= {"decay_g": decay_g, "decay_d": decay_d, "batches": batches}
    first = training.resume(run, parts) if args.resume else 0

    def noise() -> mg.Tensor:
        return mg.Tensor(mg.generator().standard_normal((args.batch, args.z), np.float32))

    for step in run.steps(first):
        # The discriminator learns to score real images above 1 and generated ones below -1.
        for _ in range(args.critic_steps):
            real = mg.Tensor(data.to_unit(images[next(batches)]))
            with mg.no_grad():
                fake = generator(noise())
            on_real, on_fake = discriminator(real), discriminator(fake)
            d_loss = losses.hinge(on_real, real=True) + losses.hinge(on_fake, real=False)
            adam_d.zero_grad()
            d_loss.backward()
            adam_d.step()

        # The generator learns to raise the scores of its images, the discriminator frozen.
        discriminator.requires_grad_(False)
        g_loss = -discriminator(generator(noise())).mean()
        adam_g.zero_grad()
        g_loss.backward()
        adam_g.step()
        discriminator.requires_grad_(True)
        for schedule in (decay_g, decay_d):
            schedule.step()

        # Beside the scores: the share of both kinds that is on the wrong side.
        wrong = float(((on_real <= 0).numpy().mean() + (on_fake >= 0).numpy().mean()) / 2)
        now = F.stack([d_loss, g_loss, on_real.mean(), on_fake.mean()]).numpy().tolist()
        run.log(step, **dict(zip(("d", "g", "d_x", "d_gz"), now, strict=True)), wrong=wrong)
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
