"""Make clothes from noise with a GAN whose discriminator is kept flat (R1), on Fashion-MNIST.

    python examples/r1gan.py

Three ideas keep it steady. R1: the discriminator pays for its slope at real images, so where the
generated ones have arrived it stops pushing (Mescheder et al. 2018). TTUR: it has a larger
learning rate than the generator (Heusel et al. 2017). EMA: the images are made by the running
average of the generator's weights, not by the generator as the last step left it.

Cost: eleven minutes on two cores. Expect the smoothest images of all these scripts, of all ten
kinds, from the second thousand of steps on.
"""

import argparse
import sys

import numpy as np

import minigan as mg
from minigan import data, losses, optim, training
from minigan import functional as F
from minigan.ema import EMA
from minigan.models import Critic, DCGANGenerator


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make images from noise with a GAN that is regularised by R1.",
        epilog=training.WROTE,
    )
    training.gan_flags(parser, out="runs/r1gan", steps=8000, batch=32, width=32)
    number, words = training.positive_float, "weight of R1 (default: 0.1; the paper has 10)"
    parser.add_argument("--gamma", type=number, default=0.1, help=words)
    return training.parse_gan_flags(parser)


def judged(scores: mg.Tensor, real: bool) -> mg.Tensor:
    """How far the discriminator is from calling all of this real, or all of it fake."""
    return losses.binary_cross_entropy_with_logits(scores, float(real))


def main() -> int:
    args = parse_flags()
    training.require_extras("PIL", "tqdm", "matplotlib")
    mg.use(args.device)
    mg.manual_seed(args.seed)

    images = training.load_real(args).images  # bytes, (N, 32, 32, 1)
    batches = data.Batches(len(images), args.batch, args.seed)
    generator = DCGANGenerator(images.shape[1:], args.width, args.z)
    average = EMA(generator, decay=0.999)
    discriminator = Critic(images.shape[1:], args.width)  # no batchnorm under a penalty
    # Two time scales, as in SAGAN (Zhang et al. 2019, section 4), which has 1e-4 and 4e-4 for a
    # million steps: too slow for a few thousand. The betas are StyleGAN's (Karras et al. 2019).
    adam_g = optim.Adam(generator.parameters(), lr=4e-4, betas=(0.0, 0.99))
    adam_d = optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.0, 0.99))
    run = training.Run(args.out, vars(args), args.steps, args.batch, args.resume)
    parts = {"g": generator, "d": discriminator, "adam_g": adam_g, "adam_d": adam_d}
    parts |= {"average": average, "batches": batches}
    first = training.resume(run, parts) if args.resume else 0

    for step in run.steps(first):
        real = mg.Tensor(data.to_unit(images[next(batches)]))
        noise = mg.generator().standard_normal((args.batch, args.z), np.float32)
        # While the generator makes its images, the discriminator can look at the real ones.
        fake, on_real = mg.side_by_side((generator, mg.Tensor(noise)), (discriminator, real))

        # The discriminator learns to tell real from generated, and pays for its slope at the real.
        on_fake = discriminator(fake.detach())
        d_loss = judged(on_real, True) + judged(on_fake, False)
        r1 = losses.r1_penalty(discriminator, real)
        adam_d.zero_grad()
        (d_loss + r1 * args.gamma).backward()
        adam_d.step()

        # The generator learns to fool it, frozen; its average follows.
        discriminator.requires_grad_(False)
        g_loss = judged(discriminator(fake), True)
        adam_g.zero_grad()
        g_loss.backward()
        adam_g.step()
        discriminator.requires_grad_(True)
        average.update()

        # D(x) and D(G(z)), from 0 to 1; and the root of the mean squared norm of D's slope.
        seen = [F.mean(F.sigmoid(scores)) for scores in (on_real, on_fake)]
        now = F.stack([d_loss, g_loss, *seen, F.sqrt(r1 * 2.0)]).numpy().tolist()
        run.log(step, **dict(zip(("d", "g", "d_x", "d_gz", "slope"), now, strict=True)))
        training.save_snapshot(run, step, average.module)
        if run.due(step, every=500):
            training.save(run, parts, step)
            training.show_generator(run, step, average.module)
    if run.interrupted:
        return run.exit_code

    training.show_end(run, average.module, images)
    run.write_metrics({"steps": args.steps, "seconds": run.seconds})
    print(f"{args.steps} steps in {run.seconds:.0f} s; look at {run.path('samples.png')}")
    return 0


if __name__ == "__main__":
    with training.plain_errors():
        sys.exit(main())
