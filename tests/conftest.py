"""What every test needs, and nothing else: no telemetry, hypothesis profiles, a free port, and what
happens to tests of real models when there are none."""

from __future__ import annotations

import os
import socket
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before anything imports onnxruntime

import pytest
from hypothesis import HealthCheck, settings

# The default tests are the same at every run; the slow ones look somewhere new each time.
settings.register_profile("default", max_examples=50, deadline=None, derandomize=True)
settings.register_profile(
    "slow", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("MENJIN_HYPOTHESIS", "default"))

ASSETS = os.environ.get("MENJIN_TEST_ASSETS")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if ASSETS is None:
        skip = pytest.mark.skip(reason="MENJIN_TEST_ASSETS is not set: no real models and photos")
        for item in items:
            if item.get_closest_marker("assets"):
                item.add_marker(skip)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Asked for and not there is a failure, never a skip."""
    asked = ASSETS is not None and item.get_closest_marker("assets") is not None
    if asked and not (ASSETS and Path(ASSETS).is_dir()):
        pytest.fail(f"MENJIN_TEST_ASSETS={ASSETS!r} is no folder", pytrace=False)


@pytest.fixture
def free_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
