"""What every test needs, and nothing else: no telemetry, hypothesis profiles, a free port, and what
happens to tests of real models when there are none."""

from __future__ import annotations

import os
import socket

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before anything imports onnxruntime

import pytest
from hypothesis import HealthCheck, settings

# The default tests are the same at every run; the slow ones look somewhere new each time.
settings.register_profile("default", max_examples=50, deadline=None, derandomize=True)
settings.register_profile(
    "slow", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("MENJIN_HYPOTHESIS", "default"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "MENJIN_TEST_ASSETS" in os.environ:
        return
    skip = pytest.mark.skip(reason="MENJIN_TEST_ASSETS is not set: no real models and photos here")
    for item in items:
        if item.get_closest_marker("assets"):
            item.add_marker(skip)


@pytest.fixture
def free_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
