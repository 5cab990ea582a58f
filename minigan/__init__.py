"""minigan: a deep-learning engine to read in a weekend, that really trains image generators.

Begin with `import minigan as mg` and `from minigan import functional as F, nn, optim`.
"""

from minigan import functional, losses, metrics, nn, ops, optim
from minigan.autograd import Op, grad
from minigan.backend import DeviceError, default_dtype, generator, manual_seed, use
from minigan.gradcheck import GradcheckError, gradcheck
from minigan.tensor import AnomalyError, Tensor, detect_anomaly, is_recording, no_grad, tensor
from minigan.together import side_by_side
from minigan.workers import get_num_threads, set_num_threads

__version__ = "0.1.0"

__all__ = [
    "AnomalyError",
    "DeviceError",
    "GradcheckError",
    "Op",
    "Tensor",
    "data",
    "default_dtype",
    "detect_anomaly",
    "functional",
    "generator",
    "get_num_threads",
    "grad",
    "gradcheck",
    "is_recording",
    "losses",
    "manual_seed",
    "metrics",
    "models",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "set_num_threads",
    "side_by_side",
    "tensor",
    "training",
    "use",
]


def __getattr__(name: str) -> object:
    """Import the parts that not every program needs when they are first asked for."""
    if name in ("data", "models", "training"):
        import importlib

        return importlib.import_module(f"minigan.{name}")
    raise AttributeError(f"module 'minigan' has no attribute {name!r}")
