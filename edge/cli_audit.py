"""`edge audit` and `edge models`: is the trail whole, and whose models are these."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from edge.cli import config_option
from edge.config import load
from edge.state import State

DEFAULT_MODELS = Path("/var/lib/menjin/models")


@click.group()
def audit() -> None:
    """The audit trail of this box."""


def _trail(config_path: Path) -> Path:
    path = State(load(config_path).gate.state_dir).journal_db
    if not path.exists():
        raise click.ClickException(f"{path}: no audit trail yet; run the daemon once")
    return path


@audit.command("verify")
@config_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def audit_verify(config_path: Path, as_json: bool) -> None:
    """Walk the hash chain from the last anchor the office signed; name the first bad row.

    \b
    Exit code: 0 the chain holds, 1 it does not.
    """
    from edge.trail import verify

    found = verify(_trail(config_path))
    if as_json:
        facts = {
            "ok": found.ok,
            "rows": found.rows,
            "first_bad": found.first_bad_no,
            "why": found.why,
            "head": found.head_hash.hex(),
        }
        click.echo(json.dumps(facts, ensure_ascii=False))
    elif found.ok:
        click.echo(f"{found.rows} rows, the chain holds, head {found.head_hash.hex()[:16]}")
    else:
        click.echo(f"row {found.first_bad_no}: {found.why}", err=True)
    sys.exit(0 if found.ok else 1)


@audit.command("export")
@config_option
@click.option("--since", type=int, default=0, help="After this row number.")
def audit_export(config_path: Path, since: int) -> None:
    """The rows as JSON lines, oldest first; persons by pseudonym."""
    from edge.trail import export

    for row in export(_trail(config_path)):
        if row["event_no"] > since:
            click.echo(json.dumps(row, ensure_ascii=False))


@click.group()
def models() -> None:
    """Model packs: what is there, whose licence, and is it unaltered."""


root_option = click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=DEFAULT_MODELS,
    show_default=True,
    help="Where packs are kept.",
)


@models.command("list")
@root_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def models_list(root: Path, as_json: bool) -> None:
    """The packs below a folder, each checked, with its licence."""
    from edge.models import ModelError, list_packs

    rows: list[dict[str, object]] = []
    for name, pack in list_packs(root).items():
        if isinstance(pack, ModelError):
            rows.append({"name": name, "fault": str(pack)})
        else:
            rows.append(
                {
                    "name": name,
                    "kind": pack.kind,
                    "version": pack.version,
                    "threshold": pack.threshold,
                    "licence": pack.licence,
                    "licence_state": pack.licence_state,
                    "about": pack.about,
                }
            )
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
    elif not rows:
        click.echo(f"no packs in {root}; bring one: edge models install --from ZIP-OR-DIR")
    for row in [] if as_json else rows:
        if "fault" in row:
            click.echo(f"{row['name']}: BROKEN {row['fault']}")
        else:
            click.echo(
                f"{row['name']} {row['version']} ({row['kind']}), threshold "
                f"{row['threshold']}, licence {row['licence_state']}: {row['licence']}"
            )


@models.command("install")
@root_option
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    required=True,
    help="A ZIP file or a folder.",
)
def models_install(root: Path, source: Path) -> None:
    """Copy a pack into the models folder; nothing is ever downloaded.

    A folder of bare .onnx files, as insightface packs come, gets a manifest with a default
    threshold and the licence state that insightface itself reports.
    """
    from edge.models import install, load_pack

    folder = install(source, root)
    pack = load_pack(folder)
    click.echo(f"installed {pack.name} {pack.version} at {folder}")
    click.echo(f"licence: {pack.licence_state}: {pack.licence}")
    click.echo(f"threshold {pack.threshold}: {pack.threshold_reason}")


@models.command("verify")
@click.argument("folder", type=click.Path(path_type=Path))
def models_verify(folder: Path) -> None:
    """Check every file of a pack against its manifest; exit code 1 when one is altered."""
    from edge.models import verify

    faults = verify(folder)
    for fault in faults:
        click.echo(fault, err=True)
    if not faults:
        click.echo(f"{folder}: unaltered")
    sys.exit(1 if faults else 0)
