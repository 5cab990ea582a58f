"""`python -m minigan.info`, and what is said where something is missing."""

import os
import subprocess
import sys
import types

import executor
import pytest
import standin

import minigan as mg
from minigan import gemm, info

runs = pytest.mark.skipif(bool(executor.missing()), reason=executor.missing())


def said():
    return [f"{what}: {how}" for what, how in info.report()]


def without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed


def test_without_cupy(monkeypatch, capsys):
    without_cupy(monkeypatch)
    assert info.main() == 0
    out = capsys.readouterr().out
    for word in ("Python", "NumPy", "BLAS", "thread", "5 files in", "CuPy"):
        assert word in out
    last = out.splitlines()[-1]
    assert "pip install 'cupy-cuda12x[ctk]' or 'cupy-cuda13x[ctk]'" in last
    with pytest.raises(mg.DeviceError, match=r"needs CuPy, which could not be imported.*cuda13"):
        mg.use("cuda")


def library(path, threads, **more):
    told = {"num_threads": threads, **more}
    return types.SimpleNamespace(filepath=path, info=lambda: told)


@pytest.mark.parametrize(
    ("loaded", "words"),
    [
        ([], ", threads unknown"),
        ([library("/lib/libmkl_rt.so", 1)], ", 1 thread"),
        (
            [  # the first is SciPy's
                library("/scipy.libs/openblas.so", 3, architecture="Zen"),
                library("/numpy.libs/openblas.so", 2, architecture="Haswell"),
            ],
            ", kernels for Haswell, 2 threads",
        ),
    ],
)
def test_the_blas_of_numpy(monkeypatch, loaded, words):
    found = types.SimpleNamespace(lib_controllers=loaded)
    found.select = lambda **kwargs: found
    monkeypatch.setattr(gemm, "ThreadpoolController", lambda: found)
    assert info.blas().endswith(words)


def broken_cupy(count):
    """A cupy without a driver, or without a GPU."""
    runtime = types.SimpleNamespace(getDeviceCount=count, driverGetVersion=lambda: 0)
    cupy = types.SimpleNamespace(__version__="14.2.0", cuda=types.SimpleNamespace(runtime=runtime))
    return cupy


def no_driver():
    raise RuntimeError("cudaErrorInsufficientDriver")


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (no_driver, r"no working NVIDIA driver \(cudaErrorInsufficientDriver\): install one"),
        (lambda: 0, r"sees no GPU: nvidia-smi -L lists .* CUDA_VISIBLE_DEVICES"),
    ],
)
def test_without_driver_or_gpu(monkeypatch, count, words):
    monkeypatch.setitem(sys.modules, "cupy", broken_cupy(count))
    with pytest.raises(mg.DeviceError, match=words):
        mg.use("cuda")
    assert mg.tensor(1.0).device == "cpu"
    lines = said()
    assert "CuPy: 14.2.0" in lines
    assert "GPU: device 'cuda': " in lines[-1]


@pytest.mark.parametrize(
    ("holder", "name", "library"),
    [("nvrtc", "getVersion", "NVRTC"), (None, "get_cublas_handle", "cuBLAS")],
)
def test_without_the_libraries_of_cuda(monkeypatch, holder, name, library):
    """As with `pip install cupy-cuda13x`, where no CUDA toolkit is installed."""

    def fail():
        raise ImportError(f"Failure finding {library}:\nlooked here and there")

    with standin.installed() as cupy:
        monkeypatch.setattr(getattr(cupy.cuda, holder) if holder else cupy.cuda, name, fail)
        words = rf"CuPy finds no {library} \(Failure finding {library}:\): pip install .*\[ctk\]"
        with pytest.raises(mg.DeviceError, match=words):
            mg.use("cuda")
        assert library in said()[-1]


def test_a_setting_that_cannot_be(monkeypatch):
    monkeypatch.setenv("MINIGAN_KERNELS", "no")
    with standin.installed():
        lines = said()
    assert "MINIGAN_KERNELS: no" in lines
    assert "MINIGAN_KERNELS must be 0 (plain CuPy) or 1 (our kernels): 'no'" in lines[-1]


@runs
def test_with_everything_there(monkeypatch):
    with standin.installed():
        lines = said()
        assert "driver: CUDA 13.0" in lines
        assert any("sm_90" in line for line in lines)
        assert "kernel im2col: im2col.cu, compiled" in lines
        assert sum(line.endswith(", compiled") for line in lines) == 12
    monkeypatch.setenv("MINIGAN_KERNELS", "0")
    with standin.installed():
        assert said()[-1] == "kernels: not used (MINIGAN_KERNELS=0): plain CuPy"


def test_a_kernel_that_does_not_compile_is_named(monkeypatch):
    def refuse(**options):
        raise RuntimeError("NVRTC_ERROR_COMPILATION")

    with standin.installed() as cupy:
        monkeypatch.setattr(cupy, "RawModule", refuse)
        assert "kernel col2im: col2im.cu, failed: NVRTC_ERROR_COMPILATION" in said()


def test_versions():
    assert [info.version(n) for n in (12090, 13000, 0)] == ["CUDA 12.9", "CUDA 13.0", "none"]


def test_from_the_command_line():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "minigan.info"]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "OMP_NUM_THREADS" in out.stdout
    assert out.stderr == ""
