"""Random histories over a line that drops, doubles, reorders, replays and a process that dies: who
was revoked is never let in again after the receipt, and everybody agrees in the end."""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from gatekit import GateBox, Office, person

from edge import replica as edge_replica
from edge import wire
from edge.roster import Applied
from edge.terms import Reason, Status

PERSONS, OPS = 5, 14


class Told(AssertionError):
    """What must never happen, with the seed that shows it."""


class History:
    """One seed: an office's history, what is under way, and what was receipted."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.random = seed, random.Random(seed)
        self.office = Office()
        self.gate = GateBox(folder, self.office)
        self.under_way: list[bytes] = []
        self.seen: list[bytes] = []
        self.pv = dict.fromkeys(range(PERSONS), 0)
        self.revoked_at: dict[int, int] = {}  # person -> seq of the last word, when it is an end
        self.early: set[int] = set()  # seqs receipted ahead of the log, whatever restarts since
        self.whole: set[int] = set()  # seqs that end everything a person has, by themselves

    def change(self) -> None:
        who = self.random.randrange(PERSONS)
        self.pv[who] += 1
        if self.pv[who] > 1 and self.random.random() < 0.6:
            suspend = self.random.random() < 0.3
            grant = self.random.choice([None, "a", "b"])
            delta = self.office.revoke(who, self.pv[who], grant, suspend=suspend)
            if grant is None:
                self.whole.add(len(self.office.log))
        else:
            grants = self.random.choice([("a",), ("b",), ("a", "b")])
            delta = self.office.put(who, self.pv[who], grants=grants)
        record = self.office.truth.people[person(who)]
        self.revoked_at.pop(who, None)
        if record.status is not Status.ACTIVE:
            self.revoked_at[who] = len(self.office.log)
        self.under_way.append(delta)

    def deliver(self) -> None:
        """One message of those under way, or an old one; lost, doubled or late as it comes."""
        if self.seen and self.random.random() < 0.2:
            self.gate.log(self.random.choice(self.seen))
        elif self.under_way:
            raw = self.under_way.pop(self.random.randrange(len(self.under_way)))
            if self.random.random() < 0.7:
                self.seen.append(raw)
                self.gate.log(raw)

    def step(self) -> None:
        action = self.random.random()
        if action < 0.35 and len(self.office.log) < OPS:
            self.change()
        elif action < 0.8:
            self.deliver()
        elif action < 0.9 and self.office.log:
            first = self.random.randrange(len(self.office.log)) + 1
            self.gate.down(self.office.page(first, self.random.randrange(1, 6)))
        elif action < 0.95:
            self.gate.beacon(
                self.office.beacon(recent=self.random.sample(self.seen, min(2, len(self.seen))))
            )
        else:
            self.gate.restart()
        self.check()

    def check(self) -> None:
        receipts = [m.body for m in self.gate.sent() if isinstance(m.body, wire.Receipt)]
        for receipt in receipts:
            if receipt.chain_hash != self.office.hashes[receipt.applied_seq]:
                raise Told(f"seed {self.seed}: a receipt for a log that never was")
        covered = self.gate.roster.applied_seq
        self.early |= {seq for receipt in receipts for seq in receipt.early}
        for who, seq in self.revoked_at.items():
            if (seq <= covered or seq in self.early & self.whole) and self.gate.says(
                who
            ) is Reason.GRANTED:
                raise Told(f"seed {self.seed}: {who} is let in after the receipt of {seq}")

    def settle(self) -> None:
        self.gate.down(self.office.page(self.gate.roster.applied_seq + 1))
        if self.gate.roster != self.office.truth:
            raise Told(f"seed {self.seed}: the gate ends elsewhere than the office")
        for who in range(PERSONS):
            record = self.office.truth.people.get(person(who))
            wanted = record is not None and bool(record.templates)
            if self.gate.knows_face(who) is not wanted:
                raise Told(f"seed {self.seed}: the face of {who} is wrong")


def play(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = History(seed, Path(folder))
        try:
            for _ in range(60):
                history.step()
            history.settle()
        finally:
            history.gate.close()


@pytest.mark.parametrize("block", range(6))
def test_random_schedules(block: int) -> None:
    for seed in range(block * 10, block * 10 + 10):
        play(seed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_random_schedules() -> None:
    for seed in range(1000, 2500):
        play(seed)


def bites(seeds: int = 40) -> bool:
    for seed in range(seeds):
        try:
            play(seed)
        except Told:
            return True
    return False


def test_the_schedules_notice_a_gate_without_the_version_rule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: with replays believed, somebody revoked is let in, or the ends differ."""
    monkeypatch.setattr("edge.roster._version_fault", lambda old, op: None)
    real = edge_replica.Replica._log

    def believe_replays(self: edge_replica.Replica, zone, body, signed, *, quiet=False):  # type: ignore[no-untyped-def]
        state = self.zones[zone]
        if body.first_seq <= state.roster.applied_seq and signed is not None:
            opened, _ = self._open(zone, [(op, state.roster.chain_hash) for op in body.ops])
            done: Applied = edge_replica.rules.apply(
                state.roster, opened, first_seq=state.roster.applied_seq + 1
            )
            people = {**state.roster.people, **done.roster.people}
            state.roster = replace(state.roster, people=people)
            self.live.set_roster(state.roster)
        return real(self, zone, body, signed, quiet=quiet)

    monkeypatch.setattr(edge_replica.Replica, "_log", believe_replays)
    assert bites()


def test_the_schedules_notice_a_gate_that_forgets_what_ran_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: early receipts without the deny set behind them."""
    monkeypatch.setattr(edge_replica.Replica, "_deny", lambda self, zone: None)
    assert bites()
