"""Data sets, and what stands between them and a training loop.

- `emoji`: pairs of line art and colour drawings, rendered from the OpenMoji font.
- `batches`: endless shuffled mini-batches of indices.
- `images`: between bytes and floats in [-1, 1].
"""

from minigan.data.batches import Batches
from minigan.data.emoji import EmojiPairs, load_emoji
from minigan.data.images import to_bytes, to_unit
from minigan.data.reading import DataError

__all__ = ["Batches", "DataError", "EmojiPairs", "load_emoji", "to_bytes", "to_unit"]
