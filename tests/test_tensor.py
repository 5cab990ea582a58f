"""The tensor itself: making one, its type and device, its values, and changes in place."""

import re
import subprocess
import sys
from contextvars import copy_context

import numpy as np
import pytest

import minigan as mg
from minigan import backend

FLOATS = [np.float32, np.float64]


@pytest.fixture
def no_cupy(monkeypatch):
    """A process in which CuPy was never installed, whatever this machine has."""
    monkeypatch.setitem(sys.modules, "cupy", None)  # makes `import cupy` an ImportError
    monkeypatch.delitem(backend._backends, "cuda", raising=False)


# ---- making one


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, np.float32),
        (3, np.float32),
        (True, np.float32),
        ([1, 2], np.float32),
        ([[True, False]], np.float32),
        ([], np.float32),
        ((1.0, 2.0), np.float32),
        (np.zeros(2), np.float32),  # NumPy's default float is no reason to compute in float64
        (np.zeros(2, np.float16), np.float32),
        (np.float64(2), np.float32),
        (np.zeros(2, ">f4"), np.float32),
        (np.arange(3), np.int64),
        (np.arange(3, dtype=np.uint8), np.uint8),
        (np.int32(2), np.int32),
        (np.zeros(2, bool), np.bool_),
        (np.bool_(True), np.bool_),
    ],
)
def test_floats_and_lists_become_float32_and_integer_arrays_keep_their_type(data, dtype):
    t = mg.tensor(data)
    assert t.dtype == dtype
    assert t.shape == np.shape(data)
    np.testing.assert_array_equal(t.numpy(), np.asarray(data))


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_dtype_asked_for_wins(dtype):
    assert mg.tensor([1, 2], dtype=dtype).dtype == dtype
    assert mg.tensor(np.arange(3), dtype=dtype).dtype == dtype
    assert mg.tensor([1.0], dtype=np.int64).dtype == np.int64


def test_default_dtype_is_a_context_that_ends_even_on_an_exception():
    with mg.default_dtype(np.float64):
        assert mg.tensor([1.0]).dtype == np.float64
        with mg.default_dtype(np.float32):
            assert mg.tensor([1.0]).dtype == np.float32
        assert (mg.tensor([1.0]) * 2).dtype == np.float64
    assert mg.tensor([1.0]).dtype == np.float32
    with pytest.raises(KeyError), mg.default_dtype(np.float64):
        raise KeyError
    assert mg.tensor([1.0]).dtype == np.float32


def test_default_dtype_may_end_in_another_context_than_it_began():
    def generator():
        with mg.default_dtype(np.float64):
            yield mg.tensor([1.0]).dtype

    numbers = generator()
    assert copy_context().run(next, numbers) == np.float64
    assert mg.tensor([1.0]).dtype == np.float32
    numbers.close()
    assert mg.tensor([1.0]).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.int64, complex])
def test_default_dtype_takes_only_what_the_engine_computes_in(dtype):
    with (
        pytest.raises(TypeError, match=r"default_dtype: .*use float32 or float64"),
        mg.default_dtype(dtype),
    ):
        pass
    assert mg.tensor([1.0]).dtype == np.float32


@pytest.mark.parametrize(
    ("data", "dtype", "error", "words"),
    [
        ("abc", None, TypeError, "tensor: cannot hold <U3: give real numbers"),
        (["a", "b"], None, TypeError, "tensor: cannot hold <U1"),
        ([1 + 2j], None, TypeError, "tensor: cannot hold complex128"),
        (None, None, TypeError, "tensor: cannot hold object"),
        ([[1], [1, 2]], None, ValueError, "tensor: the nested lists are ragged"),
        ([1.0], np.float16, TypeError, "tensor: float16 is not a type minigan computes in"),
        ([1.0], complex, TypeError, "tensor: complex128 is not a type minigan computes in"),
    ],
)
def test_what_is_no_array_of_real_numbers_is_refused(data, dtype, error, words):
    with pytest.raises(error, match=re.escape(words)):
        mg.tensor(data, dtype=dtype)


def test_integers_have_no_gradient():
    with pytest.raises(TypeError, match=r"requires_grad: only floating-point .* this is int64"):
        mg.tensor(np.arange(3), requires_grad=True)


def test_tensor_copies_and_Tensor_shares():
    array = np.ones(3, np.float32)
    shared, own = mg.Tensor(array), mg.tensor(array)
    array[0] = 7
    assert shared.numpy()[0] == 7
    assert own.numpy()[0] == 1


@pytest.mark.parametrize("make", [mg.tensor, mg.Tensor])
def test_a_tensor_made_of_a_tensor_is_a_leaf_of_its_own(make):
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    t = make(x * 2)
    assert t.is_leaf
    assert not t.requires_grad
    np.testing.assert_array_equal(t.numpy(), [2, 4])


