"""A first gate.toml for a new box: what the office knows is filled in, what only the wall knows
(ports, addresses, cameras) stands as an example to correct. Every key is explained in
config/gate.example.toml."""

from __future__ import annotations

import json

from edge.provision import BrokerAddress
from enroll.roster.store import Store

BOARD_OUTPUTS = 8  # of the usual relay board
OUTPUTS_MAX = 64  # edge.config.Device

HEAD = """\
# A first configuration, made by the office. Correct it, then: edge check && edge doctor
# Every key is explained in gate.example.toml.

[gate]
id = {gate}
state_dir = "/var/lib/menjin"
zones = {zones}

[key]
credential = "menjin-kek"           # TPM; on a box without one: file = "/etc/menjin/kek"

[broker]
host = {host}
port = {port}
{plain}
[faces]
models = "/var/lib/menjin/models/sim"
pad = "/var/lib/menjin/models/sim/pad"

[[bus]]
id = "rs485-1"
port = "/dev/serial/by-id/CORRECT-ME"

[[device]]
id = "relay-1"
bus = "rs485-1"
address = 1
outputs = {outputs}
"""

CAMERA = """
[[camera]]
id = "cam-1"
source = "folder:/var/lib/menjin/camera"   # correct me
doors = {doors}
"""

DOOR = """
[[door]]
id = {door}
zone = {zone}
device = "relay-1"
output = {output}                   # correct me: 0 = relay 1
"""


def first_config(store: Store, broker: BrokerAddress, gate: str, zones: list[str]) -> str:
    """All doors of the gate's zones, on the relays of one board in the order of their making."""
    marks = ", ".join("?" * len(zones))
    sql = f"SELECT zone, door FROM doors WHERE zone IN ({marks}) ORDER BY rowid LIMIT ?"
    doors = store.rows(sql, (*zones, OUTPUTS_MAX))
    text = HEAD.format(
        gate=_toml(gate),
        zones=_toml(zones),
        host=_toml(broker.host),
        port=broker.port,
        plain="plain = true\n" if broker.plain else "",
        outputs=max(BOARD_OUTPUTS, len(doors)),
    )
    if doors:
        text += CAMERA.format(doors=_toml([row["door"] for row in doors]))
    for output, row in enumerate(doors):
        text += DOOR.format(door=_toml(row["door"]), zone=_toml(row["zone"]), output=output)
    return text


def _toml(value: object) -> str:
    """JSON's strings and lists of strings are TOML's too."""
    return json.dumps(value, ensure_ascii=False)
