"""The numbers in docs/verified.md and docs/cuda.md are those of what is there."""

import re
from collections import Counter
from pathlib import Path

import broken
import executor
import nvrtc
import pytest
import standin
from test_cuda_compile import recorded
from test_cuda_step import judged

import minigan as mg
from minigan import kernels, losses
from minigan.cuda import kernels_dir

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
VERIFIED = (DOCS / "verified.md").read_text()


def row(name):
    """The numbers of a row of the table."""
    return [
        int(n) for n in re.findall(r"\d+", re.search(rf"^\| {name} \|(.*)\|$", VERIFIED, re.M)[1])
    ]


def test_the_sources():
    texts = [path.read_text() for path in kernels_dir().iterdir() if path.suffix != ".md"]
    lines = sum(len(text.splitlines()) for text in texts)
    assert row("kernels") == [len(kernels.KERNELS), len(kernels.FILES), lines]
    assert row("variants of each")[0] == len(nvrtc.VARIANTS)
    architectures = nvrtc.ARCHITECTURES
    assert row("architectures") == [len(architectures), architectures[0], architectures[-1]]
    most = max(used for of_kernel in recorded().values() for used in of_kernel.values())
    assert row("registers of a thread")[0] == most


def test_the_defects():
    by_layer = Counter(defect.layer for defect in broken.BROKEN.values())
    layers = ("values", "order", "scheduler", "address", "thread", "compiler")
    assert row("broken on purpose") == [len(broken.BROKEN), *(by_layer[name] for name in layers)]
    listed = re.findall(r"^\| ([^|`]+) \| (\w+\.cuh?) \| ([\w, ]+) \|$", VERIFIED, re.M)
    assert [(name, file) for name, file, _ in listed] == [
        (name, defect.file) for name, defect in broken.BROKEN.items()
    ]
    for name, _, layers in listed:
        assert broken.BROKEN[name].layer in layers.split(", "), name


@pytest.mark.skipif(bool(executor.missing()), reason=executor.missing())
def test_the_launches_of_the_losses():
    told = re.search(
        r"a fifth of the launches of a step, (\d+) of (\d+)", (DOCS / "cuda.md").read_text()
    )
    assert f"| with our kernels | {told[2]} |" in VERIFIED
    launches = 0
    with standin.installed() as cupy:
        map_of, images = cupy.zeros((2, 2, 2, 1), "float32"), cupy.ones((2, 32, 32, 3), "float32")
        for real in (True, False, True):
            logits = mg.tensor(map_of, requires_grad=True)
            cupy.count.reset()
            judged(logits, real).backward()
            launches += cupy.count.launches
        fake = mg.tensor(images, requires_grad=True)
        cupy.count.reset()
        losses.l1(fake, mg.Tensor(images)).backward()
        launches += cupy.count.launches
    assert launches == int(told[1])
