"""The figures of the pack: what it gets right on residents it was never trained on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hil.residents import Attack, Identity, Rendered, Scene, drawn_apart, render, resident
from hil.simpack.data import FRESH_FROM, Floats, Pixels
from hil.simpack.reader import Reader, Seen

Change = Callable[[Pixels], Pixels]
OVERLAP = 0.4  # a face counts as found when its box overlaps the true one at least this much


def jpeg50(image: Pixels) -> Pixels:
    """Through JPEG at quality 50."""
    _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), dtype=np.uint8)


def shifted(image: Pixels) -> Pixels:
    """Moved 24 px right and 16 px down, black where nothing is known."""
    return _warped(image, np.array([[1.0, 0.0, 24.0], [0.0, 1.0, 16.0]]))


def dimmed(image: Pixels) -> Pixels:
    """At 60% of its brightness."""
    return np.asarray(cv2.convertScaleAbs(image, alpha=0.6), dtype=np.uint8)


def rotated(image: Pixels) -> Pixels:
    """Turned by 10 degrees about its middle, black corners."""
    h, w = image.shape[:2]
    return _warped(image, cv2.getRotationMatrix2D((w / 2, h / 2), 10.0, 1.0))


def _warped(image: Pixels, turn: Any) -> Pixels:
    size = (image.shape[1], image.shape[0])
    return np.asarray(cv2.warpAffine(image, np.asarray(turn, np.float64), size), dtype=np.uint8)


CHANGES: dict[str, Change] = {
    "as rendered": lambda image: image,
    "JPEG 50": jpeg50,
    "shifted": shifted,
    "dimmed to 60%": dimmed,
    "rotated 10 degrees": rotated,
}


def frames(
    who: Identity | None, count: int, seed: int, attack: Attack | None = None
) -> Iterator[Rendered]:
    """`count` typical 640 x 480 frames of somebody."""
    rng = np.random.default_rng([0xF4E5, seed])
    for _ in range(count):
        yield render(who, Scene.typical(rng, attack=attack), rng)


def overlap(one: Floats, other: Floats) -> float:
    """Intersection over union of two xyxy boxes."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = float(np.prod(np.maximum(0.0, high - low)))
    areas = sum(float((b[2] - b[0]) * (b[3] - b[1])) for b in (one, other))
    return shared / (areas - shared)


def found(reader: Reader, frame: Rendered) -> Seen | None:
    """What the pack sees of the face that is really there."""
    assert frame.box is not None
    hits = [seen for seen in reader.look(frame.image) if overlap(seen.box, frame.box) >= OVERLAP]
    return max(hits, key=lambda seen: seen.score) if hits else None


def detection(reader: Reader, people: int, seed: int) -> dict[str, Any]:
    """Misses, extra faces, key-point errors, false alarms on rooms without a face."""
    missed = extra = 0
    errors: list[float] = []
    for i in range(people):
        for frame in frames(resident(FRESH_FROM + seed + i), 2, seed + i):
            assert frame.box is not None and frame.keypoints is not None
            seen = found(reader, frame)
            extra += len(reader.faces.det_model.detect(frame.image)[0]) - (seen is not None)
            if seen is None:
                missed += 1
                continue
            eyes = float(np.linalg.norm(frame.keypoints[0] - frame.keypoints[1]))
            away = np.linalg.norm(seen.keypoints - frame.keypoints, axis=1)
            errors.append(float(away.mean()) / eyes)
    empty = [reader.look(frame.image) for frame in frames(None, people, seed)]
    return {
        "faces": 2 * people,
        "missed": missed,
        "extra_boxes": extra,
        "keypoint_error_mean": round(float(np.mean(errors)), 4),
        "keypoint_error_p95": round(float(np.percentile(errors, 95)), 4),
        "faceless_frames": people,
        "faceless_alarms": sum(bool(faces) for faces in empty),
    }


def embeddings(reader: Reader, people: int, views: int, seed: int) -> tuple[Any, Any]:
    """Unit embeddings N x 128 of fresh residents by detected key points, and whose they are."""
    rows, who = [], []
    for i in range(people):
        for frame in frames(resident(FRESH_FROM + seed + i), views, seed + i):
            seen = found(reader, frame)
            if seen is not None:
                rows.append(seen.embedding)
                who.append(i)
    return np.stack(rows), np.array(who)


