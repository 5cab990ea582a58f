"""The Module protocol: names, states, lists, copies."""

import copy

import numpy as np
import pytest
from test_nn import IMAGE, draw

import minigan as mg
from minigan import functional as F
from minigan import nn


@pytest.fixture(autouse=True)
def seeded():
    mg.manual_seed(0)


# ---- the Module protocol


class Block(nn.Module):
    def __init__(self):
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.scale = nn.Parameter([2.0])
        self.note = "not a parameter"

    def forward(self, x):
        return self.norm(self.conv(x)) * self.scale


class Net(nn.Module):
    def __init__(self):
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(256, 2))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


BLOCK = ["scale", "conv.weight", "conv.bias", "norm.weight", "norm.bias"]
BUFFERS = ["norm.running_mean", "norm.running_var"]


def test_names_of_parameters_and_buffers():
    net = Net()
    parameters = [f"blocks.{i}.{name}" for i in range(2) for name in BLOCK]
    parameters += ["head.2.weight", "head.2.bias"]
    buffers = [f"blocks.{i}.{name}" for i in range(2) for name in BUFFERS]
    assert [name for name, _ in net.named_parameters()] == parameters
    assert [name for name, _ in net.named_buffers()] == buffers
    assert list(net.state_dict()) == parameters + buffers
    assert len(net.parameters()) == len(parameters)
    assert all(p.requires_grad and isinstance(p, nn.Parameter) for p in net.parameters())
    assert not any(b.requires_grad for b in net.buffers())
    names = ["", "blocks", "blocks.0", "blocks.0.conv", "blocks.0.norm"]
    assert [name for name, _ in net.named_modules()][:5] == names


def test_repr_shows_the_tree():
    assert repr(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU()))) == (
        "Sequential(\n"
        "  (0): Linear(weight (2, 3), bias)\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "  )\n"
        ")"
    )


def test_train_and_eval_reach_every_module():
    net = Net()
    assert net.training
    assert net.eval() is net
    assert not any(m.training for _, m in net.named_modules())
    net.blocks[1].train()
    assert not net.training
    net.train()
    assert all(m.training for _, m in net.named_modules())


def test_apply_visits_children_first_and_self_last():
    net, seen = Net(), []
    assert net.apply(seen.append) is net
    assert seen[0] is net.blocks[0].conv
    assert seen[-1] is net
    assert len(seen) == len(list(net.named_modules()))


def test_zero_grad_and_requires_grad_():
    net, x = Net(), draw(IMAGE)
    net(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert net.requires_grad_(False) is net
    assert not net(x).requires_grad
    assert net.requires_grad_()(x).requires_grad


def test_state_dict_is_a_copy_and_round_trips():
    mg.manual_seed(0)
    a, b = Net(), Net()
    x = draw(IMAGE)
    a(x)
    state = a.state_dict()
    assert all(type(v) is np.ndarray for v in state.values())
    b.load_state_dict(state)
    np.testing.assert_array_equal(a.eval()(x).numpy(), b.eval()(x).numpy())
    for array in state.values():
        array[...] = 77
    assert not np.any(a.head[2].weight.numpy() == 77)
    assert not np.any(b.head[2].weight.numpy() == 77)


def test_loading_keeps_type_identity_and_optimisers_memory():
    layer = nn.Linear(2, 2)
    weight, memory = layer.weight, layer.weight.data
    layer.load_state_dict({"weight": np.eye(2), "bias": np.arange(2)})
    assert layer.weight is weight
    assert layer.weight.data is memory
    assert layer.weight.dtype == np.float32
    np.testing.assert_array_equal(memory, np.eye(2))


def test_loading_is_a_change_in_place():
    layer, x = nn.Linear(2, 2), draw((3, 2))
    x.requires_grad_()
    y = layer(x).sum()
    layer.load_state_dict(layer.state_dict())
    with pytest.raises(RuntimeError, match="was changed in place"):
        y.backward()


def test_load_state_dict_lists_everything_wrong_and_leaves_the_module():
    layer = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = layer.state_dict()
    state = {
        **before,
        "0.bias": np.zeros(4),
        "1.running_var": np.array(["a", "b", "c"]),
        "1.weight": np.full(3, 9.0),
        "extra": np.zeros(1),
    }
    del state["0.weight"]
    with pytest.raises(ValueError, match="load_state_dict: Sequential cannot take it") as caught:
        layer.load_state_dict(state)
    assert str(caught.value).splitlines()[1:] == [
        "  missing: 0.weight (2, 3)",
        "  unexpected: extra",
        "  shape: 0.bias is (4,), expected (3,)",
        "  type: 1.running_var is <U1, expected float32",
    ]
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_shared_parameters_are_listed_and_loaded_once():
    class Tied(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight
            self.again = self.a

    tied = Tied()
    assert [name for name, _ in tied.named_parameters()] == ["a.weight", "a.bias", "b.bias"]
    tied.load_state_dict({"a.weight": np.eye(3), "a.bias": np.ones(3), "b.bias": np.zeros(3)})
    assert tied.b.weight is tied.a.weight
    np.testing.assert_array_equal(tied.b.weight.numpy(), np.eye(3))


@pytest.mark.parametrize("wrap", [list, tuple, lambda items: {"a": items[0]}])
@pytest.mark.parametrize("make", [nn.ReLU, lambda: nn.Parameter([1.0])])
def test_a_plain_list_of_modules_or_parameters_is_refused(wrap, make):
    class Lost(nn.Module):
        def __init__(self):
            self.parts = wrap([make(), make()])

    with pytest.raises(TypeError, match=r"Lost.parts: .*would not be trained.*use nn.ModuleList"):
        Lost()


def test_plain_lists_of_other_things_are_fine():
    m = nn.Module()
    m.sizes, m.names, m.empty = [1, 2], ("a",), []
    assert m.sizes == [1, 2]


def test_module_list_and_sequential_are_lists():
    layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)]
    for container in (nn.ModuleList(layers), nn.ModuleList(*layers), nn.Sequential(*layers)):
        assert len(container) == 3
        assert list(container) == layers
        assert container[0] is layers[0]
        assert container[-1] is layers[-1]
        assert len(container.parameters()) == 4
    container.append(nn.Tanh())
    x = draw((4, 2))
    expected = F.tanh(layers[2](F.relu(layers[0](x))))
    np.testing.assert_array_equal(container(x).numpy(), expected.numpy())
    assert len(nn.ModuleList()) == 0
    assert nn.Sequential()(x) is x
    with pytest.raises(TypeError, match="ModuleList: 3 is not a Module"):
        nn.ModuleList([3])


def test_a_module_without_forward_says_so():
    class Half(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Half: forward is not written"):
        Half()(draw((1,)))


def test_a_copied_module_works_and_is_its_own():
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    twin = copy.deepcopy(module)
    x = mg.tensor(np.random.default_rng(0).normal(size=(5, 3)))
    assert np.array_equal(module(x).numpy(), twin(x).numpy())
    with mg.no_grad():
        twin[0].weight.zero_()
    assert module[0].weight.numpy().any()
    twin(x).sum().backward()
    assert module[0].weight.grad is None


def test_children_modules_and_slices_are_as_in_pytorch():
    module = nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.ReLU(), nn.Tanh()))
    assert [type(m).__name__ for m in module.children()] == ["Linear", "Sequential"]
    assert [name for name, _ in module.named_children()] == ["0", "1"]
    assert len(list(module.modules())) == 5
    first = module[:1]
    assert isinstance(first, nn.Sequential)
    assert first(mg.tensor(np.ones((1, 3)))).shape == (1, 2)
