"""The averaged copy of a network."""

import numpy as np
import pytest

from minigan import Tensor, manual_seed, nn
from minigan.ema import EMA


def network():
    manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def shift(net, by):
    for p in net.parameters():
        p.data += by
        p.bump_version()


def test_the_average_is_the_formula():
    net = network()
    ema, expected = EMA(net, decay=0.5), [p.numpy() for p in net.parameters()]
    for t in range(1, 20):
        shift(net, 1.0)
        decay = min(0.5, (1 + t) / (10 + t))
        expected = [
            decay * e + (1 - decay) * p.numpy()
            for e, p in zip(expected, net.parameters(), strict=True)
        ]
        ema.update()
    for average, e in zip(ema.module.parameters(), expected, strict=True):
        np.testing.assert_allclose(average.numpy(), e, rtol=1e-6)
        assert average.dtype == np.float32
        assert not average.requires_grad


def test_the_copy_shares_nothing_and_copies_running_statistics():
    net = network()
    ema = EMA(net)
    net(Tensor(np.random.default_rng(0).normal(size=(8, 3)) + 5))
    means = {n: b.numpy() for n, b in net.named_buffers()}
    assert any((b.numpy() != means[n]).any() for n, b in ema.module.named_buffers())
    ema.update()
    for n, b in ema.module.named_buffers():
        np.testing.assert_array_equal(b.numpy(), means[n])
    assert net.training
    assert not ema.module.training
    assert all(p.requires_grad for p in net.parameters())


def test_its_state_goes_on_exactly():
    net = network()
    ema = EMA(net, 0.9)
    for _ in range(5):
        shift(net, 0.1)
        ema.update()
    other = EMA(net, 0.9)
    other.load_state_dict(ema.state_dict())
    shift(net, 0.1)
    ema.update()
    other.update()
    assert other.updates == 6
    for a, b in zip(ema.module.parameters(), other.module.parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_what_is_no_state_is_refused_and_nothing_changes():
    ema = EMA(network())
    before = ema.state_dict()
    good = ema.state_dict()
    for wrong in ({}, {**good, "updates": "3"}, {**good, "updates": True}, {**good, "module": {}}):
        with pytest.raises(ValueError, match="load_state_dict"):
            ema.load_state_dict(wrong)
    assert ema.updates == before["updates"]
    for decay in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="decay must be in"):
            EMA(network(), decay)
