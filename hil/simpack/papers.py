"""The pack's papers: both manifests, as `edge.models` reads them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hil.simpack.data import PAD_CLASSES, PAD_SCALE

PACK = Path(__file__).parent / "pack"
MANIFEST = "pack.json"  # as edge.models reads it; insightface owns the name manifest.json
REPORT = "report.json"
FREE = {"licence": "Apache-2.0", "licence_state": "free"}
UNSET = {"threshold_reason": "Not calibrated yet: run python -m hil.simpack.evaluate --calibrate."}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a pack folder."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
    return manifest


def read_report(pack: Path) -> dict[str, Any]:
    """The report so far; empty when there is none."""
    path = pack / REPORT
    report: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return report


def write_report(pack: Path, report: dict[str, Any]) -> None:
    """Write the report, and its new hash into the manifest."""
    (pack / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    write_manifests(pack)


def write_training(weights: Path, pack: Path) -> None:
    """Take over how the weights came about: seed, counts, seconds, last loss of each net."""
    notes = {path.stem: json.loads(path.read_text("utf-8")) for path in weights.glob("*.json")}
    write_report(pack, read_report(pack) | {"training": dict(sorted(notes.items()))})


def set_threshold(folder: Path, threshold: float, reason: str) -> None:
    """Change what the manifest of a pack folder says about its threshold."""
    manifest = read_manifest(folder) | {"threshold": threshold, "threshold_reason": reason}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _digests(folder: Path, *names: str) -> dict[str, str]:
    """SHA-256 of those files that are there, hexadecimal."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in names
        if (folder / name).exists()
    }


def write_manifests(pack: Path) -> None:
    """Both manifests; thresholds already calibrated are kept."""
    face = {
        "kind": "face", "name": "sim", "version": "1",
        "files": _digests(pack, "det.onnx", "rec.onnx", REPORT),
        "embedding_size": 128, "threshold": 0.5, **UNSET, "detector_size": [320, 256], **FREE,
        "about": "Knows artificial residents drawn by hil.residents, for rigs and demonstrations;"
        " it does not know people.",
    }  # fmt: skip
    attack = {
        "kind": "pad", "name": "sim-pad", "version": "1",
        "files": _digests(pack / "pad", "pad.onnx"),
        "crop_scale": PAD_SCALE, "colour": "rgb", "scale": 1 / 255, "live_class": 0,
        "classes": [name or "live" for name in PAD_CLASSES], "threshold": 0.5, **UNSET, **FREE,
        "about": "Tells drawn prints and screens from drawn live faces; it knows no real attack.",
    }  # fmt: skip
    for path, manifest in ((pack, face), (pack / "pad", attack)):
        kept = path / MANIFEST
        if kept.exists():
            before = json.loads(kept.read_text(encoding="utf-8"))
            manifest |= {key: before[key] for key in ("threshold", "threshold_reason")}
        kept.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
