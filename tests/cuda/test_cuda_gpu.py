"""On a real GPU, with `pytest --device cuda tests/cuda`: the registry, and a step of the main job.

test_cuda_kernels.py runs there as well, in the one order that the GPU chooses.
"""

import numpy as np
import pytest
import target
from test_cuda_step import train

from minigan.specs import REGISTRY
from minigan.specs.cli import main

if not target.ON_GPU:
    pytest.skip("for a GPU: pytest --device cuda", allow_module_level=True)


@pytest.mark.parametrize("name", REGISTRY)
def test_the_gradients_of_every_entry_of_the_registry(name):
    assert main(["--op", name, "--examples", "10", "--device", "cuda", "--json"]) == 0


def test_a_step_of_the_main_job():
    here, there = (train(device, 3)[0] for device in ("cpu", "cuda"))
    np.testing.assert_allclose(there, here, rtol=1e-3)
