"""See a GAN lose modes, and a critic with a penalty keep them: points in the plane, in a film.

    python examples/ring.py
    python examples/ring.py --loss r1 --out runs/ring-r1

The data are points around eight places on a ring, or 25 on a grid (`--data grid`). A generator that
finds one place makes good points, and has not learnt the data. All losses train the same networks.
Cost: a minute and a half at most on one core. Look at training.gif: the data are grey, what is
generated is blue, and the background is warm where the critic says "real".

`--slope 0.2` makes the ReLUs leaky, and then the plain GAN finds all places too: docs/evaluation.md
"""

import argparse
import sys
from typing import Any

import numpy as np

import minigan as mg
from minigan import data, losses, metrics, nn, optim, training

CRITIC_STEPS = {"gan": 1, "r1": 1, "wgan-gp": 2}  # for one of the generator's
GAMMA = 1.0  # of R1; Mescheder et al. 2018 (arXiv 1801.04406) take 10 for images
LAMBDA = 0.1  # of WGAN-GP, as its authors have it for toys; 10 for images (arXiv 1704.00028)
Z = 32  # numbers of noise for a point
HIT = 0.1  # of its fair share of points is a place that was found
FRAMES = 50  # of the film


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="GANs on points in the plane: which of them finds all the places?",
        epilog="Writes training.gif, pictures, log, metrics.json and checkpoint.npz to --out.",
    )
    training.standard_flags(parser, out="runs/ring", steps=2000)
    add, number, above_0 = parser.add_argument, training.positive_int, training.positive_float
    add("--loss", choices=CRITIC_STEPS, default="gan", help="default: gan")
    add("--data", choices=data.sets.POINTS, default="ring", help="default: ring")
    add("--std", type=above_0, default=0.05, help="spread around each place (default: 0.05)")
    add("--batch", type=number, default=256, help="points a step (default: 256)")
    add("--width", type=number, default=128, help="units of a hidden layer (default: 128)")
    add("--slope", type=float, default=0.0, help="of the ReLUs below 0 (default: 0)")
    args = parser.parse_args()
    if not 0 <= args.slope <= 1:
        parser.error("--slope must be from 0 to 1")
    args.gif = True  # it is the point
    return args


def network(inputs: int, outputs: int, width: int, slope: float) -> nn.Sequential:
    first = nn.Linear(inputs, width), nn.LeakyReLU(slope)
    second = nn.Linear(width, width), nn.LeakyReLU(slope)
    return nn.Sequential(*first, *second, nn.Linear(width, outputs))


def loss_d(loss: str, critic: nn.Module, real: mg.Tensor, fake: mg.Tensor) -> mg.Tensor:
    """What the discriminator, or critic, minimises."""
    on_real, on_fake = critic(real), critic(fake)
    if loss == "wgan-gp":
        slope = losses.gradient_penalty(critic, real, fake)
        return on_fake.mean() - on_real.mean() + slope * LAMBDA
    judged = losses.binary_cross_entropy_with_logits
    both = judged(on_real, 1.0) + judged(on_fake, 0.0)
    return both + losses.r1_penalty(critic, real) * GAMMA if loss == "r1" else both


def loss_g(loss: str, scores: mg.Tensor) -> mg.Tensor:
    """What the generator minimises, by the scores of its points."""
    wgan = loss == "wgan-gp"
    return -scores.mean() if wgan else losses.binary_cross_entropy_with_logits(scores, 1.0)


def noise(count: int, random: np.random.Generator) -> mg.Tensor:
    return mg.Tensor(random.standard_normal((count, Z), np.float32))


def drawn(generator: nn.Module, count: int, seed: int = 0) -> np.ndarray:
    """Generated points, of the same noise every time."""
    with mg.no_grad():
        return generator(noise(count, np.random.default_rng(seed))).numpy()


def places_found(real: data.Points, made: np.ndarray) -> dict[str, Any]:
    modes = len(real.centres)
    found = metrics.mode_histogram(real.nearest(made), modes, HIT / modes)  # within 3 deviations
    good = 1 - found.pop("missed")
    return {"places": found.pop("hit"), "of": modes, "good": good, **found}


def main() -> int:
    args = parse_flags()
    training.require_extras("PIL", "tqdm", "matplotlib")
    mg.use(args.device)
    mg.manual_seed(args.seed)

    real = data.load_points(args.data, 20000, args.seed, args.std)
    batches = data.Batches(len(real), args.batch, args.seed)
    generator = network(Z, 2, args.width, args.slope)
    critic = network(2, 1, args.width, args.slope)
    adam_g = optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    adam_d = optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.999))
    decay = [optim.LinearDecay(adam, args.steps, args.steps // 2) for adam in (adam_g, adam_d)]
    run = training.Run(args.out, vars(args), args.steps, args.batch, args.resume)
    parts = {"g": generator, "d": critic, "adam_g": adam_g, "adam_d": adam_d, "batches": batches}
    parts |= {"decay_g": decay[0], "decay_d": decay[1]}
    first = training.resume(run, parts) if args.resume else 0

    for step in run.steps(first):
        for _ in range(CRITIC_STEPS[args.loss]):
            points = mg.Tensor(real.points[next(batches)])
            with mg.no_grad():
                fake = generator(noise(args.batch, mg.generator()))
            d = loss_d(args.loss, critic, points, fake)
            adam_d.zero_grad()
            d.backward()
            adam_d.step()

        critic.requires_grad_(False)
        g = loss_g(args.loss, critic(generator(noise(args.batch, mg.generator()))))
        adam_g.zero_grad()
        g.backward()
        adam_g.step()
        critic.requires_grad_(True)
        for schedule in decay:
            schedule.step()

        logged, due = {"d": d.item(), "g": g.item()}, run.due(step, max(1, args.steps // FRAMES))
        if due:
            made = drawn(generator, 2000)
            found = places_found(real, made)
            logged |= {"places": found["places"], "good": found["good"]}
        run.log(step, **logged)
        if due:
            training.save(run, parts, step)
            title = f"{args.loss}, step {step}: {found['places']} of {found['of']} places"
            training.show_plane(run, step, real.points[:2000], made, critic, title)
    if run.interrupted:
        return run.exit_code

    found = places_found(real, drawn(generator, 10000, seed=1))
    run.write_metrics({"steps": args.steps, "seconds": run.seconds, "loss": args.loss, **found})
    print(f"{found['places']} of {found['of']} places, {found['good']:.0%} of the points near one")
    return 0


if __name__ == "__main__":
    with training.plain_errors():
        sys.exit(main())
