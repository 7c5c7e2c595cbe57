"""Bundles made by `maker`, and what must be found in each: the verifier and its page are held to this one list."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from tests.verifier import maker
from tests.verifier.maker import Bundle, Files, Ledger

Found = tuple[str, int | None]


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    files: Files
    expected: frozenset[Found] = frozenset()
    trust: bytes = maker.TRUST
    known: bytes | None = None
    second: Files | None = None
    now: str = "2026-03-04T00:01:00Z"


def ledger(*, other: int = 0, rotated: bool = False) -> Ledger:
    """Epoch 0 at [1, 8), epoch 1 at [8, 14), epoch 2 open at [14, 18). `other` forks at a position."""
    made = Ledger()
    made.open()
    made.events(5)
    made.close()
    made.open()
    if rotated:
        made.rotate("checkpoint", maker.SECOND)
        made.rotate("evidence", maker.THIRD)
        made.events(2)
    else:
        made.events(4)
    made.close()
    made.open()
    made.events(3)
    if other:
        rewritten = made.lines[:other]
        for line in made.lines[other:]:
            said = json.loads(line)
            payload = {**said["payload"], "n": "other"} if other == said["position"] else said["payload"]
            rewritten.append(maker.changed(line, payload=payload, prev_hash=maker.sha256(rewritten[-1]).hex()))
        made.lines = rewritten
    return made


def pruned(*, say: dict[str, Any] | None = None, **members: Any) -> tuple[Ledger, list[list[int]]]:
    """[3, 5) of epoch 0 is pruned; the prune stands in epoch 1, at 9."""
    made = ledger()
    made.lines, made.epoch, made.opened_at = made.lines[:9], 1, 8
    made.versions = {"tallystick.ledger": 4, "user-0": 3, "user-1": 2}
    absent = [[3, 5]]
    digest = hashlib.sha256(b"".join(struct.pack(">QQ", *pair) for pair in absent)).hexdigest()
    payload = {
        "absent": {"count": 2, "digest": digest},
        "checkpoint_at_prune": made.checkpoint(8).decode(),
        "count": 2,
        "end": 6,
        "first": 3,
        "first_hash": "00" * 32,
        "last_hash": "00" * 32,
        "frontier_at_end": [maker.b64(bytes(32))] * 2,
        "holds_checked": [],
        "policy_position": 2,
        **(say or {}),
    }
    given = {"occurred_at": "2026-03-03T00:00:00.000000Z", **members}
    kind, entity = given.pop("event_type", "tallystick.records.pruned"), given.pop("entity", "tallystick.ledger")
    made.add(kind, payload, entity, **given)
    made.close()
    return made, absent


def _three_epochs() -> Ledger:
    made = Ledger()
    for _ in range(3):
        made.open()
        made.events(1)
        made.close()
    return made


Change = Callable[[Bundle], object]


def _changed(name: str, change: Change, *expected: Found, first: int = 0, end: int = 14, **given: Any) -> Case:
    """A bundle whose manifest or lines are changed, and the seal made anew; the manifest tells of its lines."""
    bundle = ledger().bundle(first, end)
    change(bundle)
    return Case(name, bundle.files(tell=True), frozenset(expected), **given)


def _told(name: str, change: Change, *expected: Found) -> Case:
    """The same where the manifest does not tell of changed lines."""
    bundle = ledger().bundle(0, 14)
    change(bundle)
    return Case(name, bundle.files(), frozenset({("events", None), *expected}))


def _line(number: int, **members: Any) -> Change:
    def change(bundle: Bundle) -> None:
        bundle.lines[number - 1] = maker.changed(bundle.lines[number - 1], **members)

    return change


def _raw(number: int, old: bytes, new: bytes) -> Change:
    def change(bundle: Bundle) -> None:
        assert old in bundle.lines[number - 1]
        bundle.lines[number - 1] = bundle.lines[number - 1].replace(old, new, 1)

    return change


def _manifest(*path: Any, value: Any) -> Change:
    def change(bundle: Bundle) -> None:
        inner = bundle.manifest
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value

    return change


def good() -> Iterator[Case]:
    made = ledger()
    yield Case("complete", made.bundle(0, 14).files())
    yield Case("one-epoch", made.bundle(8, 14).files())
    yield Case("part-of-an-epoch", made.bundle(3, 6).files())
    yield Case("the-genesis-alone", made.bundle(0, 1).files())
    yield Case("across-epochs", made.bundle(6, 10).files())
    yield Case("filtered", made.bundle(0, 14, keep=lambda at: at % 3 == 0).files())
    yield Case("filtered-with-more-beside", made.bundle(0, 14, keep=lambda at: at % 5 == 2, beside=[5, 6]).files())
    yield Case("held-against-its-start", made.bundle(3, 6, start=10).files())
    yield Case("its-start-is-its-end", made.bundle(3, 6, start=18).files())
    yield Case("known-within-the-range", made.bundle(0, 14).files(), known=made.checkpoint(9))
    yield Case("known-at-the-end", made.bundle(0, 14).files(), known=made.checkpoint(18))
    turned = ledger(rotated=True)
    yield Case("keys-changed", turned.bundle(0, 14).files(), known=turned.checkpoint(9))
    yield Case("keys-changed-beside", turned.bundle(2, 6, start=11).files())
    yield Case("keys-changed-filtered", turned.bundle(2, 12, keep=lambda at: at in (5, 11)).files())
    gone, absent = pruned()
    yield Case("pruned", gone.bundle(0, 11, absent=absent).files())
    yield Case("pruned-with-the-prune-beside", gone.bundle(2, 8, absent=absent, beside=[9]).files())
    gone, absent = pruned(say={"end": 9, "checkpoint_at_prune": gone.checkpoint(9).decode()})
    yield Case("pruned-up-to-the-prune", gone.bundle(0, 11, absent=absent).files())
    yield Case("filtered-epochs-apart", _three_epochs().bundle(0, 10, keep=lambda at: at in (2, 8)).files())
    alike = Ledger()
    alike.open()
    alike.add("user.closed", {"count": 1, "epoch": 0, "first_position": 1, "last_position": 2}, "user-1")
    alike.close()
    yield Case("what-only-looks-like-a-close", alike.bundle(0, 4).files())
    witness = maker.cosignature(made.text(), "w.example/1", maker.WITNESS)
    key = maker.vkey("w.example/1", 4, maker.WITNESS)
    trust = maker.TRUST.replace(b"quorum none", b"witness w %s\nquorum w" % key.encode())
    yield Case("cosigned", made.bundle(0, 14, cosigned=[witness]).files(), trust=trust)
    yield Case("told-of-timestamps", made.bundle(0, 14, timestamps=[b"\x30\x00"]).files())
    yield Case("two", made.bundle(0, 9).files(), second=made.bundle(5, 14, size=16).files())
    yield Case("created-five-minutes-ahead", made.bundle(0, 14).files(), now="2026-03-03T23:55:00Z")
    big = ledger()
    big.add("user.changed", {"n": [1.5, 1e-7, 1e21, -0.1, 123456789.125], "\U0001f600": 1, "\ufb33": "\u2028\x7f"}, "é")
    big.close()
    yield Case("numbers-and-names-out-of-the-common", big.bundle(14, 20).files())


def bad_lines() -> Iterator[Case]:
    root, chain = ("root", None), "chain"
    yield _told("a-value", _raw(4, b'"n":3', b'"n":4'), ("signature", 4), root)
    yield _told("the-last-line-flipped", _raw(14, b'"count":6', b'"count":7'), ("signature", 14), root, ("epoch", None))
    yield _changed("prev-hash", _line(5, prev_hash="11" * 32), (chain, 5), root)
    yield _changed("range-prev-hash", _manifest("range", "prev_hash", value="11" * 32), (chain, 1), first=3, end=7)
    yield _changed("recorded-before", _line(14, recorded_at="2026-03-03T08:59:00.000000Z"), ("time", 14), root)
    yield _changed("recorded-after-created", _line(14, recorded_at="2026-03-05T09:29:00.000000Z"), ("time", 14), root)
    yield _changed("created-a-day-later", lambda bundle: bundle, ("clock", None), now="2026-03-02T23:59:59Z")
    yield _changed("created-within-a-day", lambda bundle: bundle, now="2026-03-03T00:00:00Z")
    yield _changed("another-ledger", _line(4, ledger="other"), ("misplaced", 4))
    yield _changed("position-before-the-range", _line(1, position=2), ("misplaced", 1), ("missing", 2), first=3, end=7)
    yield _changed(
        "position-after-the-range", _line(4, position=7), ("misplaced", 4), ("missing", None), first=3, end=7
    )
    yield _changed("position-again", _line(3, position=4), ("misplaced", 3), ("missing", 4), first=3, end=7)
    yield _changed("epoch-of-another-key", _line(14, epoch=0), ("epoch", 14), ("epoch", None), root)
    yield _changed("epoch-without-a-key", _line(14, epoch=9), ("signature", 14), ("epoch", None), root)
    yield _changed("version-again", _line(13, entity_version=1), ("entity-version", 13), root)
    yield _changed("version-left-out", _line(13, entity_version=9), ("entity-version", 13), root)
    for name, old, new in (
        ("escape", b"user.changed", b"user.\\u0063hanged"),
        ("float", b'"event_version":1', b'"event_version":1.0'),
        ("zero-led", b'"event_version":1', b'"event_version":01'),
        ("minus-zero", b'"n":3', b'"n":-0'),
        ("big", b'"n":3', b'"n":9007199254740992'),
        ("space", b'"n":3', b'"n": 3'),
        ("return", b'"n":3}', b'"n":3}\r'),
        ("float-not-shortest", b'"n":3', b'"n":0.10'),
        ("float-with-exponent", b'"n":3', b'"n":1e+20'),
        ("float-infinite", b'"n":3', b'"n":1e999'),
        ("constant", b'"n":3', b'"n":Infinity'),
        ("order", b'"n":3', b'"n":3,"a":1'),
        ("again", b'"n":3', b'"n":3,"n":3'),
        ("astral-order", b'"n":3', '"\ufb33":1,"\U0001f600":1'.encode()),
        ("deep", b'"n":3', b'"n":' + b"[" * 32 + b"]" * 32),
        ("control", b'"jane"', b'"ja\x01ne"'),
        ("escaped-control", b'"jane"', b'"ja\\u0001ne"'),
        ("bytes", b'"jane"', b'"ja\xc0\xafne"'),
        ("actor", b'{"id":"jane"}', b'{"id":"jane","more":"x"}'),
        ("no-date", b"2026-03-03T", b"2026-02-29T"),
        ("no-hour", b"T09:00", b"T24:00"),
        ("short-signature", b'"signature":"', b'"signature":"00'),
        ("array", b"{", b"[{"),
    ):
        yield _changed(f"spelt-{name}", _raw(4, old, new), ("not-canonical", 4))

    def long(bundle: Bundle) -> None:
        line = maker.changed(bundle.lines[3], payload={"fill": ""})
        bundle.lines[3] = maker.changed(bundle.lines[3], payload={"fill": "x" * (65_536 - len(line))})

    yield _changed("a-line-of-65536-bytes", long, ("not-canonical", 4))
    yield _changed("a-line-of-2-mib", _raw(4, b'"n":3', b'"n":"' + b"x" * 2**21 + b'"'), ("not-canonical", 4))
    yield _told("second-gone", lambda bundle: bundle.lines.pop(2), ("missing", 3))
    yield _told("last-gone", lambda bundle: bundle.lines.pop(), ("missing", None), ("epoch", None))
    yield _told("one-more", lambda bundle: bundle.lines.append(bundle.lines[3]))
    yield _told("no-newline", lambda bundle: setattr(bundle, "ending", b""))

    yield from _bad_lengths()


def _bad_lengths() -> Iterator[Case]:
    def another(bundle: Bundle) -> None:
        bundle.lines.append(b"x")
        bundle.ending = b""

    yield _told("one-more-without-an-end", another)
    yield _changed(
        "position-at-the-end-of-the-range", _line(3, position=12), ("misplaced", 3), ("missing", None), first=9, end=12
    )

    def endless(bundle: Bundle) -> None:
        bundle.lines[13:] = [b"x" * 2**21]
        bundle.ending = b""

    yield _told("a-last-line-without-end", endless, ("not-canonical", 14), ("epoch", None))

    def one_mebibyte_more(bundle: Bundle) -> None:
        bundle.lines[13:] = [b"x" * (2**20 + len(bundle.lines[13]) + 1)]
        bundle.ending = b""

    yield _told("a-last-line-of-all-that-is-looked-at", one_mebibyte_more, ("not-canonical", 14), ("epoch", None))
    yield _told("far-too-long", lambda bundle: bundle.lines.append(b"x" * 2**21))
    bundle = ledger().bundle(0, 14)
    bundle.lines = []
    yield Case("nothing", bundle.files(), frozenset({("events", None), ("missing", None), ("epoch", None)}))
    bundle = ledger().bundle(2, 7, keep=lambda at: at != 4)
    bundle.lines[0], bundle.lines[1] = bundle.lines[1], bundle.lines[0]
    files = bundle.files(tell=True)
    yield Case("filtered-out-of-order", files, frozenset({("chain", 1), ("misplaced", 2)}))
    bundle = ledger().bundle(0, 14, keep=lambda at: at in (1, 2, 4, 6))
    bundle.lines[2] = bundle.lines[0]
    files = bundle.files(tell=True)
    yield Case("filtered-an-opening-again", files, frozenset({("misplaced", 3), ("time", 3)}))
    bundle = ledger().bundle(0, 14, keep=lambda at: at in (3, 9))
    bundle.lines[0] = maker.changed(bundle.lines[0], position=8)
    files = bundle.files(tell=True)
    yield Case("filtered-where-one-is-beside", files, frozenset({("misplaced", 1), ("epoch", 1)}))
    bundle = ledger().bundle(2, 14, keep=lambda at: at in (2, 4, 6))
    bundle.lines[1] = maker.changed(bundle.lines[1], entity_version=4)
    expected = frozenset({("entity-version", 2), ("entity-version", 3), ("root", None)})
    yield Case("filtered-version-past-the-gap", bundle.files(tell=True), expected)


def bad_places() -> Iterator[Case]:
    lines = {("epoch", number) for number in range(1, 8)}  # an opening that is out of place opens nothing
    expected = {("missing", 1), ("chain", 1), ("epoch", None), *lines}
    yield _told("genesis-gone", lambda bundle: bundle.lines.pop(0), *expected)
    bundle = ledger().bundle(0, 14, keep=lambda at: at == 3)
    bundle.lines[0] = maker.changed(bundle.lines[0], entity_version=50)
    yield Case("filtered-begins-with-any-version", bundle.files(tell=True), frozenset({("root", None)}))


def _selector(**members: Any) -> dict[str, Any]:
    return {"any_of": [[]], "count": 0, "name": "a", "within": [], **members}


BAD_TERMS: Final = (
    *("", "text=a", "event_type", "label", "label!=a", "label^=a", "id^=a", "actor=", "actor=a\u0000", "Label=a"),
    *("event_type=", "event_type=a..b", "event_type=.*", "event_type=*", "event_type^=a", "event_type=a.*.*"),
    *("event_type=" + "a" * 201, "entity_id!=a", "after=2026-03-03", "after=2026-03-03T00:00:00Z", "after>=1"),
    *("before=2026-02-30T00:00:00.000000Z", "first=", "first=-1", "first=01", "first=9007199254740992", "end=1e3"),
    *(
        "end=\u0661",
        "first=99999999999999999",
        "payload",
        "payload=1",
        "payload.",
        "payload..a",
        "payload.a.",
        "Payload.a",
    ),
    *(
        'payload."a"',
        'payload."a',
        'payload."\\u0041 b"',
        "payload.a b",
        "payload.\u00e9",
        "!payload.a=1",
        "!!payload.a",
    ),
    *("payload.a=", "payload.a=b", "payload.a=01", "payload.a=1.0", "payload.a=1e3", "payload.a=+1", "payload.a= 1"),
    *("payload.a=NaN", "payload.a=9007199254740992", "payload.a=-0", "payload.a=[]", "payload.a={}", "payload.a<true"),
    *(
        "payload.a>null",
        'payload.a="\\u0041"',
        'payload.a="',
        "payload.a==1",
        "payload.a=1 ",
        "payload.a\n",
        "position=1",
    ),
    *('payload.a="\\ud800"', "payload.a=" + "[" * 2_000, "label=" + "a" * 4_091, "payload" + ".a" * 32, "!context"),
)
"""What is no term of SPEC 10.9, or not in its one form."""


def bad_manifests() -> Iterator[Case]:
    for name, path, value in (
        ("format", ["format"], "tallystick-bundle/2"),
        ("id", ["ledger", "id"], "AA" * 32),
        ("name", ["ledger", "name"], "made/"),
        ("origin", ["ledger", "origin"], "a b"),
        ("first", ["range", "first"], -1),
        ("first-float", ["range", "first"], 0.5),
        ("first-true", ["range", "first"], True),
        ("empty-range", ["range", "end"], 0),
        ("past", ["range", "end"], 19),
        ("count", ["range", "count"], 0),
        ("counts-too-many", ["range", "count"], 15),
        ("prev-hash", ["range", "prev_hash"], "0"),
        ("complete-null", ["complete"], None),
        ("complete-one", ["complete"], 1),
        ("filtered-by-nothing", ["complete"], False),
        ("selectors-string", ["selectors"], "x"),
        ("selectors-many", ["selectors"], [_selector()] * 257),
        ("selector-member", ["selectors"], [{**_selector(), "more": 1}]),
        ("selector-name", ["selectors"], [_selector(name="")]),
        ("selector-name-long", ["selectors"], [_selector(name="x" * 101)]),
        ("selector-names", ["selectors"], [_selector(name="\u20ac" * 100)] * 110),
        ("selector-count", ["selectors"], [_selector(count=-1)]),
        ("selector-of-nothing", ["selectors"], [_selector(any_of=[])]),
        ("selector-alternatives", ["selectors"], [_selector(any_of=[[]] * 65)]),
        ("selector-terms", ["selectors"], [_selector(within=["label=a"] * 5_000), _selector(within=["id=a"] * 5_001)]),
        ("selector-conditions", ["selectors"], [_selector(within=["payload.a"] * 1_001)]),
        ("absent-pair", ["absent"], [[3]]),
        ("absent-backwards", ["absent"], [[5, 3]]),
        ("absent-touching", ["absent"], [[3, 4], [4, 5]]),
        ("absent-nothing", ["absent"], [[3, 3], [4, 5]]),
        ("hash-number", ["hashes"], [1]),
        ("absent-elsewhere", ["absent"], [[15, 16]]),
        ("start", ["start"], {}),
        ("start-note", ["start", "checkpoint"], "x"),
        ("end-note", ["end", "checkpoint"], "x"),
        ("genesis", ["genesis"], None),
        ("record", ["records"], ["x"]),
        ("hash", ["hashes"], ["AAAA"]),
        ("hash-unpadded", ["hashes"], ["A" * 43]),
        ("hash-other-form", ["hashes"], ["A" * 42 + "B="]),
        ("mac-key", ["mac_keys"], [{"epoch": 0, "key": "00"}]),
        ("mac-key-member", ["mac_keys", 0, "more"], 1),
        ("mac-keys-twice", ["mac_keys"], [{"epoch": 0, "key": "00" * 32}] * 2),
        ("timestamps", ["timestamps"], [{"over": "endXcheckpoint", "token": "AA==", "type": "rfc3161"}]),
        ("timestamp-type", ["timestamps"], [{"over": "end.checkpoint", "token": "AA==", "type": "rfc3162"}]),
        ("timestamp-empty", ["timestamps"], [{"over": "end.checkpoint", "token": "", "type": "rfc3161"}]),
        ("timestamps-many", ["timestamps"], [{"over": "end.checkpoint", "token": "AA==", "type": "rfc3161"}] * 17),
        ("file", ["events", "file"], "../events.jsonl"),
        ("file-dot", ["events", "file"], "eventsXjsonl"),
        ("bytes", ["events", "bytes"], 2**40 + 1),
        ("created", ["created"], "2026-03-04T00:00:00Z"),
        ("tool", ["tool"], 1),
        ("unknown", ["unknown"], 1),
    ):
        bundle = ledger().bundle(0, 14)
        _manifest(*path, value=value)(bundle)
        yield Case(f"manifest-{name}", bundle.files(), frozenset({("manifest", None)}))
    for number, term in enumerate(BAD_TERMS):
        bundle = ledger().bundle(0, 14)
        bundle.manifest["selectors"] = [_selector(within=[term])]
        yield Case(f"term-{number}", bundle.files(), frozenset({("manifest", None)}))
    for name, change in (
        ("gone", lambda bundle: bundle.manifest.pop("tool")),
        ("record-of-the-range", lambda bundle: bundle.manifest.update(records=[bundle.lines[3].decode()])),
        ("record-of-the-first-position", lambda bundle: bundle.manifest["records"].insert(1, bundle.lines[0].decode())),
        ("records-out-of-order", lambda bundle: bundle.manifest.update(records=_shuffled(bundle.manifest["records"]))),
        ("record-of-others", lambda bundle: _others(bundle, ledger="other")),
        ("record-past-the-tree", lambda bundle: _others(bundle, position=18)),
        ("records-twice", lambda bundle: bundle.manifest.update(records=bundle.manifest["records"] * 2)),
        ("records-backwards", lambda bundle: bundle.manifest["records"].reverse()),
        ("record-genesis", lambda bundle: bundle.manifest["records"].insert(0, bundle.manifest["genesis"])),
        ("start-past-the-end", _swap_ends),
    ):
        bundle = ledger().bundle(3, 7, start=10)
        change(bundle)
        yield Case(f"manifest-{name}", bundle.files(), frozenset({("manifest", None)}))
    bundle = ledger().bundle(0, 14, keep=lambda at: at % 2 == 0)
    bundle.manifest["absent"] = [[3, 4]]
    yield Case("manifest-filtered-and-absent", bundle.files(), frozenset({("manifest", None)}))
    yield from _bad_bytes()


def _others(bundle: Bundle, **members: Any) -> None:
    bundle.manifest["records"][-1] = maker.changed(bundle.manifest["records"][-1].encode(), **members).decode()


def _shuffled(records: list[str]) -> list[str]:
    made = ledger()
    return [records[0], made.lines[9].decode(), records[-1], made.lines[12].decode()]


def _swap_ends(bundle: Bundle) -> None:
    start, end = bundle.manifest["start"], bundle.manifest["end"]
    start["checkpoint"], end["checkpoint"] = end["checkpoint"], start["checkpoint"]


def _bad_bytes() -> Iterator[Case]:
    files = ledger().bundle(0, 14).files()
    manifest, sealed = files["manifest.json"], files["manifest.json.sig"]
    for name, data in (
        ("newline", manifest + b"\n"),
        ("mark", b"\xef\xbb\xbf" + manifest),
        ("deep", b"[" * 1_000_000),
        ("deep-strings", b'["\\"[",' * 40),
        ("empty", b""),
        ("null", b"null"),
        ("space", manifest.replace(b":", b": ", 1)),
    ):
        yield Case(f"manifest-bytes-{name}", files | {"manifest.json": data}, frozenset({("manifest", None)}))
    for name, data in (
        ("empty", b""),
        ("rows-only", b"\n" * 9),
        ("other-namespace", maker.seal(manifest, maker.EVIDENCE, b"tallystick-views@v1")),
        ("stranger", maker.seal(manifest, maker.STRANGER)),
        ("other-manifest", maker.seal(manifest + b" ", maker.EVIDENCE)),
        ("no-end", sealed[:-1]),
        ("more", sealed + b"\n"),
        ("returns", sealed.replace(b"\n", b"\r\n")),
        (
            "wide",
            b"-----BEGIN SSH SIGNATURE-----\n"
            + b"".join(sealed.split(b"\n")[1:-2])
            + b"\n"
            + b"\n".join(sealed.split(b"\n")[-2:]),
        ),
    ):
        yield Case(f"seal-{name}", files | {"manifest.json.sig": data}, frozenset({("seal", None)}))


def bad_ledgers() -> Iterator[Case]:
    root: Found = ("root", None)
    made, fork = ledger(), ledger(other=4)
    yield Case("fork-known", made.bundle(0, 14).files(), frozenset({("fork", None)}), known=fork.checkpoint(9))
    yield Case("known-is-none", made.bundle(0, 14).files(), frozenset({("fork", None)}), known=b"x")
    stranger = maker.note(made.text(9), private=maker.STRANGER)
    vouched = maker.note(made.text(18), private=maker.STRANGER)
    yield Case("known-end-of-a-stranger", made.bundle(0, 14).files(), frozenset({("fork", None)}), known=vouched)
    yield Case("known-of-a-stranger", made.bundle(0, 14).files(), frozenset({("fork", None)}), known=stranger)
    stranger = maker.note(made.text(18), private=maker.STRANGER)
    yield Case("known-end-of-a-stranger", made.bundle(0, 14).files(), frozenset({("fork", None)}), known=stranger)
    other = maker.note(made.text(9).replace("made", "mode", 1), "audit.example/mode")
    yield Case("known-of-another-origin", made.bundle(0, 14).files(), frozenset({("fork", None)}), known=other)
    yield Case(
        "rollback", made.bundle(0, 9, size=14).files(), frozenset({("rollback", None)}), known=made.checkpoint(18)
    )
    yield Case("out-of-reach", made.bundle(3, 7).files(), frozenset({("reach", None)}), known=made.checkpoint(11))
    bundle = made.bundle(3, 7, start=10)
    bundle.manifest["start"]["checkpoint"] = fork.checkpoint(10).decode()
    yield Case("fork-start", bundle.files(), frozenset({("fork", None)}))
    bundle.manifest["start"]["checkpoint"] = maker.note(made.text(10), private=maker.STRANGER).decode()
    yield Case("start-of-a-stranger", bundle.files(), frozenset({("fork", None)}))
    bundle.manifest["end"]["checkpoint"] = fork.checkpoint().decode()
    yield Case("root-of-a-fork", bundle.files(), frozenset({("fork", None), root}))
    yield Case("fork-two", made.bundle(0, 9).files(), frozenset({("fork", None)}), second=fork.bundle(2, 9).files())
    yield Case(
        "fork-two-sizes",
        made.bundle(0, 14).files(),
        frozenset({("fork", None)}),
        second=fork.bundle(9, 12, size=14).files(),
    )
    nonce = Ledger(nonce="11" * 32)
    nonce.open()
    nonce.events(3)
    nonce.close()
    yield Case(
        "fork-two-ledgers", made.bundle(9, 12).files(), frozenset({("fork", None)}), second=nonce.bundle(3, 5).files()
    )
    hashes = made.bundle(3, 7).manifest["hashes"]
    for name, wrong in (("dropped", hashes[:-1]), ("more", [*hashes, hashes[0]]), ("swapped", hashes[::-1])):
        bundle = made.bundle(3, 7)
        bundle.manifest["hashes"] = wrong
        yield Case(f"hashes-{name}", bundle.files(), frozenset({root}))
    bundle = made.bundle(3, 7, start=7)
    bundle.lines[1] = maker.changed(bundle.lines[1], labels=["x"])
    files = bundle.files(tell=True)
    yield Case("a-start-is-not-asked-of-a-wrong-root", files, frozenset({root, ("chain", 3)}))
    yield Case("nor-what-is-known", files, frozenset({root, ("chain", 3)}), known=made.checkpoint(7))
    yield Case("nor-what-is-out-of-reach", files, frozenset({root, ("chain", 3)}), known=made.checkpoint(11))
    yield from _bad_checkpoints(made)
    yield from _bad_genesis(made)
    yield from _bad_epochs()
    yield from _bad_rotations()
    yield from _bad_prunes()
    yield from _bad_witnesses(made)


def _bad_checkpoints(made: Ledger) -> Iterator[Case]:
    text, found = made.text(), frozenset({("checkpoint", None)})
    good_line = made.checkpoint().decode().split("\n\n")[1]
    tag = good_line.split()[2]
    wrong_id = f"— {maker.ORIGIN} {'AAAAA' + tag[5:]}\n"
    for name, under in (
        ("stranger", maker.note(text, private=maker.STRANGER).decode().split("\n\n")[1]),
        ("another-name", good_line.replace("audit.example", "other.example")),
        ("wrong-id", wrong_id),
        ("bad-beside-good", good_line + _flipped(good_line)),
        ("longer", f"— {maker.ORIGIN} {maker.b64(maker.from_b64(tag) + b'0')}\n"),
    ):
        bundle = made.bundle(0, 14)
        bundle.manifest["end"]["checkpoint"] = f"{text}\n{under}"
        yield Case(f"checkpoint-{name}", bundle.files(), found)
    other = text.replace(maker.ORIGIN, "audit.example/mode", 1)
    bundle = made.bundle(0, 14)
    bundle.manifest["end"]["checkpoint"] = maker.note(other, "audit.example/mode").decode()
    yield Case("checkpoint-of-another-origin", bundle.files(), found)
    for name, note in (
        ("extension", maker.note(text + "more\n")),
        ("no-line", f"{text}\n".encode()),
        ("sign", maker.note(text.replace("\n18\n", "\n+18\n"))),
        ("zero-led", maker.note(text.replace("\n18\n", "\n018\n"))),
        ("huge", maker.note(text.replace("\n18\n", "\n9223372036854775808\n"))),
        ("no-origin", maker.note(text.replace(maker.ORIGIN, "", 1))),
        ("short-root", maker.note(text.replace("=", ""))),
        ("tab", maker.note(text.replace("\n18\n", "\n18\t\n"))),
        ("long", maker.note(text, more=["— x AAAAAAAA\n" * 5000])),
        ("many", maker.note(text, more=["— x AAAAAAAA\n" * 100])),
        ("hyphen", made.checkpoint().replace("—".encode(), b"-")),
        ("plus-in-name", maker.note(text, more=["— a+b AAAAAAAA\n"])),
        ("no-break-space", maker.note(text, more=["— a\u00a0b AAAAAAAA\n"])),
        ("no-id", maker.note(text, more=["— x AAAA\n"])),
        ("id-alone", maker.note(text, more=["— x AAAAAA==\n"])),
        ("root-in-another-form", maker.note(_other_form(text))),
        ("no-name", maker.note(text, more=["—  AAAAAAAA\n"])),
        ("more-in-a-line", maker.note(text, more=["— x AAAAAAAA more\n"])),
        ("control", maker.note(text, more=["— a\x01b AAAAAAAA\n"])),
        ("long-line", maker.note(text, more=[f"— x {'A' * 65_536}\n"])),
    ):
        bundle = made.bundle(0, 14)
        bundle.manifest["end"]["checkpoint"] = note.decode()
        yield Case(f"note-{name}", bundle.files(), frozenset({("manifest", None)}))
    for name, trust in (
        ("stranger", maker.vkey(maker.ORIGIN, 1, maker.STRANGER)),
        ("another-origin", maker.vkey("audit.example/mode", 1, maker.CHECKPOINT)),
    ):
        yield Case(f"trust-{name}", made.bundle(0, 14).files(), found, trust=f"log {trust}\nquorum none\n".encode())


def _other_form(text: str) -> str:
    """The last digit of a root stands for four bits and two that must be zero: here they are not."""
    last = text[-3]
    return f"{text[:-3]}{chr(ord(last) + 1)}=\n"


def _flipped(line: str) -> str:
    dash, name, tag = line.split()
    data = bytearray(maker.from_b64(tag))
    data[-1] ^= 1
    return f"{dash} {name} {maker.b64(bytes(data))}\n"


def _bad_genesis(made: Ledger) -> Iterator[Case]:
    found, root = ("genesis", None), ("root", None)
    genesis = json.loads(made.lines[0])
    payload = genesis["payload"]
    for name, line in (
        ("is-none", b"x"),
        ("of-a-stranger", maker.signed(genesis, root=maker.STRANGER)),
        ("type", maker.changed(made.lines[0], event_type="tallystick.ledger.made")),
        ("epoch", maker.changed(made.lines[0], epoch=1)),
        ("prev-hash", maker.changed(made.lines[0], prev_hash="11" * 32)),
        ("algorithms", maker.changed(made.lines[0], payload={**payload, "algorithms": {}})),
        ("retention", maker.changed(made.lines[0], payload={**payload, "retention": {}})),
        ("name", maker.changed(made.lines[0], ledger="other")),
        ("payload-name", maker.changed(made.lines[0], payload={**payload, "ledger": "other"})),
        ("payload-origin", maker.changed(made.lines[0], payload={**payload, "origin": "audit.example/other"})),
        (
            "key-name",
            maker.changed(
                made.lines[0], payload={**payload, "checkpoint_key": maker.vkey("x/made", 1, maker.CHECKPOINT)}
            ),
        ),
        (
            "key-type",
            maker.changed(
                made.lines[0], payload={**payload, "checkpoint_key": maker.vkey(maker.ORIGIN, 4, maker.CHECKPOINT)}
            ),
        ),
        ("actor", maker.changed(made.lines[0], actor={"id": "mallory"})),
        ("entity", maker.changed(made.lines[0], entity_id="tallystick")),
        ("records", maker.changed(made.lines[0], payload={**payload, "epoch": {"records_max": 0, "seconds_max": 1}})),
    ):
        bundle = made.bundle(3, 7)
        bundle.manifest["genesis"] = line.decode()
        bundle.manifest["ledger"]["id"] = maker.sha256(line).hex()
        yield Case(f"genesis-{name}", bundle.files(), frozenset({found, root}))
    turned = ledger(rotated=True)
    bundle = turned.bundle(2, 6)
    bundle.manifest["genesis"] = "x"
    yield Case("genesis-none-where-keys-change", bundle.files(), frozenset({found, root}), known=turned.checkpoint(9))
    apart = Ledger(origin="audit.example/other")
    apart.open()
    apart.close()
    trust = f"log {maker.vkey(apart.origin, 1, maker.CHECKPOINT)}\nquorum none\n".encode()
    yield Case("genesis-of-an-origin-with-another-name", apart.bundle(1, 3).files(), frozenset({found}), trust=trust)
    bundle = made.bundle(3, 7)
    bundle.manifest["ledger"]["id"] = "00" * 32
    yield Case("genesis-id", bundle.files(), frozenset({found}))
    bundle = made.bundle(3, 7)
    bundle.manifest["ledger"] |= {"origin": "audit.example/mode"}
    yield Case("genesis-origin", bundle.files(), frozenset({found, ("checkpoint", None)}))
    bundle = made.bundle(0, 14)
    bundle.lines[0] = maker.changed(bundle.lines[0], actor=None)
    yield Case("genesis-line", bundle.files(tell=True), frozenset({("genesis", 1), root}))


def _bad_epochs() -> Iterator[Case]:
    for name, opening, closing, expected in (
        ("opening-of-another-epoch", {"epoch": 5}, {}, {("epoch", None), *(("epoch", n) for n in range(2, 9))}),
        ("opening-with-more", {"more": 1}, {}, {("epoch", None), *(("epoch", n) for n in range(2, 9))}),
        ("commitment", {"key_commitment": "00" * 32}, {}, {("commitment", None)}),
        ("close-count", {}, {"count": 6}, {("epoch", None)}),
        ("close-first", {}, {"first_position": 2}, {("epoch", None)}),
        ("close-last", {}, {"last_position": 8}, {("epoch", None)}),
        ("close-of-another-epoch", {}, {"epoch": 1}, {("epoch", None)}),
        ("close-with-more", {}, {"more": 1}, {("epoch", None)}),
    ):
        made = Ledger()
        made.open(**opening)
        made.events(5)
        made.close(**closing)
        yield Case(f"epoch-{name}", made.bundle(0, 8).files(), frozenset(expected))
    made = Ledger()
    made.open()
    made.events(2)
    made.close()
    made.epoch = 0
    made.events(1)
    made.epoch = 1
    made.open()
    made.close()
    yield Case("epoch-after-its-close", made.bundle(0, 8).files(), frozenset({("epoch", 6), ("epoch", None)}))
    yield Case("epochs-apart", made.bundle(0, 8, keep=lambda at: at in (2, 6)).files(), frozenset({("epoch", None)}))
    made = Ledger()
    made.open()
    made.close()
    made.epoch = 2
    made.open()
    made.close()
    yield Case("epochs-with-a-gap", made.bundle(0, 5).files(), frozenset({("epoch", None)}))
    yield Case("epochs-with-a-gap-filtered", made.bundle(0, 5, keep=lambda at: at in (1, 3)).files())
    made.epoch = 0
    made.open()
    made.close()
    found = frozenset({("epoch", None), ("epoch", 5), ("epoch", 6)})
    yield Case("epoch-twice", made.bundle(0, 7, keep=bool).files(), found)
    found = frozenset({("epoch", None)})
    yield Case("epoch-twice-beside", made.bundle(0, 7, keep=lambda at: at == 1).files(), found)
    early = Ledger()
    early.events(1)
    early.open()
    early.close()
    yield Case("epoch-before-its-opening", early.bundle(0, 4).files(), frozenset({("epoch", 2)}))
    found = frozenset({("epoch", 1)})
    yield Case("epoch-before-its-opening-beside", early.bundle(0, 4, keep=lambda at: at == 1).files(), found)
    made = Ledger()
    made.open()
    made.epoch = 2
    made.open()
    made.close()
    made.epoch, made.opened_at = 0, 1
    made.close()
    yield Case("epochs-overlap", made.bundle(0, 5, keep=bool).files(), frozenset({("epoch", None)}))
    yield from _bad_keys()


def _bad_keys() -> Iterator[Case]:
    bundle = ledger().bundle(8, 14)
    bundle.manifest["mac_keys"][0]["key"] = "00" * 32
    lines = {("signature", number) for number in range(1, 7)}
    yield Case("key-of-nothing", bundle.files(), frozenset({*lines, ("commitment", None)}))
    bundle = ledger().bundle(9, 13)
    bundle.manifest["records"][0] = bundle.manifest["records"][0][:-4] + '00"}'
    yield Case("opening-beside-unsigned", bundle.files(), frozenset({("signature", None), ("root", None)}))


def _bad_rotations() -> Iterator[Case]:
    key, end = ("key-rotation", None), ("checkpoint", None)
    for name, change in (
        ("old-signature", {"old_signature": maker.b64(bytes(64))}),
        ("new-signature", {"new_signature": maker.b64(bytes(64))}),
        ("old-key", {"old_key": maker.b64(maker.public(maker.THIRD))}),
        ("purpose", {"purpose": "root"}),
        ("more", {"more": 1}),
    ):
        made = ledger()
        made.rotate("checkpoint", maker.SECOND, **change)
        made.events(1)
        made.close()
        yield Case(f"rotation-{name}", made.bundle(0, 14).files(), frozenset({key, end}))
    made = ledger(rotated=True)
    bundle = made.bundle(2, 5)
    bundle.evidence = maker.EVIDENCE
    yield Case("sealed-by-the-old-key", bundle.files(), frozenset({("seal", None)}))
    bundle = made.bundle(2, 5)
    bundle.manifest["end"]["checkpoint"] = maker.note(made.text()).decode()
    yield Case("checkpoint-by-the-old-key", bundle.files(), frozenset({end}))
    trust = f"log {maker.vkey(maker.ORIGIN, 1, maker.SECOND)}\nquorum none\n".encode()
    yield Case("the-newer-key-is-trusted", made.bundle(2, 5).files(), trust=trust)
    found = frozenset({end})
    yield Case("the-newer-key-vouches-for-nothing-older", made.bundle(2, 5, size=9).files(), found, trust=trust)
    known = maker.note(made.text(9), private=maker.SECOND)
    yield Case("known-by-the-newer-key", made.bundle(0, 14).files(), frozenset({("fork", None)}), known=known)


def _bad_prunes() -> Iterator[Case]:
    at_prune, _ = pruned()
    stranger = maker.note(at_prune.text(8), private=maker.STRANGER)
    found = frozenset({("prune", None)})
    for name, say, members in (
        ("end", {"end": 4}, {}),
        ("count", {"absent": {"count": 3, "digest": "00" * 32}}, {}),
        ("member", {"more": 1}, {}),
        ("holds", {"holds_checked": [4, 3]}, {}),
        ("holds-text", {"holds_checked": ["x"]}, {}),
        ("holds-null", {"holds_checked": None}, {}),
        ("frontier", {"frontier_at_end": ["x"]}, {}),
        ("first", {"first": 0}, {}),
        ("first-at-its-end", {"first": 6}, {}),
        ("count-of-more-than-is-absent", {"count": 3}, {}),
        ("count-of-more-than-it-spans", {"count": 2, "first": 5}, {}),
        ("end-past-itself", {"end": 10}, {}),
        ("policy-none", {"policy_position": 0}, {}),
        ("policy-itself", {"policy_position": 9}, {}),
        ("frontier-short", {"frontier_at_end": [maker.b64(bytes(32))]}, {}),
        ("checkpoint-none", {"checkpoint_at_prune": ""}, {}),
        ("checkpoint-below-its-end", {"checkpoint_at_prune": at_prune.checkpoint(5).decode()}, {}),
        ("checkpoint-past-itself", {"checkpoint_at_prune": at_prune.checkpoint(10).decode()}, {}),
        ("checkpoint-of-a-stranger", {"checkpoint_at_prune": stranger.decode()}, {}),
        ("type", {}, {"event_type": "tallystick.records.prunes"}),
        ("moment", {}, {"occurred_at": None}),
        ("moment-form", {}, {"occurred_at": "2026-03-03T00:00:00Z"}),
        ("entity", {}, {"entity": "user-9"}),
    ):
        made, absent = pruned(say=say, **members)
        yield Case(f"prune-{name}", made.bundle(0, 8, absent=absent, beside=[9]).files(), found)
    made, absent = pruned()
    yield Case("prune-not-there", made.bundle(0, 8, absent=absent).files(), found)
    bundle = made.bundle(0, 8, absent=absent, beside=[9])
    bundle.lines.insert(3, made.lines[3])
    bundle.manifest["range"]["count"] += 1
    yield Case("absent-and-there", bundle.files(tell=True), frozenset({("misplaced", 4)}))
    bundle = made.bundle(0, 8, absent=absent, beside=[9])
    bundle.lines[2] = made.lines[3]
    expected = frozenset({("misplaced", 3), ("missing", 4)})
    yield Case("absent-and-there-where-one-is-missing", bundle.files(tell=True), expected)
    bundle = made.bundle(0, 8, absent=absent, beside=[9])
    bundle.lines.pop(3)
    bundle.manifest["range"]["count"] -= 1
    yield Case("one-more-is-missing", bundle.files(tell=True), frozenset({("missing", 4)}))


def _bad_witnesses(made: Ledger) -> Iterator[Case]:
    names = [f"w.example/{n}" for n in range(3)]
    keys = [maker.key(20 + n) for n in range(3)]
    rows = "".join(f"witness w{n} {maker.vkey(names[n], 4, keys[n])}\n" for n in range(3))
    trust = maker.TRUST.replace(b"quorum none\n", f"{rows}group g 2 w0 w1 w2\ngroup h all g\nquorum h\n".encode())
    signs = [maker.cosignature(made.text(), name, key) for name, key in zip(names, keys, strict=True)]
    late = maker.cosignature(made.text(), names[2], keys[2], 2**63)
    found = frozenset({("witness", None)})
    for name, cosigned, expected in (
        ("two", signs[:2], frozenset[Found]()),
        ("one", signs[:1], found),
        ("one-twice", [signs[0], signs[0]], found),
        ("two-and-a-bad-one", [*signs[:2], _flipped(signs[2])], found),
        ("two-and-one-out-of-time", [*signs[:2], late], found),
        ("a-bad-one-beside-its-good-one", [*signs, _flipped(signs[2])], found),
        ("a-stranger", [signs[0], maker.cosignature(made.text(), names[1], maker.STRANGER)], found),
    ):
        yield Case(f"witness-{name}", made.bundle(0, 14, cosigned=cosigned).files(), expected, trust=trust)


def every() -> list[Case]:
    return [*good(), *bad_lines(), *bad_places(), *bad_manifests(), *bad_ledgers()]


EVERY: Final = every()
