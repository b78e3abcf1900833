"""The unit, the example configuration and the packaging: what an installer takes from here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
UNIT = ROOT / "systemd" / "menjin.service"
ANALYZE = shutil.which("systemd-analyze")
needs_analyze = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def installed_unit(folder: Path) -> Path:
    """The unit with this checkout's `edge` in place of the one in /opt/menjin."""
    edge = Path(sys.executable).parent / "edge"
    if not edge.exists():
        edge = Path("/bin/true")
    text = UNIT.read_text("utf-8").replace("/opt/menjin/.venv/bin/edge", str(edge))
    unit = folder / UNIT.name
    unit.write_text(text.replace("/opt/menjin/README.md", str(ROOT / "README.md")), "utf-8")
    return unit


@needs_analyze
def test_the_unit_verifies(tmp_path: Path) -> None:
    assert ANALYZE
    done = subprocess.run(
        [ANALYZE, "verify", "--man=no", str(installed_unit(tmp_path))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "menjin" in line]
    assert (done.returncode, said) == (0, [])


@needs_analyze
def test_the_unit_is_exposed_by_no_more_than_one_and_a_half(tmp_path: Path) -> None:
    assert ANALYZE
    done = subprocess.run(
        [ANALYZE, "security", "--offline=true", "--threshold=15", str(installed_unit(tmp_path))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-400:]


@pytest.mark.parametrize(
    "line",
    [
        "Type=notify",
        "WatchdogSignal=SIGKILL",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "MemoryDenyWriteExecute=yes",
        "DevicePolicy=closed",
        "IPAddressDeny=any",
        "LimitCORE=0",
        "ProcSubset=all",
    ],
)
def test_the_unit_says(line: str) -> None:
    assert line in UNIT.read_text("utf-8").splitlines()


def test_telemetry_is_off_before_python_starts() -> None:
    assert "Environment=ORT_DISABLE_TELEMETRY=1" in UNIT.read_text("utf-8")


def test_the_lock_file_has_hashes_and_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text("utf-8")
    pins = re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE)
    assert len(pins) > 40
    assert "://" not in text
    assert text.count("--hash=sha256:") >= len(pins)
    assert {"setuptools", "opencv-python-headless"} <= set(pins)
    assert "opencv-python" not in pins


def test_pip_check_says_exactly_the_one_line_about_opencv() -> None:
    """insightface names opencv-python; the headless build stands in its place."""
    installed = {dist.metadata["Name"].lower() for dist in metadata.distributions()}
    if "opencv-python" in installed:
        pytest.skip("this environment has both builds of OpenCV; `make install` gives one")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    version = metadata.version("insightface")
    assert done.stdout.splitlines() == [
        f"insightface {version} requires opencv-python, which is not installed."
    ]


def test_the_example_configuration_passes_edge_check(tmp_path: Path) -> None:
    """As an installer would: with the paths of this machine in it, nothing is wrong."""
    text = (ROOT / "config" / "gate.example.toml").read_text("utf-8")
    pack = ROOT / "hil" / "simpack" / "pack"
    text = text.replace("/var/lib/menjin/models/sim", str(pack))
    config = tmp_path / "gate.toml"
    config.write_text(text, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "edge", "check", "-c", str(config)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing wrong" in done.stdout
