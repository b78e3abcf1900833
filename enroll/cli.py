"""`enroll`: the commands of an office, assembled. What each does is `commands_office`
and `commands_members`; here is how a mistake is told: one line on stderr, exit 2.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

# Telemetry off, before onnxruntime is imported by anything.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from edge.provision import PaperError
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
    """
    if lang:
        use_language(lang)


@cli.group()
def roster() -> None:
    """The roster: make the office that keeps it."""


@cli.group()
def desk() -> None:
    """Enrolment desks."""


roster.add_command(office.roster_init)
desk.add_command(members.desk_add)
desk.add_command(members.desk_list)
for group in (office.zone, office.door, office.unit, office.tenancy, members.gate):
    cli.add_command(group)


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
