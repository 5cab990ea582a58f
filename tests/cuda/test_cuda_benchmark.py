"""tests/benchmarks/step.py --device cuda, on the stand-in: it runs; its times are the CPU's."""

import re
import sys
from pathlib import Path

import executor
import pytest
import standin
from test_cuda_step import train

from minigan import backend
from minigan.kernels import KERNELS

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

pytestmark = pytest.mark.skipif(bool(executor.missing()), reason=executor.missing())


@pytest.fixture
def gpu():
    import gpu as module

    with standin.installed():
        yield module


def test_a_step_kernel_by_kernel(gpu, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "bandwidth", lambda xp: 1e6)  # a large copy takes a while here
    gpu.report("pix2pix", gpu.Sizes(batch=2, image=32, width=2), rounds=1)
    said = capsys.readouterr().out
    assert re.search(r"our kernels +median +[\d.]+ ms", said)
    assert re.search(r"plain CuPy +median +[\d.]+ ms", said)
    assert re.search(r"PyTorch +(median|is not|sees no)", said)
    for name in KERNELS:
        assert re.search(rf"{name} +\d+ +[\d.]+", said), name
    assert backend.get("cuda").kernels is not None
    assert backend._settings.device == "cpu"


def test_the_bytes_of_a_launch(gpu):
    cupy = standin
    kernels = backend.get("cuda").kernels
    image = cupy.ones((2, 4, 4, 3), "float32")
    arrays = [[cupy.ones(n, "float32") for n in (7, 10)] for _ in range(4)]
    with gpu.Watch(cupy.cuda) as watch:
        columns = kernels.im2col(image, (3, 3), (1, 1), (1, 1), (1, 1), 1, (4, 4))
        kernels.adam_step(*arrays, 1e-3, (0.9, 0.999), 1e-8, 1)
    moved = {name: bytes for name, (_, _, bytes) in watch.table().items()}
    assert moved == {"im2col": image.nbytes + columns.nbytes, "adam_step": 28 * 17}
    assert gpu.bandwidth(cupy, megabytes=1) > 0


def test_the_table_of_launches_in_the_docs(gpu):
    docs = Path(__file__).parents[2] / "docs" / "verified.md"
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+\.\d\d) \|$", docs.read_text(), re.MULTILINE)
    with gpu.Watch(standin.cuda) as watch:
        _, costs = train("cuda", 1)
    table = watch.table()
    assert rows == [(n, str(table[n][0]), f"{table[n][2] / 1e6:.2f}") for n, *_ in rows]
    assert {name for name, *_ in rows} == set(KERNELS)
    ours = sum(count for count, *_ in table.values())
    assert f"| with our kernels | {costs.launches} |" in docs.read_text()
    assert f"Of the {costs.launches}, {ours} are ours:" in docs.read_text()
