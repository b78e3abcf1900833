"""`edge`: the commands of a gate box. Each does one thing and says what it found.

A user's mistake is one line per fault on stderr and exit code 2, never a traceback. Heavy parts
(onnxruntime, insightface) are imported only by the commands that run them.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

import click

from edge.config import Config, ConfigError, load

# Telemetry off, before onnxruntime is imported by anything.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

DEFAULT_CONFIG = Path("/etc/menjin/gate.toml")
STATUS_TIMEOUT_S = 3.0

config_option = click.option(
    "--config",
    "-c",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The gate's TOML file.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="menjin", prog_name="edge")
def cli() -> None:
    """A gate box of menjin (门禁): cameras in front, locks behind, a roster from the office.

    \b
    First time on a box:
      edge provision --id gate-1 --request gate-1.request   keys are made here, send the request
      edge provision --bundle gate-1.bundle                 what the office answered
      edge check && edge doctor                             is everything there?
      edge run                                              (systemd does this)
    """


@cli.command()
@config_option
@click.option("--verbose", is_flag=True, help="Log debug lines too.")
def run(config_path: Path, verbose: bool) -> None:
    """Run the daemon in the foreground until SIGTERM; JSON log lines on stderr."""
    import logging

    from edge import logs

    config = load(config_path)
    logs.to_stderr(logging.DEBUG if verbose else logging.INFO)
    from edge.daemon import Parts
    from edge.daemon import run as run_daemon
    from edge.keys import forbid_dumps

    forbid_dumps()
    sys.exit(run_daemon(Parts(config)))


@cli.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Faults as JSON.")
def check(config_path: Path, as_json: bool) -> None:
    """Check the configuration, the models and the papers, and tell every fault at once.

    \b
    Example: edge check -c gate.toml
    Exit code: 0 nothing wrong, 2 something is.
    """
    faults = _faults(config_path)
    if as_json:
        click.echo(json.dumps({"config": str(config_path), "faults": faults}, ensure_ascii=False))
    elif not faults:
        click.echo(f"{config_path}: nothing wrong")
    else:
        click.echo("\n".join(faults), err=True)
    sys.exit(2 if faults else 0)


def _faults(config_path: Path) -> list[str]:
    try:
        config = load(config_path)
    except ConfigError as error:
        return error.faults
    from edge.models import verify

    faults = verify(config.faces.models)
    if config.faces.pad:
        faults += verify(config.faces.pad)
    return faults + _camera_faults(config)


def _camera_faults(config: Config) -> list[str]:
    from edge.camera import Camera
    from edge.clock import SystemClock

    faults = []
    for camera in config.camera:
        try:
            Camera(camera.id, camera.source, camera.fps, SystemClock(), loop=camera.loop)
        except ValueError as error:
            faults.append(str(error))
    return faults


def fetch_health(config: Config) -> dict[str, object] | None:
    """What the running daemon says of itself; None when none answers, or something else does."""
    host, port = config.health.address
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/healthz"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this box
    try:
        try:
            with direct.open(url, timeout=STATUS_TIMEOUT_S) as answer:
                facts = json.load(answer)
        except urllib.error.HTTPError as error:
            facts = json.load(error)
    except (OSError, ValueError, HTTPException):
        return None
    return facts if isinstance(facts, dict) and {"gate", "status"} <= facts.keys() else None


@cli.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="As the daemon says it.")
def status(config_path: Path, as_json: bool) -> None:
    """Ask the running daemon how it is.

    \b
    Exit code: 0 all well, 1 degraded, failing or not running.
    """
    config = load(config_path)
    facts = fetch_health(config)
    if facts is None:
        raise click.ClickException(
            f"no daemon answers on {config.health.listen}; start it: systemctl start menjin"
        )
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
    else:
        click.echo(status_text(facts))
    sys.exit(0 if facts["status"] == "ok" else 1)


def status_text(facts: dict[str, object]) -> str:
    """For a person at the box: what is wrong first."""
    lines = [f"{facts['gate']}: {facts['status']}"]
    for title in ("stuck", "degraded"):
        words = facts.get(title)
        if isinstance(words, list):
            lines += [f"  {title}: {word}" for word in words]
    for title in ("doors", "cameras"):
        parts = facts.get(title)
        if isinstance(parts, dict):
            lines += [f"  {title[:-1]} {name}: {state}" for name, state in parts.items()]
    zones = facts.get("zones")
    if isinstance(zones, dict):
        lines += [
            f"  zone {name}: at {zone['applied_seq']} of {zone['head_seq']}, lease {zone['lease']}"
            for name, zone in zones.items()
        ]
    for title in (
        "people",
        "broker",
        "audit_rows",
        "audit_acknowledged",
        "key_protection",
        "models",
    ):
        lines.append(f"  {title.replace('_', ' ')}: {facts.get(title)}")
    return "\n".join(lines)


def main() -> None:
    """The console script: our own errors are one line each and exit code 2."""
    from edge.cli_audit import audit, models
    from edge.cli_box import doctor, explain, provision

    for command in (doctor, explain, provision, audit, models):
        cli.add_command(command)
    try:
        cli(standalone_mode=True)
    except ConfigError as error:
        _give_up(error.faults)
    except OSError as error:
        _give_up([f"{error.filename or 'edge'}: {error.strerror or error}"])
    except (ValueError, RuntimeError) as error:
        if not _is_ours(error):
            raise
        _give_up([str(error)])


def _is_ours(error: Exception) -> bool:
    """One-line errors made for people; anything else is a defect and keeps its traceback."""
    from edge.keys import KeyFault
    from edge.modelfile import ModelError
    from edge.provision import PaperError
    from edge.state import StateFault
    from edge.store import StoreFault
    from edge.trail import TrailFault

    ours = KeyFault | ModelError | PaperError | StateFault | StoreFault | TrailFault
    return isinstance(error, ours)


def _give_up(faults: list[str]) -> None:
    for fault in faults:
        click.echo(f"edge: {fault}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
