"""What the graph refuses, ops that users write, and anomaly mode."""

import re

import numpy as np
import pytest
from test_graph import Cube, calls_of, leaf

import minigan as mg
from minigan import functional as F
from minigan import nn, optim
from minigan.autograd import OUT
from minigan.ops import activation, linalg
from minigan.tensor import mode

# ---- refusals


def test_backward_twice_names_the_op_and_the_way_out():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward()
    words = (
        "backward: the graph through sum ((2,),) was freed by an earlier backward: compute the "
        "output again, or pass retain_graph=True the first time"
    )
    with pytest.raises(RuntimeError, match=re.escape(words)):
        y.backward()
    np.testing.assert_array_equal(x.grad, [2, 4])


def test_a_trunk_freed_through_another_branch_is_noticed():
    x = leaf([1.0, 2.0])
    trunk = F.exp(x)
    a, b = (trunk * 2).sum(), (trunk * 3).sum()
    a.backward()
    with pytest.raises(RuntimeError, match=r"the graph through exp .* was freed"):
        b.backward()


def test_several_values_need_a_cotangent():
    x = leaf([1.0, 2.0])
    for ask in (lambda: (x * 2).backward(), lambda: mg.grad(x * 2, x)):
        with pytest.raises(ValueError, match=r"has shape \(2,\); only a scalar.*pass a cotangent"):
            ask()


@pytest.mark.parametrize(
    ("cotangent", "error", "words"),
    [
        ([1, 2, 3], ValueError, "cotangent (3,) for an output of shape (2,)"),
        (1.0, ValueError, "cotangent () for an output of shape (2,)"),
        (np.ones(2), TypeError, "the cotangent is float64 on cpu, the output float32 on cpu"),
        (mg.tensor(np.arange(2)), TypeError, "the cotangent is int64"),
        ("ab", TypeError, "expected a tensor, number or array, got str"),
    ],
)
def test_a_cotangent_must_fit(cotangent, error, words):
    x = leaf([1.0, 2.0])
    for ask in (
        lambda: (x * 2).backward(cotangent),
        lambda: x.backward(cotangent),
        lambda: mg.grad(
            x * 2, x, grad_outputs=cotangent if isinstance(cotangent, str) else [cotangent]
        ),
    ):
        with pytest.raises(error, match=re.escape(words)):
            ask()
    assert x.grad is None


def test_grad_checks_its_arguments():
    x = leaf(1.0)
    with pytest.raises(ValueError, match="grad: 1 outputs but 2 grad_outputs"):
        mg.grad(x * 2, x, grad_outputs=[1.0, 2.0])
    with pytest.raises(RuntimeError, match=r"grad: input 0 \(\) does not require a gradient"):
        mg.grad(x * 2, mg.tensor(1.0))
    with pytest.raises(RuntimeError, match=r"grad: the output \(\) does not depend on anything"):
        mg.grad(mg.tensor(1.0) * 2, x)


CHANGES = {
    "the tensor": lambda x: x.add_(1),
    "a view": lambda x: x[0:1].zero_(),
    "a view of a view": lambda x: x.reshape(1, 2).T[1].mul_(2),
    "detach": lambda x: x.detach().copy_([5, 6]),
    "a Tensor on the same memory": lambda x: mg.Tensor(x).zero_(),
    "an element": lambda x: x.__setitem__(0, 9),
    "data": lambda x: setattr(x, "data", [7, 8]),
    "a noted write": lambda x: (x.data.fill(3), x.bump_version()),
}


@pytest.mark.parametrize("way", CHANGES)
def test_changing_a_saved_input_is_noticed_by_name(way):
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    with mg.no_grad():
        CHANGES[way](x)
    words = r"mul: its input [01], which backward reads, was changed in place 1 time\(s\) after"
    with pytest.raises(RuntimeError, match=words):
        y.backward()
    assert x.grad is None
    x.grad = None
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad, 2 * x.numpy())


def test_changing_a_saved_output_is_noticed():
    x = leaf([1.0, 2.0])
    y = F.exp(x)
    y.detach().zero_()
    with pytest.raises(RuntimeError, match=r"exp: its output, which backward reads, was changed"):
        y.sum().backward()


