"""From a photo to a template: one face, good enough, embedded. The photo is read once, kept nowhere
and logged nowhere; what leaves here is the vector.

The heavy imports live in this file, `quality` and `edge.faces`: import it where it is needed.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.faces import Detected, Faces
from edge.models import FacePack, ModelError, load_pack, model_id
from edge.terms import ModelId, Vector
from enroll.home import OfficeError
from enroll.messages import say
from enroll.quality import SIDE_MIN_PX, fault, side_px

PHOTO_BYTES_MAX = 50 * 1024 * 1024
Image = NDArray[np.uint8]


class Camera:
    """The models of one pack, loaded. OfficeError when the pack is not one for faces."""

    def __init__(self, models: Path) -> None:
        try:
            pack = load_pack(models)
            if not isinstance(pack, FacePack):
                raise OfficeError(say("not_face_pack", path=models))
            self._faces, self.model_id = Faces(pack, None), ModelId(model_id(pack))
        except ModelError as error:
            raise OfficeError(str(error)) from None

    def template(self, photo: Path, *, largest: bool = False) -> Vector:
        """The one face of a photo file (with `largest`: the largest of several).

        OfficeError, one line that says what to do: unreadable, no face, several, not good enough.
        """
        image = read_photo(photo)
        face = self._one(image, photo, largest)
        wrong = fault(image, face.box)
        if wrong:
            facts = {"side": round(side_px(face.box)), "limit": SIDE_MIN_PX}
            raise OfficeError(say(f"photo_{wrong}", path=photo, **facts))
        try:
            return self._faces.embed(image, face)
        except ValueError:
            raise OfficeError(say("photo_no_face", path=photo)) from None

    def _one(self, image: Image, photo: Path, largest: bool) -> Detected:
        try:
            faces = self._faces.detect(image)
        except ValueError:
            raise OfficeError(say("photo_shape", path=photo)) from None
        if not faces:
            raise OfficeError(say("photo_no_face", path=photo))
        if len(faces) > 1 and not largest:
            raise OfficeError(say("photo_many_faces", path=photo, count=len(faces)))
        return faces[0]


def read_photo(photo: Path) -> Image:
    """H x W x 3, BGR, turned as its EXIF says."""
    try:
        if photo.stat().st_size > PHOTO_BYTES_MAX:
            limit = PHOTO_BYTES_MAX // 1024 // 1024
            raise OfficeError(say("photo_too_large", path=photo, limit=limit))
        data = np.frombuffer(photo.read_bytes(), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error):
        image = None
    if image is None:
        raise OfficeError(say("photo_unreadable", path=photo))
    return np.asarray(image, np.uint8)
