"""Plans: what a tenant may use is refused beyond its bound, with the time to come again, and no restart forgets it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from tallystick.clock import wall_clock
from tallystick.deployment import Deployment
from tallystick.errors import NotFoundError, RejectedError
from tallystick.govern.plans import Plan, month_of
from tallystick.serve import quotas as quotas_at_work
from tallystick.serve.denials import BURST, Denials
from tallystick.serve.ingest import BATCH_PATH, EVENTS_PATH
from tallystick.serve.problems import OverQuotaError
from tallystick.serve.quotas import Quotas
from tests.serve.conftest import ACTOR, Running, running

EVENT: Final = {"event_type": "door.opened", "entity_id": "door-1"}
SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND


def give(it: Running, tenant: str, **plan: Any) -> None:
    name = f"plan-of-{tenant}"
    assert it.call("PUT", f"/api/v1/plans/{name}", "operator", json=plan).status_code == 200
    assert it.call("PUT", f"/api/v1/tenants/{tenant}/plan", "operator", json={"plan": name}).status_code == 200


def test_events_beyond_those_of_a_month_are_refused_until_the_next(tmp_path: Path) -> None:
    with running(tmp_path) as it:
        for _ in range(3):
            assert it.call("POST", EVENTS_PATH, json=EVENT).status_code == 201
        give(it, "acme", events_per_month=10)

        assert it.call("POST", BATCH_PATH, json=[EVENT] * 5).status_code == 201
        refused = it.call("POST", BATCH_PATH, json=[EVENT] * 3)
        assert it.call("POST", BATCH_PATH, json=[EVENT] * 2).status_code == 201
        last = it.call("POST", EVENTS_PATH, json=EVENT)
        queued = it.call("POST", f"{EVENTS_PATH}?ack=queued", json=EVENT)

        assert (refused.status_code, last.status_code, queued.status_code) == (429, 429, 429)
        said = refused.json()
        assert said["bound"] == "month"
        assert said["detail"].startswith("2 of 10 events are left this month")
        _, end = month_of(wall_clock())
        assert abs(int(refused.headers["Retry-After"]) - (end - wall_clock()) // SECOND) < 60
        assert it.call("POST", EVENTS_PATH, "other/Admin", json=EVENT).status_code == 201
        told = it.call("GET", "/api/v1/usage", "acme/ReadOnly").json()
        assert (told["events"]["used"], told["events"]["left"], told["plan"]["name"]) == (10, 0, "plan-of-acme")
        metrics = it.call("GET", "/metrics", "operator").text
        assert 'tallystick_tenant_events{tenant="acme"} 10.0' in metrics
        assert 'tallystick_over_quota_total{bound="month"} 3.0' in metrics
        keys = it.keys
    with running(tmp_path) as it:  # another process knows it, too
        it.keys = keys
        assert it.call("POST", EVENTS_PATH, json=EVENT).status_code == 429
        it.call("PUT", "/api/v1/tenants/acme/plan", "operator", json={"plan": None})
        assert it.call("POST", EVENTS_PATH, json=EVENT).status_code == 201


def test_what_came_to_nothing_is_not_counted(tmp_path: Path) -> None:
    with running(tmp_path) as it:
        give(it, "acme", events_per_month=4)
        assert it.call("POST", EVENTS_PATH, json={**EVENT, "id": "one"}).status_code == 201
        for _ in range(9):
            assert it.call("POST", EVENTS_PATH, json={**EVENT, "id": "one"}).status_code == 200
            assert it.call("POST", EVENTS_PATH, json={**EVENT, "payload": 7}).status_code == 400
            assert it.call("POST", BATCH_PATH, json=[{**EVENT, "id": "two"}, {"nonsense": 1}]).status_code == 207
        assert it.call("GET", "/api/v1/usage").json()["events"]["used"] == 2
        assert it.call("POST", BATCH_PATH, json=[EVENT, EVENT]).status_code == 201
        assert it.call("POST", EVENTS_PATH, json=EVENT).status_code == 429


def test_a_repeat_of_what_is_queued_is_not_counted_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas_at_work, "DOUBT_SECONDS", 0.0)
    with running(tmp_path) as it:
        give(it, "acme", events_per_month=10)
        headers = {"Idempotency-Key": "only-one"}
        for _ in range(14):
            answer = it.call("POST", f"{EVENTS_PATH}?ack=queued", json=EVENT, headers=headers)
            assert answer.status_code == 202, answer.text
            with it.deployment.ledger("acme") as ledger:
                ledger.queue.drain(seconds=20)
        assert it.call("GET", "/api/v1/usage").json()["events"]["used"] == 1


def test_a_batch_with_one_bad_event_passes_a_rate_once(tmp_path: Path) -> None:
    with running(tmp_path) as it:
        give(it, "acme", events_per_second=10)
        answer = it.call("POST", BATCH_PATH, json=[*[EVENT] * 100, {"nonsense": 1}])
        assert (answer.status_code, answer.json()["sealed"]) == (207, 100)


def test_a_plan_that_is_defined_anew_shortens_what_its_tenants_keep(it: Running) -> None:
    give(it, "other", retention="365d")
    assert it.call("GET", "/api/v1/retention", "other/Admin").json()["policy"]["period_days"] == 365
    assert it.call("PUT", "/api/v1/plans/plan-of-other", "operator", json={"retention": "30d"}).status_code == 200
    assert it.call("GET", "/api/v1/retention", "other/Admin").json()["policy"]["period_days"] == 30
    trail = it.call("GET", "/api/v1/access?event_type=access.plan_given", "other/Auditor").json()["records"]
    assert trail[0]["payload"]["plan"] == "plan-of-other", "what operators do to a tenant is in its own trail"


def test_a_repeat_of_what_is_sealed_needs_no_room(tmp_path: Path) -> None:
    with running(tmp_path) as it:
        give(it, "acme", events_per_month=3)
        events = [{**EVENT, "id": f"id-{number}"} for number in range(3)]
        assert it.call("POST", BATCH_PATH, json=events).status_code == 201
        for _ in range(2):
            assert it.call("POST", EVENTS_PATH, json=events[2]).status_code == 200
            assert it.call("POST", BATCH_PATH, json=events).json()["events"][0]["replayed"] is True
            assert it.call("POST", EVENTS_PATH, json={**EVENT, "id": "new"}).status_code == 429
            assert it.call("POST", BATCH_PATH, json=[*events, {**EVENT, "id": "new"}]).status_code == 429


def test_a_plan_shortens_how_long_records_are_kept_and_no_tenant_lengthens_it(it: Running) -> None:
    longer = {"period": "6y", "labels": {"phi": "forever", "short": "7d"}}
    assert it.call("PUT", "/api/v1/retention", json=longer).status_code == 200
    give(it, "acme", retention="90d")
    policy = it.call("GET", "/api/v1/retention").json()
    assert policy["policy"] == {"period_days": 90, "labels": {"short": 7}}
    assert policy["reason"] == "the plan plan-of-acme"
    for body, place in (({"period": "91d"}, "period"), ({"period": "1d", "labels": {"x": "forever"}}, "x")):
        answer = it.call("PUT", "/api/v1/retention", json=body)
        assert (answer.status_code, answer.json()["place"]) == (400, place)
    assert it.call("PUT", "/api/v1/retention", json={"period": "30d"}).status_code == 200
    give(it, "acme", retention="90d")
    assert it.call("GET", "/api/v1/retention").json()["policy"]["period_days"] == 30


@pytest.mark.parametrize(
    "wrong",
    [
        {"events_per_month": 0},
        {"events_per_month": -1},
        {"events_per_second": 10**9},
        {"retention": "soon"},
        {"made_up": 1},
    ],
)
def test_a_plan_that_cannot_be_is_refused(it: Running, wrong: dict[str, Any]) -> None:
    assert it.call("PUT", "/api/v1/plans/p", "operator", json=wrong).status_code == 400
    assert it.call("PUT", "/api/v1/plans/NO", "operator", json={}).status_code == 400
    assert it.call("PUT", "/api/v1/tenants/acme/plan", "operator", json={"plan": "nobody"}).status_code == 404


# ------------------------------------------------------------------------- with clocks of our own


class Clocks:
    """The time of day, and one that only goes on."""

    def __init__(self) -> None:
        self.wall = 1_767_225_590 * SECOND  # ten seconds before 2026 begins
        self.steady = 0.0


def deployed(folder: Path, clocks: Clocks, **plan: Any) -> tuple[Deployment, Quotas]:
    deployment = Deployment(folder, clock=lambda: clocks.wall)
    deployment.begin()
    deployment.define_plan(Plan(name="p", **plan), actor=ACTOR)
    deployment.give_plan("default", "p", actor=ACTOR)
    return deployment, Quotas(deployment, steady=lambda: clocks.steady)


def test_a_rate_lets_a_burst_through_and_then_so_many_a_second(tmp_path: Path) -> None:
    clocks = Clocks()
    deployment, quotas = deployed(tmp_path, clocks, events_per_second=5)

    async def ask() -> list[int]:
        taken = []
        for _ in range(30):
            clocks.steady += 1
            count = 0
            with suppress(OverQuotaError):
                while True:
                    await quotas.take("default", 1)
                    count += 1
            taken.append(count)
        with pytest.raises(OverQuotaError):
            await quotas.take("default", 1)
        clocks.steady += 100
        await quotas.take("default", 500)  # a batch is taken whole
        with pytest.raises(OverQuotaError) as caught:
            await quotas.take("default", 1)
        assert caught.value.retry_seconds == (500 - 50) // 5 + 1
        return taken

    with deployment:
        assert asyncio.run(ask()) == [50, *[5] * 29]


def test_a_month_begins_at_midnight_in_utc(tmp_path: Path) -> None:
    clocks = Clocks()
    deployment, quotas = deployed(tmp_path, clocks, events_per_month=2)

    async def ask() -> str:
        await quotas.take("default", 2)
        with pytest.raises(OverQuotaError) as caught:
            await quotas.take("default", 1)
        clocks.wall += 11 * SECOND
        await quotas.take("default", 2)
        return caught.value.reset_at

    with deployment:
        assert asyncio.run(ask()) == "2026-01-01T00:00:00.000000Z"


def test_what_others_wrote_is_counted_too_when_it_is_looked_up_again(tmp_path: Path) -> None:
    clocks = Clocks()
    deployment, quotas = deployed(tmp_path, clocks, events_per_month=10)

    async def ask() -> None:
        await quotas.take("default", 1)
        with deployment.ledger("default") as ledger:
            ledger.append_many([{**EVENT, "actor": "jane"} for _ in range(9)])
        clocks.steady += 301
        await quotas.take("default", 1)
        with pytest.raises(OverQuotaError):
            await quotas.take("default", 1)

    with deployment:
        asyncio.run(ask())


@pytest.mark.parametrize("moment", [0, 1_767_225_599 * SECOND, 1_767_225_600 * SECOND, 1_772_323_199 * SECOND])
def test_every_moment_is_in_its_month(moment: int) -> None:
    first, end = month_of(moment)
    assert first <= moment < end
    assert 28 * DAY <= end - first <= 31 * DAY
    assert month_of(end)[0] == end


def test_plans_come_back_from_the_log_alone(tmp_path: Path) -> None:
    with Deployment(tmp_path) as deployment:
        deployment.begin()
        plan = Plan(name="small", events_per_month=5, retention="90d")
        deployment.define_plan(plan, actor=ACTOR)
        deployment.give_plan("default", "small", actor=ACTOR)
        with pytest.raises(NotFoundError):
            deployment.give_plan("default", "nobody", actor=ACTOR)
    with Deployment(tmp_path) as deployment:
        assert deployment.plan_of("default") == plan
        size = deployment.system.size
        deployment.define_plan(plan, actor=ACTOR)
        deployment.give_plan("default", "small", actor=ACTOR)
        assert deployment.system.size == size, "the same again is nothing new"
    with pytest.raises(RejectedError):
        Plan(name="UPPER")


def test_denials_are_recorded_one_by_one_up_to_a_rate_and_then_counted() -> None:
    clocks = Clocks()
    denials = Denials(steady=lambda: clocks.steady)
    assert [denials.take("a") for _ in range(int(BURST))] == [0] * int(BURST)
    assert [denials.take("a") for _ in range(7)] == [None] * 7
    assert denials.take("b") == 0, "of another caller"
    clocks.steady += 1
    assert [denials.take("a") for _ in range(2)] == [7, None]
