"""The graph: what backward and grad compute, what they walk, and how they refuse."""

import re
from contextlib import contextmanager

import numpy as np
import pytest

import minigan as mg
from minigan import functional as F
from minigan import nn, optim
from minigan.autograd import OUT
from minigan.ops import activation, arithmetic, linalg
from minigan.tensor import mode


def leaf(values, dtype=np.float32):
    return mg.tensor(values, dtype=dtype, requires_grad=True)


@contextmanager
def calls_of(op, method="backward"):
    """Count the calls of a method of an op class."""
    original, calls = getattr(op, method), []

    def counted(self, *args):
        calls.append(self)
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(op, method, counted)
        yield calls


class Cube(mg.Op):
    """y = x³, as a user would write it."""

    def forward(self, x):
        self.save(0)
        return x**3

    def backward(self, gy):
        (x,) = self.saved()
        return gy * x * x * 3.0


# ---- backward


def test_backward_fills_leaves_with_plain_arrays():
    x, w = leaf([1.0, 2.0]), leaf(3.0)
    middle = x * w
    middle.sum().backward()
    assert type(x.grad) is np.ndarray
    assert type(w.grad) is np.ndarray
    np.testing.assert_array_equal(x.grad, [3, 3])
    np.testing.assert_array_equal(w.grad, 3)
    assert middle.grad is None
    assert (x.grad.dtype, x.grad.shape, w.grad.shape) == (np.float32, (2,), ())


@pytest.mark.parametrize("function", [lambda w: w * w, F.tanh, lambda w: F.tanh(w) + F.tanh(w)])
def test_a_scalar_leaf_gets_an_array_that_can_be_changed_in_place(function):
    w = leaf(2.0)
    function(w).backward()
    assert type(w.grad) is np.ndarray
    before = w.grad.copy()
    optim.clip_grad_norm_([w], 0.001)
    assert abs(w.grad) < abs(before)


def test_backward_accumulates():
    x = leaf([1.0, 2.0])
    for times in (1, 2, 3):
        (x * x).sum().backward()
        np.testing.assert_array_equal(x.grad, np.multiply([2, 4], times))
    x.grad = None
    x.sum().backward()
    np.testing.assert_array_equal(x.grad, [1, 1])


def test_backward_of_a_leaf_is_its_cotangent():
    x = leaf([1.0, 2.0])
    x.backward([3, 4])
    np.testing.assert_array_equal(x.grad, [3, 4])


@pytest.mark.parametrize(
    "cotangent", [[3, 4], np.float32([3, 4]), np.array([3, 4]), mg.tensor([3.0, 4.0])]
)
def test_backward_takes_a_cotangent(cotangent):
    x = leaf([1.0, 2.0])
    (x * x).backward(cotangent)
    np.testing.assert_array_equal(x.grad, [6, 16])


def test_one_element_of_any_shape_needs_no_cotangent():
    x = leaf([[1.0]])
    (x * 2).backward()
    np.testing.assert_array_equal(x.grad, [[2]])


def test_a_diamond_adds_what_comes_along_both_sides():
    x = leaf([1.0, 2.0])
    h = x * x
    (h.exp() + h * 3).sum().backward()
    np.testing.assert_allclose(x.grad, 2 * x.numpy() * (np.exp([1, 4]) + 3), rtol=1e-6)


def test_a_tower_of_diamonds_is_walked_once_per_op():
    x = leaf(1.0)
    y = x
    with calls_of(arithmetic.Add) as calls:
        for _ in range(60):  # 2^60 paths
            y = y + y
        y.backward()
    assert len(calls) == 60
    assert x.grad == 2.0**60


def test_an_output_used_many_times_gathers_all():
    x = leaf([1.0, 2.0])
    h = x * 1.0
    total = h
    for _ in range(9):
        total = total + h
    total.sum().backward()
    np.testing.assert_array_equal(x.grad, [10, 10])


def test_gradients_of_views_reach_the_leaf():
    x = leaf(np.arange(6.0).reshape(2, 3))
    (x.T.reshape(6)[1:3] * mg.tensor([5.0, 7.0])).sum().backward()
    np.testing.assert_array_equal(x.grad, [[0, 7, 0], [5, 0, 0]])


# ---- grad


def test_grad_returns_tensors_and_touches_no_grad():
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    gx, gw = mg.grad((x * w).sum(), [x, w])
    assert isinstance(gx, mg.Tensor)
    assert not gx.requires_grad
    np.testing.assert_array_equal(gx.numpy(), [3, 4])
    np.testing.assert_array_equal(gw.numpy(), [1, 2])
    assert x.grad is None
    assert w.grad is None


def test_grad_of_one_input_is_still_a_tuple():
    x = leaf(2.0)
    (g,) = mg.grad(x * x, x)
    assert g.item() == 4


