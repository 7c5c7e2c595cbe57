"""Finding controls by what people ask: full-text search over the catalogue, ranked by BM25.

The index is SQLite's FTS5 with the Porter stemmer, in memory, made anew for each search: a catalogue is small. The
title and the questions that people ask weigh more than the sentences of the selectors.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import apsw

from tallystick.errors import RejectedError
from tallystick.evidence.controls.catalogue import Catalogue, Control

QUESTION_CHARACTERS_MAX: Final = 500
"""A question that people type; each of its words is looked up."""

_WEIGHTS: Final = (8.0, 4.0, 3.0, 1.0, 5.0)
"""Of id, title, requirement, the sentences of the selectors, and the questions, in the order of the columns."""

_WORD: Final = re.compile(r"[\w.()-]+")
_STOP: Final = frozenset(
    (
        *("a", "an", "and", "any", "are", "as", "at", "be", "been", "by", "can", "could", "did", "do", "does", "for"),
        *("from", "had", "has", "have", "how", "i", "in", "is", "it", "its", "me", "my", "of", "on", "or", "our"),
        *("show", "that", "the", "there", "they", "this", "to", "us", "was", "we", "were", "what", "when", "where"),
        *("which", "who", "whom", "whose", "will", "with", "you"),
    )
)


class Match(NamedTuple):
    """A control that was found, and how well it fits: more is better."""

    control: Control
    score: float


def search(catalogue: Catalogue, question: str, *, limit: int = 10) -> list[Match]:
    """The controls that have words of the question, the best first. Raises `RejectedError` when it has none."""
    if len(question) > QUESTION_CHARACTERS_MAX:
        raise RejectedError(f"a question of {len(question)} characters; at most {QUESTION_CHARACTERS_MAX}")
    words = [word.strip(".()-") for word in _WORD.findall(question)]
    words = [word for word in words if word.lower() not in _STOP] or words
    asked = " OR ".join(f'"{word}"' for word in words if word)
    if not asked:
        raise RejectedError("no word to search for", cure="ask such as: who approved production changes")
    with apsw.Connection(":memory:") as database:
        database.execute(
            "CREATE VIRTUAL TABLE control USING fts5(id, title, requirement, selectors, asks, "
            "tokenize = 'porter unicode61')"
        )
        database.executemany("INSERT INTO control VALUES (?, ?, ?, ?, ?)", map(_row, catalogue.controls))
        rows: Any = database.execute(
            f"SELECT rowid, bm25(control, {', '.join('?' * len(_WEIGHTS))}) AS rank FROM control "
            "WHERE control MATCH ? ORDER BY rank, rowid LIMIT ?",
            (*_WEIGHTS, asked, limit),
        ).fetchall()
    return [Match(catalogue.controls[rowid - 1], -rank) for rowid, rank in rows]


def _row(control: Control) -> tuple[str, ...]:
    selectors = " ".join(f"{selector.name} {selector.shows}" for selector in control.all_selectors)
    return (f"{control.id} {control.framework}", control.title, control.requirement, selectors, " ".join(control.asks))
