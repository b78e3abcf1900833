"""The gate's configuration: one TOML file, every key known, every fault told at once.

Nothing here has a default that opens: what is weaker must be asked for by a key that says so.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge.policy import DEFAULT_MARGIN
from edge.wire import Name


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
    utc_offset: Annotated[str, Field(pattern=r"^[+-]\d\d:\d\d$")] = "+08:00"

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
    outputs: Annotated[int, Field(ge=1, le=256)] = 8
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
        if not is_loopback(value.rpartition(":")[0].strip("[]")):
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

    @model_validator(mode="after")
    def hangs_together(self) -> Self:
        faults = [*_twice(self), *_dangling(self)]
        if faults:
            raise ValueError("; ".join(faults))
        return self


def _twice(config: Config) -> list[str]:
    faults = []
    for kind in ("camera", "bus", "device", "door"):
        counts = Counter(item.id for item in getattr(config, kind))
        faults += [f"{kind} id {name!r} is used {n} times" for name, n in counts.items() if n > 1]
    outputs = Counter((door.device, door.output) for door in config.door)
    faults += [f"two doors on output {o} of device {d!r}" for (d, o), n in outputs.items() if n > 1]
    return faults


def _dangling(config: Config) -> list[str]:
    """References that lead nowhere."""
    doors, buses = {d.id for d in config.door}, {b.id for b in config.bus}
    devices = {d.id: d for d in config.device}
    faults = [
        f"camera {camera.id!r} watches door {door!r}, which is not defined"
        for camera in config.camera
        for door in camera.doors
        if door not in doors
    ]
    faults += [
        f"device {device.id!r} is on bus {device.bus!r}, which is not defined"
        for device in config.device
        if device.bus not in buses
    ]
    for door in config.door:
        if door.zone not in config.gate.zones:
            faults.append(f"door {door.id!r} is in zone {door.zone!r}, which gate.zones lacks")
        device = devices.get(door.device)
        if device is None:
            faults.append(f"door {door.id!r} hangs on device {door.device!r}, which is not defined")
        elif door.output >= device.outputs:
            faults.append(f"door {door.id!r} uses output {door.output} of {device.outputs}")
    return faults


def load(path: Path) -> Config:
    """Read and check a configuration. Raises ConfigError with every fault there is."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}; give the path of a gate.toml"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: not TOML: {error}"]) from None
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError([_line(path, fault) for fault in error.errors()]) from None


def _line(path: Path, fault: object) -> str:
    assert isinstance(fault, dict)
    where = re.sub(r"\.(\d+)", r"[\1]", ".".join(map(str, fault["loc"]))) or "file"
    if fault["type"] == "extra_forbidden":
        return f"{path}: {where}: unknown key; see config/gate.example.toml for all keys"
    if fault["type"] == "missing":
        return f"{path}: {where}: missing; every gate needs it"
    return f"{path}: {where}: {fault['msg'].removeprefix('Value error, ')}"
