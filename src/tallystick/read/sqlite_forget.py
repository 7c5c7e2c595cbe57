"""What the index forgets when records are pruned: their rows, their words, and names that nothing else has.

What was deleted is overwritten in the file, and its room given back. Until it is done, what the index still
proposes is not in the log, so nothing pruned is ever answered.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any, Final

import orjson

from tallystick.read.sqlite_reached import AlteredError
from tallystick.sqlite_file import named_statements, run_script

_RANGES_AT_ONCE: Final = 10_000

STEPS: Final = ("labels", "postings", "events", "entities", "actors", "unused labels", "merge")


def forget(writer: Any, absent: Iterable[tuple[int, int]], *, prune_at: int) -> int:
    """Within a transaction: remove the rows at positions that have no records; how many those were.

    `prune_at` is the position of the newest prune of which that is the outcome. Raises `AlteredError` where words of
    them are left.
    """
    sql = _statements()
    run_script(writer, sql["tables"])
    run_script(writer, sql["clear"])
    ranges = iter(absent)
    while part := [*islice(ranges, _RANGES_AT_ONCE)]:
        writer.execute(sql["ranges"], (orjson.dumps(part).decode(),))
    writer.execute(sql["find"])
    [[count]] = writer.execute("SELECT count(*) FROM temp.gone").fetchall()
    if count:
        for step in STEPS:
            writer.execute(sql[step])
    if writer.execute(sql["left"]).fetchall() != [(0,)]:
        raise AlteredError("it has words of records that were pruned, and cannot forget them")
    # Also when no row was left: a state of what is gone must not live on in a snapshot.
    writer.execute(sql["snapshots"])
    writer.execute(sql["mark"], (prune_at,))
    run_script(writer, sql["clear"])
    return int(count)


@cache
def _statements() -> dict[str, str]:
    return named_statements(files("tallystick.read").joinpath("index_forget.sql").read_text("utf-8"))
