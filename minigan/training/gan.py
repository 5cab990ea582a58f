"""What the GAN scripts share around their loops: flags, real images, and what a run shows."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minigan import data
from minigan.data.sets import IMAGES

from .cli import positive_int, standard_flags
from .extras import MissingExtraError
from .generators import ImageGenerator, generate, sample
from .pictures import save_grid
from .run import Run
from .samples import save_samples

WROTE = (
    "Writes pictures, log.jsonl, metrics.json, checkpoint.npz and generators/ to the --out folder."
)
LEAST_SIZE = {"fashion-mnist": 28, "mnist": 28}  # they are padded, never shrunk; others from 8
SHOWN, PER_CLASS = 64, 8  # images in samples.png; of each class if there are classes
LEAST_BATCH = 2  # batch normalisation


def gan_flags(
    parser: argparse.ArgumentParser,
    out: str,
    steps: int,
    batch: int = 64,
    width: int = 64,
    z: int = 100,
    size: int = 32,
) -> None:
    """Add `standard_flags` and --data, --size, --batch, --width, --z, --limit, and so on.

    The arguments are the flags' defaults. Then `parse_gan_flags` reads and checks them.
    """
    standard_flags(parser, out, steps)
    add, number = parser.add_argument, positive_int
    add("--data", choices=IMAGES, default="fashion-mnist", help="default: fashion-mnist")
    add("--size", type=number, default=size, help="pixels a side (default: %(default)s)")
    add("--batch", type=number, default=batch, help="images a step (default: %(default)s)")
    add("--width", type=number, default=width, help="channels inside (default: %(default)s)")
    add("--z", type=number, default=z, help="numbers of noise for an image (default: %(default)s)")
    add("--data-dir", type=Path, help="folder with the four files of (Fashion-)MNIST")
    add("--download", action="store_true", help="fetch (Fashion-)MNIST if need be, 30 or 11 MB")
    add("--limit", type=number, help="train on so many images only, for a try")


def parse_gan_flags(
    parser: argparse.ArgumentParser, sizes: Sequence[int] = (8, 16, 32, 64, 128)
) -> argparse.Namespace:
    """Read the command line; what cannot work exits with 2 and the usage.

    `sizes` are the sides of images that the script's networks can make.
    """
    args = parser.parse_args()
    least = LEAST_SIZE.get(args.data, 8)
    fitting = [size for size in sizes if size >= least]
    if args.size not in fitting:
        parser.error(f"--size for {args.data} must be one of {', '.join(map(str, fitting))}")
    if args.batch < LEAST_BATCH:
        parser.error(f"--batch must be {LEAST_BATCH} or more (batch normalisation)")
    if args.limit and args.limit < args.batch:
        parser.error("--limit must be at least --batch")
    return args


def load_real(args: argparse.Namespace, part: str = "train") -> data.LabelledImages:
    """The images that the flags ask for, "train" or "test": uint8 (N, size, size, C), with labels.

    Raises:
        DataError: they are nowhere, or damaged.
        MissingExtraError: they need a package that is not there.
    """
    try:
        found = data.load_images(args.data, part, args.size, args.data_dir, args.download)
    except ImportError as error:
        raise MissingExtraError(str(error)) from error
    return found.first(args.limit) if args.limit else found


def show_generator(run: Run, step: int, generator: ImageGenerator) -> None:
    """Write samples.png, curves.png, and with --gif a frame of the film; always of one noise.

    A generator with classes shows a row for each.
    """
    classes = generator.classes
    labels = np.repeat(np.arange(classes), PER_CLASS) if classes else None
    made = sample(generator, PER_CLASS * classes or SHOWN, seed=0, labels=labels)
    save_samples(run, step, [made], across=PER_CLASS)
    if run.config.get("data") == "emoji":
        data.emoji.write_attribution(run.out)


def show_end(run: Run, generator: ImageGenerator, real: np.ndarray) -> None:
    """Write what the trained generator shows: interpolation.png, and neighbours.png in `real`."""
    save_interpolation(run.path("interpolation.png"), generator)
    made, count = sample(generator, 10, seed=1), min(3, len(real))  # --limit 2 leaves two
    save_neighbours(run.path("neighbours.png"), made, real, count)


def save_interpolation(
    path: Path, generator: ImageGenerator, rows: int = 8, steps: int = 10, seed: int = 2
) -> None:
    """Write a PNG of walks between two points of noise, one a row; of one class, if there are any.

    Along a great circle. Nearly all noise in 100 dimensions is about √100 long, and a generator has
    never seen any other; but the straight line's middle is only √50 long (White 2016, arXiv
    1609.04468).
    """
    ends = np.random.default_rng(seed).standard_normal((2, rows, generator.z_size))
    walk = spherical(*ends, np.linspace(0, 1, steps)).astype(np.float32)  # (rows, steps, z)
    labels = np.repeat(np.arange(rows) % generator.classes, steps) if generator.classes else None
    made = generate(generator, walk.reshape(rows * steps, -1), labels)
    save_grid(path, [made], across=steps)


def spherical(start: np.ndarray, end: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Points on the arcs from `start` to `end`, both (N, d): (N, len(shares), d).

    sin((1 − t)ω)/sin ω · start + sin(tω)/sin ω · end, ω the angle between the two (Shoemake 1985).
    """
    lengths = np.linalg.norm(start, axis=1) * np.linalg.norm(end, axis=1)
    cosine = np.clip((start * end).sum(axis=1) / lengths, -1, 1)
    angle = np.arccos(cosine)[:, None, None]
    t = np.asarray(shares)[None, :, None]
    nearly_straight = np.sin(angle) < 1e-6
    sine = np.where(nearly_straight, 1, np.sin(angle))
    first = np.where(nearly_straight, 1 - t, np.sin((1 - t) * angle) / sine)
    second = np.where(nearly_straight, t, np.sin(t * angle) / sine)
    return first * start[:, None] + second * end[:, None]