def test_grad_walks_only_the_paths_to_its_inputs():
    x, w = leaf([[1.0, 2.0]]), leaf([[1.0], [2.0]])
    frozen_side = F.tanh(F.exp(w))
    y = F.matmul(F.tanh(x), frozen_side).sum()
    with (
        calls_of(arithmetic.Exp) as exp_calls,
        calls_of(activation.Tanh, "fused_backward") as tanh_calls,
        calls_of(linalg.Matmul) as products,
    ):
        mg.grad(y, x)
    assert len(exp_calls) == 0
    assert len(tanh_calls) == 1
    assert len(products) == 1


def test_an_op_is_told_which_of_its_inputs_are_wanted():
    seen = []

    class Watched(mg.Op):
        def forward(self, a, b):
            return a + b

        def backward(self, gy):
            seen.append(self.needs)
            return gy if self.needs[0] else None, gy if self.needs[1] else None

    a, b = leaf(1.0), leaf(2.0)
    y = Watched()(a, b)
    mg.grad(y, b, retain_graph=True)
    y.backward()
    Watched()(a, mg.tensor(2.0)).backward()
    assert seen == [(False, True), (True, True), (True, False)]


def test_grad_of_intermediates_and_leaves_together():
    x = leaf([1.0, 2.0])
    h = x * 3
    y = (h * h).sum()
    gy, gh, gx = mg.grad(y, [y, h, x])
    assert gy.item() == 1
    np.testing.assert_array_equal(gh.numpy(), [6, 12])
    np.testing.assert_array_equal(gx.numpy(), [18, 36])


def test_grad_of_an_intermediate_stops_there():
    x = leaf([1.0, 2.0])
    h = x.exp()
    with calls_of(arithmetic.Exp) as calls:
        mg.grad((h * h).sum(), h)
    assert not calls
    (h * 1.0).sum().backward()  # what lies before h was not freed
    np.testing.assert_allclose(x.grad, np.exp([1, 2]), rtol=1e-6)


def test_grad_of_several_outputs_adds_them():
    x = leaf([1.0, 2.0])
    a, b = x * x, (x * 5).sum()
    (g,) = mg.grad([a, b], x, grad_outputs=[np.float32([1, 10]), None])
    np.testing.assert_array_equal(g.numpy(), [2 + 5, 40 + 5])
    (g,) = mg.grad([x.sum(), x.sum()], x)
    np.testing.assert_array_equal(g.numpy(), [2, 2])


def test_an_output_that_is_an_input():
    x = leaf([1.0, 2.0])
    (g,) = mg.grad(x, x, grad_outputs=[[3, 4]])
    np.testing.assert_array_equal(g.numpy(), [3, 4])


def test_an_unused_input_is_an_error_unless_allowed():
    x, other = leaf(1.0), leaf([1.0, 2.0])
    with pytest.raises(RuntimeError, match=r"do not depend on input 1 \(2,\).*allow_unused=True"):
        mg.grad(x * 2, [x, other])
    gx, nothing = mg.grad(x * 2, [x, other], allow_unused=True)
    assert gx.item() == 2
    assert nothing is None


