"""The head as a solid: where a point of the face lands in the picture, and how it is lit.

Face coordinates: the eyes to chin distance is about 1, x right and y down in the picture,
z towards the camera; the origin is the middle of the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hil.residents.scene import Scene

Points = NDArray[np.float32]
Image = NDArray[np.uint8]

SUBPIXEL_BITS = 4  # cv2 fixed-point shift: polygons are placed to 1/16 pixel
BOX_TOP = -0.72  # the face box starts at the hairline, as in the usual face data sets
BOX_HEIGHT = 1.0 - BOX_TOP  # hairline to chin of an average head
_TURN = np.linspace(0.0, 2.0 * np.pi, 49)[:-1]


@dataclass(frozen=True)
class Head:
    """One head in one pose. `half_width`, `chin` and `jaw` shape the outline."""

    half_width: float
    chin: float
    jaw: float
    cheeks: float
    scale: float
    origin: tuple[float, float]
    yaw: float
    pitch: float
    roll: float

    @staticmethod
    def of(traits: dict[str, float], scene: Scene) -> Head:
        """The head of a resident, placed as the scene says."""
        middle = scene.centre or (scene.width / 2.0, scene.height / 2.0)
        scale = scene.face_size / BOX_HEIGHT
        roll = float(np.radians(scene.roll))
        lift = -0.5 * (1.0 + BOX_TOP) * scale  # the box's middle, not the head's, is the centre
        return Head(
            half_width=0.72 + 0.09 * traits["face_width"],
            chin=1.0 + 0.07 * traits["chin"],
            jaw=traits["jaw"],
            cheeks=traits["cheeks"],
            scale=scale,
            origin=(middle[0] - lift * np.sin(roll), middle[1] + lift * np.cos(roll)),
            yaw=float(np.radians(scene.yaw)),
            pitch=float(np.radians(scene.pitch)),
            roll=roll,
        )

    def place(self, flat: Points) -> Points:
        """N x 2 offsets in the upright picture plane -> N x 2 pixels: roll, scale, shift."""
        c, s = np.cos(self.roll) * self.scale, np.sin(self.roll) * self.scale
        turn = np.array([[c, s], [-s, c]], dtype=np.float32)
        return np.asarray(flat @ turn + np.array(self.origin, dtype=np.float32), dtype=np.float32)

    def on_face(self, x: object, y: object, out: object = 0.0) -> Points:
        """Points on the face's surface (N each, broadcast), `out` in front of it -> N x 2 px."""
        px, py, pz = np.broadcast_arrays(
            np.atleast_1d(np.asarray(x, dtype=np.float32)),
            np.atleast_1d(np.asarray(y, dtype=np.float32)),
            np.atleast_1d(np.asarray(out, dtype=np.float32)),
        )
        inside = 1.0 - (px / (self.half_width * 1.06)) ** 2 - (py / 1.25) ** 2
        depth = 0.78 * np.sqrt(np.maximum(0.02, inside)) + pz
        across = px * np.cos(self.yaw) + depth * np.sin(self.yaw)
        depth = depth * np.cos(self.yaw) - px * np.sin(self.yaw)
        down = py * np.cos(self.pitch) + depth * np.sin(self.pitch)
        # The turning axis lies behind the face: without this the whole face would slide away.
        across = across - 0.45 * np.sin(self.yaw)
        down = down - 0.45 * np.sin(self.pitch)
        return self.place(np.stack([across, down], axis=1).astype(np.float32))

    def outline(self, grow: float = 1.0) -> Points:
        """The silhouette of the skull and jaw, 48 x 2 px."""
        return self.silhouette(_TURN, grow)

    def silhouette(self, angles: NDArray[np.float64], grow: float = 1.0) -> Points:
        """Silhouette at the angles given (0 right, pi/2 chin), `grow` times as far out."""
        c, s = np.cos(angles), np.sin(angles)
        low = np.maximum(s, 0.0)
        width = self.half_width * (1.0 + 0.05 * self.cheeks * np.exp(-((s - 0.1) ** 2) / 0.08))
        square = 0.42 + 0.16 * self.jaw  # 0: pointed chin, 1: a box
        x = c * width * (1.0 + square * low**1.5 * (1.0 - low**4) - 0.10 * low)
        y = np.where(s > 0, s * self.chin, s * 1.06)
        x, y = x * grow, y * grow
        x = x * (0.35 * np.cos(self.yaw) + 0.65) + 0.26 * np.maximum(y, 0) * np.sin(self.yaw)
        y = y * (0.4 * np.cos(self.pitch) + 0.6) + 0.16 * np.sin(self.pitch)
        return self.place(np.stack([x, y], axis=1).astype(np.float32))

    def box(self) -> NDArray[np.float32]:
        """xyxy of the face from the hairline down, in pixels."""
        points = self.silhouette(np.linspace(-0.75, np.pi + 0.75, 40))
        return np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(np.float32)


