"""What a verifier tells: findings, each of a numbered step of SPEC 11, and which of the steps it has taken."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeAlias

from tallystick_verify.canonical import RefusedError

FINDINGS_MAX: Final = 1000
Place: TypeAlias = tuple[int | None, int | None]  # a line of `events.jsonl`, a position in the ledger
NOWHERE: Final[Place] = (None, None)


class Finding(NamedTuple):
    """What is wrong: of a step, and of a line of `events.jsonl` and its record's position where it is theirs."""

    step: int
    kind: str
    seen: str
    line: int | None = None
    position: int | None = None


class Findings:
    """The first findings, how many there are in all, and the steps taken, with what is worth telling of them."""

    def __init__(self) -> None:
        self.findings, self.total, self.failed = list[Finding](), 0, set[int]()
        self.told, self.at = dict[int, str](), NOWHERE

    def check(self, step: int, kind: str, holds: bool, seen: str) -> None:
        """One of the things that a step asks."""
        self.told.setdefault(step, "")
        if not holds:
            self.found(step, kind, seen)

    def found(self, step: int, kind: str, seen: str, at: Place | None = None) -> None:
        self.total += 1
        self.failed.add(step)
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(step, kind, seen, *(self.at if at is None else at)))

    def outcome(self, step: int) -> tuple[str, str]:
        """How a step ended, and a fact where it tells something."""
        taken = "FINDING" if step in self.failed else "ok" if step in self.told else "not taken"
        return taken, self.told.get(step, "")

    @contextmanager
    def step(self, number: int, kind: str) -> Iterator[None]:
        """A step is taken; what is refused in it is its finding."""
        self.told.setdefault(number, "")
        try:
            yield
        except RefusedError as error:
            self.found(number, kind, str(error))


def counted(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