def test_retain_graph_lets_backward_run_again():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    (g,) = mg.grad(y, x, retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(g.numpy(), [2, 4])
    np.testing.assert_array_equal(x.grad, [4, 8])
    with pytest.raises(RuntimeError, match="was freed by an earlier backward"):
        y.backward()


# ---- derivatives of derivatives


def test_create_graph_to_the_fourth_order():
    x = leaf([0.5, 2.0], np.float64)
    y = (x**4).sum()
    for expected in (
        lambda x: 4 * x**3,
        lambda x: 12 * x**2,
        lambda x: 24 * x,
        lambda x: x * 0 + 24,
    ):
        (y,) = mg.grad(y, x, grad_outputs=[np.ones(y.shape)], create_graph=True)
        np.testing.assert_allclose(y.numpy(), expected(x.numpy()), rtol=1e-12)


def test_third_order_through_several_kinds_of_op():
    x = leaf(0.3, np.float64)
    y = F.tanh(x) * F.exp(x * x) / (x + 2.0)
    for _ in range(3):
        (y,) = mg.grad(y, x, create_graph=True)
    # the same by a polynomial through exact values
    points = 0.3 + 0.02 * np.cos(np.pi * (np.arange(9) + 0.5) / 9)
    fit = np.polynomial.Polynomial.fit(
        points, np.tanh(points) * np.exp(points**2) / (points + 2), deg=8
    )
    assert y.item() == pytest.approx(fit.deriv(3)(0.3), rel=1e-6)


def test_a_gradient_penalty_reaches_the_parameters():
    x, w = leaf([1.0, 2.0]), leaf([3.0, -1.0])
    (g,) = mg.grad((F.exp(x) * w).sum(), x, create_graph=True)
    (g * g).sum().backward()
    np.testing.assert_allclose(w.grad, 2 * np.exp([2, 4]) * w.numpy(), rtol=1e-6)


def test_a_gradient_is_recorded_only_on_request():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    assert mg.grad(y, x, create_graph=True)[0].requires_grad
    assert not mg.grad(y, x)[0].requires_grad


def test_derivatives_in_the_cotangent():
    x, v = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (g,) = mg.grad(x * x, x, grad_outputs=v, create_graph=True)
    (gv,) = mg.grad(g.sum(), v)
    np.testing.assert_array_equal(gv.numpy(), [2, 4])


# ---- not recording


def test_no_grad_records_nothing():
    x = leaf([1.0, 2.0])
    with mg.no_grad():
        assert not mg.is_recording()
        y = x * x
        with pytest.raises(RuntimeError, match=r"backward: the output \(2,\) does not depend on"):
            y.backward()
    assert mg.is_recording()
    assert not y.requires_grad
    assert y.is_leaf


def test_no_grad_ends_on_an_exception_and_nests():
    with pytest.raises(KeyError), mg.no_grad():
        raise KeyError
    assert mg.is_recording()
    with mg.no_grad():
        with mg.no_grad():
            pass
        assert not mg.is_recording()


def test_no_grad_decorates_functions():
    @mg.no_grad()
    def double(x):
        return x * 2

    for _ in range(2):
        assert not double(leaf(1.0)).requires_grad
    assert mg.is_recording()


def test_backward_may_run_under_no_grad():
    x = leaf(2.0)
    y = x * x
    with mg.no_grad():
        y.backward()
    assert x.grad == 4


def test_detach_shares_memory_and_stops_gradients():
    x = leaf([1.0, 2.0])
    h = x * x
    d = h.detach()
    assert d.data is h.data
    assert not d.requires_grad
    (h * d).sum().backward()
    np.testing.assert_array_equal(x.grad, [2, 16])


def test_nothing_is_recorded_without_a_leaf_that_wants_it():
    y = mg.tensor([1.0]) * 2 + 1
    assert not y.requires_grad
    assert y.is_leaf


def test_frozen_parameters_get_no_gradient_and_cost_no_backward():
    frozen, trained = nn.Linear(3, 4), nn.Linear(4, 2)
    frozen.requires_grad_(False)
    with calls_of(linalg.Matmul, "forward") as products:
        trained(F.tanh(frozen(mg.tensor(np.ones((5, 3)))))).sum().backward()
    assert all(p.grad is None for p in frozen.parameters())
    assert all(p.grad is not None for p in trained.parameters())
    assert len(products) == 3  # two forward, and one for the weight of `trained`


def test_gradients_pass_through_a_frozen_network():
    x, frozen = leaf([[1.0, 2.0]]), nn.Linear(2, 1).requires_grad_(False)
    with calls_of(linalg.Matmul, "forward") as products:
        frozen(x).sum().backward()
    np.testing.assert_array_equal(x.grad, frozen.weight.numpy().T)
    assert len(products) == 2  # no product for the frozen weight


# ---- memory that is nobody else's


def arrays_of(*tensors):
    return [t if isinstance(t, np.ndarray) else t.data for t in tensors]


def assert_all_apart(arrays):
    for i, a in enumerate(arrays):
        assert a.flags.writeable
        for b in arrays[i + 1 :]:
            assert not np.shares_memory(a, b)


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a + b,
        lambda a, b: (a + b).reshape(3, 2).T,
        lambda a, b: F.concatenate([a, b]),
        lambda a, b: F.stack([a, b])[0] + a,
        lambda a, b: a - b + a,
        lambda a, b: F.broadcast_to(a, (4, 2, 3)) + b,
    ],
)
def test_gradients_share_no_memory(function):
    a, b = leaf(np.ones((2, 3))), leaf(np.ones((2, 3)))
    y = function(a, b)
    cotangent = np.ones(y.shape, np.float32)
    given = mg.grad(y, [a, b], grad_outputs=[cotangent], retain_graph=True, allow_unused=True)
    y.backward(cotangent)
    kept = [g for g in (*given, a.grad, b.grad) if g is not None]
    assert_all_apart(arrays_of(*kept, a, b, cotangent))
    y = function(a, b)
    (twice, again) = mg.grad(y, [a, a], grad_outputs=[cotangent])
    assert_all_apart(arrays_of(twice, again, cotangent))


def test_a_gradient_can_be_scaled_without_scaling_another():
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (a + b).sum().backward()
    a.grad *= 100
    np.testing.assert_array_equal(b.grad, [1, 1])


def test_accumulating_does_not_write_into_the_cotangent():
    a = leaf([1.0, 2.0])
    cotangent = mg.tensor([1.0, 1.0])
    h = a + 0.0
    (h + h + h).backward(cotangent)
    np.testing.assert_array_equal(cotangent.numpy(), [1, 1])
    np.testing.assert_array_equal(a.grad, [3, 3])


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