# ---- getting values out


def test_numpy_is_a_copy():
    t = mg.tensor([1.0, 2.0])
    t.numpy()[0] = 9
    np.asarray(t)[1] = 9
    np.testing.assert_array_equal(t.numpy(), [1, 2])
    assert np.asarray(t, dtype=np.float64).dtype == np.float64


def test_one_value_comes_out_as_a_python_number():
    assert mg.tensor([[2.5]]).item() == 2.5
    assert type(mg.tensor(np.arange(1)).item()) is int
    assert float(mg.tensor(2.5)) == 2.5
    assert int(mg.tensor(2.5)) == 2
    assert bool(mg.tensor([1.0])) is True
    assert not mg.tensor(0.0)


@pytest.mark.parametrize("get", [lambda t: t.item(), float, int, bool])
def test_several_values_are_not_one_number(get):
    with pytest.raises(ValueError, match=re.escape("shape (2,) has 2 values, not 1")):
        get(mg.tensor([1.0, 2.0]))


def test_length_and_iteration_follow_the_first_axis():
    t = mg.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert len(t) == 3
    assert (t.ndim, t.size, t.shape) == (2, 6, (3, 2))
    np.testing.assert_array_equal([row.numpy() for row in t], t.numpy())


def test_a_scalar_has_no_length_and_cannot_be_iterated():
    for act in (len, iter):
        with pytest.raises(TypeError, match="has no length"):
            act(mg.tensor(1.0))


def test_iterating_is_differentiable():
    x = mg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    first, _, last = x
    (first * last).backward()
    np.testing.assert_array_equal(x.grad, [3, 0, 1])


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: mg.tensor([1.0, 2.5]), "tensor([1. , 2.5])"),
        (lambda: mg.tensor(np.arange(2)), "tensor([0, 1], dtype=int64)"),
        (lambda: mg.tensor(1.0, dtype=np.float64), "tensor(1., dtype=float64)"),
        (lambda: mg.tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (lambda: mg.tensor([1.0], requires_grad=True) * 2, "tensor([2.], op=mul)"),
    ],
)
def test_repr_shows_values_and_what_is_unusual(make, shown):
    assert repr(make()) == shown


def test_repr_of_a_large_tensor_is_short():
    assert len(repr(mg.tensor(np.zeros((100, 100))))) < 1000


# ---- arithmetic with other things


def test_comparisons_give_boolean_tensors():
    a, b = mg.tensor([1.0, 2.0, 3.0]), mg.tensor([3.0, 2.0, 1.0])
    expected = {
        "lt": [True, False, False],
        "le": [True, True, False],
        "gt": [False, False, True],
        "ge": [False, True, True],
        "eq": [False, True, False],
        "ne": [True, False, True],
    }
    for name, values in expected.items():
        result = getattr(a, f"__{name}__")(b)
        assert result.dtype == np.bool_
        assert not result.requires_grad
        np.testing.assert_array_equal(result.numpy(), values)
    np.testing.assert_array_equal((a > 1.5).numpy(), [False, True, True])
    np.testing.assert_array_equal((np.float32([2, 2, 2]) > a).numpy(), [True, False, False])


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_comparing_integers_does_not_round_the_other_side(dtype):
    labels = mg.tensor(np.arange(3, dtype=dtype))
    np.testing.assert_array_equal((labels < 0.5).numpy(), [True, False, False])
    np.testing.assert_array_equal((labels == 0.5).numpy(), [False] * 3)
    np.testing.assert_array_equal((labels < 300).numpy(), [True] * 3)
    np.testing.assert_array_equal((labels < np.full(3, 300)).numpy(), [True] * 3)


def test_tensors_are_hashed_by_identity():
    a, b = mg.tensor([1.0]), mg.tensor([1.0])
    assert {a: 1, b: 2}[a] == 1


