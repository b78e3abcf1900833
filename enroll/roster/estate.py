"""The estate as the office knows it: zones, their doors, units and tenancies. No rights here: who
may enter is a grant, and grants are `rights`' business."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from edge.clock import Clock
from edge.wire import GENESIS, Name
from enroll.home import Home
from enroll.roster.log import FIRST_EPOCH, now_ms
from enroll.roster.refusal import Refusal
from enroll.roster.store import Row, Store

HOUSEHOLD_MAX = 32
LABEL_CHARS_MAX = 64  # wire.WireGrant.tenancy
_NAME = TypeAdapter[str](Name)


@dataclass(frozen=True, slots=True)
class Unit:
    """A home (房号) and the doors that lead to it."""

    zone: str
    unit: str
    doors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tenancy:
    """The contract that gives a household its rights. Times in seconds; `ends` None: open."""

    tenancy: str
    zone: str
    unit: str
    starts: float
    ends: float | None
    household: int
    ended_at: float | None
    enrolled: int  # persons with a grant under it that nobody revoked


@dataclass(frozen=True, slots=True)
class Estate:
    store: Store
    home: Home
    clock: Clock

    def add_zone(self, zone: str) -> None:
        """A new zone with its own Kr and pseudonym secret."""
        check_name("zone", zone)
        with self.store.atomic():
            if self.store.row("SELECT 1 FROM zones WHERE zone = ?", (zone,)):
                raise Refusal("zone_exists", zone=zone)
            self.home.make_zone_secrets(zone)
            fresh = {"epoch": FIRST_EPOCH, "head_seq": 0, "head_hash": GENESIS}
            at_zero = {"digest": bytes(32), "floor_seq": 0, "beacon_n": 0}
            self.store.insert("zones", {"zone": zone, **fresh, **at_zero})

    def zones(self) -> list[str]:
        return [row["zone"] for row in self.store.rows("SELECT zone FROM zones ORDER BY zone")]

    def check_zone(self, zone: str) -> None:
        if not self.store.row("SELECT 1 FROM zones WHERE zone = ?", (zone,)):
            raise Refusal("zone_unknown", zone=zone)

    def add_door(self, zone: str, door: str) -> None:
        check_name("door", door)
        with self.store.atomic():
            if door in self.doors(zone):
                raise Refusal("door_exists", zone=zone, door=door)
            self.store.insert("doors", {"zone": zone, "door": door})

    def doors(self, zone: str) -> list[str]:
        self.check_zone(zone)
        sql = "SELECT door FROM doors WHERE zone = ? ORDER BY rowid"
        return [row["door"] for row in self.store.rows(sql, (zone,))]

    def add_unit(self, zone: str, unit: str, doors: Iterable[str]) -> None:
        check_label("unit", unit)
        wanted = list(dict.fromkeys(doors))
        with self.store.atomic():
            known = self.doors(zone)
            if not wanted:
                raise Refusal("no_doors", unit=unit)
            for door in wanted:
                if door not in known:
                    raise Refusal("door_unknown", zone=zone, door=door)
            if self._unit(zone, unit):
                raise Refusal("unit_exists", zone=zone, unit=unit)
            self.store.insert("units", {"zone": zone, "unit": unit, "doors": json.dumps(wanted)})

    def _unit(self, zone: str, unit: str) -> Row | None:
        return self.store.row("SELECT * FROM units WHERE zone = ? AND unit = ?", (zone, unit))

    def units(self, zone: str) -> list[Unit]:
        self.check_zone(zone)
        rows = self.store.rows("SELECT * FROM units WHERE zone = ? ORDER BY rowid", (zone,))
        return [Unit(zone, row["unit"], tuple(json.loads(row["doors"]))) for row in rows]

    def add_tenancy(
        self,
        tenancy: str,
        zone: str,
        unit: str,
        starts: float | None,
        ends: float | None,
        household: int,
    ) -> None:
        """`starts` None: now. Valid in [starts, ends)."""
        check_label("tenancy", tenancy)
        if not 1 <= household <= HOUSEHOLD_MAX:
            raise Refusal("household", limit=HOUSEHOLD_MAX)
        starts_ms = now_ms(self.clock) if starts is None else int(starts * 1000)
        ends_ms = None if ends is None else int(ends * 1000)
        if starts_ms < 0 or (ends_ms is not None and ends_ms <= starts_ms):
            raise Refusal("tenancy_term")
        with self.store.atomic():
            self.check_zone(zone)
            if not self._unit(zone, unit):
                raise Refusal("unit_unknown", zone=zone, unit=unit)
            if self.store.row("SELECT 1 FROM tenancies WHERE tenancy = ?", (tenancy,)):
                raise Refusal("tenancy_exists", tenancy=tenancy)
            place = {"tenancy": tenancy, "zone": zone, "unit": unit}
            term = {"starts": starts_ms, "ends": ends_ms, "household": household}
            self.store.insert("tenancies", {**place, **term})

    def tenancies(self) -> list[Tenancy]:
        sql = """SELECT t.*, (SELECT count(DISTINCT person) FROM grants g WHERE
                 g.tenancy = t.tenancy AND g.revoked_at IS NULL) AS enrolled
                 FROM tenancies t ORDER BY t.rowid"""
        return [
            Tenancy(
                tenancy=row["tenancy"],
                zone=row["zone"],
                unit=row["unit"],
                starts=row["starts"] / 1000,
                ends=None if row["ends"] is None else row["ends"] / 1000,
                household=row["household"],
                ended_at=None if row["ended_at"] is None else row["ended_at"] / 1000,
                enrolled=row["enrolled"],
            )
            for row in self.store.rows(sql)
        ]


def check_name(what: str, name: str) -> None:
    """Names travel in topics and on the wire (wire.Name)."""
    try:
        _NAME.validate_python(name)
    except ValidationError:
        raise Refusal("name", what=what, name=repr(name)) from None


def check_label(what: str, label: str) -> None:
    """Tenancies and units are numbers of the house's own: any script, one line."""
    if not (1 <= len(label) <= LABEL_CHARS_MAX and label.isprintable() and label.strip() == label):
        raise Refusal("label", what=what, label=repr(label))
