"""Separation of duties, as a full matrix: every route, every role, the own tenant and another one."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, Final

import pytest

import tallystick
from tallystick.errors import StoreError
from tallystick.govern.access import ROLES, id_of
from tallystick.serve.ingest import BATCH_PATH, EVENTS_PATH
from tallystick.serve.streaming import STREAM_PATH
from tests.serve.conftest import Running, running

EVENT: Final = {"event_type": "doc.read", "entity_id": "doc-1"}

NEEDS: Final[dict[tuple[str, str], tuple[str, Any]]] = {
    ("POST", EVENTS_PATH): ("Write", EVENT),
    ("POST", BATCH_PATH): ("Write", [EVENT]),
    ("GET", "/api/v1/events/query"): ("Read", None),
    ("GET", "/api/v1/events/count"): ("Read", None),
    ("GET", "/api/v1/events/{key}"): ("Read", None),
    ("GET", STREAM_PATH): ("Read", None),
    ("GET", "/api/v1/entities/{entity_id:path}/events"): ("Read", None),
    ("GET", "/api/v1/entities/{entity_id:path}/state"): ("Read", None),
    ("GET", "/api/v1/entities/{entity_id:path}/history"): ("Read", None),
    ("GET", "/api/v1/entities/{entity_id:path}/diff"): ("Read", None),
    ("GET", "/api/v1/timeseries/range"): ("Metrics", None),
    ("GET", "/api/v1/timeseries/query"): ("Metrics", None),
    ("GET", "/api/v1/timeseries/downsample"): ("Metrics", None),
    ("POST", "/api/v1/timeseries/downsample"): ("ManagePipelines", {"name": "made-up"}),
    ("GET", "/api/v1/ledger"): ("Read", None),
    ("GET", "/api/v1/stats"): ("Metrics", None),
    ("GET", "/api/v1/consistency/{old_size}"): ("Read", None),
    ("POST", "/api/v1/verify"): ("Read", {}),
    ("GET", "/api/v1/verify"): ("Read", None),
    ("POST", "/api/v1/exports"): ("Export", {"terms": ["id=nobody"]}),
    ("GET", "/api/v1/jobs"): ("Read", None),
    ("GET", "/api/v1/jobs/{job_id}"): ("Read", None),
    ("DELETE", "/api/v1/jobs/{job_id}"): ("Export", None),
    ("GET", "/api/v1/jobs/{job_id}/bundle"): ("Export", None),
    ("GET", "/api/v1/controls"): ("Read", None),
    ("GET", "/api/v1/controls/search"): ("Read", None),
    ("GET", "/api/v1/controls/evidence"): ("Export", None),
    ("GET", "/api/v1/controls/{control}"): ("Read", None),
    ("GET", "/api/v1/reports"): ("Read", None),
    ("GET", "/api/v1/reports/{name}"): ("Export", None),
    ("GET", "/api/v1/retention"): ("Read", None),
    ("PUT", "/api/v1/retention"): ("Admin", {"period": "90d"}),
    ("GET", "/api/v1/retention/plan"): ("Read", None),
    ("POST", "/api/v1/retention/prune"): ("Erase", {"end": 0, "count": 0}),
    ("GET", "/api/v1/holds"): ("Read", None),
    ("POST", "/api/v1/holds"): ("Admin", {"name": "made-up", "reason": "r", "entity": "e"}),
    ("POST", "/api/v1/holds/{name}/release"): ("Admin", {"reason": "r"}),
    ("GET", "/api/v1/projections"): ("Read", None),
    ("GET", "/api/v1/projections/{name}"): ("Read", None),
    ("POST", "/api/v1/projections/{name}/pause"): ("ManagePipelines", None),
    ("POST", "/api/v1/projections/{name}/resume"): ("ManagePipelines", None),
    ("POST", "/api/v1/projections/{name}/reset"): ("ManagePipelines", None),
    ("GET", "/api/v1/checkpoint"): ("Read", None),
    ("GET", "/api/v1/tile/{path:path}"): ("Read", None),
    ("GET", "/api/v1/proofs/{position}"): ("Read", None),
    ("GET", "/api/v1/queue/stats"): ("Metrics", None),
    ("GET", "/api/v1/tickets/{ticket:path}"): ("Write", None),
    ("GET", "/api/v1/access"): ("Export", None),
    ("GET", "/api/v1/whoami"): ("Read", None),
    ("GET", "/api/v1/keys"): ("Admin", None),
    ("POST", "/api/v1/keys"): ("Admin", {"name": "n", "role": "ReadOnly"}),
    ("POST", "/api/v1/keys/{key_id}/rotate"): ("Admin", None),
    ("DELETE", "/api/v1/keys/{key_id}"): ("Admin", None),
    ("GET", "/api/v1/schemas"): ("Read", None),
    ("POST", "/api/v1/schemas"): ("ManageSchemas", {"name": "made.up", "schema": {}}),
    ("PUT", "/api/v1/schemas/enforcement"): ("ManageSchemas", {"enforcement": "registered"}),
    ("POST", "/api/v1/schemas/validate"): ("Read", EVENT),
    ("GET", "/api/v1/schemas/{name}"): ("Read", None),
    ("GET", "/api/v1/schemas/{name}/history"): ("Read", None),
    ("GET", "/api/v1/schemas/{name}/infer"): ("Read", None),
    ("GET", "/api/v1/tenants"): ("ManageTenants", None),
    ("POST", "/api/v1/tenants"): ("ManageTenants", {"name": "made"}),
    ("POST", "/api/v1/tenants/{name}/suspend"): ("ManageTenants", None),
    ("POST", "/api/v1/tenants/{name}/resume"): ("ManageTenants", None),
    ("GET", "/api/v1/usage"): ("Metrics", None),
    ("GET", "/api/v1/tenants/{name}/usage"): ("ManageTenants", None),
    ("PUT", "/api/v1/tenants/{name}/plan"): ("ManageTenants", {"plan": None}),
    ("GET", "/api/v1/plans"): ("ManageTenants", None),
    ("PUT", "/api/v1/plans/{name}"): ("ManageTenants", {}),
    ("GET", "/metrics"): ("Scrape", None),
}
"""Route → the permission that it needs, and a body. A route that is not here fails the first test."""

OPEN: Final = {("GET", "/health/live"), ("GET", "/health/ready")}
"""What needs no key."""


def asked(path: str) -> str:
    """A path with something in its places."""
    for place, value in (
        ("{key}", "2"),
        ("{entity_id:path}", "doc-1"),
        ("{path:path}", "0/000.p/1"),
        ("{position}", "2"),
        ("{ticket:path}", "0.x"),
        ("{key_id}", "0" * 16),
        ("{name}", "nobody"),
        ("{job_id}", "0" * 24),
        ("{old_size}", "1"),
        ("{control}", "CC7.2"),
    ):
        path = path.replace(place, value)
    if path == STREAM_PATH:
        return f"{path}?first=999999999"  # which is refused, and so has an end
    if path.endswith("/controls/search"):
        return f"{path}?q=who+approved+changes"
    return f"{path}?from=v1" if path.endswith("/diff") else path


def test_every_route_stands_in_the_matrix(it: Running) -> None:
    paths = it.call("GET", "/openapi.json", None).json()["paths"]
    routes = {(method.upper(), path) for path, operations in paths.items() for method in operations}
    assert routes == {(method, path.replace(":path", "")) for method, path in NEEDS.keys() | OPEN}


def test_the_document_says_what_each_route_needs(it: Running) -> None:
    paths = it.call("GET", "/openapi.json", None).json()["paths"]
    told = {
        (method.upper(), path): operation.get("x-permission")
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    needed = {(method, path.replace(":path", "")): permission for (method, path), (permission, _) in NEEDS.items()}
    assert told == needed | dict.fromkeys(OPEN)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path"), NEEDS)
def test_a_role_may_what_it_may_and_nothing_else(it: Running, method: str, path: str, role: str) -> None:
    it.call("POST", EVENTS_PATH, json=EVENT)
    permission, body = NEEDS[method, path]
    may = permission in ROLES[role] and permission != "ManageTenants"  # that is the operators' alone

    answer = it.call(method, asked(path), f"acme/{role}", json=body)

    assert answer.status_code < 500, answer.text
    assert (answer.status_code != 403) == may, answer.text
    assert answer.status_code != 401
    if not may:
        said = answer.json()
        assert said["permission"] == permission
        trail = it.call("GET", "/api/v1/access?event_type=access.denied&limit=1", "acme/Auditor").json()
        denied = trail["records"][0]
        assert denied["payload"] == {
            "method": method,
            "path": asked(path).partition("?")[0],
            "permission": permission,
            "role": role,
            "address": "127.0.0.1",
            "user_agent": answer.request.headers["User-Agent"],
            "request_id": answer.headers["X-Request-ID"],
        }


@pytest.mark.parametrize(("method", "path"), NEEDS)
def test_nobody_comes_in_without_a_key_in_force(it: Running, method: str, path: str) -> None:
    body = NEEDS[method, path][1]
    real = it.keys["acme/Admin"]
    wrong = real[:-1] + ("0" if real[-1] != "0" else "1")
    answers = [it.call(method, asked(path), who, json=body) for who in (None, "nonsense", wrong, "ts_" + "0" * 81)]

    assert {answer.status_code for answer in answers} == {401}
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {'Bearer realm="tallystick"'}
    assert len({answer.text for answer in answers[1:]}) == 1


@pytest.mark.parametrize(("method", "path"), NEEDS)
def test_operators_may_everything(it: Running, method: str, path: str) -> None:
    if path == "/api/v1/tenants" and method == "POST":
        body: Any = {"name": "by-operators"}
    else:
        body = NEEDS[method, path][1]
    assert it.call(method, asked(path), "operator", json=body).status_code not in (401, 403, 500)


def test_a_tenant_does_not_learn_of_another(it: Running) -> None:
    mine = it.call("POST", EVENTS_PATH, json={**EVENT, "id": "only-in-acme"}).json()
    key_id = it.deployment.keys("acme")[0].id

    def told(method: str, path: str, name: str) -> tuple[int, str]:
        answer = it.call(method, path.replace("NAME", name), "other/Admin")
        return answer.status_code, answer.text.replace(name, "NAME")

    assert it.call("GET", "/api/v1/events/only-in-acme", "acme/ReadOnly").json()["hash"] == mine["hash"]
    for method, path, there, nowhere, status in (
        ("GET", "/api/v1/events/NAME", "only-in-acme", "nobodys", 404),
        ("DELETE", "/api/v1/keys/NAME", key_id, "f" * 16, 404),
        ("POST", "/api/v1/keys/NAME/rotate", key_id, "f" * 16, 404),
        ("GET", "/api/v1/keys?tenant=NAME", "acme", "nobody", 403),
    ):
        assert told(method, path, there) == told(method, path, nowhere)
        assert told(method, path, there)[0] == status
    assert it.call("GET", "/api/v1/events/query?id=only-in-acme", "other/Admin").json()["records"] == []
    for tenant in ("acme", "nobody"):
        made = it.call("POST", "/api/v1/keys", "other/Admin", json={"name": "n", "role": "Admin", "tenant": tenant})
        assert (made.status_code, made.json()["permission"]) == (403, "ManageTenants")
    made = it.call("POST", "/api/v1/keys", "other/Admin", json={"name": "n", "role": "Admin", "operator": True})
    assert made.status_code == 403


def test_an_admin_who_is_no_operator_makes_nobody_one(it: Running) -> None:
    _, plain = it.deployment.create_key("default", role="Admin", name="plain", actor={"id": "t"})
    operators = next(key for key in it.deployment.keys("default") if key.operator)
    for method, path in (("POST", f"/api/v1/keys/{operators.id}/rotate"), ("DELETE", f"/api/v1/keys/{operators.id}")):
        answer = it.call(method, path, plain)
        assert (answer.status_code, answer.json()["permission"]) == (403, "ManageTenants")
    assert it.call("GET", "/api/v1/tenants", "operator").status_code == 200


def test_a_scoped_key_learns_nothing_by_asking_cleverly(it: Running) -> None:
    scoped = it.key("acme", "ReadOnly", event_types=["seen.*"])
    for salary in (70_001, 70_002):
        it.call("POST", EVENTS_PATH, json={"event_type": "pay.set", "entity_id": "p", "payload": {"salary": salary}})
    there = it.call("GET", "/api/v1/events/query?event_type=pay.*&limit=1&payload.salary>=70000", scoped)
    nothing = it.call("GET", "/api/v1/events/query?event_type=pay.*&limit=1&payload.salary>=99999", scoped)
    pages = [answer.json() for answer in (there, nothing)]
    for page in pages:
        page.pop("size")  # which a job of another test may have changed meanwhile
    assert pages[0] == pages[1]
    assert "Link" not in there.headers
    hidden = it.call("GET", "/api/v1/events/query?event_type=pay.set&limit=1").json()["records"][0]
    for path in ("events", "proofs"):
        told = [it.call("GET", f"/api/v1/{path}/{key}", scoped) for key in (hidden["position"], 999_999)]
        assert {answer.status_code for answer in told} == {404}
        named = [str(key) for key in (hidden["position"], 999_999)]
        details = [one.json()["detail"].replace(f"'{key}'", "N") for one, key in zip(told, named, strict=True)]
        assert details[0] == details[1]
        assert told[0].json() | {"detail": ""} == told[1].json() | {"detail": ""}
    assert it.call("GET", "/api/v1/queue/stats", scoped).status_code == 403


def test_of_two_keys_none_is_believed(it: Running) -> None:
    host, port = it.url.removeprefix("http://").split(":")
    good, bad = it.keys["acme/Admin"], "ts_no"
    for path, method in (
        ("/api/v1/whoami", "GET"),
        (EVENTS_PATH, "POST"),
        (STREAM_PATH, "GET"),
        ("/api/v1/keys", "POST"),
    ):
        for first, second in ((good, bad), (bad, good)):
            lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", "Content-Length: 0"]
            lines += [f"Authorization: Bearer {first}", f"Authorization: Bearer {second}", "", ""]
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall("\r\n".join(lines).encode())
                assert connection.recv(100).startswith(b"HTTP/1.1 401"), (path, first)


def test_a_key_that_comes_from_elsewhere_is_recorded_and_learns_nothing(it: Running) -> None:
    stray = it.key("acme", "Admin", networks=["10.9.0.0/16"])
    unknown = it.call("GET", "/api/v1/whoami", f"ts_{'0' * 16}_{'0' * 64}")

    for method, path in (
        ("GET", "/api/v1/whoami"),
        ("POST", EVENTS_PATH),
        ("POST", "/api/v1/keys"),
        ("GET", STREAM_PATH),
    ):
        headers = {"X-Request-ID": f"stray-{path.rpartition('/')[2]}", "User-Agent": "curl/8 " + "x" * 600}
        answer = it.call(method, path, stray, headers=headers, **({"json": EVENT} if method == "POST" else {}))

        assert (answer.status_code, answer.json()) == (401, unknown.json())
        [denied] = it.call("GET", "/api/v1/access?event_type=access.denied&limit=1", "acme/Auditor").json()["records"]
        assert denied["actor"]["name"] == "test"
        assert denied["entity_id"].startswith("key:")
        said = denied["payload"]
        assert (said["method"], said["path"], said["address"]) == (method, path, "127.0.0.1")
        assert said["request_id"] == headers["X-Request-ID"] == answer.headers["X-Request-ID"]
        assert said["user_agent"] == headers["User-Agent"][:256]
        assert "address" in said["reason"]
    assert it.call("GET", "/api/v1/access?payload.reason=x", "other/Auditor").json()["records"] == []


def test_a_scoped_key_asks_only_about_tickets_that_it_got(it: Running) -> None:
    scoped = it.key("acme", "Developer", event_types=["doc.*"])
    other = it.call("POST", f"{EVENTS_PATH}?ack=queued", json={"event_type": "pay.made", "entity_id": "p", "id": "p-1"})
    mine = it.call("POST", f"{BATCH_PATH}?ack=queued", scoped, json=[EVENT, EVENT]).json()["events"]

    for ticket in mine:
        asked = [it.call("GET", path, who) for path in (ticket["status"],) for who in (scoped, "acme/Admin")]
        assert [answer.status_code for answer in asked] == [200, 200]
    theirs, proof = other.json()["ticket"], mine[0]["ticket"].rpartition("~")[2]
    sequence = theirs.partition(".")[0]
    told = {
        it.call("GET", f"/api/v1/tickets/{ticket}", scoped).json()["status"]
        for ticket in (theirs, f"{theirs}~", f"{theirs}~{proof}", f"{sequence}.x", mine[0]["ticket"].rpartition("~")[0])
    }
    assert told == {404}
    assert it.call("GET", f"/api/v1/tickets/{theirs}").json()["state"] in ("queued", "sealed")
    with tallystick.Client(it.url, scoped) as client:
        ticket = client.publish(event_type="doc.read", entity_id="doc-1")
        assert client.progress(ticket).state in ("queued", "sealed")
        assert client.progress(ticket.id).state in ("queued", "sealed")


def test_a_scoped_key_reaches_what_it_is_for(it: Running) -> None:
    scoped = it.key("acme", "Developer", event_types=["doc.*"], entity_prefixes=["doc-"])
    for event in (EVENT, {"event_type": "secret.read", "entity_id": "doc-1"}, {**EVENT, "entity_id": "x"}):
        it.call("POST", EVENTS_PATH, json=event)

    assert it.call("POST", EVENTS_PATH, scoped, json=EVENT).status_code == 201
    for event in ({"event_type": "secret.read", "entity_id": "doc-1"}, {**EVENT, "entity_id": "x"}):
        assert it.call("POST", EVENTS_PATH, scoped, json=event).status_code == 403
        assert it.call("POST", BATCH_PATH, scoped, json=[EVENT, event]).status_code == 403
    seen = it.call("GET", "/api/v1/events/query?limit=1000", scoped).json()["records"]
    assert {(one["event_type"], one["entity_id"][:4]) for one in seen} == {("doc.read", "doc-")}
    hidden = it.call("GET", "/api/v1/events/query?event_type=secret.read", "acme/Admin").json()["records"][0]
    assert it.call("GET", f"/api/v1/events/{hidden['position']}", scoped).status_code == 404
    assert it.call("GET", f"/api/v1/proofs/{hidden['position']}", scoped).status_code == 404
    for path in (
        *("checkpoint", "tile/0/000.p/1", "timeseries/query", "timeseries/range", "entities/doc-1/state", "stats"),
        *("events/count", "consistency/1", "retention/plan", "projections", "jobs", "verify", "controls/evidence"),
    ):
        assert it.call("GET", f"/api/v1/{path}", scoped).status_code == 403, path
    prefixed = it.key("acme", "ReadOnly", entity_prefixes=["doc-"])
    assert it.call("GET", "/api/v1/entities/doc-1/state", prefixed).status_code == 200
    assert it.call("GET", "/api/v1/entities/x/state", prefixed).status_code == 404


def test_what_a_key_writes_bears_its_name_unless_the_event_says_whose_it_is(it: Running) -> None:
    named = it.call("POST", EVENTS_PATH, json={**EVENT, "actor": "jane"}).json()["position"]
    unnamed = it.call("POST", EVENTS_PATH, json=EVENT).json()["position"]

    assert it.call("GET", f"/api/v1/events/{named}").json()["actor"] == {"id": "jane"}
    actor = it.call("GET", f"/api/v1/events/{unnamed}").json()["actor"]
    assert actor["type"] == "api_key"
    assert it.call("GET", "/api/v1/whoami").json()["id"] == actor["id"].removeprefix("key:")


def test_keys_are_made_rotated_and_revoked_and_each_act_is_in_both_books(it: Running) -> None:
    made = it.call(
        "POST", "/api/v1/keys", json={"name": "ci", "role": "ServiceAccount", "event_types": ["ci.*"]}
    ).json()
    assert it.call("GET", "/api/v1/whoami", made["key"]).json()["scope"]["event_types"] == ["ci.*"]
    turned = it.call("POST", f"/api/v1/keys/{made['id']}/rotate").json()
    assert it.call("GET", "/api/v1/whoami", made["key"]).status_code == 401
    assert it.call("GET", "/api/v1/whoami", turned["key"]).json()["role"] == "ServiceAccount"
    assert it.call("DELETE", f"/api/v1/keys/{turned['id']}").status_code == 204
    assert it.call("GET", "/api/v1/whoami", turned["key"]).status_code == 401

    trail = it.call("GET", "/api/v1/access?limit=3", "acme/Auditor").json()["records"]
    assert [one["event_type"] for one in trail] == ["access.key_revoked", "access.key_rotated", "access.key_created"]
    book = b"".join(record.line for record in it.deployment.system.read())
    assert all(text.encode() not in book for text in (made["key"], turned["key"]))
    assert json.loads([*it.deployment.system.read()][-1].line)["event_type"] == "key.revoked"


def test_what_an_operator_does_to_a_tenant_is_in_the_trail_of_that_tenant(it: Running) -> None:
    new = {"name": "made for them", "role": "Admin", "tenant": "acme"}
    made = it.call("POST", "/api/v1/keys", "operator", json=new).json()
    it.call("DELETE", f"/api/v1/keys/{made['id']}", "operator")
    trail = it.call("GET", "/api/v1/access?limit=2", "acme/Auditor").json()["records"]
    assert [one["event_type"] for one in trail] == ["access.key_revoked", "access.key_created"]
    assert {one["payload"]["key"] for one in trail} == {made["id"]}
    assert all(one["entity_id"].startswith("key:") and one["actor"]["name"] == "the first key" for one in trail)


def test_a_bound_key_makes_none_that_is_bound_less(it: Running) -> None:
    new = {"name": "b", "role": "Admin", "networks": ["127.0.0.0/8"], "expires_at": "2999-01-01T00:00:00Z"}
    bound = it.call("POST", "/api/v1/keys", json=new).json()["key"]
    made = it.call("POST", "/api/v1/keys", bound, json={"name": "free", "role": "Admin"}).json()
    assert (made["scope"]["networks"], made["expires_at"][:4]) == (["127.0.0.0/8"], "2999")
    for end in ("2999-01-01T13:00:00+12:30", "2998-12-31T13:00:00-12:00", "2999-01-01T00:00:00.000001Z"):
        later = it.call("POST", "/api/v1/keys", bound, json={"name": "z", "role": "Admin", "expires_at": end}).json()
        assert later["expires_at"] == made["expires_at"], "instants are compared, and not their texts"
    sooner = {"name": "s", "role": "Admin", "expires_at": "2999-01-01T11:00:00+12:00"}
    assert it.call("POST", "/api/v1/keys", bound, json=sooner).json()["expires_at"] == "2998-12-31T23:00:00.000000Z"
    wider = it.call("POST", "/api/v1/keys", bound, json={"name": "w", "role": "Admin", "networks": ["0.0.0.0/0"]})
    assert (wider.status_code, wider.json()["place"]) == (400, "networks")
    free = it.call("POST", "/api/v1/keys", json={"name": "f", "role": "Admin"}).json()["id"]
    longer = it.call("POST", "/api/v1/keys", json={**new, "expires_at": "2999-01-02T00:00:00Z"}).json()["id"]
    near = it.call("POST", "/api/v1/keys", json={**new, "expires_at": "2998-01-02T00:00:00Z"}).json()["id"]
    turned = {key: it.call("POST", f"/api/v1/keys/{key}/rotate", bound) for key in (free, longer, near)}
    assert [one.status_code for one in turned.values()] == [403, 403, 201], "whoever rotates a key gets its text"
    itself = it.call("POST", f"/api/v1/keys/{id_of(bound)}/rotate", bound)
    assert (itself.status_code, itself.json().get("expires_at", "")[:4]) == (201, "2999")
    scoped = {"name": "o", "role": "Admin", "operator": True, "event_types": ["a.*"]}
    assert it.call("POST", "/api/v1/keys", "operator", json=scoped).json()["place"] == "operator"


def test_a_key_that_the_trail_cannot_tell_of_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path / "data") as it:
        kept = {key["id"] for key in it.call("GET", "/api/v1/keys").json()["keys"]}
        mine = it.key("acme", "Admin")
        turned = it.call("GET", "/api/v1/keys").json()["keys"][-1]["id"]

        def fails(*_: object, **__: object) -> None:
            raise StoreError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(it.service, "record", fails)
            made = it.call("POST", "/api/v1/keys", json={"name": "n", "role": "Admin"})
            rotated = it.call("POST", f"/api/v1/keys/{turned}/rotate")
        assert (made.status_code, rotated.status_code) == (503, 503)
        assert {key["id"] for key in it.call("GET", "/api/v1/keys").json()["keys"]} == kept | {turned}
        assert it.call("GET", "/api/v1/ledger", mine).status_code == 200, "the old one is in force"


@pytest.mark.parametrize("name", ["x\u202e", "\u2066x\u2069", "a\u200bb", "a\u2028b", "\x7f", " ", "\ufeff"])
def test_a_key_has_a_name_that_is_what_it_looks_like(it: Running, name: str) -> None:
    answer = it.call("POST", "/api/v1/keys", json={"name": name, "role": "ReadOnly"})
    assert (answer.status_code, answer.json()["place"]) == (400, "name")
    assert it.call("POST", "/api/v1/keys", json={"name": "Zo\u00eb \u6771", "role": "ReadOnly"}).status_code == 201


@pytest.mark.parametrize(
    ("network", "kept"),
    [
        ("::ffff:127.0.0.1/128", "127.0.0.1/32"),
        ("::ffff:127.0.0.0/104", "127.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("2001:db8::/32", "2001:db8::/32"),
    ],
)
def test_a_network_of_ipv4_within_ipv6_is_one_of_ipv4(it: Running, network: str, kept: str) -> None:
    answer = it.call("POST", "/api/v1/keys", json={"name": "n", "role": "ReadOnly", "networks": [network]})
    assert answer.status_code == 201, answer.text
    assert answer.json()["scope"]["networks"] == [kept]
    admitted = it.call("GET", "/api/v1/events/query", answer.json()["key"]).status_code
    assert admitted == (200 if "." in kept else 401)
