"""`pytest --device cuda` itself, for the day that there is a GPU; the stand-in plays CuPy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import target

from minigan import backend

HERE = Path(__file__).resolve().parent
if target.ON_GPU:
    pytest.skip("it is being run", allow_module_level=True)

CUPY = """
import sys
import standin as s
names = ["cupy", "cupyx", "cupyx.scipy", "cupyx.scipy.special", "cupy.cuda"]
sys.modules.update(zip(names, [s, s.cupyx, s.cupyx_scipy, s.special, s.cuda]))
"""


def on_device(*arguments, path=()):
    """What pytest says of some tests of this folder with --device cuda."""
    places = [*map(str, path), str(HERE), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "HYPOTHESIS_PROFILE": "ci"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--device", "cuda"]
    return subprocess.run(
        [*command, *arguments], cwd=HERE, env=environment, capture_output=True, text=True
    )


@pytest.mark.skipif(bool(target.missing), reason=target.missing)
def test_the_option_runs_what_it_should(tmp_path):
    (tmp_path / "cupy.py").write_text(CUPY)
    chosen = "main_job or sqrt or engine_has_it"
    files = ["test_cuda_gpu.py", "test_cuda_adam.py"]
    done = on_device("-rA", "-k", chosen, *files, path=[tmp_path])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for name in (
        "test_cuda_gpu.py::test_a_step_of_the_main_job[our kernels]",
        "test_cuda_gpu.py::test_a_step_of_the_main_job[plain CuPy]",
        "test_cuda_gpu.py::test_the_gradients_of_every_entry_of_the_registry[our kernels-sqrt]",
        "test_cuda_adam.py::test_adam_as_the_engine_has_it[int64-AdamW]",
    ):
        assert f"PASSED tests/cuda/{name}" in done.stdout or f"PASSED {name}" in done.stdout, name


def test_the_option_without_cupy_says_what_is_missing(tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('nobody has installed me')")
    done = on_device("test_cuda_gpu.py", path=[tmp_path])
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    said = "needs CuPy, which could not be imported (nobody has installed me): pip install 'cupy-"
    assert said in done.stderr
    assert "cuda" not in backend._backends
