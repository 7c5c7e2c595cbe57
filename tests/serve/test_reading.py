"""Every read of the library over HTTP: in the form that is asked for, page by page, and proven where it can be."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import socket
from typing import Any
from urllib.parse import quote

import pytest
from tallystick_verify import judge_proof

import tallystick
from tallystick.core.checked_proof import check_proof
from tallystick.core.merkle import verify_consistency
from tallystick.serve.ingest import BATCH_PATH
from tallystick.serve.routes import answers, evidence, reading
from tests.serve.conftest import Running


@pytest.fixture(scope="module", autouse=True)
def some(it: Running) -> list[dict[str, Any]]:
    """Forty events of two entities, one of which would be a formula to a spreadsheet."""
    events: list[dict[str, Any]] = [
        {"event_type": "user.permission_changed", "entity_id": "user-1", "payload": {"field": "role", "new_value": n}}
        for n in range(30)
    ]
    events += [{"event_type": "file.read", "entity_id": "=cmd()", "payload": {"rows": n}} for n in range(10)]
    assert it.call("POST", BATCH_PATH, json=events).status_code == 201
    return events


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("text/csv;q=0.5, application/x-ndjson", "application/x-ndjson"),
        ("text/csv;q=nonsense, application/json;q=0.1", "application/json"),
        ("image/png," * 1_000, "application/json"),
    ],
)
def test_a_page_comes_in_the_form_that_is_accepted(it: Running, accept: str, kind: str) -> None:
    answer = it.call("GET", "/api/v1/events/query?limit=5", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == kind
    assert 'rel="next"' in answer.headers["Link"]


def test_all_forms_have_the_same_records_through_all_pages(it: Running) -> None:
    def pages(accept: str) -> list[str]:
        path, texts = "/api/v1/events/query?entity_id=user-1&limit=7&order=oldest", []
        while path:
            answer = it.call("GET", path, headers={"Accept": accept})
            texts.append(answer.text)
            link = answer.headers.get("Link", "")
            path = link.partition(">")[0].removeprefix("<")
        return texts

    whole = [one for text in pages("application/json") for one in json.loads(text)["records"]]
    lines = [json.loads(line) for text in pages("application/x-ndjson") for line in text.splitlines()]
    rows = [row for text in pages("text/csv") for row in csv.DictReader(io.StringIO(text))]

    assert len(whole) == 30
    assert whole == lines
    assert [(str(one["position"]), one["hash"]) for one in whole] == [(row["position"], row["hash"]) for row in rows]


def test_a_cell_is_never_a_formula(it: Running) -> None:
    answer = it.call("GET", "/api/v1/events/query?event_type=file.read&limit=1", headers={"Accept": "text/csv"})
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert row["entity_id"] == "'=cmd()"


def test_events_are_counted_and_their_series_is_a_table_too(it: Running) -> None:
    assert it.call("GET", "/api/v1/events/count?entity_id=user-1").json() == {"count": 30}
    query = "/api/v1/timeseries/query?event_type=file.read&width=year&measure=sum:payload.rows"
    (bucket,) = it.call("GET", query).json()["buckets"]
    (row,) = csv.DictReader(io.StringIO(it.call("GET", query, headers={"Accept": "text/csv"}).text))
    assert (bucket["value"], bucket["count"]) == (45, 10)
    assert {name: str(bucket[name] if bucket[name] is not None else "") for name in row} == row


def test_a_series_too_long_for_one_answer_is_refused_before_it_is_made(it: Running) -> None:
    path = "/api/v1/timeseries/query?width=minute&fill=true&after=2026-01-01"
    answer = it.call("GET", f"{path}&before=2027-01-01")
    assert (answer.status_code, answer.json()["place"]) == (400, "width")
    assert len(it.call("GET", f"{path}&before=2026-01-02").json()["buckets"]) == 1_440


def test_a_stored_series_is_listed_and_answers(it: Running) -> None:
    new = {
        "name": "reads",
        "terms": ["event_type=file.read"],
        "width": "year",
        "measures": ["count", "sum:payload.rows"],
    }
    assert it.call("POST", "/api/v1/timeseries/downsample", "acme/Developer", json=new).status_code == 201
    (rollup,) = it.call("GET", "/api/v1/timeseries/downsample").json()["rollups"]
    assert {name: rollup[name] for name in new} == new
    found = it.call("GET", "/api/v1/timeseries/query?event_type=file.read&width=year&measure=sum:payload.rows").json()
    assert (found["source"], found["buckets"][0]["value"]) == ("rollup:reads", 45)
    wrong = it.call("POST", "/api/v1/timeseries/downsample", json={**new, "width": "fortnight"})
    assert wrong.status_code == 400


def test_a_ledger_says_who_it_is_and_that_it_only_grew(it: Running) -> None:
    before = it.call("GET", "/api/v1/checkpoint").text.splitlines()
    it.call("POST", BATCH_PATH, json=[{"event_type": "a.b", "entity_id": "c"}] * 9)
    said = it.call("GET", "/api/v1/ledger").json()
    after = it.call("GET", "/api/v1/checkpoint").text.splitlines()

    proof = it.call("GET", f"/api/v1/consistency/{before[1]}").json()

    assert proof["size"] == int(after[1]) == said["size"]
    assert said["origin"] == after[0]
    old, new = (base64.b64decode(note[2]) for note in (before, after))
    hashes = [bytes.fromhex(one) for one in proof["hashes"]]
    assert verify_consistency(proof["old_size"], proof["size"], path=hashes, old_root=old, root=new)
    for path in (f"consistency/{said['size'] + 1}", f"consistency/2?size={said['size'] + 1}", "consistency/5?size=2"):
        assert it.call("GET", f"/api/v1/{path}").status_code == 400
    assert it.call("GET", "/api/v1/consistency/0").status_code == 400
    assert it.call("GET", "/api/v1/stats").json()["types"]["file.read"] == 10


def test_a_projection_that_an_application_runs_can_be_looked_at_and_held(it: Running) -> None:
    @tallystick.projection(name="reads", initial=0)
    def reads(state: int, record: tallystick.Record) -> int:
        return state + (record.event_type == "file.read")

    with it.deployment.ledger("acme") as ledger:
        ledger.project(reads).run()
    (one,) = it.call("GET", "/api/v1/projections", "acme/ReadOnly").json()["projections"]
    assert (one["name"], one["status"]) == ("reads", "current")
    assert it.call("GET", "/api/v1/projections/reads").json()["state"] == 10
    assert it.call("POST", "/api/v1/projections/reads/pause").status_code == 200
    assert it.call("GET", "/api/v1/projections/reads").json()["status"] == "paused"
    assert it.call("POST", "/api/v1/projections/reads/resume").status_code == 200
    assert it.call("POST", "/api/v1/projections/reads/reset").status_code == 200
    assert it.call("GET", "/api/v1/projections").json()["projections"] == []
    assert it.call("GET", "/api/v1/projections/reads").status_code == 404


def test_controls_are_listed_found_explained_and_assessed(it: Running) -> None:
    known = it.call("GET", "/api/v1/controls?framework=soc2").json()
    assert {one["framework"] for one in known["controls"]} == {"SOC2"}
    best = it.call("GET", "/api/v1/controls/search?q=who+changed+permissions").json()["controls"][0]
    assert it.call("GET", f"/api/v1/controls/{best['control']}").json()["title"] == best["title"]
    found = it.call("GET", "/api/v1/controls/evidence?id=CC6.2&id=CC6.3", "acme/Auditor").json()
    assert [one["control"] for one in found["controls"]] == ["SOC2/CC6.2", "SOC2/CC6.3"]
    assert it.call("GET", "/api/v1/controls/evidence?id=nonsense").status_code == 404
    assert it.call("GET", "/api/v1/controls/evidence?id=CC6.2&framework=SOC2").status_code == 400
    assert it.call("GET", "/api/v1/controls/evidence?from=2026-02-30").json()["place"] == "from"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("access-review", ""),
        ("change-review", "rows=5"),
        ("entity-dossier", "entity=user-1&from=2020-01-01"),
        ("evidence-pack", "controls_wanted=CC6.2"),
        ("incident-timeline", "clock=occurred"),
    ],
)
def test_a_report_is_made_with_what_it_has_to_be_told(it: Running, name: str, told: str) -> None:
    assert name in [one["name"] for one in it.call("GET", "/api/v1/reports").json()["reports"]]
    answer = it.call("GET", f"/api/v1/reports/{name}?{told}", "acme/Auditor")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert answer.text.lower().startswith("<!doctype html>")
    pdf = {"Accept": "application/pdf"}
    with evidence._LAYING_OUT, evidence._LAYING_OUT:
        assert it.call("GET", f"/api/v1/reports/{name}?{told}", headers=pdf).status_code == 503
    printed = it.call("GET", f"/api/v1/reports/{name}?{told}", headers=pdf)
    assert printed.content.startswith(b"%PDF-")


@pytest.mark.parametrize(
    ("asked", "status", "place"),
    [
        ("nobody", 404, None),
        ("..%2f..%2fetc%2fpasswd.md", 404, None),
        ("x.md", 400, "name"),
        ("access-review?made_up=1", 400, "made_up"),
        ("access-review?rows=many", 400, "rows"),
        ("access-review?rows=1&rows=2", 400, "rows"),
        ("entity-dossier", 400, "entity"),
        ("entity-dossier?entity=nobody", 404, None),
        ("access-review?from=2026-01-02&to=2026-01-01", 400, "to"),
    ],
)
def test_a_report_that_cannot_be_made_says_why(it: Running, asked: str, status: int, place: str | None) -> None:
    answer = it.call("GET", f"/api/v1/reports/{asked}", "acme/Auditor")
    assert answer.status_code == status, answer.text
    assert answer.json().get("place") == place


@pytest.mark.parametrize(("bound", "most"), [("HISTORY_TURNS_MAX", 3), ("ANSWER_BYTES_MAX", 1_000)])
def test_a_history_too_long_for_one_answer_is_refused(
    it: Running, bound: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        event = {"event_type": "door.changed", "entity_id": f"long-{bound}", "payload": {"number": number}}
        assert it.call("POST", "/api/v1/events", json=event).status_code == 201
    path = f"/api/v1/entities/long-{bound}/history"
    assert len(it.call("GET", path).json()["turns"]) == 6
    monkeypatch.setattr(reading if bound == "HISTORY_TURNS_MAX" else answers, bound, most)

    answer = it.call("GET", path)
    assert (answer.status_code, answer.json()["place"]) == (400, "entity_id")


@pytest.mark.parametrize("path", ["/api/v1/events/query", "/api/v1/ledger", "/health/ready", "/openapi.json"])
def test_a_head_is_a_get_without_its_body(it: Running, path: str) -> None:
    whole, head = it.call("GET", path), it.call("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Type"] == whole.headers["Content-Type"]
    assert it.call("HEAD", "/api/v1/nowhere").status_code == 404
    assert it.call("HEAD", "/api/v1/events/stream").status_code == 405


def test_reading_where_events_are_brought_says_where_to_read(it: Running) -> None:
    for path in ("/api/v1/events", BATCH_PATH):
        answer = it.call("GET", path)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
        assert "/api/v1/events/query" in answer.json()["detail"]


def test_what_is_no_http_is_told_so_as_a_problem(it: Running) -> None:
    host, port = it.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01 as TLS would begin\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4_096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == 400


def test_a_record_as_it_is_and_its_proof_are_checked_without_the_service(it: Running) -> None:
    sent = it.call(
        "POST", "/api/v1/events", json={"event_type": "proof.asked", "entity_id": "p", "payload": {"n": 1.0}}
    )
    position = sent.json()["position"]
    plain = it.call("GET", f"/api/v1/events/{position}")
    record = it.call("GET", f"/api/v1/events/{position}", headers={"Accept": "application/octet-stream"})
    proof = it.call("GET", f"/api/v1/proofs/{position}")
    key = it.call("GET", "/api/v1/ledger").json()["verifier_key"]

    assert record.headers["content-type"] == "application/octet-stream"
    assert plain.headers["etag"] != record.headers["etag"]
    trust = f"log {key}\nquorum none\n".encode()
    assert check_proof(proof.content, record.content, trust).holds
    assert judge_proof(proof.content, record.content, trust) == []
    again = {"Accept": "application/octet-stream", "If-None-Match": record.headers["etag"]}
    assert it.call("GET", f"/api/v1/events/{position}", headers=again).status_code == 304


@pytest.mark.parametrize(
    "entity",
    [
        "\u00e9\U0001f4a5",
        'x>; rel="next", <https://evil.example/',
        'a/b"<>',
        "e\r\nX: 1",
        "100%0d%0a",
        "a b;c,d",
        "?limit=9&cursor=1#x",
    ],
)
def test_the_way_to_the_next_page_leads_there_and_nowhere_else(it: Running, entity: str) -> None:
    events = [
        {"event_type": "a.b", "entity_id": entity.replace("\r\n", "%0d%0a"), "payload": {"n": n}} for n in range(3)
    ]
    name = events[0]["entity_id"]
    assert it.call("POST", BATCH_PATH, json=events).status_code == 201
    path = f"/api/v1/entities/{quote(str(name), safe='')}/events?limit=1"
    numbers = []
    for _ in range(3):
        answer = it.call("GET", path)
        assert answer.status_code == 200, answer.text
        numbers += [record["payload"]["n"] for record in answer.json()["records"]]
        link = answer.headers.get("Link", "")
        if not link:
            break
        found = re.fullmatch(r"<(/api/v1/entities/[A-Za-z0-9._~%/-]+/events\?[A-Za-z0-9._~%=&-]+)>; rel=\"next\"", link)
        assert found, link
        path = found[1]
    assert numbers == [0, 1, 2]


def test_the_terms_of_a_query_stand_in_the_way_to_the_next_page(it: Running) -> None:
    for number in range(2):
        event = {"event_type": "link.ed", "entity_id": 'l"><\u00e9', "payload": {"rows": number}}
        assert it.call("POST", "/api/v1/events", json=event).status_code == 201
    terms = "entity_id=l%22%3E%3C%C3%A9&payload.rows%3E=0&event_type=link.*&!payload.errorCode"
    link = it.call("GET", f"/api/v1/events/query?limit=1&{terms}").headers["Link"]
    assert link.startswith(f"</api/v1/events/query?limit=1&{terms.replace('*', '%2A').replace('!', '%21')}&cursor=")
    assert link.count("<") == link.count(">") == 1
    following = it.call("GET", link[1 : link.index(">")]).json()
    assert [record["payload"]["rows"] for record in following["records"]] == [0]


@pytest.mark.parametrize("number", ["0.0005", "1e-7", "1e25", "-0.0", "5e-324", "1.7976931348623157e308", "0.5", "12"])
def test_numbers_of_every_kind_are_told(it: Running, number: str) -> None:
    entity = f"price-{number}"
    for old in (1, number):
        body = f'{{"event_type":"price.set","entity_id":"{entity}","payload":{{"price":{old},"deep":[{{"n":{old}}}]}}}}'
        assert it.call("POST", "/api/v1/events", content=body).status_code == 201
    told = float(number)
    base = f"/api/v1/entities/{entity}"
    for path in ("state", "state?whole=true"):
        assert it.call("GET", f"{base}/{path}").json()["state"] == {"price": told, "deep": [{"n": told}]}
    for path in ("history", "history?whole=true", "history?member=price"):
        changes = it.call("GET", f"{base}/{path}").json()["turns"][-1]["changes"]
        assert {change["member"]: change["new"] for change in changes}["price"] == told
    for path in ("diff?from=v1", "diff?from=v1&whole=true"):
        changes = it.call("GET", f"{base}/{path}").json()["changes"]
        assert {change["member"]: change["new"] for change in changes}["price"] == told
    for function in ("sum", "min", "max", "avg"):
        asked = f"/api/v1/timeseries/query?entity_id={entity}&measure={function}:payload.price&width=year"
        assert it.call("GET", asked).status_code == 200
        assert it.call("GET", asked, headers={"Accept": "text/csv"}).status_code == 200
    for path in (
        f"/api/v1/events/query?entity_id={entity}",
        f"{base}/events",
        f"/api/v1/reports/entity-dossier?entity={entity}",
    ):
        assert it.call("GET", path).status_code == 200
    assert it.call("GET", "/api/v1/schemas/price.set/infer?enums=true").status_code == 200
