"""The commands about gates that run: `roster serve`, `roster revoke --wait`, `roster status`,
`events`. The office's records are `commands_office`, the desk and its people `commands_desk`."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from edge import logs
from edge.clock import SystemClock
from edge.link import Link, Tls
from enroll.commands_office import authority_of, home_option, json_option, login_name, report
from enroll.home import AUTHORITY_ID, Home, OfficeError
from enroll.messages import say
from enroll.roster.authority import Authority, Change, Enforcement, StoredEvent
from enroll.roster.bell import Bell
from enroll.roster.serve import Serve, subscriptions

SHARED_GROUP = "authority"
CONNECT_POLL_S, WAIT_POLL_S = 0.2, 0.02
JOIN_S = 5.0
FOLLOW_POLL_S = 0.5


# roster serve


@click.command("serve")
@home_option
@click.option("--protocol", type=click.Choice(["5", "3.1.1"]), help="MQTT; default 5.")
@click.option("--shared-group", help=f"Of workers that share the load; default {SHARED_GROUP}.")
def roster_serve(home: Path, protocol: str | None, shared_group: str | None) -> None:
    """Answer gates and desks, and tell every gate at once what changes. Runs until it is stopped;
    logs JSON lines to stderr. Opens neither root/ nor registrar/ nor a desk's folder.

    \b
    Example:
      enroll roster serve --home office
    """
    place = Home(home).require()
    address = place.office().broker
    if address.plain and (protocol == "5" or shared_group):
        raise OfficeError(say("plain_protocol"))
    group = ("" if address.plain else SHARED_GROUP) if shared_group is None else shared_group
    logs.to_stderr()
    stop, greeted = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def greet() -> None:
        greeted.set()
        link.wake()

    link = Link(
        AUTHORITY_ID,
        address.host,
        address.port,
        tls=None if address.plain else _tls(place),
        protocol="3.1.1" if address.plain or protocol == "3.1.1" else "5",
        subscriptions=subscriptions(group),
        on_connect=greet,
        name="office",
    )
    with _only_one(place), Authority.open(place, SystemClock()) as authority:
        serving = say("serving", zones=len(authority.zones()), host=address.host, port=address.port)
        _run(Serve(authority, link, authority.clock, stop, greeted), link, serving)


def _run(serve: Serve, link: Link, serving: str) -> None:
    """Until `serve.stop`; says once that it serves."""

    def ring() -> None:
        serve.poked.set()
        link.wake()

    bell = Bell(serve.authority.home.serve_socket, ring)
    worker = threading.Thread(target=serve.run, name="serve", daemon=True)
    for part in (bell, link, worker):
        part.start()
    try:
        while not serve.stop.is_set() and not link.wait_connected(CONNECT_POLL_S):
            pass
        if not serve.stop.is_set():
            click.echo(serving)
        serve.stop.wait()
    finally:
        serve.stop.set()
        link.wake()
        worker.join(JOIN_S)
        link.close()
        bell.stop()


def _tls(home: Home) -> Tls:
    files = home.authority_tls()
    return Tls(files.ca, files.certificate, files.key)


@contextmanager
def _only_one(home: Home) -> Iterator[None]:
    descriptor = os.open(home.data_dir / "serve.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise OfficeError(say("serve_twice", home=home.path)) from None
    finally:
        os.close(descriptor)


# roster revoke, roster status


@click.command("revoke")
@home_option
@click.option("--authority-ref", required=True, help="The basis: contract, order, request.")
@click.option("--by", default=None, help="Who decided; default: your login name.")
@click.option("--wait", is_flag=True, help="Until every gate of the zone has receipted it.")
@click.option("--timeout", type=click.FloatRange(min=0), default=30.0, show_default=True)
@json_option
@click.argument("tenancy")
def roster_revoke(
    home: Path,
    authority_ref: str,
    by: str | None,
    wait: bool,
    timeout: float,
    as_json: bool,
    tenancy: str,
) -> None:
    """End a tenancy now and take its rights from everybody who has them. With --wait: exit code 0
    when every gate has enforced it, else 1, and the missing gates are named. Repeating it changes
    nothing and waits again.

    \b
    Example:
      enroll roster revoke T-2026-118 --authority-ref "court 2026/114" --wait
    """
    with authority_of(home) as authority:
        began_ms = int(time.time() * 1000)
        change = authority.revoke(tenancy, authority_ref, by or login_name())
        deadline = time.monotonic() + (timeout if wait else 0)
        while not (done := authority.enforced(change)).complete and time.monotonic() < deadline:
            time.sleep(WAIT_POLL_S)
        ended = next(t.ended_at for t in authority.tenancies() if t.tenancy == tenancy)
        began_ms = min(began_ms, round((ended or 0) * 1000))  # earlier when it was ended before
    facts = _enforcement(tenancy, change, done, began_ms)
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False))
    else:
        click.echo(say("revoked", **facts))
        if facts["last_ms"] is not None:
            click.echo(say("revoked_times", first=facts["first_ms"], last=facts["last_ms"]))
    if wait and done.missing:
        missing = ", ".join(done.missing)
        click.echo(say("revoke_missing", seconds=f"{timeout:g}", gates=missing), err=True)
        raise click.exceptions.Exit(1)


def _enforcement(tenancy: str, change: Change, done: Enforcement, began_ms: int) -> dict[str, Any]:
    """Times in ms after the change; None when nothing had to be enforced, or nobody has yet."""
    after = [at - began_ms for _, at in done.enforced if at]
    return {
        "tenancy": tenancy,
        "zone": change.zone,
        "seq": change.last_seq,
        "people": change.people,
        "total": done.total,
        "enforced": len(done.enforced),
        "first_ms": min(after, default=None),
        "last_ms": max(after, default=None),
        "missing": list(done.missing),
    }


@click.command("status")
@home_option
@json_option
@click.argument("zone", required=False)
def roster_status(home: Path, as_json: bool, zone: str | None) -> None:
    """How far each gate is: what it has applied of the log, when it last said so, what is wrong.

    \b
    Example:
      enroll roster status lotus-garden
    """
    with authority_of(home) as authority:
        zones = [zone] if zone else authority.zones()
        rows = [row for name in zones for row in _zone_status(authority, name)]
    report(rows, as_json, "no_status")


def _zone_status(authority: Authority, zone: str) -> list[dict[str, Any]]:
    head = authority.position(zone).head_seq
    receipts = {receipt.gate: receipt for receipt in authority.receipts(zone)}
    states = {status.gate: status for status in authority.statuses()}
    now, rows = authority.clock.wall(), []
    for gate in authority.gates(zone):
        receipt, state = receipts.get(gate), states.get(gate)
        rows.append(
            {
                "zone": zone,
                "gate": gate,
                "state": state.state if state else "unknown",
                "head_seq": head,
                "applied_seq": receipt.applied_seq if receipt else None,
                "active": receipt.active if receipt else None,
                "receipt_age_s": round(now - receipt.at / 1000, 1) if receipt else None,
                "diverged": bool(receipt and receipt.diverged_at),
                "degraded": list(state.degraded) if state else [],
            }
        )
    return rows


# events


@click.command()
@home_option
@click.option("--follow", is_flag=True, help="Go on with new ones until stopped.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--gate", help="Only of this gate.")
def events(home: Path, follow: bool, as_json: bool, gate: str | None) -> None:
    """The gates' audit trails as they reached the office, in order of arrival.

    \b
    Example:
      enroll events --follow --gate gate-1
    """
    seen = 0
    with authority_of(home) as authority:
        while True:
            for event in authority.events(seen, gate):
                seen = event.id
                click.echo(_line(event, as_json))
            if not follow:
                break
            time.sleep(FOLLOW_POLL_S)
    if not seen and not as_json:
        click.echo(say("no_events"))


def _line(event: StoredEvent, as_json: bool) -> str:
    row: dict[str, Any] = {
        "gate": event.gate,
        "event_no": event.event_no,
        "at": _local(event.at),
        "received_at": _local(event.received_at),
        "kind": event.kind,
        "door": event.door,
        "zone": event.zone,
        "person": event.person.hex() if event.person else None,
        "reason": event.reason,
        "grant_id": event.grant_id,
        "facts": event.facts,
    }
    if as_json:
        return json.dumps(row, ensure_ascii=False, default=str)
    told = (row["at"], event.gate, event.kind, event.door, event.reason, row["person"])
    facts = " ".join(f"{key}={value}" for key, value in event.facts.items())
    return "  ".join(str(part) for part in (*told, facts) if part)


def _local(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(timespec="milliseconds")
