"""The kernels at the far end of arrays of 2**31 numbers: both widths of an index, at the limit."""

import broken
import executor
import far
import numpy as np
import pytest
from standin_array import ndarray

from minigan import launch
from minigan.cuda import kernels_dir

if why := executor.missing() or far.missing():
    pytest.skip(why, allow_module_level=True)


@pytest.mark.parametrize(("size", "index"), [(2**31 - 1025, "i4"), (2**31 - 1024, "i8")])
def test_the_width_of_an_index(size, index, monkeypatch):
    """32 bits for as long as a block's overshoot fits, too."""
    kernels, chosen = launch.Kernels(far.Device, kernels_dir()), []

    def function(name, real, index):
        chosen.append(index)
        return lambda grid, block, arguments: None

    monkeypatch.setattr(kernels, "function", function)
    x, bias = (ndarray.around(far.zeros(shape)) for shape in ((size, 1), 1))
    kernels.bias_act_forward(x, bias, 0.2)
    assert chosen == [np.dtype(index)]


@pytest.mark.parametrize("sanitize", ["", "address"])
def test_the_far_end(sanitize):
    """As many numbers as 32-bit indices do for, and more; in a process of its own."""
    if executor.missing(sanitize):
        pytest.skip(executor.missing(sanitize))
    assert broken.ask(sanitize, broken.FAR) == {name: [] for name in broken.FAR}
