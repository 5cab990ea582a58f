"""Write cupy_surface.json: what the installed CuPy offers, and with which parameters.

The stand-in (standin.py) offers no more than that. Needs CuPy, no GPU:

    pip install cupy-cuda13x nvidia-cuda-nvrtc && python tests/cuda/record_surface.py

A signature is a list of words: "a" must be given, "axis=" may be, "*" begins those by name only,
"*args" and "**kwargs" take anything. null: CuPy does not tell.
"""

import inspect
import json
import re
from importlib import import_module
from pathlib import Path
from unittest import mock

TARGET = Path(__file__).with_name("cupy_surface.json")


def words(signature):
    found, by_name = [], False
    for p in signature.parameters.values():
        if p.kind is p.VAR_POSITIONAL:
            found.append(f"*{p.name}")
            by_name = True
        elif p.kind is p.VAR_KEYWORD:
            found.append(f"**{p.name}")
        else:
            if p.kind is p.KEYWORD_ONLY and not by_name:
                found.append("*")
                by_name = True
            found.append(p.name + ("=" if p.default is not p.empty else ""))
    return found


def signature_of(thing):
    """Words of a signature; of compiled methods, from the first line of the docstring."""
    try:
        return words(inspect.signature(thing))
    except (TypeError, ValueError):
        first = (getattr(thing, "__doc__", None) or "").strip().partition("\n")[0]
        written = re.match(r"[\w.]*\((?:self(?:, |(?=\))))?(.*)\)", first)
        if not written:
            return None
        plain = re.sub(r"\b_?ndarray\w* (?=\w)", "", written[1])
        try:
            return words(inspect.signature(eval(f"lambda {plain}: 0")))
        except (SyntaxError, NameError):
            return None


def callables(holder):
    return {
        name: signature_of(getattr(holder, name))
        for name in sorted(dir(holder))
        if not name.startswith("_")
        and callable(getattr(holder, name))
        and not isinstance(getattr(holder, name), type)
    }


def compile_options():
    """What CuPy adds to the options of a RawModule when it calls NVRTC, "90" being the GPU's."""
    compiler = import_module("cupy.cuda.compiler")
    seen = []

    def compile(program, options=(), log_stream=None):
        seen.append(list(options))
        return b"", None

    module = mock.Mock()
    replaced = {
        "_preprocess": lambda *args: "",
        "_kernel_cache_backend": mock.Mock(**{"load.return_value": None}),
        # asks for the device, which is not there, before it says this
        "_get_arch_for_options_for_nvrtc": lambda arch: (f"-arch=sm_{arch}", "cubin"),
    }
    with (
        mock.patch.multiple(compiler, **replaced),
        mock.patch.object(compiler._NVRTCProgram, "compile", compile),
        mock.patch.object(compiler.function, "Module", module),
        mock.patch.object(compiler, "_get_cupy_cache_key", return_value=""),
    ):
        compiler._compile_with_cache_cuda("", (), "90")
    return seen[-1]


def record():
    cupy, cupyx = import_module("cupy"), import_module("cupyx")
    stride_tricks = import_module("cupy.lib.stride_tricks")
    functions = callables(cupy)
    ufuncs = sorted(n for n in functions if isinstance(getattr(cupy, n), cupy.ufunc))
    special = callables(import_module("cupyx.scipy.special"))
    return {
        "version": cupy.__version__,
        "compile_options": compile_options(),
        "ufuncs": ufuncs,
        "functions": {n: s for n, s in functions.items() if n not in ufuncs},
        "methods": callables(cupy.ndarray),
        "operators": sorted(n for n in dir(cupy.ndarray) if n.startswith("__")),
        "linalg": callables(cupy.linalg),
        "stride_tricks": callables(stride_tricks),
        "special": sorted(special),
        "cupyx": sorted(callables(cupyx)),
    }


if __name__ == "__main__":
    surface = record()
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in surface.items())
    TARGET.write_text("{\n" + lines + "\n}\n")
    print(TARGET, TARGET.stat().st_size, "bytes, CuPy", surface["version"])
