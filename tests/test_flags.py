"""The flags that examples share, optional packages, and errors in plain words."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from minigan.training import (
    DivergenceError,
    MissingExtraError,
    RunError,
    extras,
    natural_int,
    plain_errors,
    positive_int,
    require_extras,
    standard_flags,
)


def parse(*arguments):
    parser = argparse.ArgumentParser()
    standard_flags(parser, out="runs/x", steps=100)
    parser.add_argument("--batch", type=positive_int, default=16)
    return parser.parse_args(arguments)


def test_flags():
    args = vars(parse())
    assert args == {
        "steps": 100,
        "seed": 0,
        "device": "cpu",
        "out": Path("runs/x"),
        "resume": False,
        "gif": False,
        "batch": 16,
    }
    assert parse("--seed", "0", "--steps", "5", "--resume", "--device", "cuda").steps == 5


@pytest.mark.parametrize(
    "wrong",
    [
        ["--steps", "0"],
        ["--steps", "1.5"],
        ["--steps", "many"],
        ["--seed", "-1"],
        ["--device", "tpu"],
        ["--batch", "-3"],
        ["--stepz", "3"],
    ],
)
def test_wrong_flags_exit_with_usage(wrong, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(*wrong)
    assert caught.value.code == 2
    words = capsys.readouterr().err
    assert words.startswith("usage:")
    assert wrong[0] in words


def test_natural_int():
    assert natural_int("0") == 0
    with pytest.raises(argparse.ArgumentTypeError, match="0 or more, not '-1'"):
        natural_int("-1")


def test_a_missing_extra_says_what_to_run(capsys):
    require_extras("PIL", "tqdm", "matplotlib")
    with pytest.raises(SystemExit) as caught:
        require_extras("PIL", "no_such_package.part")
    assert caught.value.code == 2
    words = capsys.readouterr().err
    assert "'no_such_package' is not installed" in words
    assert "pip install 'minigan[examples]'" in words
    with pytest.raises(MissingExtraError):
        extras.import_extra("no_such_package")


@pytest.mark.parametrize(
    ("error", "code"), [(RunError("words"), 2), (DivergenceError("words"), 3)], ids=["run", "nan"]
)
def test_plain_errors(error, code, capsys):
    with pytest.raises(SystemExit) as caught, plain_errors():
        raise error
    assert caught.value.code == code
    assert capsys.readouterr().err == "error: words\n"


def test_importing_needs_no_extras():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['PIL', 'tqdm', 'matplotlib']));"
        "import minigan.training"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
