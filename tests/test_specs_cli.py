"""`python -m minigan.gradcheck`: what it prints, and what its exit code says."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

import minigan as mg
from minigan import functional as F
from minigan.ops.activation import Erf, Tanh
from minigan.specs import REGISTRY
from minigan.specs.cli import main

# Functions of somebody's own, which the command line finds under the name of this file


def right(x, w):
    return F.tanh(x @ w)


def brings_inputs(x):
    return x * x


brings_inputs.inputs = lambda: [np.array([1, 2, 3])]  # whole numbers are made float64


def brings_a_list(x, w):
    return x * w


brings_a_list.inputs = [[1.0, 2.0], [[3.0], [4.0]]]


class Halved(mg.Op):
    def forward(self, x):
        self.save(0)
        return x * x

    def backward(self, gy):
        return gy * self.saved()[0]


def wrong(x, y):
    return Halved()(y) + x


def kinked(x):
    return F.relu(x)


kinked.inputs = [np.zeros(3)]


def noisy(x):
    return F.dropout(x)


def returns_an_array(x):
    return x.numpy()


HERE = __name__


def run(capsys, *arguments):
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_a_table_of_what_agrees(capsys):
    code, out, err = run(capsys, "--op", "conv2d", "--op", "nn.Linear", "--examples", "3")
    header, *rows, last = out.splitlines()
    assert (code, err) == (0, "")
    assert header.split() == ["op", "order", "examples", "worst/bound", "rejected", "seconds"]
    assert [row.split()[:3] for row in rows] == [["conv2d", "2", "3"], ["nn.Linear", "2", "3"]]
    assert all(0 < float(row.split()[3]) < 1 for row in rows)
    assert last.startswith("2 checked on 6 examples in ")
    assert "all gradients agree; the largest error is " in last


def test_the_whole_registry_in_json(capsys):
    code, out, _ = run(capsys, "--examples", "1", "--order", "1", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["op"] for row in rows] == list(REGISTRY)
    assert {row["order"] for row in rows} == {1}
    assert all(row["failure"] == "" and row["worst"] <= 1 for row in rows)


def test_seeds_are_other_examples_and_the_same_ones_again(capsys):
    def worst(seed):
        code, out, _ = run(capsys, "--op", "mul", "--examples", "2", "--seed", seed, "--json")
        assert code == 0
        return json.loads(out)["worst"]

    assert worst("5") == worst("5") != worst("6")


def test_order_three(capsys):
    code, out, _ = run(capsys, "--op", "exp", "--examples", "1", "--order", "3", "--json")
    assert code == 0
    assert json.loads(out)["order"] == 3


def test_a_wrong_gradient_is_reported_and_can_be_run_again(capsys, monkeypatch):
    monkeypatch.setattr(Tanh, "fused_backward", lambda self, gy: gy * 0.5)
    code, out, _ = run(capsys, "--op", "tanh", "--op", "exp", "--seed", "4")
    assert code == 1
    rows = [line for line in out.splitlines() if line.split()[:2] in (["tanh", "2"], ["exp", "2"])]
    assert ["FAILED" in row for row in rows] == [False, True]  # in the registry's order
    assert "tanh, gradient: gradcheck, order 1: backward disagrees with finite" in out
    assert "worst: input 0, element (" in out
    assert "2 checked on" in out
    assert out.endswith(": 1 wrong: tanh\n")
    again = out.split("to run it again: python -m minigan.gradcheck ")[1].splitlines()[0]
    code, repeated, _ = run(capsys, *again.split())
    assert code == 1
    assert again in repeated
    code, out, _ = run(capsys, "--op", "tanh", "--json")
    assert code == 1
    assert "backward says" in json.loads(out)["failure"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["right", "--shape", "3x4", "--shape", "4x2"],
        ["brings_inputs"],
        ["brings_a_list", "--order", "3"],
        ["brings_inputs", "--shape", "()"],
    ],
)
def test_a_function_of_your_own(capsys, arguments):
    name, *rest = arguments
    code, out, err = run(capsys, f"{HERE}:{name}", *rest, "--examples", "4")
    assert (code, err) == (0, "")
    assert out.splitlines()[1].split()[0] == f"{HERE}:{name}"
    assert "1 checked on 4 examples" in out


def test_a_wrong_function_of_your_own(capsys):
    code, out, _ = run(capsys, f"{HERE}:wrong", "--shape", "2", "--shape", "2", "--seed", "7")
    assert code == 1
    assert "gradcheck, order 1: backward disagrees with finite differences." in out
    assert "worst: input 1, element (" in out
    assert "function wrong, seed 7" in out
    again = f"python -m minigan.gradcheck {HERE}:wrong --shape 2 --shape 2 --order 2 --seed 7"
    assert f"to run it again: {again} --examples 1" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--op", "conv2"], "--op conv2: no such entry; do you mean conv2d"),
        (["--op", "zzz"], "--op zzz: no such entry"),
        (["--examples", "0"], "--examples and --order must be at least 1"),
        (["--order", "0"], "--examples and --order must be at least 1"),
        (["--seed", "-1"], "--seed at least 0"),
        (["--seed", "x"], "invalid int value"),
        (["--shape", "3"], "--shape is for a function of yours"),
        ([f"{HERE}:right", "--op", "mul"], "give either --op or a function"),
        ([f"{HERE}:right", "--device", "cuda"], "leave --device out"),
        (["--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_options_that_make_no_sense(capsys, arguments, words):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tanh"], "'tanh' is no function: write module:function"),
        (["no_such_module:f"], "no_such_module cannot be imported: No module named"),
        ([f"{HERE}:nothing"], f"{HERE} has no nothing"),
        ([f"{HERE}:HERE"], f"{HERE}:HERE is a str, no function"),
        ([f"{HERE}:right"], "right: no inputs: give --shape 3x4 for each, or set right.inputs"),
        ([f"{HERE}:right", "--shape", "3,4"], "--shape 3,4: write sizes with an x between"),
        ([f"{HERE}:right", "--shape", "3"], "right cannot be checked: .*right.* 'w'"),
        ([f"{HERE}:kinked"], "kinked cannot be checked: .* at or near a kink"),
        ([f"{HERE}:noisy", "--shape", "9"], "different values for the same inputs"),
        ([f"{HERE}:returns_an_array", "--shape", "3"], "the function returned ndarray, no Tensor"),
        (["--device", "tpu"], "device 'tpu' is unknown"),
    ],
)
def test_questions_that_make_no_sense(capsys, arguments, words):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert re.search(f"^gradcheck: .*{words}", err)
    assert "Traceback" not in err


def test_the_device_is_put_back():
    assert mg.tensor(1.0).device == "cpu"
    assert main(["--device", "tpu"]) == 2
    assert mg.tensor(1.0).device == "cpu"


def test_from_a_shell():
    """As it is written in the docs; without a warning, and without hypothesis."""
    hidden = "import sys; sys.modules['hypothesis'] = None; import runpy; sys.argv[1:] = "
    arguments = ["--op", "matmul", "--examples", "2"]
    for command in (
        ["-m", "minigan.gradcheck", *arguments],
        ["-c", f"{hidden}{arguments}; runpy.run_module('minigan.gradcheck', run_name='__main__')"],
    ):
        done = subprocess.run(
            [sys.executable, "-W", "error", *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert "all gradients agree" in done.stdout


def test_importing_minigan_imports_neither_hypothesis_nor_scipy_nor_the_registry():
    code = "import minigan, sys; print([m for m in sys.modules if m.split('.')[0] in"
    code += " ('hypothesis', 'scipy') or m.startswith('minigan.specs')])"
    out = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert out.strip() == "[]"
    code = "import minigan.specs, sys; print('hypothesis' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_the_registry_goes_to_the_third_order(capsys):
    with pytest.raises(SystemExit) as stopped:
        run(capsys, "--op", "mul", "--order", "4")
    assert stopped.value.code == 2
    assert "up to 3" in capsys.readouterr().err


def test_a_third_order_failure_can_be_run_again(capsys, monkeypatch):
    def backward(op, gy):
        (x,) = op.saved()
        slope = mg.functional.exp(-x * x) * 1.1283791670955126
        return gy * (slope + (slope - slope.detach()) * (x - x.detach()) * 0.5)

    monkeypatch.setattr(Erf, "backward", backward)
    code, out, _ = run(capsys, "--op", "ops.Erf", "--order", "3", "--examples", "3")
    again = out.split("to run it again: python -m minigan.gradcheck ")[1].splitlines()[0]
    assert again.endswith("--order 3")
    assert code == run(capsys, *again.split())[0] == 1
