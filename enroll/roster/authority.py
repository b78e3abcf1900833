"""The roster authority: everything that changes or tells who may enter, behind one object.

It holds the folders `authority/`, `data/` and `public/`, and with all of them cannot open a face.
Each change is one transaction; a running `roster serve` is poked when one commits. One thread at a
time; several processes (the CLI beside `serve`) are safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType

from edge import wire
from edge.clock import Clock
from edge.envelope import Keyring
from edge.wire import OPS_PER_PAGE, RECENT_BYTES
from enroll.home import AuthorityKeys, Home, ZoneSecrets
from enroll.roster.estate import Estate, Tenancy, Unit
from enroll.roster.log import PAGE_BYTES, Log, Position, now_ms
from enroll.roster.members import Members, StoredMember
from enroll.roster.receipts import Enforcement, GateReceipt, Outcome, Receipts
from enroll.roster.refusal import Refusal
from enroll.roster.rights import Change, Person, Rights
from enroll.roster.status import GateStatus, Statuses
from enroll.roster.store import Store
from enroll.roster.trail import EventRow, StoredEvent, Trail, open_rows

__all__ = [
    "Authority",
    "Change",
    "Enforcement",
    "GateReceipt",
    "GateStatus",
    "Person",
    "Position",
    "Refusal",
    "StoredEvent",
    "StoredMember",
    "Tenancy",
    "Unit",
]


class Authority:
    """Raises Refusal for what must not be, OfficeError for a folder that is not in order."""

    def __init__(self, home: Home, clock: Clock, store: Store, keys: AuthorityKeys) -> None:
        self.home, self.clock, self.keys = home, clock, keys
        self._store = store
        self._secrets: dict[str, ZoneSecrets] = {}
        self._estate = Estate(store, home, clock)
        self._log = Log(store, clock)
        self._rights = Rights(store, clock, self._log, keys.roster, self.secrets_of)
        self._members = Members(store, home, keys.roster, self.secrets_of)
        self._receipts = Receipts(store, self._log)
        self._statuses = Statuses(store)
        self._trail = Trail(store)

    @classmethod
    def open(cls, home: Home, clock: Clock) -> Authority:
        keys = home.require().authority_keys()
        return cls(home, clock, Store(home.db_path), keys)

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> Authority:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def secrets_of(self, zone: str) -> ZoneSecrets:
        """Kr and pseudonym secret of a zone; read again for one that another process made."""
        if zone not in self._secrets:
            self._estate.check_zone(zone)
            self._secrets = self.home.zone_secrets()
        return self._secrets[zone]

    # the estate

    def add_zone(self, zone: str) -> None:
        self._estate.add_zone(zone)
        self.home.poke()

    def zones(self) -> list[str]:
        return self._estate.zones()

    def add_door(self, zone: str, door: str) -> None:
        self._estate.add_door(zone, door)

    def doors(self, zone: str) -> list[str]:
        return self._estate.doors(zone)

    def add_unit(self, zone: str, unit: str, doors: Iterable[str]) -> None:
        self._estate.add_unit(zone, unit, doors)

    def units(self, zone: str) -> list[Unit]:
        return self._estate.units(zone)

    def add_tenancy(
        self,
        tenancy: str,
        zone: str,
        unit: str,
        starts: float | None,
        ends: float | None,
        household: int,
    ) -> None:
        """Wall seconds; `starts` None: now, `ends` None: until it is ended."""
        self._estate.add_tenancy(tenancy, zone, unit, starts, ends, household)

    def tenancies(self) -> list[Tenancy]:
        return self._estate.tenancies()

    # rights

    def enrol(self, desk_id: str, desk_zones: Iterable[str], body: wire.Enrol) -> Change:
        change = self._rights.enrol(desk_id, frozenset(desk_zones), body)
        self.home.poke()
        return change

    def end_tenancy(self, tenancy: str, authority_ref: str, by: str) -> Change:
        """Take the tenancy's rights from everybody who has them, now. Repeating it returns the
        Change of the first time."""
        change = self._rights.end_tenancy(tenancy, authority_ref, by)
        self.home.poke()
        return change

    revoke = end_tenancy

    def people(self, zone: str | None = None) -> list[Person]:
        return self._rights.people(zone)

    # the log

    def position(self, zone: str) -> Position:
        return self._log.position(zone)

    def page(
        self,
        zone: str,
        from_seq: int,
        limit_ops: int = OPS_PER_PAGE,
        limit_bytes: int = PAGE_BYTES,
    ) -> wire.Page | wire.Gone:
        return self._log.page(zone, from_seq, limit_ops, limit_bytes)

    def deltas_after(self, zone: str, seq: int, limit: int = 100) -> list[tuple[int, bytes, bool]]:
        """(seq, signed DELTA, is_revocation), oldest first."""
        return self._log.deltas_after(zone, seq, limit)

    def recent_revocations(self, zone: str, limit_bytes: int = RECENT_BYTES) -> list[bytes]:
        return self._log.recent_revocations(zone, limit_bytes)

    def next_beacon(self, zone: str) -> wire.Beacon:
        return self._log.next_beacon(zone)

    # members and keys

    def members(self, zone: str | None = None) -> list[StoredMember]:
        return self._members.members(zone)

    def gates(self, zone: str) -> list[str]:
        return self._members.gates(zone)

    def keyring(self) -> Keyring:
        return self._members.keyring()

    def trust_bytes(self) -> bytes:
        return self.home.trust()

    def zone_keys_for(self, member: str) -> list[bytes]:
        return self._members.zone_keys_for(member)

    def put_zone_keys(self, desk: str, items: Iterable[wire.KeyFor]) -> None:
        self._members.put_zone_keys(desk, items)

    # what the gates say

    def put_receipt(self, gate: str, body: wire.Receipt, at: float | None = None) -> Outcome:
        """`at`: our wall seconds, now when None."""
        self._check_gate(gate, body.zone)
        return self._receipts.put(gate, body, self._at_ms(at))

    def receipts(self, zone: str) -> list[GateReceipt]:
        return self._receipts.receipts(zone)

    def enforced(self, what: Change | str) -> Enforcement:
        """Of a change that took rights away, or of an ended tenancy."""
        if isinstance(what, Change):
            zone, first, last = what.zone, what.first_seq, what.last_seq
        else:
            zone, first, last = self._receipts.of_tenancy(what)
        return self._receipts.enforced(zone, first, last, self.gates(zone))

    def open_events(self, gate: str, body: wire.Events) -> list[EventRow]:
        """The rows of an EVENTS, for put_events. Refusal: wrong_zone, wrong_key, unreadable."""
        self._check_gate(gate, body.zone)
        return open_rows(gate, body, self.secrets_of(body.zone))

    def put_events(
        self, gate: str, body: wire.Events, rows: Sequence[EventRow], at: float | None = None
    ) -> wire.EventAck:
        return self._trail.put(gate, body, rows, self._at_ms(at))

    def events(self, after: int = 0, gate: str | None = None) -> Iterator[StoredEvent]:
        return self._trail.events(after, gate)

    def put_status(self, gate: str, body: wire.StatusBody, at: float | None = None) -> bool:
        return self._statuses.put(gate, body, self._at_ms(at))

    def statuses(self) -> list[GateStatus]:
        return self._statuses.statuses()

    def _check_gate(self, gate: str, zone: str) -> None:
        if gate not in self.gates(zone):
            raise Refusal("wrong_zone")

    def _at_ms(self, at: float | None) -> int:
        return now_ms(self.clock) if at is None else int(at * 1000)
