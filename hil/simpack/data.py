"""The pictures the networks learn from: rendered from seeds, labels exact, nothing stored.

Seeds: training uses streams 1-3 of `STREAMS`, the evaluation others; and no resident number above
`FRESH_FROM` is ever trained on.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from hil.residents import Attack, Identity, Rendered, Scene, render, resident

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

DETECTOR_SIZE = 320  # training pictures are squares of this many pixels
CROP_SIZE, CROP_MARGIN = 112, 16  # recogniser input; spare pixels round it for the perturbation
PAD_SIZE, PAD_SCALE = 96, 2.0  # presentation-attack input, and how far its crop reaches
FRESH_FROM = 1_000_000  # resident numbers from here on are for evaluation only
STREAMS = {"detector": 1, "recogniser": 2, "pad": 3}
PAD_CLASSES: tuple[Attack | None, ...] = (None, "print", "replay")

# Where the two eyes, the nose and the mouth corners lie in a 112 x 112 recognition crop: the
# published arcface template, which insightface aligns to.
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    dtype=np.float32,
)
EYE_DISTANCE = 35.24  # pixels between the eyes of the template


def similarity(points: Floats, target: Floats) -> Floats:
    """Least-squares 2 x 3 rotation, scale and shift taking N x 2 `points` to `target`."""
    p, q = points - points.mean(axis=0), target - target.mean(axis=0)
    norm = float((p * p).sum())
    a = float((p * q).sum()) / norm
    b = float((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum()) / norm
    turn = np.array([[a, -b], [b, a]], dtype=np.float32)
    shift = target.mean(axis=0) - turn @ points.mean(axis=0)
    return np.concatenate([turn, shift[:, None]], axis=1).astype(np.float32)


def jostle(seen: Rendered, rng: np.random.Generator, most_degrees: float = 14.0) -> Rendered:
    """The frame rotated, shifted and zoomed, black where it came from outside; labels follow."""
    h, w = seen.image.shape[:2]
    zoom = float(rng.uniform(0.8, 1.15))
    angle = float(rng.uniform(-1, 1)) * most_degrees
    turn = np.asarray(cv2.getRotationMatrix2D((w / 2, h / 2), angle, zoom), dtype=np.float64)
    turn[:, 2] += rng.uniform(-0.12, 0.12, 2) * (w, h)
    image = np.asarray(cv2.warpAffine(seen.image, turn, (w, h)), dtype=np.uint8)
    if seen.box is None or seen.keypoints is None:
        return Rendered(image, None, None)
    x0, y0, x1, y1 = (float(v) for v in seen.box)
    # A rotated box would be too large: its inscribed ellipse is what the head fills.
    round_ = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    rim = np.stack([(x0 + x1) / 2 + (x1 - x0) / 2 * np.cos(round_),
                    (y0 + y1) / 2 + (y1 - y0) / 2 * np.sin(round_)], axis=1)  # fmt: skip
    moved = rim @ turn[:, :2].T + turn[:, 2]
    points = seen.keypoints @ turn[:, :2].T + turn[:, 2]
    box = np.concatenate([moved.min(axis=0), moved.max(axis=0)])
    return Rendered(image, box.astype(np.float32), points.astype(np.float32))


def recode(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Through JPEG at a quality of 35 to 95."""
    _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(35, 95))])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), dtype=np.uint8)


def wear(seen: Rendered, rng: np.random.Generator) -> Rendered:
    """Now and then a jostled, dimmed or re-encoded picture, as links and mounts make them."""
    if rng.random() < 0.3:
        seen = jostle(seen, rng)
    if rng.random() < 0.25:
        dim = cv2.convertScaleAbs(seen.image, alpha=float(rng.uniform(0.45, 1.0)))
        seen = replace(seen, image=np.asarray(dim, dtype=np.uint8))
    if rng.random() < 0.35:
        seen = replace(seen, image=recode(seen.image, rng))
    return seen


def anyone(rng: np.random.Generator) -> Identity:
    """A resident for training the detector or the attack net."""
    return resident(int(rng.integers(FRESH_FROM)))


