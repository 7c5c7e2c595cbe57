"""Words against a twin that looks at one character after the other."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import apsw
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.canonical import decode
from tallystick.read.postings import CASED_ALIKE
from tallystick.read.words import PLAIN_BELOW, Search, searchable, words, words_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(alphabet="aBÄß1_-*. \u0301\ue000Σİ²")
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e15, 1e15) | st.floats(1e22) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
).filter(lambda document: float("inf") not in scalars(document))


def scalars(value: Any) -> list[Any]:
    """All scalar values and member names of a document."""
    if isinstance(value, dict):
        return [*value, *(one for member in value.values() for one in scalars(member))]
    return [one for element in value for one in scalars(element)] if isinstance(value, list) else [value]


def twin(text: str) -> list[str]:
    found, word = [], ""
    for character in f"{text} ":
        if character.isalnum() or unicodedata.category(character) in ("Mn", "Mc", "Me", "Co"):
            word += character
        elif word:
            found.append(word.lower())
            word = ""
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("Payroll-Export_2026.csv", ["payroll", "export", "2026", "csv"]),
        ("  10.0.1.42 ", ["10", "0", "1", "42"]),
        ("ÄPFEL und größe", ["äpfel", "und", "größe"]),
        ("e\u0301t\u00e9", ["e\u0301té"]),
        ("don’t", ["don", "t"]),
        ("日本 語", ["日本", "語"]),
        ("x² ½", ["x²", "½"]),
        ("ΟΔΟΣ.Δ", ["οδος", "δ"]),
        ("— … 🙂", []),
    ],
)
def test_words_are_runs_of_letters_digits_and_marks(text: str, found: list[str]) -> None:
    assert [*words(text)] == found


@given(TEXTS)
def test_words_are_those_of_the_twin(text: str) -> None:
    assert [*words(text)] == twin(text)


@given(DOCUMENTS)
def test_the_words_of_a_document_are_those_of_its_names_and_scalars(document: Any) -> None:
    value = decode(rfc8785.dumps(document))

    texts = [one if isinstance(one, str) else rfc8785.dumps(one).decode() for one in scalars(document)]

    assert words_of(value) == {word for text in texts for word in twin(text)}


def test_numbers_and_literals_are_words_as_json_writes_them() -> None:
    document = {"a": [-5, 1.5, 1e21, 1e-7], "b": {"c": True, "d": [False, None]}, "e": []}

    assert words_of(document) == {*"abcde", "5", "1", "1e", "21", "7", "true", "false", "null"}


@given(st.dictionaries(TEXTS, TEXTS))
def test_canonical_json_without_its_escapes_has_the_words_of_the_document(document: dict[str, str]) -> None:
    text = rfc8785.dumps(document).decode()

    assert {*words(searchable(text))} == words_of(document)


def test_an_escape_never_becomes_a_raw_control_character() -> None:
    assert searchable(json.dumps({"a": "\x01t5\n\\n\\"})) == '{"a": " t5  n "}'


@pytest.mark.parametrize(
    ("search", "fits"),
    [
        ("payroll", True),
        ("EXPORT Payroll", True),
        ("pay", False),
        ("pay*", True),
        ("PAY*", True),
        ("file payroll-exp*", True),
        ("payroll-ex*.csv", False),  # the star ends no word between white space
        ("export*", True),
        ("*", True),
        ("", True),
        ("zzz*", False),
        ("payroll nothing", False),
    ],
)
def test_a_search_asks_for_all_of_its_words(search: str, fits: bool) -> None:
    assert Search.parse(search).fits({"file": ["payroll-export.csv"]}) is fits


@given(TEXTS, TEXTS, st.booleans())
def test_a_search_finds_what_a_look_at_every_word_finds(search: str, text: str, star: bool) -> None:
    found = twin(text)
    asked = search.replace("*", "").split()
    if star and asked:
        asked[-1] += "*"

    expected = True
    for chunk in asked:
        parts = twin(chunk)
        for index, part in enumerate(parts):
            is_beginning = chunk.endswith("*") and index == len(parts) - 1
            expected &= any(word.startswith(part) if is_beginning else word == part for word in found)

    assert Search.parse(" ".join(asked)).fits(text) is expected


def test_below_the_bound_fts5_parts_words_and_changes_case_no_otherwise_than_we_do() -> None:
    # Given the tokenizer of the posting lists, and every character that it is trusted with.
    connection = apsw.Connection(":memory:")
    tokenizer = connection.fts5_tokenizer("unicode61", ["remove_diacritics", "0", "tokenchars", "\x01"])

    def tokens(text: str) -> list[str]:
        found: Any = tokenizer(
            text.encode(), apsw.FTS5_TOKENIZE_DOCUMENT, None, include_offsets=False, include_colocated=False
        )
        return [*found]

    for character in map(chr, range(32, ord(PLAIN_BELOW))):
        ours = [*words(f"ab{character}cd")]

        theirs = tokens(f"ab{character}cd")

        # What we part, they part: then every word of ours is one or several whole tokens of theirs.
        assert len(ours) == 1 or ours == theirs, hex(ord(character))

    for character in map(chr, range(32, 0x11000)):
        if CASED_ALIKE.fullmatch(character.lower()):
            assert tokens(character) == tokens(character.lower()), hex(ord(character))
