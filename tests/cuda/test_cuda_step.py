"""A step of the main job, the GAN that colours line art, on the stand-in: its losses and costs."""

import copy

import executor
import numpy as np
import pytest
import standin

import minigan as mg
from minigan import losses, models, optim

# Of a step of networks 8 wide on two images of 32×32 pixels, with our kernels and with plain CuPy.
# Launches are those of our kernels and calls of CuPy's functions; copies, two batches of images.
BUDGET = {
    "1": {"launches": 371, "to_device": 2, "to_host": 0, "syncs": 0},
    "0": {"launches": 1539, "to_device": 2, "to_host": 0, "syncs": 0},
}


def judged(logits, real):
    return losses.binary_cross_entropy_with_logits(logits, float(real))


def train(device, steps):
    """The losses of every step, and what the last step asked of the device."""
    mg.manual_seed(0)
    mg.use(device)
    try:
        generator = models.UNet(width=8, depth=3)
        discriminator = models.PatchGAN(width=8)
        adam_g = optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        adam_d = optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        rng, history = np.random.default_rng(2), []
        for _ in range(steps):
            images = rng.uniform(-1, 1, size=(2, 2, 32, 32, 3)).astype(np.float32)
            standin.count.reset()
            drawing, real = map(mg.Tensor, images)
            fake = generator(drawing)
            d_real = judged(discriminator(drawing, real), real=True)
            d_fake = judged(discriminator(drawing, fake.detach()), real=False)
            adam_d.zero_grad()
            ((d_real + d_fake) * 0.5).backward()
            adam_d.step()
            discriminator.requires_grad_(False)
            g_gan = judged(discriminator(drawing, fake), real=True)
            g_l1 = losses.l1(fake, real)
            adam_g.zero_grad()
            (g_gan + g_l1 * 100.0).backward()
            adam_g.step()
            discriminator.requires_grad_(True)
            costs = copy.copy(standin.count)
            history.append([t.item() for t in (d_real, d_fake, g_gan, g_l1)])
        return np.array(history), costs
    finally:
        mg.use("cpu")


@pytest.mark.parametrize("kernels", ["1", "0"])
def test_a_step_of_the_main_job(kernels, monkeypatch):
    if kernels == "1" and executor.missing():
        pytest.skip(executor.missing())
    monkeypatch.setenv("MINIGAN_KERNELS", kernels)
    here, _ = train("cpu", 3)
    with standin.installed():
        there, costs = train("cuda", 3)
    np.testing.assert_allclose(there, here, rtol=2e-4)
    for what, most in BUDGET[kernels].items():
        assert getattr(costs, what) <= most, costs
