"""Who an artificial resident is: a vector of traits, and nothing else.

No resident resembles a real person: the traits are drawn from a seeded generator, and nothing
here was fitted to photographs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Name of each trait and its weight in `distance`: how much of the aligned 112 x 112 crop it moves.
# The weights are by eye (a whole-face colour against a mole), not fitted to any recogniser.
TRAITS: dict[str, float] = {
    "face_width": 1.5, "jaw": 1.5, "chin": 1.0, "forehead": 0.7, "cheeks": 0.7,
    "eye_gap": 1.2, "eye_level": 0.8, "eye_size": 1.2, "eye_slant": 0.8, "eye_open": 0.8,
    "iris": 0.6, "brow_weight": 1.3, "brow_angle": 1.0, "brow_level": 0.7, "brow_length": 0.6,
    "nose_length": 1.0, "nose_width": 1.2, "nose_shade": 0.5,
    "mouth_width": 1.0, "mouth_level": 0.8, "lip_upper": 0.8, "lip_lower": 0.8, "lip_colour": 1.2,
    "skin_tone": 2.5, "skin_hue": 1.5, "hair_colour": 2.5, "hair_light": 1.0,
    "hair_volume": 1.2, "fringe": 1.5, "parting": 1.2, "hair_length": 1.5,
    "beard": 2.0, "moustache": 1.2, "glasses": 2.0, "glasses_size": 0.6, "glasses_colour": 0.6,
    "mole_a_x": 0.5, "mole_a_y": 0.5, "mole_b_x": 0.5, "mole_b_y": 0.5, "mole_c_x": 0.5,
    "mole_c_y": 0.5, "mole_size": 0.6, "blush": 0.8, "ears": 0.5, "eye_shadow": 1.0,
    "freckles": 0.6, "asymmetry": 0.5,
}  # fmt: skip
NAMES = tuple(TRAITS)
WEIGHTS = np.array(list(TRAITS.values()), dtype=np.float64)
_STREAM = 0x5E51  # keeps residents' random streams apart from every other use of the same seed


@dataclass(frozen=True)
class Identity:
    """One resident: `vector` holds one number in [-1, 1] for each of `NAMES`, in that order."""

    vector: tuple[float, ...]

    def traits(self) -> dict[str, float]:
        """The vector by name."""
        return dict(zip(NAMES, self.vector, strict=True))


def resident(seed: int) -> Identity:
    """The resident with this number: the same one on every machine."""
    rng = np.random.default_rng([_STREAM, seed])
    return Identity(tuple(float(v) for v in rng.uniform(-1.0, 1.0, len(NAMES))))


def distance(one: Identity, other: Identity) -> float:
    """How different two residents look: weighted root mean square over the traits, 0 to 2."""
    gap = np.array(one.vector) - np.array(other.vector)
    return float(np.sqrt((WEIGHTS * gap * gap).sum() / WEIGHTS.sum()))


def drawn_apart(count: int, seed: int) -> list[Identity]:
    """`count` residents well apart: greedy farthest-point choice out of a seeded crowd."""
    rng = np.random.default_rng([_STREAM + 1, seed])
    crowd = rng.uniform(-1.0, 1.0, (max(400, 40 * count), len(NAMES)))
    chosen: list[int] = [0]
    nearest = _gaps(crowd, crowd[0])
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _gaps(crowd, crowd[chosen[-1]]))
    return [Identity(tuple(float(v) for v in crowd[row])) for row in chosen[:count]]


def _gaps(crowd: NDArray[np.float64], one: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared weighted distance of every row to one vector."""
    gaps: NDArray[np.float64] = (WEIGHTS * (crowd - one) ** 2).sum(axis=1)
    return gaps
