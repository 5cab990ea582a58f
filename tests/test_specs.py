"""Every entry of the registry, by everything there is to check; and that nothing has no entry.

Hypothesis draws the cases. What the check itself can see is in `test_specs_check.py`.
"""

import inspect
import os
import subprocess
import sys
import types

import numpy as np
import pytest
from conftest import examples
from hypothesis import find, given, settings
from hypothesis import strategies as st

import minigan as mg
from minigan import functional as F
from minigan import losses, nn
from minigan.specs import REGISTRY, check, ops_of

every_entry = pytest.mark.parametrize("name", REGISTRY)


@every_entry
@examples(20)
@given(data=st.data())
def test_everything_about_an_entry(name, data):
    result = check(data.draw(REGISTRY[name].cases))
    assert result.rejected == 0  # kinks are kept away by construction


@every_entry
@examples(4)
@given(data=st.data())
def test_third_derivatives(name, data):
    case = data.draw(REGISTRY[name].cases)
    assert 3 in check(case, order=3, parts=["third_order"]).by_order


# Nothing is left out


def named(kind):
    return {name for name, spec in REGISTRY.items() if spec.kind == kind}


def test_every_function_has_an_entry():
    functions = [value for value in map(vars(F).get, F.__all__) if callable(value)]
    public = {function.__name__ for function in functions}  # an alias has its function's name
    assert public == named("function")
    assert len(public) >= 54


def test_every_layer_has_an_entry():
    layers = {
        f"nn.{name}"
        for name in nn.__all__
        if inspect.isclass(getattr(nn, name)) and issubclass(getattr(nn, name), nn.Module)
    }
    assert layers - {"nn.Module"} == named("layer")
    assert len(layers) >= 29


def test_every_loss_has_an_entry():
    public = {
        f"losses.{name}"
        for name, value in vars(losses).items()
        if isinstance(value, types.FunctionType)
        and value.__module__ == losses.__name__
        and not name.startswith("_")
    }
    assert public == named("loss")
    assert len(public) >= 6


def test_the_composites():
    assert named("composite") >= {"attention_conv_norm", "gradient_penalty", "unet_block"}


def concrete_ops(cls=mg.Op):
    """Every Op class of the engine that can be run."""
    found = set()
    for sub in cls.__subclasses__():
        found |= concrete_ops(sub)
        if sub.__module__.startswith("minigan.ops.") and sub.forward is not mg.Op.forward:
            found.add(sub)
    return found


def test_every_op_is_exercised_by_some_entry():
    used = {op for spec in REGISTRY.values() for k in range(10) for op in ops_of(spec.example(k))}
    left_out = sorted(op.__name__ for op in concrete_ops() - used)
    assert not left_out, f"no entry of minigan/specs runs the backward of {left_out}"
    assert len(concrete_ops()) >= 40


def test_ops_with_a_fused_backward_have_a_composed_one():
    fused = {op for op in concrete_ops() if hasattr(op, "fused_backward")}
    assert {op.__name__ for op in fused} >= {"Tanh", "BatchNorm"}
    for op in fused:
        assert op.backward is not mg.Op.backward


# The cases


@every_entry
def test_an_example_is_the_same_every_time_and_disturbs_nobody(name):
    mg.manual_seed(3)
    before = mg.generator().bit_generator.state
    one, two = (REGISTRY[name].example(11) for _ in "ab")
    assert mg.generator().bit_generator.state == before
    assert (one.name, one.example, one.seed, one.note) == (name, 11, two.seed, two.note)
    for a, b in zip(one.inputs, two.inputs, strict=True):
        assert (a.shape, a.strides, a.dtype) == (b.shape, b.strides, np.float64)
        assert np.array_equal(a, b)


def layout_of(a):
    """What is odd about an array's memory."""
    if a.ndim == 0 or a.size < 2:
        return "too small to tell"
    if 0 in a.strides:
        return "repeated"
    if min(a.strides) < 0:
        return "reversed"
    if a.flags.c_contiguous and a.flags.f_contiguous:
        return "offset" if a.base is not None else "C"
    if a.flags.c_contiguous:
        return "offset" if a.base is not None and a.base.size > a.size else "C"
    if a.flags.f_contiguous:
        return "Fortran"
    return "sliced" if a.base.size > a.size else "transposed"


def test_the_examples_have_all_sorts_of_inputs():
    inputs = [a for spec in REGISTRY.values() for k in range(12) for a in spec.example(k).inputs]
    assert {layout_of(a) for a in inputs} >= {
        *("C", "Fortran", "sliced", "offset", "reversed", "repeated", "transposed")
    }
    assert {a.ndim for a in inputs} >= {0, 1, 2, 3, 4, 6}
    assert any(a.size == 0 for a in inputs)
    assert any(a.shape == (1, 1) for a in inputs)
    constant = [a for a in inputs if a.size > 3 and np.ptp(a) == 0]
    assert len(constant) < 0.02 * len(inputs)


def test_the_numbers_keep_away_from_kinks():
    for k in range(50):
        (x,) = REGISTRY["relu"].example(k).inputs
        assert np.abs(x).min(initial=1) > 0.1
        a, b = REGISTRY["maximum"].example(k).inputs
        assert np.abs(a - b).min(initial=1) > 0.05


def test_hypothesis_finds_the_smallest_case():
    large = find(REGISTRY["mul"].cases, lambda case: case.inputs[0].size > 1)
    assert large.inputs[0].size == 2
    assert large.inputs[0].flags.c_contiguous
    dilated = find(REGISTRY["conv2d"].cases, lambda case: case.options["dilation"] == (2, 1))
    assert dilated.options == {"stride": 1, "padding": 0, "dilation": (2, 1), "groups": 1}


def test_the_profiles():
    ci, nightly = settings.get_profile("ci"), settings.get_profile("nightly")
    assert ci.derandomize
    assert ci.deadline is None
    assert not settings.get_profile("dev").derandomize
    assert not nightly.derandomize
    assert nightly.max_examples == 1000


@pytest.mark.parametrize(
    ("profile", "count"), [("ci", 20), ("random", 20), ("dev", 200), ("nightly", 1000)]
)
def test_the_profile_decides_how_many_examples_there_are(profile, count):
    code = "import conftest; print((s := conftest.examples(20)).max_examples, s.derandomize)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=os.path.dirname(__file__),
        env={**os.environ, "HYPOTHESIS_PROFILE": profile},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(count), str(profile == "ci")]


def test_an_entry_cannot_be_registered_twice():
    from minigan.specs.case import spec

    with pytest.raises(ValueError, match="spec: there is one for conv2d already"):
        spec("conv2d")(lambda choose: None)


def test_without_hypothesis_examples_still_come_and_cases_say_what_is_missing(monkeypatch):
    from minigan.specs.case import Spec

    monkeypatch.setitem(sys.modules, "hypothesis", None)
    spec = REGISTRY["mul"]
    check(spec.example(0))
    with pytest.raises(ImportError, match=r"pip install 'minigan\[test\]', or pip install hypo"):
        _ = Spec(spec.name, spec.kind, spec.build).cases
