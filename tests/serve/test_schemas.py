"""Schemas over HTTP: what breaks one is refused when it arrives, with the field named."""

from __future__ import annotations

import json
import subprocess
import threading
from typing import Any, Final

import orjson
import pytest

from tallystick.govern import registered
from tallystick.serve.ingest import BATCH_PATH, EVENTS_PATH
from tallystick.serve.routes import rendered, schemas
from tests.serve.conftest import Running

SCHEMA: Final[dict[str, Any]] = {
    "name": "door.opened",
    "version": 1,
    "schema": {
        "type": "object",
        "required": ["actor"],
        "properties": {"actor": {"type": "string", "x-personal": True}, "door": {"type": "integer"}},
        "additionalProperties": False,
    },
}


def event(**payload: Any) -> dict[str, Any]:
    return {"event_type": "door.opened", "entity_id": "door-7", "payload": payload}


@pytest.mark.curl
def test_the_call_of_the_documents_and_an_event_without_its_actor(it: Running) -> None:
    def curl(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        head = ["-H", f"Authorization: Bearer {it.keys['acme/Admin']}", "-H", "Content-Type: application/json"]
        command = ["curl", "-sS", "-w", "\n%{http_code}", *head, f"{it.url}{path}", "-d", json.dumps(body)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        answer, _, status = out.rpartition("\n")
        return int(status), json.loads(answer)

    status, told = curl("/api/v1/schemas", SCHEMA)
    assert (status, told["name"], told["version"], told["schema"]) == (201, "door.opened", 1, SCHEMA["schema"])

    status, told = curl(EVENTS_PATH, event(door=7))
    assert (status, told["place"]) == (400, "/payload/actor")
    assert curl(EVENTS_PATH, event(door=7, actor="jane"))[0] == 201
    status, told = curl(EVENTS_PATH, event(door="seven", actor="jane"))
    assert (status, told["place"]) == (400, "/payload/door")


def test_it_goes_for_batches_and_for_the_queue(it: Running) -> None:
    it.call("POST", "/api/v1/schemas", json=SCHEMA)
    batch = it.call("POST", BATCH_PATH, json=[event(actor="jane"), event(door=1), event(actor="raj")]).json()
    assert (batch["sealed"], batch["refused"]) == (2, 1)
    assert batch["events"][1]["place"] == "/payload/actor"
    queued = it.call("POST", f"{EVENTS_PATH}?ack=queued", json=event(door=1))
    assert (queued.status_code, queued.json()["place"]) == (400, "/payload/actor")


def test_a_breaking_version_is_refused_with_the_change_that_breaks(it: Running) -> None:
    it.call("POST", "/api/v1/schemas", json=SCHEMA)
    schema = {**SCHEMA["schema"], "required": ["actor", "door"]}

    refused = it.call("POST", "/api/v1/schemas", json={**SCHEMA, "version": 2, "schema": schema})
    other = it.call("POST", "/api/v1/schemas", json={**SCHEMA, "schema": schema})
    again = it.call("POST", "/api/v1/schemas", json=SCHEMA)

    assert refused.status_code == 400
    assert "required" in refused.text
    assert other.status_code == 409
    assert again.status_code == 201
    history = it.call("GET", "/api/v1/schemas/door.opened/history").json()["versions"]
    assert [one["version"] for one in history] == [1]
    assert history[0]["actor"]["type"] == "api_key"


def test_what_would_become_of_events_is_told_and_nothing_sealed(it: Running) -> None:
    it.call("POST", "/api/v1/schemas", json=SCHEMA)
    before = it.call("GET", "/api/v1/timeseries/range").json()["count"]
    told = it.call("POST", "/api/v1/schemas/validate", json=[event(actor="j"), event(door=1)]).json()["events"]

    assert [one["taken"] for one in told] == [True, False]
    assert told[1]["place"] == "/payload/actor"
    assert it.call("GET", "/api/v1/timeseries/range").json()["count"] == before
    inferred = it.call("GET", "/api/v1/schemas/door.opened/infer").json()
    assert inferred["schema"]["required"] == ["actor"]
    assert it.call("GET", "/api/v1/schemas/nobody.knows").status_code == 404


def test_other_tenants_have_schemas_of_their_own_and_modes_are_told(it: Running) -> None:
    it.call("POST", "/api/v1/schemas", json=SCHEMA)
    assert it.call("POST", EVENTS_PATH, "other/Admin", json=event(door=1)).status_code == 201
    assert it.call("GET", "/api/v1/schemas", "other/Admin").json() == {"enforcement": "registered", "schemas": []}

    it.call("PUT", "/api/v1/schemas/enforcement", "other/Admin", json={"enforcement": "strict"})
    assert it.call("POST", EVENTS_PATH, "other/Admin", json=event(door=1)).status_code == 400
    it.call("POST", "/api/v1/schemas", "other/Admin", json=SCHEMA)
    it.call("PUT", "/api/v1/schemas/enforcement", "other/Admin", json={"enforcement": "warn"})
    warned = it.call("POST", EVENTS_PATH, "other/Admin", json=event(door=1))
    assert warned.status_code == 201
    assert "actor" in warned.json()["breach"]


def test_a_history_reads_no_document_and_has_a_bound(it: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        schema = {"type": "object", "title": f"{number}" * 1_000}
        body = {"name": "hist.ory", "schema": schema, "compatibility": "none"}
        assert it.call("POST", "/api/v1/schemas", json=body).status_code == 201
    rendering: list[str] = []
    monkeypatch.setattr(rendered, "orjson", _Dumping(rendering))
    with monkeypatch.context() as unread:
        unread.setattr(registered.Documents, "read", None)
        told = it.call("GET", "/api/v1/schemas/hist.ory/history").json()
    assert [one["schema"]["title"][0] for one in told["versions"]] == ["0", "1", "2", "3"]
    assert rendering
    assert not any(name.startswith(("MainThread", "Thread-")) for name in rendering)
    monkeypatch.setattr(schemas, "ANSWER_BYTES_MAX", 3_000)
    answer = it.call("GET", "/api/v1/schemas/hist.ory/history")
    assert (answer.status_code, answer.json()["place"]) == (400, "name")
    assert it.call("GET", "/api/v1/schemas/hist.ory").json()["version"] == 4


class _Dumping:
    """orjson, and in which threads it renders."""

    OPT_NON_STR_KEYS = orjson.OPT_NON_STR_KEYS

    def __init__(self, threads: list[str]) -> None:
        self._threads = threads

    def dumps(self, value: Any, *, default: Any = None, option: int) -> bytes:
        self._threads.append(threading.current_thread().name)
        return orjson.dumps(value, default, option)
