"""How a gate or desk is let in: `gate add` and `desk add` are the registrar's, and the only
commands that open its folder. The fingerprint is what both sides read aloud."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edge.provision import Request, read_paper, write_paper
from enroll.commands_office import authority_of, home_option, json_option, report
from enroll.home import Home, OfficeError
from enroll.messages import say
from enroll.registrar import add_member

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, dir_okay=False)


def _add_options(command: CommandT) -> CommandT:
    for option in (
        click.option("--fingerprint", help="As shown at the box; refused when it differs."),
        click.option("--out", type=_FILE, required=True, help="Where to write the bundle."),
        click.option("--zone", "zones", multiple=True, required=True, help="Repeat for more."),
        click.option("--request", "request_path", type=_FILE, required=True),
        home_option,
    ):
        command = option(command)
    return command


@click.group()
def gate() -> None:
    """Gate boxes."""


@gate.command("add")
@_add_options
def gate_add(
    home: Path, request_path: Path, zones: tuple[str, ...], out: Path, fingerprint: str | None
) -> None:
    """Let a gate in: sign its membership, certify its key, write its bundle. The same request
    again gives a new bundle, for example with other zones.

    \b
    Example:
      enroll gate add --request gate-1.request --zone lotus-garden --out gate-1.bundle \\
          --fingerprint 3F2A-90C1-77DE-01B4-5A6C
    """
    _add("gate", home, request_path, zones, out, fingerprint)


@gate.command("list")
@home_option
@json_option
def gate_list(home: Path, as_json: bool) -> None:
    """List the gates.

    \b
    Example:
      enroll gate list --json
    """
    _list("gate", home, as_json)


@click.command("add")
@_add_options
def desk_add(
    home: Path, request_path: Path, zones: tuple[str, ...], out: Path, fingerprint: str | None
) -> None:
    """Let an enrolment desk in: sign its membership, certify its key, write its bundle.

    \b
    Example:
      enroll desk add --request desk-1.request --zone lotus-garden --out desk-1.bundle
    """
    _add("desk", home, request_path, zones, out, fingerprint)


@click.command("list")
@home_option
@json_option
def desk_list(home: Path, as_json: bool) -> None:
    """List the desks.

    \b
    Example:
      enroll desk list
    """
    _list("desk", home, as_json)


def _add(
    role: str,
    home: Path,
    request_path: Path,
    zones: tuple[str, ...],
    out: Path,
    fingerprint: str | None,
) -> None:
    request = read_paper(request_path, Request)
    if request.role != role:
        raise OfficeError(say("wrong_role", path=request_path, role=request.role))
    if fingerprint is not None and _plain(fingerprint) != _plain(request.fingerprint):
        raise OfficeError(say("fingerprint_differs", seen=request.fingerprint))
    if not out.parent.is_dir():
        raise OfficeError(say("no_folder", folder=out.parent))
    bundle = add_member(Home(home), request, list(zones))
    write_paper(out, bundle)
    click.echo(say("member_added", member=request.id, zones=", ".join(zones), out=out))
    if fingerprint is None:
        click.echo(say("compare_fingerprint", fingerprint=request.fingerprint))


def _plain(fingerprint: str) -> str:
    return "".join(c for c in fingerprint.upper() if c.isalnum())


def _list(role: str, home: Path, as_json: bool) -> None:
    with authority_of(home) as authority:
        rows = [
            {
                "id": stored.member.id,
                "zones": stored.member.zones,
                "version": stored.member.version,
                "fingerprint": stored.fingerprint,
            }
            for stored in authority.members()
            if stored.member.role == role
        ]
    report(rows, as_json, f"no_{role}s")
