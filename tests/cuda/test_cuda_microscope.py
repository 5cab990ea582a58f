"""What docs/cuda.md shows under the microscope is what comes out."""

import re
from pathlib import Path

import executor
import microscope
import numpy as np
import pytest

from minigan import kernels
from minigan.cuda import kernels_dir

pytestmark = pytest.mark.skipif(bool(executor.missing()), reason=executor.missing())
PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "cuda.md"


def test_the_page_shows_what_comes_out():
    shown = re.findall(r"```text\n((?:reads|writes) .*?)```", PAGE.read_text(), re.DOTALL)
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    numbers = [1, 4, 4, 1, 1, 4, 4, 3, 3, 1, 1, 1, 1, 1, 1]
    names = [p.name for p in kernels.KERNELS["im2col"].parameters]
    values = [x, np.empty((1, 16, 9), np.float32), *map(np.int32, numbers)]
    source = kernels.source(kernels_dir(), "im2col.cu")
    arguments = dict(zip(names, values, strict=True))
    for text, thread in zip(shown, [(3, 1), (0, 1)], strict=True):
        seen = microscope.watch(source, "im2col", (4,), (4, 4), arguments, thread)
        assert seen == text.splitlines()
