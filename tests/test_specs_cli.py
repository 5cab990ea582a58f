"""`python -m minigan.gradcheck`: what it prints, and what its exit code says."""

import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

import minigan as mg
from minigan import functional as F
from minigan.ops.activation import Erf, Tanh
from minigan.ops.reduction import Max
from minigan.specs import REGISTRY, Case, Spec, check, mutants
from minigan.specs.cli import main
from minigan.tensor import is_recording

# Functions of somebody's own, which the command line finds under the name of this file


def right(x, w):
    return F.tanh(x @ w)


def brings_inputs(x):
    return x * x


brings_inputs.inputs = lambda: [np.array([1.0, 2.0, 3.0])]


def brings_whole_numbers(x):
    return x * x


brings_whole_numbers.inputs = [np.array([1, 2, 3])]


def brings_float32(x):
    return x * x


brings_float32.inputs = [np.array([1, 2, 3], dtype=np.float32)]


def brings_numbers(x, y):
    return x * y


brings_numbers.inputs = [1.0, 2.0]


def brings_trouble(x):
    return x


def trouble():
    return [][0]


brings_trouble.inputs = trouble


def brings_a_list(x, w):
    return x * w


brings_a_list.inputs = [[1.0, 2.0], [[3.0], [4.0]]]


class Halved(mg.Op):
    def forward(self, x):
        self.save(0)
        return x * x

    def backward(self, gy):
        return gy * self.saved()[0]


class Raising(Halved):
    def backward(self, gy):
        return gy * {}["no such key"]


def raises_in_backward(x):
    return Raising()(x)


class RaisingWhenRecorded(Halved):
    def backward(self, gy):
        if is_recording():
            raise NotImplementedError("no second derivative")
        return super().backward(gy) * 2.0


def raises_in_second_backward(x):
    return RaisingWhenRecorded()(x)


def raises_in_forward(x):
    return x * {}["no such key"]


def wrong_with_float32(x):
    return Halved()(x)


wrong_with_float32.inputs = [np.array([1, 2, 3], dtype=np.float32)]


def wrong(x, y):
    return Halved()(y) + x


def kinked(x):
    return F.relu(x)


kinked.inputs = [np.zeros(3)]


def huge(x):
    return x * x + 1e12


huge.inputs = [np.ones(3)]


def edge(x):
    return F.log(x)


edge.inputs = [np.array([1.0, 1e-5])]


def noisy(x):
    return F.dropout(x)


def returns_an_array(x):
    return x.numpy()


def leaves(x):
    sys.exit(0)


def leaves_early(x):
    return x


leaves_early.inputs = lambda: sys.exit(0)

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
        ["brings_whole_numbers", "--float64"],
        ["brings_float32", "--float64"],
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


def test_the_device_is_put_back():
    assert mg.tensor(1.0).device == "cpu"
    assert main(["--device", "tpu"]) == 2
    assert mg.tensor(1.0).device == "cpu"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "raises_in_backward",
            r"order 1: backward raised KeyError: 'no such key'\n  in backward, ",
        ),
        (
            "raises_in_second_backward",
            r"backward, recorded to .* raised NotImplementedError: no second derivative\n"
            r"  in backward, ",
        ),
    ],
)
def test_a_backward_that_raises_is_a_failure(capsys, name, words):
    code, out, err = run(capsys, f"{HERE}:{name}", "--shape", "3", "--seed", "5")
    assert (code, err) == (1, "")
    assert re.search(words + r".*test_specs_cli.py, line \d+\n  function \w+, seed 5\n", out)
    again = out.split("to run it again: python -m minigan.gradcheck ")[1].splitlines()[0]
    assert again == f"{HERE}:{name} --shape 3 --order 2 --seed 5 --examples 1"


def failure(out):
    """The message about a failure, with no times in it."""
    return out[out.index("\n\n") : out.rindex("\n\n")]


@pytest.mark.parametrize(
    "arguments",
    [
        ["wrong", "--shape", "2x3", "--shape", "2x3", "--seed", "3", "--examples", "4"],
        ["wrong", "--shape", "()", "--shape", "()", "--order", "1"],
        ["wrong_with_float32", "--float64"],
        ["raises_in_backward", "--shape", "4"],
    ],
)
def test_the_command_for_a_function_gives_the_same_failure_from_a_shell(capsys, arguments):
    name, *rest = arguments
    code, out, _ = run(capsys, f"{HERE}:{name}", *rest)
    assert code == 1
    again = out.split("to run it again: python ")[1].splitlines()[0]
    command = f"{shlex.quote(sys.executable)} {again}"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=False, env=with_tests_on_path()
    )
    assert done.returncode == 1, done.stderr
    assert failure(done.stdout) == failure(out)


