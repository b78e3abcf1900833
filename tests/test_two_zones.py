"""A gate between two compounds, and somebody who lives in both: a pseudonym in each, one face."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from gatekit import BACK, DOOR, MAPLE, ZONE, GateBox, Office, face, person

from edge import wire
from edge.terms import DoorId, Lease, Reason, ZoneId

IN_LOTUS, IN_MAPLE = 1, 101  # the pseudonyms of one person


@dataclass
class Between:
    gate: GateBox
    lotus: Office
    maple: Office

    def says(self, door: DoorId, zone: ZoneId) -> Reason:
        """At this door, which is in this zone, of the one face."""
        return self.gate.decides(self.gate.live.match(zone, face(IN_LOTUS)), door).reason

    def maple_log(self, raw: bytes) -> None:
        self.gate.take(f"z/{MAPLE}/log", raw)


@pytest.fixture
def between(tmp_path: Path) -> Iterator[Between]:
    lotus = Office()
    maple = Office(gate_sign=lotus.gate_sign, gate_hpke=lotus.gate_hpke, keys=lotus.keys,
                   zone=MAPLE)  # fmt: skip
    gate = GateBox(tmp_path, lotus, zones=(ZONE, MAPLE))
    which: wire.Which
    for which in ("kr", "kf"):
        gate.down(maple.zone_key(which))
    gate.log(lotus.put(IN_LOTUS, 1))
    made = Between(gate, lotus, maple)
    made.maple_log(maple.put(IN_MAPLE, 1, grants=("m",), door_of={"m": BACK}, looks_like=IN_LOTUS))
    gate.sent()
    yield made
    gate.close()


def test_one_face_is_somebody_else_in_each_zone_and_rivals_nobody(between: Between) -> None:
    for zone, number, door in ((ZONE, IN_LOTUS, DOOR), (MAPLE, IN_MAPLE, BACK)):
        match = between.gate.live.match(zone, face(IN_LOTUS))
        assert match and (match.person, match.margin) == (person(number), 2.0)
        assert between.says(door, zone) is Reason.GRANTED
    assert between.says(BACK, ZONE) is Reason.NOT_IN_ROSTER, "a match of the other zone"


def test_moving_out_of_one_zone_ends_nothing_in_the_other(between: Between) -> None:
    between.maple_log(between.maple.revoke(IN_MAPLE, 2))
    assert between.gate.live.match(MAPLE, face(IN_LOTUS)) is None
    assert between.says(DOOR, ZONE) is Reason.GRANTED
    between.gate.restart()
    assert between.gate.live.match(MAPLE, face(IN_LOTUS)) is None
    assert between.says(DOOR, ZONE) is Reason.GRANTED


def test_the_log_of_one_zone_cannot_be_sent_as_the_others(between: Between) -> None:
    foreign = between.maple.revoke(IN_LOTUS, 9)
    between.gate.log(foreign)
    assert between.gate.sync.counts["signature"] == 1
    assert between.says(DOOR, ZONE) is Reason.GRANTED


def test_a_beacon_renews_the_lease_of_its_zone_alone(between: Between) -> None:
    between.gate.take(f"z/{MAPLE}/beacon", between.maple.beacon())
    assert between.gate.live.leases(between.gate.clock.mono()) == {MAPLE: Lease.FRESH}


def test_a_new_connection_asks_and_tells_for_both(between: Between) -> None:
    between.gate.sync._greet()
    bodies = [message.body for message in between.gate.sent()]
    assert [b.zone for b in bodies if isinstance(b, wire.Pull)] == [ZONE, MAPLE]
    assert [b.zone for b in bodies if isinstance(b, wire.Receipt)] == [ZONE, MAPLE]
    hello = next(b for b in bodies if isinstance(b, wire.Hello))
    assert (len(hello.kcvs), [p.zone for p in hello.positions]) == (4, [ZONE, MAPLE])