def test_an_array_on_the_left_asks_the_tensor():
    t, array = mg.tensor([1.0, 2.0], requires_grad=True), np.float32([3, 4])
    for result, expected in (
        (array * t, [3, 8]),
        (array - t, [2, 2]),
        (array / t, [3, 2]),
        (array @ t, 11),
        (np.float64(3) * t, [3, 6]),
        (2**t, [2, 4]),
        (1 - t, [0, -1]),
    ):
        assert isinstance(result, mg.Tensor)
        assert result.requires_grad
        assert result.dtype == np.float32
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("number", [2, 2.0, True, np.float64(2), np.int64(2), np.float32(2)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_numbers_never_change_the_type(dtype, number):
    t = mg.tensor([1.0, 2.0], dtype=dtype)
    for result in (t + number, number - t, t * number, number / t, t**number, number**t):
        assert result.dtype == dtype


def test_mixed_float_widths_raise():
    a, b = mg.tensor([1.0]), mg.tensor([1.0], dtype=np.float64)
    words = (
        "mul: operand 0 (1,) is float32, operand 1 (1,) is float64: convert one with .astype(dtype)"
    )
    with pytest.raises(TypeError, match=re.escape(words)):
        a * b
    with pytest.raises(TypeError, match=r"add: operand 0 .* float32, operand 1 .* float64"):
        a + np.zeros(1)
    assert (a.astype(np.float64) * b).dtype == np.float64


def test_integers_are_for_indices_not_for_computing():
    with pytest.raises(TypeError, match="mul: int64 is not a type minigan computes in"):
        mg.tensor(np.arange(3)) * 2
    with pytest.raises(TypeError, match=r"mul: operand 0 .* int64"):
        mg.tensor(np.arange(3)) * 0.5


@pytest.mark.parametrize("other", ["a", None, object()])
def test_only_numbers_arrays_and_tensors_are_operands(other):
    words = f"expected a tensor, number or array, got {type(other).__name__}"
    with pytest.raises(TypeError, match=words):
        mg.tensor([1.0]) + other


def test_astype_is_differentiable_between_floats():
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    y = x.astype(np.float64)
    assert y.dtype == np.float64
    assert x.astype(np.float32) is x
    (y * y).sum().backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, [2, 4])
    assert x.astype(np.int64).dtype == np.int64
    with pytest.raises(TypeError, match="astype: float16"):
        x.astype(np.float16)


# ---- changes in place


def test_in_place_methods_change_the_memory_and_return_the_tensor():
    t = mg.tensor([1.0, 2.0])
    memory = t.data
    assert t.add_(1) is t
    assert t.mul_(np.float32([2, 3])) is t
    np.testing.assert_array_equal(t.numpy(), [4, 9])
    t[0] = 5
    t[t > 8] = mg.tensor(-1.0)
    np.testing.assert_array_equal(t.numpy(), [5, -1])
    t[mg.tensor(np.array([1]))] = 6
    np.testing.assert_array_equal(t.numpy(), [5, 6])
    np.testing.assert_array_equal(t.copy_([7, 8]).numpy(), [7, 8])
    np.testing.assert_array_equal(t.zero_().numpy(), [0, 0])
    assert t.data is memory
    assert t.dtype == np.float32


CHANGES = {
    "add_": lambda t: t.add_(1),
    "mul_": lambda t: t.mul_(2),
    "copy_": lambda t: t.copy_([1, 2]),
    "zero_": lambda t: t.zero_(),
    "setitem": lambda t: t.__setitem__(0, 1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_requires_a_gradient_is_changed_only_under_no_grad(name):
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    for target in (x, x * 2, x[0:2]):
        with pytest.raises(RuntimeError, match=f"{name}: .*do it under no_grad"):
            CHANGES[name](target)
    np.testing.assert_array_equal(x.numpy(), [1, 2])
    with mg.no_grad():
        CHANGES[name](x)
    assert x.requires_grad
    assert x.is_leaf


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda t: t.add_([1, 2, 3]), ValueError, "add_: (3,) does not broadcast to (2,)"),
        (lambda t: t.mul_(np.ones((2, 2))), TypeError, "mul_: float64 does not go into"),
        (lambda t: t.mul_([[1, 2]]), ValueError, "mul_: (1, 2) does not broadcast to (2,)"),
        (lambda t: t.copy_([1]), ValueError, "copy_: cannot copy (1,) into (2,)"),
        (lambda t: t.__setitem__(0, np.ones(1)), TypeError, "setitem: float64 does not go into"),
        (lambda t: setattr(t, "data", [1]), ValueError, "data: cannot put (1,) into a tensor"),
    ],
)
def test_in_place_changes_must_fit(change, error, words):
    t = mg.tensor([1.0, 2.0])
    with pytest.raises(error, match=re.escape(words)):
        change(t)
    np.testing.assert_array_equal(t.numpy(), [1, 2])


def test_a_fraction_does_not_go_into_integers():
    t = mg.tensor(np.arange(3))
    with pytest.raises(TypeError, match="add_: float32 does not go into a tensor of int64"):
        t.add_(0.5)
    np.testing.assert_array_equal(t.add_(2).numpy(), [2, 3, 4])


def test_data_can_be_replaced_by_an_array_of_the_same_shape():
    t = mg.tensor([1.0, 2.0])
    t.data = np.array([3.0, 4.0])
    assert t.dtype == np.float32
    np.testing.assert_array_equal(t.numpy(), [3, 4])


