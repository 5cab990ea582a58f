"""`python -m minigan.info`: what minigan finds on this machine, and what is missing for a GPU."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import minigan
from minigan import backend, gemm, kernels
from minigan.cuda import CUPY, kernels_dir
from minigan.launch import Kernels
from minigan.workers import get_num_threads

# What is said of the environment. (Kernels for another processor can take twice the time.)
SETTINGS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
SETTINGS += ("MKL_NUM_THREADS", "MINIGAN_THREADS", "MINIGAN_KEEP_MEMORY", "MINIGAN_DEVICE")
SETTINGS += ("MINIGAN_KERNELS", "CUDA_VISIBLE_DEVICES")


def blas() -> str:
    """Return NumPy's BLAS: name and version, for which processor its kernels are, its threads."""
    found = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    name = f"{found.get('name', 'unknown')} {found.get('version', '')}"
    loaded = [library.info() for library in gemm.libraries()]
    if not loaded:  # one that threadpoolctl does not know
        return f"{name}, threads unknown"
    kernels_for, threads = loaded[0].get("architecture"), loaded[0]["num_threads"]
    words = f"kernels for {kernels_for}, " if kernels_for else ""
    return f"{name}, {words}{threads} thread{'s' * (threads != 1)}"


def settings() -> Iterator[tuple[str, str]]:
    """Yield what the environment says of threads, kernels and devices."""
    for name in SETTINGS:
        if name in os.environ:
            yield name, os.environ[name]


def version(number: int) -> str:
    """Return CUDA's way to number versions, 13020, as people write it, 13.2; 0 is none."""
    if not number:
        return "none"
    return f"CUDA {number // 1000}.{number % 1000 // 10}"


def cuda() -> Iterator[tuple[str, str]]:
    """Yield what there is of CUDA, line by line, down to the first thing that is missing."""
    try:
        import cupy
    except ImportError as error:
        yield "CuPy", f"none ({error}); to compute on a GPU: {CUPY}"
        return
    yield "CuPy", cupy.__version__
    runtime = cupy.cuda.runtime
    yield "driver", asked(lambda: version(runtime.driverGetVersion()))
    try:
        device = backend.get("cuda")
    except (backend.DeviceError, ValueError) as error:  # or a setting that cannot be
        yield "GPU", str(error)
        return
    for number in range(runtime.getDeviceCount()):
        yield "GPU", asked(lambda number=number: describe(runtime.getDeviceProperties(number)))
    if device.kernels is None:
        yield "kernels", "not used (MINIGAN_KERNELS=0): plain CuPy"
    else:
        yield from compiled(device.kernels)


def describe(properties: dict[str, Any]) -> str:
    """Return a GPU's name, architecture and memory."""
    name, memory = properties["name"].decode(), properties["totalGlobalMem"] / 2**30
    return f"{name}, sm_{properties['major']}{properties['minor']}, {memory:.0f} GiB"


def compiled(found: Kernels) -> Iterator[tuple[str, str]]:
    """Yield for each kernel whether it compiles, for float32 and 32-bit indices."""
    real, index = np.dtype(np.float32), np.dtype(np.int32)
    for name, kernel in kernels.KERNELS.items():
        state = asked(lambda name=name: found.function(name, real, index) and "compiled")
        yield f"kernel {name}", f"{kernel.file}, {state}"


def asked(question: Callable[[], Any]) -> str:
    """Return an answer as text, or why there is none: one broken part must not hide the others."""
    try:
        return str(question())
    except Exception as error:  # CuPy and the driver have many kinds
        return f"failed: {error}"


def report() -> Iterator[tuple[str, str]]:
    """Yield (what, how it is) for every line."""
    yield "minigan", f"{minigan.__version__} in {Path(minigan.__file__).parent}"
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "processor", f"{os.cpu_count()} cores; threads to an operation: {get_num_threads()}"
    yield "NumPy", np.__version__
    yield "BLAS", blas()
    yield from settings()
    yield "CUDA sources", asked(lambda: f"{len(kernels.FILES)} files in {kernels_dir()}")
    yield from cuda()


def main() -> int:
    """Print the report; returns the exit code."""
    for what, how in report():
        print(f"{what:34s}{how}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
