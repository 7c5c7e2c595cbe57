"""Measure the read side over a large ledger, beside a plain SQLite table. `make bench-read`.

The peer is what one would write without Tallystick: one table with text columns and the same secondary indexes,
on the same records, asked the same questions in the same run. It seals nothing and finds no words.

    python -m benchmarks.read --records 10000000 --folder /var/tmp/tallystick-bench

The ledger is made in the folder and used again the next time.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import orjson
from rich.console import Console
from rich.table import Table

import tallystick
from benchmarks.ledgers import BATCH, BEGIN, DAYS, TYPES, batches, event, make
from benchmarks.run import peak_memory_kb
from tallystick.core import timestamp
from tallystick.read.query import parse_terms
from tallystick.store.sqlite import SqliteStore

REPEATS = 60
SUSTAINED = 1_000_000
HOUR = 3_600_000_000
Row = Sequence[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="records of the ledger (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the ledger is made and kept (default: a temporary one)")
    parser.add_argument("--only", choices=("sustained", "questions", "memory"), help="one part alone")
    parser.add_argument("--alone", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        _ALONE[options.alone[0]](Path(options.alone[1]))
        sys.stdout.write(f"{peak_memory_kb()}\n")
        return
    console = Console() if Console().is_terminal else Console(width=120)
    table = Table("what", "reached", "plain SQLite table", "wanted", title=f"Reading, {options.records:,} records")
    for column in table.columns[1:]:
        column.justify = "right"
    with tempfile.TemporaryDirectory(prefix="tallystick-bench-") as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        with console.status("sustained") as status:
            parts: dict[str, Callable[[], list[Row]]] = {
                "sustained": lambda: sustained(Path(scratch)),
                "questions": lambda: questions(folder, options.records, tell=status.update),
                "memory": lambda: memory(folder, options.records, tell=status.update),
            }
            for name, part in parts.items():
                if options.only in (None, name):
                    status.update(name)
                    for row in part():
                        table.add_row(*row)
    console.print(table)


def sustained(scratch: Path) -> list[Row]:
    """A million events in batches of 1,000, the index following; and how far behind it then is."""
    rates, lags, plain = [], [], []
    for _ in range(3):
        given = [*batches(SUSTAINED)]
        with tallystick.open(scratch / "sustained") as ledger:
            ledger.append_many(given[0])
            began = time.perf_counter()
            for batch in given:
                ledger.append_many(batch)
            rates.append(SUSTAINED / (time.perf_counter() - began))
            began = time.perf_counter()
            ledger.catch_up()
            lags.append(time.perf_counter() - began)
        canonical = sum(map(len, _every(scratch / "sustained")))
        disk = sum(path.stat().st_size for path in (scratch / "sustained").glob("*.db*"))
        began = time.perf_counter()
        _make_plain(scratch / "plain.db", scratch / "sustained")
        plain.append(SUSTAINED / (time.perf_counter() - began))
        shutil.rmtree(scratch / "sustained")
        (scratch / "plain.db").unlink()
    return [
        (
            "append_many, batches of 1,000, index following",
            f"{statistics.median(rates):,.0f}/s",
            f"{statistics.median(plain):,.0f}/s",
            "100,000/s",
        ),
        ("… the index behind after a million", f"{statistics.median(lags):.2f} s", "", "5 s"),
        ("… disk, index included, of the canonical bytes", f"{disk / canonical:.2f} ×", "", "1.80 ×"),
    ]


def questions(folder: Path, count: int, *, tell: Callable[[str], None]) -> list[Row]:
    """Pages, states and hourly counts, each median of many with other values."""
    ledger_folder = make(folder, count, tell=tell)
    plain_file = folder / f"plain-{count}.db"
    if not plain_file.exists():
        tell("making the plain table")
        _make_plain(plain_file, ledger_folder, indexes_last=True)
    plain = apsw.Connection(str(plain_file))
    plain.pragma("cache_size", -65_536)
    chance = random.Random(1)
    entities = max(1, count // 100)
    with tallystick.open(ledger_folder) as ledger:
        ledger.catch_up()

        def page(plain_where: str, make_values: Callable[[], dict[str, Any]]) -> tuple[list[list[float]], list[float]]:
            values = [make_values() for _ in range(REPEATS)]
            ours = _twice([partial(ledger.query, limit=100, **one["query"]) for one in values])
            sql = f"SELECT payload FROM event WHERE {plain_where} ORDER BY position DESC LIMIT 100"
            return ours, _twice([partial(_rows, plain, sql, one["plain"]) for one in values])[1]

        def entity() -> dict[str, Any]:
            name = f"user-{chance.randrange(entities)}"
            return {"query": {"entity_id": name}, "plain": (name,)}

        def type_and_actor() -> dict[str, Any]:
            made = orjson.loads(event(chance.randrange(count), count))  # of one record: they meet somewhere
            kind, actor = made["event_type"], made["actor"]
            return {"query": {"event_type": kind, "actor": actor}, "plain": (kind, actor)}

        def in_an_hour() -> dict[str, Any]:
            after, kind = BEGIN + chance.randrange(DAYS * 24 - 1) * HOUR, chance.choice(TYPES)
            times = (_text(after), _text(after + HOUR))
            query = {"event_type": kind, "after": times[0], "before": times[1]}
            return {"query": query, "plain": (kind, *times)}

        def member() -> dict[str, Any]:
            rows = chance.randrange(10_000)
            return {
                "query": {"where": [f"payload.rows={rows}"], "label": "phi"},
                "plain": (f"%phi%{rows}%",),
            }

        def words() -> dict[str, Any]:
            number = chance.randrange(count)
            ip = f"10.{number % 4}.{number * 31 % 200}.{number * 17 % 250}"
            return {"query": {"text": f"auditor {ip}"}, "plain": (f"%{ip}%",)}

        rows: list[Row] = []
        for what, where, values in (
            ("page of 100: one entity", "entity = ?", entity),
            ("page of 100: type and actor", "type = ? AND actor = ?", type_and_actor),
            ("page of 100: type within an hour", "type = ? AND recorded >= ? AND recorded < ?", in_an_hour),
        ):
            rows.append(_row(what, *page(where, values), wanted=10))
        for what, make_values in (("a member and a label", member), ("words", words)):
            asked = [partial(ledger.query, limit=100, **make_values()["query"]) for _ in range(REPEATS)]
            rows.append(_row(f"page of 100: {what}", _twice(asked), [], wanted=10))
        names = [f"user-{chance.randrange(entities)}" for _ in range(REPEATS)]
        rows.append(
            _row(
                "state of an entity with 100 events",
                _twice([partial(ledger.state, name) for name in names]),
                _twice([partial(_plain_state, plain, name) for name in names])[1],
                wanted=5,
            )
        )
        rows.append(
            _row(
                "hourly counts by type, all of it",
                _twice([partial(ledger.series, width="hour", group="type")] * 7),
                [_timed(partial(_rows, plain, _PLAIN_HOURS, ()))],
                wanted=50,
            )
        )
        rows.append(_row("count of one type", _twice([partial(ledger.count, event_type=TYPES[3])] * 7), []))
    plain.close()
    return rows


def memory(folder: Path, count: int, *, tell: Callable[[str], None]) -> list[Row]:
    """Peak memory, and time, of a process that asks, one that makes the index anew, and one that verifies."""
    ledger_folder = make(folder, count, tell=tell)
    rows: list[Row] = []
    for what, said in (("ask", "queries"), ("rebuild", "index rebuild"), ("verify", "verify, each process")):
        tell(said)
        began = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.read", "--alone", what, str(ledger_folder)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds = time.monotonic() - began
        rows.append(
            (
                f"memory: {said} ({seconds:,.0f} s, {count / seconds:,.0f} records/s)",
                f"{int(out) / 1e3:,.0f} MB",
                "",
                "400 MB",
            )
        )
    return rows


def _ask(folder: Path) -> None:
    with tallystick.open(folder) as ledger:
        for term in ("entity_id=user-7", "event_type=user.*", "text=auditor", "label=phi"):
            query = parse_terms([term])
            page = ledger.query(query, limit=1_000)
            while page.cursor and page.records[-1].position > ledger.size - 50_000:
                page = ledger.query(query, limit=1_000, cursor=page.cursor)
            if not query.text:
                ledger.count(query)
        ledger.series(width="hour", group="type")
        ledger.series(width="day", measure="distinct:actor")


def _rebuild(folder: Path) -> None:
    tallystick.rebuild_index(folder)


def _verify(folder: Path) -> None:
    assert tallystick.verify(folder).holds


_ALONE: dict[str, Callable[[Path], None]] = {"ask": _ask, "rebuild": _rebuild, "verify": _verify}


def _every(folder: Path) -> Iterator[bytes]:
    """The records of a ledger, as they are."""
    store = SqliteStore(folder, readonly=True)
    yield from (stored.line for stored in store.read(0, 1 << 40))
    store.close()


def _make_plain(file: Path, ledger_folder: Path, *, indexes_last: bool = False) -> None:
    """The same records in one table with text columns and four secondary indexes, in batches of 1,000.

    With the indexes last a large table is made in minutes instead of half an hour, and is the better for questions.
    """
    connection = apsw.Connection(str(file))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "normal")
    connection.pragma("cache_size", -65_536)
    connection.execute(
        "CREATE TABLE event"
        " (position INTEGER PRIMARY KEY, entity TEXT, type TEXT, actor TEXT, recorded TEXT, payload TEXT)"
    ).fetchall()
    indexes = [f"CREATE INDEX event_{name} ON event ({name})" for name in ("entity", "type", "actor", "recorded")]
    for statement in () if indexes_last else indexes:
        connection.execute(statement).fetchall()
    rows: list[tuple[Any, ...]] = []
    for line in _every(ledger_folder):
        record = orjson.loads(line)
        actor = record["actor"] and record["actor"]["id"]
        head = (record["position"], record["entity_id"], record["event_type"], actor, record["recorded_at"])
        rows.append((*head, orjson.dumps(record["payload"]).decode()))
        if len(rows) == BATCH:
            with connection:
                connection.executemany("INSERT INTO event VALUES (?,?,?,?,?,?)", rows)
            rows = []
    with connection:
        connection.executemany("INSERT INTO event VALUES (?,?,?,?,?,?)", rows)
    for statement in indexes if indexes_last else ():
        connection.execute(statement).fetchall()
    connection.close()


_PLAIN_HOURS = "SELECT substr(recorded, 1, 13), type, count(*) FROM event GROUP BY 1, 2"


def _plain_state(plain: apsw.Connection, entity: str) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for (payload,) in plain.execute("SELECT payload FROM event WHERE entity = ? ORDER BY position", (entity,)):
        members = json.loads(str(payload))
        state[members["field"]] = members["new_value"]
    return state


def _text(moment: int) -> str:
    return timestamp.render(moment)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def _rows(connection: apsw.Connection, statement: str, values: Sequence[Any]) -> list[Any]:
    return connection.execute(statement, values).fetchall()


def _twice(asked: Sequence[Callable[[], object]]) -> list[list[float]]:
    """Milliseconds of all questions, asked in order and then once more: the first time may wait for the disk."""
    return [[_timed(question) for question in asked] for _ in range(2)]


def _row(what: str, ours: Sequence[list[float]], theirs: Sequence[float], *, wanted: float | None = None) -> Row:
    first, again = ours
    late = sorted(again)[int(0.95 * len(again))]
    return (
        what,
        f"{statistics.median(again):,.2f} ms (p95 {late:,.1f}; first time {statistics.median(first):,.1f})",
        f"{statistics.median(theirs):,.2f} ms" if theirs else "",
        f"{wanted:g} ms" if wanted else "",
    )


if __name__ == "__main__":
    main()
