"""Keeping and finding checkpoints of a run: the newest, older ones, the best; all or nothing."""

import os

import numpy as np
import pytest

import minigan as mg
from minigan import nn, optim, training
from minigan.training import CheckpointError, DivergenceError, Run, load_checkpoint


def make_parts(width=3):
    mg.manual_seed(0)
    net = nn.Linear(2, width)
    return {"net": net, "adam": optim.Adam(net.parameters())}


def train(out, steps, parts=None, resume=False, keep=2, metric=None, every=1):
    parts = parts or make_parts()
    run = Run(out, {}, total_steps=steps, resume=resume)
    first = training.resume(run, parts) if resume else 0
    for step in run.steps(first):
        (parts["net"](mg.Tensor(np.ones((4, 2)))) ** 2).mean().backward()
        parts["adam"].step()
        parts["adam"].zero_grad()
        run.log(step, loss=float(step))
        if run.due(step, every):
            best = None if metric is None else {"mse": metric[step - 1]}
            training.save(run, parts, step, keep=keep, best=best)
    return parts


def kept(out):
    names = (p.name for p in out.iterdir() if p.suffix == ".npz")
    return {name: load_checkpoint(out / name)["run"]["step"] for name in names}


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_the_last_ones_are_kept(tmp_path, keep):
    train(tmp_path, 6, keep=keep)
    older = {f"checkpoint-{i}.npz": 6 - i for i in range(1, keep)}
    assert kept(tmp_path) == {"checkpoint.npz": 6, **older}
    assert not list(tmp_path.glob(".*"))


def test_the_best_is_kept(tmp_path):
    train(tmp_path, 6, metric=[5, 3, 4, 2, 2, 9])
    assert kept(tmp_path) == {"checkpoint.npz": 6, "checkpoint-1.npz": 5, "best.npz": 4}
    assert load_checkpoint(tmp_path / "checkpoint.npz")["run"]["best"] == {"mse": 2.0, "step": 4}
    train(tmp_path, 8, resume=True, metric=[0] * 6 + [2.5, 1])
    assert kept(tmp_path)["best.npz"] == 8


def test_a_worse_metric_after_going_on_does_not_take_the_bests_place(tmp_path):
    train(tmp_path, 3, metric=[5, 1, 4])
    train(tmp_path, 5, resume=True, metric=[0, 0, 0, 3, 2])
    assert kept(tmp_path)["best.npz"] == 2


def test_a_best_that_was_not_renamed_in_time_is_made_good(tmp_path):
    train(tmp_path, 3, metric=[3, 2, 1])
    os.replace(tmp_path / "checkpoint-1.npz", tmp_path / "best.npz")  # as if killed before
    train(tmp_path, 3, resume=True)
    assert kept(tmp_path)["best.npz"] == 3


