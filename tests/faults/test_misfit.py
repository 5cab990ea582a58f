"""Sound checkpoints of something else: the first thing that differs is named, nothing changes."""

import json
import signal

import numpy as np
import pytest
import tiny_gan
from harness import cases, flat, forge_manifest, members_of, npy, seal, train

from minigan import generator, manual_seed, optim, training
from minigan.training import CheckpointError, Run, load_checkpoint, save_checkpoint

WEIGHT = "g/0.weight"


@pytest.fixture
def out(tmp_path):
    train(tmp_path, "--steps", 2)
    return tmp_path


def make_parts(width=4):
    manual_seed(9)
    g, d = tiny_gan.make_networks(tiny_gan.parse_flags(["--width", str(width)]))
    return {"g": g, "d": d, "adam_g": optim.Adam(g.parameters())}


@pytest.fixture
def small(tmp_path):
    """A run whose checkpoint has three parts."""
    run = Run(tmp_path, {}, total_steps=9)
    for step in run.steps():
        training.save(run, make_parts(), step)
        break
    return tmp_path


def refused(out, *words, parts=None):
    """Resuming fails, names the words, and leaves parts and random numbers as they were."""
    parts = parts or make_parts()
    before = flat({n: p.state_dict() for n, p in parts.items()})
    state = generator().bit_generator.state
    run = Run(out, {}, total_steps=9, resume=True)
    with pytest.raises(CheckpointError) as caught:
        training.resume(run, parts)
    for word in (str(out / "checkpoint.npz"), *words):
        assert word in str(caught.value)
    assert flat({n: p.state_dict() for n, p in parts.items()}) == before
    assert generator().bit_generator.state == state


def rewrite(out, change):
    """Change the state in a checkpoint, which stays a sound file."""
    state = load_checkpoint(out / "checkpoint.npz")
    change(state)
    save_checkpoint(out / "checkpoint.npz", state)


def rename(part, old, new):
    part[new] = part.pop(old)


