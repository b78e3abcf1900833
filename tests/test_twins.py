"""Two of what there should be one of: desks of a zone, boxes of a name."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import ZONE, Estate

from edge.link import Link
from enroll.desk import Desk
from enroll.desk_session import NotDone
from enroll.registrar import add_member
from hil.broker import mosquitto_program

pytestmark = pytest.mark.skipif(mosquitto_program() is None, reason="mosquitto is not installed")
FIGHT_S = 8.0


@pytest.fixture
def estate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Estate]:
    monkeypatch.setattr("enroll.messages._chosen", ["en"])
    made = Estate(tmp_path)
    try:
        yield made
    finally:
        made.close()


def desk(estate: Estate, name: str) -> Desk:
    made, request = Desk.init(estate.folder / name, name)
    made.join(add_member(estate.home, request, [ZONE]))
    return made


def test_of_two_desks_the_first_to_sync_keeps_the_face_key(estate: Estate) -> None:
    """Both are members before either has synced; the other enrols nobody, and says why."""
    estate.serve()
    estate.tenancy("T1")
    first, second = desk(estate, "desk-1"), desk(estate, "desk-2")
    with estate.at_desk(first) as at:
        assert at.sync().made == (ZONE,)
    with estate.at_desk(second) as at:
        done = at.sync()
        assert (done.made, done.elsewhere) == ((), (ZONE,))
        with pytest.raises(NotDone, match="desk-1 keeps the face key"):
            estate.enrol(at, "mei", "T1")
    said = estate.enroll("desk", "sync", "--desk", str(second.folder))
    assert said.returncode == 1 and "desk-1 keeps the face key" in said.stderr
    with estate.at_desk(first) as at:
        at.sync()
        estate.enrol(at, "mei", "T1")


def test_a_face_key_whose_acceptance_was_lost_comes_back(
    estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The desk dies between the office's yes and its own disk: the next sync has the same key."""
    estate.serve()
    me = desk(estate, "desk-1")
    with estate.at_desk(me) as at, monkeypatch.context() as patch:
        patch.setattr(at.papers, "save", lambda: None)
        at.sync()
        lost = at.book.newest(ZONE, "kf")
    assert (ZONE, "kf", 1) not in me.papers().zone_keys()
    with estate.at_desk(me) as at:
        assert at.sync().made == ()
        assert at.book.newest(ZONE, "kf") == lost is not None
    assert (ZONE, "kf", 1) in me.papers().zone_keys()


@pytest.mark.slow
def test_two_boxes_of_one_name_do_not_fight_for_ever(estate: Estate) -> None:
    """The broker lets a name in once: each throws the other out, ever less often."""
    joined: queue.Queue[bool] = queue.Queue()
    gate = estate.gate("gate-1")
    gate.store.close()
    gate.journal._trail.close()
    pair = [
        Link("gate-1", "127.0.0.1", estate.port, tls=gate.line._tls,
             on_connect=lambda: joined.put(True), name=f"twin-{number}")
        for number in range(2)
    ]  # fmt: skip
    for line in pair:
        line.start()
    threading.Event().wait(FIGHT_S)
    for line in pair:
        line.close()
    assert 2 <= joined.qsize() < 2 * FIGHT_S, "17 and more when every retry is a first one"
