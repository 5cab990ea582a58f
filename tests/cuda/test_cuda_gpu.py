"""On a real GPU, with `pytest --device cuda`: the registry, and a step of the main job.

With our kernels and with plain CuPy. The kernels against their twins (running.FILES),
test_cuda_columns.py and test_cuda_moving.py run there as well.
"""

import numpy as np
import pytest
import target
from test_cuda_step import train

from minigan import backend
from minigan.specs import REGISTRY
from minigan.specs.cli import main

if not target.ON_GPU:
    pytest.skip("for a GPU: pytest --device cuda", allow_module_level=True)


@pytest.fixture(params=["our kernels", "plain CuPy"])
def either(request, monkeypatch):
    monkeypatch.setenv("MINIGAN_KERNELS", "1" if request.param == "our kernels" else "0")
    backend._backends.pop("cuda", None)  # the next to ask makes a new one
    yield
    backend._backends.pop("cuda", None)


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("name", REGISTRY)
def test_the_gradients_of_every_entry_of_the_registry(name):
    assert main(["--op", name, "--examples", "10", "--device", "cuda", "--json"]) == 0


@pytest.mark.usefixtures("either")
def test_a_step_of_the_main_job():
    here, there = (train(device, 3)[0] for device in ("cpu", "cuda"))
    np.testing.assert_allclose(there, here, rtol=1e-3)
