"""How a log contradicts a checkpoint that it had, and the error that then stops all that is added to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tallystick.core.checkpoint import Checkpoint
from tallystick.core.merkle import range_root
from tallystick.core.tiles import TileNodes
from tallystick.errors import RejectedError, TamperError
from tallystick.store.contract import Head, Store
from tallystick.store.verified_reads import VerifiedReads, tree_under


@dataclass(frozen=True, slots=True)
class MarkProblem:
    """Why a ledger contradicts its mark."""

    kind: Literal["rollback", "fork", "forged", "unreadable"]
    text: str
    held: bytes | None = None
    """The checkpoint of the mark, where the mark is authentic."""


class HaltedError(TamperError):
    """Nothing is added to this ledger, as it contradicts its head mark, or what others know of it."""

    def __init__(self, problem: MarkProblem) -> None:
        self.problem = problem
        super().__init__(_advice(problem))


def compare(store: Store, held: bytes, head: Head | None) -> MarkProblem | None:
    """How the ledger, as of a head, contradicts a checkpoint that it had; None when it extends it.

    `held` was read before the head: then the ledger, which only grows, cannot be shorter.
    """
    mark = Checkpoint.of_note(held)
    size = 0 if head is None else head.size
    if size < mark.size:
        seen = f"the ledger had {mark.size} records, as its head mark says, and now has {size}"
        text = f"{seen}: an older copy was put back, or records were cut off"
        return MarkProblem("rollback", text, held)
    assert head is not None, "there are no marks of no records"
    if head.checkpoint == held:
        return None
    try:
        # Under the head's own root first: a tile that was altered says nothing of history, and is found as such.
        own = tree_under(store, Checkpoint.of_note(head.checkpoint), size=size)
        root = range_root(0, mark.size, node=TileNodes(size, VerifiedReads(store, own).tile))
    except (RejectedError, TamperError) as error:
        text = f"the ledger cannot be compared with its head mark: {error}"
        return MarkProblem("unreadable", text, held)
    if root == mark.root:
        return None
    text = f"the first {mark.size} records are not those of the head mark: history was rewritten, or split"
    return MarkProblem("fork", text, held)


def _advice(problem: MarkProblem) -> str:
    if problem.kind == "forged":
        return problem.text
    if problem.kind == "unreadable":
        return f"{problem.text}. Run a verification"
    return (
        f"{problem.text}. Nothing is added to it. Keep the files as they are and find the newest copy; if what is "
        "missing is lost for good, accept that: tallystick accept-loss REASON"
    )
