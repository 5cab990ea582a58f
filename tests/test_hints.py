"""Every public function and method says what it takes and gives; op bodies take any arrays."""

import importlib
import inspect

import pytest

from minigan.autograd import Op

MODULES = [
    *("backend", "cuda", "tensor", "autograd", "functional", "losses", "optim", "ema"),
    *(f"ops.{name}" for name in ("activation", "arithmetic", "conv", "linalg", "norm")),
    *(f"ops.{name}" for name in ("pool", "reduction", "resample", "shape")),
    *("nn.init", "nn.layers", "nn.module", "models.article", "models.pix2pix"),
    "models.classifier",
    *("data.batches", "data.emoji", "data.images", "data.reading"),
    *("data.folder", "data.idx", "data.npz", "data.places", "data.download", "data.mnist_sets"),
    *("data.small_digits", "data.points", "data.sets", "data.augment"),
    *(f"metrics.{name}" for name in ("classes", "distances", "extract", "features", "images")),
    *("metrics.neighbours", "metrics.judge", "metrics.ladder", "metrics.teaching"),
    *(f"training.{name}" for name in ("checkpoint", "cli", "files", "pictures", "run")),
    *("training.samples", "training.state", "training.judging", "training.report"),
    *("training.plane", "training.rows"),
]


def public_functions(module):
    """Yield the functions defined in a module, and the methods of its classes other than ops."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing):
            yield thing
        elif inspect.isclass(thing) and not (issubclass(thing, Op) and thing is not Op):
            for method in vars(thing).values():
                method = getattr(method, "__func__", method)
                own = getattr(method, "__module__", None) == module.__name__  # not attached later
                if own and inspect.isfunction(method) and method.__name__[0] != "_":
                    yield method


@pytest.mark.parametrize("name", MODULES)
def test_public_functions_have_hints(name):
    functions = list(public_functions(importlib.import_module(f"minigan.{name}")))
    assert functions or name in ("functional",), "nothing was looked at"
    for function in functions:
        signature = inspect.signature(function)
        bare = [
            p.name
            for p in signature.parameters.values()
            if p.annotation is p.empty and p.name not in ("self", "cls")
        ]
        assert not bare, f"{name}.{function.__qualname__}: no hint for {bare}"
        assert signature.return_annotation is not signature.empty, function.__qualname__
