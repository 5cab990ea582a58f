"""Make clothes from noise with a Wasserstein GAN whose weights are clipped, on Fashion-MNIST.

    python examples/wgan.py

The critic does not say "real" or "generated". It gives a score, and what counts is how far apart
the mean scores of the two kinds are. If its slope is at most 1 everywhere, that distance is never
more than the earth mover's, and the best critic reaches it (Arjovsky et al. 2017). Here the slope
is bounded by brute force: after each step every weight is held in [-0.01, 0.01].

Cost: eleven minutes on two cores. Expect little: after that time the images are smudges in the
outlines of clothes. A clipped critic is nearly linear, and tells the generator little.

The curve `distance` is the point: it falls as the images get better, which no loss of a plain GAN
does. What clipping costs: docs/critics.md.
"""

import argparse
import sys

import numpy as np

import minigan as mg
from minigan import data, optim, training
from minigan import functional as F
from minigan.models import DCGANDiscriminator, DCGANGenerator


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make images from noise with a Wasserstein GAN, its critic's weights clipped.",
        epilog=training.WROTE,
    )
    training.gan_flags(parser, out="runs/wgan", steps=3000, batch=32, width=32)
    add, number = parser.add_argument, training.positive_int
    add("--critic-steps", type=number, default=5, help="of the critic, for one of the generator")
    add("--clip", type=training.positive_float, default=0.01, help="largest weight (default: 0.01)")
    return training.parse_gan_flags(parser)


def main() -> int:
    args = parse_flags()
    training.require_extras("PIL", "tqdm", "matplotlib")
    mg.use(args.device)
    mg.manual_seed(args.seed)

    images = training.load_real(args).images  # bytes, (N, 32, 32, 1)
    batches = data.Batches(len(images), args.batch, args.seed)
    generator = DCGANGenerator(images.shape[1:], args.width, args.z)
    critic = DCGANDiscriminator(images.shape[1:], args.width)
    # WGAN, algorithm 1: no momentum, as the critic's loss is not stationary.
    rms_g = optim.RMSprop(generator.parameters(), lr=5e-5)
    rms_c = optim.RMSprop(critic.parameters(), lr=5e-5)
    run = training.Run(args.out, vars(args), args.steps, args.batch, args.resume)
    parts = {"g": generator, "c": critic, "rms_g": rms_g, "rms_c": rms_c, "batches": batches}
    first = training.resume(run, parts) if args.resume else 0

    def noise() -> mg.Tensor:
        return mg.Tensor(mg.generator().standard_normal((args.batch, args.z), np.float32))

    for step in run.steps(first):
        # The critic learns to give real images high scores, generated ones low ones: several times,
        # so that its distance is near the true one before the generator follows it.
        for _ in range(args.critic_steps):
            real = mg.Tensor(data.to_unit(images[next(batches)]))
            with mg.no_grad():
                fake = generator(noise())
            on_real, on_fake = critic(real).mean(), critic(fake).mean()
            distance = on_real - on_fake
            rms_c.zero_grad()
            (-distance).backward()
            rms_c.step()
            optim.clip_weights_(critic.parameters(), args.clip)

        # The generator learns to raise the scores of its images, the critic frozen.
        critic.requires_grad_(False)
        g_loss = -critic(generator(noise())).mean()
        rms_g.zero_grad()
        g_loss.backward()
        rms_g.step()
        critic.requires_grad_(True)

        now = F.stack([distance, g_loss, on_real, on_fake]).numpy().tolist()
        run.log(step, **dict(zip(("distance", "g", "d_x", "d_gz"), now, strict=True)))
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
