"""The manifest of a bundle (SPEC 10.2, 11 (2)): its form, and whether what it says fits together."""

import struct
from bisect import bisect_right
from hashlib import sha256
from itertools import accumulate
from typing import Any, Final

from tallystick_verify import forms
from tallystick_verify.canonical import need, parse
from tallystick_verify.forms import Members, array, base64_of, is_hash, is_name, is_root, is_string, maybe, text, whole
from tallystick_verify.notes import parse_checkpoint
from tallystick_verify.select import Selectors, is_selectors

is_token: Final = base64_of(1, 65_536)
is_timestamp: Final = Members({text(r"end\.checkpoint"): "over", text("rfc3161"): "type", is_token: "token"})
is_manifest: Final = Members(
    {is_string: "genesis", text(".{0,200}"): "tool"},
    format=text("tallystick-bundle/1"),
    ledger=Members({is_hash: "id", is_name: "name origin"}),
    range=Members({whole(): "first", whole(1): "end", whole(1, 2**31): "count", is_hash: "prev_hash"}),
    complete=lambda value: type(value) is bool,
    selectors=is_selectors,
    absent=array(array(whole(), 2, 2), 1_000_000),
    start=Members({maybe(is_string): "checkpoint"}),
    end=Members({is_string: "checkpoint"}),
    records=array(is_string, 100_000),
    hashes=array(is_root, 1_000_000),
    mac_keys=array(Members({whole(): "epoch", is_hash: "key"}), 100_000),
    timestamps=array(is_timestamp, 16),
    events=Members({text(r"events\.jsonl"): "file", whole(0, 2**40): "bytes", is_hash: "sha256"}),
    created=forms.is_time,
)


class Manifest:
    """What the manifest says, in the forms in which the steps ask for it. Raises RefusedError."""

    def __init__(self, data: bytes) -> None:
        said: dict[str, Any] = parse(data)
        is_manifest.require(said)
        self.said, self.name, self.origin = said, said["ledger"]["name"], said["ledger"]["origin"].encode()
        self.first, self.stop, self.count = (said["range"][name] for name in ("first", "end", "count"))
        self.complete, self.created, start = said["complete"], said["created"], said["start"]["checkpoint"]
        self.start = None if start is None else parse_checkpoint(start.encode())
        self.end = parse_checkpoint(said["end"]["checkpoint"].encode())
        self.hashes = [forms.from_base64(root) for root in said["hashes"]]
        need(self.stop <= self.end.size, "`range` ends past `end.checkpoint`")
        need(self.count <= self.stop - self.first, "`range.count` is more than there are positions in the range")
        need(self.start is None or self.start.size <= self.end.size, "`start.checkpoint` is past `end.checkpoint`")
        epochs = [key["epoch"] for key in said["mac_keys"]]
        need(epochs == sorted(set(epochs)), "`mac_keys` do not ascend")
        records = [(line, forms.record(line)) for line in map(str.encode, said["records"])]
        self.records = {record["position"]: (line, record) for line, record in records}
        places = [record["position"] for _, record in records]
        in_range = self.complete and any(self.first <= place < self.stop for place in places)
        need(places == sorted(set(places)), "`records` do not ascend")
        need(all(record["ledger"] == self.name for _, record in records), "one of `records` is of another ledger")
        need(all(0 < place < self.end.size for place in places), "one of `records` is the genesis, or past the tree")
        need(not in_range, "one of `records` belongs among the events")
        need(self.complete or bool(said["selectors"]), "a filtered bundle without a selector")
        self.selectors = Selectors(said["selectors"])
        self._read_absent(said["absent"])

    def _read_absent(self, absent: list[list[int]]) -> None:
        edges, ranges = [edge for pair in absent for edge in pair], [struct.pack(">QQ", *pair) for pair in absent]
        need(edges == sorted(set(edges)), "the ranges of `absent` do not ascend, or touch")
        need(all(0 < edge <= self.end.size for edge in edges), "`absent` has the genesis, or positions past the tree")
        self.absent, self._firsts = absent, edges[::2]
        self._below = [0, *accumulate(end - first for first, end in absent)]
        self._absence = {"count": self._below[-1], "digest": sha256(b"".join(ranges)).hexdigest()}
        in_range = self.complete and self.absent_below(self.stop) > self.absent_below(self.first)
        need(not absent or in_range, "`absent` has nothing of the range, or is of a filtered bundle")

    def is_said_by(self, prune: forms.Record) -> bool:
        """Whether a prune is of the form of SPEC 9.4, and says exactly what `absent` does (11 (16))."""
        said, position = prune["payload"], prune["position"]
        is_one = forms.is_prune(said) and forms.is_time(prune["occurred_at"]) and prune["entity_id"] == forms.LEDGER
        if not is_one or said["absent"] != self._absence:
            return False
        first, end, count = said["first"], said["end"], said["count"]
        is_sound = count <= min(end - first, self._below[-1]) and len(said["frontier_at_end"]) == end.bit_count()
        is_before = self.absent[-1][1] <= end <= position and said["policy_position"] < position
        return bool(is_sound and is_before)

    def unseen_below(self, position: int) -> int:
        """How many positions below this one may have records that the bundle does not show."""
        return self.absent_below(position) if self.complete else position

    def absent_below(self, position: int) -> int:
        """How many positions of `absent` lie below a position."""
        index = bisect_right(self._firsts, position)
        return min(self._below[index], self._below[index - 1] + position - self._firsts[index - 1]) if index else 0

    def present(self, position: int) -> int:
        """The first position from this one on that is not in `absent`."""
        index = bisect_right(self._firsts, position)
        return max(position, self.absent[index - 1][1]) if index else position
