"""What Prometheus gets: of the whole service with an operators' key for that alone, of its own ledger for a tenant."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tallystick.serve.ingest import EVENTS_PATH
from tallystick.serve.streaming import STREAM_PATH
from tests.serve.conftest import Running

EVENT = {"event_type": "door.opened", "entity_id": "door-1"}


def scraped(it: Running, who: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    answer = it.call("GET", "/metrics", who)
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def made(it: Running, **asked: Any) -> str:
    answer = it.call("POST", "/api/v1/keys", "operator", json={"name": "prometheus", "role": "Metrics", **asked})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


def test_a_key_of_the_role_metrics_reads_what_is_counted_and_nothing_else(it: Running) -> None:
    key = made(it, operator=True)

    assert ("tallystick_events_appended_total",) in scraped(it, key)
    for method, path in (
        ("GET", "/api/v1/events/query"),
        ("GET", "/api/v1/stats"),
        ("GET", "/api/v1/tenants"),
        ("GET", "/api/v1/timeseries/query"),
        ("GET", "/api/v1/keys"),
        ("POST", EVENTS_PATH),
        ("GET", STREAM_PATH),
    ):
        assert it.call(method, path, key).status_code == 403, path


def test_it_is_not_the_key_that_the_operators_have_left(it: Running) -> None:
    made(it, operator=True)
    [admin] = [
        one
        for one in it.call("GET", "/api/v1/keys", "operator").json()["keys"]
        if one["operator"] and one["role"] == "Admin"
    ]
    answer = it.call("DELETE", f"/api/v1/keys/{admin['id']}", "operator")
    assert (answer.status_code, answer.json()["title"]) == (409, "Someone else was first")
    refused = {"name": "x", "role": "Auditor", "operator": True}
    assert it.call("POST", "/api/v1/keys", "operator", json=refused).json()["place"] == "operator"


def test_a_tenant_reads_its_own_figures_only(it: Running) -> None:
    for _ in range(3):
        it.call("POST", EVENTS_PATH, "other/Admin", json=EVENT)
    mine, theirs = scraped(it, "acme/ReadOnly"), scraped(it, made(it, tenant="other"))

    assert {*mine} == {*theirs}
    assert {name for name, *labels in mine if labels} == set(), "no tenant is named"
    assert ("tallystick_events_appended_total",) not in mine
    assert theirs["tallystick_records",] == it.call("GET", "/api/v1/usage", "other/Admin").json()["records"]
    assert theirs["tallystick_events_used",] >= 3
    assert it.call("GET", "/metrics", "acme/ServiceAccount").status_code == 403
    assert it.call("GET", "/metrics", it.key("acme", "ReadOnly", event_types=["a.*"])).status_code == 403


def test_requests_are_counted_and_timed_by_route(it: Running) -> None:
    before = scraped(it, "operator")
    for number in range(3):
        it.call("POST", EVENTS_PATH, json=EVENT)
        it.call("GET", f"/api/v1/events/{number}")
        it.call("GET", f"/no/such/{number}")
        it.call("POST", EVENTS_PATH, "acme/ReadOnly", json=EVENT)
    it.call("HEAD", "/api/v1/checkpoint")
    it.call("BREW", "/api/v1/checkpoint")
    after = scraped(it, "operator")

    def more(*sample: str) -> float:
        return after.get(sample, 0) - before.get(sample, 0)

    requests, seconds = "tallystick_http_requests_total", "tallystick_http_request_duration_seconds_count"
    assert more(requests, "POST", EVENTS_PATH, "201") == 3
    assert more(requests, "POST", EVENTS_PATH, "403") == 3
    assert more(requests, "GET", "/api/v1/events/{key:path}", "200") == 3
    assert more(requests, "GET", "unknown", "404") == 3
    assert more(seconds, "GET", "unknown") == 3
    assert more(seconds, "POST", EVENTS_PATH) == 6
    assert {labels[0] for name, *labels in after if name == requests} <= {"GET", "POST", "DELETE", "HEAD", "unknown"}
    assert after["process_resident_memory_bytes",] > 1_000_000
    assert after["tallystick_loop_delay_seconds_count",] > 0
    assert after["tallystick_bodies_bytes",] == 0
