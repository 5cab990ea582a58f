"""Floor 0: launching the CUDA kernels, arrays in and arrays out.

A launch on CuPy checks next to nothing: strides are ignored, a float64 array is read as float32,
a Python float goes over as 8 bytes even where the kernel takes 4, and an index out of bounds is
somebody else's memory. So `launch` checks every argument against the kernel's declaration in
`kernels.py`, sizes included, before anything runs.

`Kernels` has a method for each function of `twins.py`. With MINIGAN_KERNELS=0 in the environment
nobody makes a `Kernels`, and the engine uses plain CuPy. Imported only when a GPU is asked for.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minigan.kernels import ITEMS, KERNELS, TENSORS, Kernel, Parameter, options, source, table_type

Pair = tuple[int, int]

THREADS = 256  # of a block, in all kernels
LANES = 32  # of a warp
BLOCKS = 1024  # wanted of a reduction: enough to fill a GPU, whichever it is
INT_LIMIT = 2**31 - 1024  # elements up to which 32-bit indices do, a block's overshoot included
GRID_LIMITS = (2**31 - 1, 65535)
INT, LONG, DOUBLE = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.float64)
LARGEST = {INT: 2**31 - 1, LONG: 2**63 - 1}


class Kernels:
    """The kernels on one array module, compiled when first used.

    Args:
        xp: CuPy (or a stand-in with its interface).
        folder: of the sources.
    """

    def __init__(self, xp: Any, folder: Path) -> None:
        self.xp, self.folder = xp, folder
        self.modules: dict[tuple, Any] = {}
        self.functions: dict[tuple, Any] = {}

    def function(self, name: str, real: np.dtype, index: np.dtype) -> Any:
        """Return a kernel compiled for these types; CuPy keeps the result on disk."""
        file = KERNELS[name].file
        key = file, real, index
        if key not in self.modules:
            self.modules[key] = self.xp.RawModule(
                code=source(self.folder, file), options=options(real, index)
            )
        if (name, *key) not in self.functions:
            self.functions[name, *key] = self.modules[key].get_function(name)
        return self.functions[name, *key]

    def launch(
        self, name: str, grid: tuple[int, int], block: tuple[int, int], real: Any, **arguments: Any
    ) -> None:
        """Check every argument of a kernel against its declaration, and run it.

        Args:
            name: of the kernel.
            grid: blocks along x and y.
            block: threads along x and y; 256 together.
            real: float32 or float64, what REAL stands for.
            arguments: by parameter name: arrays of the device, and Python numbers.

        Raises:
            TypeError, ValueError: the message names kernel and argument, and the rule.
        """
        kernel, real = KERNELS[name], np.dtype(real)
        if arguments.keys() != set(kernel.names):
            odd = sorted(arguments.keys() ^ set(kernel.names))
            raise TypeError(f"kernel {name}: missing or unknown arguments: {', '.join(odd)}")
        if real not in (np.float32, np.float64):
            raise TypeError(f"kernel {name}: is for float32 and float64, not {real}")
        if any(not 1 <= g <= most for g, most in zip(grid, GRID_LIMITS, strict=False)):
            raise ValueError(f"kernel {name}: a grid of {grid} blocks is empty or over the limits")
        if math.prod(block) != THREADS:
            raise ValueError(f"kernel {name}: a block of {block} is not {THREADS} threads")

        index = INT if reach(kernel, arguments) < INT_LIMIT else LONG
        types = {"REAL": real, "INDEX": index, "int": INT}
        checked = {}
        for p in kernel.numbers:  # first: the sizes of arrays are made of them
            who, value = f"kernel {name}: {p.name}", arguments[p.name]
            if p.type == "Table":
                checked[p.name] = check_table(who, value)
            else:
                checked[p.name] = check_number(who, value, types[p.type])
        known = arguments | {"grid_y": grid[1]}
        for p in kernel.arrays:
            dtype = DOUBLE if p.type.endswith(" double") else real
            who = f"kernel {name}: {p.name}"
            checked[p.name] = self.check_array(who, arguments[p.name], dtype, p, known)
        self.check_overlap(kernel, arguments)
        self.function(name, real, index)(grid, block, tuple(checked[n] for n in kernel.names))

    def check_array(self, who: str, a: Any, dtype: np.dtype, p: Parameter, known: dict) -> Any:
        """Return an argument that is an array of the device, contiguous, of this dtype and size."""
        if not isinstance(a, self.xp.ndarray):
            raise TypeError(f"{who}: needs an array of the device, got {type(a).__name__}")
        if a.dtype != dtype:
            raise TypeError(f"{who}: needs {dtype}, got {a.dtype}")
        if not a.flags.c_contiguous:
            raise ValueError(
                f"{who}: needs a contiguous array, got shape {a.shape} with strides {a.strides}: "
                "the kernel does not know about strides; use ascontiguousarray"
            )
        size = math.prod(f if isinstance(f, int) else int(known[f]) for f in p.size)
        if a.size != size:
            factors = " · ".join(map(str, p.size))
            raise ValueError(f"{who}: needs {factors} = {size} elements, got {a.size} {a.shape}")
        return a

    def check_overlap(self, kernel: Kernel, arguments: dict[str, Any]) -> None:
        """Raise ValueError if what is written shares memory with anything else (`__restrict__`)."""
        spans = {}
        for p in kernel.arrays:
            if (a := arguments[p.name]).size:
                spans[p.name] = (int(a.data.ptr), int(a.data.ptr) + a.nbytes)
        for p in kernel.arrays:
            if p.type.startswith("out") and p.name in spans:
                start, stop = spans[p.name]
                for other, (first, last) in spans.items():
                    if other != p.name and first < stop and start < last:
                        raise ValueError(f"kernel {kernel.name}: {p.name} and {other} share memory")

    # ---- what the kernels do; the functions of twins.py

    def im2col(
        self,
        x: Any,
        kernel: Pair,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
        size: Pair,
    ) -> Any:
        """Return the windows of images (N, H, W, C) as rows, (groups, N·OH·OW, KH·KW·C/groups)."""
        x = self.xp.ascontiguousarray(x)
        numbers = window_numbers("im2col", x.shape, kernel, stride, padding, dilation, groups, size)
        length = kernel[0] * kernel[1] * numbers["channels"]
        columns = self.xp.empty((groups, len(x) * size[0] * size[1], length), x.dtype)
        if columns.size:
            block = lanes(length), THREADS // lanes(length)
            grid = ceil_div(groups * columns.shape[1], block[1]), 1
            self.launch("im2col", grid, block, x.dtype, x=x, columns=columns, **numbers)
        return columns

    def col2im(
        self,
        columns: Any,
        shape: tuple[int, int, int, int],
        kernel: Pair,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
        size: Pair,
    ) -> Any:
        """Return images of `shape` (N, H, W, C): every window added back where it came from."""
        columns = self.xp.ascontiguousarray(columns)
        numbers = window_numbers("col2im", shape, kernel, stride, padding, dilation, groups, size)
        x = self.xp.empty(shape, columns.dtype)
        if x.size:
            block = lanes(shape[3]), THREADS // lanes(shape[3])
            grid = ceil_div(math.prod(shape[:3]), block[1]), 1
            self.launch("col2im", grid, block, x.dtype, columns=columns, x=x, **numbers)
        return x

    def batch_norm_forward(
        self, x: Any, gamma: Any, beta: Any, eps: float, slope: float = 1.0
    ) -> tuple[Any, Any]:
        """Return act(γ (x − mean) / √(variance + eps) + β), and the statistics (4, C)."""
        x, gamma, beta = map(self.xp.ascontiguousarray, (x, gamma, beta))
        grid, block, shape = tiles("batch_norm_forward", x.shape)
        y, statistics = self.xp.empty(x.shape, x.dtype), self.xp.empty((4, x.shape[-1]), x.dtype)
        partial = self.xp.empty((grid[1], 2, x.shape[-1]), np.float64)
        merge, chunks = (grid[0], 1), {"chunks": grid[1]}
        self.launch("batch_norm_moments", grid, block, x.dtype, x=x, partial=partial, **shape)
        joined = {"partial": partial, "statistics": statistics, "eps": eps}
        self.launch("batch_norm_merge", merge, block, x.dtype, **joined, **shape, **chunks)
        kept = {"x": x, "gamma": gamma, "beta": beta, "statistics": statistics, "slope": slope}
        self.launch("batch_norm_apply", grid, block, x.dtype, **kept, y=y, **shape)
        return y, statistics

    def batch_norm_backward(
        self, x: Any, gy: Any, gamma: Any, beta: Any, statistics: Any, slope: float = 1.0
    ) -> tuple[Any, Any, Any]:
        """Return the gradients of x, γ and β, given that of y; all but `gy` as forward had them."""
        x, gy, gamma, beta = map(self.xp.ascontiguousarray, (x, gy, gamma, beta))
        grid, block, shape = tiles("batch_norm_backward", x.shape)
        channels = x.shape[-1]
        gx, gradients = self.xp.empty(x.shape, x.dtype), self.xp.empty((2, channels), x.dtype)
        partial = self.xp.empty((grid[1], 2, channels), np.float64)
        kept = {"x": x, "gy": gy, "gamma": gamma, "beta": beta, "statistics": statistics}
        kept |= {"slope": slope, **shape}
        self.launch("batch_norm_backward_sums", grid, block, x.dtype, partial=partial, **kept)
        joined = {"partial": partial, "statistics": statistics, "gradients": gradients}
        numbers = {"channels": channels, "chunks": grid[1]}
        self.launch("batch_norm_backward_merge", (grid[0], 1), block, x.dtype, **joined, **numbers)
        kept |= {"gradients": gradients, "gx": gx}
        self.launch("batch_norm_backward_apply", grid, block, x.dtype, **kept)
        return gx, gradients[0], gradients[1]

    def bias_act_forward(self, x: Any, bias: Any, slope: float) -> Any:
        """Return act(x + bias) for x (..., C) and bias (C,)."""
        x, bias = self.xp.ascontiguousarray(x), self.xp.ascontiguousarray(bias)
        y = self.xp.empty(x.shape, x.dtype)
        if x.size:
            grid, block, shape = tiles("bias_act_forward", x.shape)
            arrays = {"x": x, "bias": bias, "y": y}
            self.launch("bias_act_forward", grid, block, x.dtype, **arrays, **shape, slope=slope)
        return y

    def bias_act_backward(self, y: Any, gy: Any, slope: float) -> tuple[Any, Any]:
        """Return the gradients of x and bias, given y and its gradient."""
        y, gy = self.xp.ascontiguousarray(y), self.xp.ascontiguousarray(gy)
        channels = y.shape[-1]
        if not y.size:
            return self.xp.empty(y.shape, y.dtype), self.xp.zeros(channels, y.dtype)
        grid, block, shape = tiles("bias_act_backward", y.shape)
        gx, g_bias = self.xp.empty(y.shape, y.dtype), self.xp.empty(channels, y.dtype)
        partial = self.xp.empty((grid[1], channels), np.float64)
        arrays = {"y": y, "gy": gy, "gx": gx, "partial": partial}
        self.launch("bias_act_backward", grid, block, y.dtype, **arrays, **shape, slope=slope)
        arrays = {"partial": partial, "g_bias": g_bias, "channels": channels, "chunks": grid[1]}
        self.launch("bias_act_merge", (grid[0], 1), block, y.dtype, **arrays)
        return gx, g_bias

    def adam_step(
        self,
        params: Sequence[Any],
        grads: Sequence[Any],
        m: Sequence[Any],
        v: Sequence[Any],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        t: int,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        """Change params, m and v in place: Adam's step number t; AdamW's if the decay is decoupled.

        All in one launch, or one for every 80 tensors. Gradients may have any strides.
        """
        grads = [self.xp.ascontiguousarray(g) for g in grads]
        tensors = list(zip(params, grads, m, v, strict=True))
        for i, arrays in enumerate(tensors):
            self.check_tensors(i, arrays, params[0].dtype)
        beta1, beta2 = betas
        numbers = {
            "rate": lr / (1 - beta1**t),
            "correction": 1 / math.sqrt(1 - beta2**t),
            "beta1": beta1,
            "beta2": beta2,
            "gain1": 1 - beta1,
            "gain2": 1 - beta2,
            "eps": eps,
            "decay": 0.0 if decoupled else weight_decay,
            "shrink": 1 - lr * weight_decay if decoupled else 1.0,
        }
        tensors = [arrays for arrays in tensors if arrays[0].size]
        for first in range(0, len(tensors), TENSORS):
            table, blocks = table_of(tensors[first : first + TENSORS])
            count = min(TENSORS, len(tensors) - first)
            grid, block = (blocks, 1), (THREADS, 1)
            self.launch(
                *("adam_step", grid, block, params[0].dtype),
                table=table,
                tensors=count,
                **numbers,
            )

    def check_tensors(self, i: int, arrays: Sequence[Any], dtype: np.dtype) -> None:
        """Raise unless parameter i, its gradient and its two moments can stand in Adam's table."""
        for name, a in zip(("param", "grad", "m", "v"), arrays, strict=True):
            declared = Parameter(name, "inout REAL", (int(arrays[0].size),))
            self.check_array(f"kernel adam_step: {name} {i}", a, dtype, declared, {})


