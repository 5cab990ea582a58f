"""Make clothes from noise with the first GAN (Goodfellow et al. 2014): no convolution anywhere.

    python examples/gan_mlp.py

Two networks of three dense layers each, as in the authors' script for MNIST: rectifiers and
sigmoids in the generator, maxout and dropout in the discriminator, and the generator's loss is
−log D(G(z)), as the paper recommends. Not theirs: Adam in place of SGD with momentum, and the data.

Cost: eight minutes on two cores. Expect outlines of clothes after a thousand steps, filled with
speckles that never go away, and the same few shapes again and again.
"""

import argparse
import sys

import numpy as np

import minigan as mg
from minigan import data, losses, optim, training
from minigan import functional as F
from minigan.models import MLPDiscriminator, MLPGenerator


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make images from noise with a GAN of dense layers.", epilog=training.WROTE
    )
    training.gan_flags(parser, out="runs/gan_mlp", steps=6000, batch=100, width=1200)
    return training.parse_gan_flags(parser, sizes=range(8, 129))


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
    generator = MLPGenerator(images.shape[1:], args.width, args.z)
    discriminator = MLPDiscriminator(images.shape[1:], max(1, args.width // 5))  # 5 pieces each
    # Rate and betas are those of DCGAN (Radford et al. 2015).
    adam_g = optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    adam_d = optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    run = training.Run(args.out, vars(args), args.steps, args.batch, args.resume)
    parts = {"g": generator, "d": discriminator, "adam_g": adam_g, "adam_d": adam_d}
    parts |= {"batches": batches}
    first = training.resume(run, parts) if args.resume else 0

    for step in run.steps(first):
        real = mg.Tensor(data.to_unit(images[next(batches)]))
        noise = mg.generator().standard_normal((args.batch, args.z), np.float32)
        fake = generator(mg.Tensor(noise))

        # The discriminator learns to tell real images from generated ones, dropout at work.
        on_real, on_fake = discriminator(real), discriminator(fake.detach())
        d_loss = judged(on_real, True) + judged(on_fake, False)
        adam_d.zero_grad()
        d_loss.backward()
        adam_d.step()

        # The generator learns to fool it, frozen.
        discriminator.requires_grad_(False)
        g_loss = judged(discriminator(fake), True)
        adam_g.zero_grad()
        g_loss.backward()
        adam_g.step()
        discriminator.requires_grad_(True)

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
