"""Judge what GANs have made, by numbers that mean the same for all: one table over runs.

    python examples/evaluate.py runs/dcgan runs/wgan_gp

A RUN is the folder of a GAN script, or an .npz archive with an array `images` (N, H, W, C), uint8.
Of a folder two generators are judged: the last, and the best of the ten that were kept, chosen with
other noise. Runs that differ only in their seed are one row: mean ± standard deviation.

Without a RUN it judges real images alone, as they are and made worse: noise, blur, a missing class,
copies. That is the scale on which a number means something; ladder.png shows it.

Images are compared by what a classifier sees in them. Train it first, once, in five minutes:

    python examples/classify_fashion.py

On one core a set of 10,000 images takes about eleven seconds, and making them takes the GAN longer.
docs/evaluation.md says what each number sees, and what it does not.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import minigan as mg
from minigan import data, metrics, training
from minigan.models import ImageClassifier

SHOWN = 10  # images of each rung in ladder.png


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Judge GANs by what a classifier sees in their images.",
        epilog="Writes evaluation.md, evaluation.json and ladder.png to the --out folder.",
    )
    add, number = parser.add_argument, training.positive_int
    add("runs", nargs="*", metavar="RUN", help="folder of a run, or an .npz with `images`")
    path = Path("runs/classify/classifier.npz")
    add("--classifier", type=Path, default=path, help="its network file (default: %(default)s)")
    add("--data", choices=data.sets.IMAGES, default="fashion-mnist", help="default: fashion-mnist")
    add("--size", type=number, default=32, help="pixels a side (default: 32)")
    add("--data-dir", type=Path, help="folder with the four files of (Fashion-)MNIST")
    add("--count", type=number, default=10000, help="images of each set (default: 10000)")
    add("--subset", type=number, default=1000, help="images of a subset, for KID (default: 1000)")
    add("--pick", type=number, default=2000, help="images by which the best is chosen (2000)")
    add("--no-ladder", action="store_true", help="leave out the images made worse")
    add("--cas", action="store_true", help="train a classifier on each set too, a minute each")
    add("--cas-steps", type=number, default=400, help="training steps of it (default: 400)")
    add("--seed", type=training.natural_int, default=0, help="of the noise (default: 0)")
    training.device_flag(parser)
    add("--out", type=Path, default=Path("runs/evaluate"), help="default: %(default)s")
    args = parser.parse_args()
    if args.subset < 2:
        parser.error("--subset must be 2 or more")
    return args


def teach(
    args: argparse.Namespace, images: np.ndarray, labels: np.ndarray, test: data.LabelledImages
) -> float:
    """The accuracy on real images of a classifier that was trained on these."""
    mg.manual_seed(args.seed)  # the same first weights for every set
    pupil = ImageClassifier(test.images.shape[1:], len(test.classes))
    return metrics.classification_accuracy_score(
        pupil, images, labels, test.images, test.labels, args.cas_steps, seed=args.seed
    )


def main() -> int:
    args = parse_flags()
    training.require_extras("PIL", "tqdm")
    from tqdm import tqdm  # here, as it is optional

    mg.use(args.device)

    # The judge compares all images with test images, which neither GAN nor classifier has seen.
    train, test = training.load_parts(args.data, args.size, args.data_dir)
    if args.count > len(test):
        raise training.RunError(f"--count {args.count}, but there are {len(test)} test images")
    test, shape = test.first(args.count), test.images.shape[1:]
    known = shape, max(args.count, args.pick), len(test.classes)
    runs = training.find_candidates(args.runs, args.data, *known)
    classifier = training.load_classifier(args.classifier, test, args.data)
    judge = metrics.Judge(classifier, test, subset_size=args.subset)
    if args.pick < judge.fewest:
        raise training.RunError(f"--pick {args.pick}, but the features need {judge.fewest} images")
    training.make_folder(args.out)  # now, not after ten minutes
    sets = 1 if args.no_ladder else 10
    bar = tqdm(total=sets + sum(len(run.files) + 2 for run in runs), desc="judging", unit="set")

    def judged(images: np.ndarray, labels: np.ndarray | None = None) -> dict[str, Any]:
        scores = judge.scores(images, labels)
        if args.cas:
            seen = judge.labels(images) if labels is None else labels
            scores["teaches"] = teach(args, images, seen, test)
        bar.update()
        return scores

    with bar:
        # The floor: training images, as if a generator had made them. Nobody can do better.
        real = metrics.drawn(train, args.count, args.seed)
        floor = judged(real.images)

        # The ladder: the same images made worse.
        ladder, shown = {}, {"real": real.images[:SHOWN]}
        for name, images in () if args.no_ladder else metrics.ladder(train, args.count, args.seed):
            ladder[name], shown[name] = judged(images), images[:SHOWN]

        # The runs: the last generator, and the best of those that were kept.
        found = []
        for run in runs:
            distances = {}
            for step in run.files:
                made, _ = run.images(step, args.pick, args.seed + 1, from_end=True)
                distances[step] = judge.distance(made)
                bar.update()
            best, last = min(distances, key=distances.get), max(distances)
            scores = {
                step: judged(*run.images(step, args.count, args.seed)) for step in {best, last}
            }
            bar.update(2 - len(scores))  # the last was the best
            found.append(training.verdict(run, distances, scores))

    report = {
        "data": args.data,
        "size": args.size,
        "count": args.count,
        "pick": args.pick,
        "subset": args.subset,
        "seed": args.seed,
        "classifier": {"sha256": judge.classifier, "accuracy": judge.accuracy},
        "floor": floor,
        "ladder": ladder,
        "runs": found,
    }
    print(training.write_report(args.out, report))
    if ladder:
        names = {n: f"{n}\ndistance {(ladder.get(n) or floor)['frechet']:.1f}" for n in shown}
        training.save_rows(args.out / "ladder.png", {names[n]: shown[n] for n in shown})
    return 0


if __name__ == "__main__":
    with training.plain_errors():
        sys.exit(main())
