"""Every topic and message between office and gates (`mj/1`): the only file with field names of
the wire. Pure. How a message is signed and checked is `envelope`, how parts of it are sealed is
`seal`. Times are integer milliseconds since the epoch.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

TOPIC_ROOT = "mj/1"
OP_STEP_BYTES = 512  # ops are padded to this, so that their size tells nothing
OPS_PER_DELTA, OPS_PER_PAGE = 64, 500
GENESIS = bytes(32)  # the chain hash before the first op


def zone_topic(zone: str, leaf: Literal["beacon", "log"]) -> str:
    return f"{TOPIC_ROOT}/z/{zone}/{leaf}"


def gate_topic(gate: str, leaf: Literal["down", "cmd", "up", "events", "status"]) -> str:
    return f"{TOPIC_ROOT}/g/{gate}/{leaf}"


def desk_topic(desk: str, leaf: Literal["up", "down"]) -> str:
    return f"{TOPIC_ROOT}/d/{desk}/{leaf}"


def split_topic(topic: str) -> tuple[str, str, str]:
    """ "mj/1/g/gate-1/up" -> ("g", "gate-1", "up"); ValueError for anything else."""
    head, _, rest = topic.partition(TOPIC_ROOT + "/")
    parts = rest.split("/")
    if head or len(parts) != 3 or not all(parts):
        raise ValueError(f"not a topic of ours: {topic!r}")
    return parts[0], parts[1], parts[2]


class Type(enum.IntEnum):
    TRUST = 1
    MEMBER = 2
    ZONEKEY = 3
    EPOCH = 4
    DELTA = 10
    PAGE = 11
    GONE = 12
    MANIFEST = 13
    CHUNK = 14
    BEACON = 15
    EVENT_ACK = 16
    CHALLENGE_REPLY = 17
    COMMAND = 18
    HELLO = 30
    PULL = 31
    GET_CHUNK = 32
    RECEIPT = 33
    COMMAND_RESULT = 34
    EVENTS = 35
    STATUS = 36
    ENROL = 50
    WITHDRAW = 51
    RESEAL = 52
    KEYS = 53
    ACCEPTED = 54
    REFUSED = 55
    REKEY = 56


class Role(enum.StrEnum):
    ROOT = "root"
    REGISTRAR = "registrar"
    ROSTER = "roster"
    BEACON = "beacon"
    COMMAND = "command"
    DESK = "desk"
    GATE = "gate"


# Which role may sign which type: the only such table.
SIGNERS: dict[Type, frozenset[Role]] = {
    **dict.fromkeys((Type.TRUST, Type.EPOCH), frozenset({Role.ROOT})),
    Type.MEMBER: frozenset({Role.REGISTRAR}),
    Type.ZONEKEY: frozenset({Role.ROSTER, Role.DESK}),
    **dict.fromkeys(
        (Type.DELTA, Type.PAGE, Type.GONE, Type.MANIFEST, Type.CHUNK, Type.REKEY, Type.ACCEPTED),
        frozenset({Role.ROSTER}),
    ),
    **dict.fromkeys((Type.BEACON, Type.EVENT_ACK, Type.CHALLENGE_REPLY), frozenset({Role.BEACON})),
    Type.COMMAND: frozenset({Role.COMMAND}),
    Type.REFUSED: frozenset({Role.ROSTER}),
    **dict.fromkeys(
        (Type.PULL, Type.GET_CHUNK, Type.RECEIPT, Type.COMMAND_RESULT, Type.EVENTS, Type.STATUS),
        frozenset({Role.GATE}),
    ),
    Type.HELLO: frozenset({Role.GATE, Role.DESK}),
    **dict.fromkeys((Type.ENROL, Type.WITHDRAW, Type.RESEAL, Type.KEYS), frozenset({Role.DESK})),
}

KIB = 1024
DEFAULT_CAP_BYTES = 256 * KIB
CAPS_BYTES = {
    Type.BEACON: 16 * KIB,
    Type.DELTA: 64 * KIB,
    Type.PAGE: 256 * KIB,
    Type.MANIFEST: 64 * KIB,
    Type.CHUNK: 72 * KIB,
}
RECENT_BYTES = 12 * KIB  # what a beacon spends on the last revocations

# These say the same to everybody, so their addressee is everybody.
FOR_ALL = frozenset({Type.TRUST, Type.MEMBER, Type.EPOCH})

# Types of the roster issue: recognised, verified, and answered with a refusal.
NOT_BUILT = frozenset(
    {
        Type.EPOCH,
        Type.MANIFEST,
        Type.CHUNK,
        Type.CHALLENGE_REPLY,
        Type.COMMAND,
        Type.GET_CHUNK,
        Type.WITHDRAW,
        Type.RESEAL,
        Type.REKEY,
    }
)

Bytes8 = Annotated[bytes, Field(min_length=8, max_length=8)]
Bytes16 = Annotated[bytes, Field(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, Field(min_length=32, max_length=32)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TrustKey(Body):
    role: Literal["registrar", "roster", "beacon", "command"]
    pub: Bytes32


class Trust(Body):
    """The role keys, signed by ROOT; a higher version replaces a lower one."""

    version: Count
    keys: Annotated[list[TrustKey], Field(max_length=16)]


class Member(Body):
    """A gate or desk that takes part, signed by the registrar."""

    id: Name
    role: Literal["gate", "desk"]
    sign_pub: Bytes32
    hpke_pub: Bytes32
    zones: Annotated[list[Name], Field(max_length=64)]
    version: Count
    struck: bool = False


Which = Literal["kr", "kf", "zs"]  # rights key, face key, pseudonym secret (desks only)


class ZoneKey(Body):
    zone: Name
    which: Which
    key_epoch: Count
    member: Name
    kcv: Bytes16
    sealed: Annotated[bytes, Field(max_length=256)]


class KeyFor(Body):
    member: Name
    message: Annotated[bytes, Field(max_length=KIB)]


class Keys(Body):
    """A desk's ZONEKEYs for the authority to keep and hand on, as the original bytes."""

    request: Bytes16
    items: Annotated[list[KeyFor], Field(max_length=500)]


