"""Made-up surroundings for scripts: a data set on disk, a package that is not there."""

import gzip
import subprocess
import sys

import numpy as np

from minigan.data import mnist_sets


def idx(array):
    """The bytes of an IDX file."""
    shape = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def write_fashion(folder, count=40):
    """Four files as Fashion-MNIST's, of `count` images each whose brightness tells the class."""
    random = np.random.default_rng(0)
    for images, labels in mnist_sets.FILES.values():
        marks = (np.arange(count) % 10).astype(np.uint8)
        noise = random.integers(0, 20, (count, 28, 28))
        pixels = (marks[:, None, None] * 20 + noise).astype(np.uint8)
        (folder / images).write_bytes(gzip.compress(idx(pixels)))
        (folder / labels).write_bytes(gzip.compress(idx(marks)))
    return folder


def run_without(package, script, *flags):
    """Run a script in a process where `package` cannot be imported."""
    hidden = (
        f"import sys; sys.modules[{package!r}] = None; import runpy; "
        f"sys.argv = {[script.name, *map(str, flags)]!r}; "
        f"runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)
