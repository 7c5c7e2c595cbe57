"""The catalogue: it is complete, says what it means, and refuses files that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tallystick.errors import NotFoundError, RejectedError
from tallystick.evidence.controls.catalogue import load
from tallystick.evidence.controls.search import search
from tallystick.evidence.controls.wording import in_words
from tallystick.read.query import Query, parse_terms

PROMISED: Final = {
    "SOC2": "CC6.1 CC6.2 CC6.3 CC6.6 CC6.7 CC6.8 CC7.1 CC7.2 CC7.3 CC7.4 CC8.1 CC9.2",
    "ISO27001": "A.5.15 A.5.16 A.5.17 A.5.18 A.8.2 A.8.3 A.8.4 A.8.5 A.8.15 A.8.16 A.8.17",
    "HIPAA": "164.308(a)(1)(ii)(D) 164.312(a) 164.312(b) 164.312(c) 164.312(d) 164.312(e)",
    "NIST800-53": "AC-2 AC-6 AU-2 AU-3 AU-4 AU-5 AU-6 AU-7 AU-8 AU-9 AU-10 AU-11 AU-12 CM-3 CM-5 IA-4 SI-4",
    "PCI-DSS": "10.2 10.3 10.4 10.5 10.6 10.7",
    "SOX": "404-access 404-change",
    "GDPR": "Art.30 Art.32",
}

OWN: Final = """\
framework: HOUSE
title: Rules of the house
selectors:
  doors:
    shows: A door was opened.
    any_of:
      - [event_type=door.*]
controls:
  - id: H-1
    title: Doors are watched
    requirement: Every opening of a door is recorded.
    selectors: [doors, sign-ins]
    cadence: {doors: 7}
    gap: No door was opened.
    window: 30
    asks: [Who opened the door?]
