"""The commands that talk to gates and take photos: `roster serve`, revoke and status, the desk's
own, `person`, `events`. The office's records are `commands_office`."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from edge import logs, wire
from edge.clock import SystemClock
from edge.link import Link, Tls
from edge.provision import Bundle, read_paper, write_paper
from enroll.commands_office import authority_of, home_option, json_option, login_name, report
from enroll.consent import BASES, TEXT_VERSION, consent
from enroll.desk import Desk
from enroll.desk_session import NotDone, session
from enroll.home import AUTHORITY_ID, Home, OfficeError
from enroll.messages import say
from enroll.roster.authority import Authority, Change, Enforcement, StoredEvent
from enroll.roster.bell import Bell
from enroll.roster.serve import Serve, subscriptions

SHARED_GROUP = "authority"
WAIT_POLL_S = 0.02
FOLLOW_POLL_S = 0.5
_FILE = click.Path(path_type=Path, dir_okay=False)
desk_option = click.option(
    "--desk",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("desk"),
    envvar="MENJIN_DESK",
    show_default=True,
    show_envvar=True,
    help="The desk's folder.",
)


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
        serve = Serve(authority, link, authority.clock, stop, greeted)

        def ring() -> None:
            serve.poked.set()
            link.wake()

        bell = Bell(place.serve_socket, ring)
        worker = threading.Thread(target=serve.run, name="serve", daemon=True)
        bell.start()
        link.start()
        worker.start()
        try:
            while not stop.is_set() and not link.wait_connected(0.2):
                pass
            if not stop.is_set():
                facts = {"zones": len(authority.zones()), "host": address.host}
                click.echo(say("serving", port=address.port, **facts))
            stop.wait()
        finally:
            stop.set()
            link.wake()
            worker.join(5)
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


# desk


@click.command("init")
@desk_option
@click.option("--id", "desk_id", required=True, help="Name of the new desk.")
@click.option("--request", "request_path", type=_FILE, required=True, help="Where to write it.")
def desk_init(folder: Path, desk_id: str, request_path: Path) -> None:
    """Make a desk's keys, here, and its request for the office.

    \b
    Example:
      enroll desk init --id desk-1 --desk desk --request desk-1.request
    """
    _, request = Desk.init(folder, desk_id)
    write_paper(request_path, request)
    facts = {"path": request_path, "fingerprint": request.fingerprint}
    click.echo(say("desk_request", desk=desk_id, **facts))


@click.command("join")
@desk_option
@click.option("--bundle", "bundle_path", type=_FILE, required=True, help="The office's answer.")
def desk_join(folder: Path, bundle_path: Path) -> None:
    """Take in what `enroll desk add` wrote; the office's root key is pinned.

    \b
    Example:
      enroll desk join --desk desk --bundle desk-1.bundle
    """
    desk = Desk(folder)
    desk.join(read_paper(bundle_path, Bundle))
    click.echo(say("desk_joined", desk=desk.id))


@click.command("sync")
@desk_option
@json_option
def desk_sync(folder: Path, as_json: bool) -> None:
    """Fetch members and keys, and give every gate of the desk's zones its face key. Needed when a
    gate is new; `person add` does it by itself.

    \b
    Example:
      enroll desk sync --desk desk
    """
    with _not_done(), session(Desk(folder), SystemClock()) as line:
        done = line.sync(again=True)
        elsewhere = [line.told_elsewhere(zone) for zone in done.elsewhere]
    if as_json:
        click.echo(json.dumps(asdict(done), ensure_ascii=False))
    else:
        facts = {"made": len(done.made), "wrapped": done.wrapped}
        click.echo(say("desk_synced", zones=", ".join(done.zones), **facts))
    for fault in elsewhere:
        click.echo(f"enroll: {fault}", err=True)
    if elsewhere:
        raise click.exceptions.Exit(1)


@contextmanager
def _not_done() -> Iterator[None]:
    """What the office refused or did not answer: one line, exit 1."""
    try:
        yield
    except NotDone as fault:
        click.echo(f"enroll: {fault}", err=True)
        raise click.exceptions.Exit(1) from None


# person


@click.group()
def person() -> None:
    """Persons: enrolled at a desk, with their separate consent."""


@person.command("add")
@desk_option
@click.option("--photo", type=_FILE, required=True, help="Read once; never kept.")
@click.option("--tenancy", required=True, help="The tenancy that gives the rights.")
@click.option("--id", "internal_id", required=True, help="Your own number of the person.")
@click.option("--consent", "basis", type=click.Choice(BASES), help="Basis of separate consent.")
@click.option("--consent-text", default=TEXT_VERSION, show_default=True, help="Version signed.")
@click.option("--guardian", default="", help="Who consented for a child (under 14: always).")
@click.option("--by", default=None, help="Who took the consent; default: your login name.")
@click.option("--transfer/--no-transfer", default=False, help="Consent covers the gates.")
@click.option("--zone", help="Needed when the desk has several.")
@click.option(
    "--models",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    envvar="MENJIN_MODELS",
    show_envvar=True,
    help="The face pack that the gates use.",
)
@click.option("--largest", is_flag=True, help="Of several faces take the largest.")
def person_add(
    folder: Path,
    photo: Path,
    tenancy: str,
    internal_id: str,
    basis: str | None,
    consent_text: str,
    guardian: str,
    by: str | None,
    transfer: bool,
    zone: str | None,
    models: Path,
    largest: bool,
) -> None:
    """Enrol a person from one photo under a tenancy. Without recorded separate consent there is no
    template. The photo is never stored; delete your copy.

    \b
    Example:
      enroll person add --photo wang.jpg --tenancy T-2026-118 --id R-0042 \\
          --consent separate_written --by "front desk" --transfer --models models/sim
    """
    clock = SystemClock()
    given = consent(
        basis,
        by=by or login_name(),
        transfer=transfer,
        at=clock.wall(),
        text_version=consent_text,
        guardian=guardian,
    )
    if not (1 <= len(internal_id) <= 64 and internal_id.isprintable() and internal_id.strip()):
        raise OfficeError(say("person_id"))
    desk = Desk(folder)
    desk.bundle  # noqa: B018 - a desk that has not joined says so before any work is done
    from enroll.capture import Camera

    camera = Camera(models)
    vector = camera.template(photo, largest=largest)
    asked = wire.EnrolRequest(internal_id=internal_id, tenancy=tenancy, consent=given)
    with _not_done(), session(desk, clock) as line:
        zones = line.sync().zones
        line.enrol(_one_zone(zone, zones), asked, [vector], camera.model_id)
    click.echo(say("person_added"))


def _one_zone(wanted: str | None, zones: tuple[str, ...]) -> str:
    if wanted is None:
        if len(zones) != 1:
            raise OfficeError(say("zone_needed", zones=", ".join(zones)))
        return zones[0]
    if wanted not in zones:
        raise OfficeError(say("zone_not_ours", zone=wanted, zones=", ".join(zones)))
    return wanted


@person.command("list")
@home_option
@json_option
@click.option("--zone", help="Only this one.")
def person_list(home: Path, as_json: bool, zone: str | None) -> None:
    """List who is or was enrolled.

    \b
    Example:
      enroll person list --zone lotus-garden
    """
    with authority_of(home) as authority:
        rows = [
            {
                "id": one.internal_id,
                "zone": one.zone,
                "status": one.status.name.lower(),
                "tenancies": list(one.tenancies),
                "pseudonym": one.person.hex(),
            }
            for one in authority.people(zone)
        ]
    report(rows, as_json, "no_people")


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
