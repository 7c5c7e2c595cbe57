"""What a verifier tells: the numbered steps of SPEC 11, whether each was taken, and what it found."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from tallystick_verify.canonical import RefusedError

FINDINGS_MAX: Final = 1000
NOWHERE: Final = (None, None)
STEPS: Final = (
    *("three files, and nothing else", "a manifest of exactly the form", "a signed genesis, of this ledger"),  # 1 to 3
    *("the bytes that the manifest hashes", "each line a record, in its one spelling"),
    *("in their places, none missing", "each names the hash of the one before", "times never go back"),  # 6 to 8
    *("sealed by the keys of their epochs", "the versions of each entity in order"),
    *("epochs whole, keys committed to before", "changes of keys signed by both keys"),  # 11, 12
    *("a checkpoint by a key that you trust", "the records lead to the signed root"),
    *("the manifest sealed by the ledger", "what is absent is told by a prune"),  # 15, 16
    *("goes on from the checkpoint it names", "goes on from the checkpoint you know"),
    *("as many witnesses as you ask for", "as many records fit as it says"),  # 19, 20
    "timestamps listed, not verified",  # 21
)


class Finding(NamedTuple):
    """What is wrong: of a step, and of a line of `events.jsonl` and its record's position where it is theirs."""

    step: int
    kind: str
    seen: str
    line: int | None = None
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """What a selector takes: its name and terms as the manifest has them, how many records, and where they are."""

    name: str
    count: int
    positions: Sequence[int]
    within: list[str]
    any_of: list[list[str]]


class Report:
    """The first findings and how many there are, and the steps taken, with what is worth telling of them."""

    def __init__(self) -> None:
        self.findings, self.total, self.dropped, self.holds = list[Finding](), 0, 0, True
        self.complete, self.faults = False, 0  # findings of 5 to 10, by which a line is judged
        self.failed, self.proves = set[int](), ""
        self.matches = list[Match]()
        self.told, self.at = dict[int, str](), tuple[int | None, int | None](NOWHERE)

    @property
    def steps(self) -> list[tuple[int, str, str, str]]:
        """Number, what it asks, `ok`, `FINDING` or `not taken`, and a fact where it tells something."""
        outcomes = dict.fromkeys(self.told, "ok") | dict.fromkeys(self.failed, "FINDING")
        return [(n, asks, outcomes.get(n, "not taken"), self.told.get(n, "")) for n, asks in enumerate(STEPS, 1)]

    def check(self, step: int, kind: str, holds: bool, seen: str) -> None:
        """One of the things that a step asks."""
        self.told.setdefault(step, "")
        if not holds:
            self.found(step, kind, seen)

    def found(self, step: int, kind: str, seen: str) -> None:
        if step == 1:  # then no other finding was about a bundle
            self.findings, self.total, self.failed, self.told, self.at = [], 0, set(), {}, NOWHERE
        self.total, self.holds, self.faults = self.total + 1, False, self.faults + (5 <= step <= 10)
        self.failed.add(step)
        if self.total <= FINDINGS_MAX:
            self.findings.append(Finding(step, kind, seen, *self.at))
        self.dropped = self.total - len(self.findings)

    @contextmanager
    def step(self, number: int, kind: str) -> Iterator[None]:
        """A step is taken; what is refused in it is its finding."""
        self.told.setdefault(number, "")
        try:
            yield
        except RefusedError as error:
            self.found(number, kind, str(error))

    def as_json(self) -> dict[str, Any]:
        steps = [dict(zip(("step", "asks", "outcome", "fact"), step, strict=True)) for step in self.steps]
        findings = [finding._asdict() for finding in self.findings]
        selectors = [
            {name: getattr(match, name) for name in Match.__slots__} | {"positions": [*match.positions]}
            for match in self.matches
        ]
        told = {"dropped": self.dropped, "findings": findings, "holds": self.holds}
        return {**told, "selectors": selectors, "steps": steps}


def counted(number: int, one: str, many: str = "") -> str:
    """A number and its noun, in the singular or the plural."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def verdict(findings: int, proves: str) -> str:
    fails = f"FAIL: {counted(findings, 'finding')}. Nothing that they touch can be relied upon."
    return fails if findings else f"PASS: {proves}"
