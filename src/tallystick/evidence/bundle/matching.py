"""What fits selectors, read from the log itself: every record of a range, under the root that the ledger signed.

An index is a convenience that anybody with its file can edit; what is handed over as evidence does not rest on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from tallystick.core.checkpoint import Checkpoint
from tallystick.core.corrected import Times
from tallystick.core.matcher import Matcher
from tallystick.core.selector import Selector
from tallystick.errors import TamperError
from tallystick.store.contract import Store, StoredRecord
from tallystick.store.verified_reads import VerifiedReads, tree_under
from tallystick.store.when import first_at


def matching(
    store: Store, selectors: Sequence[Selector], checkpoint: Checkpoint, *, first: int, end: int
) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """The members of each record at [first, end), and the indexes of the selectors that it fits.

    Each is proven before it is given. Raises `TamperError` at a record that is missing, or is not the one in the tree.
    """
    matcher = Matcher(selectors)
    for stored in VerifiedReads(store, tree_under(store, checkpoint, size=checkpoint.size)).read(first, end):
        members = members_of(stored)
        yield members, matcher.match(members)


def members_of(stored: StoredRecord) -> dict[str, Any]:
    """The members of a record, which is proven or about to be."""
    try:
        members: dict[str, Any] = orjson.loads(stored.line)
        if members["position"] != stored.position:
            raise TamperError(f"the record at position {stored.position} says that it is elsewhere: run a verification")
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise TamperError(f"the record at position {stored.position} is damaged: run a verification") from error
    return members


def span(store: Store, *, after: int, before: int, size: int, times: Times) -> tuple[int, int]:
    """A range of the first `size` positions that has every record whose time is from `after` to `before`.

    It begins with a record from before that time where there is one, and ends with one from after it: so whoever has
    the range sees that nothing of the time is left out.
    """
    first, end = (first_at(store, moment, size=size, times=times) for moment in (after, before))
    for stored in _backwards(store, first):
        first = stored.position
        break
    return (first, size) if end == size else (first, end + 1)


def _backwards(store: Store, end: int) -> Iterator[StoredRecord]:
    """The records below a position, the last one first. Pruned stretches are passed over in ever larger steps."""
    step = 1
    while end > 0:
        first = max(0, end - step)
        yield from reversed([*store.read(first, end)])
        end, step = first, min(2 * step, 4_096)
