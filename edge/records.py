"""How one person's record and one zone's standing look on the disk: sealed, and bound to their
place. Pure but for the randomness of sealing.

The columns beside a sealed part are its AAD, so a row that was swapped, moved to another person or
version, or flipped does not open. That every row is there and none is older is held by the zone's
standing: its digest covers (person, pv, status) of every record, its count the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cbor2

from edge.keys import Envelope
from edge.roster import Denied, ZoneRoster
from edge.terms import (
    DoorId,
    Grant,
    GrantId,
    ModelId,
    OfflineClass,
    PersonId,
    Record,
    SealedTemplate,
    Status,
    Window,
    ZoneId,
)

SCHEMA = "menjin/cache/1"
Row = dict[str, Any]


class RecordFault(ValueError):
    """A row that is not what was written at this place."""


def _aad(gate: str, zone: str, person: bytes, pv: int, tv: int, status: int) -> bytes:
    return cbor2.dumps([SCHEMA, gate, zone, person, pv, tv, status], canonical=True)


def pack(envelope: Envelope, gate: str, zone: ZoneId, record: Record, denied: Denied) -> Row:
    """The row of one person; what is sealed holds rights, tombstones and sealed templates."""
    plain = cbor2.dumps(
        [
            [_grant_out(grant) for grant in record.grants],
            [[t.model_id, t.key_epoch, t.sealed] for t in record.templates],
            [[grant_id, pv] for grant_id, pv in denied.items()],
        ]
    )
    status = int(record.status)
    aad = _aad(gate, zone, record.person, record.pv, record.tv, status)
    wrapped, sealed = envelope.seal(plain, aad)
    return {
        "zone": zone,
        "person": record.person,
        "pv": record.pv,
        "tv": record.tv,
        "status": status,
        "wrapped": wrapped,
        "sealed": sealed,
    }


def unpack(envelope: Envelope, gate: str, row: Row) -> tuple[Record, Denied]:
    """KeyFault when it does not open, RecordFault when it is no record of ours."""
    aad = _aad(gate, row["zone"], row["person"], row["pv"], row["tv"], row["status"])
    grants, templates, denied = cbor2.loads(envelope.open(row["wrapped"], row["sealed"], aad))
    record = Record(
        person=PersonId(row["person"]),
        pv=row["pv"],
        tv=row["tv"],
        status=Status(row["status"]),
        grants=tuple(map(_grant_in, grants)),
        templates=tuple(
            SealedTemplate(ModelId(m), epoch, sealed) for m, epoch, sealed in templates
        ),
    )
    return record, {None if g is None else GrantId(g): pv for g, pv in denied}


def _grant_out(grant: Grant) -> list[object]:
    return [
        grant.grant_id,
        grant.tenancy,
        sorted(grant.doors),
        grant.not_before_at,
        grant.expires_at,
        [[w.days, w.start_min, w.end_min] for w in grant.schedule],
        grant.offline_class.value,
    ]


def _grant_in(row: list[Any]) -> Grant:
    grant_id, tenancy, doors, begins, ends, windows, offline = row
    return Grant(
        GrantId(grant_id),
        tenancy,
        frozenset(map(DoorId, doors)),
        begins,
        ends,
        tuple(Window(*window) for window in windows),
        OfflineClass(offline),
    )


def pack_standing(envelope: Envelope, gate: str, roster: ZoneRoster) -> Row:
    plain = cbor2.dumps(
        [
            roster.epoch,
            roster.applied_seq,
            roster.chain_hash,
            roster.digest.to_bytes(32, "big"),
            len(roster.people),
        ]
    )
    wrapped, sealed = envelope.seal(plain, _standing_aad(gate, roster.zone))
    return {"zone": roster.zone, "wrapped": wrapped, "sealed": sealed}


def _standing_aad(gate: str, zone: str) -> bytes:
    return cbor2.dumps([SCHEMA, "standing", gate, zone], canonical=True)


def unpack_standing(envelope: Envelope, gate: str, row: Row) -> tuple[ZoneRoster, int]:
    """The zone without its people, and how many there must be."""
    plain = envelope.open(row["wrapped"], row["sealed"], _standing_aad(gate, row["zone"]))
    epoch, applied_seq, chain_hash, digest, count = cbor2.loads(plain)
    standing = ZoneRoster(
        ZoneId(row["zone"]), epoch, applied_seq, chain_hash, int.from_bytes(digest, "big")
    )
    return standing, count


def assemble(
    standing: ZoneRoster, count: int, people: Mapping[PersonId, tuple[Record, Denied]], digest: int
) -> ZoneRoster:
    """The whole zone. RecordFault when a row is missing, older, or one too many."""
    if len(people) != count or digest != standing.digest:
        raise RecordFault("rows are missing, older or added")
    return ZoneRoster(
        standing.zone,
        standing.epoch,
        standing.applied_seq,
        standing.chain_hash,
        standing.digest,
        {person: record for person, (record, _) in people.items()},
        {person: denied for person, (_, denied) in people.items() if denied},
    )
