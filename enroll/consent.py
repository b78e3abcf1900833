"""The record of a person's consent, without which there is no template. Pure.

Separate consent (单独同意) is asked for by the measures on face recognition: who gave it, when, to
which text, on what basis, and whether it covers sending the template to the gates.
"""

from __future__ import annotations

from edge import wire
from enroll.home import OfficeError
from enroll.messages import say

BASES = ("separate_written", "separate_electronic", "guardian")
TEXT_VERSION = "1"  # of the form that the estate hands out, unless it says another
TEXT_CHARS_MAX, NAME_CHARS_MAX = 32, 64  # wire.Consent


def consent(
    basis: str | None,
    *,
    by: str,
    transfer: bool,
    at: float,
    text_version: str = TEXT_VERSION,
    guardian: str = "",
) -> wire.Consent:
    """`by`: who of the staff took it; `at`: wall seconds. OfficeError for what is no consent."""
    if basis not in BASES:
        raise OfficeError(say("consent_needed"))
    guardian = guardian.strip()
    if basis == "guardian" and not guardian:
        raise OfficeError(say("consent_guardian"))
    if basis != "guardian" and guardian:
        raise OfficeError(say("consent_no_guardian"))
    if not transfer:
        raise OfficeError(say("consent_transfer"))
    _check("--by", by, NAME_CHARS_MAX)
    _check("--consent-text", text_version, TEXT_CHARS_MAX)
    _check("--guardian", guardian or "-", NAME_CHARS_MAX)
    return wire.Consent(
        basis=basis,
        text_version=text_version,
        at=int(at * 1000),
        by=by,
        transfer=transfer,
        guardian=guardian,
    )


def _check(field: str, text: str, limit: int) -> None:
    if not (1 <= len(text) <= limit and text.strip() and text.isprintable()):
        raise OfficeError(say("consent_field", field=field, limit=limit))
