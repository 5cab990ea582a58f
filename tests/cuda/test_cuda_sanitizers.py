"""The kernels under ASan with UBSan and under TSan, and kernels with a defect in each."""

import subprocess
from pathlib import Path

import broken
import executor
import pytest
import running

HERE = Path(__file__).resolve().parent


def need(sanitize):
    if executor.missing(sanitize):
        pytest.skip(executor.missing(sanitize))


@pytest.mark.parametrize("sanitize", ["address", "thread"])
def test_the_kernels_under_a_sanitizer(sanitize):
    need(sanitize)
    command = [*executor.python(sanitize), "-m", "pytest", "-x", "-s", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *(str(HERE / name) for name in running.FILES)],
        cwd=HERE.parent.parent,
        env=executor.environment(sanitize),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


def names(*layers):
    return [name for name, defect in broken.BROKEN.items() if defect.layer in layers]


def test_enough_is_broken():
    layers = [defect.layer for defect in broken.BROKEN.values()]
    assert len(layers) >= 25
    files = {defect.file for defect in broken.BROKEN.values()}
    sources = {*broken.kernels_dir().glob("*.cu"), *broken.kernels_dir().glob("*.cuh")}
    assert files == {path.name for path in sources}
    assert set(layers) == {*broken.RUN_LAYERS, "address", "thread", "compiler"}


def test_unbroken_kernels_pass_the_exam():
    need("")
    found = broken.ask("", broken.METHODS)
    assert found == {name: [] for name in broken.METHODS}


@pytest.mark.parametrize("sanitize", ["address", "thread"])
def test_unbroken_kernels_pass_the_exam_under_a_sanitizer(sanitize):
    need(sanitize)
    found = broken.ask(sanitize, broken.METHODS)
    assert found == {name: [] for name in broken.METHODS}


def test_defects_that_show_in_the_result():
    need("")
    found = broken.ask("", names(*broken.RUN_LAYERS))
    missed = {
        name: layers for name, layers in found.items() if broken.BROKEN[name].layer not in layers
    }
    assert not missed


@pytest.mark.parametrize("sanitize", ["address", "thread"])
def test_defects_that_only_a_sanitizer_sees(sanitize):
    need(sanitize)
    found = broken.ask(sanitize, names(sanitize))
    assert [name for name, layers in found.items() if layers != [sanitize]] == []
