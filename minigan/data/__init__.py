"""Data sets, and what stands between them and a training loop.

- `emoji`: pairs of line art and colour drawings, rendered from the OpenMoji font.
- `batches`: endless shuffled mini-batches of indices.
- `images`: between bytes and floats in [-1, 1].
- `idx`, `folder`, `npz`: readers of files, which believe nothing (`reading` says how).
"""

from minigan.data.batches import Batches
from minigan.data.emoji import EmojiPairs, load_emoji
from minigan.data.folder import read_folder, read_image
from minigan.data.idx import read_idx, read_labelled_images
from minigan.data.images import to_bytes, to_unit
from minigan.data.npz import read_npz
from minigan.data.reading import DataError

__all__ = [
    "Batches",
    "DataError",
    "EmojiPairs",
    "load_emoji",
    "read_folder",
    "read_idx",
    "read_image",
    "read_labelled_images",
    "read_npz",
    "to_bytes",
    "to_unit",
]
