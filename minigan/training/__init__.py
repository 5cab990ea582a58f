"""What example scripts share: flags, run directory, checkpoints, pictures. The loop is theirs."""

from .checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from .cli import (
    device_flag,
    natural_int,
    plain_errors,
    positive_float,
    positive_int,
    require_extras,
    standard_flags,
)
from .extras import MissingExtraError
from .gan import (
    WROTE,
    gan_flags,
    load_real,
    nearest,
    parse_gan_flags,
    save_interpolation,
    save_neighbours,
    show_end,
    show_generator,
)
from .generators import (
    ImageGenerator,
    generate,
    load_generator,
    sample,
    save_generator,
    save_snapshot,
    snapshots,
)
from .judging import Candidate, find_candidate, find_candidates, load_classifier, load_parts
from .pictures import save_confusion, save_curves, save_grid
from .plane import save_plane, show_plane
from .report import make_folder, verdict, write_report
from .rows import save_rows
from .run import DivergenceError, Run, RunError
from .samples import save_film, save_samples
from .state import resume, save

__all__ = [
    "WROTE",
    "Candidate",
    "CheckpointError",
    "DivergenceError",
    "ImageGenerator",
    "MissingExtraError",
    "Run",
    "RunError",
    "device_flag",
    "find_candidate",
    "find_candidates",
    "gan_flags",
    "generate",
    "load_checkpoint",
    "load_classifier",
    "load_generator",
    "load_parts",
    "load_real",
    "make_folder",
    "natural_int",
    "nearest",
    "parse_gan_flags",
    "plain_errors",
    "positive_float",
    "positive_int",
    "require_extras",
    "resume",
    "sample",
    "save",
    "save_checkpoint",
    "save_confusion",
    "save_curves",
    "save_film",
    "save_generator",
    "save_grid",
    "save_interpolation",
    "save_neighbours",
    "save_plane",
    "save_rows",
    "save_samples",
    "save_snapshot",
    "show_end",
    "show_generator",
    "show_plane",
    "snapshots",
    "standard_flags",
    "verdict",
    "write_report",
]
