"""Image generators in files of their own, and images from them.

A generator is a module of `minigan.models` with the attributes of `ImageGenerator`. Its file holds
its class's name, its settings and its weights: enough to build it again and draw from it.
"""

import inspect
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from minigan import backend, models, nn
from minigan.tensor import Tensor, no_grad

from .checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from .run import DivergenceError, Run
from .state import check_finite

SNAPSHOTS = 10  # of a generator over a run
PARTS = {"kind", "settings", "network"}


class ImageGenerator(Protocol):
    """What every image generator in `minigan.models` has.

    Attributes:
        settings: the constructor's arguments: numbers, strings and tuples.
        z_size: numbers of noise, from N(0, 1), for one image.
        image_shape: (H, W, C) of its images, whose values are in [-1, 1].
        classes: how many labels it takes, from 0 on; 0 if it takes none.
    """

    settings: dict[str, Any]
    z_size: int
    image_shape: tuple[int, int, int]
    classes: int
    training: bool

    def __call__(self, z: Tensor, labels: np.ndarray = ...) -> Tensor: ...

    def train(self, mode: bool = True) -> Any: ...

    def state_dict(self) -> dict[str, np.ndarray]: ...


def save_generator(path: str | os.PathLike, generator: ImageGenerator) -> None:
    """Write a generator to `path`, from which `load_generator` builds it again.

    Raises:
        CheckpointError: the disk refuses, or `settings` holds what JSON cannot.
    """
    settings = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in generator.settings.items()
    }
    kind, network = type(generator).__name__, generator.state_dict()
    save_checkpoint(path, {"kind": kind, "settings": settings, "network": network})


def load_generator(path: str | os.PathLike) -> nn.Module:
    """Build the generator that `save_generator` wrote, in eval mode.

    The random numbers of a run are not touched by it.

    Raises:
        CheckpointError: the file is damaged or no generator's, of a kind that this minigan does not
            have, or its settings or weights do not fit that kind.
    """
    state = load_checkpoint(path)
    if set(state) != PARTS:
        raise CheckpointError(
            path, "parts", f"has {sorted(state)}, a generator has {sorted(PARTS)}"
        )
    kind, settings, network = state["kind"], state["settings"], state["network"]
    known = generator_kinds()
    if kind not in known:
        raise CheckpointError(
            path, "kind", f"{kind!r:.60} is no generator of minigan.models: {', '.join(known)}"
        )
    if not isinstance(settings, dict) or not isinstance(network, dict):
        raise CheckpointError(path, "settings", "settings and network must be dicts")
    given = {n: tuple(value) if isinstance(value, list) else value for n, value in settings.items()}
    before = backend.generator().bit_generator.state
    try:
        generator = known[kind](**given)
        generator.load_state_dict(network)
    except (TypeError, ValueError, MemoryError, OverflowError) as error:
        raise CheckpointError(path, kind, f"cannot be built with {given}: {error}") from error
    finally:
        backend.generator().bit_generator.state = before
    return generator.eval()


def generator_kinds() -> Mapping[str, type[nn.Module]]:
    """The classes of `minigan.models` that make images from noise, by name."""
    found = {name: getattr(models, name) for name in models.__all__}
    return {
        name: kind
        for name, kind in found.items()
        if isinstance(kind, type) and "z_size" in inspect.signature(kind).parameters
    }


def sample(
    generator: ImageGenerator,
    count: int,
    seed: int,
    labels: np.ndarray | None = None,
    batch: int = 250,
) -> np.ndarray:
    """Draw `count` images: float32 (count, H, W, C) in [-1, 1], the same for the same seed.

    The generator runs as it is used, in eval mode, and is afterwards in the mode it was in. All
    noise is drawn first, on the host: another `batch` changes nothing but the last bits.

    Args:
        labels: integers (count,), for a generator with classes; by default 0, 1, 2, ... in turn.
        batch: images at a time.

    Raises:
        ValueError: a count or batch below 1; labels that do not fit; images that are not as
            declared, in shape or range.
        DivergenceError: images that are not finite.
    """
    if count < 1 or batch < 1:
        raise ValueError(f"sample: count is {count} and batch {batch}, but both must be 1 or more")
    z = np.random.default_rng(seed).standard_normal((count, generator.z_size), dtype=np.float32)
    return generate(generator, z, labels, batch)


def generate(
    generator: ImageGenerator, z: np.ndarray, labels: np.ndarray | None = None, batch: int = 250
) -> np.ndarray:
    """The images of the noise `z` (N, z_size), as `sample` makes them."""
    labels = _checked_labels(generator, len(z), labels)
    was_training, made = generator.training, []
    generator.train(False)
    try:
        with no_grad():
            for i in range(0, len(z), batch):
                noise = Tensor(z[i : i + batch])
                chosen = () if labels is None else (labels[i : i + batch],)
                made.append(generator(noise, *chosen).numpy())
    finally:
        generator.train(was_training)
    return _checked_images(generator, np.concatenate(made))


def save_snapshot(run: Run, step: int, generator: ImageGenerator) -> None:
    """Write generators/00000500.npz in the run's directory, about ten times over the run.

    Call it after every step, before the run is saved; at most steps it does nothing.

    Raises:
        DivergenceError: a weight is not finite; nothing is written then.
        CheckpointError: as `save_generator`.
    """
    if step % math.ceil(run.total_steps / SNAPSHOTS) and step != run.total_steps:
        return
    check_finite(step, "generator", generator.state_dict())
    folder = run.path("generators")
    folder.mkdir(exist_ok=True)
    save_generator(folder / f"{step:08d}.npz", generator)


def snapshots(out: str | os.PathLike) -> dict[int, Path]:
    """The files that `save_snapshot` wrote in the run directory `out`, by step, in order."""
    files = sorted(Path(out).glob("generators/*.npz"))
    return {int(file.stem): file for file in files if file.stem.isdecimal()}


def _checked_labels(
    generator: ImageGenerator, count: int, labels: np.ndarray | None
) -> np.ndarray | None:
    classes, who = generator.classes, type(generator).__name__
    if labels is None:
        return np.arange(count) % classes if classes else None
    labels = np.asarray(labels)
    if not classes:
        raise ValueError(f"sample: {who} takes no labels")
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"sample: labels must be {count} integers; these are {labels.dtype} {labels.shape}"
        )
    if not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"sample: labels from {labels.min()} to {labels.max()}, but {who} has {classes} classes"
        )
    return labels


def _checked_images(generator: ImageGenerator, images: np.ndarray) -> np.ndarray:
    who, declared = type(generator).__name__, tuple(generator.image_shape)
    if images.shape[1:] != declared:
        raise ValueError(f"sample: {who} made images {images.shape[1:]}, but declares {declared}")
    if not np.isfinite(images).all():
        raise DivergenceError(f"sample: {who} makes images that are NaN or infinite")
    if np.abs(images).max() > 1:
        raise ValueError(
            f"sample: {who} made values from {images.min():.4g} to {images.max():.4g}; images are "
            "in [-1, 1] (end the generator with a tanh, or 2·sigmoid − 1)"
        )
    return images
