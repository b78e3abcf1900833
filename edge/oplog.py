"""From the bytes of one log entry to a rule of the roster: unsealing, nothing else. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from edge import seal, wire
from edge.envelope import WireError, parse
from edge.roster import Op, Put, Revoke
from edge.terms import (
    DoorId,
    Grant,
    GrantId,
    ModelId,
    OfflineClass,
    PersonId,
    Record,
    SealedTemplate,
    Vector,
    Window,
)
from edge.trust import KeyName


class MissingKey(LookupError):
    """The zone key of this epoch has not come yet: wait for it, do not skip."""


def parse_op(data: bytes) -> wire.Op:
    return parse(wire.Op, data)


def open_op(zone: str, op: wire.Op, keys: Mapping[KeyName, bytes]) -> Op:
    """A revocation opens without any key; a put needs Kr. SealError when it does not open."""
    person = PersonId(op.person)
    if op.op in ("revoke", "suspend"):
        named = None if op.grant_ids is None else tuple(map(GrantId, op.grant_ids))
        return Revoke(person, op.pv, named, suspend=op.op == "suspend")
    if op.op == "reseal":
        raise WireError("not_built", "reseal comes with the roster issue")
    key = keys.get((zone, "kr", op.key_epoch))
    if key is None:
        raise MissingKey(f"kr of {zone}, epoch {op.key_epoch}")
    aad = seal.rights_aad(zone, op.person, op.pv, op.key_epoch)
    rights = parse(wire.Rights, seal.open_(key, op.sealed, aad))
    templates = tuple(
        SealedTemplate(ModelId(t.model_id), t.key_epoch, t.sealed) for t in op.templates
    )
    return Put(person, op.pv, op.tv, tuple(map(_grant, rights.grants)), templates or None)


def _grant(grant: wire.WireGrant) -> Grant:
    windows = []
    for window in grant.schedule:
        fits = len(window) == 3 and 0 <= window[0] < 128 and 0 <= window[1] < window[2] <= 1440
        if not fits:
            raise WireError("fields", "a schedule window is [days, start, end]")
        windows.append(Window(*window))
    return Grant(
        grant_id=GrantId(grant.grant_id),
        tenancy=grant.tenancy,
        doors=frozenset(map(DoorId, grant.doors)),
        not_before_at=grant.not_before / 1000,
        expires_at=None if grant.expires is None else grant.expires / 1000,
        schedule=tuple(windows),
        offline_class=OfflineClass(grant.offline_class),
    )


def open_templates(
    zone: str, record: Record, keys: Mapping[KeyName, bytes], model_id: ModelId
) -> tuple[list[Vector], list[str]]:
    """The person's vectors for the model in use, and a word for each that could not be used."""
    vectors, faults = [], []
    for template in record.templates:
        if template.model_id != model_id:
            faults.append("template_other_model")
            continue
        key = keys.get((zone, "kf", template.key_epoch))
        if key is None:
            faults.append("template_without_key")
            continue
        aad = seal.template_aad(
            zone, record.person, record.tv, template.key_epoch, template.model_id
        )
        try:
            vectors.append(seal.unpack_vector(seal.open_(key, template.sealed, aad)))
        except seal.SealError:
            faults.append("template_does_not_open")
    return vectors, faults