def test_changing_what_backward_does_not_read_is_fine():
    x, c = leaf([1.0, 2.0]), mg.tensor([1.0, 1.0])
    y = (x + c).sum()
    c.zero_()
    y.backward()
    np.testing.assert_array_equal(x.grad, [1, 1])


def test_a_copy_is_nobodys_view():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    with mg.no_grad():
        mg.tensor(x).zero_()
        x[np.array([0, 1])].zero_()
        x[0].zero_()
    y.backward()
    np.testing.assert_array_equal(x.grad, [2, 4])


def test_an_optimiser_step_between_forward_and_backward_is_noticed():
    d = nn.Linear(2, 1)
    opt = optim.SGD(d.parameters(), lr=0.1)
    fake = leaf([[1.0, 2.0]])
    score = d(fake).sum()
    mg.grad(score, [d.weight], retain_graph=True)
    d(mg.tensor([[1.0, 1.0]])).sum().backward()
    opt.step()
    words = r"matmul: its input 1.*a parameter stepped by an optimiser between forward and backward"
    with pytest.raises(RuntimeError, match=words):
        score.backward()


# ---- ops that users write


def test_a_users_op_is_differentiable_to_any_order():
    x = leaf([1.0, 2.0], np.float64)
    y = Cube()(x).sum()
    for expected in ([3, 12], [6, 12], [6, 6]):
        (g,) = mg.grad(y, x, create_graph=True)
        np.testing.assert_allclose(g.numpy(), expected)
        y = g.sum()
    assert mg.gradcheck(lambda x: Cube()(x), [np.array([0.5, -1.5])], order=2) <= 1


def test_one_op_is_one_node():
    x = leaf([1.0, 2.0])
    cube = Cube()
    y = cube(x)
    with pytest.raises(RuntimeError, match="cube: an op is one node: make a new one for each call"):
        cube(y)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda gy: gy.sum(), "backward gave () float32 for input 0 of shape (2,) float32"),
        (lambda gy: gy.astype(np.float64), "backward gave (2,) float64 for input 0"),
        (lambda gy: None, "backward gave nothing for input 0"),
        (lambda gy: (gy, gy), "backward gave 2 gradients for 1 input(s)"),
        (lambda gy: gy.data, "backward gave a ndarray for input 0"),
        (lambda gy: (), "backward gave 0 gradients for 1 input(s)"),
    ],
)
def test_what_a_wrong_backward_gives_is_named(wrong, words):
    class Wrong(mg.Op):
        def forward(self, x):
            return x * 1

        def backward(self, gy):
            return wrong(gy)

    with pytest.raises(RuntimeError, match=re.escape(f"wrong: {words}")):
        Wrong()(leaf([1.0, 2.0])).sum().backward()
    assert mg.is_recording()


def test_a_forward_that_changes_the_type_is_named():
    class Widen(mg.Op):
        def forward(self, x):
            return x.astype(np.float64)

    with pytest.raises(TypeError, match="widen: forward made float64 from float32"):
        Widen()(leaf([1.0]))


def test_an_op_without_its_methods_says_so():
    class Half(mg.Op):
        def forward(self, x):
            return x / 2

    with pytest.raises(NotImplementedError, match="half: backward is not written"):
        Half()(leaf(1.0)).backward()
    with pytest.raises(NotImplementedError, match="op: forward is not written"):
        mg.Op()(leaf(1.0))


def test_names_of_ops_are_what_users_call():
    assert activation.LogSoftmax.name() == "log_softmax"
    assert linalg.Matmul.name() == "matmul"
    assert repr(leaf([1.0]).exp()._op) == "<exp ((1,),)>"