def test_an_older_one_takes_over_and_says_so_loudly(tmp_path, capsys):
    whole = train(tmp_path / "whole", 8)
    train(tmp_path / "cut", 5)
    damage(tmp_path / "cut" / "checkpoint.npz")
    capsys.readouterr()
    cut = train(tmp_path / "cut", 8, resume=True)
    said = capsys.readouterr().err
    assert "checkpoint.npz" in said
    assert "GOING ON FROM THE OLDER" in said
    assert "checkpoint-1.npz" in said
    assert "damaged-1.npz" in said
    for a, b in zip(whole["net"].parameters(), cut["net"].parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert (tmp_path / "whole" / "log.jsonl").read_bytes() == (
        tmp_path / "cut" / "log.jsonl"
    ).read_bytes()
    assert (tmp_path / "cut" / "damaged-1.npz").exists()


def test_a_good_older_one_is_not_pushed_out_by_a_damaged_one(tmp_path):
    train(tmp_path, 5)
    damage(tmp_path / "checkpoint.npz")
    parts = make_parts()
    run = Run(tmp_path, {}, total_steps=9, resume=True)
    assert training.resume(run, parts) == 4
    training.save(run, parts, 5)
    assert kept_good(tmp_path) == {
        "checkpoint.npz": 5,
        "checkpoint-1.npz": 4,
    }


def test_a_gap_in_the_row_hides_nothing(tmp_path):
    train(tmp_path, 6, keep=4)
    for name in ("checkpoint.npz", "checkpoint-2.npz"):
        damage(tmp_path / name)
    (tmp_path / "checkpoint-1.npz").unlink()
    (tmp_path / "checkpoint-mine.npz").write_text("not a number")
    run = Run(tmp_path, {}, total_steps=9, resume=True)
    assert training.resume(run, make_parts()) == 3
    assert sorted(path.name for path in tmp_path.glob("damaged*")) == [
        "damaged-1.npz",
        "damaged-2.npz",
    ]


def kept_good(out):
    found = {}
    for path in out.glob("checkpoint*.npz"):
        found[path.name] = load_checkpoint(path)["run"]["step"]
    return found


def test_when_all_are_damaged_the_newest_is_named_and_nothing_changes(tmp_path):
    train(tmp_path, 5)
    for name in ("checkpoint.npz", "checkpoint-1.npz"):
        damage(tmp_path / name)
    before, parts = sorted(os.listdir(tmp_path)), make_parts()
    weight = parts["net"].weight.numpy()
    run = Run(tmp_path, {}, total_steps=9, resume=True)
    with pytest.raises(CheckpointError) as caught:
        training.resume(run, parts)
    assert caught.value.path.name == "checkpoint.npz"
    assert sorted(os.listdir(tmp_path)) == before
    np.testing.assert_array_equal(parts["net"].weight.numpy(), weight)


def test_a_missing_newest_is_said(tmp_path, capsys):
    train(tmp_path, 5)
    (tmp_path / "checkpoint.npz").unlink()
    assert training.resume(Run(tmp_path, {}, 9, resume=True), make_parts()) == 4
    assert "there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize("failing", ["net", "adam", "last", "log"])
def test_whatever_fails_nothing_was_changed(tmp_path, failing, monkeypatch):
    class Last:
        def state_dict(self):
            return {"n": 1}

        def load_state_dict(self, state):
            raise ValueError("not today")

    parts = {**make_parts(), "last": Last()}
    Last.load_state_dict, refuse = lambda self, state: None, Last.load_state_dict
    train(tmp_path, 3, parts=parts)
    fresh = {**make_parts(), "last": Last()}
    before = {name: part.state_dict() for name, part in fresh.items()}
    random = mg.generator().bit_generator.state
    run = Run(tmp_path, {}, total_steps=9, resume=True)
    if failing == "log":
        (tmp_path / "log.jsonl").write_text("nonsense\n")
        error = training.RunError
    else:
        real, calls = type(fresh[failing]).load_state_dict, []

        def load(self, state):
            calls.append(1)
            return refuse(self, state) if len(calls) == 1 else real(self, state)

        monkeypatch.setattr(type(fresh[failing]), "load_state_dict", load)
        error = CheckpointError
    with pytest.raises(error):
        training.resume(run, fresh)
    assert repr({n: p.state_dict() for n, p in fresh.items()}) == repr(before)
    assert mg.generator().bit_generator.state == random


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    parts = train(tmp_path, 3)
    before = (tmp_path / "checkpoint.npz").read_bytes()
    parts["net"].weight.data[0, 1] = np.inf
    run = Run(tmp_path, {}, total_steps=9, resume=True)
    with pytest.raises(DivergenceError, match=r"step 4: net/weight holds 1 numbers .* of 6"):
        training.save(run, parts, 4)
    parts = make_parts()
    with pytest.raises(DivergenceError, match="step 4: mse holds"):
        training.save(run, parts, 4, best={"mse": float("nan")})
    assert (tmp_path / "checkpoint.npz").read_bytes() == before


def test_an_op_that_diverges_is_named_with_its_step(tmp_path):
    def loop(**options):
        run = Run(tmp_path, {}, total_steps=5, **options)
        for step in run.steps():
            x = mg.Tensor(np.full(3, 4.0 - step)).log()
            run.log(step, x=x.sum().item())

    with np.errstate(all="ignore"), pytest.raises(mg.AnomalyError, match=r"^step 4: log forward"):
        loop()
    with np.errstate(all="ignore"), pytest.raises(DivergenceError, match=r"^step 4: x is"):
        loop(anomaly=False)


def test_a_log_that_lost_lines_is_said_and_training_goes_on(tmp_path, capsys):
    train(tmp_path, 5)
    (tmp_path / "log.jsonl").unlink()
    assert training.resume(Run(tmp_path, {}, 9, resume=True), make_parts()) == 5
    assert "the curves will have a gap" in capsys.readouterr().err


def test_two_runs_at_once_in_one_directory(tmp_path):
    run = Run(tmp_path, {}, total_steps=3)
    with pytest.raises(training.RunError, match="another run is writing"):
        Run(tmp_path, {}, total_steps=3)
    for step in run.steps():
        run.log(step, x=1)
    second = Run(tmp_path, {}, total_steps=3)  # the first has ended
    with pytest.raises(training.RunError, match="another run is writing"):
        run.write_metrics({"mse": 1})
    assert not second.path("metrics.json").exists()
