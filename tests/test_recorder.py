"""A recorder on a plain loopback broker hears everything: no face, no tenancy, no name is in it.

Behind TLS any capture would be clean and prove nothing; with sealing off the same recorder finds
what it looks for.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from live import MODEL, ZONE, Estate, Tap, until, vector

from edge import seal, wire
from enroll.desk_session import NotDone, Session

WINDOW_BYTES = 16
SEED = 7
TENANCY, PERSON = "T-2026-0118-chunhua", "R-0042-wang-xiaomei"
GUARDIAN, CLERK, ORDER = "guardian-li-guoqiang", "clerk-at-front-desk", "court-order-2026-114"
WORDS = (TENANCY, PERSON, GUARDIAN, CLERK, ORDER)


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Estate]:
    made = Estate(tmp_path, "embedded")
    try:
        yield made
    finally:
        made.close()


def forms(data: bytes) -> list[bytes]:
    """As it is, and as text: hex, and base64 at each of the three alignments."""
    alike = [base64.b64encode(bytes(shift) + data)[4 if shift else 0 :] for shift in range(3)]
    return [data, data.hex().encode(), data.hex().upper().encode(), *alike]


def windows(data: bytes) -> set[bytes]:
    return {data[at : at + WINDOW_BYTES] for at in range(len(data) - WINDOW_BYTES + 1)}


def template_windows() -> set[bytes]:
    """Every 16 bytes of the face in every form that it could travel in."""
    face = vector(SEED)
    plain = (
        face.astype("<f2").tobytes(),
        face.astype("<f4").tobytes(),
        np.round(face * 127).astype(np.int8).tobytes(),
        np.round(face / np.abs(face).max() * 127).astype(np.int8).tobytes(),
    )
    return set().union(*(windows(form) for data in plain for form in forms(data)))


def found(heard: list[bytes]) -> set[str]:
    """What the recorder can read of it: "face", and the words."""
    faces = template_windows()
    seen = {"face" for message in heard if windows(message) & faces}
    for word in WORDS:
        spelt = [form.rstrip(b"=")[:-1] for form in forms(word.encode())[3:]]
        spelt += forms(word.encode())[:3]
        seen |= {word for message in heard if any(form in message for form in spelt)}
    return seen


def asked(estate: Estate) -> wire.EnrolRequest:
    consent = wire.Consent(
        basis="guardian", text_version="1", at=1, by=CLERK, transfer=True, guardian=GUARDIAN
    )
    return wire.EnrolRequest(internal_id=PERSON, tenancy=TENANCY, consent=consent)


def enrol(estate: Estate, at: Session) -> None:
    at.sync()
    at.enrol(ZONE, asked(estate), [vector(SEED)], MODEL)


def test_a_recorder_of_everything_reads_no_face_no_tenancy_and_no_name(estate: Estate) -> None:
    recorder = Tap(estate.line("recorder", None, ["#"]))
    estate.ends.append(recorder.line.close)
    estate.serve()
    estate.tenancy(TENANCY)
    desk, gate = estate.desk(), estate.started("gate-1")
    with estate.at_desk(desk) as at:
        enrol(estate, at)
    until(lambda: gate.live.people == 1, "the gate knows the face")
    done = estate.enroll("roster", "revoke", TENANCY, "--authority-ref", ORDER, "--wait")
    assert done.returncode == 0, done.stderr
    heard = recorder.drain()
    kinds = {wire.Type(payload[3]) for _, payload in heard}
    assert kinds >= {wire.Type.ENROL, wire.Type.DELTA, wire.Type.BEACON, wire.Type.RECEIPT}
    assert recorder.line.dropped == 0
    assert found([topic.encode() + b" " + payload for topic, payload in heard]) == set()


def test_with_sealing_off_the_same_recorder_finds_all_that_a_desk_sends(
    estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: were it not sealed, this would be seen."""
    recorder = Tap(estate.line("recorder", None, ["#"]))
    estate.ends.append(recorder.line.close)
    estate.serve()
    estate.tenancy(TENANCY)
    with estate.at_desk(estate.desk()) as at:
        at.sync()
        monkeypatch.setattr(seal, "seal", lambda key, plain, aad: bytes(12) + plain + bytes(16))
        with pytest.raises(NotDone):  # the office does not open what is not sealed
            at.enrol(ZONE, asked(estate), [vector(SEED)], MODEL)
    heard = [payload for _, payload in recorder.drain()]
    assert found(heard) == {"face", TENANCY, PERSON, GUARDIAN, CLERK}


@pytest.mark.parametrize("form", range(6))
def test_each_form_of_a_template_would_be_found(form: int) -> None:
    face = vector(SEED)
    for data in (face.astype("<f2").tobytes(), face.tobytes()):
        sent = forms(data)[form]
        assert found([b"\0" * 5 + sent[3 : 3 + WINDOW_BYTES + 2] + b"\0"]) == {"face"}
