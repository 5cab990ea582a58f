"""The graph: what backward and grad compute, what they walk, and how they refuse."""

from contextlib import contextmanager

import numpy as np
import pytest

import minigan as mg
from minigan import functional as F
from minigan import nn, optim
from minigan.autograd import _Sum
from minigan.ops import activation, arithmetic, linalg


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


@pytest.mark.parametrize("conv_first", [True, False])
def test_what_is_added_up_in_place_is_nobody_elses(conv_first):
    """A convolution's gradient is an array of its own, which others are added to; gy of + is not.

    h is read by a convolution and by +, which hands the same gy to h and to b.
    """
    rng = np.random.default_rng(0)
    a, b = (leaf(rng.standard_normal((2, 4, 4, 3))) for _ in range(2))
    w = leaf(rng.standard_normal((3, 3, 3, 2)))
    r, s = (mg.tensor(rng.standard_normal(n)) for n in ((2, 2, 2, 2), (2, 4, 4, 3)))

    def loss():
        h = a * 2.0
        both = [lambda: (F.conv2d(h, w) * r).sum(), lambda: ((h + b) * s).sum()]
        first, second = both if conv_first else both[::-1]
        return first() + second()

    loss().backward()
    np.testing.assert_array_equal(b.grad, s.numpy())
    through_conv = F.conv_transpose2d(r, w).numpy()
    np.testing.assert_allclose(a.grad, 2 * (through_conv + s.numpy()), rtol=1e-5, atol=1e-6)
    once = [t.grad.copy() for t in (a, b, w)]
    loss().backward()
    for t, gradient in zip((a, b, w), once, strict=True):
        np.testing.assert_array_equal(t.grad, gradient + gradient)


@pytest.mark.parametrize("fresh_first", [True, False])
def test_a_sum_takes_an_array_that_is_nobody_elses(fresh_first):
    shared, fresh = mg.tensor([1.0, 2.0]), mg.tensor([10.0, 20.0])
    gathered, array = _Sum(fresh), fresh.data
    for gradient in (fresh, shared) if fresh_first else (shared, fresh):
        gathered.add(gradient, recording=False, fresh=gradient is fresh)
    assert gathered.take() is array  # no array more, and no copy
    np.testing.assert_array_equal(array, [11, 22])
    np.testing.assert_array_equal(shared.numpy(), [1, 2])
