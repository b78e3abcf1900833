"""What staff read, in Chinese or English. The texts are in `texts_*`; here only one is chosen."""

from __future__ import annotations

import os

from enroll import texts_live, texts_office

LANGUAGES = ("zh", "en")
TEXTS = {**texts_office.TEXTS, **texts_live.TEXTS}
_chosen: list[str] = []  # by --lang


def use_language(language: str) -> None:
    """For this process; without it the environment says."""
    _chosen[:] = [language]


def language() -> str:
    """As chosen, else zh when the locale starts with zh, else en."""
    if _chosen:
        return _chosen[0]
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG")
    return "zh" if (locale or "").startswith("zh") else "en"


def say(key: str, **facts: object) -> str:
    return TEXTS[key][LANGUAGES.index(language())].format(**facts)


class _Untold(dict[str, object]):
    def __missing__(self, name: str) -> str:
        return "?"


def say_refused(reason: str, **facts: object) -> str:
    """A reason that came over the line: one word, without the facts that stay in the office."""
    texts = TEXTS.get(f"refused_{reason}") or TEXTS["office_refuses"]
    return texts[LANGUAGES.index(language())].format_map(_Untold(reason=reason, **facts))
