"""NVRTC, NVIDIA's compiler as a library, by ctypes: it needs no GPU and no driver.

`pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-nvrtc` (parts of minigan[test]) brings two, as CuPy
takes the one or the other: that of CUDA 12, for sm_70 to sm_120, and that of CUDA 13, from sm_75.

`python tests/cuda/nvrtc.py` prints the table of registers in docs/verified.md.
"""

import ctypes
import functools
import importlib.util
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigan import kernels
from minigan.cuda import kernels_dir

ARCHITECTURES = (70, 75, 80, 90, 100, 120)
VARIANTS = [(np.dtype(r), np.dtype(i)) for r in ("f4", "f8") for i in ("i4", "i8")]
SURFACE = json.loads(Path(__file__).with_name("cupy_surface.json").read_text())
USED = re.compile(
    r"entry function '(?P<name>\w+)'.*?(?P<stack>\d+) bytes stack frame, "
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


class CompileError(RuntimeError):
    """What NVRTC says of a source that it refuses."""


@dataclass
class Usage:
    """What a compiled kernel takes of a multiprocessor: registers a thread, bytes of stack."""

    registers: int
    spilled: int


@functools.cache
def libraries():
    """The NVRTC libraries that are installed, by their major version."""
    spec = importlib.util.find_spec("nvidia")
    places = spec.submodule_search_locations if spec else []
    paths = [path for place in places for path in Path(place).rglob("libnvrtc.so.*")]
    paths += Path("/usr/local/cuda/lib64").glob("libnvrtc.so.*")
    loaded = [ctypes.CDLL(str(path)) for path in paths if "alt" not in path.name]
    return {int(version(lib).partition(".")[0]): lib for lib in loaded}


def library():
    """The oldest of them, with the most architectures; None if there is none."""
    return libraries()[min(libraries())] if libraries() else None


def architectures(lib):
    """The architectures that a library compiles for: [70, 72, 75, ...]."""
    number = ctypes.c_int()
    lib.nvrtcGetNumSupportedArchs(ctypes.byref(number))
    found = (ctypes.c_int * number.value)()
    lib.nvrtcGetSupportedArchs(found)
    return list(found)


def version(lib):
    major, minor = ctypes.c_int(), ctypes.c_int()
    lib.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def asked(lib, what, program):
    """What NVRTC has of a program: its "CUBIN", "PTX" or "ProgramLog", as bytes."""
    size = ctypes.c_size_t()
    assert not getattr(lib, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    assert not getattr(lib, f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


def compile_as_cupy(text, options, architecture, lib=None):
    """Usage by kernel, of a source compiled with the options that CuPy would give.

    Raises:
        CompileError: NVRTC refuses.
    """
    added = [o.replace("sm_90", f"sm_{architecture}") for o in SURFACE["compile_options"]]
    added += ["--ptxas-options=-v"]
    if tuple(map(int, version(lib or library()).split("."))) >= (12, 9):
        added += ["--no-cache"]  # with a driver it keeps what it has compiled, and says nothing
    machine_code, log = compiled(text, (*options, *added), "CUBIN", lib)
    assert len(machine_code) > 1000
    return {
        m["name"]: Usage(int(m["registers"]), sum(int(m[k]) for k in ("stack", "stores", "loads")))
        for m in USED.finditer(log)
    }


def instructions(text, options):
    """The PTX of each kernel of a source: {name: text}."""
    ptx, _ = compiled(text, (*options, f"-arch=compute_{architectures(library())[0]}"), "PTX")
    parts = ptx.decode().split(".visible .entry ")[1:]
    return {part.partition("(")[0]: part for part in parts}


def compiled(text, options, kind, lib=None):
    """What NVRTC makes of a source, "CUBIN" or "PTX", and what it says.

    Raises:
        CompileError: NVRTC refuses.
    """
    lib, program = lib or library(), ctypes.c_void_p()
    given, source = [o.encode() for o in options], text.encode()
    assert not lib.nvrtcCreateProgram(ctypes.byref(program), source, b"kern.cu", 0, None, None)
    try:
        pointers = (ctypes.c_char_p * len(given))(*given)
        failed = lib.nvrtcCompileProgram(program, len(given), pointers)
        log = asked(lib, "ProgramLog", program).rstrip(b"\0").decode()
        if failed:
            raise CompileError(log)
        return asked(lib, kind, program), log
    finally:
        lib.nvrtcDestroyProgram(ctypes.byref(program))


@functools.cache
def usage(architecture, folder=None, lib=None):
    """For each kernel, its usage in the four variants of types."""
    found = {name: [] for name in kernels.KERNELS}
    for file in kernels.FILES:
        text = kernels.source(folder or kernels_dir(), file)
        for types in VARIANTS:
            made = compile_as_cupy(text, kernels.options(*types), architecture, lib)
            for name, used in made.items():
                found[name].append(used)
    return found


def table():
    """The table of docs/verified.md: for each kernel the most registers of its variants."""
    there = [a for a in ARCHITECTURES if a in architectures(library())]
    rows = [["kernel", *(f"sm_{a}" for a in there)], ["---"] * (len(there) + 1)]
    for name in kernels.KERNELS:
        most = [max(used.registers for used in usage(a)[name]) for a in there]
        rows.append([f"`{name}`", *map(str, most)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    if library() is None:
        sys.exit("no NVRTC: pip install nvidia-cuda-nvrtc-cu12")
    print(f"NVRTC {version(library())}\n\n{table()}")
