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
# Grey level of the face, 0..255. The same photos: 93 and more; darkened to 14-30 the cosine is
# 0.67-0.92, to 7-16 it is 0.23-0.85. Dark skin in fair light is far above the limit.
MEAN_MIN, MEAN_MAX = 30.0, 235.0
SPREAD_MIN = 10.0  # standard deviation of the grey level
# Variance of the Laplacian over that of the grey level: a face in soft light is not blurred.
# 28 everyday photos of 7 people (recogniser mbf-sc): as they are 0.098 and more, scaled down to a
# face of 90 px 0.048 and more. Blurred by 1/50 of the face 0.005-0.030, cosine to the sharp photo
# 0.71-0.92; by 1/35 up to 0.019, 0.46-0.79; by 1/25 up to 0.013, below 0.48: nobody any more.
# Unnormalised, at 15, 9 of 28 blurred by 1/35 and 2 of 28 by 1/25 had passed.
SHARPNESS_MIN = 0.03


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
    """Noise counts as detail: a grainy photo passes, and is darkness' to refuse."""
    return float(cv2.Laplacian(grey, cv2.CV_64F).var()) / max(float(grey.var()), 1.0)
