"""Measure the pack: `python -m hil.simpack.evaluate [--calibrate]`.

Writes `report.json` and the figures in the pack's README; with `--calibrate` it first sets the
recogniser's threshold, on other residents than those of the report. insightface and onnxruntime
only; no torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hil.simpack import measure
from hil.simpack.papers import PACK, read_report, set_threshold, write_report
from hil.simpack.reader import Reader

CALIBRATION_SEED, REPORT_SEED = 100_000, 500_000  # added to FRESH_FROM: no resident is in both
PAD_THRESHOLD = 0.5
BEGIN, END = "<!-- figures: written by hil.simpack.evaluate -->", "<!-- end of figures -->"


def calibrate(pack: Path, people: int) -> None:
    """Set the threshold half-way between the impostors' 1e-5 tail and the genuine 1% tail."""
    genuine, impostor = measure.scores(
        *measure.embeddings(Reader(pack), people, 4, CALIBRATION_SEED)
    )
    low, high = float(np.quantile(impostor, 1 - 1e-5)), float(np.percentile(genuine, 1))
    threshold = round(max(low, (low + high) / 2), 2)
    set_threshold(
        pack,
        threshold,
        f"Calibrated on {people} residents never trained on ({len(genuine)} genuine and "
        f"{len(impostor)} impostor pairs): one impostor pair in 100,000 reaches {low:.2f}, "
        f"99% of genuine pairs reach {high:.2f}; half-way, never below the former.",
    )


def calibrate_pad(pack: Path, each: int) -> None:
    """Say what the attack threshold does on calibration frames; the threshold stays 0.5."""
    folder = pack / "pad"
    set_threshold(folder, PAD_THRESHOLD, "being measured")
    got = measure.attacks(Reader(pack), each, CALIBRATION_SEED)
    set_threshold(
        folder,
        PAD_THRESHOLD,
        f"On {each} full frames of each kind, residents never trained on: "
        f"{got['print']['taken_for_live']} prints and {got['replay']['taken_for_live']} screens "
        f"taken for live at {PAD_THRESHOLD}, {each - got['live']['taken_for_live']} live faces "
        "refused.",
    )


def report(pack: Path, people: int) -> dict[str, Any]:
    """Every figure, on the report's own residents and seeds."""
    reader = Reader(pack)
    return {
        "detection_640x480": measure.detection(Reader(pack, (640, 480)), people, REPORT_SEED),
        "detection_320x256": measure.detection(Reader(pack, (320, 256)), people, REPORT_SEED),
        "recognition": measure.recognition(reader, people, 4, REPORT_SEED + 10_000),
        "attacks": measure.attacks(reader, people, REPORT_SEED + 20_000),
        "demo": [measure.demo(reader, 12, 8, seed) for seed in (1, 2, 3)],
        "milliseconds_one_thread": measure.speed(reader),
        "bytes": {str(f.relative_to(pack)): f.stat().st_size for f in sorted(pack.rglob("*.onnx"))},
    }


def table(got: dict[str, Any]) -> str:
    """The figures as Markdown."""
    rows = ["| what | reached |", "|---|---|"]
    for size in ("640x480", "320x256"):
        d = got[f"detection_{size}"]
        rows += [
            f"| faces missed, detector at {size} | {d['missed']} of {d['faces']} |",
            f"| rooms without a face where one was seen, {size} "
            f"| {d['faceless_alarms']} of {d['faceless_frames']} |",
            f"| boxes besides the face's own, {size} | {d['extra_boxes']} in {d['faces']} frames |",
            f"| key-point error / eye distance, mean (95%), {size} "
            f"| {d['keypoint_error_mean']:.1%} ({d['keypoint_error_p95']:.1%}) |",
        ]
    r = got["recognition"]
    rows += [
        f"| non-matches at false-match rate 1e-3 / 1e-4 / 1e-5 ({r['people']} residents, "
        f"{r['impostor_pairs']} impostor pairs) | {r['fnmr_at_fmr_1e-3']:.2%} / "
        f"{r['fnmr_at_fmr_1e-4']:.2%} / {r['fnmr_at_fmr_1e-5']:.2%} |",
        f"| at the manifest's threshold {r['threshold']}: non-matches / false matches "
        f"| {r['fnmr_at_threshold'] * r['genuine_pairs']:.0f} of {r['genuine_pairs']} / "
        f"{r['fmr_at_threshold'] * r['impostor_pairs']:.0f} of {r['impostor_pairs']} |",
    ]
    a = got["attacks"]
    each = a["frames_each"]
    rows += [
        f"| prints / screens taken for live, full frames | {a['print']['taken_for_live']} / "
        f"{a['replay']['taken_for_live']} of {each} each |",
        f"| live faces refused as attacks | "
        f"{each - a['live']['taken_for_live'] - a['live']['undetected']} of {each} |",
    ]
    return "\n".join(rows + _demo_rows(got["demo"]))


def _demo_rows(demos: list[dict[str, Any]]) -> list[str]:
    """One row for each change of the picture, all demo seeds together."""
    rows = []
    for name in measure.CHANGES:
        parts = [demo[name] for demo in demos]
        total = {key: sum(part[key] for part in parts) for key in parts[0]}
        tries = total["let_in"] + total["refused"] + total["as_somebody_else"]
        rows.append(
            f"| {len(demos)} demos of {demos[0]['residents']} residents drawn apart, one enrolment "
            f"picture, {name}: residents let in / as somebody else; strangers let in; attacks let "
            f"in | {total['let_in']} of {tries} / {total['as_somebody_else']}; "
            f"{total['strangers_let_in']} of {total['of_strangers']}; "
            f"{total['attacks_let_in']} of {total['of_attacks']} |"
        )
    return rows


def rewrite_readme(pack: Path, figures: str) -> None:
    """Put the figures between the two marks of the pack's README."""
    path = pack / "README.md"
    text = path.read_text("utf-8")
    head, rest = text.split(BEGIN, 1)
    _, tail = rest.split(END, 1)
    path.write_text(f"{head}{BEGIN}\n{figures}\n{END}{tail}", encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, default=PACK)
    parser.add_argument("--people", type=int, default=300, help="residents in each measurement")
    parser.add_argument("--calibrate", action="store_true")
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    if asked.calibrate:
        calibrate(asked.pack, asked.people)
        calibrate_pad(asked.pack, asked.people)
    got = report(asked.pack, asked.people)
    write_report(asked.pack, {"training": read_report(asked.pack).get("training", {}), **got})
    rewrite_readme(asked.pack, table(got))
    print(table(got))


if __name__ == "__main__":
    main()
