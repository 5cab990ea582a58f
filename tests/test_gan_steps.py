"""What each GAN script minimises, computed again by hand from what its discriminator saw and said.

A script runs here for two steps on images made up here. Each call of the discriminator is written
down: the images, the labels, the scores. Losses, logs and gradients are then formulas over these.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from made_up import write_fashion

import minigan as mg
from minigan import data, models, optim, training
from minigan.training import load_checkpoint

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
BATCH = 4
SCRIPTS = {  # name: its file, flags of its own, its discriminator, its generator
    "dcgan": ("dcgan.py", ["--width", "4"], "DCGANDiscriminator", "DCGANGenerator"),
    "lsgan": (
        *("dcgan.py", ["--width", "4", "--loss", "lsgan"]),
        *("DCGANDiscriminator", "DCGANGenerator"),
    ),
    "gan_mlp": ("gan_mlp.py", ["--width", "20"], "MLPDiscriminator", "MLPGenerator"),
    "cgan": ("cgan.py", ["--width", "4"], "ProjectionDiscriminator", "ConditionalGenerator"),
    "wgan": (
        *("wgan.py", ["--width", "4", "--critic-steps", "2"]),
        *("DCGANDiscriminator", "DCGANGenerator"),
    ),
    "wgan_gp": (
        *("wgan_gp.py", ["--width", "4", "--critic-steps", "2", "--penalty", "7"]),
        *("Critic", "DCGANGenerator"),
    ),
    "sngan": ("sngan.py", ["--width", "2"], "ResNetDiscriminator", "ResNetGenerator"),
    "r1gan": ("r1gan.py", ["--width", "4", "--gamma", "3"], "Critic", "DCGANGenerator"),
}
EXTRA = {"wgan_gp": "between", "r1gan": "real"}  # where the slope of a critic is looked at
WITHOUT_CHANCE = [n for n in SCRIPTS if n not in ("gan_mlp", "sngan")]  # dropout, power iterations
ROUNDS = {"wgan": 2, "wgan_gp": 2}  # steps of the critic for one of the generator


def only(*names):
    """For a test that is about some of the scripts."""
    return pytest.mark.parametrize("seen", names, indirect=True)


class Call:
    """One call of the discriminator, and the slope of its scores there, of each image."""

    def __init__(self, network, images, labels, scores):
        self.images, self.scores = images.numpy(), scores.numpy()[:, 0].astype(np.float64)
        self.labels = labels
        self.frozen = not any(p.requires_grad for p in network.parameters())
        self.reaches_a_generator = images.requires_grad
        self.network = network


@pytest.fixture(scope="module", params=SCRIPTS)
def seen(request, tmp_path_factory):
    """Two steps of a script: its name, calls, gradients at each step of an optimiser, and log."""
    name = request.param
    file, flags, discriminator, generator = SCRIPTS[name]
    folder, out = write_fashion(tmp_path_factory.mktemp("data")), tmp_path_factory.mktemp(name)
    calls, made, steps, patch = [], [], [], pytest.MonkeyPatch()
    kind, source = getattr(models, discriminator), getattr(models, generator)
    forward, make = kind.forward, source.forward

    def watched(self, images, *labels):
        scores = forward(self, images, *labels)
        calls.append(Call(self, images, labels[0] if labels else None, scores))
        return scores

    def watched_generator(self, z, *labels):
        images = make(self, z, *labels)
        if self.training:
            made.append((z.numpy(), labels[0] if labels else None, images.numpy()))
        return images

    def watch(optimizer):
        step = optimizer.step

        def watched_step(self):
            steps.append(
                {
                    "params": self.params,
                    "weights": [p.data.copy() for p in self.params],
                    "gradients": [None if p.grad is None else p.grad.copy() for p in self.params],
                    "lr": self.lr,
                }
            )
            step(self)

        patch.setattr(optimizer, "step", watched_step)

    patch.setattr(kind, "forward", watched)
    patch.setattr(source, "forward", watched_generator)
    watch(optim.Adam)
    watch(optim.RMSprop)
    command = [file, *flags, "--batch", str(BATCH), "--z", "5", "--steps", "2"]
    patch.setattr(sys, "argv", [*command, "--data-dir", str(folder), "--out", str(out / "run")])
    spec = importlib.util.spec_from_file_location(f"steps_{name}", EXAMPLES / file)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    try:
        assert script.main() == 0
    finally:
        patch.undo()
    log = [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
    real = data.fashion_mnist(folder, "train", 32)
    return {
        **{"name": name, "calls": calls, "made": made, "steps": steps, "log": log},
        **{"real": real, "out": out / "run"},
    }


def rounds(seen):
    """Of each step: the calls of each round of the critic, then the generator's one call."""
    own = 3 if seen["name"] in EXTRA else 2
    calls, found = list(seen["calls"]), []
    for _ in range(2):
        of_critic = [[calls.pop(0) for _ in range(own)] for _ in range(ROUNDS.get(seen["name"], 1))]
        found.append((of_critic, calls.pop(0)))
    assert not calls
    return found


