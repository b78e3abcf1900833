"""Drawing one face: skin, eyes, brows, nose, mouth, hair, glasses. RGB colours, 0 to 255."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hil.residents.geometry import Head, Image, Points, ellipse, fill, stroke
from hil.residents.scene import Scene

Colour = NDArray[np.float64]
Traits = dict[str, float]

_SKIN = np.array([[246, 214, 188], [226, 180, 146], [193, 140, 104], [138, 92, 64], [84, 56, 42]])
_HAIR = np.array(
    [[24, 20, 20], [62, 40, 28], [112, 68, 38], [150, 62, 30], [206, 160, 84], [176, 172, 168]]
)
_IRIS = np.array([[44, 28, 20], [92, 58, 28], [96, 112, 60], [70, 112, 158]])
_LIPS = np.array([[196, 132, 118], [206, 96, 96], [168, 44, 58], [122, 62, 56]])
_FRAMES = np.array([[20, 20, 24], [122, 70, 30], [150, 30, 40], [40, 60, 130], [190, 190, 195]])


def along(table: NDArray[np.int64], trait: float) -> Colour:
    """The colour at `trait` (-1 to 1) along a table of colours."""
    at = (trait + 1.0) / 2.0 * (len(table) - 1)
    low = min(int(at), len(table) - 2)
    mixed: Colour = table[low] + (at - low) * (table[low + 1] - table[low])
    return mixed


@dataclass(frozen=True)
class Palette:
    """The colours of one resident."""

    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    frames: Colour

    @staticmethod
    def of(traits: Traits) -> Palette:
        skin = along(_SKIN, traits["skin_tone"])
        skin = skin * (1.0 + traits["skin_hue"] * np.array([0.05, -0.03, -0.14]))
        hair = along(_HAIR, traits["hair_colour"]) * (1.0 + 0.3 * traits["hair_light"])
        lips = along(_LIPS, traits["lip_colour"]) * 0.65 + skin * 0.3
        return Palette(
            np.clip(skin, 0, 255),
            np.clip(hair, 8, 255),
            along(_IRIS, traits["iris"]),
            np.clip(lips, 0, 255),
            along(_FRAMES, traits["glasses_colour"]),
        )


def eyes_at(traits: Traits) -> tuple[float, float]:
    """Half the distance between the eyes and their level, face units."""
    return 0.31 + 0.045 * traits["eye_gap"], -0.10 + 0.035 * traits["eye_level"]


def nose_at(traits: Traits) -> float:
    """Level of the nose's tip."""
    return 0.27 + 0.05 * traits["nose_length"]


def mouth_at(traits: Traits, scene: Scene) -> tuple[float, float, float]:
    """Half width, level, and how far the corners are raised."""
    half = 0.25 + 0.045 * traits["mouth_width"] + 0.03 * max(0.0, scene.expression)
    return half, 0.57 + 0.04 * traits["mouth_level"], 0.05 * scene.expression


def keypoints(head: Head, traits: Traits, scene: Scene) -> Points:
    """Eye, eye, nose tip, mouth corner, mouth corner: 5 x 2 px, left of the picture first."""
    gap, level = eyes_at(traits)
    half, mouth, lift = mouth_at(traits, scene)
    x = np.array([-gap, gap, 0.0, -half, half])
    y = np.array([level, level, nose_at(traits), mouth - lift, mouth - lift])
    return head.on_face(x, y, np.array([0.0, 0.0, 0.16, 0.0, 0.0]))


def draw_behind(image: Image, head: Head, traits: Traits, colours: Palette) -> None:
    """What lies behind the face: long hair, then neck and ears."""
    volume = 1.08 + 0.10 * traits["hair_volume"]
    if traits["hair_length"] > -0.2:
        sweep = np.linspace(-np.pi - 0.1, 0.1, 24)
        crown = head.silhouette(sweep, volume + 0.06)
        drop = 0.25 + 0.75 * (traits["hair_length"] + 0.2)
        ends = np.array([[0.92 * volume, drop], [-0.92 * volume, drop]], dtype=np.float32)
        fill(image, np.concatenate([crown, head.place(ends)]), colours.hair * 0.8)
    neck = np.array([[-0.42, 0.5], [0.42, 0.5], [0.48, 1.5], [-0.48, 1.5]], dtype=np.float32)
    fill(image, head.place(neck), colours.skin * 0.8)
    size = 0.17 + 0.05 * traits["ears"]
    for side in (-1.0, 1.0):
        turn = np.linspace(0, 2 * np.pi, 16)
        centre = side * (head.half_width * 1.02) - 0.2 * np.sin(head.yaw)
        ear = np.stack([centre + 0.09 * np.cos(turn), 0.08 + size * np.sin(turn)], axis=1)
        fill(image, head.place(ear.astype(np.float32)), colours.skin * 0.88)


