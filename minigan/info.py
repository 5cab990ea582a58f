"""`python -m minigan.info`: what minigan finds on this machine, and what is missing for a GPU."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import minigan
from minigan import backend, kernels
from minigan.cuda import CUPY, kernels_dir
from minigan.launch import Kernels

# How the BLAS libraries that NumPy comes with are asked for their number of threads.
ASK_THREADS = (
    *("scipy_openblas_get_num_threads64_", "scipy_openblas_get_num_threads"),
    *("openblas_get_num_threads64_", "openblas_get_num_threads", "MKL_Get_Max_Threads"),
)

# What is said of the environment.
SETTINGS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
SETTINGS += ("MINIGAN_THREADS", "MINIGAN_DEVICE", "MINIGAN_KERNELS", "CUDA_VISIBLE_DEVICES")


def blas() -> str:
    """Return the name and version of NumPy's BLAS, and how many threads it uses."""
    found = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    threads = blas_threads()
    count = "threads unknown" if threads is None else f"{threads} thread{'s' * (threads != 1)}"
    return f"{found.get('name', 'unknown')} {found.get('version', '')}, {count}"


def blas_threads() -> int | None:
    """Return the number of threads of the BLAS that is loaded; None where it cannot be asked."""
    maps = Path("/proc/self/maps")  # Linux alone has it
    lines = maps.read_text().splitlines() if maps.exists() else []
    paths = {line.split()[-1] for line in lines if "blas" in line or "mkl_rt" in line}
    for path in sorted(paths):
        library = ctypes.CDLL(path)
        for name in ASK_THREADS:
            if hasattr(library, name):
                return int(getattr(library, name)())
    return None


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
    yield "processor", f"{os.cpu_count()} cores"
    yield "NumPy", np.__version__
    yield "BLAS", blas()
    for name in SETTINGS:
        if name in os.environ:
            yield name, os.environ[name]
    yield "CUDA sources", asked(lambda: f"{len(kernels.FILES)} files in {kernels_dir()}")
    yield from cuda()


def main() -> int:
    """Print the report; returns the exit code."""
    for what, how in report():
        print(f"{what:34s}{how}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
