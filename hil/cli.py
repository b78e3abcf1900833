"""`hil`: the rig's commands. Everything runs in a folder of its own, which goes when it ends."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hil.broker import Kind

# Before numpy or onnxruntime is imported by anything: telemetry off, one thread each.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

broker_option = click.option(
    "--broker",
    type=click.Choice(["auto", "mosquitto", "embedded"]),
    default="auto",
    show_default=True,
    help="auto: mosquitto (with TLS) when it is installed, else the embedded one (without).",
)
keep_option = click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Run in this new folder and leave it, with all logs and databases.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="menjin", prog_name="hil")
def cli() -> None:
    """The rig of menjin (门禁): the real product against simulated hardware."""


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        if keep.exists() and any(keep.iterdir()):
            raise click.UsageError(f"--keep {keep}: not empty; name a new folder")
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="menjin-") as folder:
        yield Path(folder)


def _say(quiet: bool) -> Callable[[str], None]:
    return (lambda text: click.echo(text, err=True)) if quiet else click.echo


@cli.command()
@broker_option
@keep_option
@click.option("--json", "as_json", is_flag=True, help="Steps and figures as JSON on stdout.")
def demo(broker: Kind, keep: Path | None, as_json: bool) -> None:
    """The whole story: enrol, pass, refuse, revoke, broker gone, daemon killed, audit verified.

    \b
    Exit code: 0 when every step happened, 1 otherwise.
    """
    from hil.demo import play

    with _folder(keep) as folder:
        report = play(folder, broker, _say(as_json))
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        click.echo(
            f"every step happened, in {report['seconds']:.0f} s" if report["ok"] else "NOT complete"
        )
    sys.exit(0 if report["ok"] else 1)


@cli.command()
@click.option(
    "--models",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="A face pack: folder or ZIP, with or without pack.json.",
)
@click.option(
    "--pad",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="A presentation-attack pack, likewise.",
)
@click.option(
    "--faces",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Photos, a folder for each person.",
)
@click.option(
    "--video",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A video of strangers: nothing may open.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the report here.")
@broker_option
@keep_option
def people(
    models: Path,
    pad: Path,
    faces: Path,
    video: Path | None,
    json_file: Path | None,
    broker: Kind,
    keep: Path | None,
) -> None:
    """Real photos against the real gate: one photo each is enrolled, all others are shown.

    Each person has a tenancy and a door of their own. After that a video of strangers, and the
    same photos again after two tenancies were revoked. The threshold is the pack's default.

    \b
    Example: hil people --models mbf-sc --pad pad --faces faces --video walk.mp4
    Exit code: 0 when every photo opened exactly its own door, 1 otherwise, 2 for bad input.
    """
    from edge.modelfile import ModelError
    from hil.people import run, table

    with _folder(keep) as folder:
        try:
            report = run(folder, models, pad, faces, video, broker, _say(True))
        except (ModelError, ValueError) as error:
            raise click.UsageError(str(error)) from None
        except RuntimeError as error:  # a RigError, or a part that did not start
            raise click.ClickException(str(error)) from None
    _write(report, json_file)
    click.echo(table(report))
    sys.exit(0 if report["ok"] else 1)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON on stdout.")
@keep_option
def bench(as_json: bool, keep: Path | None) -> None:
    """Measure what this machine reaches, each figure beside a limit. About three minutes."""
    from hil.bench import measure, rows, table

    with _folder(keep) as folder:
        figures = measure(folder / "rig", _say(True))
    click.echo(json.dumps(rows(figures), indent=2) if as_json else table(figures))


def _write(report: dict[str, Any], json_file: Path | None) -> None:
    if json_file is not None:
        json_file.write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", "utf-8")


def main() -> None:
    cli()


if __name__ == "__main__":
    main()
