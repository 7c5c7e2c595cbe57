"""Plans: how much of the service a tenant may use, and for how long its records are kept.

A plan is an event of the system ledger, and so is that a tenant has it; `govern.directory` reads both back. What was
used is nowhere kept: it is counted from the tenant's own ledger, which no restart can make forget anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from tallystick.core import timestamp
from tallystick.core.custody import RetentionPolicy, parse_period
from tallystick.errors import RejectedError
from tallystick.limits import PLAN_EVENTS_MAX, PLAN_NAME_CHARACTERS_MAX, PLAN_RATE_MAX

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What tenants of it may use. Raises `RejectedError` when built with what cannot be."""

    name: str
    events_per_month: int | None = None
    """Events that may be sealed in a calendar month (UTC); None is without a bound."""
    events_per_second: int | None = None
    """How fast they may come, on the average; ten seconds' worth may come at once."""
    retention: str | None = None
    """The longest period for which records may be kept, as `90d`, and what is set with the plan; None is any."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > PLAN_NAME_CHARACTERS_MAX:
            cure = f"use 1 to {PLAN_NAME_CHARACTERS_MAX} of a-z, 0-9 and -"
            raise RejectedError(f"{self.name[:60]!r} is not a plan's name", place="name", cure=cure)
        _check(self.events_per_month, "events_per_month", PLAN_EVENTS_MAX)
        _check(self.events_per_second, "events_per_second", PLAN_RATE_MAX)
        if self.retention is not None:
            parse_period(self.retention, place="retention")

    @property
    def retention_days(self) -> int | None:
        """The longest period in days; None is for ever."""
        return None if self.retention is None else parse_period(self.retention)

    def check_period(self, days: int | None, *, place: str) -> None:
        """Raises `RejectedError` for a period longer than the plan has."""
        most = self.retention_days
        if most is not None and (days is None or days > most):
            cure = f"give at most {self.retention}, or have the operators give this tenant another plan"
            raise RejectedError(f"the plan {self.name} keeps records for {self.retention}", place=place, cure=cure)

    def shortened(self, policy: RetentionPolicy | None) -> RetentionPolicy:
        """A policy that keeps nothing longer than the plan says; labels that ask for more go."""
        most = self.retention_days
        days = None if policy is None else policy.period_days
        labels = {} if policy is None else {name: kept for name, kept in policy.labels.items() if _within(kept, most)}
        return RetentionPolicy(days if _within(days, most) else most, labels)

    def to_json(self) -> dict[str, Any]:
        """As an event has it, and as it is told of."""
        return {
            "name": self.name,
            "events_per_month": self.events_per_month,
            "events_per_second": self.events_per_second,
            "retention": self.retention,
        }


def month_of(moment: int) -> tuple[int, int]:
    """The calendar month (UTC) of a moment, half-open, in microseconds."""
    now = datetime.fromtimestamp(moment // timestamp.SECOND, UTC)
    first = datetime(now.year, now.month, 1, tzinfo=UTC)
    end = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    return int(first.timestamp()) * timestamp.SECOND, int(end.timestamp()) * timestamp.SECOND


def _within(days: int | None, most: int | None) -> bool:
    """Whether a period is no longer than another; None is for ever."""
    return most is None or (days is not None and days <= most)


def _check(value: int | None, place: str, most: int) -> None:
    if value is not None and (type(value) is not int or not 1 <= value <= most):
        raise RejectedError(
            f"{value!r} is out of bounds", place=place, cure=f"give 1 to {most:,}, or null for no bound"
        )


FREE: Final = Plan(name="unlimited")
"""What a tenant has that was given no plan."""
