"""What the whole suite shares: the hypothesis profiles.

`ci` (the default) draws the same few examples every time, as many as the test names, and has no
deadline; `random` draws as few, but new ones; `dev` draws 200 new ones for every test, whatever it
names; `nightly` a thousand:

    HYPOTHESIS_PROFILE=dev pytest tests/test_specs.py

looks for failures that the fixed examples miss.

`--device cuda` runs what tests/cuda otherwise runs on a stand-in on CuPy and a GPU.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

from minigan import backend, workers

SLOW_DRAWS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "ci", derandomize=True, deadline=None, database=None, suppress_health_check=SLOW_DRAWS
)
settings.register_profile(
    "dev",
    derandomize=False,  # said, since hypothesis itself fixes its examples where CI is set
    deadline=None,
    print_blob=True,
    suppress_health_check=SLOW_DRAWS,
    max_examples=200,
)
settings.register_profile("random", settings.get_profile("dev"), database=None, max_examples=100)
settings.register_profile("nightly", settings.get_profile("dev"), database=None, max_examples=1000)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")
settings.load_profile(PROFILE)


def examples(count):
    """Settings of a test: so many examples, or as many as the profile decides."""
    decides = PROFILE in ("dev", "nightly")
    return settings() if decides else settings(max_examples=count)


def pytest_addoption(parser):
    parser.addoption("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: on a GPU")


def pytest_configure(config):
    if config.getoption("--device") == "cuda":
        try:
            backend.get("cuda")
        except backend.DeviceError as error:
            raise pytest.UsageError(str(error)) from None
        os.environ["MINIGAN_TEST_DEVICE"] = "cuda"  # for tests/cuda/target.py, in workers too


@pytest.fixture
def threads_put_back():
    """The number of workers is the same after the test."""
    before = workers.get_num_threads()
    yield
    workers.set_num_threads(before)
