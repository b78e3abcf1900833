"""The gate's copy of its zones' rosters: what a DELTA, PAGE or BEACON does to it.

Runs on the sync thread. Takes verified messages, returns what to send up. The order is the law: a
revocation is in the live deny set first, then on the disk, then receipted.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from edge import roster as rules
from edge import seal, wire
from edge.ahead import Ahead
from edge.clock import Clock
from edge.envelope import Message, WireError, chain, decode
from edge.live import Live
from edge.oplog import MissingKey, open_op, open_templates, parse_op
from edge.roster import Applied, ZoneRoster
from edge.store import StoreFault
from edge.terms import AccessEvent, EventKind, ModelId, PersonId, Status, Vector, ZoneId
from edge.trust import TrustBook
from edge.wire import Body, Type

Outgoing = tuple[Type, Body]

# Mended by a ROOT-signed EPOCH or a snapshot, which come with the roster issue.
STANDING = ("equivocation", "digest_divergence", "gone_needs_snapshot")

log = logging.getLogger("edge.replica")


class RosterStore(Protocol):
    """Where the roster is kept (edge.store.Store)."""

    def save(
        self,
        after: ZoneRoster,
        changed: Iterable[PersonId],
        erased: Iterable[PersonId],
        revocation: tuple[int, bytes] | None = None,
    ) -> None: ...
    def save_ahead(self, zone: ZoneId, seq: int, signed: bytes) -> None: ...
    def forget_erased(self) -> None: ...
    def beacon(self, zone: ZoneId) -> tuple[int, int]: ...
    def put_beacon(self, zone: ZoneId, epoch: int, n: int, at: float) -> None: ...


@dataclass
class _Zone:
    roster: ZoneRoster
    ahead: Ahead
    head_seq: int = 0
    heard: tuple[int, int] = (0, 0)  # (epoch, n) of the newest beacon believed
    pulled_mono: float = float("-inf")


@dataclass
class Replica:
    store: RosterStore
    live: Live
    book: TrustBook
    post: Callable[[AccessEvent], object]
    clock: Clock
    model_id: ModelId
    session: bytes
    boot_id: bytes
    zones: dict[ZoneId, _Zone] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)  # dropped and refused, by why
    _told: dict[tuple[ZoneId, str], int] = field(default_factory=dict)
    unsaved: str | None = None  # why the roster cannot be written now

    def load(
        self, rosters: dict[ZoneId, ZoneRoster], ahead: dict[ZoneId, dict[int, bytes]]
    ) -> None:
        for zone, roster in rosters.items():
            heard = self.store.beacon(zone)
            self.zones[zone] = _Zone(roster, Ahead(zone), roster.applied_seq, heard)
            for seq, signed in ahead.get(zone, {}).items():
                self._reload_ahead(zone, seq, signed)
            self._deny(zone)
            self.live.set_roster(roster)
            self._show(zone, roster.people)

    def _reload_ahead(self, zone: ZoneId, seq: int, signed: bytes) -> None:
        try:
            message = decode(signed, self.book.keyring, direction="down", target=zone)
            body = message.expect(wire.Delta)
            ahead = self.zones[zone].ahead
            ahead.note(body.first_seq, body.ops)
            ahead.reach(self.zones[zone].roster.applied_seq)
            ahead.keep(body.first_seq, body.ops)
        except WireError as error:
            self.fault(zone, f"ahead_{error.why}", seq=seq)

    # --- what arrives ---

    def on_delta(self, message: Message) -> list[Outgoing]:
        body = message.expect(wire.Delta)
        zone = ZoneId(body.zone)
        self._placed(zone, body.epoch)
        return self._log(zone, body, message.raw)

    def on_page(self, message: Message) -> list[Outgoing]:
        """The next is asked for at once only when this one brought us on: or it comes for ever."""
        body = message.expect(wire.Page)
        zone = ZoneId(body.zone)
        self._placed(zone, body.epoch)
        state = self.zones[zone]
        state.head_seq = max(state.head_seq, body.head_seq)
        before, out = state.roster.applied_seq, self._log(zone, body, None) if body.ops else []
        if before < state.roster.applied_seq < state.head_seq and Type.PULL not in dict(out):
            out += self._pull(zone)
        return out

    def on_beacon(self, message: Message, *, retained: bool) -> list[Outgoing]:
        """Order by (epoch, n); a retained beacon tells where the head is and renews nothing."""
        body = message.expect(wire.Beacon)
        zone = ZoneId(body.zone)
        self._placed(zone, body.epoch)
        if (body.epoch, body.n) <= self.zones[zone].heard:
            raise WireError("beacon_old", zone)
        out: list[Outgoing] = []
        for signed in body.recent:  # before the disk, which may refuse
            out += self._recent(zone, signed)
        if not retained:
            self.zones[zone].heard = (body.epoch, body.n)
            self.clock.raise_floor(body.at / 1000)
            self._saved(lambda: self.store.put_beacon(zone, body.epoch, body.n, body.at / 1000))
        out = [item for item in out if item[0] is not Type.PULL]  # asked for below, once
        return out + self._hold_against(zone, body, retained)

    def _recent(self, zone: ZoneId, signed: bytes) -> list[Outgoing]:
        """A revocation that a beacon repeats; one that does not verify spoils no other."""
        try:
            recent = decode(signed, self.book.keyring, direction="down", target=zone)
            body = recent.expect(wire.Delta)
            self._placed(zone, body.epoch)
            return self._log(zone, body, signed, quiet=True)
        except WireError as error:
            self.counts[f"recent_{error.why}"] += 1
            return []

    def _hold_against(self, zone: ZoneId, body: wire.Beacon, retained: bool) -> list[Outgoing]:
        state = self.zones[zone]
        state.head_seq = max(state.head_seq, body.head_seq)
        roster = state.roster
        if roster.applied_seq < body.head_seq:
            return self._pull(zone)
        if roster.applied_seq > body.head_seq:
            self.fault(zone, "head_behind_us", seq=body.head_seq)
        elif roster.chain_hash != body.head_hash:
            self.fault(zone, "equivocation", seq=body.head_seq)
        elif roster.digest.to_bytes(32, "big") != body.digest:
            # Repaired by a snapshot, which comes with the roster issue; until then: said aloud.
            self.fault(zone, "digest_divergence", seq=body.head_seq)
        elif not retained:
            self.live.caught_up(zone, self.clock.mono())
        return []

    def _placed(self, zone: ZoneId, epoch: int) -> None:
        """WireError unless it is for a zone of ours and its epoch; the first epoch is taken."""
        state = self.zones.get(zone)
        if state is None:
            raise WireError("zone", zone)
        if state.roster.epoch == 0:
            state.roster = replace(state.roster, epoch=epoch)
        elif state.roster.epoch != epoch:
            raise WireError("epoch", f"{zone}: {epoch} where {state.roster.epoch} is in force")

    # --- the log ---

    def _log(
        self,
        zone: ZoneId,
        body: wire.Delta | wire.Page,
        signed: bytes | None,
        *,
        quiet: bool = False,
    ) -> list[Outgoing]:
        state = self.zones[zone]
        applied, first, last = (
            state.roster.applied_seq,
            body.first_seq,
            body.first_seq + len(body.ops) - 1,
        )
        state.head_seq = max(state.head_seq, last)
        if last <= applied:
            return [] if quiet else [self.receipt(zone)]
        if first > applied + 1:
            early = self._early(zone, body, signed)
            return [*([self.receipt(zone)] if early else []), *self._pull(zone)]
        run = self._chained(state, body)
        if run is None:  # what takes away holds in any history
            self.fault(zone, "equivocation", seq=applied + 1)
            return [self.receipt(zone)] if self._early(zone, body, signed) else []
        return self._commit(zone, run, body, signed)

    def _chained(
        self, state: _Zone, body: wire.Delta | wire.Page
    ) -> list[tuple[bytes, bytes]] | None:
        """The new (op bytes, chain hash after it); None when the log is not the one we applied."""
        seq, after, run = body.first_seq, body.prev_hash, []
        for data in body.ops:
            if seq == state.roster.applied_seq + 1 and after != state.roster.chain_hash:
                return None
            after = chain(after, data)
            if seq > state.roster.applied_seq:
                run.append((data, after))
            seq += 1
        return run

    def _commit(
        self,
        zone: ZoneId,
        run: Sequence[tuple[bytes, bytes]],
        body: wire.Delta | wire.Page,
        signed: bytes | None,
    ) -> list[Outgoing]:
        """Memory first for what takes away, then the disk, then what gives, then the receipt."""
        state = self.zones[zone]
        first = state.roster.applied_seq + 1
        ops = [data for data, _ in run]
        for seq in state.ahead.contradicted(first, ops):
            self.fault(zone, "equivocation", seq=seq)
        state.ahead.note(first, ops)
        self._deny(zone)
        opened, waiting = self._open(zone, run)
        if waiting:
            self._early(zone, body, signed)
        if not opened:
            return [self.receipt(zone)]
        applied = rules.apply(state.roster, opened, first_seq=first)
        for fault in applied.faults:
            self.fault(zone, fault, seq=first)
        if not self._saved(lambda: self._save(zone, applied, None if waiting else signed)):
            return []
        state.roster = applied.roster
        self._enforce(zone, applied)
        return [self.receipt(zone), *([] if waiting else self._pull_if_behind(zone))]

    def _open(
        self, zone: ZoneId, run: Sequence[tuple[bytes, bytes]]
    ) -> tuple[list[tuple[rules.Op | None, bytes]], bool]:
        """Opened ops with their chain hashes, up to the first whose key has not come yet."""
        opened: list[tuple[rules.Op | None, bytes]] = []
        for data, after in run:
            try:
                opened.append((open_op(zone, parse_op(data), self.book.keys), after))
            except MissingKey:
                self.counts["waiting_for_key"] += 1
                return opened, True
            except (WireError, seal.SealError) as error:
                log.warning("op does not open", extra={"zone": zone, "why": str(error)})
                opened.append((None, after))
        return opened, False

    def _save(self, zone: ZoneId, applied: Applied, signed: bytes | None) -> None:
        last = applied.roster.applied_seq
        revokes = signed is not None and self.zones[zone].ahead.within(last)
        revocation = (last, signed) if revokes and signed is not None else None
        self.store.save(applied.roster, applied.changed, applied.erased, revocation)

    def _saved(self, save: Callable[[], None]) -> bool:
        """False when the disk does not take it, which `/healthz` tells until it does."""
        try:
            save()
        except StoreFault as error:
            if self.unsaved is None:
                log.warning("roster not saved", extra={"why": str(error)})
            self.unsaved = str(error)
            return False
        self.unsaved = None
        return True

    def _enforce(self, zone: ZoneId, applied: Applied) -> None:
        state = self.zones[zone]
        state.ahead.reach(applied.roster.applied_seq)
        self.live.set_roster(applied.roster)
        self._deny(zone)
        self._show(zone, applied.changed)
        for person in applied.erased:
            self.post(AccessEvent(EventKind.ERASED, self.clock.wall(), zone=zone, person=person))

    # --- revocations that run ahead of the log ---

    def _early(self, zone: ZoneId, body: wire.Delta | wire.Page, signed: bytes | None) -> bool:
        """Enforce what revokes behind `applied_seq`; True when that is new. On the disk under the
        delta's last seq, so that it stays there until the log has come past all of it."""
        state = self.zones[zone]
        skip = max(0, state.roster.applied_seq + 1 - body.first_seq)
        first, ops = body.first_seq + skip, body.ops[skip:]
        state.ahead.note(first, ops)
        self._deny(zone)
        for seq in state.ahead.split():
            self.fault(zone, "equivocation", seq=seq)
        if not state.ahead.unkept(first, ops):
            return False
        last = first + len(ops) - 1
        if signed is not None and self._saved(lambda: self.store.save_ahead(zone, last, signed)):
            state.ahead.keep(first, ops)
        return True

    def _deny(self, zone: ZoneId) -> None:
        self.live.set_ahead(zone, self.zones[zone].ahead.denied())

    # --- templates ---

    def on_face_key(self, zone: ZoneId) -> list[Outgoing]:
        """A zone key came: what waited for it can be opened now."""
        if zone not in self.zones:
            return []
        self._show(zone, self.zones[zone].roster.people)
        return self._pull(zone)

    def _show(self, zone: ZoneId, persons: Iterable[PersonId]) -> None:
        people = self.zones[zone].roster.people
        templates: dict[PersonId, list[Vector]] = {}
        for person in persons:
            record = people.get(person)
            if record is None or record.status is Status.REVOKED:
                templates[person] = []
                continue
            vectors, faults = open_templates(zone, record, self.book.keys, self.model_id)
            templates[person] = vectors
            self.counts.update(faults)
        if left_out := self.live.set_templates(zone, templates):
            self.counts["template_unusable"] += left_out

    # --- what goes up ---

    def _pull(self, zone: ZoneId) -> list[Outgoing]:
        state = self.zones[zone]
        state.pulled_mono = self.clock.mono()
        applied = state.roster
        return [
            (Type.PULL, wire.Pull(zone=zone, epoch=applied.epoch, from_seq=applied.applied_seq + 1))
        ]

    def _pull_if_behind(self, zone: ZoneId) -> list[Outgoing]:
        state = self.zones[zone]
        return self._pull(zone) if state.roster.applied_seq < state.head_seq else []

    def hello(self) -> list[Outgoing]:
        """After each connection: ask for everything since the last op applied."""
        return [item for zone in self.zones for item in self._pull(zone)]

    def overdue(self, retry_s: float) -> list[Outgoing]:
        """Pulls to repeat: behind the head, and the last one has had its time."""
        now = self.clock.mono()
        return [
            item
            for zone, state in self.zones.items()
            if now - state.pulled_mono >= retry_s
            for item in self._pull_if_behind(zone)
        ]

    def position(self, zone: ZoneId) -> wire.Position:
        roster = self.zones[zone].roster
        return wire.Position(
            zone=zone,
            epoch=roster.epoch,
            applied_seq=roster.applied_seq,
            chain_hash=roster.chain_hash,
        )

    def receipt(self, zone: ZoneId) -> Outgoing:
        state = self.zones[zone]
        roster = state.roster
        return Type.RECEIPT, wire.Receipt(
            zone=zone,
            epoch=roster.epoch,
            applied_seq=roster.applied_seq,
            chain_hash=roster.chain_hash,
            digest=roster.digest.to_bytes(32, "big"),
            active=roster.active,
            early=state.ahead.receipted()[:256],
            session=self.session,
            boot_id=self.boot_id,
            monotonic_ms=int(self.clock.mono() * 1000),
            at=int(self.clock.wall() * 1000),
        )

    def standing_faults(self) -> dict[ZoneId, str]:
        """Zones whose copy differs from the office's in a way that only the office can mend."""
        return {zone: why for (zone, why) in self._told if why in STANDING}

    def fault(self, zone: ZoneId, why: str, *, seq: int = 0) -> None:
        """Counted; told once per place in the log: in the log lines and in the audit trail, which
        the office receives."""
        self.counts[why] += 1
        if self._told.get((zone, why)) == seq:
            return
        self._told[zone, why] = seq
        log.warning("roster fault", extra={"zone": zone, "why": why, "seq": seq})
        facts: dict[str, str | int | float | bool] = {"why": why, "seq": seq}
        self.post(AccessEvent(EventKind.ROSTER_FAULT, self.clock.wall(), zone=zone, facts=facts))
