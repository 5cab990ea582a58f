"""Floor 0: finding CuPy, a GPU, and the CUDA sources in `kernels/`.

Imported only when someone asks for "cuda". The tests run it on a stand-in for CuPy, or on a GPU
(docs/verified.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minigan import kernels
from minigan.backend import Backend, DeviceError
from minigan.launch import Kernels

CUPY = (
    "pip install 'cupy-cuda12x[ctk]' or 'cupy-cuda13x[ctk]', by the CUDA version of your driver "
    "(nvidia-smi shows it)"
)


def kernels_dir() -> Path:
    """Return the folder of the CUDA sources.

    An installed wheel carries it inside the package; in a checkout it stands beside the package.

    Raises:
        FileNotFoundError: it is in neither place (a broken installation).
    """
    package = Path(__file__).resolve().parent
    places = (package / "kernels", package.parent / "kernels")
    for place in places:
        if (place / "README.md").is_file():
            return place
    looked = " nor ".join(str(place) for place in places)
    raise FileNotFoundError(f"kernels: neither {looked} holds the CUDA sources: reinstall minigan")


class CupyBackend(Backend):
    """CuPy on an NVIDIA GPU, with our kernels unless MINIGAN_KERNELS=0."""

    name = "cuda"

    def __init__(self, cupy: Any) -> None:
        self.xp = cupy
        self.array_type = cupy.ndarray
        self.kernels = Kernels(cupy, kernels_dir()) if kernels.wanted() else None

    @property
    def special(self) -> Any:
        import cupyx.scipy.special

        return cupyx.scipy.special

    def choose(self, plain: Any, with_kernels: Any) -> Any:
        return plain if self.kernels is None else with_kernels

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        if a.ndim == b.ndim == out.ndim == 3 and len(out) == 1:
            # Of a stack CuPy copies a transposed operand; of two matrices cuBLAS takes it as it is.
            a, b, out = a[0], b[0], out[0]
        self.xp.matmul(a, b, out=out)

    def add_at(self, y: Any, index: Any, x: Any) -> None:
        """As NumPy's; CuPy's own adds as its threads happen to come, to other last bits each time.

        A sort brings together what goes to one place. Steps of 1, 2, 4, ... then add to each number
        the sum of those before it that go to the same (Hillis and Steele 1986); the last has all.
        """
        xp, none = self.xp, x.dtype.type(0)
        if not x.size:
            return
        places = xp.arange(y.size).reshape(y.shape)[index].ravel()
        order = xp.argsort(places, kind="stable")
        places, sums, step = places[order], x.ravel()[order], 1
        while step < len(sums):
            sums[step:] += xp.where(places[step:] == places[:-step], sums[:-step], none)
            step *= 2
        last = xp.append(places[1:] != places[:-1], xp.ones(1, dtype=bool))
        added = xp.zeros(y.size + x.size, dtype=x.dtype)  # incomplete sums go behind those for y
        added[xp.where(last, places, xp.arange(y.size, added.size))] = sums
        y += added[: y.size].reshape(y.shape)

    def from_host(self, array: np.ndarray) -> Any:
        if array.ndim == 0:  # a constant: a launch carries it, where a copy would wait for the host
            return self.xp.full((), array.item(), array.dtype)
        return self.xp.asarray(array)

    def to_host(self, array: Any) -> np.ndarray:
        return self.xp.asnumpy(array)


def load_backend() -> CupyBackend:
    """Import CuPy, make sure that it sees a GPU and finds CUDA's libraries; return its backend.

    Raises:
        DeviceError: CuPy, the driver, a GPU or a library is missing; with how to get it.
    """
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(
            f"device 'cuda' needs CuPy, which could not be imported ({error}): {CUPY}"
        ) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy has a class of its own for this, and a name that changed
        raise DeviceError(
            f"device 'cuda': no working NVIDIA driver ({error}): install one for your GPU from "
            "nvidia.com or your distribution, at least as new as CuPy's CUDA; nvidia-smi shows it"
        ) from None
    if count == 0:
        raise DeviceError(
            "device 'cuda': the driver is there but sees no GPU: nvidia-smi -L lists those that it "
            "sees, and CUDA_VISIBLE_DEVICES may hide them"
        )
    needed = {"NVRTC": cupy.cuda.nvrtc.getVersion, "cuBLAS": cupy.cuda.get_cublas_handle}
    for library, ask in needed.items():
        try:
            ask()
        except Exception as error:  # CuPy looks for them when they are asked for, and not before
            why = str(error).partition("\n")[0]
            raise DeviceError(f"device 'cuda': CuPy finds no {library} ({why}): {CUPY}") from None
    return CupyBackend(cupy)