def detector_picture(seed: int) -> Rendered:
    """One square training picture: 30% without a face, 20% attacks, faces of 28 to 300 px."""
    rng = np.random.default_rng([STREAMS["detector"], seed])
    size = float(np.exp(rng.uniform(np.log(28), np.log(300))))
    chance = rng.random()
    attack: Attack | None = None
    if 0.3 <= chance < 0.5:
        attack = "print" if chance < 0.4 else "replay"
    side = DETECTOR_SIZE
    scene = Scene.typical(rng, width=side, height=side, face_size=(size, size), attack=attack)
    scene = replace(scene, yaw=scene.yaw * 1.3, pitch=scene.pitch * 1.2, roll=scene.roll * 1.3)
    reach = max(0.06 * side, (side - 0.8 * size) / 2)
    x, y = side / 2 + reach * rng.uniform(-1, 1, 2)
    scene = replace(scene, centre=(float(x), float(y)))
    if rng.random() < 0.3:
        scene = replace(scene, light=scene.light * float(rng.uniform(0.5, 1.1)))
    return wear(render(None if chance < 0.3 else anyone(rng), scene, rng), rng)


def recogniser_crop(who: int, view: int) -> tuple[Pixels, Floats]:
    """An aligned crop of resident `who` with a margin (144 x 144), and its key points in it."""
    rng = np.random.default_rng([STREAMS["recogniser"], who, view])
    size = float(rng.uniform(75, 160))
    side = int(size * 1.5)
    scene = Scene.typical(rng, width=side, height=side, face_size=(size, size))
    scene = replace(scene, centre=(side / 2, side / 2))
    seen = render(resident(who), scene, rng)
    assert seen.keypoints is not None
    turn = similarity(seen.keypoints, TEMPLATE + np.float32(CROP_MARGIN))
    full = CROP_SIZE + 2 * CROP_MARGIN
    crop = cv2.warpAffine(seen.image, turn, (full, full))
    points = seen.keypoints @ turn[:, :2].T + turn[:, 2]
    return np.asarray(crop, dtype=np.uint8), points.astype(np.float32)


def pad_crop(image: Pixels, box: Floats, scale: float, size: int) -> Pixels:
    """The face box grown to a square, black beyond the frame, resized: size x size x 3."""
    side = scale * float(max(box[2] - box[0], box[3] - box[1]))
    x0 = round(float(box[0] + box[2]) / 2 - side / 2)
    y0 = round(float(box[1] + box[3]) / 2 - side / 2)
    length = max(1, round(side))
    square = np.zeros((length, length, 3), dtype=np.uint8)
    left, top = max(0, x0), max(0, y0)
    right, bottom = min(image.shape[1], x0 + length), min(image.shape[0], y0 + length)
    if right > left and bottom > top:
        square[top - y0 : bottom - y0, left - x0 : right - x0] = image[top:bottom, left:right]
    return np.asarray(cv2.resize(square, (size, size)), dtype=np.uint8)


def jitter_box(box: Floats, rng: np.random.Generator, sigma: float) -> Floats:
    """The box moved and resized by `sigma` of its size, as a detector would."""
    w, h = float(box[2] - box[0]), float(box[3] - box[1])
    return (box + rng.normal(0.0, sigma, 4) * (w, h, w, h)).astype(np.float32)


def pad_pictures(seed: int, crops: int) -> tuple[list[Pixels], int]:
    """`crops` jittered crops out of one full scene, and the class: 0 live, 1 print, 2 replay."""
    rng = np.random.default_rng([STREAMS["pad"], seed])
    label = (0, 0, 1, 2)[seed % 4]
    scene = Scene.typical(rng, face_size=(90.0, 310.0), attack=PAD_CLASSES[label])
    if rng.random() < 0.25:  # crops cut by the frame's edge
        at = rng.uniform(0.12, 0.88, 2) * (scene.width, scene.height)
        scene = replace(scene, centre=(float(at[0]), float(at[1])))
    seen = wear(render(anyone(rng), scene, rng), rng)
    assert seen.box is not None
    boxes = [jitter_box(seen.box, rng, 0.035) for _ in range(crops)]
    return [pad_crop(seen.image, box, PAD_SCALE, PAD_SIZE) for box in boxes], label