def reach(kernel: Kernel, arguments: dict[str, Any]) -> int:
    """Return how far a kernel's indices go: its longest array, or a count of what another has."""
    sizes = [getattr(arguments[p.name], "size", 0) for p in kernel.arrays]
    counts = [arguments[p.name] for p in kernel.numbers if p.type == "INDEX"]
    return max([0, *sizes, *(n for n in counts if isinstance(n, numbers.Integral))])


def check_number(who: str, value: Any, dtype: np.dtype) -> Any:
    """Return a number of the host as a NumPy scalar of exactly this type.

    Raises:
        TypeError: an array (reading one of the device would wait for it), or no number.
        ValueError: an integer that is negative or too large for the type.
    """
    if dtype.kind == "f":
        if not isinstance(value, numbers.Real):
            raise TypeError(f"{who}: needs a number of the host, got {type(value).__name__}")
        return dtype.type(value)
    # nearly always an int: its type says so much sooner than the other question does
    whole = type(value) is int or isinstance(value, numbers.Integral)
    if not whole or isinstance(value, bool):
        raise TypeError(f"{who}: needs a whole number of the host, got {type(value).__name__}")
    if not 0 <= value <= LARGEST[dtype]:
        raise ValueError(f"{who}: {value} is not in 0 ... {LARGEST[dtype]}")
    return dtype.type(value)


