"""Batches, and the way from bytes to the unit interval and back."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigan.data import Batches, to_bytes, to_unit

# ----------------------------------------------------------------------------------------- batches


@given(
    count=st.integers(1, 30),
    batch_size=st.integers(1, 30),
    seed=st.integers(0, 2**40),
    epochs=st.integers(1, 3),
)
def test_every_epoch_is_a_permutation_without_its_last_part(count, batch_size, seed, epochs):
    batch_size = min(batch_size, count)
    batches = Batches(count, batch_size, seed)
    per_epoch = count // batch_size
    assert batches.batches_per_epoch == per_epoch
    for epoch in range(epochs):
        seen = []
        for _ in range(per_epoch):
            assert batches.epoch == epoch
            batch = next(batches)
            assert batch.dtype == np.int64
            assert batch.shape == (batch_size,)
            seen.extend(batch.tolist())
        assert len(set(seen)) == len(seen) == per_epoch * batch_size
        assert set(seen) <= set(range(count))
    assert batches.epoch == epochs


@given(
    count=st.integers(1, 20),
    batch_size=st.integers(1, 20),
    seed=st.integers(0, 2**40),
    other_seed=st.integers(0, 2**40),
)
@settings(deadline=None)
def test_resumes_exactly_at_every_cut(count, batch_size, seed, other_seed):
    batch_size = min(batch_size, count)
    total = 3 * (count // batch_size) + 1  # past three edges of epochs
    whole, states = [], []
    batches = Batches(count, batch_size, seed)
    for _ in range(total):
        states.append(json.dumps(batches.state_dict()))
        whole.append((batches.epoch, next(batches).tolist()))
    for cut, state in enumerate(states):
        resumed = Batches(count, batch_size, other_seed)
        for _ in range(cut % 3):
            next(resumed)  # wherever it was before
        resumed.load_state_dict(json.loads(state))
        assert json.dumps(resumed.state_dict()) == state
        rest = [(resumed.epoch, next(resumed).tolist()) for _ in range(total - cut)]
        assert rest == whole[cut:]


def test_epochs_differ_and_seeds_differ_and_a_seed_repeats():
    first = [next(b).tolist() for b in [Batches(100, 100, 7)] for _ in range(2)]
    assert first[0] != first[1]
    assert next(Batches(100, 100, 7)).tolist() == first[0]
    assert next(Batches(100, 100, 8)).tolist() != first[0]


def test_changing_a_batch_does_not_change_the_state():
    changed, kept = Batches(6, 3, 0), Batches(6, 3, 0)
    next(changed)[:] = -1
    next(kept)
    assert next(changed).tolist() == next(kept).tolist()


def test_a_state_does_not_move_with_its_batches():
    batches = Batches(10, 2, 0)
    state = batches.state_dict()
    before = json.dumps(state)
    for _ in range(11):
        next(batches)
    assert json.dumps(state) == before


def test_batches_are_endless_in_a_for_loop():
    for step, batch in enumerate(Batches(3, 2, 0)):
        assert batch.shape == (2,)
        if step == 20:
            break
    assert step == 20


@pytest.mark.parametrize(
    ("count", "batch_size", "seed", "error", "words"),
    [
        (3, 4, 0, ValueError, "batch_size is 4 but must be in 1 to count, which is 3"),
        (3, 0, 0, ValueError, "batch_size is 0"),
        (0, 1, 0, ValueError, "count, which is 0"),
        (3, 1, -1, ValueError, "seed is -1 but must be 0 or more"),
        (3.0, 1, 0, TypeError, "integer"),
        (3, 1.0, 0, TypeError, "integer"),
        (3, 1, None, TypeError, "integer"),
    ],
)
def test_unfit_batches_are_refused(count, batch_size, seed, error, words):
    with pytest.raises(error, match=words):
        Batches(count, batch_size, seed)


def good_state():
    batches = Batches(10, 3, 5)
    next(batches)
    return batches.state_dict()


def with_rng(**changes):
    rng = good_state()["rng"]
    return {"rng": {**rng, "state": {**rng["state"], **changes}}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": 11}, "of count 11 but this object has count 10"),
        ({"batch_size": 2}, "of batch_size 2 but this object has batch_size 3"),
        ({"epoch": -1}, "epoch is -1"),
        ({"epoch": 1.0}, "epoch is 1.0"),
        ({"cursor": 4}, "cursor is 4 but must be a multiple of 3 below 9"),
        ({"cursor": 9}, "cursor is 9"),
        ({"cursor": -3}, "cursor is -3"),
        ({"cursor": "3"}, "cursor is '3'"),
        ({"cursor": True}, "cursor is True"),
        ({"rng": None}, "no state of PCG64"),
        ({"rng": {}}, "no state of PCG64"),
        ({"rng": {"bit_generator": "MT19937"}}, "no state of PCG64"),
        (with_rng(state="x"), "no state of PCG64"),
        (with_rng(state=-1), "no state of PCG64"),
        (with_rng(state=2**128), "no state of PCG64"),
        ({"extra": 1}, "must have"),
    ],
)
def test_an_unfit_state_is_refused_and_nothing_changes(changes, words):
    batches, untouched = Batches(10, 3, 5), Batches(10, 3, 5)
    next(batches), next(untouched)
    with pytest.raises(ValueError, match=f"^Batches: .*{words}"):
        batches.load_state_dict({**good_state(), **changes})
    assert [next(batches).tolist() for _ in range(7)] == [
        next(untouched).tolist() for _ in range(7)
    ]


@pytest.mark.parametrize("state", [None, [], {}, {"count": 10}])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ValueError, match="Batches: the state has"):
        Batches(10, 3, 5).load_state_dict(state)


# -------------------------------------------------------------------------- bytes and unit interval


def test_bytes_survive_the_round_trip():
    every = np.arange(256, dtype=np.uint8).reshape(2, 8, 16, 1)
    unit = to_unit(every)
    assert unit.dtype == np.float32
    assert unit.min() == -1
    assert unit.max() == 1
    assert np.array_equal(to_bytes(unit), every)
    assert to_bytes(unit).dtype == np.uint8


def test_to_bytes_rounds_and_clips():
    assert to_bytes(np.array([-9.0, -1.0, 0.0, 1.0, 1e38])).tolist() == [0, 0, 128, 255, 255]
    assert to_bytes(np.array([0.4, 0.6]) / 127.5 - 1).tolist() == [0, 1]


def test_to_bytes_takes_a_tensor():
    class FakeTensor:
        def numpy(self):
            return np.zeros(2, np.float32)

    assert to_bytes(FakeTensor()).tolist() == [128, 128]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_to_bytes_refuses_what_no_byte_stands_for(bad):
    with pytest.raises(ValueError, match="to_bytes: images hold 1 values that are NaN or infinite"):
        to_bytes(np.array([0.0, bad], np.float32))


def test_conversions_refuse_each_others_input():
    with pytest.raises(ValueError, match=r"to_unit: images have dtype float32.*must be uint8"):
        to_unit(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"to_bytes: images have dtype uint8.*must be floats"):
        to_bytes(np.zeros(3, np.uint8))
