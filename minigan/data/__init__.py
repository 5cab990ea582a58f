"""Data sets, and what stands between them and a training loop.

- `sets`: every data set by its name, `load_images("fashion-mnist")` and `load_points("ring")`.
- `mnist_sets`: Fashion-MNIST and MNIST; `small_digits`: 8×8; `points`: Gaussians in the plane.
- `emoji`: pairs of line art and colour drawings, rendered from the OpenMoji font.
- `augment`: flips, shifts and DiffAugment.
- `batches`: endless shuffled mini-batches of indices.
- `images`: between bytes and floats in [-1, 1].
- `idx`, `folder`, `npz`: readers of files, which believe nothing (`reading` says how).
- `places`, `download`: where files are looked for, and how they get there.
"""

from minigan.data.augment import diff_augment, flip, shift
from minigan.data.batches import Batches
from minigan.data.emoji import EmojiPairs, load_emoji
from minigan.data.folder import read_folder, read_image
from minigan.data.idx import read_idx, read_labelled_images
from minigan.data.images import LabelledImages, to_bytes, to_unit
from minigan.data.mnist_sets import download_mnist, fashion_mnist, mnist
from minigan.data.npz import read_npz
from minigan.data.places import MissingDataError
from minigan.data.points import Points, grid, ring
from minigan.data.reading import DataError
from minigan.data.sets import load_images, load_points
from minigan.data.small_digits import digits

__all__ = [
    "Batches",
    "DataError",
    "EmojiPairs",
    "LabelledImages",
    "MissingDataError",
    "Points",
    "diff_augment",
    "digits",
    "download_mnist",
    "fashion_mnist",
    "flip",
    "grid",
    "load_emoji",
    "load_images",
    "load_points",
    "mnist",
    "read_folder",
    "read_idx",
    "read_image",
    "read_labelled_images",
    "read_npz",
    "ring",
    "shift",
    "to_bytes",
    "to_unit",
]