def scores(rows: Any, who: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All genuine and all impostor cosines."""
    cosine = (rows @ rows.T).astype(np.float64)
    same = who[:, None] == who[None, :]
    upper = np.triu(np.ones_like(same), 1).astype(bool)
    return cosine[same & upper], cosine[~same & upper]


def recognition(reader: Reader, people: int, views: int, seed: int) -> dict[str, Any]:
    """Error rates at fixed false-match rates and at the manifest's threshold."""
    genuine, impostor = scores(*embeddings(reader, people, views, seed))
    result: dict[str, Any] = {
        "people": people, "genuine_pairs": len(genuine), "impostor_pairs": len(impostor),
        "genuine_p1": round(float(np.percentile(genuine, 1)), 4),
        "genuine_median": round(float(np.median(genuine)), 4),
        "impostor_max": round(float(impostor.max()), 4),
        "threshold": reader.threshold,
        "fnmr_at_threshold": round(float((genuine < reader.threshold).mean()), 5),
        "fmr_at_threshold": float(f"{float((impostor >= reader.threshold).mean()):.3g}"),
    }  # fmt: skip
    for name, rate in (("1e-3", 1e-3), ("1e-4", 1e-4), ("1e-5", 1e-5)):
        limit = float(np.quantile(impostor, 1.0 - rate))
        result[f"fnmr_at_fmr_{name}"] = round(float((genuine < limit).mean()), 5)
        result[f"threshold_at_fmr_{name}"] = round(limit, 4)
    return result


def attacks(reader: Reader, each: int, seed: int) -> dict[str, Any]:
    """Shares of live, printed and replayed faces taken for live, detector boxes, full frames."""
    result: dict[str, Any] = {"frames_each": each, "threshold": reader.pad_threshold}
    kinds: tuple[Attack | None, ...] = (None, "print", "replay")
    for kind in kinds:
        name, unseen, passed = kind or "live", 0, 0
        for i in range(each):
            frame = next(frames(resident(FRESH_FROM + seed + i), 1, seed + i, kind))
            seen = found(reader, frame)
            unseen += seen is None
            passed += seen is not None and seen.live >= reader.pad_threshold
        result[name] = {"undetected": unseen, "taken_for_live": passed}
    return result


def demo(reader: Reader, residents: int, views: int, seed: int) -> dict[str, Any]:
    """`drawn_apart` residents enrolled from one frame each: who is let in, how clearly."""
    people = drawn_apart(residents, seed)
    enrolled = np.stack([_enrol(reader, who, seed) for who in people])
    result: dict[str, Any] = {"residents": residents, "views": views, "seed": seed}
    for name, change in CHANGES.items():
        right = wrong = refused = 0
        margins = []
        for i, who in enumerate(people):
            for frame in frames(who, views, seed * 1000 + i):
                got = _best(reader, change(frame.image), enrolled)
                if got is None or got[1] < reader.threshold or not got[3]:
                    refused += 1
                elif got[0] == i:
                    right += 1
                    margins.append(got[1] - got[2])
                else:
                    wrong += 1
        strangers = 0
        for i in range(residents * 2):
            frame = next(frames(resident(FRESH_FROM + seed * 777 + i), 1, seed * 99 + i))
            got = _best(reader, change(frame.image), enrolled)
            strangers += got is not None and got[1] >= reader.threshold and got[3]
        spoofs = 0
        kinds: tuple[Attack, ...] = ("print", "replay")
        for i, who in enumerate(people):
            for kind in kinds:
                frame = next(frames(who, 1, seed * 55 + i, kind))
                got = _best(reader, change(frame.image), enrolled)
                spoofs += got is not None and got[1] >= reader.threshold and got[3]
        result[name] = {
            "let_in": right, "as_somebody_else": wrong, "refused": refused,
            "least_margin": round(float(min(margins, default=0.0)), 3),
            "strangers_let_in": strangers, "of_strangers": residents * 2,
            "attacks_let_in": spoofs, "of_attacks": residents * 2,
        }  # fmt: skip
    return result


def _enrol(reader: Reader, who: Identity, seed: int) -> Floats:
    """One typical picture, upright and near, as at an enrolment desk."""
    rng = np.random.default_rng([0xE2801, seed])
    scene = replace(Scene.typical(rng), face_size=220.0, centre=None, yaw=0.0, pitch=0.0)
    seen = found(reader, render(who, scene, rng))
    assert seen is not None, "a resident at the enrolment desk was not seen"
    return seen.embedding


def _best(reader: Reader, image: Pixels, enrolled: Floats) -> tuple[int, float, float, bool] | None:
    """Best resident, its cosine, the next one's, and whether the face passes as live."""
    faces = reader.look(image)
    if not faces:
        return None
    cosine = enrolled @ faces[0].embedding
    order = np.argsort(-cosine)
    live = faces[0].live >= reader.pad_threshold
    return int(order[0]), float(cosine[order[0]]), float(cosine[order[1]]), live


def speed(reader: Reader) -> dict[str, float]:
    """Median milliseconds on one thread of this machine: a frame with one face, by part."""
    frame = next(frames(resident(FRESH_FROM), 1, 1))
    assert frame.box is not None
    box = frame.box
    parts: dict[str, Callable[[], object]] = {
        "frame_640x480": lambda: reader.look(frame.image),
        "detect": lambda: reader.faces.det_model.detect(frame.image),
        "attack": lambda: reader.live(frame.image, box),
    }
    return {name: _median_ms(part) for name, part in parts.items()}


def _median_ms(part: Callable[[], object], runs: int = 30) -> float:
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        part()
        taken.append((time.perf_counter() - start) * 1000.0)
    return round(float(np.median(taken)), 2)
