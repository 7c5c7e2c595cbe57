"""Whatever an event says is text: it scripts nothing and forges nothing, in HTML, in PDF or in the Markdown layer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import pytest
import typst
from hypothesis import given
from hypothesis import strategies as st

import tallystick
from tallystick import Ledger
from tallystick.errors import RejectedError
from tallystick.evidence.report import Page, write
from tallystick.evidence.report import pdf as pdf_module
from tallystick.evidence.report.blocks import (
    Cell,
    Chart,
    Entry,
    Paragraph,
    Source,
    Table,
    Timeline,
    Words,
    visible,
)
from tallystick.evidence.report.charts import svg
from tallystick.evidence.report.html import render as render_html
from tallystick.evidence.report.pdf import render as render_pdf
from tests.evidence.reports import Seen, page

HOSTILE: Final = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</td></tr></table><h1>Forged</h1>",
    "</svg><script>alert(1)</script>",
    "</title></style></head><body onload=alert(1)>",
    "]]><script>alert(1)</script><![CDATA[",
    "{{ 7*7 }}{% for a in [1] %}x{% endfor %}{# #}",
    "[click](javascript:alert(1)) ![x](http://evil.example/x.png) <http://evil.example>",
    "# Forged heading",
    "| a | b |\n|---|---|\n| c | d |",
    "**bold** _it_ `code`\n\n---\n\n> quote",
    '#read("/etc/passwd") #panic("x") #pagebreak() #eval("1+1")',
    "= Forged heading <label> @ref $x^2$ *strong* #[x] \\",
    'sys.inputs.page"); #panic("x',
    "\ue0000\ue001 \ue00012\ue001",
    "\u202egnp.exe\u202c \u2066x\u2069 \u200b\u200d\ufeff",
    "\u0000\u0007\u001b[31mred\u001b[0m\r\n\t\u0085\u2028\u2029",
    "&lt;b&gt; &amp; &#x3c;script&#x3e;",
    "A" * 5_000,
    "\U0001f600 \u4e2d\u6587 \u05d0\u05d1 e\u0301",
)

BODY: Final = """\
About {{ name }} and *{{ name }}* and `{{ name }}`:

# Of {{ name }}

- {{ name }} in a list

> {{ name }} in a quote

| {{ name }} | b |
|---|---|
| c | {{ name }} |

    {{ name }} in code

{{ table(query("event_type=door.*"), columns=["actor", "entity_id", "labels", "payload.text", "context.text", "details"], title=name) }}

{{ chart(series("event_type=door.*", group="label"), title=name) }}

{{ chart(series("event_type=door.*", group="actor"), kind="lines", title=name) }}

{{ ranking("event_type=door.*", by="actor", title=name) }}

{{ ranking("event_type=door.*", by="entity") }}

{{ state(entity, title=name) }}

{{ timeline(query("event_type=door.*"), title=name) }}

{{ timeline(history(entity)) }}

{{ table(query("payload.text=nothing"), empty=name) }}
"""  # noqa: E501 - an expression stands on one line
HEAD: Final = "parameters:\n  name: {}\n  entity: {}\n"


def fit(text: str) -> str:
    """The text as an id may have it: without control characters and surrogates, and not too long."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "", text)[:60].strip() or "x"


def told(ledger: Ledger, text: str) -> Page:
    """A page in which the text stands wherever an event, or whoever makes the report, can put one."""
    entity = fit(f"e {text}")
    ledger.append(
        event_type="door.opened",
        entity_id=entity,
        actor={"id": fit(text), "name": fit(text)},
        labels=[fit(text)],
        context={"text": text},
        payload={"text": text, fit(text): [text, {"deep": text}], "field": text, "old_value": text, "new_value": text},
    )
    return page(ledger, BODY, head=HEAD, name=text[:2_000], entity=entity)


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], set[str]]:
    """The elements and attributes of the page of a harmless text."""
    with tallystick.open(tmp_path_factory.mktemp("harmless") / "audit") as ledger:
        seen = Seen(render_html(told(ledger, "harmless")))
    return seen.elements, seen.attributes


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_event_changes_no_element_of_the_page(
    tmp_path: Path, shape: tuple[list[str], set[str]], text: str
) -> None:
    with tallystick.open(tmp_path / "audit") as ledger:
        found = told(ledger, text)

    html = render_html(found)
    seen = Seen(html)

    assert seen.open == []
    assert (seen.elements, seen.attributes) == shape
    assert seen.links == []
    assert visible(text, characters_max=100).removesuffix("…")[:90] in seen.text
    assert [character for character in html if not character.isprintable() and character != "\n"] == []
    for drawn in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ElementTree.fromstring(drawn)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_event_is_laid_out_and_never_evaluated_in_the_pdf(tmp_path: Path, text: str) -> None:
    with tallystick.open(tmp_path / "audit") as ledger:
        found = told(ledger, text)

    layout = Path(pdf_module.__file__).with_name("page.typ").read_bytes()
    headings = json.loads(typst.query(layout, "heading", field="level", sys_inputs=pdf_module.inputs(found)))

    assert headings == [1]  # the document's own: none of what an event says became one
    assert render_pdf(found).startswith(b"%PDF-")


_ANY: Final = st.text(max_size=80) | st.text(alphabet="<>&\"'/{}%#[]()|*_`=\\$@!-\n\ue000\ue0010x\u202e", max_size=80)


