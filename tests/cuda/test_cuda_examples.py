"""An example with `--device cuda`, the stand-in in CuPy's place, and gone on with on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import target
from test_cuda_option import CUPY, HERE

if target.ON_GPU or target.missing:
    pytest.skip(target.missing or "there is a GPU: run the example", allow_module_level=True)

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ring.py"


def run(folder, *arguments):
    places = [str(folder), str(HERE), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "MINIGAN_THREADS": "1"}
    command = [sys.executable, str(EXAMPLE), "--out", str(folder / "run"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_example_changes_devices_on_the_way(tmp_path):
    (tmp_path / "cupy.py").write_text(CUPY)
    run(tmp_path, "--device", "cuda", "--steps", "2")
    run(tmp_path, "--device", "cpu", "--steps", "3", "--resume")
    run(tmp_path, "--device", "cuda", "--steps", "4", "--resume")
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log][-1] == 4
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 4
