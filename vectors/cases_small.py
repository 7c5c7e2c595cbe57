"""Vectors of single records, checkpoints and proofs, for readers that know nothing of bundles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tallystick.core.canonical import decode, encode
from tallystick.core.checkpoint import Checkpoint, sign_checkpoint
from tallystick.core.cosignature import WitnessSigner, with_cosignatures
from tallystick.core.merkle import inclusion_path, leaf_hash, node_hash
from tallystick.core.note import Note, Signer, sign_note
from tallystick.core.policy import Policy, Witness
from tallystick.core.proof import Proof
from tallystick.core.strict import render_base64
from tests.evidence.forge import KEYS, ORIGIN, fixed_key
from vectors.case import SmallCase
from vectors.cases_lines import cases as line_cases
from vectors.scene import Hashes, changed, ledger, signed, vkey

LINES: Final = ledger().lines
_KINDS: Final = ("genesis", "opening", "event", "event", "event", "event", "event", "close")
FIRST_KEY: Final = Policy(logs=(vkey(KEYS.checkpoint),)).render()


def cases() -> Iterator[SmallCase]:
    yield from _records()
    yield from _checkpoints()
    yield from _proofs()


def _records() -> Iterator[SmallCase]:
    for at in (0, 1, 4, 7, 13):
        yield SmallCase("record", f"position-{at}", "3", f"the record at position {at}", {"record": LINES[at]})
    for case in line_cases():
        if case.expected[1:] == (("not-canonical", 3),):
            line = case.files["events.jsonl"].split(b"\n")[2]
            if len(line) < 100_000:
                files = {"record": line}
                yield SmallCase("record", case.name, case.spec, case.says, files, ("not-canonical",))
    record = decode(LINES[4])
    for name, says, text in (
        ("occurred-space", "a space between day and time", "2026-03-15 12:00:00Z"),
        ("occurred-small-letters", "small letters", "2026-03-15t12:00:00z"),
        ("occurred-nine-digits", "nine digits of a second, and a zone", "2026-03-15T12:00:00.123456789-11:30"),
    ):
        yield SmallCase("record", name, "3.1", says, {"record": encode({**record, "occurred_at": text})})
    for name, says, members in (
        ("label-twice", "a label stands twice", {"labels": ["pci", "pci"]}),
        ("label-control", "a label has a control character", {"labels": ["p\u0001"]}),
        ("entity-empty", "the entity has no name", {"entity_id": ""}),
        ("entity-long", "an entity of 513 characters", {"entity_id": "e" * 513}),
        ("type-spaces", "an event type with a space", {"event_type": "shop sold"}),
        ("type-dots", "an event type with an empty word", {"event_type": "shop..sold"}),
        ("type-long", "an event type of 201 characters", {"event_type": "t" * 201}),
        ("version-zero", "an entity version of 0", {"entity_version": 0}),
        ("version-text", "an entity version that is a string", {"entity_version": "1"}),
        ("version-true", "an event version that is true", {"event_version": True}),
        ("position-negative", "a negative position", {"position": -1}),
        ("payload-array", "a payload that is an array", {"payload": []}),
        ("context-null", "no context", {"context": None}),
        ("actor-without-id", "an actor without an id", {"actor": {"name": "Jane"}}),
        ("actor-unknown-member", "an actor with a member that actors do not have", {"actor": {"id": "j", "x": "y"}}),
        ("actor-text", "an actor that is a string", {"actor": "jane"}),
        ("occurred-without-zone", "an occurred time without a zone", {"occurred_at": "2026-03-15T12:00:00"}),
        ("occurred-leap-second", "an occurred time of 60 seconds", {"occurred_at": "2016-12-31T23:59:60Z"}),
        ("occurred-ten-digits", "ten digits of a second", {"occurred_at": "2026-03-15T12:00:00.0123456789Z"}),
        ("occurred-year-0", "a year before the first", {"occurred_at": "0000-12-31T12:00:00Z"}),
        ("occurred-year-0-in-utc", "the same, in UTC", {"occurred_at": "0001-01-01T00:00:00+00:01"}),
        ("recorded-millis", "a recorded time of three digits", {"recorded_at": "2026-03-15T12:00:00.000Z"}),
        ("recorded-no-date", "a recorded time on February 30", {"recorded_at": "2026-02-30T12:00:00.000000Z"}),
        ("ledger-name", "a ledger's name with a space", {"ledger": "sh op"}),
        ("id-long", "an id of 129 characters", {"id": "i" * 129}),
        ("prev-hash-short", "a prev_hash that is too short", {"prev_hash": "0" * 63}),
    ):
        yield SmallCase("record", name, "3.1", says, {"record": encode({**record, **members})}, ("not-canonical",))


def _checkpoints() -> Iterator[SmallCase]:
    good = signed(LINES, 8)
    text = Note.parse(good).text
    root = text.split("\n")[2]
    yield SmallCase("checkpoint", "good", "7.2", "a checkpoint", {"checkpoint": good})
    plain = good.decode()
    for name, says, raw in (
        ("other-root", "another root", plain.replace(root, render_base64(bytes(32)))),
        ("other-size", "another size", plain.replace("\n8\n", "\n9\n")),
        ("other-origin", "another origin", plain.replace("forge/shop\n", "forge/shoq\n", 1)),
        ("extension", "an extension line", plain.replace(f"{root}\n", f"{root}\nmore\n")),
        ("leading-zero", "a leading zero", plain.replace("\n8\n", "\n08\n")),
        ("no-newline", "no newline at the end", plain[:-1]),
        ("crlf", "lines end in CR LF", plain.replace("\n", "\r\n")),
        ("hyphen", "a hyphen for the dash", plain.replace("\u2014", "-")),
        ("key-id-alone", "a signature line without a signature", f"{plain}\u2014 example.org/else AAAAAA==\n"),
        ("unsigned", "no signature line", plain.partition("\n\n")[0] + "\n\n"),
        ("empty", "nothing", ""),
    ):
        yield SmallCase("checkpoint", name, "7.2", says, {"checkpoint": raw.encode()}, ("checkpoint",))
    short = sign_note(text.replace(root, render_base64(bytes(31))), Signer(ORIGIN, KEYS.checkpoint)).render()
    says = "a root of 31 bytes, signed"
    yield SmallCase("checkpoint", "root-short", "7.2", says, {"checkpoint": short}, ("checkpoint",))
    stranger = signed(LINES, 8, key=fixed_key(9))
    yield SmallCase("checkpoint", "stranger", "7.2", "signed by a stranger", {"checkpoint": stranger}, ("checkpoint",))


def _proofs() -> Iterator[SmallCase]:
    size, node = 8, Hashes(LINES).node
    path = tuple(inclusion_path(4, size, node=node))
    proof = Proof(4, path, signed(LINES, size))
    good = proof.render()
    record = LINES[4]
    yield SmallCase("proof", "good", "7.4", "a proof", {"proof": good, "record": record})
    extra = Proof(4, path, proof.checkpoint, extra=b"more").render()
    yield SmallCase("proof", "extra", "7.4", "a proof with extra data", {"proof": extra, "record": record})
    other_path = (bytes(32), *path[1:])
    for name, says, raw, line, kind in (
        ("other-record", "another record", good, changed(record, payload={"n": 3}), "root"),
        ("other-path", "a hash is changed", Proof(4, other_path, proof.checkpoint).render(), record, "root"),
        ("short-path", "a hash is missing", Proof(4, path[1:], proof.checkpoint).render(), record, "root"),
        ("long-path", "a hash too many", Proof(4, (*path, path[0]), proof.checkpoint).render(), record, "root"),
        ("no-record", "the record is none", good, b"{}", "not-canonical"),
        (
            "stranger",
            "signed by a stranger",
            Proof(4, path, signed(LINES, 8, key=fixed_key(9))).render(),
            record,
            "checkpoint",
        ),
    ):
        yield SmallCase("proof", name, "7.4", says, {"proof": raw, "record": line}, (kind,))
    moved = Proof(5, path, proof.checkpoint).render()
    files = {"proof": moved, "record": record}
    yield SmallCase("proof", "other-index", "7.4", "another index", files, ("misplaced", "root"))
    yield from _made_proofs(path, record)
    head, _, note = good.partition(b"\n\n")
    hashes = b"".join(b"\n" + render_base64(bytes(32)).encode() for _ in range(64 - len(path)))
    for name, says, raw in (
        ("header", "another header", good.replace(b"@v1", b"@v2")),
        ("extra-empty", "extra data of nothing", good.replace(b"index", b"extra \nindex")),
        ("index-largest", "an index that no tree has", good.replace(b"index 4", b"index 9223372036854775807")),
        ("path-of-64", "64 hashes", head + hashes + b"\n\n" + note),
        ("index-sign", "a sign before the index", good.replace(b"index 4", b"index +4")),
        ("crlf", "lines end in CR LF", good.replace(b"\n", b"\r\n")),
        ("empty", "nothing", b""),
    ):
        yield SmallCase("proof", name, "7.4", says, {"proof": raw, "record": record}, ("checkpoint",))


def _made_proofs(path: tuple[bytes, ...], record: bytes) -> Iterator[SmallCase]:
    """Proofs in which every hash fits, and that prove nothing; and those of which others say something."""
    signer = Signer(ORIGIN, KEYS.checkpoint)
    left = leaf_hash(LINES[0])
    for name, says, line, found in (
        ("moved", "the record says another position than the one that it is proven at", LINES[4], "misplaced"),
        ("of-no-record", "bytes that are no record, proven to be a leaf", b"{}", "not-canonical"),
    ):
        over = sign_checkpoint(Checkpoint(ORIGIN, 2, node_hash(left, leaf_hash(line))), signer)
        files = {"proof": Proof(1, (left,), over).render(), "record": line}
        yield SmallCase("proof", name, "7.4", says, files, (found,))
    stranger, note = fixed_key(9), Note.parse(signed(LINES, 8))
    expected: tuple[str, ...]
    both = Policy(logs=(vkey(KEYS.checkpoint), vkey(stranger))).render()
    for name, says, size, expected in (
        ("both-keys", "two keys that are trusted signed", 8, ()),
        ("bad-beside-good", "one of two keys that are trusted signed another checkpoint", 7, ("checkpoint",)),
    ):
        lines = (*note.signatures, *Note.parse(signed(LINES, size, key=stranger)).signatures)
        files = {"proof": Proof(4, path, Note(note.text, lines).render()).render(), "record": record}
        yield SmallCase("proof", name, "11", says, files, expected, trust=both)
    witness = WitnessSigner("w.example/1", fixed_key(11))
    asked = Policy(logs=(vkey(KEYS.checkpoint),), witnesses=(Witness("w", witness.witness_key),), quorum="w").render()
    cosigned = with_cosignatures(note.render(), (witness.cosign(note.text, seconds=1_780_000_000),))
    for name, says, checkpoint, expected in (
        ("cosigned", "the witness cosigned", cosigned, ()),
        ("not-cosigned", "the witness did not cosign", note.render(), ("witness",)),
    ):
        files = {"proof": Proof(4, path, checkpoint).render(), "record": record}
        yield SmallCase("proof", name, "11 (19)", says, files, expected, trust=asked)
