"""The office commands as staff use them: real folders, the real console entry, one line per
mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from office import Box

from edge.provision import Bundle, read_paper, write_paper
from enroll import cli as enroll_cli
from enroll import messages, texts_office

ROOT = Path(__file__).parent.parent


class Staff:
    """Runs `enroll` in this process, as the console script would."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch):
        self.folder, self.capsys, self.patch = folder, capsys, patch

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)"""
        self.patch.setattr(sys, "argv", ["enroll", *arguments])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            enroll_cli.main()
        out, err = self.capsys.readouterr()
        return int(left.value.code or 0), out, err

    def well(self, *arguments: str) -> str:
        code, out, err = self(*arguments)
        assert (code, err) == (0, ""), err
        return out

    def mistake(self, *arguments: str) -> str:
        code, out, err = self(*arguments)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1 and err.startswith("enroll: "), err
        return err


@pytest.fixture
def staff(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Staff]:
    for name in ("LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "en_GB.UTF-8")
    monkeypatch.setenv("MENJIN_OFFICE", str(tmp_path / "office"))
    monkeypatch.setattr(messages, "_chosen", [])
    made = Staff(tmp_path, capsys, monkeypatch)
    made.well("roster", "init")
    made.well("zone", "add", "lotus")
    made.well("door", "add", "main", "--zone", "lotus")
    yield made


def request_file(staff: Staff, member: str, role: str) -> tuple[str, str]:
    """(path, fingerprint)"""
    request, path = Box(member, role).request, staff.folder / f"{member}.request"
    write_paper(path, request)
    return str(path), request.fingerprint


def test_an_estate_from_nothing(staff: Staff) -> None:
    staff.well("unit", "add", "3栋1201", "--zone", "lotus", "--door", "main")
    term = ("--household", "3", "--starts", "2026-09-01", "--ends", "2027-09-01")
    staff.well("tenancy", "add", "租-1", "--zone", "lotus", "--unit", "3栋1201", *term)
    (unit,) = json.loads(staff.well("unit", "list", "--zone", "lotus", "--json"))
    assert unit == {"zone": "lotus", "unit": "3栋1201", "doors": ["main"]}
    (tenancy,) = json.loads(staff.well("tenancy", "list", "--json"))
    assert (tenancy["tenancy"], tenancy["household"], tenancy["ended_at"]) == ("租-1", 3, None)
    assert tenancy["ends"].startswith("2027-09-01T00:00:00")
    assert "0" in staff.well("tenancy", "end", "租-1", "--authority-ref", "notice")
    (tenancy,) = json.loads(staff.well("tenancy", "list", "--json"))
    assert tenancy["ended_at"] is not None
    zones = json.loads(staff.well("zone", "list", "--json"))
    assert zones == [{"zone": "lotus", "doors": 1, "gates": 0, "changes": 0}]


def test_a_gate_is_let_in_and_its_fingerprint_shown(staff: Staff) -> None:
    path, fingerprint = request_file(staff, "gate-1", "gate")
    out = str(staff.folder / "gate-1.bundle")
    place = ("--request", path, "--zone", "lotus", "--out", out)
    assert fingerprint in staff.well("gate", "add", *place)
    assert read_paper(Path(out), Bundle).id == "gate-1"
    listed = staff.well("gate", "list")
    assert "gate-1" in listed and fingerprint in listed


def test_another_fingerprint_lets_nobody_in(staff: Staff) -> None:
    path, fingerprint = request_file(staff, "gate-1", "gate")
    out = staff.folder / "gate-1.bundle"
    place = ("gate", "add", "--request", path, "--zone", "lotus", "--out", str(out))
    wrong = ("0" if fingerprint[0] != "0" else "1") + fingerprint[1:]
    assert fingerprint in staff.mistake(*place, "--fingerprint", wrong)
    assert not out.exists() and json.loads(staff.well("gate", "list", "--json")) == []
    spoken = fingerprint.lower().replace("-", " ")
    staff.well(*place, "--fingerprint", spoken)
    assert out.exists()


def test_a_desk_comes_in_by_its_own_command(staff: Staff) -> None:
    path, _ = request_file(staff, "desk-1", "desk")
    rest = ("--request", path, "--zone", "lotus", "--out", str(staff.folder / "b"))
    assert "enroll desk add" in staff.mistake("gate", "add", *rest)
    staff.well("desk", "add", *rest)
    assert json.loads(staff.well("desk", "list", "--json"))[0]["id"] == "desk-1"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("zone", "add", "lotus"), "there already"),
        (("zone", "add", "a/b"), "cannot be the name"),
        (("door", "add", "x", "--zone", "nowhere"), "enroll zone add nowhere"),
        (("unit", "add", "1", "--zone", "lotus", "--door", "x"), "enroll door add"),
        (("tenancy", "end", "T9", "--authority-ref", "x"), "no such tenancy"),
        (("roster", "init"), "not empty"),
        (("zone", "list", "--home", "nowhere"), "enroll roster init"),
        (
            ("gate", "add", "--request", "missing", "--zone", "lotus", "--out", "x"),
            "give the path",
        ),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    staff: Staff, arguments: tuple[str, ...], says: str
) -> None:
    assert says in staff.mistake(*arguments)


@pytest.mark.parametrize(
    ("option", "value"), [("--ends", "someday"), ("--household", "many"), ("--colour", "red")]
)
def test_a_bad_option_is_one_line_that_names_it(staff: Staff, option: str, value: str) -> None:
    rest = ("--zone", "lotus", "--unit", "1", "--household", "1", option, value)
    assert option in staff.mistake("tenancy", "add", "T", *rest)


def test_a_broker_without_a_port_is_refused_before_anything_is_made(staff: Staff) -> None:
    elsewhere = str(staff.folder / "elsewhere")
    assert "HOST:PORT" in staff.mistake("roster", "init", "--home", elsewhere, "--broker", "b")
    assert not Path(elsewhere).exists()


def test_help_and_nothing_at_all_show_the_way(staff: Staff) -> None:
    assert "enroll roster init" in staff.well("--help")
    code, _, err = staff()
    assert code == 2 and "enroll roster init" in err


def test_chinese_staff_read_chinese(staff: Staff) -> None:
    staff.patch.setenv("LANG", "zh_CN.UTF-8")
    assert staff.well("zone", "add", "he") == "已建立组团 he\n"
    assert "已存在" in staff.mistake("zone", "add", "he")
    assert "there already" in staff.mistake("--lang", "en", "zone", "add", "he")


def test_every_text_has_both_languages_and_the_same_facts() -> None:
    import string

    for key, (zh, en) in texts_office.TEXTS.items():
        facts = [{f for _, f, _, _ in string.Formatter().parse(t) if f} for t in (zh, en)]
        assert zh != en and facts[0] == facts[1], key


def leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from leaves(inner, f"{path} {name}")
    else:
        yield path, command


def test_every_command_shows_an_example_and_lists_speak_json() -> None:
    for path, command in leaves(enroll_cli.cli, "enroll"):
        assert path in (command.help or "").partition("Example:")[2], path
        if path.endswith(" list"):
            assert "--json" in [option for p in command.params for option in p.opts], path


def test_the_module_runs_as_a_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "enroll", "zone", "list", "--home", str(tmp_path / "none")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
