"""Why the authority does not do as asked: one word for the wire, one sentence for people."""

from __future__ import annotations

from enroll.texts_office import TEXTS


class Refusal(Exception):
    """`reason` is one word of a closed set and may travel over the broker. The sentence may name
    a tenancy or a door, so it stays in the office; its texts are `refused_<reason>`."""

    def __init__(self, reason: str, **facts: object) -> None:
        self.reason = reason
        self.facts = facts
        super().__init__(self.sentence)

    @property
    def key(self) -> str:
        return f"refused_{self.reason}"

    @property
    def sentence(self) -> str:
        """In English; the CLI says `key` in the language of its user."""
        return TEXTS[self.key][1].format(**self.facts)
