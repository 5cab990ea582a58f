"""The check itself: each part of it notices what only it can notice, and says where.

One wrong operation for each part; over a thousand more are in `test_mutants.py`.
"""

import re
from dataclasses import replace

import numpy as np
import pytest

import minigan as mg
from minigan import functional as F
from minigan.gradcheck import KinkError
from minigan.specs import PARTS, REGISTRY, Case, check, ops_of, values
from minigan.specs.check import Failed
from minigan.tensor import is_recording

RNG = np.random.default_rng(0)
X = RNG.uniform(0.5, 2, (3, 4))


class Square(mg.Op):
    """y = x², right."""

    def forward(self, x):
        self.save(0)
        return x * x

    def backward(self, gy):
        (x,) = self.saved()
        return gy * x * 2.0


def case_of(op, reference=lambda x: x * x, inputs=(X,), **options):
    def call(*tensors):
        return op(**options)(*tensors)

    return Case(call, reference, inputs, name=op.__name__, seed=5)


def test_a_right_operation_passes_every_part():
    result = check(case_of(Square), order=3)
    assert sorted(result.by_order) == [1, 2, 3]
    assert 0 < result.worst < 0.5
    assert result.worst == max(result.by_order.values())
    assert result.rejected == 0
    assert list(PARTS)[:4] == ["forward", "gradient", "fused_agrees", "second_order"]


def test_what_to_run_can_be_chosen():
    assert check(case_of(Square), order=1).by_order.keys() == {1}
    assert check(case_of(Square), parts=["zero", "repeat"]).by_order == {}
    with pytest.raises(KeyError):
        check(case_of(Square), parts=["nothing"])


class WrongValue(Square):
    def forward(self, x):
        return super().forward(x) * (1 + 1e-9)


class WrongSingle(Square):
    """Wrong in float32 only: a constant that was rounded too early."""

    def backward(self, gy):
        return super().backward(gy) * (1.001 if gy.dtype == np.float32 else 1.0)


class Slightly(Square):
    def backward(self, gy):
        return super().backward(gy) * (1 + 1e-6)


class RawArray(Square):
    """Right at first order; at second order x is a constant to it."""

    def backward(self, gy):
        (x,) = self.saved()
        return gy * (x.data * 2)


class NotTheSame(Square):
    """Off by a rounding, and each time by another."""

    calls = 0

    def backward(self, gy):
        NotTheSame.calls += 1
        return super().backward(gy) * (1 + 2.0**-50 * NotTheSame.calls)


class NotZero(Square):
    def backward(self, gy):
        return super().backward(gy) + 1e-300


class WritesCotangent(Square):
    def backward(self, gy):
        g = super().backward(gy)
        gy.data[...] = 0
        return g


class WritesInput(Square):
    def backward(self, gy):
        g = super().backward(gy)
        self.saved()[0].data[...] += 1
        return g


class Contiguous(Square):
    """Right for arrays in plain order; takes others' memory as it lies."""

    def fused_backward(self, gy):
        (x,) = self.saved()
        return np.ravel(gy, order="K").reshape(gy.shape) * x.data * 2


class Fused(Square):
    """A quick way that is a little off, too little for differences."""

    def fused_backward(self, gy):
        return gy * self.saved()[0].data * (2 + 1e-10)


class HoldsItsInput(Square):
    """Keeps the array itself, past the counter of changes in place."""

    def forward(self, x):
        self.x = x
        return super().forward(x)

    def backward(self, gy):
        return gy * (self.saved()[0] if is_recording() else mg.Tensor(self.x, self.x.dtype)) * 2.0


class Remembers(Square):
    """Adds what the last backward gave."""

    before = 0.0

    def backward(self, gy):
        g = super().backward(gy)
        total, self.before = g + self.before, self.before + g.data * 1e-13
        return total


@pytest.mark.parametrize(
    ("op", "part", "words"),
    [
        (
            WrongValue,
            "forward",
            r"value in float64: output 0, element \(0, 0\): the operation \S+, the reference ",
        ),
        (Slightly, "gradient", r"order 1: .*\n  worst: input 0, element \(\d, \d\): backward says"),
        (RawArray, "second_order", r"order 2: .*\n  worst: input 0, element \(\d, \d\)"),
        (NotTheSame, "repeat", "the second backward: input 0, element"),
        (Remembers, "repeat", "the second backward: input 0, element"),
        (NotZero, "zero", "under a zero cotangent: input 0, element .*: found 1e-300, expected 0;"),
        (WritesCotangent, "ownership", "backward changed the cotangent"),
        (WritesInput, "ownership", "backward changed input 0"),
        (Contiguous, "layouts", "with a cotangent that is .*: input 0, element"),
        (WrongSingle, "float32", r"in float32 \S+, in float64 \S+; \d+ of 12 differ"),
        (HoldsItsInput, "stale", r"step: input 0, element \(0, 0\): after \S+, before \S+; 12 of"),
        (
            Fused,
            "fused_agrees",
            r"differ: input 0, element \(\d, \d\): recorded \S+, not recorded \S+; \d+ of",
        ),
    ],
)
def test_each_part_notices_what_is_its_own(op, part, words):
    with pytest.raises(mg.GradcheckError, match=words) as caught:
        check(case_of(op), parts=[part])
    assert caught.value.part == part
    assert caught.value.case.name == op.__name__
    with pytest.raises(mg.GradcheckError):
        check(case_of(op))


