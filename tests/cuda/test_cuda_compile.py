"""Every kernel compiled by NVRTC, as CuPy does it, for every architecture; registers and spills."""

import re
from pathlib import Path

import broken
import nvrtc
import pytest

from minigan import kernels
from minigan.cuda import kernels_dir

pytestmark = pytest.mark.skipif(
    nvrtc.library() is None, reason="no NVRTC to compile with: pip install nvidia-cuda-nvrtc-cu12"
)

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "verified.md"
LARGEST = 64  # registers: what kernels/common.cuh asks for


def recorded():
    """{kernel: {architecture: registers}} of the table in docs/verified.md."""
    lines = PAGE.read_text().splitlines()
    cells = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines]
    (head,) = [row for row in cells if "sm_90" in row and row[0] == "kernel"]
    found = {}
    for row in cells:
        if len(row) == len(head) and row[0] in kernels.KERNELS:
            pairs = zip(head[1:], row[1:], strict=True)
            found[row[0]] = {int(sm.removeprefix("sm_")): int(most) for sm, most in pairs}
    return found


@pytest.mark.parametrize(
    ("cuda", "package"), [(12, "nvidia-cuda-nvrtc-cu12"), (13, "nvidia-cuda-nvrtc")]
)
@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_every_kernel_compiles_in_its_budget(cuda, package, architecture):
    lib = nvrtc.libraries().get(cuda)
    if lib is None:
        pytest.skip(f"no NVRTC of CUDA {cuda}: pip install {package}")
    if architecture not in nvrtc.architectures(lib):
        pytest.skip(f"NVRTC {nvrtc.version(lib)} has no sm_{architecture} any more")
    used = nvrtc.usage(architecture, lib=lib)
    assert list(used) == list(kernels.KERNELS)
    for name, variants in used.items():
        assert len(variants) == len(nvrtc.VARIANTS)
        assert all(u.spilled == 0 for u in variants), f"{name} spills"
        assert max(u.registers for u in variants) <= LARGEST


def test_the_table_in_the_docs():
    """Exact with the NVRTC that it was made with; others may use a few registers more or fewer."""
    version = re.search(r"NVRTC (\d+\.\d+)", PAGE.read_text())[1]
    table = recorded()
    assert list(table) == list(kernels.KERNELS)
    for architecture in sorted({a for row in table.values() for a in row}):
        if architecture not in nvrtc.architectures(nvrtc.library()):
            continue
        for name, variants in nvrtc.usage(architecture, lib=nvrtc.library()).items():
            most = max(u.registers for u in variants)
            if version == nvrtc.version(nvrtc.library()):
                assert most == table[name][architecture], f"{name}: python tests/cuda/nvrtc.py"
            else:
                assert most <= table[name][architecture] + 8


def test_float_stays_float():
    """Double precision, 32 or 64 times as slow on most GPUs, only where it is declared."""
    float32 = kernels.options(*nvrtc.VARIANTS[0])
    for file in kernels.FILES:
        ptx = nvrtc.instructions(kernels.source(kernels_dir(), file), float32)
        assert list(ptx) == [name for name, k in kernels.KERNELS.items() if k.file == file]
        for name, text in ptx.items():
            declared = any(p.type.endswith(" double") for p in kernels.KERNELS[name].parameters)
            assert (".f64" in text) == declared, name


def test_a_mistake_is_shown_where_it_stands(tmp_path):
    text = kernels.source(kernels_dir(), "col2im.cu").replace("REAL sum = 0;", "REAL sum = zero;")
    with pytest.raises(nvrtc.CompileError, match=r'col2im.cu\(\d+\): error: .*"zero" is undefined'):
        nvrtc.compile_as_cupy(text, kernels.options(*nvrtc.VARIANTS[0]), 80)


@pytest.mark.parametrize(
    "name", [name for name, defect in broken.BROKEN.items() if defect.layer == "compiler"]
)
def test_defects_that_the_compiler_sees(name, tmp_path):
    folder = broken.broken_folder(name, tmp_path)
    try:
        used = nvrtc.usage(100, folder)
    except nvrtc.CompileError:
        return
    assert any(u.spilled for variants in used.values() for u in variants)
