"""Wrong backward rules are noticed: every mutant of every op and of the engine is caught."""

import json
import re

import numpy as np
import pytest

import minigan as mg
from minigan import autograd
from minigan.ops import activation, arithmetic, conv, linalg, norm, pool, reduction, shape
from minigan.specs import mutants
from minigan.specs.kinks import KINKS, check_kink
from minigan.specs.mutants_base import BACKWARD, Mutant, Watch, every_op, spoiled
from minigan.specs.mutants_images import IMAGES
from minigan.specs.mutants_ops import ONLY_FUSED, SPECIFIC

LEAST = 40  # mutants of an op that change something
MODULES = [activation, arithmetic, autograd, conv, linalg, norm, pool, reduction, shape]


def everything():
    """The attributes of all ops, of the engine's classes, and of the modules they stand in."""
    owners = [*every_op(), mg.Op, mg.Tensor, autograd._Sum, *MODULES]
    return {id(owner): dict(vars(owner)) for owner in owners}


@pytest.mark.parametrize("target", mutants.targets())
def test_every_mutant_is_caught(target):
    before = everything()
    report = mutants.run_mutants([target])
    assert everything() == before  # the mutants are undone
    assert not report.of("survived"), mutants.describe(report)
    assert report.tried >= (20 if target == mutants.ENGINE else LEAST)
    listed = {key for key in mutants.EQUIVALENT if key[0] == target}
    assert {(o.target, o.mutant) for o in report.of("equivalent")} == listed  # none is stale
    assert {o.verdict for o in report.outcomes} <= {"caught", "equivalent", "idle"}


def test_there_are_over_a_thousand():
    assert LEAST * len(every_op()) > 1000
    assert len(mutants.targets()) == len(every_op()) + 1


def test_what_is_listed_is_there():
    """Names of ops in the tables, and of mutants in the list of equivalents."""
    names = {op.__name__ for op in every_op()}
    assert set(SPECIFIC) == names - {"Neg"}  # in which nothing is left to be wrong
    assert set(ONLY_FUSED) == {op.__name__ for op in every_op() if hasattr(op, "fused_backward")}
    assert set(IMAGES) <= names
    assert {kink.op for kink in KINKS} <= names
    for target, name in mutants.EQUIVALENT:
        assert name in {mutant.name for mutant in mutants.mutants_of(target)}
    assert all(len(reason) > 40 for reason in mutants.EQUIVALENT.values())


@pytest.mark.parametrize("target", mutants.targets())
def test_names_are_given_once(target):
    names = [mutant.name for mutant in mutants.mutants_of(target)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kink", KINKS, ids=lambda kink: kink.op)
def test_the_slope_at_a_kink(kink):
    check_kink(kink)


def a_mutant(change):
    """Mul with the gradient of its first input changed."""

    def rule(call):
        gradients = call.run()
        if gradients[0] is not None:
            gradients[0] = change(gradients[0])
        return gradients

    return Mutant("Mul", "made here", spoiled(arithmetic.Mul, BACKWARD, rule))


def test_a_mutant_is_wrong_within_its_context_only():
    x = mg.tensor([2.0], requires_grad=True)
    watch = Watch()
    with a_mutant(lambda g: g * 3.0).applied(watch):
        (x * mg.tensor([5.0])).backward()
    assert x.grad == 15
    assert watch.touched
    x.grad = None
    (x * mg.tensor([5.0])).backward()
    assert x.grad == 5


def test_a_mutant_that_changes_nothing_is_not_counted():
    outcome = mutants.try_mutant(a_mutant(lambda g: g), mutants.cases_for("Mul")[:4])
    assert outcome.verdict == "idle"
    assert mutants.Report((outcome,), 0.0).tried == 0


def test_a_mutant_is_undone_after_an_error():
    right = arithmetic.Mul.__dict__.get("backward")
    x = mg.tensor([2.0], requires_grad=True)
    y = x * x
    with pytest.raises(ZeroDivisionError), a_mutant(lambda g: 1 / 0).applied(Watch()):
        y.backward()
    assert arithmetic.Mul.__dict__.get("backward") is right


def test_checks_that_see_nothing_let_mutants_survive(monkeypatch, capsys):
    monkeypatch.setattr(mutants, "TOUCHED", 1)
    for part in mutants.ORDER:
        monkeypatch.setitem(mutants.PARTS, part, lambda case, explain=False: None)
    assert mutants.main(["--op", "Neg"]) == 1
    printed = capsys.readouterr().out
    assert "SURVIVED: Neg, gradient of input 0: sign" in printed
    assert "0 caught, 0 equivalent" in printed


def test_ones_for_a_cotangent_would_be_blind(monkeypatch):
    """Why the cotangent is random: under ones a softmax whose gradient is zero goes unseen."""
    name = "gradient of input 0: zero"
    (mutant,) = (m for m in mutants.mutants_of("Softmax") if m.name == name)
    case = next(c for c in mutants.cases_for("Softmax") if c.name == "softmax" and len(c.inputs[0]))
    assert mutants.caught_by(mutant, case, "gradient") == "gradient"
    monkeypatch.setitem(
        mutants.PARTS["gradient"].__globals__, "bounded", lambda random, shape: np.ones(shape)
    )
    assert mutants.caught_by(mutant, case, "gradient") == ""


def test_the_command_prints_json(capsys):
    assert mutants.main(["--op", "Neg", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    outcomes = {outcome["mutant"]: outcome for outcome in report["outcomes"]}
    assert outcomes["gradient of input 0: sign"]["by"] == "gradient"
    assert outcomes["gradient of input 0: detached"]["by"] == "second_order"
    assert outcomes["gradient of input 0: flat"]["by"] == mutants.ENGINE_SAYS


def test_the_report_says_how_many_by_what_and_which_are_equivalent(capsys):
    assert mutants.main(["--op", "Relu", "--op", "Neg"]) == 0
    printed = capsys.readouterr().out
    outcomes = mutants.run_mutants(["Relu", "Neg"])
    by = re.findall(r"^ +(\d+)  (.*)$", printed, re.M)
    assert {part: int(count) for count, part in by} == outcomes.by_part()
    key = ("Relu", "backward: saved array 0: detached")
    assert f"equivalent: {', '.join(key)}\n  {mutants.EQUIVALENT[key]}\n" in printed
    last = re.search(
        r"(\d+) mutants tried in \d+ s: (\d+) caught, 2 equivalent, 0 survived\n"
        r"\((\d+) more are not counted: they never gave anything else",
        printed,
    )
    tried, caught, idle = map(int, last.groups())
    assert tried == outcomes.tried == caught + 2
    assert caught == sum(int(count) for count, _ in by)
    assert idle == len(outcomes.of("idle")) > 0


def test_a_stale_graph_is_noticed_and_so_is_a_step_that_is_not_counted():
    report = mutants.run_mutants([mutants.ENGINE])
    by = {outcome.mutant: outcome.by for outcome in report.outcomes}
    assert by["stale saved arrays read"] == "stale"
    assert by["changes in place not counted"] == "stale"


def test_an_op_that_is_not_there():
    with pytest.raises(ValueError, match="no op is called Nul"):
        mutants.run_mutants(["Nul"])