def with_tests_on_path():
    """The environment of a child that imports this file, and the minigan under test."""
    package = os.path.dirname(os.path.dirname(mg.__file__))
    paths = [os.path.dirname(__file__), package, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def test_the_command_for_an_entry_gives_the_same_failure(capsys, monkeypatch):
    """With other directions than the example's own; with the order."""
    monkeypatch.setattr(Tanh, "fused_backward", lambda self, gy: gy * 0.5)
    for order in ("1", "3"):
        options = ["--op", "tanh", "--seed", "4", "--order", order, "--directions", "9"]
        code, out, _ = run(capsys, *options)
        again = out.split("to run it again: python -m minigan.gradcheck ")[1].splitlines()[0]
        assert code == 1
        code, repeated, _ = run(capsys, *shlex.split(again))
        assert code == 1
        assert failure(repeated) == failure(out)
        plain = again.replace(" --directions 9", "")
        assert plain != again
        assert failure(run(capsys, *shlex.split(plain))[1]) != failure(out)


def test_the_seed_given_to_check_is_in_the_command(capsys, monkeypatch):
    monkeypatch.setattr(Tanh, "fused_backward", lambda self, gy: gy * 0.5)
    with pytest.raises(mg.GradcheckError) as caught:
        check(REGISTRY["tanh"].example(4), seed=31)
    again = str(caught.value).split("to run it again: python -m minigan.gradcheck ")[1]
    code, out, _ = run(capsys, *shlex.split(again))
    assert code == 1
    assert str(caught.value) in out


def entry(number_at_kink):
    def build(choose):
        x = np.array([choose.integer(1, 3) / 8.0 + 1.0])
        corner = x.copy() if choose.integer(1, 20) <= number_at_kink else np.zeros(1)
        return Case(lambda x: F.abs(x - corner.astype(x.dtype)), lambda x: np.abs(x - corner), (x,))

    return Spec("cornered", "function", build)


def test_a_case_at_a_kink_is_counted_and_is_no_failure(capsys, monkeypatch):
    monkeypatch.setitem(REGISTRY, "cornered", entry(1))
    code, out, _ = run(capsys, "--op", "cornered", "--examples", "100", "--json")
    row = json.loads(out)
    assert (code, row["failure"]) == (0, "")
    assert 0 < row["at_kink"] <= 10
    assert row["rejected"] == 3 * row["at_kink"]
    assert row["examples"] == 100
    code, out, _ = run(capsys, "--op", "cornered", "--examples", "100")
    assert code == 0
    assert "FAILED" not in out
    assert f", {row['at_kink']} of them at a kink and without a verdict: all gradients agree" in out


def test_too_many_cases_at_kinks_are_a_failure(capsys, monkeypatch):
    monkeypatch.setitem(REGISTRY, "cornered", entry(19))
    code, out, _ = run(capsys, "--op", "cornered")
    assert code == 1
    assert "FAILED" in out
    assert "KinkError" in out


@pytest.mark.parametrize("module", ["minigan.gradcheck", "minigan.specs.mutants"])
def test_a_reader_who_goes_away_is_no_error(module):
    """As `| head -1` does."""
    options = {"minigan.gradcheck": ["--op", "exp", "--op", "tanh"]}.get(module, ["--op", "Neg"])
    child = subprocess.Popen(
        [sys.executable, "-m", module, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    child.stdout.close()
    err = child.stderr.read().decode()
    child.stderr.close()
    assert (child.wait(), err) == (141, "")


def test_a_mutant_of_an_op_that_is_not_there(capsys):
    with pytest.raises(SystemExit) as stopped:
        mutants.main(["--op", "conv2"])
    assert stopped.value.code == 2
    assert "--op conv2: no op is called so; do you mean Conv2d" in capsys.readouterr().err


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


def test_a_module_that_leaves_is_no_success(capsys, monkeypatch, tmp_path):
    (tmp_path / "module_that_leaves.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    code, out, err = run(capsys, "module_that_leaves:f")
    assert (code, out) == (2, "")
    assert err == "gradcheck: module_that_leaves cannot be imported: SystemExit: 0\n"


@pytest.mark.parametrize("json", ["", " --json"])
@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("/dev/full", "the output cannot be written: No space left on device\n"),
        ("&-", "gradcheck: the output is closed, so nobody would see the answer\n"),
    ],
)
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_an_output_that_takes_nothing(output, words, json):
    command = f"{shlex.quote(sys.executable)} -m minigan.gradcheck --op mul --examples 1{json}"
    done = subprocess.run(
        ["sh", "-c", f"{command} >{output}"], stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, words)


def test_the_slope_chosen_at_a_kink_is_checked_too(capsys, monkeypatch):
    pick = Max.pick

    def unshared(self, x, best):
        result = pick(self, x, best)
        self.share = np.ceil(self.share)
        return result

    arguments = ["--op", "max", "--examples", "2", "--seed", "3"]
    assert run(capsys, *arguments)[0] == 0
    monkeypatch.setattr(Max, "pick", unshared)
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (1, "")
    assert "max, at a kink: Max, input 0: [1. 0. 1.], not [0.5, 0, 0.5]" in out
    again = out.split("to run it again: python -m minigan.gradcheck ")[1].splitlines()[0]
    assert "max, at a kink" in run(capsys, *again.split())[1]