def test_a_computed_tensor_cannot_stop_requiring_a_gradient():
    y = mg.tensor([1.0], requires_grad=True) * 2
    with pytest.raises(RuntimeError, match=r"use detach\(\) instead"):
        y.requires_grad_(False)


# ---- devices and seeds


def test_to_the_same_device_is_the_tensor_itself():
    t = mg.tensor([1.0])
    assert t.device == "cpu"
    assert t.to("cpu") is t


@pytest.mark.parametrize(
    "ask",
    [lambda: mg.use("tpu"), lambda: mg.tensor(1.0, device="tpu"), lambda: mg.tensor(1.0).to("tpu")],
)
def test_an_unknown_device_is_named(ask):
    with pytest.raises(mg.DeviceError, match="device 'tpu' is unknown: choose 'cpu' or 'cuda'"):
        ask()
    assert mg.tensor(1.0).device == "cpu"


@pytest.mark.usefixtures("no_cupy")
@pytest.mark.parametrize(
    "ask",
    [
        lambda: mg.use("cuda"),
        lambda: mg.tensor(1.0, device="cuda"),
        lambda: mg.tensor(1.0).to("cuda"),
    ],
)
def test_cuda_without_cupy_says_what_to_install_and_changes_nothing(ask):
    with pytest.raises(mg.DeviceError, match=r"needs CuPy.*pip install 'cupy-cuda12x\[ctk\]'"):
        ask()
    assert mg.tensor(1.0).device == "cpu"


class _Elsewhere(np.ndarray):
    """Arrays of a pretended second device."""


def test_operands_on_different_devices_are_refused_by_name(monkeypatch):
    elsewhere = backend.Backend()
    elsewhere.name, elsewhere.array_type = "elsewhere", _Elsewhere
    elsewhere.from_host = lambda array: array.view(_Elsewhere)
    elsewhere.to_host = lambda array: array.view(np.ndarray)
    monkeypatch.setitem(backend._backends, "elsewhere", elsewhere)
    monkeypatch.setitem(backend._by_array_type, _Elsewhere, elsewhere)
    here, there = mg.tensor([1.0]), mg.tensor([1.0], device="elsewhere")
    assert there.device == "elsewhere"
    assert type(there.numpy()) is np.ndarray
    words = "add: operands are on different devices (operand 0 (1,) on cpu, operand 1 (1,) on else"
    with pytest.raises(mg.DeviceError, match=re.escape(words)):
        here + there
    assert (here + there.to("cpu")).item() == 2
    leaf = mg.tensor([1.0], requires_grad=True)
    assert leaf.to("elsewhere").requires_grad
    with pytest.raises(RuntimeError, match=r"to: .*detach\(\) first"):
        (leaf * 2).to("elsewhere")


def test_manual_seed_repeats_and_its_state_can_be_kept():
    mg.manual_seed(3)
    first = mg.generator().normal(size=5)
    state = mg.generator().bit_generator.state
    then = mg.generator().normal(size=5)
    mg.manual_seed(3)
    np.testing.assert_array_equal(mg.generator().normal(size=5), first)
    mg.generator().bit_generator.state = state
    np.testing.assert_array_equal(mg.generator().normal(size=5), then)
    mg.manual_seed(4)
    assert not np.array_equal(mg.generator().normal(size=5), first)
    with pytest.raises(ValueError, match="manual_seed: seed must not be negative, got -1"):
        mg.manual_seed(-1)


def test_manual_seed_repeats_across_processes():
    code = "import minigan as mg; mg.manual_seed(5); print(mg.generator().integers(10**9))"
    runs = {subprocess.check_output([sys.executable, "-c", code]) for _ in range(2)}
    assert len(runs) == 1


def test_an_unknown_attribute_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'minigan' has no attribute 'tensors'"):
        _ = mg.tensors
    assert mg.models.__name__ == "minigan.models"


def test_whole_numbers_can_be_moved_about_but_not_computed_with():
    labels = mg.tensor(np.array([3, 1, 2]))
    assert labels[np.array([2, 0])].numpy().tolist() == [2, 3]
    assert [int(label) for label in labels] == [3, 1, 2]
    assert labels.reshape(3, 1).shape == (3, 1)
    with pytest.raises(TypeError, match="mul: int64 is not a type minigan computes in"):
        labels * 2


def test_functions_answer_to_pytorchs_names_too():
    F = mg.functional
    x = mg.tensor(np.arange(6.0).reshape(2, 3))
    assert F.cat([x, x], 1).shape == (2, 6)
    assert F.unsqueeze(x, 0).shape == (1, 2, 3)
    assert F.permute(x, (1, 0)).shape == (3, 2)
    assert F.clamp(x, 1, 2).max().item() == 2
