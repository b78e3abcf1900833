"""Whom this member believes, and the zone keys it was given: TRUST, MEMBER and ZONEKEY.

Everything is kept as the signed bytes it came in and verified again at every start against the
pinned root key; a paper that no longer verifies is as if it had never come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge import seal
from edge.envelope import Keyring, Message, WireError, decode
from edge.wire import Member, Role, Trust, Which, ZoneKey

KeyName = tuple[str, Which, int]  # zone, which, key epoch


class Papers(Protocol):
    """Where signed papers and unwrapped zone keys are kept (edge.store.Store)."""

    def trust(self) -> bytes | None: ...
    def put_trust(self, raw: bytes) -> None: ...
    def members(self) -> Mapping[str, bytes]: ...
    def put_member(self, member: str, raw: bytes) -> None: ...
    def zone_keys(self) -> Mapping[KeyName, bytes]: ...
    def put_zone_key(self, zone: str, which: Which, key_epoch: int, key: bytes) -> None: ...


@dataclass
class TrustBook:
    """`me`: our own member id. `hpke`: the key that zone keys are wrapped to."""

    me: str
    root: bytes
    hpke: X25519PrivateKey
    papers: Papers
    trust: Trust | None = None
    members: dict[str, Member] = field(default_factory=dict)
    keys: dict[KeyName, bytes] = field(default_factory=dict)
    keyring: Keyring = field(default_factory=Keyring)

    def load(self) -> list[str]:
        """Read back what is kept; returns one word of fault per paper that does not verify."""
        faults = []
        self._rebuild()
        raw_trust = self.papers.trust()
        for raw in [*([raw_trust] if raw_trust else []), *self.papers.members().values()]:
            try:
                message = decode(raw, self.keyring, direction="down", target="*")
                self._take(message)
            except WireError as error:
                faults.append(error.why)
        self.keys = dict(self.papers.zone_keys())
        return faults

    def _rebuild(self) -> None:
        self.keyring = Keyring.build(self.root, self.trust, self.members)

    def _take(self, message: Message) -> bool:
        body = message.body
        if isinstance(body, Trust):
            if self.trust and body.version <= self.trust.version:
                return False
            self.trust = body
        elif isinstance(body, Member):
            known = self.members.get(body.id)
            if known and body.version <= known.version:
                return False
            self.members[body.id] = body
        else:
            raise WireError("type", f"{message.kind.name} is no paper")
        self._rebuild()
        return True

    def on_paper(self, message: Message) -> bool:
        """A verified TRUST or MEMBER. True when it was newer than what we had."""
        if not self._take(message):
            return False
        if isinstance(message.body, Member):
            self.papers.put_member(message.body.id, message.raw)
        else:
            self.papers.put_trust(message.raw)
        return True

    def on_zone_key(self, message: Message) -> bool:
        """A verified ZONEKEY. True when the key is new. WireError when it must not be believed."""
        body = message.expect(ZoneKey)
        if body.member != self.me:
            raise WireError("member", "a zone key for somebody else")
        signer = message.signer
        by_desk = signer.role is Role.DESK and body.zone in signer.zones and body.which == "kf"
        by_office = signer.role is Role.ROSTER and body.which != "kf"
        if not (by_desk or by_office):
            raise WireError("role", f"{signer.role} may not give {body.which} of {body.zone}")
        name: KeyName = (body.zone, body.which, body.key_epoch)
        key = self._unwrap(body)
        known = self.keys.get(name)
        if known is not None:
            if known != key:
                raise WireError(
                    "second_kcv", f"{body.which} of {body.zone}, epoch {body.key_epoch}"
                )
            return False
        self.papers.put_zone_key(body.zone, body.which, body.key_epoch, key)
        self.keys[name] = key
        return True

    def _unwrap(self, body: ZoneKey) -> bytes:
        try:
            key = seal.unwrap_zone_key(
                body.sealed,
                self.hpke,
                zone=body.zone,
                which=body.which,
                key_epoch=body.key_epoch,
                member=self.me,
            )
        except seal.SealError as error:
            raise WireError("seal", str(error)) from None
        if seal.kcv(key) != body.kcv:
            raise WireError("kcv", f"{body.which} of {body.zone}")
        return key

    def newest(self, zone: str, which: Which) -> tuple[int, bytes] | None:
        """(key epoch, key) with the highest epoch we hold."""
        held = [(name[2], key) for name, key in self.keys.items() if name[:2] == (zone, which)]
        return max(held, default=None)

    def kcvs(self) -> list[bytes]:
        return [seal.kcv(key) for key in self.keys.values()]
