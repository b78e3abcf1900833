"""What a recorder on the broker learns. It hears everything in the clear, and finds no template, no
tenancy and nobody's number; with the sealing taken off, the same search finds them all."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from live import Estate, Tap, until, vector

from edge import seal
from edge.terms import AccessEvent, EventKind, GrantId, Vector
from edge.wire import Type

WINDOW_BYTES = 16
PEOPLE = {"R-0042-wang": "T-2026-118-A", "R-0043-lin": "T-2026-119-B"}
REF, CLERK = "court order 2026/114", "front"


def record(folder: Path) -> list[bytes]:
    """Everything that crosses the broker while people are enrolled, let in and revoked."""
    estate = Estate(folder, "embedded")
    try:
        recorder = Tap(estate.line("recorder", None, ["#"]))
        estate.ends.append(recorder.line.close)
        estate.serve_here()
        desk, gate = estate.desk(), estate.started("gate-1")
        with estate.at_desk(desk) as at:
            at.sync()
            for seed, (person, tenancy) in enumerate(PEOPLE.items()):
                estate.tenancy(tenancy)
                estate.enrol(at, person, tenancy, seed)
        until(lambda: gate.live.people == len(PEOPLE), "the gate knows the faces")
        grant = GrantId("feedc0de00000007")
        gate.journal.record(AccessEvent(EventKind.DECISION, 1.0, grant_id=grant))
        until(lambda: gate.journal.acked_no == gate.journal.head()[0], "acknowledged")
        with estate.authority() as authority:
            change = authority.revoke("T-2026-118-A", REF, CLERK)
            until(lambda: authority.enforced(change).complete, "enforced")
        gate.sync.line.publish("mj/1/end", b"end")
        heard: list[tuple[str, bytes]] = []
        until(lambda: heard.extend(recorder.drain()) or ("mj/1/end", b"end") in heard, "the end")
    finally:
        estate.close()
    return [topic.encode() + b" " + payload for topic, payload in heard]


def codings(template: bytes) -> Iterator[bytes]:
    """Each 16-byte window, as it is, in hex, and in base64 at each of the three alignments."""
    for at in range(len(template) - WINDOW_BYTES + 1):
        window = template[at : at + WINDOW_BYTES]
        yield window
        yield window.hex().encode()
        yield window.hex().upper().encode()
        for shift in range(3):
            # Whole groups of the window only: what stands beside it is unknown.
            whole = window[shift : shift + (WINDOW_BYTES - shift) // 3 * 3]
            yield base64.b64encode(whole)
            yield base64.urlsafe_b64encode(whole)


def forms(face: Vector) -> dict[str, bytes]:
    int8 = np.clip(np.round(face * 127), -128, 127).astype(np.int8)
    return {
        "float16": face.astype("<f2").tobytes(),
        "float32": face.astype("<f4").tobytes(),
        "int8": int8.tobytes(),
    }


def faces_found(wire: bytes, faces: list[Vector]) -> set[str]:
    return {
        name
        for face in faces
        for name, template in forms(face).items()
        if any(coded in wire for coded in codings(template))
    }


def words_found(wire: bytes) -> set[str]:
    words = {*PEOPLE, *PEOPLE.values(), REF, "separate_written", "feedc0de00000007"}
    return {
        word
        for word in words
        for coded in (word.encode(), word.encode().hex().encode())
        if coded in wire
    }


def test_a_recorder_finds_no_face_no_tenancy_and_nobody(tmp_path: Path) -> None:
    heard = record(tmp_path)
    kinds = {Type(raw.split(b" ", 1)[1][3]).name for raw in heard if b" mj\x01" in raw[:60]}
    assert {"ENROL", "DELTA", "PAGE", "BEACON", "EVENTS", "KEYS", "ZONEKEY", "HELLO"} <= kinds
    wire = b"\n".join(heard)
    assert faces_found(wire, [vector(seed) for seed in range(len(PEOPLE))]) == set()
    assert words_found(wire) == set()


def test_with_the_sealing_off_the_same_search_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the recorder does hear what would be there."""
    edge = seal.NONCE_BYTES
    monkeypatch.setattr(seal, "seal", lambda key, plain, aad: bytes(edge) + plain + bytes(16))
    monkeypatch.setattr(seal, "open_", lambda key, sealed, aad: sealed[edge:-16])
    wire = b"\n".join(record(tmp_path))
    assert faces_found(wire, [vector(seed) for seed in range(len(PEOPLE))]) == {"float16"}
    words = {*PEOPLE, *PEOPLE.values(), REF, "separate_written", "feedc0de00000007"}
    assert words_found(wire) == words


@pytest.mark.parametrize("name", ["float16", "float32", "int8"])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_the_search_knows_every_form_and_coding(name: str, shift: int) -> None:
    """Sixteen bytes out of the middle of a template, at any alignment of base64."""
    template = forms(vector(1))[name]
    noise = bytes(range(200, 200 + shift))
    part = template[5 : 5 + WINDOW_BYTES + 2]
    plain = noise + part
    for coded in (plain, plain.hex().encode(), base64.b64encode(plain)):
        assert faces_found(b"x" + coded + b"y", [vector(1)]) == {name}
        assert faces_found(b"x" + coded + b"y", [vector(2)]) == set()
