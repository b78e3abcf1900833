"""Artificial residents: faces drawn from a seed, for rigs and demonstrations.

Everything is numpy and cv2; nothing comes from photographs. What a picture shows is in its pixels
only: no mark, place or name gives the identity or an attack away.
"""

from hil.residents.identity import Identity, distance, drawn_apart, resident
from hil.residents.picture import Rendered, render
from hil.residents.scene import Attack, Scene

__all__ = [
    "Attack", "Identity", "Rendered", "Scene", "distance", "drawn_apart", "render", "resident",
]  # fmt: skip
