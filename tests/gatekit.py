"""A gate's roster without broker, camera or lock: the real book, store, replica and sync, an
office that signs with real keys, a line in memory and a clock that a test moves."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge import seal, wire
from edge.envelope import Keyring, Message, chain, decode, dump, dump_op, encode
from edge.keys import Identity, Kek
from edge.link import Received
from edge.live import Live
from edge.oplog import open_op, parse_op
from edge.policy import Now, Policy, decide
from edge.replica import Replica
from edge.roster import ZoneRoster, apply
from edge.store import Store, StoreFault
from edge.sync import Sync
from edge.terms import (
    AccessEvent,
    Decision,
    DoorId,
    Match,
    ModelId,
    PersonId,
    Reason,
    Sighting,
    Vector,
    ZoneId,
)
from edge.trust import TrustBook
from edge.wire import Body, Member, Op, Role, Trust, TrustKey, Type

ZONE, DOOR, GATE, DESK = ZoneId("lotus"), DoorId("main"), "gate-1", "desk-1"
GARAGE = DoorId("garage")
MAPLE, BACK = ZoneId("maple"), DoorId("back")  # a second zone of the same gate
MODEL, SIZE = ModelId("0123456789abcdef"), 16
KEK = Kek(bytes(range(32)), "weak")


@dataclass
class SteeredClock:
    now_wall: float = 1_800_000_000.0
    now_mono: float = 1000.0

    def wall(self) -> float:
        return self.now_wall

    def mono(self) -> float:
        return self.now_mono

    def raise_floor(self, at: float) -> None:
        self.now_wall = max(self.now_wall, at)

    def go(self, seconds: float) -> None:
        self.now_wall += seconds
        self.now_mono += seconds


def person(number: int) -> PersonId:
    return PersonId(number.to_bytes(16, "big"))


@cache
def face(number: int) -> Vector:
    vector = np.random.default_rng(number).normal(size=SIZE).astype(np.float32)
    unit: Vector = vector / np.float32(np.linalg.norm(vector))
    return unit


def pub(key: Any) -> bytes:
    data: bytes = key.public_key().public_bytes_raw()
    return data


@dataclass
class Office:
    """Signs what an authority, its registrar and a desk sign, and keeps the log they make."""

    gate_sign: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    gate_hpke: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    keys: dict[Role, Ed25519PrivateKey] = field(
        default_factory=lambda: {role: Ed25519PrivateKey.generate() for role in Role}
    )
    kr: bytes = field(default_factory=lambda: os.urandom(32))
    kf: bytes = field(default_factory=lambda: os.urandom(32))
    log: list[bytes] = field(default_factory=list)  # op bytes
    hashes: list[bytes] = field(default_factory=lambda: [wire.GENESIS])
    n: int = 0
    zone: ZoneId = ZONE

    def __post_init__(self) -> None:
        self.truth = ZoneRoster(self.zone, epoch=1)

    @property
    def root(self) -> bytes:
        return pub(self.keys[Role.ROOT])

    def sign(self, kind: Type, body: Body, role: Role, target: str) -> bytes:
        return encode(kind, body, self.keys[role], direction="down", target=target)

    # --- papers ---

    def papers(self) -> list[bytes]:
        roles = (Role.REGISTRAR, Role.ROSTER, Role.BEACON, Role.COMMAND)
        keys = [TrustKey(role=r.value, pub=pub(self.keys[r])) for r in roles]  # type: ignore[arg-type]
        members = (
            Member(id=GATE, role="gate", sign_pub=pub(self.gate_sign),
                   hpke_pub=pub(self.gate_hpke), zones=[ZONE, MAPLE], version=1),
            Member(id=DESK, role="desk", sign_pub=pub(self.keys[Role.DESK]),
                   hpke_pub=bytes(32), zones=[ZONE, MAPLE], version=1),
        )  # fmt: skip
        return [
            self.sign(Type.TRUST, Trust(version=1, keys=keys), Role.ROOT, "*"),
            *(self.sign(Type.MEMBER, member, Role.REGISTRAR, "*") for member in members),
        ]

    def zone_key(self, which: wire.Which, *, role: Role | None = None, epoch: int = 1) -> bytes:
        key = self.kr if which == "kr" else self.kf
        sealed = seal.wrap_zone_key(
            key,
            zone=self.zone,
            which=which,
            key_epoch=epoch,
            member=GATE,
            hpke_pub=pub(self.gate_hpke),
        )
        body = wire.ZoneKey(
            zone=self.zone,
            which=which,
            key_epoch=epoch,
            member=GATE,
            kcv=seal.kcv(key),
            sealed=sealed,
        )
        signer = role or (Role.ROSTER if which == "kr" else Role.DESK)
        return self.sign(Type.ZONEKEY, body, signer, GATE)

    # --- the log ---

    def put(
        self,
        number: int,
        pv: int,
        *,
        grants: Sequence[str] = ("g",),
        tv: int = 1,
        door_of: Mapping[str, DoorId] | None = None,  # where a grant is not for DOOR
        offline: Literal["normal", "notice"] = "normal",
        looks_like: int | None = None,  # the same face under another pseudonym
    ) -> bytes:
        who, door_of = person(number), door_of or {}
        rights = wire.Rights(
            grants=[
                wire.WireGrant(
                    grant_id=f"{g}{number}", tenancy=f"T-{g}", doors=[door_of.get(g, DOOR)],
                    not_before=0, offline_class=offline,
                )
                for g in grants
            ]
        )  # fmt: skip
        vector = seal.pack_vector(face(number if looks_like is None else looks_like))
        template = seal.seal(self.kf, vector, seal.template_aad(self.zone, who, tv, 1, MODEL))
        op = Op(
            op="put", person=who, pv=pv, tv=tv, key_epoch=1,
            sealed=seal.seal(self.kr, dump(rights), seal.rights_aad(self.zone, who, pv, 1)),
            templates=[wire.WireTemplate(model_id=MODEL, key_epoch=1, sealed=template)],
        )  # fmt: skip
        return self.append(op)

    def revoke(
        self, number: int, pv: int, grant: str | None = None, *, suspend: bool = False
    ) -> bytes:
        named = None if grant is None else [f"{grant}{number}"]
        kind: Any = "suspend" if suspend else "revoke"
        return self.append(Op(op=kind, person=person(number), pv=pv, grant_ids=named))

    def append(self, op: Op) -> bytes:
        """The signed DELTA of one more op."""
        return self.append_bytes(dump_op(op))

    def append_bytes(self, data: bytes) -> bytes:
        self.log.append(data)
        self.hashes.append(chain(self.hashes[-1], data))
        opened = open_op(self.zone, parse_op(data), {(self.zone, "kr", 1): self.kr})
        done = apply(self.truth, [(opened, self.hashes[-1])], first_seq=len(self.log))
        self.truth = done.roster
        return self.delta(len(self.log))

    def delta(self, seq: int, count: int = 1) -> bytes:
        body = wire.Delta(
            zone=self.zone, epoch=1, first_seq=seq, prev_hash=self.hashes[seq - 1],
            ops=self.log[seq - 1 : seq - 1 + count], at=1,
        )  # fmt: skip
        return self.sign(Type.DELTA, body, Role.ROSTER, self.zone)

    def page(self, first: int, count: int = 500) -> bytes:
        ops = self.log[first - 1 : first - 1 + count]
        body = wire.Page(
            zone=self.zone, epoch=1, first_seq=first, prev_hash=self.hashes[first - 1], ops=ops,
            head_seq=len(self.log), head_hash=self.hashes[-1], at=1,
        )  # fmt: skip
        return self.sign(Type.PAGE, body, Role.ROSTER, GATE)

    def beacon(self, *, recent: Sequence[bytes] = (), n: int | None = None, **fields: Any) -> bytes:
        self.n += 1
        said = {
            "zone": self.zone, "epoch": 1, "n": n or self.n, "head_seq": len(self.log),
            "head_hash": self.hashes[-1], "digest": self.truth.digest.to_bytes(32, "big"),
            "at": 1, "recent": list(recent), **fields,
        }  # fmt: skip
        return self.sign(Type.BEACON, wire.Beacon.model_validate(said), Role.BEACON, self.zone)


class Disk(Store):
    """The real store; while `full` it takes nothing."""

    full = False

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Any]:
        if self.full:
            raise StoreFault("roster.db: full")
        with super()._writing() as db:
            yield db


@dataclass
class MemoryLine:
    """Keeps what is sent; gives what a test puts in."""

    connected: bool = True
    sent: list[tuple[str, bytes, bool]] = field(default_factory=list)
    rebuilt: int = 0

    def receive(self, timeout: float) -> Received | None:
        return None

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        self.sent.append((topic, payload, retain))
        return True

    def rebuild(self) -> None:
        self.rebuilt += 1


@dataclass
class Trail:
    """The outbox, in memory."""

    events: list[AccessEvent] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)
    acked_no: int = 0
    good: bool = True

    def post(self, event: AccessEvent) -> None:
        self.events.append(event)

    def outbox(self, after_no: int, limit: int) -> list[Any]:
        return [row for row in self.rows if row.event_no > after_no][:limit]

    def acked(self, upto: int, chain_hash: bytes) -> bool:
        if self.good:
            self.acked_no = max(self.acked_no, upto)
        return self.good


class GateBox:
    """One gate. `restart` throws the process away and comes back from the disk."""

    def __init__(
        self,
        folder: Path,
        office: Office,
        *,
        keys: Sequence[wire.Which] = ("kr", "kf"),
        zones: Sequence[ZoneId] = (ZONE,),
    ) -> None:
        self.folder, self.office, self.clock = folder, office, SteeredClock()
        self.zones = zones
        self.store = Disk(folder / "roster.db", KEK, GATE)
        for raw in office.papers():
            kind, member = raw[3], raw
            if kind == Type.TRUST:
                self.store.put_trust(member)
            else:
                self.store.put_member(str(len(self.store.members())), member)
        self._begin()
        for which in keys:
            self.take(f"g/{GATE}/down", office.zone_key(which))

    def _begin(self) -> None:
        self.line, self.trail, self.live = MemoryLine(), Trail(), Live(SIZE)
        self.book = TrustBook(GATE, self.office.root, self.office.gate_hpke, self.store)
        assert self.book.load() == []
        self.replica = Replica(
            self.store,
            self.live,
            self.book,
            self.trail.post,
            self.clock,
            MODEL,
            b"s" * 8,
            b"b" * 16,
        )
        loaded = self.store.load()
        rosters = {zone: loaded.zones.get(zone, ZoneRoster(zone)) for zone in self.zones}
        self.replica.load(rosters, dict(loaded.ahead))
        identity = Identity(GATE, self.office.gate_sign, self.office.gate_hpke, Path(), "")
        self.sync = Sync(
            gate=GATE, identity=identity, line=self.line, book=self.book, replica=self.replica,
            journal=self.trail, clock=self.clock, degraded=list, session=b"s" * 8,
            boot_id=b"b" * 16, stop=threading.Event(),
        )  # fmt: skip

    def restart(self) -> None:
        self.store.close()
        self.store = Disk(self.folder / "roster.db", KEK, GATE)
        self._begin()

    def close(self) -> None:
        self.store.close()

    def take(self, topic: str, raw: bytes, *, retained: bool = False) -> None:
        acked: list[bool] = []
        received = Received(f"mj/1/{topic}", raw, retained, lambda: acked.append(True))
        self.sync._take(received)
        assert acked == [True], "every message is acknowledged, believed or not"

    def log(self, raw: bytes) -> None:
        self.take(f"z/{ZONE}/log", raw)

    def beacon(self, raw: bytes, *, retained: bool = False) -> None:
        self.take(f"z/{ZONE}/beacon", raw, retained=retained)

    def down(self, raw: bytes) -> None:
        self.take(f"g/{GATE}/down", raw)

    def sent(self) -> list[Message]:
        """What went up since the last look, verified as the office would."""
        ring = Keyring.build(
            self.office.root,
            None,
            {GATE: Member(id=GATE, role="gate", sign_pub=pub(self.office.gate_sign),
                          hpke_pub=bytes(32), zones=[ZONE], version=1)},
        )  # fmt: skip
        out = [decode(raw, ring, direction="up", target=GATE) for _, raw, _ in self.line.sent]
        self.line.sent.clear()
        return out

    def kinds(self) -> list[Type]:
        return [message.kind for message in self.sent()]

    def pulls(self) -> list[int]:
        bodies = [message.body for message in self.sent()]
        return [body.from_seq for body in bodies if isinstance(body, wire.Pull)]

    def says(self, number: int, door: DoorId = DOOR) -> Reason:
        """The gate's word on a perfect, live view of this person now."""
        match = self.live.match(ZONE, face(number))
        if match is None or match.person != person(number):
            match = Match(person(number), ZONE, 1.0, 2.0)  # the rules alone, without a template
        return self.decides(match, door).reason

    def decides(self, match: Match | None, door: DoorId) -> Decision:
        now = Now(self.clock.wall(), self.clock.mono())
        zone_of = {DOOR: ZONE, GARAGE: ZONE, BACK: MAPLE}
        policy = Policy(zone_of, 0.5, lease=self.live.leases(now.mono))
        sighting = Sighting(door, "cam", now.mono, match, "live")
        return decide(sighting, self.live.view, policy, now=now)

    def knows_face(self, number: int) -> bool:
        match = self.live.match(ZONE, face(number))
        return match is not None and match.person == person(number)

    @property
    def roster(self) -> ZoneRoster:
        return self.replica.zones[ZONE].roster
