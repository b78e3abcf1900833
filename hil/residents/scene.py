"""What a camera at a gate might see: the pose, the light, the picture's faults, an attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Attack = Literal["print", "replay"]


@dataclass(frozen=True)
class Scene:
    """One view. Angles in degrees, lengths in pixels of the frame.

    `face_size` is the height of the face box (hairline to chin) of an upright frontal face.
    `centre` is where the middle of the face lies; None is the middle of the frame.
    Positive `yaw` turns the face to the right of the picture, positive `pitch` downwards,
    positive `roll` clockwise.
    """

    width: int = 640
    height: int = 480
    face_size: float = 200.0
    centre: tuple[float, float] | None = None
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    light: float = 1.0
    """Exposure: 1 is right, 0.5 is dim."""
    light_from: tuple[float, float] = (-0.3, -0.4)
    """Where the main light comes from, right and down, in units of its distance."""
    ambient: float = 0.65
    """Share of the light that has no direction, 0 to 1."""
    warmth: float = 0.0
    """Colour cast, -1 (blue) to 1 (orange)."""
    expression: float = 0.0
    """-1 (frown) to 1 (broad smile)."""
    mouth_open: float = 0.0
    """0 (closed) to 1."""
    eyes_open: float = 1.0
    """0.4 (narrowed) to 1."""
    noise: float = 2.0
    """Standard deviation of the sensor noise in grey levels."""
    blur: float = 0.4
    """Standard deviation of the lens blur in pixels."""
    background: int = 0
    """Seed of everything around the face: wall, things, clothes."""
    attack: Attack | None = None

    @staticmethod
    def typical(
        rng: np.random.Generator,
        *,
        width: int = 640,
        height: int = 480,
        face_size: tuple[float, float] = (120.0, 300.0),
        attack: Attack | None = None,
    ) -> Scene:
        """A plausible frame at a gate: the person stands, looks roughly ahead, is lit somehow."""
        size = float(rng.uniform(*face_size))
        reach_x, reach_y = max(0.0, width - 0.85 * size), max(0.0, height - 1.1 * size)
        return Scene(
            width=width,
            height=height,
            face_size=size,
            centre=(
                float(width / 2 + reach_x * rng.uniform(-0.4, 0.4)),
                float(height / 2 + reach_y * rng.uniform(-0.4, 0.4)),
            ),
            yaw=float(np.clip(rng.normal(0.0, 9.0), -25.0, 25.0)),
            pitch=float(np.clip(rng.normal(0.0, 6.0), -16.0, 16.0)),
            roll=float(np.clip(rng.normal(0.0, 5.0), -15.0, 15.0)),
            light=float(rng.uniform(0.65, 1.2)),
            light_from=(float(rng.uniform(-0.8, 0.8)), float(rng.uniform(-0.9, 0.2))),
            ambient=float(rng.uniform(0.45, 0.9)),
            warmth=float(rng.uniform(-0.5, 0.5)),
            expression=float(rng.uniform(-0.5, 1.0)),
            mouth_open=float(max(0.0, rng.uniform(-1.0, 0.7))),
            eyes_open=float(rng.uniform(0.6, 1.0)),
            noise=float(rng.uniform(1.0, 6.0)),
            blur=float(rng.uniform(0.2, 1.0) * size / 200.0),
            background=int(rng.integers(1 << 31)),
            attack=attack,
        )
