"""From a resident and a scene to a picture with exact labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from hil.residents import features
from hil.residents.attack import hold_up, print_on_paper, show_on_screen
from hil.residents.geometry import Head, Image, shade
from hil.residents.identity import Identity
from hil.residents.scene import Scene
from hil.residents.sensor import backdrop, clothes, expose, passer_by


@dataclass(frozen=True)
class Rendered:
    """A picture and what is in it."""

    image: Image
    """H x W x 3, BGR."""
    box: NDArray[np.float32] | None
    """Face from hairline to chin, xyxy in pixels; it may reach beyond the frame."""
    keypoints: NDArray[np.float32] | None
    """5 x 2 pixels: eye, eye, nose tip, mouth corner, mouth corner, left of the picture first."""


def render(identity: Identity | None, scene: Scene, rng: np.random.Generator) -> Rendered:
    """The frame a camera would deliver. Same arguments and generator state, same pixels."""
    if identity is None:
        room = backdrop(scene)
        passer_by(room, scene)
        return Rendered(expose(room, scene, rng), None, None)
    if scene.attack is not None:
        return _attack(identity, scene, rng)
    image, box, points = _person(identity, scene)
    return Rendered(expose(image, scene, rng), box, points)


def _person(
    identity: Identity, scene: Scene
) -> tuple[Image, NDArray[np.float32], NDArray[np.float32]]:
    """The person in the room, before the camera's faults."""
    image = backdrop(scene)
    traits = identity.traits()
    head, colours = Head.of(traits, scene), features.Palette.of(traits)
    features.draw_behind(image, head, traits, colours)
    clothes(image, scene, head.origin[0], head.origin[1] + 1.25 * head.scale, head.scale)
    features.draw_skin(image, head, traits, colours)
    features.draw_beard(image, head, traits, colours, scene)
    features.draw_mouth(image, head, traits, colours, scene)
    features.draw_eyes(image, head, traits, colours, scene)
    features.draw_nose(image, head, traits, colours)
    features.draw_hair(image, head, traits, colours)
    features.draw_glasses(image, head, traits, colours)
    shade(image, head, scene)
    return image, head.box(), features.keypoints(head, traits, scene)


def _attack(identity: Identity, scene: Scene, rng: np.random.Generator) -> Rendered:
    """The resident's picture, on paper or on a screen, in front of the room."""
    size = scene.face_size
    large = 1.4 if rng.random() < 0.2 else 1.0  # one in five fills most of the view
    wide = int(size * rng.uniform(1.0, 1.7) * large)
    high = int(size * rng.uniform(1.25, 1.9) * large)
    inner = replace(
        Scene.typical(rng, width=wide, height=high, face_size=(size, size)),
        centre=(wide * float(rng.uniform(0.42, 0.58)), high * float(rng.uniform(0.42, 0.52))),
        roll=float(rng.normal(0.0, 2.0)),
        noise=0.0,
    )
    picture, box, points = _person(identity, inner)
    picture = expose(picture, inner, rng)
    medium = print_on_paper if scene.attack == "print" else show_on_screen
    sheet, margin = medium(picture, rng)
    middle = (float(box[0] + box[2]) / 2 + margin, float(box[1] + box[3]) / 2 + margin)
    frame = backdrop(scene)
    to_frame = hold_up(frame, sheet, middle, scene, rng)
    corners = np.array([[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]])
    both = np.concatenate([corners, points]).astype(np.float32) + np.float32(margin)
    moved = cv2.perspectiveTransform(both[None], to_frame)[0]
    outer = np.concatenate([moved[:4].min(axis=0), moved[:4].max(axis=0)])
    seen = expose(frame, scene, rng)
    return Rendered(seen, outer.astype(np.float32), moved[4:].astype(np.float32))
