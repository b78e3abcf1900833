"""What staff read: every text in both languages, with the same facts, and said somewhere."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import enroll
from enroll import messages, texts_live, texts_office

SOURCES = sorted(Path(enroll.__file__).parent.rglob("*.py"))
# Said by a key that is put together: the reason of a refusal, the fault of a photo, an empty list.
COMPOSED = ("refused_", "photo_", "no_")


def facts(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def calls(name: str) -> Iterator[ast.Call]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name:
                yield node


def test_every_text_has_both_languages_and_the_same_facts() -> None:
    for key, (zh, en) in messages.TEXTS.items():
        assert zh != en and facts(zh) == facts(en), key
        assert any("一" <= letter <= "鿿" for letter in zh), key
        assert en.isascii() and not en.endswith("."), key


def test_no_text_is_one_line_less_or_more() -> None:
    for key, both in messages.TEXTS.items():
        assert all(text == text.strip() and "\n" not in text for text in both), key


def test_no_key_has_two_texts() -> None:
    assert not texts_office.TEXTS.keys() & texts_live.TEXTS.keys()


def test_what_is_said_has_a_text_and_is_told_all_its_facts() -> None:
    said = 0
    for call in calls("say"):
        key = call.args[0]
        if not isinstance(key, ast.Constant):
            continue
        said += 1
        wanted = facts(messages.TEXTS[key.value][1])
        told = {keyword.arg for keyword in call.keywords}
        assert None in told or wanted == told, (key.value, wanted, told)
    assert said > 50


def test_every_text_is_said_somewhere() -> None:
    words = {
        node.value
        for path in SOURCES
        if not path.name.startswith("texts_")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for key in messages.TEXTS:
        assert key in words or key.startswith(COMPOSED), key
