"""Recorded times of a bundle's lines (SPEC 5.9, 11 (8)): they go back only where the clock was corrected."""

from bisect import bisect_right
from collections.abc import Mapping

from tallystick_verify import forms
from tallystick_verify.forms import Record


class Times:
    """The lines of one bundle as they come; `beside` are those of `records`, by position."""

    def __init__(self, beside: Mapping[int, tuple[bytes, Record]]) -> None:
        corrected = {at: record["payload"] for at, (_, record) in beside.items() if forms.is_correction(record)}
        self.corrected, self.between = corrected, sorted(corrected)
        self.last: tuple[tuple[int | None, int | None], str] | None = None  # where the last record is, and its time

    def judge(self, record: Record, before: Record | None, *, is_placed: bool) -> str:
        """What is wrong with the time of a line after another, if that one is known; nothing if it is right."""
        position, time = record["position"], record["recorded_at"]
        if is_placed and forms.is_correction(record):
            self.corrected[position] = record["payload"]
            said = record["payload"]["last_recorded_at"]
            is_told = before is None or before["position"] + 1 < position or before["recorded_at"] == said
            return "" if is_told else f"it says that the record before is of {said}"
        if before is None:
            return ""
        last = self.between[bisect_right(self.between, position) - 1] if self.between else -1
        is_between = before["position"] < last <= position
        least = self.corrected[last]["corrected_at"] if is_between else before["recorded_at"]
        return "" if time >= least else f"{time} is before the record before, {least}"

    def is_late(self, created: str) -> bool:
        """Whether the last line is after the bundle, and no correction beside the lines stands after it."""
        is_past = self.last is not None and self.last[1] > created
        return is_past and not (self.between and self.last and self.between[-1] > (self.last[0][1] or 0))

    def told(self) -> str:
        """Of every correction."""
        said = sorted(self.corrected.items())
        return "".join(
            f", clock corrected at {at:,} from {one['last_recorded_at']} to {one['corrected_at']}" for at, one in said
        )
