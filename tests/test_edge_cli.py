"""`edge` as a person at the box meets it: what it says, and with which exit code."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.clock import SystemClock
from edge.provision import BrokerAddress, Bundle, Request, read_paper, write_paper
from enroll.home import Home
from enroll.registrar import add_member, init_office
from enroll.roster.authority import Authority

ROOT = Path(__file__).parent.parent
PACK = ROOT / "hil" / "simpack" / "pack"
ENV = {**os.environ, "LANG": "C.UTF-8"}


def edge(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "edge", *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=ROOT, env=ENV, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


def toml(folder: Path, **changes: str) -> Path:
    """A configuration that is right but for `changes` (old text -> new)."""
    text = (ROOT / "config" / "gate.example.toml").read_text("utf-8")
    text = text.replace("/var/lib/menjin/models/sim", str(PACK))
    text = text.replace('"/var/lib/menjin"', f'"{folder}/state"')
    text = text.replace('credential = "menjin-kek"', f'file = "{folder}/kek"')
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "gate.toml"
    path.write_text(text, "utf-8")
    return path


def office(folder: Path) -> Home:
    home = Home(folder / "office")
    init_office(home, BrokerAddress(host="127.0.0.1", port=8883))
    with Authority.open(home, SystemClock()) as authority:
        authority.add_zone("lotus-garden")
        authority.add_door("lotus-garden", "main")
    return home


def request(folder: Path, name: str = "gate-1") -> tuple[Request, str]:
    done = edge(
        "provision", "--id", name, "--state", folder / "state", "--key", folder / "kek",
        "--request", folder / "request.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return read_paper(folder / "request.json", Request), done.stdout


def bundle(folder: Path, paper: Bundle) -> subprocess.CompletedProcess[str]:
    write_paper(folder / "bundle.json", paper)
    return edge(
        "provision", "--state", folder / "state", "--key", folder / "kek",
        "--bundle", folder / "bundle.json", "--config-out", folder / "first.toml",
    )  # fmt: skip


# --- joining ---


def test_a_box_joins_an_office(tmp_path: Path) -> None:
    paper, said = request(tmp_path)
    assert f"fingerprint: {paper.fingerprint}" in said
    assert (tmp_path / "kek").stat().st_mode & 0o777 == 0o600
    done = bundle(tmp_path, add_member(office(tmp_path), paper, ["lotus-garden"]))
    assert done.returncode == 0, done.stderr
    assert 'id = "gate-1"' in (tmp_path / "first.toml").read_text("utf-8")


def test_the_same_box_asks_again_with_the_same_fingerprint(tmp_path: Path) -> None:
    first, _ = request(tmp_path)
    again, _ = request(tmp_path)
    assert again.fingerprint == first.fingerprint


def test_a_bundle_for_another_box_is_refused(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    request(mine)
    paper, _ = request(other)
    done = bundle(mine, add_member(office(tmp_path), paper, ["lotus-garden"]))
    assert done.returncode == 2
    assert "answers another request" in done.stderr
    assert not (mine / "state" / "identity" / "root.pub").exists()


def test_a_bundle_whose_root_signed_nothing_is_refused(tmp_path: Path) -> None:
    paper, _ = request(tmp_path)
    good = add_member(office(tmp_path), paper, ["lotus-garden"])
    stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    forged = good.model_dump() | {"root_pub": base64.b64encode(stranger)}
    forged |= {key: base64.b64encode(forged[key]) for key in ("trust",)}
    forged["members"] = [base64.b64encode(raw) for raw in forged["members"]]
    done = bundle(tmp_path, Bundle.model_validate(forged))
    assert done.returncode == 2
    assert "does not verify" in done.stderr


@pytest.mark.parametrize(
    ("text", "says"), [("{", "not a menjin bundle"), ('{"menjin": "request"}', "not a menjin")]
)
def test_a_paper_that_is_none_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    request(tmp_path)
    (tmp_path / "bundle.json").write_text(text, "utf-8")
    done = edge(
        "provision", "--state", tmp_path / "state", "--key", tmp_path / "kek",
        "--bundle", tmp_path / "bundle.json",
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert says in done.stderr


# --- checking ---


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    path = toml(
        tmp_path, **{"address = 1 ": "adress = 1 ", 'device = "relay-1"': 'device = "relay-9"'}
    )
    done = edge("check", "-c", path)
    lines = done.stderr.splitlines()
    assert done.returncode == 2
    assert any("device[0].adress: unknown key" in line for line in lines)
    assert any("device[0].address: missing" in line for line in lines)
    report = json.loads(edge("check", "-c", path, "--json").stdout)
    assert report["faults"] == lines


def test_dangling_names_are_told(tmp_path: Path) -> None:
    done = edge("check", "-c", toml(tmp_path, **{'device = "relay-1"': 'device = "relay-9"'}))
    assert done.returncode == 2
    assert "hangs on device 'relay-9', which is not defined" in done.stderr


def test_the_embedded_broker_is_for_loopback_only(tmp_path: Path) -> None:
    done = edge("check", "-c", toml(tmp_path, **{"# plain = false": "plain = true #"}))
    assert done.returncode == 2
    assert "loopback only" in done.stderr


@pytest.mark.parametrize("command", ["check", "run", "doctor", "status"])
def test_a_missing_configuration_is_one_line(tmp_path: Path, command: str) -> None:
    done = edge(command, "-c", tmp_path / "none.toml")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "none.toml" in done.stderr


@pytest.mark.parametrize("command", ["check", "run"])
def test_an_altered_model_is_one_line(tmp_path: Path, command: str) -> None:
    shutil.copytree(PACK, tmp_path / "pack")
    with (tmp_path / "pack" / "det.onnx").open("ab") as file:
        file.write(b"x")
    request(tmp_path)
    state = tmp_path / "state" / "identity"
    (state / "root.pub").write_bytes(bytes(32))
    path = toml(tmp_path)
    path.write_text(path.read_text("utf-8").replace(str(PACK), str(tmp_path / "pack")), "utf-8")
    done = edge(command, "-c", path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "det.onnx: altered" in done.stderr


# --- running ---


def test_a_box_that_never_joined_says_what_to_do(tmp_path: Path) -> None:
    request(tmp_path)
    done = edge("run", "-c", toml(tmp_path))
    assert done.returncode == 2
    assert "edge provision --bundle" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda kek: kek.write_bytes(os.urandom(32)), "wrong key for this box"),
        (lambda kek: kek.write_bytes(b"short"), "5 bytes where a key has 32"),
        (lambda kek: kek.chmod(0o644), "chmod 600"),
        (lambda kek: kek.unlink(), "No such file"),
    ],
)
def test_a_wrong_key_is_one_line(tmp_path: Path, spoil: object, says: str) -> None:
    request(tmp_path)
    assert callable(spoil)
    spoil(tmp_path / "kek")
    done = edge("run", "-c", toml(tmp_path))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert says in done.stderr


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    paper, _ = request(tmp_path)
    bundle(tmp_path, add_member(office(tmp_path), paper, ["lotus-garden"]))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f'listen = "127.0.0.1:{taken.getsockname()[1]}"'
        done = edge("run", "-c", toml(tmp_path, **{'# listen = "127.0.0.1:9464"': listen}))
    assert done.returncode == 2
    assert "in use" in done.stderr.splitlines()[-1]


def test_status_without_a_daemon_says_how_to_start_it(tmp_path: Path) -> None:
    done = edge("status", "-c", toml(tmp_path))
    assert done.returncode == 1
    assert "systemctl start menjin" in done.stderr


def test_doctor_names_what_is_missing_and_what_is_weak(tmp_path: Path) -> None:
    paper, _ = request(tmp_path)
    bundle(tmp_path, add_member(office(tmp_path), paper, ["lotus-garden"]))
    done = edge("doctor", "-c", toml(tmp_path), "--json")
    found = {row["what"]: row["verdict"] for row in json.loads(done.stdout)}
    assert done.returncode == 1
    assert (found["key"], found["bus rs485-1"], found["models"]) == ("warn", "fail", "ok")


def test_models_are_listed_with_their_licence_and_installed_once(tmp_path: Path) -> None:
    root = tmp_path / "models"
    done = edge("models", "install", "--from", PACK, "--root", root)
    assert "licence: free: Apache-2.0" in done.stdout
    listed = json.loads(edge("models", "list", "--root", root, "--json").stdout)
    assert [(row["name"], row["licence_state"]) for row in listed] == [("sim", "free")]
    assert edge("models", "verify", root / "sim").returncode == 0
    (root / "sim" / "rec.onnx").write_bytes(b"")
    assert edge("models", "verify", root / "sim").returncode == 1
