"""Vectors of whole bundles: good ones, and what those who have some or all of the keys can forge.

A forger states in the manifest what the lines are now, and seals it; so only the rule that was broken gives him away.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any, Final

from tallystick.core.canonical import encode
from tallystick.core.cosignature import WitnessSigner, with_cosignatures
from tallystick.core.manifest import BUNDLE_FILES, EVENTS_FILE, MANIFEST_FILE, SEAL_FILE
from tallystick.core.note import Note, SignatureLine
from tallystick.core.policy import Group, Policy, Witness
from tallystick.core.strict import render_base64
from tests.evidence.forge import KEYS, fixed_key
from vectors.case import Case
from vectors.scene import SECOND_KEY, Bundle, bundle, chained_anew, ledger, signed, signed_anew, vkey

LINES: Final = ledger().lines
OTHER: Final = chained_anew([*LINES[:5], signed_anew(LINES[5], payload={"n": 1_000}), *LINES[6:]], 6)
"""Another history under the same keys."""
SIZE: Final = len(LINES)
STRANGER: Final = fixed_key(9)

_TIMESTAMP: Final = {"over": "end.checkpoint", "token": render_base64(b"not judged"), "type": "rfc3161"}


def cases() -> Iterator[Case]:
    yield from _good()
    yield from _manifests()
    yield from _seals()
    yield from _trees()
    yield from _checkpoints()
    yield from _held()
    yield from _witnessed()
    yield from _places()


def _part() -> Bundle:
    return bundle(LINES, first=2, end=8)


def _good() -> Iterator[Case]:
    yield Case.of("complete", "10", "all closed epochs", bundle(LINES, end=20))
    yield Case.of("part", "10.2", "positions 2 to 7", _part())
    yield Case.of("one-record", "10.2", "a single record", bundle(LINES, first=11, end=12))
    yield Case.of("genesis-alone", "10.3", "position 0, and nothing else", bundle(LINES, end=1))
    yield Case.of("filtered", "10.2", "four records of two epochs", bundle(LINES, only=[3, 6, 10, 14]))
    yield Case.of(
        "filtered-own", "10.4", "a selector that fits records of the ledger's own", bundle(LINES, only=[0, 8, 13])
    )
    early = bundle(LINES, first=2, end=8, size=9)
    yield Case.of("small-checkpoint", "11 (13)", "a checkpoint from before the key changed", early)
    made = bundle(LINES, first=8, end=16, start=signed(LINES, 8))
    yield Case.of("start", "11 (17)", "held against the checkpoint where it begins", made)
    made = bundle(LINES, first=8, end=16, start=signed(LINES, 5))
    yield Case.of("start-before", "11 (17)", "held against a checkpoint from before it begins", made)
    second = Policy(logs=(vkey(SECOND_KEY),)).render()
    yield Case.of("trust-second-key", "11 (13)", "the trust file has the newer key alone", _part(), trust=second)
    known = signed(LINES, 8)
    yield Case.of("known", "11 (18)", "a known checkpoint of a size that the fold passes", _part(), known=known)
    yield Case.of("known-end", "11 (18)", "the known checkpoint is the end", _part(), known=signed(LINES))
    yield Case("zipped", "10.1", "a zip of the three files", _part().files(), as_zip=True)
    made = _part()
    made.document["timestamps"] = [_TIMESTAMP]
    yield Case.of("timestamp", "11 (21)", "a timestamp is listed, and not verified", made)


def _manifests() -> Iterator[Case]:
    for name, says, path, value in (
        ("format", "another format", "format", "tallystick-bundle/2"),
        ("unknown-member", "a member that no manifest has", "extra", 1),
        ("range", "a range past the tree", "range/end", SIZE + 1),
        ("range-empty", "an empty range", "range/end", 2),
        ("count", "more records than positions", "range/count", 7),
        ("count-zero", "no records", "range/count", 0),
        ("file", "a path for the file of records", "events/file", "../events.jsonl"),
        ("file-dot", "another character for its dot", "events/file", "eventsXjsonl"),
        ("hash-case", "a hash in upper case", "events/sha256", "A" * 64),
        ("created", "a time in another form", "created", "2026-03-16T00:00:00Z"),
        ("created-year-0", "a year before the first", "created", "0000-03-16T00:00:00.000000Z"),
        (
            "timestamps-over",
            "a timestamp over something else",
            "timestamps",
            [{**_TIMESTAMP, "over": "endXcheckpoint"}],
        ),
        ("timestamps", "a timestamp of an unknown type", "timestamps", [{"over": "end.checkpoint", "type": "x"}]),
        ("complete", "neither complete nor filtered", "complete", None),
        ("filter", "a filter of people's own words", "filter", [["event_type=shop.sold"]]),
        ("absent", "absent positions out of order", "absent", [[5, 6], [3, 4]]),
        ("absent-touching", "absent ranges that touch", "absent", [[3, 4], [4, 6]]),
        ("hashes", "a hash that is too short", "hashes", ["AAAA"]),
        ("record-in-range", "a record beside the lines that is of the range", "records", [LINES[3].decode()]),
        ("record-of-others", "a record beside the lines that is none", "records", ["{}"]),
    ):
        made = _part()
        _set(made.document, path, value)
        yield Case.of(f"manifest-{name}", "11 (2)", says, made, ("manifest", None))
    made = _part()
    del made.document["tool"]
    yield Case.of("manifest-missing-member", "11 (2)", "a member is missing", made, ("manifest", None))
    made = _part()
    made.document["records"].reverse()
    yield Case.of("manifest-records-order", "11 (2)", "records out of order", made, ("manifest", None))
    honest = encode(_part().document)
    for name, says, raw in (
        ("newline", "a newline at its end", honest + b"\n"),
        ("space", "a space", honest.replace(b'"complete":', b'"complete": ')),
        ("duplicate", "a name stands twice", honest.replace(b'"complete":true', b'"complete":true,"complete":true')),
        ("empty", "it is empty", b""),
        ("no-json", "it is no JSON", b"tallystick"),
        ("array", "it is an array", b"[]"),
    ):
        made = _part()
        made.raw_manifest = raw
        yield Case.of(f"manifest-{name}", "11 (2)", says, made, ("manifest", None))
    made = _part()
    made.raw_manifest = honest.replace(b'"complete":true', b'"complete":' + b"[" * 1_000_000)
    yield Case.of("manifest-deep", "11 (2)", "a million brackets in it", made, ("manifest", None), as_zip=True)
    made = _part()
    made.document["events"]["sha256"] = "0" * 64
    yield Case.of("events-hash", "11 (4)", "the manifest says another hash", made, ("events", None))
    made = _part()
    made.document["events"]["bytes"] += 1
    yield Case.of("events-bytes", "11 (4)", "the manifest says another length", made, ("events", None))
    made = bundle(LINES, first=2, end=8, epochs=[0])
    made.document["range"]["end"] = 9
    yield Case.of("range-longer", "11 (6)", "the range says one position more", made, ("missing", None))
    made = _part()
    made.document["range"]["prev_hash"] = "0" * 64
    yield Case.of("range-prev-hash", "11 (7)", "the range says another hash before it", made, ("chain", 1))


def _set(document: dict[str, Any], path: str, value: Any) -> None:
    *above, name = path.split("/")
    for one in above:
        document = document[one]
    document[name] = value


def _seals() -> Iterator[Case]:
    honest = _part().files()
    made = _part()
    made.raw_seal = honest[SEAL_FILE]
    made.document["tool"] = "vectorz"
    yield Case.of("seal-byte", "11 (15)", "a byte of the manifest is changed", made, ("seal", None))
    made = _part()
    made.evidence = STRANGER
    yield Case.of("seal-stranger", "11 (15)", "sealed by a stranger", made, ("seal", None))
    made = _part()
    made.evidence = KEYS.checkpoint
    yield Case.of("seal-wrong-key", "11 (15)", "sealed by the checkpoint key", made, ("seal", None))
    made = _part()
    made.namespace = "file"
    yield Case.of("seal-namespace", "11 (15)", "sealed in another namespace", made, ("seal", None))
    text = honest[SEAL_FILE].decode()
    body = "".join(text.split("\n")[1:-2])
    wide = "\n".join(["-----BEGIN SSH SIGNATURE-----", body[:76], body[76:152], body[152:228], body[228:], ""])
    for name, says, raw in (
        ("crlf", "lines end in CR LF", text.replace("\n", "\r\n")),
        ("wide", "lines of 76 characters", wide + "-----END SSH SIGNATURE-----\n"),
        ("trailing", "more behind it", text + "\n"),
        ("empty", "it is empty", ""),
        ("padding", "the base64 has no padding", text.replace("=\n", "\n")),
    ):
        made = _part()
        made.raw_seal = raw.encode()
        if made.raw_seal != honest[SEAL_FILE]:
            yield Case.of(f"seal-{name}", "10.6", says, made, ("seal", None))


def _trees() -> Iterator[Case]:
    for name, says, edit in (
        ("flipped", "a hash is changed", lambda hashes: [render_base64(bytes(32)), *hashes[1:]]),
        ("dropped", "a hash is gone", lambda hashes: hashes[1:]),
        ("last-dropped", "the last hash is gone", lambda hashes: hashes[:-1]),
        ("extra", "a hash too many", lambda hashes: [*hashes, hashes[-1]]),
        ("swapped", "two hashes are swapped", lambda hashes: [hashes[1], hashes[0], *hashes[2:]]),
        ("none", "no hashes", lambda _: []),
    ):
        made = _part()
        made.document["hashes"] = edit(made.document["hashes"])
        yield Case.of(f"hashes-{name}", "11 (14)", says, made, ("root", None))
    made = bundle(LINES, only=[3, 6, 10, 14])
    del made.lines[1]
    says = "a filtered bundle lost a record, and its manifest was mended"
    yield Case.of("filtered-lost", "11 (14)", says, made.stated(), ("root", None))
    made = bundle(LINES, only=[3, 6, 10, 14])
    made.document["range"]["end"] = 12
    says = "a record of a filtered bundle is past the range"
    yield Case.of("filtered-outside", "11 (6)", says, made, ("misplaced", 4))
    made = bundle(OTHER, first=2, end=8, checkpoint=signed(LINES))
    yield Case.of("root-of-another", "11 (14)", "the checkpoint is of another history", made, ("root", None))
    made = bundle(LINES, first=2, end=8, size=SIZE - 1, checkpoint=_resized(SIZE, of=SIZE - 1))
    yield Case.of("size-plus-one", "11 (14)", "the checkpoint says one record more", made, ("root", None))
    made = bundle(LINES, first=2, end=8, checkpoint=_resized(SIZE - 1, of=SIZE))
    yield Case.of("size-minus-one", "11 (14)", "the checkpoint says one record less", made, ("root", None))


def _resized(size: int, *, of: int) -> bytes:
    """A signed checkpoint of one size with the root of another."""
    note = Note.parse(signed(LINES, of))
    origin, _, root, _ = note.text.split("\n")
    text = f"{origin}\n{size}\n{root}\n"
    key = vkey(SECOND_KEY)
    return Note(text, (SignatureLine(key.name, key.key_id, SECOND_KEY.sign(text.encode())),)).render()


def _checkpoints() -> Iterator[Case]:
    note = Note.parse(signed(LINES))
    good = note.signatures[0]
    stranger = Note.parse(signed(LINES, key=STRANGER)).signatures[0]
    bad = SignatureLine(good.name, good.key_id, bytes(64))
    for name, says, signatures, expected in (
        ("stranger", "signed by a stranger", (stranger,), ("checkpoint", None)),
        (
            "wrong-id",
            "the key id is another",
            (SignatureLine(good.name, bytes(4), good.signature),),
            ("checkpoint", None),
        ),
        ("bad-beside-good", "a bad signature by the key beside a good one", (good, bad), ("checkpoint", None)),
        ("unknown-beside-good", "a signature by nobody known beside the good one", (stranger, good), None),
    ):
        made = bundle(LINES, first=2, end=8, checkpoint=Note(note.text, signatures).render())
        yield Case.of(f"checkpoint-{name}", "11 (13)", says, made, *([expected] if expected else []))
    made = bundle(LINES, first=2, end=8, checkpoint=signed(LINES, origin="audit.example/another"))
    says = "the checkpoint is of another ledger, by the same key"
    yield Case.of("checkpoint-of-another-ledger", "11 (13)", says, made, ("checkpoint", None))
    made = bundle(LINES, first=2, end=8, checkpoint=signed(LINES, key=KEYS.checkpoint))
    yield Case.of("checkpoint-retired-key", "5.4", "signed by the key of an earlier period", made, ("checkpoint", None))
    text = signed(LINES).decode()
    root = note.text.split("\n")[2]
    for name, says, raw in (
        ("extension", "an extension line", text.replace(f"{root}\n", f"{root}\nmore\n")),
        ("leading-zero", "a leading zero in the size", text.replace("\n21\n", "\n021\n")),
        ("sign", "a sign before the size", text.replace("\n21\n", "\n+21\n")),
        ("unpadded", "a root without padding", text.replace(root, root.rstrip("="))),
        ("no-signature", "no signature", text.partition("\n\n")[0] + "\n\n"),
    ):
        made = _part()
        made.document["end"]["checkpoint"] = raw
        yield Case.of(f"checkpoint-{name}", "7.2", says, made, ("manifest", None))
    strange = Policy(logs=(vkey(STRANGER),)).render()
    says = "the trust file has another key of that origin"
    yield Case.of("trust-stranger", "11 (13)", says, _part(), ("checkpoint", None), trust=strange)
    elsewhere = Policy(logs=(vkey(SECOND_KEY, "forge/bank"),)).render()
    says = "the trust file is for another origin"
    yield Case.of("trust-other-origin", "11 (13)", says, _part(), ("checkpoint", None), trust=elsewhere)
    early = bundle(LINES, first=2, end=8, size=9)
    newer = Policy(logs=(vkey(SECOND_KEY),)).render()
    says = "the trust file has a newer key alone, which vouches for nothing before it"
    yield Case.of("trust-newer-key", "11 (13)", says, early, ("checkpoint", None), trust=newer)


def _held() -> Iterator[Case]:
    made = bundle(LINES, first=8, end=16, start=signed(OTHER, 8))
    yield Case.of("start-fork", "11 (17)", "the start checkpoint is of another history", made, ("fork", None))
    made = bundle(LINES, first=8, end=16, start=signed(LINES, 8, key=STRANGER))
    yield Case.of("start-stranger", "11 (17)", "the start checkpoint is signed by a stranger", made, ("fork", None))
    early = bundle(LINES, first=2, end=8, size=9)
    says = "an older bundle than what is known"
    yield Case.of("rollback", "11 (18)", says, early, ("rollback", None), known=signed(LINES))
    says = "the known checkpoint is of another history"
    yield Case.of("known-fork", "11 (18)", says, _part(), ("fork", None), known=signed(OTHER, 8))
    yield Case.of("known-fork-end", "11 (18)", says, _part(), ("fork", None), known=signed(OTHER))
    says = "the bundle does not tell the root at the known size"
    yield Case.of("reach", "11 (18)", says, _part(), ("reach", None), known=signed(LINES, 11))
    second = bundle(OTHER, first=4, end=12).files()
    says = "two bundles, each right, of two histories"
    yield Case.of("pair-fork", "11", says, _part(), ("fork", None), second=second)
    second = bundle(LINES, first=4, end=12).files()
    yield Case.of("pair", "11", "two bundles of one history that overlap", _part(), second=second)
    second = bundle(LINES, only=[3, 6, 10]).files()
    yield Case.of("pair-filtered", "11", "a complete bundle and a filtered one", _part(), second=second)


def _witnessed() -> Iterator[Case]:
    signers = [WitnessSigner(f"witness.example/w{n}", fixed_key(20 + n)) for n in (1, 2, 3)]
    witnesses = tuple(Witness(f"w{n}", signer.witness_key) for n, signer in enumerate(signers, start=1))
    group = Group("two", 2, ("w1", "w2", "w3"))
    policy = Policy(logs=(vkey(KEYS.checkpoint),), witnesses=witnesses, groups=(group,), quorum="two").render()
    text = Note.parse(signed(LINES)).text
    lines = [signer.cosign(text, seconds=1_773_612_000) for signer in signers]
    broken = SignatureLine(lines[1].name, lines[1].key_id, lines[1].signature[:-1] + b"\0")
    for name, says, given, expected in (
        ("quorum", "two of three witnesses", (lines[0], lines[2]), None),
        ("alone", "one of three witnesses", (lines[0],), ("witness", None)),
        ("none", "no witness", (), ("witness", None)),
        ("bad", "two good cosignatures and a bad one", (lines[0], lines[2], broken), ("witness", None)),
        ("twice", "one witness, twice", (lines[0], lines[0]), ("witness", None)),
    ):
        note = with_cosignatures(signed(LINES), given) if given else signed(LINES)
        made = bundle(LINES, first=2, end=8, checkpoint=note)
        yield Case.of(f"witness-{name}", "11 (19)", says, made, *([expected] if expected else []), trust=policy)


def _places() -> Iterator[Case]:
    expected = (("bundle", None),)
    made = _part()
    made.extra["notes.txt"] = b"a fourth file\n"
    yield Case.of("files-fourth", "11 (1)", "a fourth file", made, *expected)
    for name in BUNDLE_FILES:
        made = _part()
        made.left_out = (name,)
        yield Case.of(f"files-without-{name.replace('.', '-')}", "11 (1)", f"{name} is not there", made, *expected)
    made = _part()
    made.left_out, made.extra["elsewhere"] = (EVENTS_FILE,), made.events
    yield Case.of(
        "files-link", "11 (1)", "a link in place of the records", made, *expected, links={EVENTS_FILE: "elsewhere"}
    )
    files = _part().files()
    for name, says, names in (
        ("parent", "a zip with a name that leads out", {MANIFEST_FILE: f"../{MANIFEST_FILE}"}),
        ("folder", "a zip with a folder in it", {MANIFEST_FILE: f"bundle/{MANIFEST_FILE}"}),
        ("fourth", "a zip of four files", {"": "notes.txt"}),
    ):
        given = {names.get(one, one): data for one, data in {**files, **({"": b""} if "" in names else {})}.items()}
        yield Case(f"zip-{name}", "11 (1)", says, files, expected, raw_zip=_zip(given))
    plain = _zip(files)
    yield Case("zip-encrypted", "11 (1)", "a zip that says it is encrypted", files, expected, raw_zip=_flagged(plain))
    yield Case("zip-truncated", "11 (1)", "half a zip", files, expected, raw_zip=plain[: len(plain) // 2])
    yield Case("zip-none", "11 (1)", "a file that is no zip", files, expected, raw_zip=b"tallystick")
    yield Case(
        "zip-twice", "11 (1)", "a zip with a name twice", files, expected, raw_zip=_zip(files, twice=MANIFEST_FILE)
    )


def _zip(files: dict[str, bytes], *, twice: str | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the name that comes twice
        for name, data in [*files.items(), *([(twice, files[twice])] if twice else [])]:
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return out.getvalue()


def _flagged(archive: bytes) -> bytes:
    """The same zip with the bit set, in every header, that says an entry is encrypted."""
    out = bytearray(archive)
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = out.find(magic)
        while at >= 0:
            out[at + offset] |= 1
            at = out.find(magic, at + 4)
    return bytes(out)
