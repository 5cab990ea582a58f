"""Floor 0: the table of the CUDA kernels in `kernels/*.cu`, and the text that is compiled.

An entry ties a kernel to its file, its NumPy twin, the operation that it serves and its parameters,
with the size of every array. `launch.py` checks each launch against it; the tests check the table
against the sources. Imported only when a GPU is asked for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

TENSORS, ITEMS = 80, 16  # as in adam.cu


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel.

    Attributes:
        name: as in the source.
        type: "INDEX", "int" or "REAL" for a number; for an array "in REAL", "out REAL", "in double"
            or "out double"; "Table" for Adam's.
        size: how many elements an array has: a product of numbers and of other parameters.
    """

    name: str
    type: str
    size: tuple[str | int, ...] = ()

    @property
    def is_array(self) -> bool:
        """Whether it is an array of the device."""
        return " " in self.type


@dataclass(frozen=True)
class Kernel:
    """One entry point.

    Attributes:
        name: of the function in the source.
        file: in `kernels/`.
        twin: the function of `twins.py`, and the method of `launch.Kernels`, that it is a part of.
        serves: the op or optimiser that it is for.
        parameters: in the order of the source.
    """

    name: str
    file: str
    twin: str
    serves: str
    parameters: tuple[Parameter, ...]

    @cached_property  # as the next two: every launch asks
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, in the order of the source."""
        return tuple(p.name for p in self.parameters)

    @cached_property
    def arrays(self) -> tuple[Parameter, ...]:
        """The parameters that are arrays of the device."""
        return tuple(p for p in self.parameters if p.is_array)

    @cached_property
    def numbers(self) -> tuple[Parameter, ...]:
        """The other ones, Adam's table included."""
        return tuple(p for p in self.parameters if not p.is_array)


KERNELS: dict[str, Kernel] = {}


def declare(name: str, file: str, twin: str, serves: str, parameters: str) -> None:
    """Enter a kernel into the table.

    A line of `parameters` is `in REAL x[rows, channels]`, an array with its number of elements, or
    `int rows, channels`, numbers. `grid_y` in a size is the grid's.
    """
    declared = []
    for line in parameters.strip().splitlines():
        words, _, size = line.strip().partition("[")
        if size:
            kind, _, array = words.rpartition(" ")
            factors = (f.strip() for f in size.rstrip("]").split(","))
            sizes = tuple(int(f) if f.isdigit() else f for f in factors)
            declared.append(Parameter(array, kind, sizes))
        else:
            kind, _, named = words.partition(" ")
            declared += [Parameter(one.strip(), kind) for one in named.split(",")]
    KERNELS[name] = Kernel(name, file, twin, serves, tuple(declared))


GEOMETRY = """
    INDEX images
    int height, width, groups, channels, out_height, out_width, kernel_h, kernel_w
    int stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w"""
IMAGE = "[images, height, width, groups, channels]"
COLUMNS = "[groups, images, out_height, out_width, kernel_h, kernel_w, channels]"