def check_table(who: str, table: Any) -> np.ndarray:
    """Return Adam's table: one record on the host, which travels with the launch."""
    if not (isinstance(table, np.ndarray) and table.shape == (1,) and table.dtype == table_type()):
        raise TypeError(f"{who}: needs one record of kernels.table_type()")
    return table


def table_of(tensors: Sequence[tuple]) -> tuple[np.ndarray, int]:
    """Return Adam's table for up to TENSORS tensors (p, g, m, v), and how many blocks they take."""
    table, blocks = np.zeros(1, table_type()), 0
    for i, arrays in enumerate(tensors):
        for name, a in zip("pgmv", arrays, strict=True):
            table[name][0, i] = a.data.ptr
        table["size"][0, i] = arrays[0].size
        table["first_block"][0, i] = blocks
        blocks += ceil_div(arrays[0].size, THREADS * ITEMS)
    table["first_block"][0, len(tensors) :] = blocks
    return table, blocks


def window_numbers(
    who: str,
    shape: tuple,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    size: Pair,
) -> dict[str, int]:
    """Return what im2col and col2im want to know of images (N, H, W, C) and their windows.

    Raises:
        ValueError: groups that do not divide the channels, or windows that leave the padded image.
    """
    n, height, width, c = shape
    if c % groups:
        raise ValueError(f"kernel {who}: {groups} groups do not divide {c} channels")
    pairs = {"out": size, "kernel": kernel, "stride": stride, "padding": padding}
    for axis, length in enumerate((height, width)):
        reach = (size[axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
        padded = length + 2 * padding[axis]
        if size[axis] and not (stride[axis] and dilation[axis] and 0 < reach <= padded < 2**31):
            raise ValueError(
                f"kernel {who}: {size[axis]} windows reach over {reach} pixels of an image padded "
                f"to {padded} (axis {axis}); at most 2**31 - 1 pixels"
            )
    numbers = {"images": n, "height": height, "width": width}
    numbers |= {"groups": groups, "channels": c // groups}
    numbers |= {"out_height": size[0], "out_width": size[1]}
    for name, pair in list(pairs.items())[1:] + [("dilation", dilation)]:
        numbers |= {f"{name}_h": pair[0], f"{name}_w": pair[1]}
    return numbers


def tiles(who: str, shape: tuple) -> tuple[Pair, Pair, dict[str, int]]:
    """Return grid, block, and the numbers rows, channels and chunk, for (..., C) by channels.

    How many chunks depends on the shape alone: so do the order of sums, and their rounding.

    Raises:
        ValueError: no rows or no channels.
    """
    rows, channels = math.prod(shape[:-1]), shape[-1]
    if not rows or not channels:
        raise ValueError(f"kernel {who}: there is nothing to reduce in shape {shape}")
    block = lanes(channels), THREADS // lanes(channels)
    across = ceil_div(channels, block[0])
    chunk = max(4 * block[1], ceil_div(rows, max(1, BLOCKS // across)))
    grid = across, ceil_div(rows, chunk)
    return grid, block, {"rows": rows, "channels": channels, "chunk": chunk}


def lanes(length: int) -> int:
    """Return how many threads of a block stand side by side on `length` neighbouring numbers."""
    return min(LANES, 1 << max(0, length - 1).bit_length())


def ceil_div(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)
