"""The rules of the roster log at the gate: what an op changes, and what can never come back.
Pure: ops are opened before they come here, and what they change is returned, not done.

The heart is one comparison. A revocation at rights version pv denies every record of that person
(or that grant) whose pv is not higher, whenever it arrives: before the log reaches it, after it,
or twice. So order does not matter, and a replayed put cannot bring a tenancy back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from edge.seal import digest_term
from edge.terms import DoorId, Grant, GrantId, PersonId, Record, SealedTemplate, Status, ZoneId
from edge.wire import GENESIS

PV_LEAP_MAX = 2**20  # a version further ahead than this is refused and reported
DIGEST_MOD = 2**256


@dataclass(frozen=True, slots=True)
class Put:
    """Rights (and templates, unless `templates` is None: keep what is there for this tv)."""

    person: PersonId
    pv: int
    tv: int
    grants: tuple[Grant, ...]
    templates: tuple[SealedTemplate, ...] | None


@dataclass(frozen=True, slots=True)
class Revoke:
    """End grants until a put with a higher pv names them again; None = all grants. With
    `suspend` the templates stay."""

    person: PersonId
    pv: int
    grant_ids: tuple[GrantId, ...] | None
    suspend: bool = False


Op = Put | Revoke

# Highest revocation pv per person and grant; grant None = all of the person's grants.
Denied = Mapping[GrantId | None, int]
DenySet = Mapping[PersonId, Denied]


@dataclass(frozen=True, slots=True)
class ZoneRoster:
    """One zone's roster as applied up to `applied_seq`. Immutable: `apply` returns a new one."""

    zone: ZoneId
    epoch: int = 0
    applied_seq: int = 0
    chain_hash: bytes = GENESIS
    digest: int = 0
    people: Mapping[PersonId, Record] = field(default_factory=dict)
    tombstones: DenySet = field(default_factory=dict)

    @property
    def active(self) -> int:
        return sum(record.status is Status.ACTIVE for record in self.people.values())


@dataclass(frozen=True, slots=True)
class Applied:
    """What a run of ops changed: the new roster, whose record, whose templates, what was wrong."""

    roster: ZoneRoster
    changed: frozenset[PersonId]
    erased: frozenset[PersonId]  # lost their last grant, have no template now: it must go
    faults: tuple[str, ...]  # pv_leap | pv_old | unreadable, one per op that changed nothing


def apply(roster: ZoneRoster, ops: Sequence[tuple[Op | None, bytes]], *, first_seq: int) -> Applied:
    """Apply opened ops in log order, each with the chain hash after it.

    `first_seq` must be applied_seq + 1 (ValueError): a gap is the caller's to pull. An op that is
    None could not be opened; it takes its place in the log and changes no right.
    """
    if first_seq != roster.applied_seq + 1:
        raise ValueError(f"ops from {first_seq} do not follow {roster.applied_seq}")
    people, tombstones = dict(roster.people), dict(roster.tombstones)
    digest, seq, chain_hash = roster.digest, roster.applied_seq, roster.chain_hash
    changed: set[PersonId] = set()
    erased: set[PersonId] = set()
    faults: list[str] = []
    for op, chain_hash in ops:  # noqa: B007 - the last one is the roster's
        seq += 1
        if op is None:
            faults.append("unreadable")
            continue
        old = people.get(op.person)
        fault = _version_fault(old, op)
        if fault:
            faults.append(fault)
            continue
        record = _put(old, op) if isinstance(op, Put) else _revoke(old, op)
        _bury(tombstones, op)
        digest += _term(record) - (_term(old) if old else 0)
        people[op.person] = record
        changed.add(op.person)
        if record.status is Status.REVOKED:
            erased.add(op.person)
        elif record.templates:
            erased.discard(op.person)
    after = replace(
        roster,
        applied_seq=seq,
        chain_hash=chain_hash if ops else roster.chain_hash,
        digest=digest % DIGEST_MOD,
        people=people,
        tombstones=tombstones,
    )
    return Applied(after, frozenset(changed), frozenset(erased), tuple(faults))


def _version_fault(old: Record | None, op: Op) -> str | None:
    stored = old.pv if old else 0
    if op.pv <= stored:
        return "pv_old"
    return "pv_leap" if op.pv > stored + PV_LEAP_MAX else None


def _put(old: Record | None, op: Put) -> Record:
    keeps = old is not None and (old.tv > op.tv or (old.tv == op.tv and bool(old.templates)))
    templates = old.templates if old is not None and keeps else (op.templates or ())
    tv = old.tv if old is not None and keeps else op.tv
    return Record(op.person, op.pv, tv, Status.ACTIVE, op.grants, templates)


def _revoke(old: Record | None, op: Revoke) -> Record:
    """The grants named go; with none left a suspended person keeps the templates, a revoked one
    loses them."""
    grants = old.grants if old else ()
    left = tuple(g for g in grants if op.grant_ids is not None and g.grant_id not in op.grant_ids)
    status = Status.ACTIVE if left else Status.SUSPENDED if op.suspend else Status.REVOKED
    templates = old.templates if old and status is not Status.REVOKED else ()
    return Record(op.person, op.pv, old.tv if old else 0, status, left, templates)


def _bury(tombstones: dict[PersonId, Denied], op: Op) -> None:
    """A revocation leaves a tombstone per grant; a later put lifts those it names again."""
    mine = dict(tombstones.get(op.person, {}))
    if isinstance(op, Put):
        for lifted in (None, *(grant.grant_id for grant in op.grants)):
            mine.pop(lifted, None)
    else:
        mine |= dict.fromkeys((None,) if op.grant_ids is None else op.grant_ids, op.pv)
    tombstones[op.person] = mine
    if not mine:
        del tombstones[op.person]


def _term(record: Record) -> int:
    return digest_term(record.person, record.pv, record.status)


def digest_of(people: Iterable[Record]) -> int:
    """The digest from nothing: what a loaded cache is held against."""
    return sum(map(_term, people)) % DIGEST_MOD


def deny(entries: Iterable[Revoke]) -> DenySet:
    """The deny set of revocations that run ahead of the log."""
    denied: dict[PersonId, dict[GrantId | None, int]] = {}
    for op in entries:
        mine = denied.setdefault(op.person, {})
        for grant_id in (None,) if op.grant_ids is None else op.grant_ids:
            mine[grant_id] = max(mine.get(grant_id, 0), op.pv)
    return denied


@dataclass(frozen=True, slots=True)
class RosterView:
    """What a decision sees: one immutable picture of the zones, and the live deny set."""

    zones: Mapping[ZoneId, ZoneRoster] = field(default_factory=dict)
    ahead: Mapping[ZoneId, DenySet] = field(default_factory=dict)  # revoked, not yet in the log

    def record(self, zone: ZoneId, person: PersonId) -> Record | None:
        roster = self.zones.get(zone)
        return roster.people.get(person) if roster else None

    def denied(self, zone: ZoneId, record: Record, grant_id: GrantId) -> bool:
        """True when a revocation at least as new as the record names the person or the grant."""
        roster = self.zones.get(zone)
        for denied in (self.ahead.get(zone, {}), roster.tombstones if roster else {}):
            mine = denied.get(record.person, {})
            if max(mine.get(grant_id, -1), mine.get(None, -1)) >= record.pv:
                return True
        return False


def doors_of(record: Record) -> frozenset[DoorId]:
    return frozenset(door for grant in record.grants for door in grant.doors)
