"""What staff read, in Chinese or English. The texts are in `texts_*`; here only one is chosen."""

from __future__ import annotations

import os

from enroll import texts_office

LANGUAGES = ("zh", "en")
TEXTS = dict(texts_office.TEXTS)
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
