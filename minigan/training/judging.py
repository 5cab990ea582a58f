"""What is judged: runs of GAN scripts, and archives of images; and the classifier that judges."""

import json
import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minigan import data
from minigan.data.sets import IMAGES
from minigan.models import ImageClassifier

from .checkpoint import CheckpointError, load_checkpoint
from .extras import MissingExtraError
from .generators import load_generator, sample, snapshots
from .run import MAY_CHANGE, RunError


@dataclass(frozen=True)
class Candidate:
    """A run whose generator is judged, or an archive of images.

    Attributes:
        path: the run's folder, or the archive.
        script: the name of what made it.
        settings: of the run, without those that change nothing, and without the seed.
        seed: of the run; None of an archive.
        seconds: of training; None if it is not over, or not known.
        files: what to judge, by step: generators, or archives of images. One archive has step 0.
    """

    path: Path
    script: str
    files: dict[int, Path]
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    seconds: float | None = None

    def images(
        self, step: int, count: int, seed: int, from_end: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """`count` images of the snapshot of `step`, and what they were to show, if anything.

        Of a generator with classes, as many images are asked for of each. Of an archive it is the
        first images, or the last ones, and `seed` does nothing.

        Raises:
            RunError: an archive with fewer images.
            CheckpointError, DataError: the file is damaged, or is not what it should be.
        """
        file = self.files[step]
        if is_archive(file):
            return _from_archive(file, count, from_end)
        generator = load_generator(file)
        labels = np.arange(count) % generator.classes if generator.classes else None
        try:
            return sample(generator, count, seed, labels), labels
        except ValueError as error:
            raise RunError(f"{file}: {error}") from error


def load_parts(
    name: str, size: int, data_dir: str | os.PathLike | None = None
) -> tuple[data.LabelledImages, data.LabelledImages]:
    """The training images and the test images of a data set.

    Raises:
        RunError: no images of that size can be made of it.
        DataError: they are nowhere, or damaged.
        MissingExtraError: they need a package that is not there.
    """
    try:
        train, test = (data.load_images(name, part, size, data_dir) for part in ("train", "test"))
    except data.DataError:
        raise
    except ValueError as error:
        raise RunError(f"--size {size} cannot be: {error}") from error
    except ImportError as error:
        raise MissingExtraError(str(error)) from error
    return train, test


def find_candidates(
    paths: Sequence[str | os.PathLike],
    name: str,
    shape: tuple[int, int, int],
    count: int,
    classes: int | None = None,
) -> list[Candidate]:
    """`find_candidate` of each path.

    Raises:
        RunError: also for a path that is there twice: it would count as two runs.
    """
    seen: set[Path] = set()
    for path in map(Path, paths):
        if path.resolve() in seen:
            raise RunError(f"{path} is given twice; a run has one row")
        seen.add(path.resolve())
    return [find_candidate(path, name, shape, count, classes) for path in paths]


def find_candidate(
    path: str | os.PathLike,
    name: str,
    shape: tuple[int, int, int],
    count: int,
    classes: int | None = None,
) -> Candidate:
    """The run in the folder `path`, or the archive of images at `path`, if it can be judged.

    Args:
        name, shape: of the data that it is to be compared with; (H, W, C).
        count: images that will be asked for.
        classes: of the data; the labels of an archive must be below it.

    Raises:
        RunError: there is neither; the run has no generators yet, or was trained on other data; its
            images have another shape, or are too few, or labels that the data does not have.
        CheckpointError, DataError: a file is damaged, or is not what it should be.
    """
    path = Path(path)
    if path.is_file():
        if not is_archive(path):
            raise RunError(f"{path} is no archive with an array `images`; give a run's folder")
        found = Candidate(path, path.stem, {0: path})
    else:
        found = _find_run(path, name, shape[0])
    for file in found.files.values():  # all of them now, not after ten minutes
        if is_archive(file):
            images, labels = _from_archive(file, count, from_end=False)
            made = images.shape[1:]
            _check_labels(file, labels, classes)
        else:
            made = tuple(load_generator(file).image_shape)
        if made != tuple(shape):
            raise RunError(
                f"{file}: its images are (H, W, C) = {made}, and the data's {tuple(shape)}"
            )
    return found


def _find_run(path: Path, name: str, size: int) -> Candidate:
    content = _read_json(path / "config.json")
    settings = content.get("config")
    if not isinstance(settings, dict):
        raise RunError(f"{path} is no run: there is no config.json of one in it")
    for flag, wanted in (("data", name), ("size", size)):
        own = settings.get(flag, wanted)
        if flag == "data" and own not in IMAGES:
            raise RunError(f"{path} was trained on {own}; only runs that make images are judged")
        if own != wanted:
            raise RunError(
                f"{path} was trained with --{flag} {own}, but is to be compared with "
                f"--{flag} {wanted}; say --{flag} {own}, with a classifier of such"
            )
    files = snapshots(path)
    if not files:
        raise RunError(f"{path} has no generators/*.npz: its script writes them as it trains")
    own = {k: v for k, v in settings.items() if k not in MAY_CHANGE and k != "seed"}
    script = content.get("script") or _without_seed(path)
    seconds = _read_json(path / "metrics.json").get("seconds")
    return Candidate(path, script, files, own, settings.get("seed"), seconds)


def is_archive(path: Path) -> bool:
    """Whether a file is an NPZ archive with an array `images`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "images.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def load_classifier(
    path: str | os.PathLike, real: data.LabelledImages, name: str = "fashion-mnist"
) -> ImageClassifier:
    """The network that examples/classify_fashion.py wrote to `path`, for images such as `real`.

    Args:
        name: of the data that `real` is of, for the advice.

    Raises:
        RunError: there is none, or it does not fit: images of another size, other classes; or the
            data has no classes that could be told apart.
        CheckpointError: the file is damaged, or holds something else.
    """
    _, height, across, channels = real.images.shape
    if len(real.classes) < 2:
        raise RunError(
            f"--data {name} has one class only: no classifier can be trained on it, by whose "
            f"features images could be compared"
        )
    command = "python examples/classify_fashion.py"
    if name != "fashion-mnist":
        command += f" --data {name}"
    if height != 32:
        command += f" --size {height}"
    if not Path(path).is_file():
        raise RunError(
            f"there is no classifier {path}, by whose features images are compared; train it with: "
            f"{command}"
        )
    network = load_checkpoint(path).get("network")
    try:
        first, dense, last = (network[f"{n}.weight"] for n in ("seen.0", "seen.9", "last"))
        width, features, classes = first.shape[3], dense.shape[1], last.shape[1]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(path, "network", "is not that of an ImageClassifier") from error
    if (
        first.shape[2] != channels
        or dense.shape[0] != (height // 4) * (across // 4) * 2 * width
        or classes != len(real.classes)
    ):
        side = 4 * round(np.sqrt(dense.shape[0] / (2 * width)))
        raise RunError(
            f"the classifier {path} does not fit the data: it is for {classes} classes and images "
            f"of about {side}×{side}×{first.shape[2]}, the data has {len(real.classes)} and "
            f"{height}×{across}×{channels}; train one with: {command}"
        )
    made = ImageClassifier((height, across, channels), classes, width, features)
    try:
        made.load_state_dict(network)
    except ValueError as error:
        raise CheckpointError(path, "network", f"does not fit: {error}") from error
    return made.eval()


def _from_archive(file: Path, count: int, from_end: bool) -> tuple[np.ndarray, np.ndarray | None]:
    with zipfile.ZipFile(file) as archive:
        labelled = "labels.npy" in archive.namelist()
    layout = {"images": ((None, None, None, None), np.uint8)}
    layout |= {"labels": ((None,), np.int64)} if labelled else {}
    found = data.read_npz(file, layout)
    images, labels = found["images"], found.get("labels")
    if len(images) < count or (labelled and len(labels) != len(images)):
        said = f" and {len(labels)} labels" if labelled else ""
        raise RunError(f"{file} has {len(images)} images{said}, but {count} are to be judged")
    chosen = slice(len(images) - count, None) if from_end else slice(count)
    return images[chosen], labels[chosen] if labelled else None


def _check_labels(file: Path, labels: np.ndarray | None, classes: int | None) -> None:
    if labels is not None and classes and not 0 <= labels.min() <= labels.max() < classes:
        raise RunError(
            f"{file}: labels from {labels.min()} to {labels.max()}, but the data has {classes} "
            f"classes, from 0 on"
        )


def _read_json(path: Path) -> dict[str, Any]:
    """What a JSON file of a run says; {} if it is not there, or no such thing."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _without_seed(path: Path) -> str:
    """runs/dcgan-seed1, runs/dcgan-1 and runs/dcgan/1 -> dcgan: a guess, for runs of before."""
    path = path.resolve()
    name = re.sub(r"[-_]?(seed|s)?[-_]?\d+$", "", path.name)
    return name or path.parent.name
