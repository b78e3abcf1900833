"""Is a photo good enough to enrol from? Pure: a picture and a box in, the first fault out.

The limits are generous: they keep out what a recogniser cannot use (a blur, a shadow, a speck), not
what is less than a studio portrait.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # H x W x 3, BGR
Fault = Literal["small", "dark", "bright", "flat", "blurred"]

SIDE_MIN_PX = 80  # of the face box; recognisers see 112 px, and below 80 that is mostly invented
MEASURED_PX = 112  # sharpness is measured at this size, where the recogniser looks
MEAN_MIN, MEAN_MAX = 30.0, 235.0  # grey level of the face, 0..255
SPREAD_MIN = 10.0  # standard deviation of the grey level
SHARPNESS_MIN = 15.0  # variance of the Laplacian


def side_px(box: NDArray[np.float32]) -> float:
    """The shorter side of a box x1, y1, x2, y2."""
    return float(min(box[2] - box[0], box[3] - box[1]))


def fault(image: Image, box: NDArray[np.float32]) -> Fault | None:
    """What is wrong with the face in `box` (pixels; may reach beyond the picture)."""
    if side_px(box) < SIDE_MIN_PX:
        return "small"
    grey = face_grey(image, box)
    mean, spread = float(grey.mean()), float(grey.std())
    if mean < MEAN_MIN:
        return "dark"
    if mean > MEAN_MAX:
        return "bright"
    if spread < SPREAD_MIN:
        return "flat"
    return "blurred" if sharpness(grey) < SHARPNESS_MIN else None


def face_grey(image: Image, box: NDArray[np.float32]) -> Image:
    """The part of the box that is in the picture, grey, MEASURED_PX square."""
    height, width = image.shape[:2]
    x1, y1 = max(int(box[0]), 0), max(int(box[1]), 0)
    x2, y2 = min(int(box[2]), width), min(int(box[3]), height)
    part = image[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
    grey = cv2.cvtColor(part, cv2.COLOR_BGR2GRAY)
    size = (MEASURED_PX, MEASURED_PX)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)


def sharpness(grey: Image) -> float:
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())