@given(_ANY)
def test_any_text_is_only_text_in_every_kind_of_block(text: str) -> None:
    def made(text: str) -> Page:
        source = Source(terms=((text,),), selectors=((text, ((text,),)),), how=visible(text))
        shown = visible(text) or "x"
        return Page(
            title=shown, description=shown, facts=((shown, shown),), checkpoint=shown, root="00", made_at=0,
            nodes=(
                Paragraph((Words(shown, strong=True), Words(shown, mono=True)), (source,)),
                Table(title=shown, columns=(shown,), rows=((Cell(shown, "gap"),),), source=source, note=shown),
                Chart(title=shown, kind="bars", labels=(shown,), series=((shown, (1,)),), source=source, note=shown),
                Timeline(title=shown, source=source, note=shown, entries=(
                    Entry(when=shown, what=shown, who=shown, details=((shown, shown),), position=1),)),
            ),
        )  # fmt: skip

    seen, harmless = Seen(render_html(made(text))), Seen(render_html(made("harmless")))

    assert (seen.elements, seen.attributes, seen.open) == (harmless.elements, harmless.attributes, [])


@pytest.mark.chromium
def test_a_browser_runs_and_loads_nothing_of_a_hostile_report(tmp_path: Path) -> None:
    with tallystick.open(tmp_path / "audit") as ledger:
        for text in HOSTILE[1:]:
            told(ledger, text)
        write(told(ledger, HOSTILE[0]), tmp_path / "hostile.html")

    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--dump-dom", (tmp_path / "hostile.html").as_uri()], capture_output=True, text=True, check=True
    )

    seen = Seen(done.stdout)
    assert "script" not in seen.elements
    assert "img" not in seen.elements
    assert not [name for name in seen.attributes if name.partition(".")[2].startswith("on")]
    assert seen.elements.count("h1") == 1
    assert "<script>alert(1)</script>" in seen.text


# --------------------------------------------------------------------------------------------------- charts


def chart(kind: Any, labels: tuple[str, ...], *series: tuple[str, tuple[float | None, ...]]) -> ElementTree.Element:
    source = Source(terms=(("x",),))
    return ElementTree.fromstring(svg(Chart(title="t", kind=kind, labels=labels, series=series, source=source)))


def rectangles(root: ElementTree.Element) -> list[dict[str, float]]:
    found = root.iter("{http://www.w3.org/2000/svg}rect")
    return [{name: float(each.attrib[name]) for name in ("x", "y", "width", "height")} for each in found]


def test_bars_are_as_high_as_their_values() -> None:
    heights = [bar["height"] for bar in rectangles(chart("bars", ("a", "b", "c"), ("n", (1, 2, 4))))]

    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    assert heights[2] == pytest.approx(4 * heights[0], abs=0.2)


def test_bars_of_several_series_stand_on_each_other_and_negative_ones_hang() -> None:
    root = chart("bars", ("a",), ("one", (3,)), ("two", (2,)), ("three", (-1,)))
    one, two, three = rectangles(root)[:3]

    assert two["y"] + two["height"] == pytest.approx(one["y"], abs=0.2)
    assert three["y"] == pytest.approx(one["y"] + one["height"], abs=0.2)


def test_a_line_is_broken_where_there_is_no_value() -> None:
    root = chart("lines", ("a", "b", "c", "d"), ("n", (1.5, None, 2, 2)))
    path = next(each.attrib["d"] for each in root.iter("{http://www.w3.org/2000/svg}path"))

    assert path.count("M") == 2


@pytest.mark.parametrize("values", [(0, 0), (1e12, 3), (0.001, 0.002), (-5, -7), (None, None)])
def test_any_values_make_a_chart_within_its_frame(values: tuple[float | None, ...]) -> None:
    for kind in ("bars", "lines", "ranking"):
        root = chart(kind, ("a", "b"), ("n", values))
        height = float(root.attrib["height"])

        assert all(0 <= bar["y"] <= height and bar["y"] + bar["height"] <= height for bar in rectangles(root))


# -------------------------------------------------------------------------------------------------- writing


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Page]:
    with tallystick.open(tmp_path / "audit") as ledger:
        yield page(ledger, "Hello.")


def test_a_report_is_written_whole_and_replaces_the_one_before(small: Page, tmp_path: Path) -> None:
    (tmp_path / "r.html").write_text("old")

    assert write(small, tmp_path / "r.html") == len((tmp_path / "r.html").read_bytes())
    assert "Hello." in (tmp_path / "r.html").read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".r")] == []


def test_a_name_that_is_neither_html_nor_pdf_and_a_folder_that_is_not_there_are_refused(
    small: Page, tmp_path: Path
) -> None:
    with pytest.raises(RejectedError, match="a report is HTML or PDF"):
        write(small, tmp_path / "r.docx")
    with pytest.raises(RejectedError, match="there is no folder"):
        write(small, tmp_path / "none" / "r.html")


def test_without_typst_the_error_names_what_to_install(
    small: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)

    with pytest.raises(RejectedError) as caught:
        write(small, tmp_path / "r.pdf")

    assert str(caught.value) == (
        "PDF needs Typst, which is not installed; install it with: pip install 'tallystick[pdf]'"
    )
    assert not (tmp_path / "r.pdf").exists()
