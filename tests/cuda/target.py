"""What the tests of tests/cuda run on: the stand-in, or with `pytest --device cuda` CuPy."""

import os
from contextlib import nullcontext
from importlib import import_module

import executor
import standin

ON_GPU = os.environ.get("MINIGAN_TEST_DEVICE") == "cuda"
xp = import_module("cupy") if ON_GPU else standin
missing = "" if ON_GPU else executor.missing()  # why our kernels cannot be run, if they cannot


def installed():
    """A context in which `import cupy` gives what is tested."""
    return nullcontext(xp) if ON_GPU else standin.installed()