def draw_skin(image: Image, head: Head, traits: Traits, colours: Palette) -> None:
    """The bare face: outline, cheeks, shadows under the eyes, freckles, moles."""
    skin = colours.skin
    fill(image, head.outline(), skin)
    gap, level = eyes_at(traits)
    if traits["blush"] > 0:
        rosy = skin * (1 - 0.3 * traits["blush"]) + np.array([206, 84, 84]) * 0.3 * traits["blush"]
        for side in (-1.0, 1.0):
            fill(image, ellipse(head, side * (gap + 0.09), 0.24, 0.16, 0.11), rosy)
    dark = 0.90 - 0.14 * traits["eye_shadow"]
    for side in (-1.0, 1.0):
        fill(image, ellipse(head, side * gap, level + 0.02, 0.18, 0.13), skin * dark)
    if traits["freckles"] > 0.3:
        for step in range(14):
            x, y = 0.42 * np.sin(step * 2.4), 0.20 + 0.10 * np.cos(step * 1.7)
            fill(image, ellipse(head, float(x), float(y), 0.014, 0.014), skin * 0.72)
    size = 0.026 + 0.014 * traits["mole_size"]
    for name in ("a", "b", "c"):
        x, y = traits[f"mole_{name}_x"], traits[f"mole_{name}_y"]
        fill(image, ellipse(head, 0.52 * x, 0.25 + 0.5 * y, size, size), skin * 0.4)


def draw_eyes(image: Image, head: Head, traits: Traits, colours: Palette, scene: Scene) -> None:
    """Whites, irises, lids and brows."""
    gap, level = eyes_at(traits)
    wide = 0.125 + 0.03 * traits["eye_size"]
    high = wide * (0.50 + 0.13 * traits["eye_open"]) * scene.eyes_open
    weight = 0.045 + 0.028 * traits["brow_weight"]
    for side in (-1.0, 1.0):
        slant = -side * 0.16 * traits["eye_slant"]
        fill(image, ellipse(head, side * gap, level, wide * 1.12, high * 1.3, slant), _LID)
        fill(image, ellipse(head, side * gap, level, wide, high, slant), _WHITE)
        round_ = min(high * 1.05, wide * 0.62)
        fill(image, ellipse(head, side * gap, level, wide * 0.56, round_), colours.iris)
        fill(image, ellipse(head, side * gap, level, wide * 0.25, round_ * 0.5), _LID * 0.3)
        inner, outer = gap - 0.15, gap + 0.17 + 0.03 * traits["brow_length"]
        x = np.linspace(inner, outer, 8)
        rise = 0.09 * traits["brow_angle"] * (x - gap) / 0.17 + 0.035 * np.sin(
            (x - inner) / (outer - inner) * np.pi
        )
        y = level - 0.21 - 0.035 * traits["brow_level"] - rise + 0.02 * traits["asymmetry"] * side
        upper = head.on_face(side * x, y - weight * np.linspace(1.0, 0.55, 8))
        lower = head.on_face(side * x, y + weight * np.linspace(0.8, 0.1, 8))
        fill(image, np.concatenate([upper, lower[::-1]]), colours.hair * 0.75)


def draw_nose(image: Image, head: Head, traits: Traits, colours: Palette) -> None:
    """The bridge, the shaded sides, the tip and the nostrils."""
    tip, wide = nose_at(traits), 0.125 + 0.04 * traits["nose_width"]
    _, level = eyes_at(traits)
    dark = colours.skin * (0.82 - 0.08 * traits["nose_shade"])
    x = np.array([-0.05, -0.06, -wide, -wide * 0.8, wide * 0.8, wide, 0.06, 0.05])
    y = np.array([level, 0.1, tip - 0.02, tip + 0.07, tip + 0.07, tip - 0.02, 0.1, level])
    out = np.array([0.02, 0.06, 0.02, 0.02, 0.02, 0.02, 0.06, 0.02])
    fill(image, head.on_face(x, y, out), dark)
    x = np.array([-0.035, -0.04, -0.06, 0.06, 0.04, 0.035])
    y = np.array([level, 0.1, tip + 0.02, tip + 0.02, 0.1, level])
    out = np.array([0.03, 0.09, 0.16, 0.16, 0.09, 0.03])
    fill(image, head.on_face(x, y, out), np.clip(colours.skin * 1.06, 0, 255))
    for side in (-1.0, 1.0):
        fill(image, ellipse(head, side * wide * 0.5, tip + 0.055, 0.036, 0.022), dark * 0.45)


