"""The commands of an enrolment desk: its folder, its keys, and the people it enrols. What the desk
does is `desk`, `desk_session` and `capture`; here is how it is asked and what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from edge import wire
from edge.clock import SystemClock
from edge.provision import Bundle, read_paper, write_paper
from enroll.commands_office import authority_of, home_option, json_option, login_name, report
from enroll.consent import BASES, TEXT_VERSION, consent
from enroll.desk import Desk
from enroll.desk_session import NotDone, session
from enroll.home import OfficeError
from enroll.messages import say

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
