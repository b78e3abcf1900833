"""The room and the camera: what is behind the face, and what the sensor does to the light."""

from __future__ import annotations

import cv2
import numpy as np

from hil.residents.geometry import Image
from hil.residents.scene import Scene


def backdrop(scene: Scene) -> Image:
    """An H x W x 3 wall with things on it, drawn from the scene's background seed alone."""
    rng = np.random.default_rng([0xBAC4, scene.background])
    base = rng.uniform(30, 220, 3) * np.array([1.0, 1.0, 1.0]) * 0.5 + rng.uniform(15, 115)
    rough = rng.uniform(0, 1, (int(rng.integers(2, 9)), int(rng.integers(2, 9)), 3)) - 0.5
    coarse = base + rough * rng.uniform(10, 110)
    wall = cv2.resize(coarse.astype(np.float32), (scene.width, scene.height))
    image: Image = np.clip(wall, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(2, 12))):
        _thing(image, rng)
    return image


def _thing(image: Image, rng: np.random.Generator) -> None:
    """One object: a board, a door frame, a pole, a lamp, a plant, a blob of skin colour."""
    h, w = image.shape[:2]
    colour = tuple(float(v) for v in rng.uniform(10, 245, 3))
    if rng.random() < 0.25:  # skin and wood colours are not faces
        tone = rng.uniform(0.3, 1.0)
        colour = (150 * tone, 185 * tone, 235 * tone)
    x, y = int(rng.uniform(-0.1, 1) * w), int(rng.uniform(-0.1, 1) * h)
    span = (max(2, int(w * rng.uniform(0.02, 0.5))), max(2, int(h * rng.uniform(0.02, 0.7))))
    kind = int(rng.integers(0, 6))
    thick = -1 if rng.random() < 0.7 else int(rng.integers(1, max(2, w // 60)))
    if kind <= 1:
        cv2.rectangle(image, (x, y), (x + span[0], y + span[1]), colour, thick)
        if rng.random() < 0.4:
            edge = tuple(float(v) for v in rng.uniform(10, 245, 3))
            cv2.rectangle(image, (x, y), (x + span[0], y + span[1]), edge, max(1, w // 80))
    elif kind == 2:
        turn = float(rng.uniform(0, 180))
        half = (span[0] // 3, span[1] // 4)
        cv2.ellipse(image, (x, y), half, turn, 0.0, 360.0, colour, thick, cv2.LINE_AA)
    elif kind == 3:
        end = (int(rng.uniform(0, 1) * w), int(rng.uniform(0, 1) * h))
        cv2.line(image, (x, y), end, colour, int(rng.integers(1, max(2, w // 30))), cv2.LINE_AA)
    elif kind == 4:
        corners = (rng.uniform(-0.3, 0.3, (int(rng.integers(3, 9)), 2)) * w + (x, y)).astype(int)
        cv2.fillPoly(image, [corners.astype(np.int32)], colour, cv2.LINE_AA)
    else:
        for step in range(int(rng.integers(3, 12))):
            at = (x + step * max(3, span[0] // 5), y)
            cv2.circle(image, at, max(1, span[0] // 12), colour, thick, cv2.LINE_AA)


def clothes(image: Image, scene: Scene, middle_x: float, neck_y: float, scale: float) -> None:
    """Shoulders below the face, in a colour of the scene's (never the resident's), in place."""
    rng = np.random.default_rng([0xC107, scene.background])
    colour = tuple(float(v) for v in rng.uniform(10, 240, 3))
    wide, drop = scale * rng.uniform(1.2, 1.7), scale * rng.uniform(0.25, 0.45)
    half = [[0.4, 0.0], [0.75, drop / scale], [1.0, 0.9], [1.0, 6.0]]
    shape = np.array([*half, *([-x, y] for x, y in reversed(half))])
    corners = shape * np.array([wide, scale]) + np.array([middle_x, neck_y])
    cv2.fillPoly(image, [np.round(corners * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)


def passer_by(image: Image, scene: Scene) -> None:
    """In two of five rooms somebody seen from behind: clothes and hair, but no face; in place."""
    rng = np.random.default_rng([0xBE41, scene.background])
    if rng.random() > 0.4:
        return
    scale = min(scene.width, scene.height) * rng.uniform(0.08, 0.35)
    x, y = scene.width * rng.uniform(0.1, 0.9), scene.height * rng.uniform(0.2, 0.8)
    tone = rng.uniform(0.2, 1.0)
    neck = (int(x - 0.4 * scale), int(y), int(0.8 * scale), int(1.6 * scale))
    cv2.rectangle(image, neck, (120 * tone, 150 * tone, 200 * tone), -1)
    clothes(image, scene, float(x), float(y + 1.25 * scale), float(scale))
    hair = tuple(float(v) for v in np.array([40, 60, 90]) * rng.uniform(0.2, 2.2))
    axes = (int(scale * rng.uniform(0.72, 0.9)), int(scale * rng.uniform(1.0, 1.2)))
    cv2.ellipse(image, (int(x), int(y)), axes, 0.0, 0.0, 360.0, hair, -1, cv2.LINE_AA)


def expose(image: Image, scene: Scene, rng: np.random.Generator) -> Image:
    """Colour cast, exposure, lens blur and sensor noise: what the camera hands over."""
    cast = np.array([1.0 - 0.22 * scene.warmth, 1.0, 1.0 + 0.18 * scene.warmth]) * scene.light
    table = np.clip(np.arange(256)[:, None] * cast[None, :], 0, 255).round().astype(np.uint8)
    seen = cv2.LUT(image, table[None, :, :])
    if scene.blur > 0.15:
        seen = cv2.GaussianBlur(seen, (0, 0), scene.blur)
    if scene.noise > 0.0:
        grain = rng.standard_normal(image.shape[:2], dtype=np.float32) * scene.noise
        half = (image.shape[0] // 2 + 1, image.shape[1] // 2 + 1, 3)
        speck = rng.standard_normal(half, dtype=np.float32) * (0.6 * scene.noise)
        colour = cv2.resize(speck, (image.shape[1], image.shape[0]))
        seen = cv2.add(seen, cv2.add(cv2.merge([grain] * 3), colour), dtype=cv2.CV_8U)
    return np.asarray(seen, dtype=np.uint8)
