"""Our kernels with a defect in each, and the layer of the tests that must notice it.

A defect is one replacement in the text of a kernel. The exam runs what the kernel belongs to on a
few shapes, in a process of its own, since a sanitizer stops it. Layers:

    values     the result differs from the twin's
    order      the result depends on the order of blocks or threads
    scheduler  the executor sees a deadlock, or a barrier in a branch
    address    ASan or UBSan stops it
    thread     TSan stops it
    compiler   NVRTC refuses it, or spills registers

`python tests/cuda/broken.py` tries every defect on every layer but the last, and prints the table
in docs/verified.md; `python tests/cuda/broken.py LAYER NAME...` is what the tests run.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import executor
import far
import numpy as np
import standin

from minigan import launch, twins
from minigan.cuda import kernels_dir

RUN_LAYERS = ("values", "order", "scheduler")  # without a sanitizer

# Whole lines that several defects are about.
TREE = """        __syncthreads();
        if (threadIdx.y < half)"""
MERGE = """    const double all = sum_rows(sum, shared);
    if (threadIdx.y == 0 && c < channels) g_bias[c] = all;"""
ZERO = """    if (threadIdx.y == 0 && c < channels) g_bias[c] = 0;
    __syncthreads();
    if (c < channels) """


@dataclass(frozen=True)
class Defect:
    """One replacement in one file.

    Attributes:
        file: in kernels/.
        method: what the exam runs.
        old, new: what stands there, once, and what is put there.
        layer: the cheapest that must notice, in the order above.
        dtype: the exam's.
    """

    file: str
    method: str
    old: str
    new: str
    layer: str
    dtype: type = np.float32


BROKEN = {
    "no right border": Defect("im2col.cu", "im2col", " && w < width;", ";", "values"),
    "threads beyond the last row": Defect(
        *("im2col.cu", "im2col", "if (line >= rows * groups) return;", ""), "address"
    ),
    "a step too short": Defect("im2col.cu", "im2col", "c >= channels;", "c > channels;", "values"),
    "one window too many": Defect(
        *("col2im.cu", "col2im", "(h - span_h) / stride_h + 1;", "(h - span_h) / stride_h;"),
        "values",
    ),
    "windows below the last": Defect(
        *("col2im.cu", "col2im", "min(h / stride_h, out_height - 1)", "h / stride_h"), "values"
    ),
    "gaps of a dilated window": Defect(
        *("col2im.cu", "col2im", "if (kh * dilation_h != down) continue;", ""), "values"
    ),
    "no barrier in the tree": Defect(
        *("common.cuh", "batch_norm", TREE, "        if (threadIdx.y < half)"), "values"
    ),
    "no barrier within a warp": Defect(
        *("common.cuh", "batch_norm", TREE, TREE.replace("__", "if (half > 1) __", 1)), "values"
    ),
    "shared memory used again too soon": Defect(
        *("common.cuh", "batch_norm", "    __syncthreads();  // all have read it", "    //"),
        "values",
    ),
    "a barrier in a branch": Defect(
        *("common.cuh", "batch_norm", TREE, TREE.replace("__", "if (threadIdx.y < half) __", 1)),
        "scheduler",
    ),
    "idle lanes leave": Defect(
        "batchnorm.cu",
        "batch_norm",
        "    REAL sum = 0;\n    for (",
        "    if (c >= channels) return;\n    REAL sum = 0;\n    for (",
        "scheduler",
    ),
    "idle lanes write": Defect(
        *("bias_act.cu", "bias_act", MERGE, MERGE.replace(" && c < channels", "")), "address"
    ),
    "shared memory too small": Defect(
        "bias_act.cu",
        "bias_act",
        "shared[THREADS];\n    const int c = own_channel();\n    const Rows",
        "shared[THREADS / 2];\n    const int c = own_channel();\n    const Rows",
        "address",
    ),
    "shared memory not set": Defect(
        "common.cuh",
        "bias_act",
        "shared[mine] = value;",
        "if (value > 0) shared[mine] = value;",
        "values",
    ),
    "a gradient by atomics": Defect(
        *("bias_act.cu", "bias_act", MERGE, ZERO + "atomicAdd(&g_bias[c], (REAL)sum);"), "order"
    ),
    "a sum by several threads": Defect(
        *("bias_act.cu", "bias_act", MERGE, ZERO + "g_bias[c] += sum;"), "order"
    ),
    "partial sums in one place": Defect(
        "bias_act.cu",
        "bias_act",
        "partial[blockIdx.y * (INDEX)channels + c] = all;",
        "partial[c] = all;",
        "values",
    ),
    "every thread writes the result": Defect(
        "batchnorm.cu",
        "batch_norm",
        "if (threadIdx.y == 0 && c < channels) {\n        const REAL near",
        "if (c < channels) {\n        const REAL near",
        "thread",
    ),
    "the other side of the kink": Defect(
        *("common.cuh", "bias_act", "return v > 0 ? (REAL)1", "return v >= 0 ? (REAL)1"), "values"
    ),
    "rows of the next chunk": Defect(
        "bias_act.cu",
        "bias_act",
        "r < own.stop; r += blockDim.y)\n        y[",
        "r <= own.stop; r += blockDim.y)\n        y[",
        "address",
    ),
    "four numbers at once, not aligned": Defect(
        "bias_act.cu",
        "bias_act",
        "activation(x[r * channels + c] + b, slope);",
        "activation(((const float4*)(x + r * channels + c))->x + b, slope);",
        "address",
    ),
    "float in the middle of double": Defect(
        "batchnorm.cu",
        "batch_norm",
        "= 1 / sqrt(variance + eps);",
        "= (float)(1 / sqrt(variance + eps));",
        "values",
        np.float64,
    ),
    "one rounded mean": Defect(
        "batchnorm.cu",
        "batch_norm",
        "statistics[channels + c] = mean - near;",
        "statistics[channels + c] = 0;",
        "values",
    ),
    "chunks joined as if at one mean": Defect(
        *("batchnorm.cu", "batch_norm", " + count * d * d;", ";"), "values"
    ),
    "epsilon under the root": Defect(
        *("adam.cu", "adam", "sqrt(vi) * correction + eps", "sqrt(vi + eps) * correction"),
        *("values", np.float64),
    ),
    "the tensor before": Defect(
        *("adam.cu", "adam", "<= (int)blockIdx.x", "< (int)blockIdx.x"), "values"
    ),
    "past the end of a tensor": Defect(
        "adam.cu",
        "adam",
        "min(begin + THREADS * ITEMS, table.size[low])",
        "begin + THREADS * ITEMS",
        "address",
    ),
    "an offset of 32 bits": Defect(
        *("im2col.cu", "far im2col", "columns + line * length", "columns + (int)(line * length)"),
        "address",
    ),
    "a loop of 32 bits": Defect(
        *("adam.cu", "far adam", "for (long long i = begin", "for (int i = begin"), "address"
    ),
    "a header of the host": Defect(
        *("col2im.cu", "", 'extern "C"', '#include <algorithm>\nextern "C"'), "compiler"
    ),
    "too many blocks wanted": Defect(
        *("common.cuh", "", "__launch_bounds__(THREADS, 4)", "__launch_bounds__(THREADS, 8)"),
        "compiler",
    ),
}


def broken_folder(name, folder):
    """Copy the kernels into a folder, with the defect."""
    defect = BROKEN[name]
    for path in [*kernels_dir().glob("*.cu"), kernels_dir() / "common.cuh"]:
        text = path.read_text()
        if path.name == defect.file:
            assert text.count(defect.old) == 1, f"{name}: where in {defect.file}?"
            text = text.replace(defect.old, defect.new)
        (folder / path.name).write_text(text)
    return folder


# ---- the exam: what comes out in one order of threads, and what should


def questions(method, dtype):
    """What the kernels give on the device, what the twins give, and by how much they may differ."""
    if method in FAR:
        for kind in far.KINDS:
            yield *far.question(method.removeprefix("far "), kind), far.ROUNDING
        return
    few = os.environ.get("MINIGAN_SANITIZE") == "thread"
    rng = np.random.default_rng(5)
    device = standin.asarray
    rounding = 2e-5 if dtype == np.float32 else 1e-11
    if method in ("im2col", "col2im"):
        geometry = (3, 2), (2, 2), (1, 2), (2, 2), 2, (2, 3)
        shape = 1, 6, 4, 14  # 12 rows of 42 numbers: no multiples of 8 and 32
        x = rng.integers(1, 10, shape).astype(dtype)
        columns = rng.integers(1, 10, (2, 6, 42)).astype(dtype)
        if method == "im2col":
            yield lambda k: [k.im2col(device(x), *geometry)], [twins.im2col(x, *geometry)], 0
        else:
            back = twins.col2im(columns, shape, *geometry)
            yield lambda k: [k.col2im(device(columns), shape, *geometry)], [back], 0
    elif method == "adam":
        sizes = [5, 300] if few else [5, 4097, 2, 300]
        tensors = [[rng.uniform(1, 2, n).astype(dtype) for n in sizes] for _ in range(4)]
        options = 0.1, (0.5, 0.9), 1e-8, 2
        wanted = [[a.astype(np.float64) for a in arrays] for arrays in tensors]
        twins.adam_step(*wanted, *options)

        def step(k):
            copies = [[device(a) for a in arrays] for arrays in tensors]
            k.adam_step(*copies, *options)
            return list(chain.from_iterable(copies))

        yield step, list(chain.from_iterable(wanted)), rounding
    else:
        for shape in [(40, 3)] if few else [(300, 3), (90, 33)]:
            yield channel_question(method, shape, dtype, rng, rounding)


def channel_question(method, shape, dtype, rng, rounding):
    """As `questions`, for rows of channels."""
    device = standin.asarray
    x, gy = rng.normal(size=(2, *shape)).astype(dtype)
    gamma, beta = rng.uniform(0.5, 1, (2, shape[1])).astype(dtype)
    if method == "bias_act":
        x[0] = -beta  # x + bias is 0, where the slope changes
        y = twins.bias_act_forward(x, beta, 0.2)

        def answer(k):
            y = k.bias_act_forward(device(x), device(beta), 0.2)
            return [y, *k.bias_act_backward(y, device(gy), 0.2)]

        return answer, [y, *twins.bias_act_backward(y, gy, 0.2)], rounding

    x = (x + np.where(np.arange(shape[0])[:, None] % 2, 20000, 20003)).astype(dtype)
    x[: len(x) // 2] += 5  # chunks have different means
    exact = [a.astype(np.float64) for a in (x, gamma, beta)]
    y, statistics = twins.batch_norm_forward(*exact, 1e-5, 1.0)
    gradients = twins.batch_norm_backward(exact[0], gy, *exact[1:], statistics, 1.0)

    def answer(k):
        arrays = [device(a) for a in (x, gamma, beta)]
        y, statistics = k.batch_norm_forward(*arrays, 1e-5)
        return [y, *k.batch_norm_backward(arrays[0], device(gy), *arrays[1:], statistics)]

    return answer, [y, *gradients], rounding * 2


def exam(method, folder, dtype):
    """The layers of RUN_LAYERS that notice something."""
    kernels, found = launch.Kernels(far.Device if method in FAR else standin, folder), set()
    for answer, wanted, bound in questions(method, dtype):
        results = []
        for seed in (0,) if method in FAR else (0, 1, 2):
            standin.RawModule.seed = seed
            try:
                results.append([array.get() for array in answer(kernels)])
            except executor.LaunchError:
                return ["scheduler"]
        for other in results[1:]:
            if not all(map(np.array_equal, results[0], other)) and not has_nan(results):
                found.add("order")
        for got, right in zip(results[0], wanted, strict=True):
            if not np.abs(got - right).max() <= bound * max(1, np.abs(right).max()):
                found.add("values")
    return sorted(found)


def has_nan(results):
    return any(np.isnan(a).any() for arrays in results for a in arrays)


def examine(names):
    """Print a line of JSON for each defect: its name, and the layers that noticed."""
    sanitize = os.environ.get("MINIGAN_SANITIZE", "")
    if sanitize == "thread":
        launch.THREADS = 64  # each is a thread to the detector, and dear
    for name in names:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            folder = Path(tempfile.mkdtemp())
            found = 0
            try:
                if name in METHODS + FAR:
                    layers = exam(name, kernels_dir(), np.float32)
                else:
                    defect = BROKEN[name]
                    layers = exam(defect.method, broken_folder(name, folder), defect.dtype)
                found = sum(1 << RUN_LAYERS.index(layer) for layer in layers)
            finally:
                shutil.rmtree(folder)
            os._exit(found)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if sanitize:
            layers = [sanitize] if code == STOPPED else []
        else:
            layers = [
                layer for i, layer in enumerate(RUN_LAYERS) if 0 <= code < 8 and code >> i & 1
            ]
            layers += ["crash"] if code < 0 or code > 7 else []
        print(json.dumps([name, layers]), flush=True)


STOPPED = 66  # exit code of a sanitizer that stops the program, by executor.environment
METHODS = ("im2col", "col2im", "batch_norm", "bias_act", "adam")  # unbroken, as names of defects
FAR = tuple(f"far {method}" for method in METHODS)  # at the end of arrays of 2**31 numbers


def ask(sanitize, names):
    """The layers that notice each of these defects, with or without a sanitizer."""
    command = [*executor.python(sanitize), __file__, sanitize or "values", *names]
    environment = executor.environment(sanitize)
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        examine(sys.argv[2:])
    else:
        run = [name for name, defect in BROKEN.items() if defect.method]
        small = [name for name in run if BROKEN[name].method not in FAR]
        tables = [ask("", run), ask("address", run), ask("thread", small)]
        for name in run:
            layers = ", ".join(chain.from_iterable(table.get(name, []) for table in tables))
            print(f"| {name} | {BROKEN[name].file} | {layers} |")
