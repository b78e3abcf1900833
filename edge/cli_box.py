"""`edge provision`, `edge doctor`, `edge explain`: for whoever stands before the box."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from edge.cli import config_option, fetch_health
from edge.config import Config, load
from edge.keys import create_identity, create_kek, load_identity, load_kek
from edge.policy import Now, Policy, checks, decide
from edge.provision import Bundle, read_paper, write_paper
from edge.roster import RosterView
from edge.state import State
from edge.store import Store
from edge.terms import DoorId, Lease, Match, PersonId, Sighting, ZoneId

DISK_LOW_BYTES = 200 * 1024 * 1024  # a million audit rows take about this
CONNECT_TIMEOUT_S = 3.0


@click.command()
@click.option("--id", "gate_id", help="Name of this gate, for a first request.")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/menjin"),
    show_default=True,
    help="State folder.",
)
@click.option("--key", type=click.Path(path_type=Path), help="Key file (made when missing).")
@click.option("--credential", help="Or: name of a systemd credential that holds the key.")
@click.option("--request", type=click.Path(path_type=Path), help="Write the request here.")
@click.option("--bundle", type=click.Path(path_type=Path), help="Take in the office's answer.")
@click.option(
    "--config-out",
    type=click.Path(path_type=Path),
    help="With --bundle: write a first gate.toml here.",
)
def provision(
    gate_id: str | None,
    state: Path,
    key: Path | None,
    credential: str | None,
    request: Path | None,
    bundle: Path | None,
    config_out: Path | None,
) -> None:
    """Join an office: make keys and a request, then take in the bundle it answers with.

    The private keys are made on this box and never leave it. Read the fingerprint to the office:
    `enroll gate add` must show the same.

    \b
    Example:
      edge provision --id gate-1 --key /etc/menjin/kek --request gate-1.request
      edge provision --key /etc/menjin/kek --bundle gate-1.bundle --config-out /etc/menjin/gate.toml
    """
    if (request is None) == (bundle is None):
        raise click.UsageError("give exactly one of --request and --bundle")
    if key is None and credential is None:
        raise click.UsageError("give --key FILE or --credential NAME: where the box's key is")
    if request is not None:
        if not gate_id:
            raise click.UsageError("--request needs --id, the name of this gate")
        _make_request(gate_id, State(state), key, credential, request)
    elif bundle is not None:
        _take_bundle(State(state), key, credential, bundle, config_out)


def _make_request(
    gate_id: str, state: State, key: Path | None, credential: str | None, out: Path
) -> None:
    if key is not None and not key.exists():
        create_kek(key)
        click.echo(f"made the key of this box: {key} (0600; keep it off backups)")
    kek = load_kek(key, credential, os.environ)
    state.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (state.identity / "identity.bin").exists():
        identity = load_identity(state.identity, kek)
        click.echo("this box has its keys already; the request is written anew")
    else:
        identity = create_identity(state.identity, kek, gate_id)
    paper = identity.request()
    if paper.id != gate_id:
        raise click.UsageError(f"this box is {paper.id!r}; remove {state.folder} to rename it")
    write_paper(out, paper)
    click.echo(f"request: {out}")
    click.echo(f"fingerprint: {paper.fingerprint}")
    click.echo(f"next, at the office: enroll gate add --request {out.name} --zone ZONE --out FILE")


def _take_bundle(
    state: State, key: Path | None, credential: str | None, path: Path, config_out: Path | None
) -> None:
    kek = load_kek(key, credential, os.environ)
    identity = load_identity(state.identity, kek)
    bundle = read_paper(path, Bundle)
    store = Store(state.roster_db, kek, bundle.id)
    try:
        state.join(bundle, identity, store)
    finally:
        store.close()
    click.echo(f"{bundle.id}: joined; the office's key is pinned")
    if config_out and config_out.exists():
        click.echo(f"{config_out} is there already and stays as it is")
    elif config_out:
        config_out.write_text(bundle.config, encoding="utf-8")
        click.echo(
            f"first configuration: {config_out} (set cameras, ports and models, then `edge check`)"
        )


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    verdict: str  # ok | warn | fail
    says: str


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON.")
def doctor(config_path: Path, as_json: bool) -> None:
    """Look at everything a gate needs, without touching a running daemon.

    \b
    Exit code: 0 nothing fails (warnings allowed), 1 something fails.
    """
    findings = list(_examine(load(config_path)))
    if as_json:
        click.echo(json.dumps([vars_of(f) for f in findings], ensure_ascii=False, indent=2))
    else:
        for finding in findings:
            click.echo(f"{finding.verdict:>4}  {finding.what}: {finding.says}")
    sys.exit(1 if any(finding.verdict == "fail" for finding in findings) else 0)


def vars_of(finding: Finding) -> dict[str, str]:
    return {"what": finding.what, "verdict": finding.verdict, "says": finding.says}


def _examine(config: Config) -> Iterator[Finding]:
    yield _key(config)
    yield from _models(config)
    yield from _places(config)
    yield _broker(config)
    yield _disk(config)
    yield _audit(config)
    facts = fetch_health(config)
    if facts is None:
        yield Finding("daemon", "warn", "not running")
    else:
        yield Finding("daemon", "ok" if facts["status"] == "ok" else "warn", str(facts["status"]))


def _key(config: Config) -> Finding:
    try:
        kek = load_kek(config.key.file, config.key.credential, os.environ)
        load_identity(State(config.gate.state_dir).identity, kek)
        State(config.gate.state_dir).root_pub()
    except (ValueError, RuntimeError, OSError) as error:
        return Finding("key", "fail", str(error))
    if kek.protection == "weak":
        return Finding(
            "key", "warn", "protection=weak: a file; a systemd credential with TPM is better"
        )
    return Finding("key", "ok", f"protection={kek.protection}")


def _models(config: Config) -> Iterator[Finding]:
    from edge.models import ModelError, load_pack

    for folder in filter(None, (config.faces.models, config.faces.pad)):
        try:
            pack = load_pack(folder)
        except ModelError as error:
            yield Finding("models", "fail", str(error))
            continue
        fine = pack.licence_state in ("free", "commercial")
        says = f"{pack.name} {pack.version}, licence {pack.licence_state}: {pack.licence}"
        yield Finding("models", "ok" if fine else "warn", says)


def _places(config: Config) -> Iterator[Finding]:
    for bus in config.bus:
        there = bus.port.exists()
        says = f"{bus.port} is there" if there else f"{bus.port} is not there; plug in the adapter"
        yield Finding(f"bus {bus.id}", "ok" if there else "fail", says)
    for camera in config.camera:
        place = Path(camera.source.partition(":")[2])
        there = place.exists()
        yield Finding(
            f"camera {camera.id}",
            "ok" if there else "fail",
            f"{place} is there" if there else f"{place} is not there",
        )


def _broker(config: Config) -> Finding:
    where = f"{config.broker.host}:{config.broker.port}"
    try:
        socket.create_connection(
            (config.broker.host, config.broker.port), CONNECT_TIMEOUT_S
        ).close()
    except OSError as error:
        return Finding("broker", "fail", f"{where}: {error.strerror or error}")
    if config.broker.plain:
        return Finding("broker", "warn", f"{where} answers, without TLS (loopback only)")
    return Finding("broker", "ok", f"{where} answers")


def _disk(config: Config) -> Finding:
    folder = config.gate.state_dir
    if not folder.exists():
        return Finding("disk", "fail", f"{folder} is not there; run `edge provision`")
    free = shutil.disk_usage(folder).free
    verdict = "ok" if free > DISK_LOW_BYTES else "warn"
    return Finding("disk", verdict, f"{free // 1024 // 1024} MiB free at {folder}")


def _audit(config: Config) -> Finding:
    from edge.trail import verify

    path = State(config.gate.state_dir).journal_db
    if not path.exists():
        return Finding("audit", "warn", "no audit trail yet")
    found = verify(path)
    if found.ok:
        return Finding("audit", "ok", f"{found.rows} rows, the chain holds")
    return Finding("audit", "fail", f"row {found.first_bad_no}: {found.why}")


@click.command()
@click.argument("person")
@click.argument("door")
@config_option
@click.option("--at", help="As of this time, e.g. 2026-11-24T08:30+08:00 (default: now).")
@click.option("--json", "as_json", is_flag=True, help="Rules and facts as JSON.")
def explain(person: str, door: str, config_path: Path, at: str | None, as_json: bool) -> None:
    """Why would PERSON be let in, or not, at DOOR? Runs the real rules and prints each.

    PERSON is the pseudonym (hex, or its beginning) as the audit trail shows it. The face is taken
    to be a perfect, live match of this moment; the rights are those in this box's cache.

    \b
    Example: edge explain 3fa9 gate-main --at 2026-11-24T23:00+08:00
    Exit code: 0 granted, 1 refused.
    """
    config = load(config_path)
    view, zone_of = _cached(config)
    who, zone = _find(view, person)
    wall = _wall(at)
    match = Match(who, zone_of.get(DoorId(door), zone), score=1.0, margin=2.0)
    sighting = Sighting(DoorId(door), "explain", 0.0, match, "live")
    policy = Policy(
        zone_of,
        threshold=config.faces.threshold or _pack_threshold(config),
        margin=config.faces.margin,
        utc_offset_s=config.gate.utc_offset_s,
        lease=_leases(config),
    )
    now = Now(wall=wall, mono=0.0)
    decision = decide(sighting, view, policy, now=now)
    rules = list(checks(sighting, view, policy, now=now))
    if as_json:
        listed = [{"rule": c.refuses, "holds": c.holds, "facts": c.facts} for c in rules]
        click.echo(json.dumps({"decision": decision.reason, "rules": listed}, ensure_ascii=False))
    else:
        for check in rules:
            click.echo(f"{'holds ' if check.holds else 'FAILS '} {check.refuses:<26} {check.facts}")
            if not check.holds:
                break
        click.echo(f"=> {decision.reason} at {decision.door}")
    sys.exit(0 if decision.granted else 1)


def _pack_threshold(config: Config) -> float:
    from edge.models import load_pack

    return load_pack(config.faces.models).threshold


def _cached(config: Config) -> tuple[RosterView, dict[DoorId, ZoneId]]:
    kek = load_kek(config.key.file, config.key.credential, os.environ)
    path = State(config.gate.state_dir).roster_db
    if not path.exists():
        raise click.ClickException(f"{path}: no roster yet; run the daemon once")
    loaded = Store.peek(path, kek, config.gate.id)
    for why in loaded.refused:
        click.echo(f"edge: {why}", err=True)
    zone_of = {DoorId(door.id): ZoneId(door.zone) for door in config.door}
    return RosterView(zones=loaded.zones), zone_of


def _find(view: RosterView, prefix: str) -> tuple[PersonId, ZoneId]:
    found = [
        (person, zone)
        for zone, roster in view.zones.items()
        for person in roster.people
        if person.hex().startswith(prefix.lower())
    ]
    if len(found) != 1:
        what = f"{len(found)} persons in the cache begin" if found else "nobody in the cache begins"
        raise click.ClickException(f"{what} with {prefix!r}; see `edge audit export`")
    return found[0]


def _leases(config: Config) -> dict[ZoneId, Lease]:
    """From the running daemon; without one every lease is restricted, as after a boot."""
    facts = fetch_health(config)
    zones = facts.get("zones") if facts else None
    if not isinstance(zones, dict):
        return {}
    return {ZoneId(name): Lease(zone["lease"]) for name, zone in zones.items()}


def _wall(at: str | None) -> float:
    if at is None:
        return datetime.now(UTC).timestamp()
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        raise click.UsageError(f"--at {at!r} is not a time; write 2026-11-24T08:30+08:00") from None
    if moment.tzinfo is None:
        raise click.UsageError("--at needs an offset, e.g. 2026-11-24T08:30+08:00")
    return moment.timestamp()