def softplus(x):
    return np.logaddexp(0, x)


def d_loss(name, real, fake):
    """What the discriminator minimises, but for a penalty; by the scores of both kinds."""
    if name in ("dcgan", "gan_mlp", "cgan", "r1gan"):  # −log D(x) − log(1 − D(G(z)))
        return softplus(-real).mean() + softplus(fake).mean()
    if name == "lsgan":
        return ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2
    if name == "sngan":
        return np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean()
    return fake.mean() - real.mean()


def g_loss(name, fake):
    if name in ("dcgan", "gan_mlp", "cgan", "r1gan"):  # −log D(G(z)): it does not saturate
        return softplus(-fake).mean()
    return ((fake - 1) ** 2).mean() / 2 if name == "lsgan" else -fake.mean()


def test_the_discriminator_sees_real_images_then_generated_ones_cut_off(seen):
    every_real = data.to_unit(seen["real"].images)
    generated = np.concatenate([images for _, _, images in seen["made"]])
    for of_critic, last in rounds(seen):
        for real, fake, *_ in of_critic:
            for image in real.images:
                assert (image == every_real).all(axis=(1, 2, 3)).any()
            for image in fake.images:
                assert (image == generated).all(axis=(1, 2, 3)).any()
            assert not fake.reaches_a_generator
            assert not real.frozen
        assert last.frozen
        assert last.reaches_a_generator


def test_the_noise_is_normal_and_new_each_time(seen):
    noise = np.concatenate([z for z, _, _ in seen["made"]])
    assert len(np.unique(noise, axis=0)) == len(noise)
    assert noise.min() < 0 < noise.max()


def test_the_log_is_the_formula(seen):
    name = seen["name"]
    for (of_critic, last), line in zip(rounds(seen), seen["log"], strict=True):
        real, fake = (call.scores for call in of_critic[-1][:2])
        said = -line["distance"] if "distance" in line else line["d"]
        assert said == pytest.approx(d_loss(name, real, fake), rel=1e-4, abs=1e-6)
        assert line["g"] == pytest.approx(g_loss(name, last.scores), rel=1e-4, abs=1e-6)
        if name in ("dcgan", "gan_mlp", "cgan", "r1gan"):
            real, fake = 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(-fake))
        assert line["d_x"] == pytest.approx(real.mean(), rel=1e-4, abs=1e-6)
        assert line["d_gz"] == pytest.approx(fake.mean(), rel=1e-4, abs=1e-6)


@only(*EXTRA)
def test_a_penalty_is_paid_at_real_images_or_between_the_kinds(seen):
    for of_critic, _ in rounds(seen):
        for real, fake, extra in of_critic:
            if EXTRA[seen["name"]] == "real":
                assert np.array_equal(extra.images, real.images)
                continue
            along = (extra.images - fake.images) / (real.images - fake.images)
            share = np.median(along.reshape(BATCH, -1), axis=1)
            mixed = fake.images + share[:, None, None, None] * (real.images - fake.images)
            np.testing.assert_allclose(extra.images, mixed, atol=1e-5)
            assert len(np.unique(share)) == BATCH
            assert ((share >= 0) & (share <= 1)).all()


