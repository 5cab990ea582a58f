"""See a GAN lose modes, and a critic with a penalty keep them: points in the plane, as a film.

    python examples/ring.py --loss gan
    python examples/ring.py --loss wgan-gp
"""

import argparse
import sys

import numpy as np

import minigan as mg
from minigan import data, losses, metrics, nn, optim, training

# Adam's rate and betas, critic steps for one of the generator.
RECIPES = {
    "gan": (1e-3, (0.5, 0.999), 1),
    "r1": (1e-3, (0.5, 0.999), 1),
    "wgan-gp": (1e-3, (0.5, 0.9), 5),
}


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="GANs on points in the plane.")
    training.standard_flags(parser, out="runs/ring", steps=2000)
    number = training.positive_int
    parser.add_argument("--loss", choices=RECIPES, default="gan", help="default: gan")
    parser.add_argument("--data", choices=data.sets.POINTS, default="ring", help="default: ring")
    parser.add_argument("--batch", type=number, default=256, help="points a step (default: 256)")
    parser.add_argument("--width", type=number, default=128, help="hidden units (default: 128)")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--critic", type=int)
    parser.add_argument("--weight", type=float)
    parser.add_argument("--beta", type=float)
    parser.add_argument("--z", type=int, default=2)
    return parser.parse_args()


def mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, width), nn.LeakyReLU(0.2),
        nn.Linear(width, width), nn.LeakyReLU(0.2),
        nn.Linear(width, outputs),
    )


def main() -> int:
    args = parse_flags()
    mg.use(args.device)
    mg.manual_seed(args.seed)
    real = data.load_points(args.data, 50000, args.seed)
    lr, betas, critic = RECIPES[args.loss]
    lr = args.lr or lr; critic = args.critic or critic
    if args.beta is not None: betas = (args.beta, betas[1])
    weight = args.weight if args.weight is not None else {"gan": 0, "r1": 1.0, "wgan-gp": 0.1}[args.loss]
    batches = data.Batches(len(real), args.batch, args.seed)
    generator, discriminator = mlp(args.z, args.width, 2), mlp(2, args.width, 1)
    adam_g = optim.Adam(generator.parameters(), lr=lr, betas=betas)
    adam_d = optim.Adam(discriminator.parameters(), lr=lr, betas=betas)
    bce = losses.binary_cross_entropy_with_logits

    def noise(n): return mg.Tensor(mg.generator().standard_normal((n, args.z), np.float32))
    fixed = mg.Tensor(np.random.default_rng(1).standard_normal((2500, args.z), np.float32))
    import time; t=time.process_time()
    for step in range(1, args.steps + 1):
        for _ in range(critic):
            x = mg.Tensor(real.points[next(batches)])
            with mg.no_grad():
                fake = generator(noise(args.batch))
            if args.loss == "wgan-gp":
                d = discriminator(fake).mean() - discriminator(x).mean() + losses.gradient_penalty(discriminator, x, fake) * weight
            else:
                d = bce(discriminator(x), 1.0) + bce(discriminator(fake), 0.0)
                if args.loss == "r1":
                    d = d + losses.r1_penalty(discriminator, x) * weight
            adam_d.zero_grad(); d.backward(); adam_d.step()
        discriminator.requires_grad_(False)
        s = discriminator(generator(noise(args.batch)))
        g = -s.mean() if args.loss == "wgan-gp" else bce(s, 1.0)
        adam_g.zero_grad(); g.backward(); adam_g.step()
        discriminator.requires_grad_(True)
        if step % (args.steps // 10) == 0:
            with mg.no_grad():
                m = generator(fixed).numpy()
            h = metrics.mode_histogram(real.nearest(m), len(real.centres), 0.1/len(real.centres))
            print(step, f"{time.process_time()-t:.0f}s", h["hit"], f"{1-h['missed']:.2f} {h['total_variation']:.2f}", h["counts"] if step==args.steps else "", flush=True)


if __name__ == "__main__":
    with training.plain_errors():
        sys.exit(main())
