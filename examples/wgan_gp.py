"""Make clothes from noise with a Wasserstein GAN with gradient penalty, on Fashion-MNIST.

    python examples/wgan_gp.py

As in wgan.py the critic's mean scores of real and of generated images shall be far apart, and its
slope at most 1. But here it pays for every slope that is not 1, at points between the two kinds
(Gulrajani et al. 2017). The slope is a gradient, and paying for it means differentiating it: the
step of the critic runs backward through a backward pass.

Cost: thirteen minutes on two cores, as the critic steps five times for each step of the generator.
Expect clothes of all kinds with a woven look: 2,500 steps are few. The curve `distance` falls as
the images get better, and `slope` stays near 1.
"""

import argparse
import sys

import numpy as np

import minigan as mg
from minigan import data, losses, optim, training
from minigan import functional as F
from minigan.models import Critic, DCGANGenerator


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make images from noise with a Wasserstein GAN with gradient penalty.",
        epilog=training.WROTE,
    )
    training.gan_flags(parser, out="runs/wgan_gp", steps=2500, batch=32, width=32, z=128)
    add, number = parser.add_argument, training.positive_int
    add("--critic-steps", type=number, default=5, help="of the critic, for one of the generator")
    add("--penalty", type=training.positive_float, default=10.0, help="its weight (default: 10)")
    return training.parse_gan_flags(parser)


def main() -> int:
    args = parse_flags()
    training.require_extras("PIL", "tqdm", "matplotlib")
    mg.use(args.device)
    mg.manual_seed(args.seed)

    images = training.load_real(args).images  # bytes, (N, 32, 32, 1)
    batches = data.Batches(len(images), args.batch, args.seed)
    generator = DCGANGenerator(images.shape[1:], args.width, args.z)
    critic = Critic(images.shape[1:], args.width)  # no batchnorm under a penalty
    # The betas of the authors' script for MNIST; in the paper, algorithm 1, they are (0, 0.9). Both
    # have a rate of 1e-4, for 200,000 steps; a few thousand can do with a larger one.
    adam_g = optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.9))
    adam_c = optim.Adam(critic.parameters(), lr=2e-4, betas=(0.5, 0.9))
    run = training.Run(args.out, vars(args), args.steps, args.batch, args.resume)
    parts = {"g": generator, "c": critic, "adam_g": adam_g, "adam_c": adam_c, "batches": batches}
    first = training.resume(run, parts) if args.resume else 0

    def noise() -> mg.Tensor:
        return mg.Tensor(mg.generator().standard_normal((args.batch, args.z), np.float32))

    for step in run.steps(first):
        # The critic learns to give real images high scores, generated ones low ones, and to have a
        # slope of 1 between them: the mean of (‖∇ critic(x̂)‖ − 1)² (equation 3).
        for _ in range(args.critic_steps):
            real = mg.Tensor(data.to_unit(images[next(batches)]))
            with mg.no_grad():
                fake = generator(noise())
            on_real, on_fake = critic(real).mean(), critic(fake).mean()
            distance = on_real - on_fake
            slopes = losses.gradient_norm(critic, losses.between(real, fake))  # one for each image
            penalty = ((slopes - 1.0) ** 2).mean()
            adam_c.zero_grad()
            (penalty * args.penalty - distance).backward()
            adam_c.step()

        # The generator learns to raise the scores of its images, the critic frozen.
        critic.requires_grad_(False)
        g_loss = -critic(generator(noise())).mean()
        adam_g.zero_grad()
        g_loss.backward()
        adam_g.step()
        critic.requires_grad_(True)

        now = F.stack([distance, penalty, slopes.mean(), g_loss, on_real, on_fake])
        names = "distance", "penalty", "slope", "g", "d_x", "d_gz"
        run.log(step, **dict(zip(names, now.numpy().tolist(), strict=True)))
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
