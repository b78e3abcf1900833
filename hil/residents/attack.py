"""Presentation attacks: the resident's picture on paper, or on a screen, held to the camera.

What gives them away is what the materials do, never a mark: ink cannot print the camera's blacks
and whites and lies down in dots; a screen glows bluish, has a pixel grid that beats with the
sensor's, reflects lamps, and has a bezel.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from hil.residents.geometry import Image
from hil.residents.scene import Scene

Matrix = NDArray[np.float64]


def print_on_paper(picture: Image, rng: np.random.Generator) -> tuple[Image, int]:
    """The picture printed, with its white margin; also the margin in pixels."""
    floor, ceiling = rng.uniform(42, 80), rng.uniform(190, 226)
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    fade = float(rng.uniform(0.5, 0.85))
    inked = cv2.addWeighted(picture, fade, grey, 1.0 - fade, 0.0)
    tint = 1.0 + rng.uniform(-0.07, 0.07, 3)
    table = floor + np.arange(256)[:, None] / 255.0 * (ceiling - floor) * tint[None, :]
    inked = cv2.LUT(inked, np.clip(table, 0, 255).astype(np.uint8)[None])
    h, w = picture.shape[:2]
    period, angle = rng.uniform(2.6, 5.5), rng.uniform(0.2, 1.2)
    dots = _waves(h, w, period, angle) * _waves(h, w, period, angle + np.pi / 2)
    bands = _waves(h, w, float(rng.uniform(9, 30)), np.pi / 2)
    screen = dots * rng.uniform(10, 26) + bands * rng.uniform(0, 7)
    inked = cv2.add(inked, cv2.merge([screen] * 3), dtype=cv2.CV_8U)
    margin = max(2, int(h * rng.uniform(0.02, 0.10)))
    paper = tuple(float(v) for v in rng.uniform(206, 246) + rng.uniform(-6, 6, 3))
    return _framed(np.asarray(inked, dtype=np.uint8), margin, paper), margin


def show_on_screen(picture: Image, rng: np.random.Generator) -> tuple[Image, int]:
    """The picture on a lit screen inside its bezel; also the bezel's width in pixels."""
    h, w = picture.shape[:2]
    lift, gain = rng.uniform(18, 42), rng.uniform(0.95, 1.2)
    blue = np.array([rng.uniform(1.08, 1.26), rng.uniform(0.98, 1.06), rng.uniform(0.82, 0.96)])
    table = (np.arange(256)[:, None] * gain + lift) * blue[None, :]
    lit = cv2.LUT(picture, np.clip(table, 0, 255).astype(np.uint8)[None])
    grid = _waves(h, w, float(rng.uniform(2.1, 4.0)), 0.0) * rng.uniform(6, 16)
    turn = float(rng.uniform(0, np.pi))
    beat = _waves(h, w, float(rng.uniform(8, 34)), turn, bend=float(rng.uniform(0, 8)))
    shift = np.array([0.0, 2.1, 4.2]) * rng.uniform(0.3, 1.0)
    strength = rng.uniform(6, 16)
    moire = [(grid + beat * strength * np.cos(s)).astype(np.float32) for s in shift]
    lit = cv2.add(lit, cv2.merge(moire), dtype=cv2.CV_8U)
    if rng.random() < 0.7:
        lit = _glare(np.asarray(lit, dtype=np.uint8), rng)
    bezel = max(3, int(h * rng.uniform(0.03, 0.09)))
    dark = tuple(float(v) for v in rng.uniform(8, 46) + rng.uniform(-4, 4, 3))
    if rng.random() < 0.15:
        dark = tuple(float(v) for v in rng.uniform(170, 230) + rng.uniform(-4, 4, 3))
    return _framed(np.asarray(lit, dtype=np.uint8), bezel, dark), bezel


def _framed(picture: Image, wide: int, colour: tuple[float, ...]) -> Image:
    """The picture with an even edge `wide` pixels wide."""
    edge = cv2.copyMakeBorder(picture, wide, wide, wide, wide, cv2.BORDER_CONSTANT, value=colour)
    return np.asarray(edge, dtype=np.uint8)


def _waves(h: int, w: int, period: float, angle: float, bend: float = 0.0) -> NDArray[np.float32]:
    """A sine of this period (pixels) across an h x w picture, values -1 to 1."""
    x, y = np.arange(w, dtype=np.float32)[None, :], np.arange(h, dtype=np.float32)[:, None]
    k = np.float32(2 * np.pi / period)
    along = x * np.float32(k * np.cos(angle)) + y * np.float32(k * np.sin(angle))
    if bend:
        along = along + np.float32(bend) * np.sin(x / np.float32(w) * 2 + y / np.float32(h) * 3)
    return np.asarray(np.sin(along), dtype=np.float32)


def _glare(image: Image, rng: np.random.Generator) -> Image:
    """A lamp reflected in the glass: a soft bright stripe or spot."""
    h, w = image.shape[:2]
    small = np.zeros((32, 32), dtype=np.float32)
    x = float(rng.uniform(0, 32))
    if rng.random() < 0.6:
        corners = np.array([[x, 0], [x + rng.uniform(2, 7), 0], [x - 10, 32], [x - 16, 32]])
        cv2.fillPoly(small, [corners.astype(np.int32)], 1.0)
    else:
        cv2.circle(small, (int(x), int(rng.uniform(0, 32))), int(rng.uniform(2, 6)), 1.0, -1)
    soft = cv2.resize(cv2.GaussianBlur(small, (0, 0), 1.2), (w, h)) * rng.uniform(40, 110)
    return np.asarray(cv2.add(image, cv2.merge([soft] * 3), dtype=cv2.CV_8U), dtype=np.uint8)


def hold_up(
    frame: Image,
    sheet: Image,
    face: tuple[float, float],
    scene: Scene,
    rng: np.random.Generator,
) -> Matrix:
    """Draw the sheet into the frame, the point `face` of it at the scene's centre, in place.

    Returns the 3 x 3 map from sheet to frame pixels. The sheet is rolled by the scene's roll and
    tilted a little out of the picture's plane.
    """
    h, w = sheet.shape[:2]
    middle = scene.centre or (frame.shape[1] / 2.0, frame.shape[0] / 2.0)
    roll = np.radians(scene.roll)
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    corners = np.array([[0.0, 0.0], [w, 0.0], [w, h], [0.0, h]])
    placed = (corners - np.array(face)) @ turn.T + np.array(middle)
    placed += rng.uniform(-0.045, 0.045, (4, 2)) * np.array([w, h])
    to_frame = cv2.getPerspectiveTransform(corners.astype(np.float32), placed.astype(np.float32))
    size = (frame.shape[1], frame.shape[0])
    _hand(frame, placed, rng)
    cv2.warpPerspective(
        sheet, to_frame, size, dst=frame, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_TRANSPARENT
    )
    return np.asarray(to_frame, dtype=np.float64)


def _hand(frame: Image, corners: NDArray[np.float64], rng: np.random.Generator) -> None:
    """A hand below the sheet, mostly hidden by it, in place."""
    tone = rng.uniform(0.35, 1.0)
    at = corners[3] + (corners[2] - corners[3]) * rng.uniform(0.1, 0.9)
    size = abs(corners[2][0] - corners[3][0]) * 0.16
    axes = (max(2, int(size)), max(2, int(size * 0.7)))
    skin = (150 * tone, 185 * tone, 235 * tone)
    cv2.ellipse(frame, (int(at[0]), int(at[1])), axes, 0.0, 0.0, 360.0, skin, -1, cv2.LINE_AA)
