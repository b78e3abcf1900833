"""`hil people` end to end: the daemon as a process, before its camera photos of people."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hil.demo import PACK
from hil.residents import Scene, drawn_apart, render

RUN_TIMEOUT_S = 900


def people(folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    report = folder / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "hil", "people", "--json", str(report), *arguments],
        capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False,
    )  # fmt: skip
    facts = json.loads(report.read_text("utf-8")) if report.exists() else {}
    return done.returncode, facts, done.stdout + done.stderr


@pytest.mark.assets
@pytest.mark.timeout(RUN_TIMEOUT_S)
def test_real_people_open_exactly_their_own_doors(tmp_path: Path) -> None:
    assets = Path(os.environ["MENJIN_TEST_ASSETS"])
    code, report, said = people(
        tmp_path,
        "--models", str(assets / "models" / "mbf-sc"),
        "--pad", str(assets / "models" / "pad"),
        "--faces", str(assets / "testdata" / "faces"),
        "--video", str(assets / "testdata" / "video" / "walk.mp4"),
        "--broker", "mosquitto",
    )  # fmt: skip
    assert code == 0, said
    shown, after = report["shown"], report["after_revocation"]
    assert (report["enrolled"], report["threshold"]) == (7, 0.35)
    assert (shown["shown"], shown["opened_right"], shown["opened_wrong"]) == (21, 21, 0)
    assert shown["refused_by_reason"]["unknown_face"] >= 3  # the bystanders in three photos
    assert (after["revoked"]["not_opened"], after["revoked"]["shown"]) == (8, 8)
    assert (after["others"]["opened_right"], after["others"]["shown"]) == (13, 13)
    assert (report["video"]["attended"], report["video"]["opened"]) == (105, 0)


@pytest.mark.slow
@pytest.mark.timeout(RUN_TIMEOUT_S)
def test_a_stranger_among_the_photos_of_a_resident_is_a_miss_that_is_told(tmp_path: Path) -> None:
    """The control: one picture in a person's folder shows somebody else, and the run says so."""
    faces = tmp_path / "faces"
    *residents, stranger = drawn_apart(4, 77)
    for number, who in enumerate(residents):
        folder = faces / f"r{number}"
        folder.mkdir(parents=True)
        shown = [who, who, stranger if number == 0 else who]
        for photo, somebody in enumerate(shown):
            picture = render(somebody, Scene(), np.random.default_rng(photo)).image
            assert cv2.imwrite(str(folder / f"{photo}.png"), picture)
    code, report, said = people(
        tmp_path, "--models", str(PACK), "--pad", str(PACK / "pad"), "--faces", str(faces)
    )
    assert code == 1, said
    shown = report["shown"]
    assert (shown["shown"], shown["opened_right"], shown["opened_wrong"]) == (6, 5, 0)
    assert [miss.split(":")[0] for miss in shown["misses"]] == ["r0/2.png"]


def test_a_folder_without_people_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, said = people(
        tmp_path,
        "--models", str(PACK), "--pad", str(PACK / "pad"), "--faces", str(tmp_path / "empty"),
    )  # fmt: skip
    assert code == 2
    assert "0 people" in said
    assert "Traceback" not in said
