"""Pillow, tqdm and matplotlib are optional: imported when first needed, with clear words if not."""

import importlib
from types import ModuleType


class MissingExtraError(ImportError):
    """A package of the optional extra `examples` is not installed."""


def import_extra(module: str) -> ModuleType:
    """Import `module`, e.g. "PIL.Image"; MissingExtraError has the pip command if absent."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the Python package {error.name!r} is not installed; "
            "install it with: pip install 'minigan[examples]'"
        ) from error