def save_neighbours(path: Path, made: np.ndarray, real: np.ndarray, count: int = 3) -> None:
    """Write a PNG of generated images, each beside its `count` nearest training images.

    A generator that has learnt training images by heart shows the same picture twice in a row.

    Args:
        made: float (M, H, W, C) in [-1, 1].
        real: uint8 (N, H, W, C).
    """
    chosen, _ = nearest(made, real, count)
    titles = ["made", "nearest", "second", "third", *[""] * count][: count + 1]
    save_grid(path, [made, *(real[chosen[:, i]] for i in range(count))], titles)


def nearest(
    made: np.ndarray, real: np.ndarray, count: int = 1, piece: int = 5000
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` images of `real` that are nearest to each of `made`, by their pixels.

    Args:
        made: float (M, H, W, C) in [-1, 1].
        real: uint8 (N, H, W, C), N at least `count`.
        piece: of the real images, so many at a time are floats in memory.

    Returns:
        Their indices (M, count), nearest first, and distances: root mean square over the pixels.

    Raises:
        ValueError: images of other types, shapes or ranges; too few real ones.
    """
    if made.shape[1:] != real.shape[1:] or len(real) < count:
        raise ValueError(
            f"nearest: generated images {made.shape} and real ones {real.shape} must be of one "
            f"shape, and {count} real ones or more"
        )
    if made.dtype.kind != "f" or not np.abs(made).max() <= 1:
        raise ValueError("nearest: generated images must be floats in [-1, 1]")
    pixels = math.prod(made.shape[1:])
    wanted = made.reshape(-1, pixels).astype(np.float32)
    parts = []
    for i in range(0, len(real), piece):
        there = data.to_unit(real[i : i + piece]).reshape(-1, pixels)
        squares = (wanted**2).sum(axis=1)[:, None] + (there**2).sum(axis=1)
        parts.append(np.maximum(squares - 2 * wanted @ there.T, 0))  # |a − b|², 0 but for rounding
    distances = np.concatenate(parts, axis=1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return order, np.sqrt(np.take_along_axis(distances, order, axis=1) / pixels)
