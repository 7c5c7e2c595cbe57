"""The manifest of a bundle (SPEC 10.2, 11 (2)): its form, and whether what it says fits together."""

from bisect import bisect_right
from typing import Any, Final

from tallystick_verify import forms
from tallystick_verify.canonical import RefusedError, parse
from tallystick_verify.forms import array, from_base64, maybe, members, text, whole
from tallystick_verify.notes import parse_checkpoint

_TIMESTAMP: Final = {"over": text(r"end\.checkpoint"), "type": text("rfc3161"), "token": forms.base64_of(1, 65_536)}
_RANGE: Final = {"first": whole(), "end": whole(1), "count": whole(1, 2**31), "prev_hash": forms.is_hash}
_EVENTS: Final = {"file": text(r"events\.jsonl"), "bytes": whole(0, 2**40), "sha256": forms.is_hash}
_FORMS: Final[dict[str, forms.Form]] = {
    "format": text("tallystick-bundle/1"),
    "ledger": members({"id": forms.is_hash, "name origin": forms.is_name}),
    "range": members(_RANGE),
    "filter": maybe(array(array(text(".{0,4096}"), 256), 256, 1)),
    "absent": array(array(whole(), 2, 2), 1_000_000),
    "start": members({"checkpoint": maybe(forms.is_string)}),
    "end": members({"checkpoint": forms.is_string}),
    "genesis tool": forms.is_string,
    "records": array(forms.is_string, 100_000),
    "hashes": array(forms.is_key, 1_000_000),
    "mac_keys": array(members({"epoch": whole(), "key": forms.is_hash}), 100_000),
    "timestamps": array(members(_TIMESTAMP), 16),
    "events": members(_EVENTS),
    "created": forms.is_time,
}


class Manifest:
    """What the manifest says, in the forms in which the steps ask for it. Raises RefusedError."""

    def __init__(self, data: bytes) -> None:
        said: dict[str, Any] = parse(data)
        if wrong := forms.faults(said, _FORMS):
            raise RefusedError(f"these members are unknown, missing or of another form: {wrong}"[:500])
        self.said, self.name, self.origin = said, said["ledger"]["name"], said["ledger"]["origin"].encode()
        self.first, self.stop, self.count = (said["range"][name] for name in ("first", "end", "count"))
        self.complete, self.created, start = said["filter"] is None, said["created"], said["start"]["checkpoint"]
        self.end = parse_checkpoint(said["end"]["checkpoint"].encode())
        self.start = None if start is None else parse_checkpoint(start.encode())
        self.hashes = map(from_base64, said["hashes"])
        lines = [line.encode() for line in said["records"]]
        self.records = {one["position"]: (line, one) for line in lines for one in [forms.record(line)]}
        self._read_absent(said["absent"])
        positions, epochs = list(self.records), [key["epoch"] for key in said["mac_keys"]]
        ascending = positions == sorted(positions) and len(positions) == len(lines) and epochs == sorted(set(epochs))
        strangers = [one for _, one in self.records.values() if one["ledger"] != self.name]
        if not ascending or strangers or (positions and not 0 < positions[0] <= positions[-1] < self.end.size):
            raise RefusedError("`records` or `mac_keys` do not ascend, or are not of this ledger and tree")
        if not self.first < self.stop <= self.end.size or self.count > self.stop - self.first:
            raise RefusedError("`range` is empty, has fewer positions than records, or ends past `end.checkpoint`")
        within = self.complete and any(self.first <= position < self.stop for position in positions)
        if within or (self.start and self.start.size > self.end.size):
            raise RefusedError("a record stands in `records` that belongs to the range, or `start` is past `end`")

    def _read_absent(self, absent: list[list[int]]) -> None:
        self.absent, self._firsts, self._below = absent, [first for first, _ in absent], [0]
        for (first, end), (after, _) in zip(absent, [*absent[1:], [2**64, 0]], strict=False):
            self._below.append(self._below[-1] + end - first)
            if not first < end < after:
                raise RefusedError("the ranges of `absent` do not ascend, or touch")
        if absent and (not self.complete or self.absent_below(self.stop) == self.absent_below(self.first)):
            raise RefusedError("`absent` is not empty, but nothing of the range is absent, or all is filtered")

    def absent_below(self, position: int) -> int:
        """How many positions of `absent` lie below a position."""
        index = bisect_right(self._firsts, position)
        return min(self._below[index], self._below[index - 1] + position - self._firsts[index - 1]) if index else 0

    def present(self, position: int) -> int:
        """The first position from this one on that is not in `absent`."""
        index = bisect_right(self._firsts, position)
        return max(position, self.absent[index - 1][1]) if index else position
