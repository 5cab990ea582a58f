"""Tell clothes apart with a convolutional network: Fashion-MNIST, in the article's five steps.

    python examples/classify_fashion.py

Data, model, loss, optimiser, evaluation: each is one block of `main` below. It takes at most five
minutes and half a GB of memory on two cores, and gets 91 % of the test images right.

Look at samples.png while it runs: of each class the image that the network finds least likely. And
at confusion.png after it: shirts, T-shirts, pullovers and coats are mistaken for one another.

The trained network has a second use: GANs on the same data are judged by the 128 numbers of its
last but one layer (`minigan.metrics`). It is in classifier.npz, and metrics.json has its SHA-256.

The data is looked for in --data-dir, in $MINIGAN_DATA, where Debian's package
dataset-fashion-mnist puts it, and in the cache; --download fetches it if it is nowhere.
`--data mnist --out runs/classify-mnist` (or digits) makes a network that judges GANs on those.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import minigan as mg
from minigan import data, losses, metrics, optim, training
from minigan.models import ImageClassifier

SMALLEST = {"fashion-mnist": 28, "mnist": 28, "digits": 8}  # pixels a side, of each data set


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Classify clothes, or digits, with a convolutional network.",
        epilog="Writes pictures, log.jsonl, metrics.json, checkpoint.npz and classifier.npz to the "
        "--out folder.",
    )
    training.standard_flags(parser, out="runs/classify", steps=1400)
    add, number = parser.add_argument, training.positive_int
    add("--data", choices=sorted(SMALLEST), default="fashion-mnist", help="default: %(default)s")
    add("--size", type=number, default=32, help="pixels a side (default: 32)")
    add("--batch", type=number, default=128, help="images a step (default: 128)")
    add("--width", type=number, default=32, help="channels inside (default: 32)")
    add("--data-dir", type=Path, help="folder with the four files of the data")
    add("--download", action="store_true", help="fetch the data if need be, 30 MB")
    add("--limit", type=number, help="only so many images of each part, for a try")
    args = parser.parse_args()
    smallest = SMALLEST[args.data]
    if not smallest <= args.size <= 256:
        parser.error(f"--size must be from {smallest} (the images of {args.data}) to 256")
    if args.batch < 2:
        parser.error("--batch must be 2 or more (batch normalisation)")
    if args.limit and args.limit < args.batch:
        parser.error("--limit must be at least --batch")
    return args


def main() -> int:
    args = parse_flags()
    training.require_extras("PIL", "tqdm", "matplotlib")
    mg.use(args.device)
    mg.manual_seed(args.seed)

    # 1. Data: images as numbers in [-1, 1], in shuffled batches.
    train, test = (training.load_real(args, part) for part in ("train", "test"))
    images = data.to_unit(train.images)
    batches = data.Batches(len(train), args.batch, args.seed)
    run = training.Run(args.out, vars(args), args.steps, args.batch, args.resume)

    # 2. Model: two convolutions and two dense layers.
    network = ImageClassifier(train.images.shape[1:], len(train.classes), args.width)

    # 3. Loss: −log of the probability that the network gives to the right class.
    def loss_of(chosen: np.ndarray) -> mg.Tensor:
        seen = images[chosen]
        if args.data == "fashion-mnist":
            seen = data.flip(seen)  # a shoe may point either way, a digit may not
        return losses.cross_entropy(network(mg.Tensor(seen)), train.labels[chosen])

    # 4. Optimiser: Adam, its steps shrinking to nothing. Then the loop.
    adam = optim.Adam(network.parameters(), lr=2e-3)
    decay = optim.CosineDecay(adam, args.steps)
    parts = {"network": network, "adam": adam, "decay": decay, "batches": batches}
    first = training.resume(run, parts) if args.resume else 0
    for step in run.steps(first):
        loss = loss_of(next(batches))
        adam.zero_grad()
        loss.backward()
        adam.step()
        decay.step()
        run.log(step, loss=loss.item())
        if run.due(step, every=350):
            training.save(run, parts, step)
            show_mistakes(run, step, network, test.first(2000))
    if run.interrupted:
        return run.exit_code

    # 5. Evaluation: on images that it has never seen.
    said = metrics.extract(network, test.images)["probabilities"].argmax(axis=1)
    confusion = np.zeros((len(test.classes),) * 2, np.int64)
    np.add.at(confusion, (test.labels, said), 1)
    training.save_confusion(run.path("confusion.png"), confusion, test.classes)
    training.save_checkpoint(run.path("classifier.npz"), {"network": network.state_dict()})
    accuracy = float((said == test.labels).mean())
    shape = {"image_shape": network.image_shape, "width": args.width}
    run.write_metrics(
        {
            "steps": args.steps,
            "seconds": run.seconds,
            "accuracy": accuracy,
            "test_images": len(test),
            "confusion": confusion.tolist(),
            "classes": test.classes,
            "classifier": {"sha256": metrics.fingerprint(network), **shape},
        }
    )
    print(f"{accuracy:.2%} of {len(test)} test images right, after {run.seconds:.0f} s of training")
    return 0


def show_mistakes(
    run: training.Run, step: int, network: ImageClassifier, test: data.LabelledImages
) -> None:
    """Write samples.png: of each class the image that the network finds least likely to be it."""
    p = metrics.extract(network, test.images)["probabilities"]
    own = p[np.arange(len(test)), test.labels]
    classes = [c for c in range(len(test.classes)) if (test.labels == c).any()]
    worst = [np.where(test.labels == c, own, 2).argmin() for c in classes]
    training.save_samples(run, step, [test.images[worst]])


if __name__ == "__main__":
    with training.plain_errors():
        sys.exit(main())
