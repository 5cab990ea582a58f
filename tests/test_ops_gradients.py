"""The derivatives of every operation, first and second order, against finite differences.

And what a gradient must be besides right: of the input's type, on memory of its own, the same to
the bit when it is computed again, and exactly zero under a zero cotangent.
"""

import numpy as np
import op_specs_images
import op_specs_indexing
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from op_specs import SPECS

import minigan as mg
from minigan import autograd
from minigan import functional as F

assert op_specs_images
assert op_specs_indexing  # both add to SPECS
every_function = pytest.mark.parametrize("name", sorted(SPECS))
THIRD_ORDER = ["conv2d", "div", "exp", "log_softmax", "matmul", "mul", "pow", "sigmoid", "tanh"]


@every_function
@settings(max_examples=15)
@given(data=st.data())
def test_first_and_second_derivatives(name, data):
    case = data.draw(SPECS[name])
    mg.gradcheck(case.call, case.inputs, order=2)


@pytest.mark.parametrize("name", THIRD_ORDER)
@settings(max_examples=3)
@given(data=st.data())
def test_third_derivatives(name, data):
    case = data.draw(SPECS[name])
    mg.gradcheck(case.call, case.inputs, order=3)


@pytest.mark.parametrize(("padding", "output_padding"), [(0, 1), (1, (1, 2)), ((0, 1), 2)])
def test_output_padding_from_the_stride_up_to_the_dilation(padding, output_padding):
    rng = np.random.default_rng(0)
    mg.gradcheck(
        lambda x, w: F.conv_transpose2d(x, w, None, 1, padding, output_padding, dilation=3),
        [rng.normal(size=(2, 3, 4, 2)), rng.normal(size=(2, 2, 1, 2))],
        order=2,
    )


def frozen(array):
    """A view that nobody can write into: an op that changes what it is given raises."""
    view = array.view()
    view.flags.writeable = False
    return view


def run(case, arrays):
    leaves = [mg.Tensor(frozen(a), requires_grad=True, dtype=a.dtype) for a in arrays]
    return leaves, case.call(*leaves)


def gradients(output, leaves, cotangent, **options):
    """What backward leaves in `.grad`, which is then empty again."""
    output.backward(frozen(cotangent), **options)
    found = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return found


def some_cotangent(shape, dtype=np.float64):
    return np.random.default_rng(7).normal(size=shape).astype(dtype)


def assert_close(found, expected, share):
    """Equal up to a share of the largest expected value of each gradient."""
    for g, e in zip(found, expected, strict=True):
        size = max(1.0, np.abs(e).max(initial=0))
        np.testing.assert_allclose(g, e, rtol=share, atol=share * size)


@every_function
@settings(max_examples=15)
@given(data=st.data())
def test_gradients_are_arrays_of_their_own_the_same_every_time(name, data):
    case = data.draw(SPECS[name])
    leaves, y = run(case, case.inputs)
    v = some_cotangent(y.shape)
    first = gradients(y, leaves, v, retain_graph=True)
    again = gradients(y, leaves, v)
    taken = [v, *(leaf.data for leaf in leaves), y.data]
    for leaf, g, h in zip(leaves, first, again, strict=True):
        assert type(g) is np.ndarray
        assert g.shape == leaf.shape
        assert g.dtype == np.float64
        assert g.flags.writeable
        assert g.tobytes() == h.tobytes()
        for other in taken:
            assert not np.may_share_memory(g, other)
        taken += [g, h]


@every_function
@settings(max_examples=8)
@given(data=st.data())
def test_a_zero_cotangent_gives_exactly_zero(name, data):
    case = data.draw(SPECS[name])
    leaves, y = run(case, case.inputs)
    for g in gradients(y, leaves, np.zeros(y.shape)):
        assert not g.any()


@every_function
@settings(max_examples=15)
@given(data=st.data())
def test_backward_agrees_with_its_recorded_twin_and_with_contiguous_inputs(name, data):
    case = data.draw(SPECS[name])
    leaves, y = run(case, case.inputs)
    v = some_cotangent(y.shape)
    quick = gradients(y, leaves, v, retain_graph=True)  # fused where an op has it
    recorded = mg.grad(y, leaves, frozen(v), create_graph=True)
    assert_close([g.numpy() for g in recorded], quick, 1e-12)
    leaves, y = run(case, [np.ascontiguousarray(a).reshape(a.shape) for a in case.inputs])
    assert_close(gradients(y, leaves, v), quick, 1e-12)


@every_function
@settings(max_examples=8)
@given(data=st.data())
def test_float32_gradients_are_float32_and_close(name, data):
    case = data.draw(SPECS[name])
    single = [a.astype(np.float32) for a in case.inputs]
    leaves, y = run(case, [a.astype(np.float64) for a in single])
    v = some_cotangent(y.shape, np.float32)
    expected = gradients(y, leaves, v.astype(np.float64))
    leaves, y = run(case, single)
    found = gradients(y, leaves, v, retain_graph=True)
    recorded = mg.grad(y, leaves, v, create_graph=True)
    assert {g.dtype for g in found} == {np.dtype(np.float32)}
    assert {g.dtype for g in recorded} == {np.dtype(np.float32)}
    assert_close(found, expected, 5e-5)
    assert_close([g.numpy() for g in recorded], expected, 5e-5)


@every_function
@settings(max_examples=6)
@given(data=st.data())
def test_each_input_alone_gets_the_gradient_it_gets_among_all(name, data):
    case = data.draw(SPECS[name])
    leaves, y = run(case, case.inputs)
    v = some_cotangent(y.shape)
    together = gradients(y, leaves, v)
    for i, expected in enumerate(together):
        alone = [mg.Tensor(a, dtype=np.float64) for a in case.inputs]
        alone[i].requires_grad_()
        (found,) = gradients(case.call(*alone), [alone[i]], v)
        assert_close([found], [expected], 1e-12)
        assert all(t.grad is None for t in alone)