def draw_mouth(image: Image, head: Head, traits: Traits, colours: Palette, scene: Scene) -> None:
    """Lips, and teeth when the mouth is open."""
    half, level, lift = mouth_at(traits, scene)
    upper, lower = 0.048 + 0.02 * traits["lip_upper"], 0.06 + 0.024 * traits["lip_lower"]
    x = np.linspace(-half, half, 11)
    bow = 1.0 - (x / half) ** 2
    middle = level - lift * (x / half) ** 2 * 1.0
    gape = 0.10 * scene.mouth_open * bow
    top = head.on_face(x, middle - upper * bow**0.7 * (1.0 - 0.25 * np.exp(-((x / 0.04) ** 2))))
    bottom = head.on_face(x, middle + gape + lower * bow**0.8)
    fill(image, np.concatenate([top, bottom[::-1]]), colours.lips)
    if scene.mouth_open > 0.05:
        inside = [head.on_face(x, middle - 0.004), head.on_face(x, middle + gape)[::-1]]
        fill(image, np.concatenate(inside), np.array([90.0, 40.0, 40.0]))
        teeth = [head.on_face(x, middle - 0.004), head.on_face(x, middle + gape * 0.4)[::-1]]
        fill(image, np.concatenate(teeth), np.array([228.0, 222.0, 212.0]))
    else:
        stroke(image, head.on_face(x, middle), colours.lips * 0.5, 0.016 * head.scale)


def draw_beard(image: Image, head: Head, traits: Traits, colours: Palette, scene: Scene) -> None:
    """Beard and moustache, drawn before the mouth."""
    half, level, _ = mouth_at(traits, scene)
    tint = colours.hair * 0.8 + colours.skin * 0.15
    if traits["beard"] > 0.2:
        turn = np.linspace(0.12, np.pi - 0.12, 20)
        rim = head.silhouette(turn, 1.02)
        deep = 0.05 + 0.30 * (traits["beard"] - 0.2)
        x = np.linspace(-0.95, 0.95, 12) * head.half_width * 0.92
        y = 0.34 + (level - 0.30 - deep) * np.cos(x / head.half_width * np.pi / 2)
        fill(image, np.concatenate([rim, head.on_face(x, y + 0.12)]), tint)
    if traits["moustache"] > 0.3:
        x = np.linspace(-half * 1.05, half * 1.05, 9)
        dip = (x / half) ** 2
        top = head.on_face(x, level - 0.12 + 0.05 * dip)
        bottom = head.on_face(x, level - 0.04 + 0.07 * dip)
        fill(image, np.concatenate([top, bottom[::-1]]), tint)


def draw_hair(image: Image, head: Head, traits: Traits, colours: Palette) -> None:
    """The hair in front: crown and fringe."""
    volume = 1.05 + 0.10 * traits["hair_volume"]
    side = np.pi * 0.02 + 0.12 * traits["hair_length"]
    sweep = np.linspace(-np.pi - side, side, 26)
    crown = head.silhouette(sweep, volume)
    line = -0.62 - 0.08 * traits["forehead"] + 0.20 * max(-0.6, traits["fringe"])
    x = np.linspace(0.97, -0.97, 13)
    part = 0.55 * traits["parting"]
    dip = 0.45 * np.abs(x) ** 3 + 0.16 * np.exp(-((x - part) ** 2) / 0.05) * -1.0
    front = head.on_face(x * head.half_width, line + dip)
    fill(image, np.concatenate([crown, front]), colours.hair)
    for shift in (-0.12, 0.1):
        arc = head.silhouette(np.linspace(-2.2, -0.9, 8) + shift, 0.93 * volume)
        stroke(image, arc, np.clip(colours.hair * 1.35 + 8, 0, 255), 0.02 * head.scale)


def draw_glasses(image: Image, head: Head, traits: Traits, colours: Palette) -> None:
    """Two rims, a bridge and the temples, when the resident wears glasses."""
    if traits["glasses"] < 0.35:
        return
    gap, level = eyes_at(traits)
    wide, high = 0.21 + 0.03 * traits["glasses_size"], 0.16 + 0.035 * traits["glasses_size"]
    thick = 0.034 * head.scale
    for side in (-1.0, 1.0):
        rim = ellipse(head, side * gap, level + 0.02, wide, high)
        stroke(image, np.concatenate([rim, rim[:1]]), colours.frames, thick)
        arm = head.on_face(np.array([side * (gap + wide), side * 0.71]), np.array([level, -0.12]))
        stroke(image, arm, colours.frames, thick)
    bridge = head.on_face(np.linspace(-(gap - wide), gap - wide, 5), level - 0.02, 0.06)
    stroke(image, bridge, colours.frames, thick)


_WHITE = np.array([232.0, 228.0, 222.0])
_LID = np.array([58.0, 40.0, 36.0])
