"""Running the models reaches for no network, prints nothing and leaves nothing at home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tinymodels as tiny

from edge.models import install

ROOT = Path(__file__).parents[1]
ASSETS = Path(os.environ.get("MENJIN_TEST_ASSETS") or "/nonexistent")

SILENT = """
import os, socket, sys
calls = []
quiet = {"socket.__new__", "socket.bind"}  # urllib3 tries once whether ::1 can be bound
def hook(name, args):
    if name.startswith("socket.") and name not in quiet:
        calls.append(name)
sys.addaudithook(hook)
from pathlib import Path
from edge.models import install, load_pack
from edge.faces import Faces
import numpy as np
face, pad = (load_pack(Path(p)) for p in sys.argv[1:])
engine = Faces(face, pad)
engine.warm_up()
engine.detect(np.zeros((480, 640, 3), np.uint8))
links = (f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd"))
held = [os.readlink(link) for link in links if os.path.lexists(link)]
assert not calls, calls
assert not [h for h in held if h.startswith("socket")], held
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
assert os.listdir(os.environ["HOME"]) == [], os.listdir(os.environ["HOME"])
"""


def silent_run(home: Path, face: Path, pad: Path) -> None:
    """Loads and runs both packs in a process of its own: no socket, no file at home, no output."""
    home.mkdir()
    env = {"PATH": os.environ["PATH"], "HOME": str(home)}
    run = [sys.executable, "-c", SILENT, str(face), str(pad)]
    done = subprocess.run(run, capture_output=True, text=True, env=env, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == ""


def test_nothing_is_printed_downloaded_or_left_at_home(tmp_path: Path) -> None:
    silent_run(tmp_path / "home", tiny.face_pack(tmp_path / "f"), tiny.pad_pack(tmp_path / "p"))


@pytest.mark.assets
@pytest.mark.skipif("MENJIN_TEST_ASSETS" not in os.environ, reason="MENJIN_TEST_ASSETS is not set")
def test_real_models_run_silently_too(tmp_path: Path) -> None:
    face = install(ASSETS / "models/mbf-sc", tmp_path / "root")
    silent_run(tmp_path / "home", face, install(ASSETS / "models/pad", tmp_path / "root"))
