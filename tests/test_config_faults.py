"""Everything that can be wrong with a gate.toml: told at once, one line each, never a traceback."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from edge.config import Config, ConfigError, is_loopback, load

EXAMPLE = Path(__file__).parents[1] / "config/gate.example.toml"
TEXT = EXAMPLE.read_text("utf-8")


def with_text(folder: Path, *changes: tuple[str, str]) -> Path:
    """The example with each first text replaced by the second; each must stand there once."""
    text = TEXT
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
        text = text.replace(old, new)
    path = folder / "gate.toml"
    path.write_text(text, "utf-8")
    return path


def faults(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).splitlines() == caught.value.faults, "one line each"
    assert all(fault.startswith(f"{path}: ") for fault in caught.value.faults)
    return [fault.removeprefix(f"{path}: ") for fault in caught.value.faults]


# --- the example has every key, and no other ---


def walk(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """(section, key) of every key that there is."""
    for section, info in model.model_fields.items():
        inner: Any = getattr(info.annotation, "__args__", (info.annotation,))[0]
        assert issubclass(inner, BaseModel), section
        yield from ((section, key) for key in inner.model_fields)


KEYS = list(walk(Config))


def uncommented(section: str) -> dict[str, Any]:
    """A section of the example with its commented keys switched on."""
    lines, inside = [], False
    for line in TEXT.splitlines():
        if line.startswith("["):
            inside = line.startswith((f"[{section}]", f"[[{section}]]"))
        elif inside and " = " in line:
            lines.append(line.removeprefix("# "))
    return tomllib.loads("\n".join(lines))


def test_the_example_has_every_key_and_no_other() -> None:
    stands = {(s, key) for s in {section for section, _ in KEYS} for key in uncommented(s)}
    assert stands == set(KEYS)


# --- one thing spoilt, one line ---

OFFSET, LISTEN = '# utc_offset = "+08:00"', '# listen = "127.0.0.1:9464"'
DETECTOR = "# detector_size = [640, 384]"
SPOILT: list[tuple[str, str, str]] = [
    ('id = "gate-1" ', 'idd = "gate-1" ', "gate.idd: unknown key; see config/gate.example.toml"),
    ("[audit]", "[audits]", "audits: unknown key"),
    ('host = "broker.example.org"', "", "broker.host: missing"),
    ('zones = ["lotus-garden"]', "zones = []", "gate.zones: "),
    ('id = "gate-1" ', 'id = "../gate" ', "gate.id: "),
    ('id = "gate-1" ', "id = 1 ", "gate.id: "),
    (OFFSET, 'utc_offset = "+24:00"', "gate.utc_offset: "),
    (OFFSET, 'utc_offset = "+99:00"', "gate.utc_offset: "),
    (OFFSET, 'utc_offset = "+15:00"', "gate.utc_offset: "),
    (OFFSET, 'utc_offset = "+08:60"', "gate.utc_offset: "),
    (OFFSET, 'utc_offset = "8"', "gate.utc_offset: "),
    ("# file =", "file =", "key: set exactly one of"),
    ('credential = "menjin-kek"', "", "key: set exactly one of"),
    ("# plain = false", "plain = true", "broker: plain = true is for loopback only"),
    ("# port = 8883", "port = 0", "broker.port: "),
    ("# port = 8883", "port = 65536", "broker.port: "),
    ('# protocol = "5"', 'protocol = "4"', "broker.protocol: "),
    ('pad = "/var', '# pad = "/var', "faces: set `pad` to the presentation-attack pack"),
    ("# threshold = 0.35", "threshold = 0", "faces.threshold: "),
    ("# threshold = 0.35", "threshold = 1", "faces.threshold: "),
    ("# threshold = 0.35", "threshold = nan", "faces.threshold: "),
    ("# margin = 0.05", "margin = -0.01", "faces.margin: "),
    ("# margin = 0.05", "margin = nan", "faces.margin: "),
    (DETECTOR, "detector_size = [640, 380]", "faces.detector_size: "),
    (DETECTOR, "detector_size = [0, 384]", "faces.detector_size: "),
    (DETECTOR, "detector_size = [640, 2080]", "faces.detector_size: "),
    (DETECTOR, "detector_size = [640]", "faces.detector_size[1]: "),
    ("# fps = 10", "fps = 0", "camera[0].fps: "),
    ("# fps = 10", "fps = inf", "camera[0].fps: "),
    ("# baud = 9600", "baud = 9601", "bus[0].baud: "),
    ('# driver = "modbus"', 'driver = "x"', "device[0].driver: "),
    ("address = 1 ", "address = 0 ", "device[0].address: "),
    ("address = 1 ", "address = 248 ", "device[0].address: "),
    ("# outputs = 8", "outputs = 257", "device[0].outputs: "),
    ("# pulse_s = 3.0", "pulse_s = 0", "door[0].pulse_s: "),
    ("# pulse_s = 3.0", "pulse_s = 61", "door[0].pulse_s: "),
    ("# pulse_s = 3.0", "pulse_s = nan", "door[0].pulse_s: "),
    (LISTEN, 'listen = "0.0.0.0:9464"', "health.listen: metrics are"),
    (LISTEN, 'listen = "[::]:9464"', "health.listen: metrics are"),
    (LISTEN, 'listen = "10.0.0.1:9464"', "health.listen: metrics are"),
    (LISTEN, 'listen = "127.0.0.1:65536"', "health.listen: metrics are"),
    (LISTEN, 'listen = "9464"', "health.listen: "),
    ("# watchdog_s = 10", "watchdog_s = 1.9", "health.watchdog_s: "),
    ("# max_rows = 1000000", "max_rows = 999", "audit.max_rows: "),
    # what hangs together
    ("output = 0 ", "output = 8 ", "door 'main' uses output 8 of 8, counted from 0"),
    ('doors = ["main"]', 'doors = ["main", "x"]', "camera 'cam-main' watches door 'x', which"),
    ('bus = "rs485-1"', 'bus = "rs485-2"', "device 'relay-1' is on bus 'rs485-2', which"),
    ('device = "relay-1"', 'device = "relay-2"', "door 'main' hangs on device 'relay-2', which"),
    ('zone = "lotus-garden"', 'zone = "maple"', "door 'main' is in zone 'maple', which gate.zones"),
]


@pytest.mark.parametrize(("old", "new", "says"), SPOILT, ids=[s[1] or s[0] for s in SPOILT])
def test_one_thing_spoilt_is_one_line_that_names_it(
    old: str, new: str, says: str, tmp_path: Path
) -> None:
    told = faults(with_text(tmp_path, (old, new)))
    assert any(fault.startswith(says) for fault in told), told
    # a misspelt name is missing under the right one as well
    assert [f for f in told if not f.startswith(says) and "missing" not in f] == []


@pytest.mark.parametrize(
    ("old", "new", "read"),
    [
        (OFFSET, 'utc_offset = "-12:00"', lambda c: c.gate.utc_offset_s == -12 * 3600),
        (OFFSET, 'utc_offset = "+05:45"', lambda c: c.gate.utc_offset_s == 20700),
        (OFFSET, 'utc_offset = "+14:00"', lambda c: c.gate.utc_offset_s == 14 * 3600),
        (DETECTOR, "detector_size = [2048, 32]", lambda c: c.faces.detector_size == (2048, 32)),
        ("# margin = 0.05", "margin = 0", lambda c: c.faces.margin == 0),
        ("# pulse_s = 3.0", "pulse_s = 0.1", lambda c: c.door[0].pulse_s == 0.1),
        (LISTEN, 'listen = "[::1]:65535"', lambda c: c.health.address == ("::1", 65535)),
        ("output = 0 ", "output = 7 ", lambda c: c.door[0].output == 7),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_ends_of_what_is_allowed(
    old: str, new: str, read: Callable[[Config], bool], tmp_path: Path
) -> None:
    assert read(load(with_text(tmp_path, (old, new))))


@pytest.mark.parametrize("kind", ["camera", "bus", "device", "door"])
def test_an_id_used_twice_is_told(kind: str, tmp_path: Path) -> None:
    begin = TEXT.index(f"[[{kind}]]")
    end = TEXT.index("\n[", begin + 1)
    path = tmp_path / "gate.toml"
    path.write_text(TEXT + "\n" + TEXT[begin:end], "utf-8")
    told = faults(path)
    assert told[0] == f"{kind} id {tomllib.loads(TEXT)[kind][0]['id']!r} is used 2 times"
    extra = ["two doors on output 0 of device 'relay-1'"] if kind == "door" else []
    assert told[1:] == extra


# --- all at once ---


def test_faults_of_every_sort_are_told_at_once(tmp_path: Path) -> None:
    """What is wrong inside a section hides nothing of what does not hang together."""
    path = with_text(
        tmp_path,
        ('id = "gate-1" ', 'idd = "gate-1" '),
        ("# plain = false", "plain = true"),
        ("# pulse_s = 3.0", "pulse_s = 0"),
        ("output = 0 ", "output = 9 "),
        ('doors = ["main"]', 'doors = ["x", "y"]'),
        (LISTEN, 'listen = "0.0.0.0:80"'),
    )
    told = faults(path)
    for start in (
        *["gate.idd: unknown", "gate.id: missing", "broker: plain", "door[0].pulse_s: "],
        *["health.listen: ", "door 'main' uses output 9"],
        *["camera 'cam-main' watches door 'x'", "camera 'cam-main' watches door 'y'"],
    ):
        assert sum(fault.startswith(start) for fault in told) == 1, start
    assert len(told) == 8


def test_a_door_that_is_wrong_inside_is_not_called_undefined_too(tmp_path: Path) -> None:
    told = faults(with_text(tmp_path, ("output = 0 ", 'output = "first" ')))
    assert [fault.split(":")[0] for fault in told] == ["door[0].output"]


@pytest.mark.parametrize(
    "text",
    [
        *["", "gate = 1", "door = 3", "door = [1]", "[[door]]\nid = []", "[door]", "gate = []"],
        "[[camera]]\nid = 'a'\ndoors = 5",
        "[[camera]]\nid = 'a'\ndoors = [[1], {}]",
        "[[door]]\nid = 'a'\nzone = {}\ndevice = 1\noutput = []",
        "[[device]]\nid = 'a'\nbus = 1.5",
        "[gate]\nzones = [1, {}]\n[[door]]\nid = 'a'\nzone = 'z'",
    ],
)
def test_any_shape_of_table_is_told_and_never_a_traceback(text: str, tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(text, "utf-8")
    assert faults(path)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[gate", b"a = 1\na = 2", b"\0"])
def test_what_is_not_toml_is_one_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_bytes(data)
    (only,) = faults(path)
    assert only.startswith("not TOML: ")


def test_a_file_that_is_not_there_and_a_folder_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        (only,) = faults(path)
        assert only.endswith("; give the path of a gate.toml")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.0.9", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["localhost.example.org", "127.0.0.1.example.org", "0.0.0.0", "::", "10.0.0.1", ""],
)
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)
