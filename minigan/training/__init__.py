"""What example scripts share: flags, run directory, checkpoints, pictures. The loop is theirs."""

from .checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from .cli import natural_int, plain_errors, positive_int, require_extras, standard_flags
from .extras import MissingExtraError
from .pictures import save_confusion, save_curves, save_grid
from .run import DivergenceError, Run, RunError
from .samples import save_film, save_samples
from .state import resume, save

__all__ = [
    "CheckpointError",
    "DivergenceError",
    "MissingExtraError",
    "Run",
    "RunError",
    "load_checkpoint",
    "natural_int",
    "plain_errors",
    "positive_int",
    "require_extras",
    "resume",
    "save",
    "save_checkpoint",
    "save_confusion",
    "save_curves",
    "save_film",
    "save_grid",
    "save_samples",
    "standard_flags",
]
