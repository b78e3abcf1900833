"""`hil demo --json`: every step of the story, as data, on both brokers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

STORY = [
    "enrolled_mei",
    "passed_mei",
    "enrolled_bo",
    "refused_stranger",
    "refused_print",
    "refused_replay",
    "revoked",
    "refused_revoked",
    "broker_stopped",
    "passed_bo_broker",
    "restarted",
    "refused_revoked",
    "passed_bo_restart",
    "audit_verified",
]


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize(("broker", "tls"), [("mosquitto", True), ("embedded", False)])
def test_every_step_happens(broker: str, tls: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hil", "demo", "--json", "--broker", broker],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert (done.returncode, report["fault"], report["tls"]) == (0, "", tls)
    assert [step["name"] for step in report["steps"]] == STORY
    assert ("NOT exercised" in done.stderr) is not tls
    figures = {name: value for step in report["steps"] for name, value in step["figures"].items()}
    assert figures.keys() >= {"frame_to_unlock_ms", "receipt_ms", "restart_ms", "rows"}