class WireTemplate(Body):
    model_id: Annotated[str, Field(max_length=32)]
    key_epoch: Count
    sealed: Annotated[bytes, Field(max_length=8 * KIB)]


class Op(Body):
    """One entry of the log. In the clear: only what a gate needs before it has the keys."""

    op: Literal["put", "suspend", "revoke", "reseal"]
    person: Bytes16
    pv: Count
    tv: Count = 0
    grant_ids: Annotated[list[Name], Field(max_length=64)] | None = None  # None: all
    key_epoch: Count = 0
    sealed: Annotated[bytes, Field(max_length=48 * KIB)] = b""
    templates: Annotated[list[WireTemplate], Field(max_length=8)] = []
    pad: bytes = b""


class Delta(Body):
    zone: Name
    epoch: Count
    first_seq: Count
    prev_hash: Bytes32
    ops: Annotated[list[bytes], Field(max_length=OPS_PER_DELTA)]
    at: Count


class Page(Body):
    zone: Name
    epoch: Count
    first_seq: Count
    prev_hash: Bytes32
    ops: Annotated[list[bytes], Field(max_length=OPS_PER_PAGE)]
    head_seq: Count
    head_hash: Bytes32
    at: Count


class Gone(Body):
    zone: Name
    epoch: Count
    floor_seq: Count


class Beacon(Body):
    zone: Name
    epoch: Count
    n: Count
    head_seq: Count
    head_hash: Bytes32
    digest: Bytes32
    snapshot_id: Bytes16 | None = None
    at: Count
    recent: Annotated[list[bytes], Field(max_length=64)] = []  # original DELTAs of revocations


class EventAck(Body):
    upto: Count
    chain_hash: Bytes32


class Position(Body):
    zone: Name
    epoch: Count
    applied_seq: Count
    chain_hash: Bytes32


class Hello(Body):
    session: Bytes8
    boot_id: Bytes16
    nonce: Bytes16
    positions: Annotated[list[Position], Field(max_length=64)] = []
    kcvs: Annotated[list[bytes], Field(max_length=256)] = []  # keys it holds already
    at: Count


