"""Log records become events: what they say, who did it, and nothing of what the sending itself logs."""

from __future__ import annotations

import io
import logging
import logging.config
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tallystick
from tallystick.client.client import Client
from tallystick.integrations.logging import LedgerHandler
from tallystick.ledger import Ledger
from tests.integrations.conftest import sometimes_away
from tests.serve.conftest import Running


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with tallystick.open(tmp_path / "ledger") as opened:
        yield opened


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger of an application."""
    logger = logging.getLogger("shop.orders")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    for handler in [*logger.handlers]:
        logger.removeHandler(handler)
        handler.close()


def recorded(source: Ledger | Client) -> list[Any]:
    return [*source.records(event_type="log.recorded")]


def test_a_record_becomes_an_event(ledger: Ledger, log: logging.Logger) -> None:
    handler = LedgerHandler(ledger, level="INFO", actor="the-shop")
    log.addHandler(handler)

    log.debug("too quiet")
    log.warning("order %d of %s", 7, "jane", extra={"actor": "jane", "order": 7, "basket": ["a", {"b": 1.5}]})
    log.info("nobody in particular")
    handler.flush()

    first, second = recorded(ledger)
    assert first.payload == {
        "level": "WARNING",
        "logger": "shop.orders",
        "message": "order 7 of jane",
        "extra": {"order": 7, "basket": ["a", {"b": 1.5}]},
    }
    assert (first.entity_id, first.actor) == ("log:shop.orders", {"id": "jane"})
    assert second.payload == {"level": "INFO", "logger": "shop.orders", "message": "nobody in particular"}
    assert second.actor == {"id": "the-shop"}
    assert first.occurred_at is not None
    assert first.occurred_at[:10] <= first.recorded_at[:10]


def test_a_record_says_what_its_event_is(ledger: Ledger, log: logging.Logger) -> None:
    handler = LedgerHandler(
        ledger, event_type=lambda record: f"shop.{record.levelname.lower()}", entity_id=lambda record: record.name
    )
    log.addHandler(handler)
    own = {
        "event_type": "order.paid",
        "entity_id": "order-7",
        "labels": ["pci", "pci"],
        "actor": {"id": "jane", "type": "user"},
    }

    log.info("paid", extra=own)
    log.error("not paid", extra={"entity_id": 8, "actor": 9})
    handler.flush()

    paid = next(ledger.records(event_type="order.paid"))
    failed = next(ledger.records(event_type="shop.error"))
    assert (paid.entity_id, paid.labels, paid.actor) == ("order-7", ["pci"], {"id": "jane", "type": "user"})
    assert "extra" not in paid.payload
    assert (failed.entity_id, failed.actor) == ("8", {"id": "9"})


def test_an_exception_is_told(ledger: Ledger, log: logging.Logger) -> None:
    handler = LedgerHandler(ledger)
    log.addHandler(handler)

    try:
        raise ValueError("the till is empty")
    except ValueError:
        log.exception("could not pay")
    handler.flush()

    (record,) = recorded(ledger)
    assert record.payload["exception"].startswith("Traceback")
    assert record.payload["exception"].endswith("ValueError: the till is empty")


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_whatever_is_logged_nobody_is_disturbed(
    ledger: Ledger, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    handler = LedgerHandler(ledger)
    log.addHandler(handler)

    wrong = log.makeRecord(log.name, logging.INFO, "", 0, "%d", ("x",), None)
    handler.handle(wrong)  # a mistake of the application's, told as logging tells it
    log.info("odd", extra={"what": Odd(), "text": "\ud800\x00", "actor": "a\nb"})
    log.info("x" * 1_000_000, extra={f"member{n}": "\x01" * 10_000 for n in range(100)})
    log.info("wrong", extra={"event_type": "no event type"})
    log.info("last")
    handler.flush()

    odd, big, last = recorded(ledger)
    assert odd.payload["extra"] == {"what": "<Odd that cannot be shown>", "text": "?\x00"}
    assert odd.actor == {"id": "a?b"}
    assert big.payload["cut"]
    assert last.payload["message"] == "last"
    assert (handler.sender.refused, handler.sender.dropped) == (1, 0)
    assert "Logging error" in stderr.getvalue()


def test_what_the_sending_logs_is_not_sent(it: Running) -> None:
    root = logging.getLogger()
    before = root.level
    with Client(it.url, it.keys["other/Admin"]) as client:
        handler, second = LedgerHandler(client), LedgerHandler(client, event_type="second.log")
        root.setLevel(logging.DEBUG)
        root.addHandler(handler)
        root.addHandler(second)
        try:
            for number in range(20):
                logging.getLogger("app").info("%d", number)
                handler.flush()
                second.flush()
        finally:
            root.removeHandler(handler)
            root.removeHandler(second)
            root.setLevel(before)
        handler.close()
        second.close()

        mine = [
            record
            for record in recorded(client)
            if record.payload["logger"].split(".")[0] in ("app", "httpx2", "httpcore2")
        ]
        assert [record.payload["message"] for record in mine] == [str(number) for number in range(20)]
        assert client.count(event_type="second.log") < 200  # the service in this process logs, too, and has an end


def test_drops_are_told_as_an_event(it: Running, log: logging.Logger) -> None:
    with sometimes_away(it) as away:
        handler = LedgerHandler(away.client, events_max=3, event_type="drop.test", seconds=30)
        log.addHandler(handler)
        for number in range(8):
            log.info("%d", number)
        away.there.set()
        log.removeHandler(handler)
        handler.close()

        assert handler.sender.dropped == 5
        assert [one.payload["message"] for one in away.client.records(event_type="drop.test")] == ["0", "1", "2"]
        told = away.client.query(event_type="log.dropped", limit=1).records[0]
        assert (told.entity_id, told.payload) == ("log", {"count": 5})


def test_it_is_configured_as_any_handler(ledger: Ledger, log: logging.Logger) -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "audit": {
                    "class": "tallystick.integrations.logging.LedgerHandler",
                    "destination": ledger,
                    "event_type": "app.said",
                }
            },
            "loggers": {log.name: {"handlers": ["audit"], "level": "INFO"}},
        }
    )

    log.info("configured")
    log.handlers[0].flush()

    assert next(ledger.records(event_type="app.said")).payload["message"] == "configured"


PROGRAM = """
import logging, sys, tallystick
from tallystick.integrations.logging import LedgerHandler
destination = {destination}
logging.basicConfig(level="INFO", handlers=[LedgerHandler(destination, entity_id="program", seconds=60)])
for number in range(3_000):
    logging.info("%d", number)
"""


@pytest.mark.slow
def test_what_was_logged_is_there_when_the_program_has_ended(it: Running, tmp_path: Path) -> None:
    folder = tmp_path / "at-the-end"
    key = it.keys["acme/ServiceAccount"]
    for destination in (f"tallystick.open({str(folder)!r})", f"tallystick.Client({it.url!r}, {key!r})"):
        code = PROGRAM.format(destination=destination)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    expected = [str(number) for number in range(3_000)]
    with tallystick.open(folder) as ledger, Client(it.url, it.keys["acme/Admin"]) as client:
        for source in (ledger, client):
            assert [one.payload["message"] for one in source.records(entity_id="program")] == expected
        assert ledger.verify().holds
