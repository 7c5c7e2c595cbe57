"""Vectors of what can be read in two ways: zips, geneses that do not fit themselves, checks that depend on others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

from tallystick.core.canonical import decode, encode
from tallystick.core.cosignature import WitnessSigner
from tallystick.core.keys import commitment, epoch_key, genesis_message
from tallystick.core.policy import Policy, Witness
from tallystick.core.proof import Proof
from tallystick.core.strict import render_base64
from tallystick.core.system import EpochClosed
from tests.evidence.forge import KEYS, Insider, fixed_key
from vectors.case import Case, SmallCase
from vectors.cases_ledger import pruned_ledger, short_ledger
from vectors.scene import NOW, Bundle, bundle, chained_anew, event, ledger, signed, signed_anew, vkey
from vectors.zips import Zip

LINES: Final = ledger().lines
OTHER: Final = chained_anew([*LINES[:5], signed_anew(LINES[5], payload={"n": 1_000}), *LINES[6:]], 6)
STRANGER: Final = fixed_key(9)
NONE: Final = ("bundle", None)


def cases() -> Iterator[Case]:
    yield from _zips()
    yield from _broken_off()
    yield from _geneses()
    yield from _held()
    yield from _epochs()
    yield from _lines()
    yield from _manifests()


def small_cases() -> Iterator[SmallCase]:
    witness = Witness("w", WitnessSigner("w.example/1", fixed_key(11)).witness_key)
    asked = Policy(logs=(vkey(KEYS.checkpoint),), witnesses=(witness,), quorum="w").render()
    good = Proof(0, (), signed(LINES, 1)).render()
    says = "a proof of another form, of which nobody asks who saw its checkpoint"
    files = {"proof": good.replace(b"index 0", b"index 00"), "record": LINES[0]}
    yield SmallCase("proof", "none-and-not-cosigned", "11", says, files, ("checkpoint",), trust=asked)
    plain = Policy(logs=(vkey(KEYS.checkpoint),)).render()
    name, key = b"caf\xe9.example", b"\x01" + KEYS.checkpoint.public_key().public_bytes_raw()
    key_id = sha256(name + b"\n" + key).digest()[:4].hex().encode()
    odd = b"log " + name + b"+" + key_id + b"+" + render_base64(key).encode() + b"\n"
    yield SmallCase(
        "trust", "name-not-utf-8", "7.2", "the name of a key is not UTF-8", {}, ("trust",), trust=odd + plain[-12:]
    )


def _part() -> Bundle:
    return bundle(LINES, first=2, end=8)


def _zips() -> Iterator[Case]:
    files = _part().files()
    for name, says, made in (
        ("described", "sizes behind the data, as a stream has them", Zip(files, described=32)),
        ("described-64", "the same, in 64 bits", Zip(files, described=64)),
        ("large-end", "an end in 64 bits", Zip(files, is_large=True)),
        ("extra", "an extra field of another kind", Zip(files, extra=b"\x99\x99\x02\x00ab")),
        ("flags-taken", "flags that say nothing of how to read it", Zip(files, flags=0x0806)),
    ):
        yield Case(f"zip-{name}", "10.1", says, files, raw_zip=made.render())
    good = Zip(files).render()
    directory_at = good.index(b"PK\x01\x02")
    for name, says, made in (
        ("comment", "a comment", Zip(files, comment=b"x")),
        ("entry-comment", "a comment of an entry", Zip(files, entry_comment=b"x")),
        ("behind", "bytes behind its end", Zip(files, behind=b"x")),
        ("before", "bytes before its first entry", Zip(files, before=b"x")),
        ("between", "bytes between two entries", Zip(files, between=b"x")),
        ("flags-6", "strong encryption, as a flag says", Zip(files, flags=1 << 6)),
        ("flags-13", "a hidden directory, as a flag says", Zip(files, flags=1 << 13)),
        ("method", "packed by another method, as it says", Zip(files, method=12)),
        ("folder-mode", "an entry of the type of a folder", Zip(files, mode=0o040755)),
        ("disk", "parts on another disk", Zip(files, disk=1)),
        ("count", "a count of four entries", Zip(files, count=4)),
        ("extra-broken", "an extra field that breaks off", Zip(files, extra=b"\x99\x99\x03\x00ab")),
        ("extra-large-empty", "a field for large numbers, of which there are none", Zip(files, extra=b"\1\0\0\0")),
        (
            "two-directories",
            "two ends that say two directories",
            Zip(files, is_large=True, end_offset=directory_at + 1),
        ),
        ("local-name", "another name in the head of an entry", Zip(files, local={"name": b"manifest.jsoN"})),
        ("local-flags", "other flags in the head of an entry", Zip(files, local={"flags": 2})),
        ("local-method", "another method in the head of an entry", Zip(files, local={"method": 8})),
        ("local-crc", "another checksum in the head of an entry", Zip(files, local={"crc": 0})),
        ("local-size", "another size in the head of an entry", Zip(files, local={"size": 1})),
    ):
        yield Case(f"zip-{name}", "10.1", says, files, (NONE,), raw_zip=made.render())


def _broken_off() -> Iterator[Case]:
    made = _part()
    made.document["mac_keys"][0]["key"] = epoch_key(KEYS.event_mac, 5).hex()
    raw = bytearray(Zip(made.files()).render())
    raw[raw.index(made.events) + 100] ^= 1
    says = "the records are not those of the checksum; nothing is said of their signatures"
    yield Case("zip-records-changed", "11 (1)", says, made.files(), (NONE,), raw_zip=bytes(raw))


def of_genesis(payload: dict[str, Any], **members: Any) -> Bundle:
    """The records of all closed epochs, after a genesis that says something else, signed by the root key."""
    record = {name: value for name, value in decode(LINES[0]).items() if name != "signature"}
    record |= {"payload": {**record["payload"], **payload}, **members}
    genesis = encode({**record, "signature": KEYS.root.sign(genesis_message(encode(record))).hex()})
    return bundle(chained_anew([genesis, *LINES[1:]], 1), first=2, end=20)


def _geneses() -> Iterator[Case]:
    bank = vkey(KEYS.checkpoint, "forge/bank").render()
    for name, says, made in (
        (
            "key-name",
            "the checkpoint key of the genesis has another name than its origin",
            of_genesis({"checkpoint_key": bank}),
        ),
        ("ledger", "the genesis is a record of another ledger than it says", of_genesis({}, ledger="bank")),
        (
            *("names", "the origin of the genesis is not of the ledger that it names"),
            of_genesis({"origin": "forge/bank", "checkpoint_key": bank}),
        ),
    ):
        made.evidence = STRANGER
        told = f"{says}: it cannot be read, and nobody asks who sealed"
        yield Case.of(f"genesis-unreadable-{name}", "11 (3)", told, made, ("genesis", None))
    made = of_genesis({"nonce": "0"})
    known = signed(LINES, 3, key=STRANGER)
    says = "without a genesis nobody asks who signed a known checkpoint"
    root = signed(chained_anew([made.document["genesis"].encode(), *LINES[1:]], 1), 16, key=STRANGER)
    yield Case.of("genesis-unreadable-known", "11 (18)", says, made, ("genesis", None), known=root)
    says = "nor whether it is another ledger's, but its root counts"
    yield Case.of("genesis-unreadable-fork", "11 (18)", says, made, ("genesis", None), ("fork", None), known=known)


def _held() -> Iterator[Case]:
    found = (("fork", None), ("reach", None))
    known = signed(LINES, 11, key=STRANGER)
    says = "the known checkpoint is a stranger's, of a size that the bundle does not tell"
    yield Case.of("known-stranger-reach", "11 (18)", says, _part(), *found, known=known)
    known = signed(LINES, 8, key=STRANGER, origin="forge/bank")
    says = "the known checkpoint is another ledger's"
    yield Case.of("known-of-another", "11 (18)", says, _part(), ("fork", None), known=known)


def _epochs() -> Iterator[Case]:
    insider = Insider()
    insider.lines.pop()
    insider.versions["tallystick.ledger"] = 1
    insider.open(0, key=epoch_key(KEYS.event_mac, 7))
    event(insider, 0)
    made = whole(insider)
    says = "an opening commits to another key, and its epoch is not closed"
    yield Case.of("epoch-open-commitment", "11 (11)", says, made, ("epoch", None), ("commitment", None))
    insider = short_ledger(close=False)
    wrong = {**EpochClosed(0, 1, 5).payload(), "count": 4}
    insider.own("tallystick.epoch.closed", wrong)
    event(insider, 3)
    says = "a record after a close that counts wrongly"
    yield Case.of("epoch-after-wrong-close", "11 (9)", says, whole(insider), ("epoch", 7), ("epoch", None))
    insider = Insider()
    for _ in range(2):
        insider.own("tallystick.epoch.opened", insider.opening(0))
    insider.own("tallystick.epoch.opened", {"epoch": 0, "key_commitment": commitment(bytes(32)).hex()})
    insider.close()
    says = "the last of four openings commits to another key"
    yield Case.of("epoch-fourth-opening", "11 (11)", says, whole(insider), ("epoch", None), ("commitment", None))


def whole(insider: Insider, **more: Any) -> Bundle:
    """All of a ledger that never changed its checkpoint key."""
    return bundle(insider.lines, checkpoint=signed(insider.lines, key=KEYS.checkpoint), **more)


def _lines() -> Iterator[Case]:
    rotated = signed_anew(LINES[13], actor={"id": "mallory", "type": "system"})
    lines = chained_anew([*LINES[:13], rotated, *LINES[14:]], 14)
    lines[17] = signed_anew(lines[17], prev_hash="0" * 64)
    made = bundle(lines, first=16, end=20, checkpoint=signed(lines, key=KEYS.checkpoint))
    says = "a change of keys beside the lines fails, and the second line does not follow on the first"
    yield Case.of("rotation-beside-and-chain", "11 (7)", says, made, ("key-rotation", None), ("chain", 2))
    made = bundle(LINES, first=2, end=8, epochs=[0])
    made.document["hashes"] = []
    del made.lines[-1]
    says = "a line is missing at the end, and there are too few hashes, which nobody needs then"
    yield Case.of("missing-and-no-hashes", "11 (14)", says, made.stated(), ("missing", None), ("epoch", None))


def _manifests() -> Iterator[Case]:
    found = ("manifest", None)
    for name, says, origin in (
        ("slash", "an origin that ends in a slash", "forge/shop/"),
        ("space", "an origin with a space", "forge/shop 2"),
    ):
        made = _part()
        made.document["ledger"]["origin"] = origin
        yield Case.of(f"manifest-origin-{name}", "11 (2)", says, made, found)
    for name, says, absent in (
        ("genesis", "the genesis is said to be absent", [[0, 1], [3, 4]]),
        ("past", "positions past the tree are said to be absent", [[3, 4], [20, 22]]),
        ("elsewhere", "nothing of the range is absent", [[9, 10]]),
    ):
        made = bundle(LINES, first=2, end=8, gone=[(3, 4)])
        made.document["absent"] = absent
        yield Case.of(f"manifest-absent-{name}", "11 (2)", says, made, found)
    made = bundle(LINES, first=2, end=8, gone=[(3, 4)])
    made.document["end"]["checkpoint"] += "\n"
    says = "positions are absent, and the checkpoint is none"
    yield Case.of("manifest-absent-and-no-checkpoint", "11 (2)", says, made, found)
    tomorrow = "2026-03-17T00:01:00.00000"
    for name, says, created, expected in (
        ("at-tolerance", "the bundle was made a day from now", f"{tomorrow}0Z", ()),
        ("past-tolerance", "it was made a microsecond later", f"{tomorrow}1Z", (("clock", None),)),
    ):
        yield replace(
            Case.of(f"time-{name}", "11 (8)", says, bundle(LINES, first=2, end=8, created=created), *expected), now=NOW
        )
    for name, says, holds, expected in (
        ("1000", "a prune heeded 1,000 holds", [*range(1_000)], ()),
        ("1001", "a prune heeded one hold more than there can be", [*range(1_001)], (("prune", None),)),
        ("negative", "a prune heeded a hold at a negative position", [-1], (("prune", None),)),
        ("order", "a prune heeded holds out of order", [2, 1], (("prune", None),)),
    ):
        made = whole(pruned_ledger(say={"holds_checked": holds}), gone=[(2, 4)], created="2026-07-01T00:00:00.000000Z")
        yield replace(Case.of(f"pruned-holds-{name}", "9.4", says, made, *expected), now="2026-07-01T00:01:00Z")
