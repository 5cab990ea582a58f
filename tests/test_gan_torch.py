"""The DCGAN recipe in PyTorch is that of examples/dcgan.py; evaluate.py reads what it writes."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import minigan as mg
from minigan import data, optim
from minigan.models import DCGANDiscriminator, DCGANGenerator
from minigan.training import judging

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[bench]'")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def script():
    path = ROOT / "tests" / "benchmarks" / "gan_torch.py"
    spec = importlib.util.spec_from_file_location("gan_torch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def spreads(parameters):
    """(size, mean, deviation) of each, in order: layouts differ, what is there must not."""
    found = [(p.size, float(p.mean()), float(p.std())) for p in parameters]
    return sorted(found, key=lambda one: (one[0], round(one[1])))


@pytest.mark.parametrize("size", [8, 32])
def test_networks_and_first_weights_are_those_of_the_script(script, size):
    mg.manual_seed(0)
    torch.manual_seed(0)
    image = (size, size, 3)
    pairs = [
        (DCGANGenerator(image, 16, 20), script.make_generator(size, 3, 16, 20)),
        (DCGANDiscriminator(image, 16), script.make_discriminator(size, 3, 16)),
    ]
    for ours, theirs in pairs:
        a = spreads(p.numpy() for p in ours.parameters())
        b = spreads(p.detach().numpy() for p in theirs.parameters())
        assert [one[0] for one in a] == [one[0] for one in b]
        for (count, *one), (_, *other) in zip(a, b, strict=True):
            assert one == pytest.approx(other, abs=0.1 / np.sqrt(count) + 1e-4)


def test_the_recipe_is_that_of_the_script(script):
    text = (ROOT / "examples" / "dcgan.py").read_text()
    other = Path(script.__file__).read_text()
    flags = re.search(r'gan_flags\(parser, out="runs/dcgan", (.*)\)', text)[1]
    assert f'out="runs/gan_torch", {flags})' in other
    rates = set(re.findall(r"lr=(\S+), betas=(\(.*?\))", text))
    ((rate, betas),) = rates
    assert f'"--lr", type=float, default={rate}' in other
    assert other.count(f"lr=args.lr, betas={betas}") == 2
    assert "LinearDecay(adam, args.steps, args.steps // 2)" in text
    ours = optim.Adam([mg.tensor([0.0], requires_grad=True)], lr=1.0)
    for steps in (1, 2, 7, 10):
        decay = optim.LinearDecay(ours, steps, steps // 2)
        factor = script.fall(steps)
        for t in range(steps + 1):
            assert decay.factor(t) == pytest.approx(factor(t), abs=1e-12)


def test_it_writes_what_evaluate_reads(script, tmp_path, monkeypatch, capsys):
    real = data.LabelledImages(np.zeros((40, 32, 32, 1), np.uint8), np.zeros(40, int), ("a",))
    monkeypatch.setattr(script.training, "load_real", lambda args: real)
    monkeypatch.setattr(script, "SAMPLES", 48)
    flags = ["--steps", 2, "--batch", 4, "--width", 2, "--out", tmp_path / "run", "--threads", 1]
    monkeypatch.setattr(sys, "argv", ["gan_torch.py", *map(str, flags)])
    threads = torch.get_num_threads()
    try:
        assert script.main() == 0
    finally:
        torch.set_num_threads(threads)
    assert "step 2" in capsys.readouterr().out
    found = judging.find_candidate(tmp_path / "run", "fashion-mnist", (32, 32, 1), 40)
    assert list(found.files) == [1, 2]
    assert (found.script, found.seed) == ("gan_torch", 0)
    assert found.seconds == json.loads((tmp_path / "run" / "metrics.json").read_text())["seconds"]
    images, labels = found.images(2, 48, seed=0)
    assert images.dtype == np.uint8
    assert images.shape == (48, 32, 32, 1)
    assert labels is None
