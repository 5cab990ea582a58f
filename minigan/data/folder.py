"""Image files: one, or a folder of them, as bytes `(N, H, W, C)`. Pillow decodes them.

The header is read first: what it declares is compared with a limit before a pixel is decoded.
"""

import importlib
import os
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from minigan.data.reading import MAX_BYTES, DataError, open_data

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}  # 8 bits a channel or fewer
MAX_PIXELS = 1 << 24  # of one image: 4096 × 4096


def read_image(
    path: str | os.PathLike, channels: int = 3, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """A PNG or JPEG file as uint8 `(H, W, channels)`; `channels` is 3, or 1 for grey.

    What is transparent is laid on white.

    Raises:
        DataError: the file is not such an image, has more than `max_pixels`, more than 8 bits a
            channel, or is damaged or cut short.
        ValueError: `channels` is neither 3 nor 1.
        ImportError: Pillow is missing; the message has the command.
    """
    if channels not in (1, 3):
        raise ValueError(f"read_image: channels is {channels!r} but must be 3 or 1")
    Image = _pillow()
    with open_data(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's about large images: our limit is lower
        try:
            with Image.open(file, formats=sorted(set(FORMATS.values()))) as image:
                width, height = image.size
                if width * height > max_pixels:
                    found = f"{width} × {height} declared"
                    raise DataError(path, "header", f"at most {max_pixels} pixels", found)
                if image.mode not in MODES:
                    raise DataError(path, "header", "8 bits a channel", f"mode {image.mode}")
                return _pixels(Image, image, channels)
        except DataError:
            raise
        except Image.DecompressionBombError as error:  # Pillow's own limit, far above ours
            raise DataError(path, "header", f"at most {max_pixels} pixels", error) from error
        except Exception as error:  # damaged bytes make Pillow raise many kinds
            words = str(error).split(" <")[0] or type(error).__name__
            raise DataError(path, "image", "a sound PNG or JPEG file", words) from error


def read_folder(
    folder: str | os.PathLike,
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> np.ndarray:
    """All PNG and JPEG files of a folder, by name: uint8 `(N, H, W, channels)`, all of one size.

    Hidden files and other endings are passed over; folders below are not looked into.

    Raises:
        DataError: no folder, no image in it, images of several sizes, over `max_bytes` of pixels
            in all, or a file that `read_image` refuses.
    """
    folder = Path(folder)
    try:
        if not folder.is_dir():
            raise DataError(folder, "folder", "a folder", "something else or nothing")
        names = sorted(p for p in folder.iterdir() if p.suffix.lower() in FORMATS)
    except OSError as error:
        raise DataError(folder, "folder", "one that can be read", error.strerror) from error
    paths = [p for p in names if not p.name.startswith(".")]
    if not paths:
        raise DataError(folder, "folder", "PNG or JPEG files", "none")
    images: list[np.ndarray] = []
    for path in paths:
        image = read_image(path, channels, max_pixels)
        if images and image.shape != images[0].shape:
            height, width = images[0].shape[:2]
            raise DataError(
                path,
                "size",
                f"{width} × {height} pixels as {paths[0].name}",
                f"{image.shape[1]} × {image.shape[0]}",
            )
        if image.nbytes * len(paths) > max_bytes:
            total = image.nbytes * len(paths)
            raise DataError(folder, "folder", f"at most {max_bytes} bytes of pixels", total)
        images.append(image)
    return np.stack(images)


def _pixels(Image: ModuleType, image: Any, channels: int) -> np.ndarray:
    if "A" in image.mode or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], channels)


def _pillow() -> ModuleType:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise ImportError(
            f"reading images needs the package pillow, which cannot be imported ({error}); "
            f"install it with: pip install 'minigan[examples]'"
        ) from error