class Pull(Body):
    zone: Name
    epoch: Count
    from_seq: Count


class Receipt(Body):
    """What a gate has enforced, durably. `early` = sequence numbers revoked ahead of the log."""

    zone: Name
    epoch: Count
    applied_seq: Count
    chain_hash: Bytes32
    digest: Bytes32
    active: Count
    early: Annotated[list[int], Field(max_length=256)] = []
    session: Bytes8
    boot_id: Bytes16
    monotonic_ms: Count
    at: Count


class CommandResult(Body):
    cmd_id: Bytes16 | None = None
    accepted: bool
    reason: Annotated[str, Field(max_length=64)]


class Events(Body):
    """Rows of the audit trail, CBOR [[salt, payload], ...] sealed under Kr."""

    zone: Name
    key_epoch: Count
    first_no: Count
    count: Annotated[int, Field(ge=1, le=100)]
    prev_hash: Bytes32
    sealed: bytes


class StatusBody(Body):
    session: Bytes8
    state: Literal["online", "offline"]
    degraded: Annotated[list[str], Field(max_length=64)] = []
    positions: Annotated[list[Position], Field(max_length=64)] = []
    at: Count


class Enrol(Body):
    """`sealed` is an EnrolRequest under Kr; the templates are under Kf, which we cannot open."""

    request: Bytes16
    zone: Name
    person: Bytes16
    tv: Count
    key_epoch: Count
    sealed: Annotated[bytes, Field(max_length=16 * KIB)]
    templates: Annotated[list[WireTemplate], Field(min_length=1, max_length=8)]


class Consent(Body):
    basis: Annotated[str, Field(min_length=1, max_length=64)]
    text_version: Annotated[str, Field(min_length=1, max_length=32)]
    at: Count
    by: Annotated[str, Field(min_length=1, max_length=64)]
    transfer: bool
    guardian: Annotated[str, Field(max_length=64)] = ""


class EnrolRequest(Body):
    internal_id: Annotated[str, Field(min_length=1, max_length=64)]
    tenancy: Annotated[str, Field(min_length=1, max_length=64)]
    consent: Consent


class Accepted(Body):
    request: Bytes16
    what: Annotated[str, Field(max_length=32)]


class Refused(Body):
    request: Bytes16 | None = None
    what: Annotated[str, Field(max_length=32)]
    reason: Annotated[str, Field(max_length=200)]


class WireGrant(Body):
    grant_id: Name
    tenancy: Annotated[str, Field(max_length=64)]
    doors: Annotated[list[Name], Field(max_length=256)]
    not_before: Count
    expires: Count | None = None
    schedule: Annotated[list[list[int]], Field(max_length=32)] = []
    offline_class: Literal["normal", "notice"] = "normal"


class Rights(Body):
    """What a put seals under Kr."""

    grants: Annotated[list[WireGrant], Field(max_length=64)]
    credentials: Annotated[list[Any], Field(max_length=0)] = []  # cards and PINs: locks issue
    consent: Consent | None = None


class Basis(Body):
    """What a revoke or suspend seals under Kr: on whose word."""

    authority_ref: Annotated[str, Field(min_length=1, max_length=200)]
    by: Annotated[str, Field(max_length=64)] = ""


BODIES: dict[Type, type[Body]] = {
    Type.TRUST: Trust,
    Type.MEMBER: Member,
    Type.ZONEKEY: ZoneKey,
    Type.DELTA: Delta,
    Type.PAGE: Page,
    Type.GONE: Gone,
    Type.BEACON: Beacon,
    Type.EVENT_ACK: EventAck,
    Type.HELLO: Hello,
    Type.PULL: Pull,
    Type.RECEIPT: Receipt,
    Type.COMMAND_RESULT: CommandResult,
    Type.EVENTS: Events,
    Type.STATUS: StatusBody,
    Type.ENROL: Enrol,
    Type.KEYS: Keys,
    Type.ACCEPTED: Accepted,
    Type.REFUSED: Refused,
}
