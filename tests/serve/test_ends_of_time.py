"""Times at which the years end: whatever asks about them gets an answer, or is told where it is wrong."""

from __future__ import annotations

from itertools import product
from typing import Any, Final

import pytest

from tests.serve.conftest import Running

MOMENTS: Final = (
    *("0001-01-01", "0001-01-02", "0100-01-01", "9999-12-30", "9999-12-31"),
    *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-14:00"),
)
REPORTS: Final = ("access-review", "change-review", "evidence-pack", "incident-timeline")
PERIODS: Final = ("controls/evidence", *(f"reports/{name}" for name in REPORTS))
ASKED: Final = (
    *product(("events/query", "events/count", "timeseries/range"), ("after", "before", "occurred_after")),
    *product(("timeseries/query?width=year&fill=true&zone=Europe/Berlin", "access"), ("after", "before")),
    *product(
        ("timeseries/query?width=year&time=occurred", "timeseries/query?width=year"), ("occurred_after", "before")
    ),
    *product(("entities/e/state", "entities/e/history", "entities/e/state?clock=occurred"), ("as_of",)),
    ("entities/e/diff", "from"),
    ("entities/e/diff?from=v0", "to"),
    *product(("schemas", "schemas/a.b"), ("as_of",)),
)


@pytest.fixture(scope="module", autouse=True)
def there(it: Running) -> None:
    for at in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2026-01-01T00:00:00Z"):
        event = {"event_type": "a.b", "entity_id": "e", "occurred_at": at}
        assert it.call("POST", "/api/v1/events", json=event).status_code == 201


@pytest.mark.parametrize(("path", "name"), [*product(PERIODS[:1], ("from", "to")), *ASKED])
def test_a_moment_at_an_end_of_time_is_answered_or_refused_with_its_place(it: Running, path: str, name: str) -> None:
    for moment in MOMENTS:
        answer = it.call("GET", f"/api/v1/{path}", params=None if "?" in path else {name: moment})
        if "?" in path:
            answer = it.call("GET", f"/api/v1/{path}&{name}={moment.replace('+', '%2B')}")
        assert answer.status_code in (200, 400, 404), (moment, answer.text)
        if answer.status_code == 400:
            assert answer.json()["place"], (moment, answer.text)


@pytest.mark.parametrize("path", PERIODS)
def test_a_period_at_an_end_of_time_is_refused_with_its_place(it: Running, path: str) -> None:
    for period, place in (
        ({"to": "0001-01-01"}, "to"),
        ({"from": "0001-01-01", "to": "0001-01-02"}, None),
        ({"from": "9999-12-31", "to": "9999-12-31"}, "to"),
        ({"from": "2026-01-01", "to": "9999-12-31"}, "to"),
    ):
        answer = it.call("GET", f"/api/v1/{path}", params=period)
        assert answer.status_code == (200 if place is None else 400), answer.text
        assert place is None or answer.json()["place"] == place


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "exports", {"after": "0001-01-01", "before": "9999-12-31"}),
        ("POST", "exports", {"terms": ["after=9999-12-31"], "before": "0001-01-01"}),
        ("PUT", "retention", {"period": "36600d"}),
        ("POST", "keys", {"name": "k", "role": "ReadOnly", "expires_at": "9999-12-31"}),
        ("POST", "keys", {"name": "k", "role": "ReadOnly", "expires_at": "0001-01-01"}),
    ],
)
def test_what_is_ordered_about_an_end_of_time_is_no_mistake_of_ours(
    it: Running, method: str, path: str, body: dict[str, Any]
) -> None:
    assert it.call(method, f"/api/v1/{path}", json=body).status_code < 500
    assert it.call("GET", "/api/v1/retention/plan").status_code in (200, 400)