@only(*WITHOUT_CHANCE)
def test_the_discriminator_steps_on_the_gradient_of_the_formula(seen):
    steps = iter(seen["steps"])
    for of_critic, _ in rounds(seen):
        for calls in of_critic:
            compare_gradients(seen["name"], next(steps), calls)
        next(steps)  # the generator's


def compare_gradients(name, step, calls):
    """What the script stepped on, and the derivative of the formula at the same weights."""
    network, now = calls[0].network, [p.data.copy() for p in step["params"]]
    put(step["params"], step["weights"])
    on_real, on_fake = (
        network(mg.Tensor(call.images), *([] if call.labels is None else [call.labels]))
        for call in calls[:2]
    )
    f = mg.functional.softplus
    if name.startswith("wgan"):
        loss = on_fake.mean() - on_real.mean()
    elif name == "lsgan":
        loss = ((on_real - 1.0) ** 2).mean() * 0.5 + (on_fake**2).mean() * 0.5
    else:
        loss = f(-on_real).mean() + f(on_fake).mean()
    if name in EXTRA:
        at = mg.tensor(calls[2].images, requires_grad=True)
        (slope,) = mg.grad(network(at).sum(), at, create_graph=True)
        squares = (slope * slope).sum((1, 2, 3))
        if name == "wgan_gp":  # λ·mean (‖∇‖ − 1)², λ = 7
            loss = loss + (((squares + 1e-12) ** 0.5 - 1.0) ** 2).mean() * 7.0
        else:  # γ/2·mean ‖∇‖², γ = 3
            loss = loss + squares.mean() * 1.5
    loss.backward()
    for p, gradient in zip(step["params"], step["gradients"], strict=True):
        found, expected = (np.zeros(p.shape) if g is None else g for g in (gradient, p.grad))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    put(step["params"], now)


def put(params, arrays):
    for p, array in zip(params, arrays, strict=True):
        p.data[...], p.grad = array, None
        p.bump_version()


@only("cgan")
def test_both_networks_are_told_the_same_classes(seen):
    real, made = seen["real"], list(seen["made"])
    for ((on_real, on_fake),), last in rounds(seen):
        _, asked, _ = made.pop(0)
        assert len(set(asked)) > 1
        for image, label in zip(on_real.images, on_real.labels, strict=True):
            (index,) = np.nonzero((data.to_unit(real.images) == image).all(axis=(1, 2, 3)))
            assert label in real.labels[index]
        for call in (on_fake, last):
            assert np.array_equal(call.labels, asked)


@only("wgan")
def test_weights_are_clipped_after_each_step_of_the_critic(seen):
    for step in seen["steps"][1:2] + seen["steps"][3:5]:
        assert max(np.abs(w).max() for w in step["weights"]) <= np.float32(0.01)


def test_the_rates_fall_to_nothing_or_stay(seen):
    state = load_checkpoint(seen["out"] / "checkpoint.npz")
    rates = {state[name]["lr"] for name in state if name.startswith(("adam", "rms"))}
    if seen["name"] in ("dcgan", "lsgan", "cgan", "sngan"):
        assert state["decay_g"]["calls"] == state["decay_d"]["calls"] == 2
        assert rates == {0.0}
    else:
        assert rates == {step["lr"] for step in seen["steps"]}
    if seen["name"] == "r1gan":  # two time scales
        assert state["adam_d"]["lr"] > state["adam_g"]["lr"]


def test_what_is_kept_is_the_generator_or_its_average(seen):
    state = load_checkpoint(seen["out"] / "checkpoint.npz")
    kept = training.load_generator(training.snapshots(seen["out"])[2]).state_dict()
    own = state["g"]
    if seen["name"] == "r1gan":
        assert state["average"]["updates"] == 2
        average = state["average"]["module"]
        assert any(not np.array_equal(average[n], own[n]) for n in own if n.endswith("weight"))
        own = average
    for name, value in kept.items():
        assert np.array_equal(value, own[name]), name
