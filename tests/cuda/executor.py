"""CUDA kernels on the CPU: the unchanged source compiled with g++, and run on NumPy's memory.

`Program(text)` compiles; `program.launch(name, grid, block, arguments)` runs. Blocks run one after
another; the threads of a block are fibers with a true barrier (see executor.cpp). What was compiled
is kept in build/cuda_executor, by its text.

    program.launch("im2col", (4,), (32, 8), (x, columns, np.int32(2), ...))

The environment chooses: MINIGAN_SANITIZE=address (with undefined behaviour) or thread, and
MINIGAN_SHUFFLE=7 for another order of blocks and threads than the natural one.
"""

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
BUILT = HERE.parent.parent / "build" / "cuda_executor"
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
BOUND = r"(?:BOUNDS|__launch_bounds__\s*\([^)]*\))"
ENTRY = re.compile(rf"__global__\s+void\s+(?:{BOUND}\s*)?(\w+)\s*\(")
FLAGS = ["-std=c++17", "-fPIC", "-w"]
# A GPU multiplies and adds in one rounding wherever the compiler sees fit; so does this.
KERNEL_FLAGS = ["-shared", "-ffp-contract=fast", "-fno-strict-aliasing"]
if platform.machine() == "x86_64":
    KERNEL_FLAGS.append("-mfma")