class WrongNeeds(mg.Op):
    """a · b, whose second gradient is right only beside the first."""

    def forward(self, a, b):
        self.save(0, 1)
        return a * b

    def backward(self, gy):
        a, b = self.saved()
        return gy * b, gy * (a if self.needs[0] else b)


def test_an_input_alone():
    case = case_of(WrongNeeds, np.multiply, (X, X + 1))
    with pytest.raises(mg.GradcheckError, match="each_alone: input 1 alone: input 1, element"):
        check(case)


class Overwrites(mg.Op):
    """a · b, wrong if both are the same tensor."""

    def forward(self, a, b):
        self.save(0, 1)
        return a * b

    def backward(self, gy):
        a, b = self.saved()
        return gy * b, gy * a * (0.0 if a is b else 1.0)


def test_one_tensor_as_both_inputs():
    case = case_of(Overwrites, np.multiply, (X, X + 1))
    with pytest.raises(mg.GradcheckError, match="used_twice: one tensor as inputs 0 and 1"):
        check(case)


class NotLinear(Square):
    """A gradient that is not linear in the cotangent: right for sizes below 1.6."""

    def backward(self, gy):
        return super().backward(gy) * (np.abs(gy.data) < 1.6).astype(gy.dtype)


def test_an_output_that_is_used_twice():
    with pytest.raises(mg.GradcheckError, match="accumulation: with the output used twice"):
        check(case_of(NotLinear), parts=["accumulation"])


class NotSymmetric(mg.Op):
    """Claims a gradient that belongs to no function."""

    def forward(self, x):
        self.save(0)
        return (x * 0).sum()

    def backward(self, gy):
        (x,) = self.saved()
        return gy * F.concatenate([x[1:] * 2.0, x[:1]])


def test_a_field_without_a_potential_has_a_hessian_that_is_not_symmetric():
    from minigan.specs.check import check_symmetry

    with pytest.raises(mg.GradcheckError, match="the Hessian is not symmetric") as caught:
        check_symmetry(case_of(NotSymmetric, inputs=(X[0],)))
    # v (2·x1, 2·x2, 2·x3, x0): element 0 has a slope along element 1, and so on.
    found = re.search(
        r"worst: the gradient of input 0, element \((\d),\), has a slope of (\S+) along "
        r"input 0, element \((\d),\);\n"
        r"  the gradient of input 0, element \(\3,\), has a slope of (\S+) along "
        r"input 0, element \(\1,\)\n",
        str(caught.value),
    )
    slopes = {(found[1], found[3]): float(found[2]), (found[3], found[1]): float(found[4])}
    small, large = sorted(slopes, key=lambda k: abs(slopes[k]))
    assert slopes[small] == 0
    assert abs(slopes[large]) >= 1  # 2·v, and |v| is at least a half
    assert large in {("0", "1"), ("1", "2"), ("2", "3")}
    for name in ("conv2d", "batch_norm", "pow", "gradient_penalty"):
        check_symmetry(REGISTRY[name].example(3))


class Kinked(Square):
    """|x − 1| at 1."""

    def forward(self, x):
        self.save(0)
        return abs(x - 1)

    def backward(self, gy):
        (x,) = self.saved()
        return gy * np.sign(x.data - 1)


def test_a_case_at_a_kink_is_no_verdict_on_the_operation():
    case = case_of(Kinked, lambda x: abs(x - 1), (np.ones(3),))
    with pytest.raises(mg.GradcheckError, match=r"gradient: KinkError: .* at or near a kink"):
        check(case)
    with pytest.raises(Failed) as caught:
        check(case)
    assert caught.value.at_kink
    assert isinstance(caught.value.__cause__, KinkError)
    near = case_of(Kinked, lambda x: abs(x - 1), (np.array([0.2, 1 + 2.9e-4]),))
    rejected = [check(replace(near, seed=s), parts=["gradient"]).rejected for s in range(20)]
    assert 0 < sum(rejected) < 20  # a step towards 1 may reach it: then another direction is drawn
    assert max(rejected) <= 2


class Broken(Square):
    def backward(self, gy):
        return gy.reshape(-1)


