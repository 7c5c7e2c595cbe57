"""The manifest of a bundle (SPEC 10.2, 11 (2)): its form, and whether what it says fits together."""

from bisect import bisect_right
from typing import Any, Final

from tallystick_verify.canonical import RefusedError, parse
from tallystick_verify.forms import (
    array,
    base64_of,
    from_base64,
    is_hash,
    is_key,
    is_name,
    is_string,
    is_time,
    maybe,
    members,
    record,
    text,
    whole,
)
from tallystick_verify.notes import Checkpoint, parse_checkpoint

_TIMESTAMP: Final = {"over": text(r"end\.checkpoint"), "type": text("rfc3161"), "token": base64_of(1, 65_536)}
_FORMS: Final = {
    "format": text("tallystick-bundle/1"),
    "ledger": members({"id": is_hash, "name origin": is_name}),
    "range": members({"first": whole(), "end": whole(1), "count": whole(1, 2**31), "prev_hash": is_hash}),
    "filter": maybe(array(array(text(".{0,4096}"), 256), 256, 1)),
    "absent": array(array(whole(), 2, 2), 1_000_000),
    "start": members({"checkpoint": maybe(is_string)}),
    "end": members({"checkpoint": is_string}),
    "genesis tool": is_string,
    "records": array(is_string, 100_000),
    "hashes": array(is_key, 1_000_000),
    "mac_keys": array(members({"epoch": whole(), "key": is_hash}), 100_000),
    "timestamps": array(members(_TIMESTAMP), 16),
    "events": members({"file": text(r"events\.jsonl"), "bytes": whole(0, 2**40), "sha256": is_hash}),
    "created": is_time,
}
_is_manifest: Final = members(_FORMS)


class Manifest:
    """What the manifest says, in the forms in which the steps ask for it. Raises RefusedError."""

    def __init__(self, data: bytes) -> None:
        said: dict[str, Any] = parse(data)
        if not _is_manifest(said):
            raise RefusedError("a member is unknown, missing or not of its form")
        self.said, self.name, self.origin = said, said["ledger"]["name"], said["ledger"]["origin"].encode()
        self.first, self.stop, self.count = (said["range"][name] for name in ("first", "end", "count"))
        self.complete, self.created = said["filter"] is None, said["created"]
        self.end = parse_checkpoint(said["end"]["checkpoint"].encode())
        start = said["start"]["checkpoint"]
        self.start: Checkpoint | None = None if start is None else parse_checkpoint(start.encode())
        self.hashes = [from_base64(root) for root in said["hashes"]]
        self._read_absent(said["absent"])
        lines = [line.encode() for line in said["records"]]
        self.records = {one["position"]: (line, one) for line in lines for one in [record(line)]}
        positions, epochs = list(self.records), [key["epoch"] for key in said["mac_keys"]]
        ascending = positions == sorted(positions) and len(positions) == len(lines) and epochs == sorted(set(epochs))
        within = bisect_right(positions, self.stop - 1) - bisect_right(positions, self.first - 1)
        strangers = [one["position"] for _, one in self.records.values() if one["ledger"] != self.name]
        if not ascending or strangers or (positions and not 0 < positions[0] <= positions[-1] < self.end.size):
            raise RefusedError(
                "`records` or `mac_keys` do not ascend, or are not of this ledger below the size of its tree"
            )
        if not self.first < self.stop <= self.end.size or self.count > self.stop - self.first:
            raise RefusedError("`range` is empty, has fewer positions than records, or ends past `end.checkpoint`")
        if (within and self.complete) or (self.start and self.start.size > self.end.size):
            raise RefusedError("a record stands in `records` that belongs to the range, or `start` is past `end`")

    def _read_absent(self, absent: list[list[int]]) -> None:
        self.absent, self._firsts, self._below = absent, [first for first, _ in absent], [0]
        for (first, end), (after, _) in zip(absent, [*absent[1:], [2**64, 0]], strict=False):
            self._below.append(self._below[-1] + end - first)
            if not first < end < after:
                raise RefusedError("the ranges of `absent` do not ascend, or touch")
        if absent and (not self.complete or self.absent_below(self.stop) == self.absent_below(self.first)):
            raise RefusedError(
                "`absent` is not empty, though no position of the range is absent, or the bundle is filtered"
            )

    def absent_below(self, position: int) -> int:
        """How many positions of `absent` lie below a position."""
        index = bisect_right(self._firsts, position)
        return min(self._below[index], self._below[index - 1] + position - self._firsts[index - 1]) if index else 0

    def present(self, position: int) -> int:
        """The first position from this one on that is not in `absent`."""
        index = bisect_right(self._firsts, position)
        return max(position, self.absent[index - 1][1]) if index else position
