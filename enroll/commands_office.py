"""The office commands: what the estate is, and who takes part. They change the database and exit;
what talks to the gates is `commands_live`, what takes photos `commands_desk`."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from edge.clock import SystemClock
from edge.provision import BrokerAddress
from enroll.home import Home
from enroll.messages import say
from enroll.registrar import init_office
from enroll.roster.authority import Authority

DEFAULT_BROKER = "127.0.0.1:8883"
CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def home_option(command: CommandT) -> CommandT:
    return click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("office"),
        envvar="MENJIN_OFFICE",
        show_default=True,
        show_envvar=True,
        help="The office's folder.",
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")
zone_option = click.option("--zone", required=True, help="The compound (组团) it belongs to.")


@contextmanager
def authority_of(home: Path) -> Iterator[Authority]:
    with Authority.open(Home(home), SystemClock()) as authority:
        yield authority


def report(rows: Sequence[dict[str, Any]], as_json: bool, empty: str) -> None:
    """A list for people (columns) or for programs (one JSON array)."""
    if as_json:
        click.echo(json.dumps(list(rows), ensure_ascii=False, indent=1))
    elif not rows:
        click.echo(say(empty))
    else:
        table = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        for row in table:
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo(line.rstrip())


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "-" if value is None else str(value)


# roster


@click.command("init")
@home_option
@click.option("--broker", default=DEFAULT_BROKER, show_default=True, help="HOST:PORT for clients.")
@click.option("--plain", is_flag=True, help="No TLS: only for a demo broker on loopback.")
def roster_init(home: Path, broker: str, plain: bool) -> None:
    """Make an office: keys, certificate authority, the broker's settings, an empty database.

    \b
    Example:
      enroll roster init --home office --broker broker.estate.lan:8883
    """
    address = _broker(broker, plain)
    init_office(Home(home), address)
    click.echo(say("office_made", home=home))
    click.echo(say("office_root_offline", root=Home(home).root_dir))
    if not plain:
        click.echo(say("office_broker", conf=Home(home).broker_dir / "mosquitto.conf"))


def _broker(text: str, plain: bool) -> BrokerAddress:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise click.BadParameter(say("bad_broker", text=text), param_hint="--broker")
    return BrokerAddress(host=host.strip("[]"), port=int(port), plain=plain)


# zone, door, unit


@click.group()
def zone() -> None:
    """Compounds and building groups (组团): each has its own roster and keys."""


@zone.command("add")
@home_option
@click.argument("name")
def zone_add(home: Path, name: str) -> None:
    """Make a zone.

    \b
    Example:
      enroll zone add lotus-garden
    """
    with authority_of(home) as authority:
        authority.add_zone(name)
    click.echo(say("zone_added", zone=name))


@zone.command("list")
@home_option
@json_option
def zone_list(home: Path, as_json: bool) -> None:
    """List the zones.

    \b
    Example:
      enroll zone list --json
    """
    with authority_of(home) as authority:
        rows = [_zone_row(authority, name) for name in authority.zones()]
    report(rows, as_json, "no_zones")


def _zone_row(authority: Authority, name: str) -> dict[str, Any]:
    counts = {"doors": len(authority.doors(name)), "gates": len(authority.gates(name))}
    return {"zone": name, **counts, "changes": authority.position(name).head_seq}


@click.group()
def door() -> None:
    """Ways through, each held by one lock."""


@door.command("add")
@home_option
@zone_option
@click.argument("name")
def door_add(home: Path, zone: str, name: str) -> None:
    """Make a door known.

    \b
    Example:
      enroll door add main --zone lotus-garden
    """
    with authority_of(home) as authority:
        authority.add_door(zone, name)
    click.echo(say("door_added", zone=zone, door=name))


@door.command("list")
@home_option
@zone_option
@json_option
def door_list(home: Path, zone: str, as_json: bool) -> None:
    """List the doors of a zone.

    \b
    Example:
      enroll door list --zone lotus-garden
    """
    with authority_of(home) as authority:
        rows = [{"zone": zone, "door": name} for name in authority.doors(zone)]
    report(rows, as_json, "no_doors")


@click.group()
def unit() -> None:
    """Homes (房号), and the doors that lead to each."""


@unit.command("add")
@home_option
@zone_option
@click.option("--door", "doors", multiple=True, required=True, help="A door; repeat for more.")
@click.argument("name")
def unit_add(home: Path, zone: str, doors: tuple[str, ...], name: str) -> None:
    """Make a home known, with the doors its household may pass.

    \b
    Example:
      enroll unit add 3-1201 --zone lotus-garden --door main --door tower-3
    """
    with authority_of(home) as authority:
        authority.add_unit(zone, name, doors)
    click.echo(say("unit_added", zone=zone, unit=name))


@unit.command("list")
@home_option
@zone_option
@json_option
def unit_list(home: Path, zone: str, as_json: bool) -> None:
    """List the homes of a zone.

    \b
    Example:
      enroll unit list --zone lotus-garden
    """
    with authority_of(home) as authority:
        rows = [asdict(item) for item in authority.units(zone)]
    report(rows, as_json, "no_units")


# tenancy


@click.group()
def tenancy() -> None:
    """Tenancies: what gives a household its rights, and whose end takes them."""


@tenancy.command("add")
@home_option
@zone_option
@click.option("--unit", required=True, help="The home (房号).")
@click.option("--starts", help="Date or time, local; default now.")
@click.option("--ends", help="Date or time, local; default: until it is ended.")
@click.option("--household", type=int, required=True, help="How many persons it registers.")
@click.argument("number")
def tenancy_add(
    home: Path,
    zone: str,
    unit: str,
    starts: str | None,
    ends: str | None,
    household: int,
    number: str,
) -> None:
    """Enter a tenancy. A date means 00:00 of that day: with --ends the first day without rights.

    \b
    Example:
      enroll tenancy add T-2026-118 --zone lotus-garden --unit 3-1201 --household 3 \\
          --ends 2027-09-01
    """
    with authority_of(home) as authority:
        term = _moment(starts, "--starts"), _moment(ends, "--ends")
        authority.add_tenancy(number, zone, unit, *term, household)
    click.echo(say("tenancy_added", tenancy=number))


def _moment(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise click.BadParameter(say("bad_date", text=text), param_hint=option) from None


@tenancy.command("end")
@home_option
@click.option("--authority-ref", required=True, help="The basis: contract, order, request.")
@click.option("--by", default=None, help="Who decided; default: your login name.")
@click.argument("number")
def tenancy_end(home: Path, authority_ref: str, by: str | None, number: str) -> None:
    """End a tenancy now: everybody's rights under it are revoked. To wait until every gate has
    it, use `enroll roster revoke NUMBER --wait`.

    \b
    Example:
      enroll tenancy end T-2026-118 --authority-ref "notice of 2026-08-01"
    """
    with authority_of(home) as authority:
        change = authority.end_tenancy(number, authority_ref, by or login_name())
    click.echo(say("tenancy_ended", tenancy=number, people=change.people))


def login_name() -> str:
    """Who is working here, for the record; empty when the system does not know."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


@tenancy.command("list")
@home_option
@json_option
def tenancy_list(home: Path, as_json: bool) -> None:
    """List the tenancies.

    \b
    Example:
      enroll tenancy list --json
    """
    with authority_of(home) as authority:
        rows = [asdict(item) for item in authority.tenancies()]
    for row in rows:
        for name in ("starts", "ends", "ended_at"):
            row[name] = None if row[name] is None else _local(row[name])
    report(rows, as_json, "no_tenancies")


def _local(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(timespec="seconds")
