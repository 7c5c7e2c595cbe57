"""Quotas: whether a tenant may bring so many events now, by its plan.

What was used this month is counted from the tenant's own ledger when it first comes, and from then on along with what
it brings; so no restart forgets anything, and nothing is written for it. It is counted anew now and then, since others
may write to the ledger, too.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tallystick.core import timestamp
from tallystick.core.event import RESERVED_PREFIX
from tallystick.deployment import Deployment
from tallystick.govern.plans import Plan, month_of
from tallystick.ledger import Ledger
from tallystick.limits import QUOTA_TENANTS_MAX
from tallystick.serve.problems import OverQuotaError

BURST_SECONDS: Final = 10
"""How many seconds' worth of a rate may come at once."""

RECOUNT_SECONDS: Final = 300.0
DOUBT_SECONDS: Final = 10.0
"""How old a count may be by which somebody is turned away."""


@dataclass(slots=True)
class _Use:
    """What one tenant has used of the month [first, end): what was counted, and what was taken since."""

    first: int
    end: int
    counted: int
    taken: int
    counted_at: float
    left: float
    """Events that may come at once; below zero when a batch took more than there was."""
    left_at: float

    @property
    def used(self) -> int:
        return self.counted + self.taken


class Quotas:
    """The use of all tenants of one process. To be asked from the event loop only."""

    def __init__(self, deployment: Deployment, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._deployment: Final = deployment
        self._steady: Final = steady
        self._uses: Final[OrderedDict[str, _Use]] = OrderedDict()

    async def take(self, tenant: str, count: int) -> None:
        """Have so many events count as used. Raises `OverQuotaError` with the time to come again."""
        plan = self._deployment.plan_of(tenant)
        if plan.events_per_month is None and plan.events_per_second is None:
            return
        use = await self._use(tenant, plan)
        most = plan.events_per_month
        if most is not None and use.used + count > most and self._steady() - use.counted_at > DOUBT_SECONDS:
            await self._recount(tenant, use)  # perhaps it took what had been there before
        if most is not None and use.used + count > most:
            left = max(0, most - use.used)
            raise self._over(f"{left:,} of {most:,} events are left this month", "month", use.end)
        if plan.events_per_second is not None:
            wait = self._wait(use, plan.events_per_second)
            if wait > 0:
                now = self._deployment.clock()
                at = now + int(wait * timestamp.SECOND) + 1
                raise self._over(f"more than {plan.events_per_second:,} events came in a second", "second", at)
            use.left -= count
        use.taken += count

    def owe(self, tenant: str, count: int) -> None:
        """So many count although there is no room for them: they will be given back, as they were there before."""
        self.give_back(tenant, -count)

    def give_back(self, tenant: str, count: int) -> None:
        """So many of them came to nothing: they were refused, or had been there before."""
        use = self._uses.get(tenant)
        if use is not None:
            use.taken -= count
            use.left += count

    @property
    def used(self) -> dict[str, int]:
        """Events of this month, of the tenants that are in memory."""
        return {tenant: use.used for tenant, use in self._uses.items()}

    async def _use(self, tenant: str, plan: Plan) -> _Use:
        use, now = self._uses.get(tenant), self._deployment.clock()
        if use is None or not use.first <= now < use.end:
            first, end = month_of(now)
            counted = await asyncio.to_thread(self._count, tenant, first)
            steady = self._steady()
            left = float((plan.events_per_second or 0) * BURST_SECONDS)
            known = self._uses.get(tenant)  # somebody else may have been here meanwhile
            if known is None or known.first != first:
                use = self._uses[tenant] = _Use(first, end, counted, 0, steady, left, steady)
            else:
                use = known
        elif self._steady() - use.counted_at > RECOUNT_SECONDS:
            await self._recount(tenant, use)
        self._uses.move_to_end(tenant)
        while len(self._uses) > QUOTA_TENANTS_MAX:
            self._uses.popitem(last=False)
        return use

    async def _recount(self, tenant: str, use: _Use) -> None:
        """Count anew. What is taken meanwhile counts as well; what is being sealed just then may count twice or not."""
        use.counted_at, before = self._steady(), use.taken
        counted = await asyncio.to_thread(self._count, tenant, use.first)
        use.counted, use.taken = counted, use.taken - before

    def _wait(self, use: _Use, rate: int) -> float:
        """Seconds until more may come."""
        now = self._steady()
        use.left = min(float(rate * BURST_SECONDS), use.left + (now - use.left_at) * rate)
        use.left_at = now
        return 0.0 if use.left > 0 else (1 - use.left) / rate

    def _over(self, problem: str, bound: str, reset: int) -> OverQuotaError:
        seconds = max(1, -((self._deployment.clock() - reset) // timestamp.SECOND))
        return OverQuotaError(problem, bound=bound, reset_at=timestamp.render(reset), retry_seconds=seconds)

    def _count(self, tenant: str, first: int) -> int:
        with self._deployment.ledger(tenant) as ledger:
            return events_since(ledger, first)


def events_since(ledger: Ledger, first: int) -> int:
    """Events of others than the ledger itself that it took since a moment, pruned ones and those in its queue, too."""
    series = ledger.series(width="month", group="type", after=timestamp.render(first))
    sealed = sum(point.count for point in series.buckets if not (point.group or "").startswith(RESERVED_PREFIX))
    queue = ledger.pulse().queue
    return sealed + (0 if queue is None else queue.depth)


def usage(deployment: Deployment, tenant: str) -> dict[str, Any]:
    """What a tenant has used this month, and what its plan says."""
    plan, (first, end) = deployment.plan_of(tenant), month_of(deployment.clock())
    with deployment.ledger(tenant) as ledger:
        used, stats = events_since(ledger, first), ledger.stats()
    limit = plan.events_per_month
    return {
        "plan": plan.to_json(),
        "events": {
            "used": used,
            "limit": limit,
            "left": None if limit is None else max(0, limit - used),
            "since": timestamp.render(first),
            "reset_at": timestamp.render(end),
        },
        "records": stats["records"],
        "log_bytes": stats["log_bytes"],
    }