CHANGES = {
    "missing array": (lambda s: s["g"].pop("0.weight"), ("g/0.weight", "missing")),
    "extra array": (lambda s: s["g"].update(more=np.zeros(1)), ("g/more", "unexpected")),
    "renamed array": (lambda s: rename(s["g"], "0.bias", "0.bios"), ("g/0.bias", "missing")),
    "missing part": (lambda s: s.pop("d"), ("parts", "missing ['d']")),
    "extra part": (lambda s: s.update(ema={"n": 1}), ("parts", "unexpected ['ema']")),
    "reshaped array": (
        lambda s: s["g"].update({"0.weight": s["g"]["0.weight"].T.copy()}),
        (WEIGHT, "(36, 4)", "(4, 36)"),
    ),
    "retyped array": (
        lambda s: s["g"].update({"0.weight": s["g"]["0.weight"].astype(np.float64)}),
        (WEIGHT, "float64", "float32"),
    ),
    "an integer array": (
        lambda s: s["g"].update({"0.weight": np.ones((4, 36), np.int32)}),
        (WEIGHT, "int32", "float32"),
    ),
    "text for an array": (lambda s: s["g"].update({"0.weight": "x"}), (WEIGHT, "is str")),
    "an array for a part": (lambda s: s.update(g=np.zeros(3)), ("g", "float64 (3,)", "dict")),
    "NaN in an array": (
        lambda s: s["g"]["0.weight"].__setitem__((0, 0), np.nan),
        (WEIGHT, "NaN or infinite"),
    ),
    "infinity in Adam's memory": (
        lambda s: s["adam_g"]["v.0"].__setitem__((0, 0), np.inf),
        ("adam_g/v.0", "NaN or infinite"),
    ),
    "Adam's steps as text": (lambda s: s["adam_g"].update(steps="2"), ("adam_g/steps", "is str")),
    "Adam's counts cut short": (lambda s: s["adam_g"]["updates"].pop(), ("adam_g/updates", "list")),
    "no step": (lambda s: s["run"].pop("step"), ("run/step", "missing")),
    "a step as text": (lambda s: s["run"].update(step="2"), ("run/step", "expected int")),
    "no run": (lambda s: s.update(run=3), ("run", "expected a dict")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_state_that_does_not_fit(small, name):
    """Missing, extra, renamed, reshaped, retyped, non-finite: array, part, count or step"""
    change, words = CHANGES[name]
    rewrite(small, change)
    refused(small, *words)


RANDOM = {
    "another generator's": np.random.MT19937(0).state["bit_generator"],
    "no text": 3,
    "negative": {"bit_generator": "PCG64", "state": {"state": -1, "inc": 1}},
    "nothing": {},
    "too large": {
        "bit_generator": "PCG64",
        "state": {"state": 2**200, "inc": 1},
        "has_uint32": 0,
        "uinteger": 0,
    },
}


@pytest.mark.parametrize("name", RANDOM)
def test_bad_random_states(small, name):
    """A random state that is none: another generator's, no dict, negative, empty, too large"""
    rewrite(small, lambda s: s.update(random=RANDOM[name]))
    refused(small, "random", "no state of PCG64")


def test_an_optimiser_of_another_model(small):
    """An optimiser of another model: the network fits, Adam's memory does not"""
    parts, wide = make_parts(), make_parts(width=6)
    parts["adam_g"] = wide["adam_g"]
    refused(small, "adam_g/", "expected float32", parts=parts)


def test_another_kind_of_optimiser(small):
    """Another kind of optimiser"""
    parts = make_parts()
    parts["adam_g"] = optim.RMSprop(parts["g"].parameters())
    refused(small, "adam_g/", parts=parts)


def test_a_newer_format(small):
    """A newer format: said so, with both versions"""
    forge_manifest(small / "checkpoint.npz", lambda m: m.update(version=2))
    refused(small, "manifest.json", "reads 'minigan checkpoint' version 1", "version 2")


@cases(2)
def test_forged_sums(small):
    """An array changed behind good sums of the ZIP and a good seal; its SHA-256 gone"""
    path = small / "checkpoint.npz"
    members = members_of(path)
    index = next(i for i, (name, _) in enumerate(members) if name == f"{WEIGHT}.npy")
    good = members[index][1]
    members[index][1] = npy(np.zeros((4, 36), np.float32))
    seal(path, members)
    refused(small, WEIGHT, "SHA-256")
    members[index][1] = good
    seal(path, members)
    forge_manifest(path, lambda m: m["leaves"][WEIGHT].pop("sha256"))
    refused(small, WEIGHT)


@pytest.mark.parametrize(
    ("flag", "value"), [("--width", 6), ("--batch", 5), ("--seed", 7), ("--count", 11)]
)
def test_other_settings(out, flag, value):
    """Going on with another width, batch size, seed, data: exit 2, the flag is named"""
    said = train(out, "--steps", 4, flag, value, "--resume", code=2).stderr
    assert f"was made with {flag} " in said
    assert load_checkpoint(out / "checkpoint.npz")["run"]["step"] == 2


@cases(3)
def test_another_number_of_steps(out):
    """Going on with more steps: one line says that a decay is not that of a longer run"""
    words = "warning: until now this was a run of 2 steps, and is now one of 4: "
    said = train(out, "--steps", 4, "--resume", "--die-at", 3, code=-signal.SIGKILL).stderr
    assert said.count(words) == said.count("warning: ") == 1
    assert "warning" not in train(out, "--steps", 4, "--resume").stderr
    rewrite(out, lambda s: s["run"].pop("total_steps"))  # as it was before they were counted
    assert "warning" not in train(out, "--steps", 5, "--resume").stderr


@pytest.mark.parametrize("text", [None, "", "{", "{}", "\0\0\0"])
def test_a_lost_config(out, text):
    """config.json lost or damaged, a good checkpoint there: it goes on, config.json is whole"""
    whole = json.loads((out / "config.json").read_text())
    (out / "config.json").unlink()
    if text is not None:
        (out / "config.json").write_text(text)
    damage(out / "checkpoint.npz")  # the older one is proof enough
    train(out, "--steps", 2, "--resume")
    again = json.loads((out / "config.json").read_text())
    assert again["versions"] == whole["versions"]
    assert again["config"]["steps"] == 2
    assert load_checkpoint(out / "checkpoint.npz")["run"]["step"] == 2


@pytest.mark.parametrize("resume", [True, False])
def test_nothing_that_tells_a_run(out, resume):
    """No config.json, and no good checkpoint or no --resume: exit 2, it is named, all stays"""
    (out / "config.json").write_text("")
    if resume:
        damage(out / "checkpoint.npz")
        damage(out / "checkpoint-1.npz")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    said = train(out, "--steps", 4, *(["--resume"] if resume else []), code=2).stderr
    assert "holds files that are not a run's" in said
    assert "config.json" in said
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


def test_the_newest_is_damaged(tmp_path):
    """The newest checkpoint is damaged and an older one good: it goes on from that, loudly"""
    out, whole = tmp_path / "cut", tmp_path / "whole"
    train(whole, "--steps", 6)
    train(out, "--steps", 6, "--die-at", 3, code=-signal.SIGKILL)
    damage(out / "checkpoint.npz")
    said = train(out, "--steps", 6, "--resume").stderr
    assert f"warning: {out / 'checkpoint.npz'}: " in said
    assert f"GOING ON FROM THE OLDER {out / 'checkpoint-1.npz'}" in said
    assert (out / "damaged-1.npz").exists()
    for name in ("checkpoint.npz", "checkpoint-1.npz"):
        one, other = (flat(load_checkpoint(run / name)) for run in (out, whole))
        assert one == other
    assert (out / "log.jsonl").read_text() == (whole / "log.jsonl").read_text()


def test_all_are_damaged(out):
    """Every checkpoint is damaged: exit 2, the newest is named, nothing is moved"""
    for name in ("checkpoint.npz", "checkpoint-1.npz"):
        damage(out / name)
    before = sorted(path.name for path in out.iterdir())
    said = train(out, "--steps", 6, "--resume", code=2).stderr
    assert said.startswith(f"error: {out / 'checkpoint.npz'}: ")
    assert sorted(path.name for path in out.iterdir()) == before


@pytest.mark.parametrize("text", ["what\n", "[]\n", '{"step": NaN}\n', '{"step": "1"}\n'])
def test_a_log_that_is_none(out, text):
    """A log of something else: exit 2, named, left as it is"""
    (out / "log.jsonl").write_text(text)
    said = train(out, "--steps", 4, "--resume", code=2).stderr
    assert "log.jsonl: not a log of one JSON object a line" in said
    assert (out / "log.jsonl").read_text() == text