# The same tensor in several places

TWICE = {
    "x + x": lambda x: x + x,
    "x - x": lambda x: x - x,
    "x * x": lambda x: x * x,
    "x / x": lambda x: x / x,
    "x ** x": lambda x: x**x,
    "matmul(x, x)": lambda x: x @ x,
    "concatenate([x, x])": lambda x: F.concatenate([x, x, x], axis=1),
    "stack([x, x])": lambda x: F.stack([x, x], axis=-1),
    "where(c, x, x)": lambda x: F.where(np.eye(3) > 0, x, x),
    "maximum(x, x + 1)": lambda x: F.maximum(x, x + 1.0),
    "conv2d(x, x)": lambda x: F.conv2d(x.reshape(1, 3, 3, 1), x.reshape(3, 3, 1, 1), padding=1),
    "batch_norm(x, weight=x[0])": lambda x: F.batch_norm(x, None, None, x[0], x[1], training=True),
}


@pytest.mark.parametrize("function", TWICE.values(), ids=TWICE)
def test_one_tensor_used_twice(function):
    x = np.random.default_rng(3).uniform(0.5, 1.5, (3, 3))
    mg.gradcheck(function, [x], order=2)
    leaf = mg.Tensor(frozen(x), dtype=np.float64, requires_grad=True)
    y = function(leaf)
    one, two = (gradients(y, [leaf], some_cotangent(y.shape), retain_graph=True) for _ in "ab")
    assert one[0].tobytes() == two[0].tobytes()


# At kinks, where the slope is a matter of choice, and says so in the docstrings


@pytest.mark.parametrize(
    ("function", "at", "slope"),
    [
        (F.relu, 0.0, 0.0),
        (lambda x: F.leaky_relu(x, 0.1), 0.0, 0.1),
        (F.abs, 0.0, 0.0),
        (lambda x: F.clip(x, -1, 1), 1.0, 1.0),
        (lambda x: F.clip(x, -1, 1), -1.0, 1.0),
        (lambda x: F.maximum(x, 2.0), 2.0, 0.5),
        (lambda x: F.minimum(x, 2.0), 2.0, 0.5),
        (lambda x: x**2, 0.0, 0.0),
        (lambda x: x**0, 0.0, 0.0),
        (lambda x: x**1, 0.0, 1.0),
        (lambda x: x ** mg.tensor(0.0), 0.0, 0.0),
        (lambda x: mg.tensor(0.0) ** x, 2.0, 0.0),
    ],
)
def test_slope_at_a_kink(function, at, slope):
    x = mg.tensor(at, requires_grad=True)
    function(x).backward()
    assert x.grad == np.float32(slope)


def test_equal_maxima_share_the_gradient_but_in_a_window_the_first_takes_it():
    x = mg.tensor([[1.0, 5.0, 5.0], [5.0, 0.0, 0.0]], requires_grad=True)
    F.max(x).backward()
    np.testing.assert_allclose(x.grad, np.array([[0, 1, 1], [1, 0, 0]]) / 3, rtol=1e-6)
    (gradient,) = mg.grad(F.min(x, axis=1).sum(), x)
    assert gradient.numpy().tolist() == [[1, 0, 0], [0, 0.5, 0.5]]
    image = mg.Tensor(np.full((1, 2, 2, 1), 3.0), requires_grad=True)
    F.max_pool2d(image, 2).sum().backward()
    assert image.grad.ravel().tolist() == [1, 0, 0, 0]


# Nothing is left out


def concrete_ops(cls=mg.Op):
    """Every Op class of the engine that can be run."""
    found = set()
    for sub in cls.__subclasses__():
        found |= concrete_ops(sub)
        if sub.__module__.startswith("minigan.") and sub.forward is not mg.Op.forward:
            found.add(sub)
    return found


def test_every_op_of_the_engine_is_exercised_plain_and_recorded(monkeypatch):
    seen = set()
    original = autograd._gradients_of

    def watch(op, gy, needs, create_graph):
        seen.add((type(op), bool(create_graph)))
        return original(op, gy, needs, create_graph)

    monkeypatch.setattr(autograd, "_gradients_of", watch)

    @settings(max_examples=8, phases=[Phase.generate])
    @given(data=st.data())
    def exercise(data):
        for name in sorted(SPECS):
            case = data.draw(SPECS[name])
            leaves, y = run(case, case.inputs)
            v = mg.Tensor(some_cotangent(y.shape), dtype=np.float64, requires_grad=True)
            first = mg.grad(y, leaves, v, create_graph=True)
            total = sum((g * g).sum() for g in first)
            mg.grad(total, [v, *leaves], create_graph=True, allow_unused=True)
            total.backward()
            if name != "dropout":
                gradients(case.call(*leaves), leaves, v.numpy())

    exercise()
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    x.astype(np.float64).sum().backward()  # astype is a method only
    mg.grad(x.astype(np.float64).sum(), x, create_graph=True)
    everything = {(op, recorded) for op in concrete_ops() for recorded in (False, True)}
    left_out = sorted(f"{op.__name__} recorded={recorded}" for op, recorded in everything - seen)
    assert not left_out
    assert len(concrete_ops()) >= 40


def test_ops_with_a_fused_backward_have_a_composed_one():
    fused = {op for op in concrete_ops() if hasattr(op, "fused_backward")}
    assert {op.__name__ for op in fused} >= {"Tanh", "BatchNorm"}
    for op in fused:
        assert op.backward is not mg.Op.backward