def test_an_exception_is_a_failure_with_its_name():
    words = "gradient: gradcheck, order 1: backward raised RuntimeError: broken: backward gave"
    with pytest.raises(mg.GradcheckError, match=words):
        check(case_of(Broken))


def test_a_message_says_how_to_run_it_again(monkeypatch):
    from minigan.ops.arithmetic import Mul

    monkeypatch.setattr(Mul, "slope_a", lambda self, gy: gy * self.saved()[1] * 1.5)
    number = 3
    with pytest.raises(mg.GradcheckError) as caught:
        check(REGISTRY["mul"].example(number))
    message = str(caught.value)
    assert message.startswith("mul, gradient: gradcheck, order 1: backward disagrees")
    assert re.search(r"worst: input 0, element \(.*\): backward says .*, differences say", message)
    assert f"python -m minigan.gradcheck --op mul --seed {number} --examples 1" in message
    with pytest.raises(mg.GradcheckError) as again:
        check(REGISTRY["mul"].example(number))
    assert str(again.value) == message


def test_other_seeds_are_other_directions():
    results = {check(case_of(Square), seed=seed).worst for seed in range(4)}
    assert len(results) == 4


def test_the_ops_that_a_case_differentiates():
    from minigan.ops import activation, conv, norm, reduction, shape

    found = ops_of(REGISTRY["attention_conv_norm"].example(0))
    assert found >= {conv.Conv2d, conv.ConvTranspose2d, norm.BatchNorm, activation.Softmax}
    assert found >= {activation.LeakyRelu, reduction.Sum, shape.Reshape}
    assert conv.ConvWeight in found  # from the backward
    assert {op.name() for op in ops_of(REGISTRY["exp"].example(0))} == {"exp", "mul"}


@pytest.mark.parametrize("layout", [*values.LAYOUTS, "repeated"])
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3), (2, 1, 4), (2, 3, 2, 2)])
def test_a_layout_changes_strides_and_not_numbers(layout, shape):
    array = RNG.normal(size=shape)
    made = values.lay_out(array, layout)
    assert made.shape == shape
    assert made.dtype == np.float64
    if layout != "repeated":
        assert np.array_equal(made, array)
    elif made.size:
        assert np.array_equal(made, np.broadcast_to(array[:1], shape) if shape else array)


def test_a_message_about_a_failure_with_another_seed_has_it_in_its_command(monkeypatch):
    from minigan.ops.arithmetic import Mul

    monkeypatch.setattr(Mul, "slope_a", lambda self, gy: gy * self.saved()[1] * 1.5)
    with pytest.raises(mg.GradcheckError) as caught:
        check(REGISTRY["mul"].example(3), order=1, seed=12)
    assert str(caught.value).endswith("--seed 3 --examples 1 --order 1 --directions 12")


def test_a_message_about_a_failure_on_a_device_has_it_in_its_command(monkeypatch):
    from minigan import backend
    from minigan.ops.arithmetic import Mul

    monkeypatch.setattr(Mul, "slope_a", lambda self, gy: gy * self.saved()[1] * 1.5)
    case = REGISTRY["mul"].example(3)
    monkeypatch.setattr(backend._settings, "device", "cuda")
    text = str(Failed(case, "gradient", AssertionError("off")))
    assert text.endswith("--op mul --seed 3 --examples 1 --device cuda")


def test_in_second_order_cotangents_are_named():
    with pytest.raises(mg.GradcheckError) as caught:
        check(case_of(RawArray), parts=["second_order"])
    assert "inputs (3, 4); the cotangent of order 1 (3, 4)\n" in str(caught.value)


def test_attention_by_loops_is_attention():
    """The reference of a composite has one of its own here: softmax over one key is 1."""
    from minigan.specs import reference

    x = RNG.normal(size=(2, 1, 1, 3))
    wq, wk, wv = RNG.normal(size=(3, 3, 3))
    np.testing.assert_allclose(reference.attention(x, wq, wk, wv), x @ wv, rtol=1e-14)
    x = RNG.normal(size=(1, 2, 2, 3))
    even = reference.attention(x, wq * 0, wk, wv)  # all weights are the same
    np.testing.assert_allclose(even, np.broadcast_to((x @ wv).mean((1, 2)), x.shape), rtol=1e-14)


def test_a_wrong_attention_does_not_agree_with_its_reference(monkeypatch):
    """They share nothing: what is wrong in one is not wrong in the other."""
    case = REGISTRY["attention_conv_norm"].example(0)
    softmax = F.softmax
    monkeypatch.setattr(F, "softmax", lambda x: softmax(x, axis=-2))
    with pytest.raises(mg.GradcheckError, match="value in float64: output 0"):
        check(case, parts=["forward"])
    code = case.reference.__code__
    names = {*code.co_names, *code.co_freevars}
    assert "attention" in names
    assert not names & {"attend", "F", "special"}
