"""Vectors of selectors: what each kind of term takes and passes over, and manifests that say what is not so.

Most counts are written down here, by hand, so that no reader is held to another's mistakes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.evidence.forge import KEYS, Insider
from vectors.case import Case
from vectors.scene import EVERYTHING, bundle, event, ledger, selector, signed

ODD: Final[tuple[dict[str, Any], ...]] = (
    {"payload": {"v": 10}, "labels": ["phi"], "actor": {"id": "jane", "type": "person"}},
    {"payload": {"v": "10"}, "labels": ["phi", "pci"], "actor": None, "entity_id": "user-1"},
    {"payload": {"v": 9.5}, "event_type": "user.created", "entity_id": "user-2"},
    {"payload": {"v": True}, "event_type": "user.created.late", "entity_id": "user-2"},
    {"payload": {"v": None}, "event_type": "user", "labels": []},
    {"payload": {"v": [1, [20, "x"]]}, "context": {"correlation_id": "c-1"}},
    {"payload": {"v": []}, "context": {"correlation_id": ["c-1"]}, "actor": {"id": "c-1"}},
    {"payload": {"v": {"w": [{"a b": "\uffff"}, {"a b": "\U0001f600"}]}}, "id": "a=b"},
    {"payload": {"v": -1e-7, "__proto__": "x", "": 0}, "occurred_at": "2026-03-15T12:30:00.123456789+00:30"},
    {"payload": {"v": 9007199254740991}, "occurred_at": "2026-03-15t11:00:00.5z", "event_type": "user.renamed"},
)
"""Events that are made to be told apart, at the positions 2 to 11; recorded a second apart from 12:00:01 on."""

TAKEN: Final[tuple[tuple[str, int], ...]] = (
    *(("event_type=user.*", 3), ("event_type!=user.*", 10), ("event_type=user.created", 1), ("event_type=user", 1)),
    *(("entity_id=user-2", 2), ("entity_id^=user-", 3), ("actor=jane", 8), ("actor=c-1", 1), ("label=phi", 2)),
    *(("label=pci", 8), ("id=a=b", 1), ("correlation_id=c-1", 1), ("first=4", 9), ("end=4", 4)),
    *(("after=2026-03-15T12:00:02.000000Z", 10), ("before=2026-03-15T12:00:02.000000Z", 3)),
    *(("occurred_before=2026-03-15T12:00:00.000000Z", 1), ("occurred_after=2026-03-15T12:00:00.123456Z", 10)),
    ("occurred_before=2026-03-15T12:00:00.123457Z", 4),
    *(("payload.v", 10), ("!payload.v", 3), ("payload.v=10", 1), ('payload.v="10"', 1), ("payload.v!=10", 9)),
    *(("payload.v=true", 1), ("payload.v=null", 1), ("payload.v!=null", 9), ("payload.v=1", 1), ("payload.v=0", 0)),
    *(("payload.v>=10", 3), ("payload.v<10", 3), ('payload.v>="1"', 2), ('payload.v<"x"', 1), ("payload.v=-1e-7", 1)),
    *(("payload.v=9007199254740991", 1), ("payload.v>1e+21", 0), ("payload.v<0", 1), ("payload.v<=9.5", 3)),
    *(('payload.v.w."a b">"\uffff"', 1), ('payload.v.w."a b"="\uffff"', 1), ('payload.v.w."a b"!="x"', 1)),
    *(('payload.v.w."a b"', 1), ("payload.__proto__", 1), ('payload.""=0', 1), ("payload.toString", 0)),
    *(("context.correlation_id", 2), ('context.correlation_id="c-1"', 2), ("payload.v.w.x", 0)),
)
"""Terms, and how many of the thirteen records each takes: those above, the genesis, the opening and the close."""

LONE: Final = (
    ("any-of-a-field", ["entity_id=user-1", "entity_id=user-2", "entity_id^=nobody"], 3),
    ("all-labels", ["label=phi", "label=pci"], 1),
    ("a-type-and-not-another", ["event_type=user.*", "event_type!=user.created", "event_type!=user.renamed"], 1),
    ("two-kinds-of-terms", ["event_type=user.*", "entity_id=user-2"], 2),
    ("a-range", ["payload.v>=9.5", "payload.v<11"], 3),  # of an array one element may fit one term, and one the other
)


def _odd() -> Insider:
    insider = Insider()
    for number, members in enumerate(ODD):
        event(insider, number, **{**members, "payload": members["payload"]})
    insider.close()
    insider.open(1)
    return insider


def cases() -> Iterator[Case]:
    yield from _good()
    yield from _wrong()
    yield from _hostile()


def _good() -> Iterator[Case]:
    lines = _odd().lines
    every = [selector(term, [term], within=["end=13"]) for term, _ in TAKEN]
    made = bundle(lines, end=13, selectors=every, checkpoint=signed(lines, key=KEYS.checkpoint))
    for one, (_, count) in zip(made.document["selectors"], TAKEN, strict=True):
        one["count"] = count
    yield Case.of("selectors-each-term", "10.9", "each kind of term, and how many records it takes", made)
    every = [selector(name, terms, within=["end=13"]) for name, terms, _ in LONE]
    every.append(selector("either", ["label=phi"], ["event_type=user.*"], within=["end=13", "entity_id^=user-"]))
    made = bundle(lines, end=13, selectors=every, checkpoint=signed(lines, key=KEYS.checkpoint))
    for one, count in zip(made.document["selectors"], [*(count for _, _, count in LONE), 3], strict=True):
        one["count"] = count
    yield Case.of("selectors-lists", "10.9", "terms together, alternatives, and terms within which all must lie", made)
    lines = ledger().lines
    time = ["after=2026-03-15T12:00:03.000000Z", "before=2026-03-15T12:00:05.000000Z"]
    made = bundle(lines, first=3, end=7, selectors=[selector("sales", ["event_type=shop.sold"], within=time)])
    says = "a range that begins before the time of its selector and ends after it"
    yield Case.of("selectors-covered-by-time", "11 (20)", says, made)
    within = ["first=9", "end=12"]
    made = bundle(lines, first=9, end=12, selectors=[selector("sales", ["event_type=shop.sold"], within=within)])
    yield Case.of("selectors-covered-by-position", "11 (20)", "a range that is just that of its selector", made)
    made = bundle(lines, end=21 - 1, selectors=[selector("nothing", ["event_type=x"], within=["end=20"])])
    yield Case.of("selectors-of-nothing", "11 (20)", "a complete bundle shows that nothing fits", made)
    made = bundle(lines, only=[3, 6, 10], selectors=[selector("till", ["entity_id=till-1"]), EVERYTHING])
    yield Case.of("selectors-filtered", "10.9", "a filtered bundle of two selectors, one of all", made)


def _wrong() -> Iterator[Case]:
    lines = ledger().lines
    sales = selector("sales", ["event_type=shop.sold"], within=["end=20"])
    for name, add in (("more", 1), ("less", -1)):
        made = bundle(lines, end=20, selectors=[EVERYTHING | {"within": ["end=20"]}, sales])
        made.document["selectors"][1]["count"] += add
        yield Case.of(f"selectors-count-{name}", "11 (20)", f"it says that one {name} fits", made, ("selection", None))
    made = bundle(lines, only=[3, 6, 13], selectors=[sales])
    says = "a filtered bundle with a record that fits no selector"
    yield Case.of("selectors-unrelated", "11 (20)", says, made, ("selection", 3))
    made = bundle(lines, only=[3, 6], selectors=[sales])
    made.document["selectors"][0]["count"] = 11
    says = "a filtered bundle that counts what it does not have"
    yield Case.of("selectors-filtered-count", "11 (20)", says, made, ("selection", None))
    uncovered: tuple[tuple[str, str, int, int, list[str]], ...] = (
        ("start", "a range that begins after the time of its selector", 4, 7, ["after=2026-03-15T12:00:03.000000Z"]),
        ("end", "a range that ends before the time of its selector", 0, 5, ["before=2026-03-15T12:00:05.000000Z"]),
        ("position", "a range that ends before the positions of its selector", 0, 7, ["end=8"]),
        ("all", "a range that is not that of the tree, and a selector of all", 0, 20, []),
        ("occurred", "times that are claimed say nothing of where a record is", 3, 20,
         ["end=20", "occurred_after=2026-03-15T12:00:09.000000Z"]),
    )  # fmt: skip
    for name, says, first, end, within in uncovered:
        more = [] if name in ("all", "position", "occurred") else ["first=2"] if name == "end" else ["end=7"]
        made = bundle(
            lines, first=first, end=end, selectors=[selector("sales", ["label=pci"], within=[*within, *more])]
        )
        yield Case.of(f"selectors-uncovered-{name}", "11 (20)", says, made, ("selection", None))


def _hostile() -> Iterator[Case]:
    for name, says, given in (
        ("text", "free text, which has no exact form", [selector("a", ["text=phi"])]),
        ("time", "a date without a time", [selector("a", ["after=2026-03-15"])]),
        ("unquoted", "a text without quotes", [selector("a", ["payload.ip=10.0.1.42"])]),
        ("needless-quotes", "a name in needless quotes", [selector("a", ['payload."v"=1'])]),
        ("number", "a number in another form", [selector("a", ["payload.v=1.0"])]),
        ("order", "an order of what has none", [selector("a", ["payload.v<true"])]),
        ("deep", "a path of 33 names", [selector("a", ["payload" + ".a" * 32])]),
        ("brackets", "brackets in place of a scalar", [selector("a", ["payload.v=" + "[" * 4_000])]),
        ("long", "a term of 4,097 characters", [selector("a", ["id=" + "x" * 4_094])]),
        ("no-alternative", "no alternative", [selector("a")]),
        ("alternatives", "65 alternatives", [selector("a", *[[]] * 65)]),
        ("terms", "10,001 terms", [selector("a", ["label=a"] * 5_001), selector("b", ["label=a"] * 5_000)]),
        ("conditions", "1,001 conditions", [selector("a", ["payload.v"] * 501, ["payload.w"] * 500)]),
        ("names", "more than 32 KiB of names", [selector("\u20ac" * 100)] * 110),
        ("name", "a name with a control character", [selector("a\u0007", [])]),
        ("many", "257 selectors", [EVERYTHING] * 257),
        ("member", "a member that no selector has", [{**EVERYTHING, "time": "recorded"}]),
    ):
        made = bundle(ledger().lines, first=2, end=8)
        made.document["selectors"] = given
        yield Case.of(
            f"selectors-{name}", "10.9", says, made, ("manifest", None), as_zip=name in ("terms", "conditions")
        )
    made = bundle(ledger().lines, only=[3, 6])
    made.document["selectors"] = []
    yield Case.of(
        "selectors-filtered-by-none", "10.2", "a filtered bundle without a selector", made, ("manifest", None)
    )