def fill(image: Image, points: Points, colour: NDArray[np.float64]) -> None:
    """Fill an N x 2 polygon, smooth-edged, in place."""
    fixed = np.round(points * (1 << SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(image, [fixed], bgr(colour), cv2.LINE_AA, SUBPIXEL_BITS)


def stroke(image: Image, points: Points, colour: NDArray[np.float64], width_px: float) -> None:
    """Draw an open line through N x 2 points in place."""
    fixed = np.round(points * (1 << SUBPIXEL_BITS)).astype(np.int32)
    thick = max(1, round(width_px))
    cv2.polylines(image, [fixed], False, bgr(colour), thick, cv2.LINE_AA, SUBPIXEL_BITS)


def bgr(rgb: NDArray[np.float64]) -> tuple[float, float, float]:
    """An RGB colour, 0 to 255, as cv2 wants it."""
    return float(rgb[2]), float(rgb[1]), float(rgb[0])


def ellipse(head: Head, x: float, y: float, wide: float, high: float, tilt: float = 0.0) -> Points:
    """A 24-gon ellipse on the face's surface; half axes in face units, tilt in radians."""
    turn = _TURN[::2]
    u, v = wide * np.cos(turn), high * np.sin(turn)
    c, s = np.cos(tilt), np.sin(tilt)
    return head.on_face(x + u * c - v * s, y + u * s + v * c)


def shade(image: Image, head: Head, scene: Scene) -> None:
    """Light the head as an ellipsoid, in place; the room keeps its own light."""
    reach = 1.75 * head.scale
    x0, y0 = (int(max(0.0, v - reach)) for v in head.origin)
    x1 = int(min(image.shape[1], head.origin[0] + reach))
    y1 = int(min(image.shape[0], head.origin[1] + reach))
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    xs, ys = np.linspace(x0, x1, 40), np.linspace(y0, y1, 40)
    u = (xs[None, :] - head.origin[0]) / (head.scale * 0.95)
    v = (ys[:, None] - head.origin[1]) / (head.scale * 1.25)
    u = u + 0.35 * np.sin(head.yaw)
    away = u * u + v * v
    depth = np.sqrt(np.maximum(0.05, 1.0 - away))
    lx, ly = scene.light_from
    towards = np.array([lx, ly, 1.0]) / np.sqrt(lx * lx + ly * ly + 1.0)
    lit = np.clip(u * towards[0] + v * towards[1] + depth * towards[2], 0.0, None)
    gain = scene.ambient + (1.0 - scene.ambient) * 1.25 * lit
    smooth = cv2.resize(gain.astype(np.float32), (x1 - x0, y1 - y0))
    inside = np.zeros((y1 - y0, x1 - x0, 3), dtype=np.uint8)
    corner = np.array([x0, y0], dtype=np.float32)
    fill(inside, head.outline(1.04) - corner, np.array([255.0, 255.0, 255.0]))
    smooth = 1.0 + (smooth - 1.0) * (inside[:, :, 0] * np.float32(1 / 255))
    part = image[y0:y1, x0:x1]
    cv2.multiply(part, cv2.merge([smooth] * 3), dst=part, dtype=cv2.CV_8U)
