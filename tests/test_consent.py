"""Without recorded separate consent there is no template."""

from __future__ import annotations

from typing import Any

import pytest

from edge import envelope, wire
from enroll.consent import BASES, consent
from enroll.home import OfficeError
from enroll.roster.rights import CONSENT_BASES

GIVEN: dict[str, Any] = {"by": "front desk", "transfer": True, "at": 1_790_000_000.25}


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enroll.messages._chosen", ["en"])


def refused(basis: str | None, **changes: Any) -> str:
    with pytest.raises(OfficeError) as refusal:
        consent(basis, **{**GIVEN, **changes})
    said = str(refusal.value)
    assert len(said.splitlines()) == 1
    return said


def test_the_record_says_who_when_which_text_and_on_what_basis() -> None:
    given = consent("separate_electronic", **GIVEN, text_version="2026-3")
    assert given.model_dump() == {
        "basis": "separate_electronic",
        "text_version": "2026-3",
        "at": 1_790_000_000_250,
        "by": "front desk",
        "transfer": True,
        "guardian": "",
    }


@pytest.mark.parametrize("basis", [None, "", "contract", "Guardian"])
def test_no_basis_or_another_one_is_no_consent(basis: str | None) -> None:
    assert "--consent" in refused(basis)


def test_without_consent_to_the_transfer_nothing_leaves_the_desk() -> None:
    assert "--transfer" in refused("separate_written", transfer=False)


@pytest.mark.parametrize("guardian", ["", "   "])
def test_a_guardians_consent_names_the_guardian(guardian: str) -> None:
    assert "--guardian" in refused("guardian", guardian=guardian)


def test_the_guardian_is_kept() -> None:
    assert consent("guardian", **GIVEN, guardian=" 王芳 ").guardian == "王芳"


def test_a_guardian_beside_another_basis_is_a_mistake_to_ask_about() -> None:
    assert "guardian" in refused("separate_written", guardian="王芳")


@pytest.mark.parametrize(("field", "named"), [("by", "--by"), ("text_version", "--consent-text")])
@pytest.mark.parametrize("text", ["", "  ", "x" * 65, "two\nlines"])
def test_who_took_it_and_which_text_are_told_in_one_line(field: str, named: str, text: str) -> None:
    assert named in refused("separate_written", **{field: text})


def test_every_name_the_desk_takes_fits_the_wire() -> None:
    longest = consent("guardian", by="b" * 64, transfer=True, at=0, guardian="g" * 64)
    assert envelope.parse(wire.Consent, envelope.dump(longest)) == longest


def test_desk_and_authority_know_the_same_bases() -> None:
    assert set(BASES) == CONSENT_BASES
