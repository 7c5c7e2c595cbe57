"""Reports say what the ledger says, of one size of it; documents can ask and do nothing else."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tallystick
from tallystick import Ledger
from tallystick.core.custody import RetentionPolicy
from tallystick.core.moment import DAY
from tallystick.errors import NotFoundError, RejectedError
from tallystick.evidence.controls.assessment import Assessor
from tallystick.evidence.controls.catalogue import load as load_controls
from tallystick.evidence.controls.period import Period
from tallystick.evidence.report import Page, load, make, shipped, view
from tallystick.evidence.report.blocks import Chart, Heading, Items, Node, Paragraph, Table, Timeline, Words, visible
from tallystick.evidence.report.html import render as render_html
from tallystick.evidence.report.pdf import inputs
from tallystick.evidence.report.pdf import render as render_pdf
from tallystick.read.query import parse_terms
from tests.evidence.reports import NOW, Seen, document, page

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = ("access-review", "change-review", "entity-dossier", "evidence-pack", "incident-timeline")
WANTED: Final = {"entity-dossier": {"entity": "user-456"}, "incident-timeline": {"correlation": "incident-2026-03"}}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with tallystick.open(tmp_path / "audit") as ledger:
        ledger.append(event_type="door.opened", entity_id="door-7", actor="jane", payload={"n": 1, "why": "lunch"})
        ledger.append(event_type="door.opened", entity_id="door-8", actor="raj", payload={"n": 2})
        ledger.append(event_type="door.shut", entity_id="door-7", actor="jane", payload={"n": 3})
        yield ledger


def of(found: Page, kind: type[Any]) -> list[Any]:
    return [node for node in found.nodes if isinstance(node, kind)]


def plain(nodes: tuple[Node, ...] | Page) -> str:
    """The prose of a page."""
    nodes = nodes.nodes if isinstance(nodes, Page) else nodes
    out = []
    for node in nodes:
        if isinstance(node, Paragraph | Heading):
            out.append("".join(word.text for word in node.words))
        elif isinstance(node, Items):
            out += [plain(item) for item in node.items]
    return "\n".join(out)


# ------------------------------------------------------------------------------------- the shipped documents


def test_five_documents_are_shipped_and_each_says_what_it_is_for() -> None:
    assert tuple(document.name for document in shipped()) == DOCUMENTS
    assert all(document.description.endswith(".") for document in shipped())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_shipped_document_becomes_html_and_pdf(clinic: Ledger, name: str) -> None:
    period = Period.between("2026-02-23", "2026-04-05", occurred=True, now=NOW)
    made = make(clinic, load(name), period=period, catalogue=load_controls(), given=WANTED.get(name))

    html, pdf = render_html(made.page), render_pdf(made.page)

    seen = Seen(html)
    assert seen.open == []
    assert "script" not in seen.elements
    assert seen.links == []
    assert f"{clinic.size} records, root {made.page.root[:12]}" in seen.text
    assert html.count("Content-Security-Policy") == 1
    assert pdf.startswith(b"%PDF-")


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "entity-dossier"])
def test_a_ledger_with_nothing_in_it_makes_a_report_that_says_so(tmp_path: Path, name: str) -> None:
    with tallystick.open(tmp_path / "audit") as ledger:
        period = Period.of(now=NOW)
        made = make(ledger, load(name), period=period, catalogue=load_controls(), given=WANTED.get(name))

    assert "No " in Seen(render_html(made.page)).text
    assert render_pdf(made.page).startswith(b"%PDF-")


@pytest.mark.parametrize(("entity", "known"), [("door-7", True), ("jane", True), ("nobody", False)])
def test_a_dossier_is_of_someone_or_something_that_some_event_names(ledger: Ledger, entity: str, known: bool) -> None:
    def made() -> str:
        given = {"entity": entity}
        period = Period.of()
        return make(ledger, load("entity-dossier"), period=period, catalogue=load_controls(), given=given).page.title

    if known:
        assert made() == "Entity dossier"
    else:
        with pytest.raises(NotFoundError, match="there is no event about 'nobody' in this ledger, and none caused by"):
            made()


def told(node: Any) -> str:
    """The terms or commands in the small print of a figure."""
    return "".join(text for text, is_terms in node.source.told() if is_terms)


@pytest.mark.parametrize("occurred", [False, True])
@pytest.mark.parametrize(("after", "before"), [(None, None), ("2026-03-01", None), ("2026-03-01", "2026-04-01")])
def test_the_small_print_of_an_assessment_is_the_commands_that_find_the_same(
    clinic: Ledger, after: str | None, before: str | None, occurred: bool
) -> None:
    period = Period.of(after=after, before=before, occurred=occurred)
    found = page(clinic, '{{ controls("CC7.2", "AC-2", "HIPAA") }}\n', period=period)
    (table,) = of(found, Table)

    rows = {}
    for command in told(table).split("; "):
        words = shlex.split(command)
        assert words[:3] == ["tallystick", "controls", "check"]
        at = words.index("--from")
        assert words[at + 4 :] == (["--occurred"] if occurred else [])
        again = Period.between(words[at + 1], words[at + 3], occurred=occurred)
        for key in words[3:at]:
            each = Assessor(clinic, again).assess(load_controls().find(key))
            rows[key] = ("gap" if each.gaps else "found", f"{each.count:,}")
    assert {row[0].text: (row[2].text, row[3].text) for row in table.rows} == rows


def test_a_figure_from_a_selector_says_the_query_or_where_its_terms_stand(clinic: Ledger) -> None:
    period = Period.between("2026-03-01", "2026-03-31", occurred=True)
    body = '{{ table(query(selector="access-reviews")) }}\n\n{{ table(query(selector="denials")) }}\n'
    short, several = of(page(clinic, body, period=period), Table)

    words = shlex.split(told(short))
    assert words[:2] == ["tallystick", "query"]
    assert clinic.count(parse_terms(words[2:])) == len(short.rows) == 1
    assert told(several).startswith("denials")
    assert "; its terms are under Sources at the end" in "".join(text for text, _ in several.source.told())


def test_ids_of_controls_stay_on_one_line(clinic: Ledger) -> None:
    found = page(clinic, '{% set all = controls("HIPAA", "A.5.18") %}\n\n{{ all }}\n\n{{ gaps(all) }}\n')

    html = render_html(found)
    assert html.count('<td class="short">HIPAA/164.308(a)(1)(ii)(D)</td>') == 2
    rows = [row for node in json.loads(inputs(found)["page"])["nodes"] for row in node.get("rows", [])]
    assert {"HIPAA/164.308(a)(1)(ii)(D)", "ISO27001/A.5.18"} <= {row[0]["text"] for row in rows}


def test_every_figure_carries_its_terms_and_the_checkpoint(ledger: Ledger) -> None:
    body = (
        '{{ count("label=x") }} so far.\n\n{{ table(query("actor=jane")) }}\n\n{{ chart(series("actor=raj")) }}\n\n'
        '{{ state("door-7") }}\n\n{{ timeline(query("event_type=door.*")) }}\n\n{{ ranking(by="entity") }}\n\n'
        '{{ controls("CC7.2") }}\n'
    )

    html = render_html(page(ledger, body))

    sources = [part.partition("</p>")[0] for part in html.split('<p class="source">')[1:]]
    told = ("label=x", "actor=jane", "actor=raj", "entity_id=door-7", "event_type=door.*", "end=5", "controls check")
    assert len(sources) == len(told)
    for source, terms in zip(sources, told, strict=True):
        assert terms in source
        assert "local/audit, 5 records, root " in source


# -------------------------------------------------------------------------------------- what figures are of


def test_figures_say_what_the_ledger_says(clinic: Ledger) -> None:
    body = (
        'Seen {{ count("label=phi") }}.\n\n{{ table(query("event_type=user.*", limit=500), columns=["position"]) }}\n\n'
        '{{ chart(series("event_type=auth.*", width="month", group="type")) }}\n\n{{ state("user-456") }}\n\n'
        '{{ ranking("label=phi", by="actor", limit=3) }}\n\n{{ timeline(history("user-456")) }}'
    )
    found = page(clinic, body)
    users, state = of(found, Table)
    over_time, ranking = of(found, Chart)

    assert f"Seen {clinic.count(label='phi')}." in plain(found)
    assert [row[0].text for row in users.rows] == [
        str(record.position) for record in clinic.records(event_type="user.*")
    ]
    series = clinic.series(event_type="auth.*", width="month", group="type")
    totals: dict[str, int] = {}
    for point in series.buckets:
        totals[point.group or ""] = totals.get(point.group or "", 0) + point.count
    assert {name: sum(values) for name, values in over_time.series} == totals
    value = clinic.state("user-456").value
    assert {row[0].text: row[1].text for row in state.rows} == {name: visible(each) for name, each in value.items()}
    actors: dict[str, int] = {}
    for record in clinic.records(label="phi"):
        actors[(record.actor or {})["id"]] = actors.get((record.actor or {})["id"], 0) + 1
    assert ranking.series[0][1] == tuple(sorted(actors.values(), reverse=True)[:3])
    turns = [turn.record.position for turn in clinic.timeline("user-456")]
    assert [entry.position for entry in of(found, Timeline)[0].entries] == turns


def test_figures_are_bounded_in_bytes_and_say_how_much_there_is(
    clinic: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = '{{ table(query("label=phi", limit=500)) }}\n\n{{ timeline(history("user-456")) }}'
    whole = page(clinic, body)
    turns = len(of(whole, Timeline)[0].entries)
    monkeypatch.setattr(view, "BYTES_MAX", 1_500)

    part = page(clinic, body)

    assert 0 < len(of(part, Table)[0].rows) < len(of(whole, Table)[0].rows)
    assert 0 < len(of(part, Timeline)[0].entries) < turns
    assert of(part, Timeline)[0].entries == of(whole, Timeline)[0].entries[-len(of(part, Timeline)[0].entries) :]
    assert f"{clinic.count(label='phi')}" in of(part, Table)[0].note


def test_a_selector_counts_each_record_once_in_every_figure(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.append(event_type="access.denied", entity_id="door-7", actor="eve", labels=["denied"])
    ledger.append(event_type="door.opened", entity_id="door-9", actor="eve", labels=["denied"])

    found = page(
        ledger,
        '{{ count(selector="denials") }}\n\n{{ chart(series(selector="denials")) }}\n\n'
        '{{ table(query(selector="denials")) }}\n\n{{ ranking(selector="denials") }}',
    )

    assert plain(found).startswith("3")
    assert [sum(chart.series[0][1]) for chart in of(found, Chart)] == [3, 3]
    assert len(of(found, Table)[0].rows) == 3
    assert "access.denied" in Seen(render_html(found)).text.partition("Sources")[2]


def test_what_is_appended_while_a_report_is_made_is_not_in_it(ledger: Ledger) -> None:
    body = (
        '{{ count() }} {{ count() }}\n\n{{ table(query()) }}\n\n{{ chart(series()) }}\n\n{{ state("door-7") }}\n\n'
        '{{ timeline(history("door-7")) }}\n\n{{ ranking(selector="denials", by="actor") }}'
    )
    before = ledger.size

    def append(_: int, __: int | None) -> None:
        ledger.append(event_type="door.opened", entity_id="door-7", payload={"n": 99}, labels=["denied"])

    period = Period.of(after="1970-01-01", before="2999-01-01", now=NOW)
    made = make(ledger, document(body), period=period, catalogue=load_controls(), progress=append)

    assert (made.size, ledger.size) == (before, before + 7)
    assert plain(made.page).startswith("5 5")
    records, state = of(made.page, Table)
    assert len(records.rows) == 5
    assert {row[0].text: row[1].text for row in state.rows}["n"] == "3"
    assert [sum(values) for _, values in of(made.page, Chart)[0].series] == [5]
    assert max(entry.position for entry in of(made.page, Timeline)[0].entries) < before
    assert of(made.page, Chart)[1].labels == ()


def test_a_state_is_told_at_the_end_of_the_time_by_the_clock_of_the_report(clinic: Ledger) -> None:
    period = Period.between("2026-02-23", "2026-03-15", occurred=True, now=NOW)
    made = make(clinic, document('{{ state("user-456") }}'), period=period, catalogue=load_controls())
    table = of(made.page, Table)[0]

    assert table.title == "State of user-456 to the end of 2026-03-15 (UTC), by occurred time"
    expected = clinic.state("user-456", "2026-03-15", clock="occurred").value
    assert {row[0].text: row[1].text for row in table.rows} == {name: visible(each) for name, each in expected.items()}


def test_axes_have_no_holes_and_many_groups_become_others(ledger: Ledger) -> None:
    for day in (1, 9):
        ledger.append(event_type=f"a.b{day}", entity_id="e", occurred_at=f"2026-03-0{day}T12:00:00Z")
    for number in range(9):
        ledger.append(event_type=f"many.t{number}", entity_id="e", occurred_at="2026-03-04T12:00:00Z")
    period = Period.between("2026-03-01", "2026-03-31", occurred=True, now=NOW)
    made = make(ledger, document('{{ chart(series(group="type")) }}'), period=period, catalogue=load_controls())
    chart = of(made.page, Chart)[0]

    assert chart.labels == tuple(f"2026-03-0{day}" for day in range(1, 10))
    assert len(chart.series) == 6
    assert chart.series[-1][0] == "others"
    assert sum(sum(values) for _, values in chart.series) == 11


def test_a_report_on_a_ledger_that_was_pruned_says_so(tmp_path: Path) -> None:
    moment = NOW - 400 * DAY
    with tallystick.open(tmp_path / "audit", clock=lambda: moment) as ledger:
        ledger.append(event_type="door.opened", entity_id="door-7", payload={"why": "lunch"})
        moment = NOW
        ledger.append(event_type="door.opened", entity_id="door-7", payload={"n": 2})
        assert "Pruned" not in dict(page(ledger, "x").facts)
        ledger.retention.set(RetentionPolicy.of("90d"), actor="grace")
        ledger.retention.prune(actor="grace")

        found = page(ledger, '{{ table(query("event_type=door.*")) }}\n\n{{ state("door-7") }}')

    assert "what was removed is in no figure" in dict(found.facts)["Pruned"]
    records, state = of(found, Table)
    assert len(records.rows) == 1
    assert [row[0].text for row in state.rows] == ["n"]


# ------------------------------------------------------------------------------------------------ documents


def test_the_markdown_of_a_document_becomes_prose(ledger: Ledger) -> None:
    found = page(
        ledger,
        "# One\n\nTwo *three* **four** `five` [six](https://example.org/)\n\n1. seven\n\n> eight\n\n---\n\n"
        '    nine\n\n| a | b |\n|---|---|\n| ten | {{ count("actor=jane") }} |\n',
    )
    html = render_html(found)

    for part in ("<h2>One</h2>", "<em>three</em>", "<strong>four</strong>", "<code>five</code>", "<li><p>seven</p>"):
        assert part in html
    for part in ("<blockquote><p>eight", "<hr>", "<pre><code>nine</code></pre>", "<td>ten</td><td>2</td>"):
        assert part in html
    assert '<a href="https://example.org/" rel="noreferrer noopener">six</a>' in html
    assert render_pdf(found).startswith(b"%PDF-")


def test_html_in_a_document_is_text(ledger: Ledger) -> None:
    seen = Seen(
        render_html(page(ledger, '<script>alert(1)</script>\n\nA <b onclick="x">b</b> ![alt](https://x/y.png)'))
    )

    assert "script" not in seen.elements
    assert "img" not in seen.elements
    assert "<script>alert(1)</script>" in seen.text
    assert "alt" in seen.text


REFUSED: Final[tuple[tuple[str, str], ...]] = (
    ("{{ ''.__class__ }}", "access to attribute '__class__'"),
    ("{{ ''['__class__'] }}", "access to attribute '__class__'"),
    ("{{ query.__globals__ }}", "access to attribute"),
    ("{{ query().records[0].line }}", "access to attribute 'line'"),
    ("{{ 'x'.format(1) }}", "is not safely callable"),
    ("{{ 'x'.upper() }}", "attribute"),
    ("{{ controls('CC7.2').period.between(none, none) }}", ""),
    ("{{ nobody }}", "'nobody' is undefined"),
    ("{{ cycler('a') }}", "'cycler' is undefined"),
    ("{{ range(10) }}", "'range' is undefined"),
    ("{{ lipsum() }}", "'lipsum' is undefined"),
    ("{% include 'x' %}", "Include is not read"),
    ("{% import 'x' as y %}", "Import is not read"),
    ("{% extends 'x' %}", "Extends is not read"),
    ("{% macro m() %}{% endmacro %}", "Macro is not read"),
    ("{% block b %}{% endblock %}", "Block is not read"),
    ("{% filter upper %}x{% endfilter %}", "FilterBlock is not read"),
    ("{% set x %}y{% endset %}", "AssignBlock is not read"),
    ("{% set a, b = 1, 2 %}", "set names one value"),
    ("{{ 'a' ~ 'b' }}", "Concat is not read"),
    ("{{ 2 ** 100000 }}", "Pow is not read"),
    ("{{ 'a' * 100000000 }}", "str * int is not worked out"),
    ("{{ '%s' % 1 }}", "str % int is not worked out"),
    ("{{ [1] * 100000000 }}", "list * int is not worked out"),
    ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ("{{ 'x'|attr('upper') }}", "No filter named 'attr'"),
    ("{{ 'x'|safe }}", "No filter named 'safe'"),
    ("{{ [1]|map('x') }}", "No filter named 'map'"),
    ("{% for a in query().records %}{{ a }}{% endfor %}{% for b in 'abc' %}{% endfor %}", "a loop over a str"),
    ("{% for a in [1] recursive %}{% endfor %}", "a loop cannot call itself"),
    ("{% for a in 7 %}{% endfor %}", "a loop over a int"),
    ("{{ query() }}", "records are printed with table(…) or timeline(…)"),
    ("{{ series() }}", "series with chart(…)"),
    ("{{ table(7) }}", "table(…) of a int"),
    ("{{ table(query(), columns=['nothing']) }}", "there is no column 'nothing'"),
    ("{{ table(query('event_typ=x')) }}", "there is no 'event_typ'"),
    ("{{ query(limit=100000) }}", "a limit of 100000"),
    ("{{ query(selector='nothing') }}", "there is no selector 'nothing'"),
    ("{{ query('label=x', selector='denials') }}", "both terms and a selector"),
    ("{{ series(selector='denials', measure='sum:payload.n') }}", "a selector can only be counted"),
    ("{{ chart(series(), kind='pie') }}", "there is no chart 'pie'"),
    ("{{ state('') }}", "names no entity"),
    ("{{ controls('CC99') }}", "there is no control 'CC99'"),
    ("A {{ table(query()) }} in a line", "a figure inside a line"),
    ("# {{ table(query()) }}", "a figure inside a line"),
    ("[x]({{ 'https://evil.example/' }})", "a link to"),
    ("[x](javascript:alert(1)) [y](data:text/html,x) [z](/etc/passwd)", "a link to '/etc/passwd'"),
    ("{{ 'a' }", "unexpected '}'"),
    ("\ue0000\ue001", "private use area"),
)


@pytest.mark.parametrize(("body", "problem"), REFUSED, ids=[case[0][:40] for case in REFUSED])
def test_a_document_that_does_more_than_ask_is_refused(ledger: Ledger, body: str, problem: str) -> None:
    with pytest.raises((RejectedError, NotFoundError)) as caught:
        page(ledger, body)

    assert problem in str(caught.value)


def test_an_error_names_the_line_of_the_document(ledger: Ledger) -> None:
    for body, line in (("a\n\n{{ nobody }}", 7), ("a\n{% if %}", 6), ("\n\n\nA {{ table(query()) }}", 8)):
        with pytest.raises(RejectedError) as caught:
            page(ledger, body)
        assert f"line {line}" in caught.value.place, (body, caught.value.place)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("{% for a in [1,2,3,4,5,6,7,8,9,10] %}" * 5 + "x" + "{% endfor %}" * 5, "turns of loops"),
        ("{% set a = 'aaaaaaaaaa' %}" + "{% set a = a + a %}" * 40, "longer than 10000"),
        ("{% for a in [1,2,3,4,5,6,7,8,9,10] %}" * 3 + "{{ count() }}" + "{% endfor %}" * 3, "questions in one report"),
        ("{% for a in [1,2,3,4,5,6,7,8,9,10] %}" * 4 + "{{ a }}" + "{% endfor %}" * 4, "values in one report"),
        ("{% for a in [1,2,3,4,5,6,7,8,9,10] %}" * 4 + "x" * 500 + "{% endfor %}" * 4, "characters"),
    ],
)
def test_loops_texts_questions_and_output_are_bounded(ledger: Ledger, body: str, problem: str) -> None:
    with pytest.raises(RejectedError, match=problem):
        page(ledger, body)


@pytest.mark.parametrize(
    "body",
    [
        "{{ " + "(" * 100_000 + " }}",
        "{{ " + "[" * 300 + "]" * 300 + " }}",
        "{{ " + "not " * 50_000 + "1 }}",
        "{{ " + "-" * 50_000 + "1 }}",
        "{{ 1" + " + 1" * 20_000 + " }}",
        "{% for a in [1] %}" * 60 + "{% endfor %}" * 60,
        "{% if 1 %}" * 2_000 + "{% endif %}" * 2_000,
    ],
    ids=["parentheses", "lists", "not", "minus", "plus", "loops", "conditions"],
)
def test_what_is_nested_too_deep_is_refused(ledger: Ledger, body: str) -> None:
    with pytest.raises(RejectedError):
        page(ledger, body)


@pytest.mark.parametrize("body", [">" * 5_000 + " x", "- " * 5_000 + "x", "*" * 20_000, "[" * 20_000, "`" * 9_999])
def test_markdown_that_is_nested_deep_is_text(ledger: Ledger, body: str) -> None:
    assert render_html(page(ledger, body))


_PIECES: Final = st.sampled_from(
    [
        *(
            "{{",
            "}}",
            "{%",
            "%}",
            "{#",
            "#}",
            "query()",
            "count(",
            ")",
            "for a in ",
            "endfor",
            "if ",
            "endif",
            "set x =",
        ),
        *("table(", "series(", "chart(", "'", '"', ".", "_", "__class__", "[", "]", "|", "join", "a", "1", "+", "*"),
        *("\n\n", "\n", "# ", "> ", "- ", "| a |", "|---|", "`", "**", "<b>", "](", "http://x/", "&#0;", "\\", " "),
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_PIECES, max_size=24).map("".join) | st.text(max_size=60))
def test_any_document_is_made_or_refused_with_our_errors(ledger: Ledger, body: str) -> None:
    try:
        found = page(ledger, body)
    except (RejectedError, NotFoundError):
        return
    assert Seen(render_html(found)).open == []


def test_parameters_are_of_their_types_and_what_is_missing_is_said() -> None:
    head = (
        "parameters:\n  who: {about: the person}\n  n: {type: integer, default: 3}\n"
        '  all: {type: flag, default: false}\n  day: {type: date, default: ""}\n'
    )
    own = document("x", head)

    assert own.values({"who": "jane"}) == {"who": "jane", "n": 3, "all": False, "day": ""}
    assert own.values({"who": "x", "n": "7", "all": "true", "day": "2026-01-01"})["n"] == 7
    for told, problem in (
        ({}, "who: own has to be told; give who=…: the person"),
        ({"who": "x", "m": "1"}, "m: own has no such parameter"),
        ({"who": "x", "n": "+7"}, "n: "),
        ({"who": "x", "all": "yes"}, "'yes' is no flag"),
        ({"who": "x", "day": "soon"}, "day: "),
    ):
        with pytest.raises(RejectedError) as caught:
            own.values(told)
        assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no head", "no head"),
        ("---\ntitle: x\n", "no head"),
        ("---\ntitle: x\n---\n", "description is missing"),
        ("---\ntitle: x\ndescription: y\nscript: z\n---\n", "there is no member 'script'"),
        ("---\ntitle: x\ndescription: y\nwindow: -1\n---\n", "no number of days"),
        ("---\ntitle: x\ndescription: y\nparameters: {A: {}}\n---\n", "'A' is no name"),
        ("---\ntitle: x\ndescription: y\nparameters: {a: {type: url}}\n---\n", "there is no type 'url'"),
        ("---\ntitle: x\ndescription: y\nparameters: {a: {type: integer, default: x}}\n---\n", "is no integer"),
        ("---\ntitle: x\ndescription: y\nparameters: {period: {default: x}}\n---\n", "the parameter 'period' is ours"),
        ("---\ntitle: x\ndescription: y\nparameters: {count: {default: x}}\n---\n", "the parameter 'count' is ours"),
    ],
)
def test_a_head_with_a_mistake_is_refused(ledger: Ledger, tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "own.md").write_text(text)

    with pytest.raises(RejectedError, match=problem):
        page(ledger, load(str(tmp_path / "own.md")))


def test_a_report_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="use one of access-review, change-review"):
        load("acces-review")
    with pytest.raises(RejectedError, match="cannot be read: No such file"):
        load(str(tmp_path / "none.md"))


def test_words_of_a_page_are_kept_apart_by_their_style(ledger: Ledger) -> None:
    assert page(ledger, "a **b**").nodes == (Paragraph((Words("a "), Words("b", strong=True))),)
