"""What the kernels of tests/cuda run on: the stand-in, or with `pytest --device cuda` CuPy."""

import os
from importlib import import_module

import standin

ON_GPU = os.environ.get("MINIGAN_TEST_DEVICE") == "cuda"
xp = import_module("cupy") if ON_GPU else standin