SANITIZE = {
    "": ["-O1"],
    "address": [
        *("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
        "-fsanitize-sections=cuda_shared",  # red zones around shared arrays, too
    ],
    "thread": ["-O1", "-g", "-fsanitize=thread"],
}
WATCH = {"": [], "address": ["-DWATCH_ADDRESSES"], "thread": ["-DWATCH_RACES"]}
LIBRARIES = {"": [], "address": ["libasan.so", "libubsan.so"], "thread": ["libtsan.so"]}


class LaunchError(RuntimeError):
    """What the executor saw a kernel do wrong: a deadlock, a barrier in a branch, ..."""


@functools.cache
def missing(sanitize=""):
    """What is not on this machine to run kernels with; "" if all is there."""
    if platform.system() != "Linux":
        return "the CUDA executor has been written for Linux"
    if shutil.which("g++") is None:
        return "the CUDA executor needs g++ (apt install g++)"
    for library in LIBRARIES[sanitize]:
        if not Path(library_path(library)).is_absolute():
            return f"g++ has no {library} (it comes with gcc's sanitizers)"
    if sanitize and python(sanitize) is None:
        return f"a sanitizer does not start here: {sanitize} (sysctl vm.mmap_rnd_bits=28 may help)"
    return ""


@functools.cache
def python(sanitize=""):
    """The command of a Python in which a sanitizer works; None if there is none.

    Newer kernels scatter memory more widely than older sanitizers expect; `setarch -R` stops that.
    """
    for command in ([sys.executable], ["setarch", "-R", sys.executable]):
        if command[0] == sys.executable or shutil.which("setarch"):
            call = [*command, "-c", "import numpy"]
            if not subprocess.run(call, env=environment(sanitize), capture_output=True).returncode:
                return command
    return None


def library_path(name):
    """Where g++ has a library; its bare name if it has none."""
    command = ["g++", f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def environment(sanitize):
    """The environment in which Python can load kernels that a sanitizer watches."""
    return {
        **os.environ,
        "MINIGAN_SANITIZE": sanitize,
        "MINIGAN_TEST_DEVICE": "cpu",  # on a GPU too: what it watches is the executor
        "LD_PRELOAD": " ".join(library_path(name) for name in LIBRARIES[sanitize]),
        "ASAN_OPTIONS": "detect_leaks=0:exitcode=66",  # Python itself leaks at its end
        "UBSAN_OPTIONS": "exitcode=66",
        "TSAN_OPTIONS": "exitcode=66:halt_on_error=1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def compiled(suffix, command, text, name, objects=()):
    """Path of what `command` makes of a text, made now or earlier; objects are linked last."""
    key = hashlib.sha256("\0".join([*command, *objects, text, name]).encode()).hexdigest()[:24]
    made = BUILT / (key + suffix)
    if not made.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        source, fresh = BUILT / f"{key}.{os.getpid()}.cpp", BUILT / f"{key}.{os.getpid()}"
        source.write_text(text)
        try:
            done = subprocess.run(
                [*command, "-o", fresh, source, *objects],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"g++ cannot compile {name}:\n{done.stderr}")
            os.replace(fresh, made)
        finally:
            source.unlink()
    return made


class Program:
    """A CUDA source, compiled for the CPU.

    Args:
        text: the source.
        options: -D definitions, as CuPy takes them; others are ignored.
        name: for messages.
        sanitize: "", "address" or "thread"; by default what MINIGAN_SANITIZE says.
        seed: 0 for the natural order, else of a shuffled one; by default MINIGAN_SHUFFLE.
        header: what is included before the source.
    """

    def __init__(
        self, text, options=(), name="kernel.cu", sanitize=None, seed=None, header="executor.h"
    ):
        sanitize = os.environ.get("MINIGAN_SANITIZE", "") if sanitize is None else sanitize
        self.seed = int(os.environ.get("MINIGAN_SHUFFLE", "0")) if seed is None else seed
        self.name = name
        bare = COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)
        self.kernels = ENTRY.findall(bare)
        header, scheduler = HERE / header, HERE / "executor.cpp"
        watch = [*FLAGS, "-O2", "-c", f"-I{HERE}", *WATCH[sanitize]]
        runtime = compiled(
            ".o",
            ["g++", *watch],
            f'#line 1 "{scheduler.name}"\n{scheduler.read_text()}\n// {hash_of_headers()}',
            "executor.cpp",
        )
        entries = "\n".join(f"EXECUTOR_ENTRY({kernel})" for kernel in self.kernels)
        command = ["g++", *FLAGS, *KERNEL_FLAGS, *SANITIZE[sanitize]]
        command += [option for option in options if option.startswith("-D")]
        command += ["-include", str(header)]
        text = f"{text}\n{entries}\n// {hash_of_headers()}\n"
        library = compiled(".so", command, text, name, [str(runtime)])
        self.library = ctypes.CDLL(str(library))

    def signature(self, kernel):
        """The types of a kernel's parameters, as executor.h writes them."""
        ask = getattr(self.library, f"signature_of_{kernel}")
        ask.restype = ctypes.c_char_p
        return ask().decode().split(",")

    def launch(self, kernel, grid, block, arguments, seed=None, last=0):
        """Run a kernel on NumPy arrays and typed scalars, each checked against its parameter.

        With `last`, only so many of the grid's last blocks.

        Raises:
            TypeError, ValueError: an argument of another type, or strided.
            LaunchError: what the scheduler saw.
        """
        types = self.signature(kernel)
        if len(types) != len(arguments):
            raise TypeError(f"{kernel}: {len(arguments)} arguments for {len(types)} parameters")
        kept = [
            memory_of(f"{kernel}, argument {i}", kind, argument)
            for i, (kind, argument) in enumerate(zip(types, arguments, strict=True))
        ]
        pointers = (ctypes.c_void_p * len(kept))(*[cell.ctypes.data for cell in kept])
        sizes = [*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3], last]
        run = getattr(self.library, f"run_{kernel}")
        run.restype = ctypes.c_char_p
        seed = self.seed if seed is None else seed
        error = run(pointers, (ctypes.c_uint * 7)(*sizes), ctypes.c_uint(seed))
        if error:
            raise LaunchError(f"{kernel}: {error.decode()}")


@functools.cache
def hash_of_headers():
    text = b"".join(path.read_bytes() for path in sorted(HERE.glob("*.h")))
    return hashlib.sha256(text).hexdigest()


def memory_of(who, kind, argument):
    """A cell of memory with the value that a kernel's parameter of type `kind` is to have."""
    if "*" in kind:
        if not isinstance(argument, np.ndarray):
            raise TypeError(f"{who}: needs an array, got {type(argument).__name__}")
        if argument.dtype.str[1:] != kind[2:]:
            raise TypeError(f"{who}: the kernel takes {kind[2:]}, the array is {argument.dtype}")
        if not argument.flags.c_contiguous:
            raise ValueError(f"{who}: strided; the kernel would not see the strides")
        return np.array([argument.ctypes.data], np.uint64)
    if isinstance(argument, np.ndarray) and argument.shape == (1,) and argument.dtype.names:
        value = argument  # a struct by value
    elif isinstance(argument, np.generic):
        value = np.array([argument])
    else:
        raise TypeError(f"{who}: needs a typed scalar, got {type(argument).__name__}")
    if value.dtype.str[1:] != kind:
        raise TypeError(f"{who}: the kernel takes {kind}, got {value.dtype}")
    return value