declare(
    *("im2col", "im2col.cu", "im2col", "conv2d"),
    f"in REAL x{IMAGE} \n out REAL columns{COLUMNS} {GEOMETRY}",
)
declare(
    *("col2im", "col2im.cu", "col2im", "conv_transpose2d"),
    f"in REAL columns{COLUMNS} \n out REAL x{IMAGE} {GEOMETRY}",
)
declare(
    *("batch_norm_moments", "batchnorm.cu", "batch_norm_forward", "batch_norm"),
    """in REAL x[rows, channels]
       out double partial[grid_y, 2, channels]
       INDEX rows
       int channels, chunk""",
)
declare(
    *("batch_norm_merge", "batchnorm.cu", "batch_norm_forward", "batch_norm"),
    """in double partial[chunks, 2, channels]
       out REAL statistics[4, channels]
       INDEX rows
       int channels, chunk, chunks
       REAL eps""",
)
declare(
    *("batch_norm_apply", "batchnorm.cu", "batch_norm_forward", "batch_norm"),
    """in REAL x[rows, channels]
       in REAL gamma[channels]
       in REAL beta[channels]
       in REAL statistics[4, channels]
       out REAL y[rows, channels]
       INDEX rows
       int channels, chunk
       REAL slope""",
)
declare(
    *("batch_norm_backward_sums", "batchnorm.cu", "batch_norm_backward", "batch_norm"),
    """in REAL x[rows, channels]
       in REAL gy[rows, channels]
       in REAL gamma[channels]
       in REAL beta[channels]
       in REAL statistics[4, channels]
       out double partial[grid_y, 2, channels]
       INDEX rows
       int channels, chunk
       REAL slope""",
)
declare(
    *("batch_norm_backward_merge", "batchnorm.cu", "batch_norm_backward", "batch_norm"),
    """in double partial[chunks, 2, channels]
       in REAL statistics[4, channels]
       out REAL gradients[2, channels]
       int channels, chunks""",
)
declare(
    *("batch_norm_backward_apply", "batchnorm.cu", "batch_norm_backward", "batch_norm"),
    """in REAL x[rows, channels]
       in REAL gy[rows, channels]
       in REAL gamma[channels]
       in REAL beta[channels]
       in REAL statistics[4, channels]
       in REAL gradients[2, channels]
       out REAL gx[rows, channels]
       INDEX rows
       int channels, chunk
       REAL slope""",
)
declare(
    *("bias_act_forward", "bias_act.cu", "bias_act_forward", "leaky_relu"),
    """in REAL x[rows, channels]
       in REAL bias[channels]
       out REAL y[rows, channels]
       INDEX rows
       int channels, chunk
       REAL slope""",
)
declare(
    *("bias_act_backward", "bias_act.cu", "bias_act_backward", "leaky_relu"),
    """in REAL y[rows, channels]
       in REAL gy[rows, channels]
       out REAL gx[rows, channels]
       out double partial[grid_y, channels]
       INDEX rows
       int channels, chunk
       REAL slope""",
)
declare(
    *("bias_act_merge", "bias_act.cu", "bias_act_backward", "leaky_relu"),
    """in double partial[chunks, channels]
       out REAL g_bias[channels]
       int channels, chunks""",
)
declare(
    *("adam_step", "adam.cu", "adam_step", "optim.Adam"),
    """Table table
       int tensors
       REAL rate, correction, beta1, beta2, gain1, gain2, eps, decay, shrink""",
)

FILES = sorted({kernel.file for kernel in KERNELS.values()})


def wanted() -> bool:
    """Return whether the kernels are to be used: unless MINIGAN_KERNELS is 0.

    Raises:
        ValueError: it is something else than 0 or 1.
    """
    setting = os.environ.get("MINIGAN_KERNELS", "1")
    if setting not in ("0", "1"):
        raise ValueError(f"MINIGAN_KERNELS must be 0 (plain CuPy) or 1 (our kernels): {setting!r}")
    return setting == "1"


def source(folder: Path, file: str) -> str:
    """Return the text that is compiled for a file of `kernels/`: `common.cuh`, then the file."""
    parts = [f'#line 1 "{name}"\n' + (folder / name).read_text() for name in ("common.cuh", file)]
    return "\n".join(parts)


def options(real: np.dtype, index: np.dtype) -> tuple[str, ...]:
    """Return what the compiler is told about the types of a variant."""
    reals = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
    indices = {np.dtype(np.int32): "int", np.dtype(np.int64): "long long"}
    return ("-std=c++17", f"-DREAL={reals[real]}", f"-DINDEX={indices[index]}")


def table_type() -> np.dtype:
    """Return the layout of adam.cu's `Table`: pointers, sizes and first blocks."""
    pointers = [(name, np.uint64, TENSORS) for name in "pgmv"]
    sizes = [("size", np.int64, TENSORS), ("first_block", np.int32, TENSORS + 1)]
    return np.dtype([*pointers, *sizes], align=True)
