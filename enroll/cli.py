"""`enroll`: the commands of an office, assembled. What each does is `commands_office`,
`commands_members`, `commands_desk` and `commands_live`; here is how a mistake is told: one line on
stderr, exit 2.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

# Telemetry off, before onnxruntime is imported by anything.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from edge.provision import PaperError
from enroll import commands_desk as desks
from enroll import commands_live as live
from enroll import commands_members as members
from enroll import commands_office as office
from enroll.home import OfficeError
from enroll.messages import say, use_language
from enroll.roster.refusal import Refusal


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="menjin", prog_name="enroll")
@click.option("--lang", type=click.Choice(["zh", "en"]), help="Default: zh when LANG says so.")
def cli(lang: str | None) -> None:
    """The office of menjin (门禁): who may enter, and through which gates.

    \b
    First time:
      enroll roster init --broker broker.estate.lan:8883
      enroll zone add lotus-garden
      enroll door add main --zone lotus-garden
      enroll unit add 3-1201 --zone lotus-garden --door main
      enroll gate add --request gate-1.request --zone lotus-garden --out gate-1.bundle
      enroll roster serve

    \b
    Every day:
      enroll tenancy add T-2026-118 --zone lotus-garden --unit 3-1201 --household 3
      enroll person add --photo wang.jpg --tenancy T-2026-118 --id R-0042 \\
          --consent separate_written --transfer --models models/sim
      enroll roster revoke T-2026-118 --authority-ref "notice of 2026-08-01" --wait
    """
    if lang:
        use_language(lang)


@cli.group()
def roster() -> None:
    """The roster: make the office that keeps it, serve it, take rights away."""


@cli.group()
def desk() -> None:
    """Enrolment desks."""


for command in (office.roster_init, live.roster_serve, live.roster_revoke, live.roster_status):
    roster.add_command(command)
for command in (
    desks.desk_init,
    members.desk_add,
    desks.desk_join,
    desks.desk_sync,
    members.desk_list,
):
    desk.add_command(command)
for command in (office.zone, office.door, office.unit, office.tenancy, members.gate):
    cli.add_command(command)
for command in (desks.person, live.events):
    cli.add_command(command)


def main() -> None:
    """The console script."""
    try:
        code = cli(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as wanted:
        click.echo(wanted.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as mistake:
        _give_up(mistake.format_message())
    except click.Abort:
        sys.exit(130)
    except Refusal as refusal:
        _give_up(say(refusal.key, **refusal.facts))
    except (OfficeError, PaperError) as error:
        _give_up(str(error))
    except OSError as error:
        _give_up(f"{error.filename or 'enroll'}: {error.strerror or error}")
    else:
        sys.exit(code if isinstance(code, int) else 0)  # click hands back the code of --help


def _give_up(fault: str) -> NoReturn:
    click.echo(f"enroll: {fault}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
