"""The gate's configuration: one TOML file, every key known, every fault told at once.

Nothing here has a default that opens: what is weaker must be asked for by a key that says so.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge.policy import DEFAULT_MARGIN
from edge.wire import Name

OUTPUTS = 8  # of the common relay board


class ConfigError(ValueError):
    """Everything that is wrong with a file, one line per fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Gate(Section):
    id: Name
    state_dir: Path
    zones: Annotated[list[Name], Field(min_length=1)]
    utc_offset: Annotated[str, Field(pattern=r"^[+-](0\d|1[0-4]):[0-5]\d$")] = "+08:00"

    @property
    def utc_offset_s(self) -> int:
        offset = datetime.strptime(self.utc_offset, "%z").utcoffset()
        return int(offset.total_seconds()) if offset else 0


class Key(Section):
    """Where the key-encryption key comes from: exactly one of the two."""

    file: Path | None = None
    credential: str | None = None

    @model_validator(mode="after")
    def one_source(self) -> Self:
        if (self.file is None) == (self.credential is None):
            raise ValueError("set exactly one of `file` and `credential`")
        return self


class Broker(Section):
    host: str
    port: Annotated[int, Field(gt=0, lt=65536)] = 8883
    protocol: Literal["5", "3.1.1"] = "5"
    plain: bool = False  # no TLS: only for the embedded broker, on loopback

    @model_validator(mode="after")
    def plain_is_loopback(self) -> Self:
        if self.plain and not is_loopback(self.host):
            raise ValueError(f"plain = true is for loopback only, not for {self.host}; use TLS")
        return self


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Faces(Section):
    models: Path
    pad: Path | None = None
    require_liveness: bool = True
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None  # None: the pack's
    margin: Annotated[float, Field(ge=0, lt=1)] = DEFAULT_MARGIN
    detector_size: tuple[int, int] | None = None

    @field_validator("detector_size")
    @classmethod
    def multiples_of_32(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value and any(side % 32 or not 32 <= side <= 2048 for side in value):
            raise ValueError("width and height must be multiples of 32, at most 2048")
        return value

    @model_validator(mode="after")
    def liveness_has_a_model(self) -> Self:
        if self.require_liveness and self.pad is None:
            raise ValueError(
                "set `pad` to the presentation-attack pack, or require_liveness = false"
            )
        return self


class Camera(Section):
    id: Name
    source: str
    doors: Annotated[list[Name], Field(min_length=1)]
    fps: Annotated[float, Field(gt=0, le=60)] = 10.0
    loop: bool = True


class Bus(Section):
    id: Name
    port: Path
    baud: Literal[4800, 9600, 19200, 38400, 57600, 115200] = 9600
    echo: bool = False  # the adapter hears itself


class Device(Section):
    id: Name
    bus: Name
    driver: Literal["modbus"] = "modbus"  # more drivers: locks issue
    address: Annotated[int, Field(ge=1, le=247)]
    outputs: Annotated[int, Field(ge=1, le=256)] = OUTPUTS
    inputs: Annotated[int, Field(ge=0, le=64)] = 8
    timed: bool = True  # the board ends the pulse itself


class Door(Section):
    id: Name
    zone: Name
    device: Name
    output: Annotated[int, Field(ge=0, lt=256)]
    pulse_s: Annotated[float, Field(ge=0.1, le=60)] = 3.0


class Health(Section):
    listen: Annotated[str, Field(pattern=r"^[\[\]0-9a-zA-Z.:]+:\d+$")] = "127.0.0.1:9464"
    watchdog_s: Annotated[float, Field(ge=2, le=120)] = 10.0

    @field_validator("listen")
    @classmethod
    def loopback(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not is_loopback(host.strip("[]")) or int(port) > 65535:
            raise ValueError("metrics are served on loopback only; use 127.0.0.1:PORT")
        return value

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


class Audit(Section):
    max_rows: Annotated[int, Field(ge=1000)] = 1_000_000


class Config(Section):
    gate: Gate
    key: Key
    broker: Broker
    faces: Faces
    camera: list[Camera] = []
    bus: list[Bus] = []
    device: list[Device] = []
    door: Annotated[list[Door], Field(min_length=1)]
    health: Health = Health()
    audit: Audit = Audit()


Table = dict[str, Any]


def _hanging(data: Table) -> list[str]:
    """Names given twice and references that lead nowhere. Of the raw tables, so that these are
    told together with what is wrong inside them; what is no name at all is told by its model."""
    return [*_twice(data), *_dangling(data)]


def _named(data: Table, kind: str) -> list[Table]:
    items = data.get(kind)
    tables = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return [table for table in tables if isinstance(table.get("id"), str)]


def _names(table: object, key: str) -> list[str]:
    """The names under a key: one, a list of them, or none that is one."""
    value = table.get(key) if isinstance(table, dict) else None
    return [name for name in (value if isinstance(value, list) else [value]) if type(name) is str]


def _twice(data: Table) -> list[str]:
    faults = []
    for kind in ("camera", "bus", "device", "door"):
        counts = Counter(item["id"] for item in _named(data, kind))
        faults += [f"{kind} id {name!r} is used {n} times" for name, n in counts.items() if n > 1]
    outputs = Counter(
        (device, door["output"])
        for door in _named(data, "door")
        for device in _names(door, "device")
        if type(door.get("output")) is int
    )
    faults += [f"two doors on output {o} of device {d!r}" for (d, o), n in outputs.items() if n > 1]
    return faults


def _dangling(data: Table) -> list[str]:
    devices = {device["id"]: device for device in _named(data, "device")}
    there = {kind: {item["id"] for item in _named(data, kind)} for kind in ("bus", "door")}
    faults = [
        f"camera {camera['id']!r} watches door {name!r}, which is not defined"
        for camera in _named(data, "camera")
        for name in _names(camera, "doors")
        if name not in there["door"]
    ]
    faults += [
        f"device {device['id']!r} is on bus {name!r}, which is not defined"
        for device in _named(data, "device")
        for name in _names(device, "bus")
        if name not in there["bus"]
    ]
    for door in _named(data, "door"):
        faults += _hangs_badly(door, devices, _names(data.get("gate"), "zones"))
    return faults


def _hangs_badly(door: Table, devices: Mapping[str, Table], zones: list[str]) -> list[str]:
    faults, name, output = [], door["id"], door.get("output")
    for zone in _names(door, "zone"):
        if zones and zone not in zones:
            faults.append(f"door {name!r} is in zone {zone!r}, which gate.zones lacks")
    for device in _names(door, "device"):
        if device not in devices:
            faults.append(f"door {name!r} hangs on device {device!r}, which is not defined")
            continue
        outputs = devices[device].get("outputs", OUTPUTS)
        if type(output) is int and type(outputs) is int and output >= outputs:
            faults.append(f"door {name!r} uses output {output} of {outputs}, counted from 0")
    return faults


def load(path: Path) -> Config:
    """Read and check a configuration. Raises ConfigError with every fault there is."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}; give the path of a gate.toml"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: not TOML: {error}"]) from None
    hanging = [f"{path}: {fault}" for fault in _hanging(data)]
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError([*(_line(path, fault) for fault in error.errors()), *hanging]) from None
    if hanging:
        raise ConfigError(hanging)
    return config


def _line(path: Path, fault: object) -> str:
    assert isinstance(fault, dict)
    where = re.sub(r"\.(\d+)", r"[\1]", ".".join(map(str, fault["loc"]))) or "file"
    if fault["type"] == "extra_forbidden":
        return f"{path}: {where}: unknown key; see config/gate.example.toml for all keys"
    if fault["type"] == "missing":
        return f"{path}: {where}: missing; every gate needs it"
    return f"{path}: {where}: {fault['msg'].removeprefix('Value error, ')}"