def test_fused_backward_runs_only_when_nothing_is_recorded():
    class Square(mg.Op):
        def forward(self, x):
            self.save(0, OUT)
            return x * x

        def backward(self, gy):
            x, _ = self.saved()
            return gy * x * 2.0

        def fused_backward(self, gy):
            return gy * self.saved()[0].data * 2

    x = leaf([1.0, 2.0])
    with calls_of(Square) as composed, calls_of(Square, "fused_backward") as fused:
        Square()(x).sum().backward()
        mg.grad(Square()(x).sum(), x)
        assert (len(composed), len(fused)) == (0, 2)
        mg.grad(Square()(x).sum(), x, create_graph=True)
        assert (len(composed), len(fused)) == (1, 2)
    np.testing.assert_array_equal(x.grad, [2, 4])


# ---- anomaly mode


def test_anomaly_mode_names_the_first_op_forward():
    x = leaf([[1.0, 0.0]])
    with np.errstate(all="ignore"), mg.detect_anomaly():
        words = "div forward: made NaN or Inf in a result of shape (1, 2), inputs (), (1, 2) from"
        with pytest.raises(mg.AnomalyError, match=re.escape(words)):
            F.exp(1.0 / x) * 0.0
    assert not mode.anomaly


def test_anomaly_mode_says_what_came_in():
    with mg.detect_anomaly(), pytest.raises(mg.AnomalyError, match="operand 1 already held one"):
        mg.tensor([1.0]) + mg.tensor([np.nan])


@pytest.mark.parametrize("create_graph", [False, True])
def test_anomaly_mode_names_the_first_op_backward(create_graph):
    x = leaf([0.0, 4.0])
    y = (F.sqrt(x) * 2.0).sum()  # finite forward; the slope of the root at 0 is not
    with np.errstate(all="ignore"), mg.detect_anomaly():
        words = r"sqrt backward: made NaN or Inf in a result of shape \(2,\), inputs \(2,\)"
        with pytest.raises(mg.AnomalyError, match=words):
            mg.grad(y, x, create_graph=create_graph)
    assert not mode.anomaly
    assert mode.recording


def test_anomaly_mode_sees_fused_backwards():
    x = leaf([1.0])
    y = F.tanh(x)
    with mg.detect_anomaly(), pytest.raises(mg.AnomalyError, match="tanh backward"):
        y.backward([np.inf])


def test_without_anomaly_mode_nan_passes_and_with_it_finite_numbers_do():
    with np.errstate(all="ignore"):
        assert np.isnan(F.log(mg.tensor(-1.0)).item())
    x = leaf([1.0, 2.0])
    with mg.detect_anomaly():
        F.softmax(F.exp(x)).sum().backward()
    assert np.isfinite(x.grad).all()


def test_create_graph_records_even_inside_no_grad():
    x = mg.tensor(1.0, dtype=np.float64, requires_grad=True)
    h = x.exp()
    y = h + h * h
    with mg.no_grad():
        (g,) = mg.grad(y, x, create_graph=True)
    (second,) = mg.grad(g, x)
    assert second.item() == pytest.approx(np.e + 4 * np.e**2)


def index_then_change(a):
    rows = np.array([0, 0, 1])
    y = a[rows]
    rows[:] = 1
    return y


def index_tensor_then_change(a):
    rows = mg.tensor(np.array([0, 0, 1]))
    y = a[rows]
    rows.zero_()
    return y


def condition_then_change(a):
    condition = np.array([True, False])
    y = mg.functional.where(condition, a * 2.0, a)
    condition[:] = False
    return y


def condition_tensor_then_change(a):
    condition = mg.tensor(np.array([True, False]))
    y = mg.functional.where(condition, a * 2.0, a)
    condition[0] = False
    return y


def labels_then_change(a):
    labels = np.array([0])
    y = mg.losses.cross_entropy(a.reshape(1, 2), labels)
    labels[0] = 1
    return y * -2.0


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (index_then_change, [2, 1]),
        (index_tensor_then_change, [2, 1]),
        (condition_then_change, [2, 1]),
        (condition_tensor_then_change, [2, 1]),
        (labels_then_change, [1, -1]),
    ],
)
def test_what_an_op_was_told_may_change_afterwards(function, expected):
    a = mg.tensor([1.0, 1.0], requires_grad=True)
    function(a).sum().backward()
    np.testing.assert_allclose(a.grad, expected, rtol=1e-6)
