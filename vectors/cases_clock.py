"""Vectors of a ledger whose clock was ten years ahead, and was corrected (SPEC 5.9)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tallystick.core import timestamp
from tallystick.core.corrected import CLOCK_CORRECTED
from tallystick.core.system import system_members
from tests.evidence.forge import KEYS, NOON, Insider
from vectors.case import Case
from vectors.scene import Bundle, bundle, event, selector, signed

_HOUR: Final = 3_600 * timestamp.SECOND
_TEN_YEARS: Final = 3_653 * 24 * _HOUR


def cases() -> Iterator[Case]:
    yield from _accepted()
    yield from _without()
    yield from _said_wrongly()


def corrected_ledger(
    say: dict[str, Any] | None = None, *, wrong: bool = True, back: bool = False, **more: Any
) -> Insider:
    """0 genesis, 1 opening, 2 and 3 events, 4 and 5 events ten years ahead, 6 the correction, 7 an event, 8 the close.

    The correction has other members where `more` gives them, and says something else where `say` does. Without `wrong`
    the clock was not ahead; with `back` it is behind afterwards.
    """
    insider = Insider()
    event(insider, 0)
    event(insider, 1)
    if wrong:
        insider.moment += _TEN_YEARS
    event(insider, 2)
    event(insider, 3)
    correct(insider, NOON + _HOUR, say, **more)
    if back:
        insider.moment = NOON
    event(insider, 4)
    insider.close()
    return insider


def correct(insider: Insider, moment: int, say: dict[str, Any] | None = None, **more: Any) -> int:
    """Have the clock say `moment`, and the ledger tell of it."""
    last = timestamp.render(insider.moment)
    insider.moment = moment
    said = {"corrected_at": timestamp.render(moment), "last_recorded_at": last, "reason": "the clock was ahead"}
    members = system_members(CLOCK_CORRECTED, {**said, **(say or {})}, event_id=f"s{len(insider.lines)}")
    return insider.put({**members, "actor": {"id": "ops-jane"}, **more})


def of(insider: Insider, **more: Any) -> Bundle:
    """A bundle of it, by default of all, under the key that is still in force."""
    return bundle(insider.lines, checkpoint=signed(insider.lines, key=KEYS.checkpoint), **more)


EVERY: Final = selector("everything", [])


def _accepted() -> Iterator[Case]:
    yield Case.of("clock-corrected", "5.9", "the clock is corrected within the range", of(corrected_ledger()))
    says = "what was recorded ten years ahead, and the correction beside it"
    yield Case.of("clock-corrected-later", "11 (8)", says, of(corrected_ledger(), first=2, end=6))
    says = "the correction stands beside two lines of a filtered bundle, between them"
    made = of(corrected_ledger(), only=[5, 7], selectors=[EVERY])
    yield Case.of("clock-corrected-between", "11 (8)", says, made)
    says = "the correction stands beside what was recorded after it"
    yield Case.of("clock-corrected-before", "11 (8)", says, of(corrected_ledger(), first=7, end=8))
    insider = corrected_ledger()
    insider.open(1)
    insider.moment += _TEN_YEARS
    event(insider, 5)
    correct(insider, NOON + 2 * _HOUR)
    insider.close()
    yield Case.of("clock-corrected-twice", "5.9", "the clock is corrected twice", of(insider))
    says = "a correction names a later time than the record before it"
    yield Case.of("clock-corrected-forward", "5.9", says, of(corrected_ledger(wrong=False)))
    says = "a reader of one period, in a ledger whose clock was corrected, holds itself to positions"
    made = of(corrected_ledger(), first=2, end=6, selectors=[selector("a", [], within=["first=2", "end=6"])])
    yield Case.of("clock-covered", "11 (20)", says, made)


def _without() -> Iterator[Case]:
    beside = [1, 8]
    says = "times go back, and the correction is not in the bundle"
    made = of(corrected_ledger(), only=[5, 7], selectors=[EVERY], beside=beside)
    yield Case.of("clock-left-out", "10.4", says, made, ("time", 2))
    says = "the last line is ten years ahead, and no correction is in the bundle"
    yield Case.of(
        "clock-left-out-later", "10.4", says, of(corrected_ledger(), first=2, end=6, beside=beside), ("time", 4)
    )
    says = "the range of a selector is reached by times, where times go back"
    made = of(
        corrected_ledger(), first=2, end=6, selectors=[selector("a", [], within=["before=2026-04-01T00:00:00.000000Z"])]
    )
    yield Case.of("clock-covered-by-times", "11 (20)", says, made, ("selection", None))
    insider = corrected_ledger(back=True)
    says = "a record is earlier than the correction before it"
    yield Case.of("clock-back-again", "11 (8)", says, of(insider), ("time", 8))
    made = of(insider, only=[5, 7], selectors=[EVERY], beside=[1, 6, 8])
    says = "a line is earlier than the correction that stands beside"
    yield Case.of("clock-back-of-beside", "11 (8)", says, made, ("time", 2))


def _said_wrongly() -> Iterator[Case]:
    other = timestamp.render(NOON)
    says = "a correction names another time for the record before it"
    made = of(corrected_ledger({"last_recorded_at": other}))
    yield Case.of("clock-other-last", "11 (8)", says, made, ("time", 7))
    for name, says, more in (
        ("clock-other-time", "a correction to another time than its own", {"say": {"corrected_at": other}}),
        ("clock-more-said", "a correction with one member more", {"say": {"more": 1}}),
        ("clock-other-entity", "a correction by somebody else", {"entity_id": "till-1"}),
    ):
        yield Case.of(name, "5.9", says, of(corrected_ledger(**more)), ("time", 7))
    says = "a correction that is none stands beside, between two lines"
    made = of(corrected_ledger({"corrected_at": other}), only=[5, 7], selectors=[EVERY])
    yield Case.of("clock-other-beside", "5.9", says, made, ("time", 2))