"""


def own(folder: Path, text: str) -> Path:
    path = folder / "own.yaml"
    path.write_text(text, "utf-8")
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(RejectedError) as caught:
        load([own(folder, text)])
    return str(caught.value).removeprefix(f"{folder}/")


def test_every_control_that_is_promised_is_there_and_no_other() -> None:
    catalogue = load()
    shipped = {framework.name: [control.id for control in catalogue.of(framework.name)] for framework in
               catalogue.frameworks}  # fmt: skip

    assert {name: " ".join(ids) for name, ids in shipped.items()} == PROMISED


def test_every_control_says_what_it_asks_what_shows_it_and_what_its_absence_means() -> None:
    for control in load().controls:
        assert control.requirement.endswith(".")
        assert control.gap.endswith(".")
        assert all(question.endswith("?") for question in control.asks)
        assert control.asks
        assert all(days <= control.window_days for days in control.cadence.values())
        for selector in control.all_selectors:
            assert selector.shows.endswith(".")
            assert [parse_terms(terms) for terms in selector.terms] == [*selector.queries]


def test_every_selector_is_used_by_some_control() -> None:
    text = (Path(__file__).parents[2] / "src/tallystick/evidence/controls/frameworks/selectors.yaml").read_text("utf-8")
    defined = {line.strip()[:-1] for line in text.split("\n") if line.startswith("  ") and line[2:3].isalpha()}

    assert defined == {selector.name for control in load().controls for selector in control.all_selectors}


def test_the_words_never_claim_compliance() -> None:
    told = " ".join(f"{control.requirement} {control.gap} {control.title}" for control in load().controls).lower()

    assert [word for word in ("complian", "passed", "certified") if word in told] == []


@pytest.mark.parametrize("name", ["CC7.2", "cc7.2", "soc2/cc7.2", "SOC 2 / CC 7.2", "Soc2 cc72"])
def test_a_control_is_found_however_people_write_its_id(name: str) -> None:
    assert load().find(name).key == "SOC2/CC7.2"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("164.312", "did you mean 164.312(a), 164.312(b)"),
        ("AU-1", "did you mean AU-10, AU-11, AU-12"),
        ("CC7.9", "CC7.2"),
        ("", "see: tallystick controls list"),
        ("///", "see: tallystick controls list"),
        ("\N{SNOWMAN}", "see: tallystick controls list"),
    ],
)
def test_an_unknown_id_is_answered_with_what_comes_near(name: str, hint: str) -> None:
    with pytest.raises(NotFoundError, match="there is no control") as caught:
        load().find(name)

    assert hint in str(caught.value)


def test_an_unknown_framework_is_answered_with_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="use one of GDPR, HIPAA"):
        load().of("SOC3")


def test_an_id_of_two_frameworks_has_to_be_said_in_full(tmp_path: Path) -> None:
    catalogue = load([own(tmp_path, OWN.replace("H-1", "CC7.2"))])

    with pytest.raises(NotFoundError, match=r"one of SOC2/CC7\.2, HOUSE/CC7\.2"):
        catalogue.find("cc7.2")
    assert catalogue.find("house/cc7.2").title == "Doors are watched"


def test_ones_own_controls_come_beside_the_shipped_ones_and_may_use_their_selectors(tmp_path: Path) -> None:
    control = load([own(tmp_path, OWN)]).find("h1")

    assert [selector.name for selector in control.selectors] == ["doors", "sign-ins"]
    assert (control.window_days, dict(control.cadence)) == (30, {"doors": 7})
    assert control.related == ()
    assert "HOUSE" not in {framework.name for framework in load().frameworks}


def test_a_control_may_show_beside_its_evidence_what_closes_no_gap(tmp_path: Path) -> None:
    text = OWN.replace("[doors, sign-ins]", "[doors]\n    related: [sign-ins, evidence-drawn]")
    control = load([own(tmp_path, text)]).find("h1")

    assert [selector.name for selector in control.selectors] == ["doors"]
    assert [selector.name for selector in control.related] == ["sign-ins", "evidence-drawn"]
    assert control.all_selectors == (*control.selectors, *control.related)


REFUSED: Final[tuple[tuple[str, str, str], ...]] = (
    ("doors:\n    shows", "sign-ins:\n    shows", "selectors sign-ins: there is a selector 'sign-ins' already"),
    ("framework: HOUSE\ntitle: Rules of the house", "framework: SOC2\ntitle: Mine", "has another title elsewhere"),
    ("framework: HOUSE", "framework: soc-2", "the framework is written 'SOC2' elsewhere"),
    ("title: Rules of the house\n", "", "own.yaml: title is missing"),
    ("    window: 30", "    window: 0", "controls 1 (H-1), window: '0' is no number of days"),
    ("    window: 30", "    window: soon", "'soon' is no number of days"),
    ("    window: 30", "    window: 30\n    passes: always", "own.yaml, controls 1 (H-1): there is no member 'passes'"),
    ("    gap: No door was opened.\n", "", "controls 1 (H-1): gap is missing"),
    ("[doors, sign-ins]", "[doors, sign-in]", "there is no selector 'sign-in'; use sign-ins"),
    ("[doors, sign-ins]", "[doors]\n    related: [doors]", "'doors' is in selectors and in related; let it be"),
    ("[doors, sign-ins]", "[doors]\n    related: [sign-in]", "there is no selector 'sign-in'; use sign-ins"),
    ("[doors, sign-ins]", "[doors, evidence-drawn]", "'evidence-drawn' takes tallystick.evidence.exported, which the"),
    ("event_type=door.*", "event_type=tallystick.epoch.*", "'doors' takes tallystick.epoch.opened, which the ledger"),
    ("{doors: 7}\n", "{sign-ins: 7}\n    related: [sign-outs]\n", "there is no selector 'sign-outs'"),
    ("[doors, sign-ins]\n    cadence: {doors: 7}", "[doors]\n    related: [sign-ins]\n    cadence: {sign-ins: 7}",
     "cadence of 'sign-ins', which is none of its selectors"),
    ("{doors: 7}", "{sign-outs: 7}", "cadence of 'sign-outs', which is none of its selectors"),
    ("[event_type=door.*]", "[event_typ=door.*]", "any_of 1, event_typ=door.*: there is no 'event_typ'"),
    ("[event_type=door.*]", "[after=2026-01-01]", "any_of 1: after is asked for; say what counts"),
    ("[event_type=door.*]", "event_type=door.*", "any_of 1: not a list of terms"),
    ("[event_type=door.*]", "[7]", "any_of 1: '7' is not text"),
    ("  doors:\n", "  Doors:\n", "'Doors' is no name"),
    ("id: H-1", "id: '<b>'", "'<b>' is no id"),
    ("id: H-1", "id: H 1", "'H 1' is no id"),
    ("controls:", "rules: []\ncontrols:", "there is no member 'rules'"),
)  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "problem"), REFUSED, ids=[case[1].strip()[:30] for case in REFUSED])
def test_a_file_with_a_mistake_is_refused_with_its_place(tmp_path: Path, good: str, bad: str, problem: str) -> None:
    assert good in OWN

    assert problem in refused(tmp_path, OWN.replace(good, bad))


def test_nothing_that_is_shipped_is_overridden_silently(tmp_path: Path) -> None:
    text = OWN.replace("framework: HOUSE\ntitle: Rules of the house", "framework: SOC2").replace("H-1", "CC7.2")

    assert "there is a control 'SOC2/CC7.2' already; nothing is overridden" in refused(tmp_path, text)


def test_a_file_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="cannot be read: No such file"):
        load([tmp_path / "none.yaml"])


@pytest.mark.parametrize(
    ("question", "first"),
    [
        ("who approved production changes", "SOC2/CC8.1"),
        ("which patients did someone look at", "HIPAA/164.312(b)"),
        ("Who looked at this patient's record?", "HIPAA/164.312(b)"),
        ("failed logins", "ISO27001/A.8.5"),
        ("can somebody tamper with logs", "PCI-DSS/10.3"),
        ("AU-9", "NIST800-53/AU-9"),
        ("are our clocks synchronized", "PCI-DSS/10.6"),
        ("backups", "GDPR/Art.32"),
    ],
)
def test_a_question_finds_the_control_that_it_is_about(question: str, first: str) -> None:
    found = search(load(), question)

    assert first in [match.control.key for match in found[:2]]
    assert [match.score for match in found] == sorted((match.score for match in found), reverse=True)


@pytest.mark.parametrize("question", ['"', "NEAR(a b)", "a* OR -b", "title:x", "' ; DROP TABLE control", "who the"])
def test_a_question_is_words_and_never_a_command_of_the_search(question: str) -> None:
    if question == '"':
        with pytest.raises(RejectedError, match="no word to search for"):
            search(load(), question)
    else:
        assert isinstance(search(load(), question), list)


def test_queries_are_told_in_words() -> None:
    query = parse_terms(["event_type=a.b", "event_type=c.*", "label=phi", "payload.n>=5", "!payload.x", "actor=jane"])

    assert in_words(query) == (
        "of type a.b or c.*, caused by jane, labelled phi, whose payload.n is at least 5, without payload.x"
    )
    assert in_words(parse_terms([])) == "of any kind"


def test_a_selector_is_asked_in_fewer_queries_that_mean_the_same() -> None:
    selectors = {selector for control in load().controls for selector in control.all_selectors}
    rest = [query for selector in selectors for query in selector.joined if query not in selector.queries]

    assert len(rest) > 10
    for selector in selectors:
        types = [name for query in selector.joined for name in query.event_types]
        assert sorted(set(types)) == sorted({name for query in selector.queries for name in query.event_types})
        assert len(selector.joined) <= len(selector.queries)
        conditions = {query for query in selector.queries if query != Query(event_types=query.event_types)}
        assert conditions == {query for query in selector.joined if query != Query(event_types=query.event_types)}
