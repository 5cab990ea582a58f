"""What `python -m minigan.gradcheck` says to options and questions that make no sense."""

import re

import pytest
from test_specs_cli import HERE, run

from minigan.specs.cli import main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--op", "conv2"], "--op conv2: no such entry; do you mean conv2d"),
        (["--op", "zzz"], "--op zzz: no such entry"),
        (["--examples", "0"], "--examples and --order must be at least 1"),
        (["--order", "0"], "--examples and --order must be at least 1"),
        (["--seed", "-1"], "--seed at least 0"),
        (["--seed", "x"], "invalid int value"),
        (["--directions", "-1"], "--directions too"),
        (["--float64"], "--float64 is for a function of yours"),
        ([f"{HERE}:right", "--directions", "1"], "--directions is for the registry"),
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
        (
            [f"{HERE}:brings_whole_numbers"],
            "input 0 is int64; .* integers have no gradient: .*; or let --float64 turn",
        ),
        ([f"{HERE}:brings_float32"], "input 0 is float32; differences .*; or let --float64 turn"),
        ([f"{HERE}:brings_numbers"], "input 0 is the number 1.0, and each input must be an array"),
        (
            [f"{HERE}:brings_trouble"],
            r"brings_trouble.inputs cannot be had: it raised IndexError: (?s:.)*, in trouble",
        ),
        (
            [f"{HERE}:raises_in_forward", "--shape", "3"],
            r"cannot be checked: it raised KeyError: 'no such key'(?s:.)*, in raises_in_forward",
        ),
        ([f"{HERE}:huge"], "huge cannot be checked: .* too flat or too large to measure"),
        ([f"{HERE}:edge"], r"the function is not finite beside the point:(?s:.)*input 0, element"),
        ([f"{HERE}:kinked"], "kinked cannot be checked: .* at or near a kink"),
        ([f"{HERE}:noisy", "--shape", "9"], "different values for the same inputs"),
        ([f"{HERE}:returns_an_array", "--shape", "3"], "the function returned ndarray, no Tensor"),
        (["--device", "tpu"], "device 'tpu' is unknown"),
        ([f"{HERE}:kinked", "--shape", "²"], "--shape ²: write sizes with an x between"),
        ([f"{HERE}:kinked", "--shape", "9" * 5000], "write sizes with an x between"),
        (
            [f"{HERE}:kinked", "--shape", "100000000x100000000"],
            "--shape 1.*: no such array can be made: ",
        ),
        (
            [f"{HERE}:kinked", "--shape", "10000000x10000000"],
            "--shape 1.*: no such array can be made: Unable to allocate",
        ),
        ([f"{HERE}:kinked", "--shape", "x".join("1" * 70)], "no such array can be made: .*dim"),
        ([f"{HERE}:kinked", "--shape", "0x3"], "have no elements, so nothing was compared"),
        ([f"{HERE}:leaves", "--shape", "3"], "leaves cannot be checked: it raised SystemExit: 0"),
        ([f"{HERE}:leaves_early"], "leaves_early.inputs cannot be had: it raised SystemExit: 0"),
    ],
)
def test_questions_that_make_no_sense(capsys, arguments, words):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")  # and no head of a table
    assert re.search(f"^gradcheck: .*{words}", err)
    assert "Traceback" not in err
