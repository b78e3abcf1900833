"""What is there is written down: every command in both READMEs, every key in the example."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from edge import cli as edge_cli
from edge.cli_audit import audit, models
from edge.cli_box import doctor, explain, provision
from edge.config import Config
from enroll.cli import cli as enroll_cli
from hil.cli import cli as hil_cli

ROOT = Path(__file__).parent.parent
READMES = ["README.md", "README.zh-CN.md"]
for command in (doctor, explain, provision, audit, models):
    edge_cli.cli.add_command(command)
PROGRAMS = {"edge": edge_cli.cli, "enroll": enroll_cli, "hil": hil_cli}


def commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for sub, inner in command.commands.items():
            yield from commands(f"{name} {sub}", inner)
    else:
        yield name, command


ALL = [pair for name, program in PROGRAMS.items() for pair in commands(name, program)]


@pytest.mark.parametrize("readme", READMES)
@pytest.mark.parametrize("path", [path for path, _ in ALL])
def test_a_command_is_in_the_readme(path: str, readme: str) -> None:
    """Program and words of the command on one line, in this order."""
    words = r"\b[^\n]*\b".join(map(re.escape, path.split()))
    assert re.search(words, (ROOT / readme).read_text("utf-8")), f"{readme} lacks `{path}`"


@pytest.mark.parametrize(("path", "command"), ALL, ids=[path for path, _ in ALL])
def test_a_command_teaches(path: str, command: click.Command) -> None:
    assert command.help, f"`{path} --help` says nothing"
    assert len(command.help) > 20


def keys(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """(section, key) of a configuration, however deep."""
    for name, info in model.model_fields.items():
        for inner in sections(info.annotation):
            yield from ((name, key) for key in inner.model_fields)


def sections(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from sections(argument)


@pytest.mark.parametrize(("section", "key"), list(keys(Config)))
def test_a_key_is_in_the_annotated_example(section: str, key: str) -> None:
    text = (ROOT / "config" / "gate.example.toml").read_text("utf-8")
    part = re.search(rf"^\[+{section}\]+[^\n]*$(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    assert part, f"no section [{section}]"
    assert re.search(rf"^#? ?{key} = ", part[1], re.MULTILINE), f"[{section}] lacks {key}"


@pytest.mark.parametrize("readme", READMES)
def test_every_link_of_a_readme_leads_somewhere(readme: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / readme).read_text("utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
