"""The benchmark runs, and says what it should. How long things take is nobody's business here."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minigan as mg
from minigan import Op, gemm, optim, workers

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import scale
import step
from pairs import Engine, Step
from workloads import DEFAULTS, Sizes, minigan_step

BENCHMARKS = Path(__file__).parent / "benchmarks"
TINY = {"dcgan": (2, 16, 2), "pix2pix": (1, 64, 2), "article": (1, 20, 2)}
every_workload = pytest.mark.parametrize("workload", TINY)
pytestmark = pytest.mark.usefixtures("threads_put_back")


def run(monkeypatch, capsys, *words):
    """Run the program in this process; return what it prints."""
    monkeypatch.setattr(sys, "argv", ["step.py", *map(str, words)])
    step.main()
    return capsys.readouterr().out


def tiny(workload):
    options = zip(("--batch", "--image", "--width"), TINY[workload], strict=True)
    return [str(word) for option in options for word in option]


def test_every_workload_is_tried():
    assert set(TINY) == set(DEFAULTS)


def test_help_from_anywhere(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "step.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in ("--workload", "--against", "--scale", "--rounds", "--threads", *DEFAULTS):
        assert word in done.stdout


def patched():
    """What a profile puts something else in the place of."""
    products = gemm.add_products, workers._matmul
    fused = [vars(op).get("fused_backward") for op in step.all_ops(Op)]
    accepts = workers.Postponed.accepts
    return vars(Op)["__call__"], fused, optim.Optimizer.step, accepts, mg.side_by_side, products


@every_workload
def test_a_profile(workload, monkeypatch, capsys):
    monkeypatch.setattr(workers, "HANDING_OVER", 1 << 10)  # so that gradients of weights would wait
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")  # read when NumPy is loaded, so only named
    before = patched()
    text = run(
        monkeypatch, capsys, "--workload", workload, *tiny(workload), "--rounds", 1, "--threads", 2
    )
    assert re.search(r"^NumPy's BLAS: .*\d thread", text)
    assert "as the environment says: OPENBLAS_CORETYPE=Haswell" in text
    assert re.search(r"a step takes \d+\.\d ms \(median of 1\)", text)
    shares = [float(share) for share in re.findall(r"^ +(-?\d+\.\d)%  ", text, re.MULTILINE)]
    assert sum(shares) == pytest.approx(100, abs=1)
    for kind in ("convolution", "normalisation", "element-wise", "optimiser", "graph"):
        assert kind in text
    assert re.search(r"of which: .*conv_weight [1-9]", text)
    assert patched() == before  # nothing is timed from now on


@every_workload
def test_a_step_trains_both_networks(workload):
    step = minigan_step(workload, Sizes(*TINY[workload]))
    losses = [step() for _ in range(3)]
    assert len(set(losses)) == 3
    again = minigan_step(workload, Sizes(*TINY[workload]))
    assert [again() for _ in range(3)] == losses  # the same weights and data every time


def test_an_engine_in_a_process_of_its_own():
    with Engine("minigan", "dcgan", Sizes(*TINY["dcgan"]), threads=1) as engine:
        first = engine.step()
        assert first.milliseconds > 0
        here = minigan_step("dcgan", Sizes(*TINY["dcgan"]))()
        assert first.losses == pytest.approx(here)
        if Path("/proc/self/status").exists():
            assert 10 < engine.peak_megabytes() < 10_000
    assert engine.process.poll() == 0


def test_the_scale(monkeypatch, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    for name, values in {"BATCHES": (1, 2), "IMAGES": (16, 32), "WIDTHS": (2, 4)}.items():
        monkeypatch.setattr(scale, name, values)
    monkeypatch.setattr(scale, "MIDDLE", Sizes(1, 16, 2))
    picture = tmp_path / "scale.png"
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    text = run(
        monkeypatch,
        capsys,
        *("--workload", "dcgan", "--scale", "--rounds", 1, "--threads", 1, "--plot", picture),
    )
    assert len(re.findall(r"batch +\d+  image +\d+  width +\d+ +\d+\.\d ms", text)) == 6
    for what in ("batch", "pixels", "width"):
        assert re.search(rf"time ~ {what} \*\* -?\d+\.\d\d \(over the last doubling", text)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_scale_of_networks_that_small_images_do_not_fit(monkeypatch, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    taken = []

    class Counted:  # an engine that only notes what it is to run
        def __init__(self, engine, workload, sizes, threads):
            taken.append(sizes)

        __enter__, __exit__ = (lambda self: self), (lambda self, *_: None)
        step = staticmethod(lambda: Step(1.0, (0.0, 0.0)))

    monkeypatch.setattr(scale, "Engine", Counted)
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    run(monkeypatch, capsys, "--workload", "pix2pix", "--scale", "--plot", tmp_path / "scale.png")
    assert {sizes.image for sizes in taken} == {32, 64, 128}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--workload", "pix2pix", "--image", 48), "--image must be a multiple of 32, got 48"),
        (("--workload", "dcgan", "--image", 20), "--image must be a multiple of 8, got 20"),
        (("--rounds", 0), "--rounds: '0' should be a whole number >= 1"),
        (("--threads", "two"), "--threads: 'two' should be a whole number >= 1"),
        (("--scale", "--image", 64), "--scale times minigan alone, over sizes of its own"),
        (("--scale", "--plot", "no/such/x.png"), f"there is no folder {Path('no/such')}"),
    ],
)
def test_what_cannot_be_measured(words, message, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, *words)
    assert message in capsys.readouterr().err


def test_the_exponent_is_that_of_a_power():
    assert scale.exponent([8, 16, 32], [3.0, 12.0, 48.0]) == pytest.approx(2)
    assert scale.exponent([8, 16, 32], [5.0, 5.0, 5.0]) == pytest.approx(0)


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs PyTorch: pip install -e '.[bench]'"
)
@every_workload
def test_against_torch(workload, monkeypatch, capsys):
    options = ("--against", "torch", "--rounds", 1, "--threads", 1)
    text = run(monkeypatch, capsys, "--workload", workload, *tiny(workload), *options)
    losses = re.findall(r"minigan (\S+) (\S+), torch (\S+) (\S+)", text)
    assert len(losses) == 3
    for *ours, d, g in losses:  # the same networks, weights, data and step
        assert [float(loss) for loss in ours] == pytest.approx([float(d), float(g)], rel=0.02)
    assert re.search(r"minigan / torch, pair by pair: median \d", text)
    assert len(re.findall(r"median +\d.* images/s +peak memory +\d+ MB", text)) == 2


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed")
def test_against_torch_where_it_is_missing(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, "--workload", "dcgan", *tiny("dcgan"), "--against", "torch")
    assert "needs PyTorch: pip install -e '.[bench]'" in capsys.readouterr().err


def test_an_engine_that_ends_says_so(monkeypatch, capfd):
    with Engine("minigan", "no such workload", Sizes(1, 16, 2), threads=1) as engine:
        with pytest.raises(SystemExit, match=r"the process ended: .*no such workload"):
            engine.step()
        engine.process.wait()
        with pytest.raises(SystemExit, match=r"the process ended: .*no such workload"):
            engine.step()
