"""Changes by chance of what the readers of a bundle are given: documents, texts, bytes and zips.

Members of manifests and records are changed and sealed anew, as somebody with all the keys would.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

from tallystick.core.canonical import encode
from tallystick.core.checkpoint import Checkpoint, sign_checkpoint
from tallystick.core.keys import epoch_key, genesis_message
from tallystick.core.manifest import EVENTS_FILE, MANIFEST_FILE, SEAL_FILE
from tallystick.core.merkle import Tree, leaf_hash
from tallystick.core.note import Signer
from tallystick.core.sshsig import BUNDLE_NAMESPACE, sign_file
from tallystick.errors import RejectedError
from tests.evidence.forge import KEYS, ORIGIN, fixed_key, reseal
from tests.verifier import lying_zips
from tests.verifier.changed_texts import EDGES, broken, near, respelt, retold
from tests.verifier.given import Files, Given
from vectors.scene import Hashes, ledger

LINES: Final = ledger().lines


class Changes:
    """Changes of what was given, by chance."""

    def __init__(self, seed: int) -> None:
        self.chance: Final = random.Random(seed)
        self._kinds: Final[dict[str, tuple[Callable[[Given], Given], ...]]] = {
            "bundle": (
                self._manifest,
                self._manifest,
                self._record,
                self._lines,
                self._bytes,
                self._notes,
                self._trust,
                self._zip,
                self._known,
                self._history,
                self._spelling,
                self._now,
                self._forged,
                self._genesis,
            ),
            "record": (self._single, self._bytes, self._spelling),
            "checkpoint": (self._notes, self._bytes, self._trust),
            "proof": (self._notes, self._bytes, self._trust, self._single, self._spelling, self._proof),
        }

    def of(self, given: Given) -> Given:
        """It with one to three changes."""
        for _ in range(self.chance.choice((1, 1, 1, 2, 3))):
            change = self.chance.choice(self._kinds[given.kind])
            with suppress(_Unfit, LookupError, TypeError, ValueError, RecursionError):  # it does not fit what there is
                given = change(given)
        return given

    # ------------------------------------------------------------------------------------------ documents

    def _edited(self, document: Any) -> tuple[Any, str]:
        """A document with one thing in it changed, and what."""
        places = [*_places(document)]
        if not places:
            raise _Unfit
        path = self.chance.choice(places)
        inner = document
        for step in path[:-1]:
            inner = inner[step]
        name, value = path[-1], inner[path[-1]]
        how = self.chance.choice(("edge", "edge", "near", "other", "remove", "twice", "swap", "extra"))
        if how == "edge":
            inner[name] = self.chance.choice(EDGES)
        elif how == "near" and type(value) is int:
            inner[name] = value + self.chance.choice((-1, 1, 2, 1000))
        elif how == "near" and type(value) is str:
            inner[name] = near(value, self.chance)
        elif how == "near" and type(value) is bool:
            inner[name] = not value
        elif how == "other":
            inner[name] = self._at(document, self.chance.choice(places))
        elif how == "remove":
            del inner[name]
        elif how == "twice" and type(inner) is list:
            inner.insert(name, value)
        elif how == "swap" and type(inner) is list and len(inner) > 1:
            other = self.chance.randrange(len(inner))
            inner[name], inner[other] = inner[other], inner[name]
        elif how == "extra" and type(inner) is dict:
            inner[self.chance.choice(("a", "zz", "\U0001f600", "", "id"))] = self.chance.choice(EDGES)
        else:
            raise _Unfit
        return document, f"{how} at {'/'.join(map(str, path))}"

    @staticmethod
    def _at(document: Any, path: Sequence[Any]) -> Any:
        for step in path:
            document = document[step]
        return json.loads(json.dumps(document))

    def _manifest(self, given: Given) -> Given:
        document, how = self._edited(_parsed(given.files, MANIFEST_FILE))
        return self._sealed(given, document, f"manifest: {how}")

    def _sealed(self, given: Given, document: Any, how: str) -> Given:
        """With another manifest, nearly always sealed by the ledger's own key."""
        with suppress(RejectedError):
            files = {**given.files, MANIFEST_FILE: encode(document)}
            if given.key is not None and self.chance.random() < 0.9:
                files[SEAL_FILE] = sign_file(files[MANIFEST_FILE], given.key, namespace=BUNDLE_NAMESPACE)
            return replace(given, files=files, how=(*given.how, how))
        raise _Unfit

    def _restated(self, given: Given, lines: Sequence[bytes], how: str) -> Given:
        """With other lines, of which the manifest tells."""
        document = _parsed(given.files, MANIFEST_FILE)
        data = b"".join(line + b"\n" for line in lines)
        with suppress(TypeError, KeyError):
            document["events"] |= {"bytes": len(data), "sha256": sha256(data).hexdigest()}
            document["range"]["count"] = len(lines)
        changed = replace(given, files={**given.files, EVENTS_FILE: data})
        return self._sealed(changed, document, how)

    def _record(self, given: Given) -> Given:
        """A record of the lines, or of those beside, changed and signed."""
        lines = given.files[EVENTS_FILE].split(b"\n")[:-1]
        document = _parsed(given.files, MANIFEST_FILE)
        beside = document.get("records") if type(document) is dict else None
        if beside and self.chance.random() < 0.4:
            at = self.chance.randrange(len(beside))
            line, how = self._changed_line(str(beside[at]).encode())
            beside[at] = line.decode()
            return self._sealed(given, document, f"beside {at}: {how}")
        if not lines:
            raise _Unfit
        at = self.chance.randrange(len(lines))
        lines[at], how = self._changed_line(lines[at])
        return self._restated(given, lines, f"line {at + 1}: {how}")

    def _changed_line(self, line: bytes) -> tuple[bytes, str]:
        try:
            members, how = self._edited(json.loads(line))
            if type(members) is not dict:
                raise _Unfit
            epoch = members.get("epoch")
            if type(epoch) is int and 0 <= epoch < 2**32 and self.chance.random() < 0.8:
                return reseal(members, mac_key=epoch_key(KEYS.event_mac, epoch)), how
            return encode(members), how
        except (ValueError, RejectedError, TypeError, OverflowError):
            raise _Unfit from None

    def _genesis(self, given: Given) -> Given:
        """Another genesis, signed by the root key, of which the manifest tells."""
        document = _parsed(given.files, MANIFEST_FILE)
        try:
            members, how = self._edited(json.loads(document["genesis"]))
            signed = encode({name: value for name, value in members.items() if name != "signature"})
            genesis = encode({**members, "signature": KEYS.root.sign(genesis_message(signed)).hex()})
            document["genesis"], document["ledger"]["id"] = genesis.decode(), sha256(genesis).hexdigest()
        except (ValueError, KeyError, TypeError, RejectedError, AttributeError):
            raise _Unfit from None
        return self._sealed(given, document, f"genesis: {how}")

    def _single(self, given: Given) -> Given:
        line, how = self._changed_line(given.files["record"])
        return replace(given, files={**given.files, "record": line}, how=(*given.how, f"record: {how}"))

    def _lines(self, given: Given) -> Given:
        """Lines left out, doubled, exchanged, or joined."""
        lines = given.files[EVENTS_FILE].split(b"\n")[:-1]
        if len(lines) < 2:
            raise _Unfit
        at, other = self.chance.randrange(len(lines)), self.chance.randrange(len(lines))
        how = self.chance.choice(("drop", "twice", "swap", "blank", "cut"))
        if how == "drop":
            del lines[at]
        elif how == "twice":
            lines.insert(other, lines[at])
        elif how == "swap":
            lines[at], lines[other] = lines[other], lines[at]
        elif how == "blank":
            lines.insert(at, b"")
        else:
            lines = lines[:at]
        if self.chance.random() < 0.7:
            return self._restated(given, lines, f"lines: {how} {at + 1}")
        data = b"".join(line + b"\n" for line in lines)[: self.chance.choice((None, -1))]
        return replace(
            given, files={**given.files, EVENTS_FILE: data}, how=(*given.how, f"lines, untold: {how} {at + 1}")
        )

    def _forged(self, given: Given) -> Given:
        """All lines of a whole bundle chained, signed and hashed anew, under a checkpoint that the ledger signed."""
        document = _parsed(given.files, MANIFEST_FILE)
        lines = given.files[EVENTS_FILE].split(b"\n")[:-1]
        try:
            is_whole = document["range"]["first"] == 0 and not document["records"] and not document["absent"]
            at = self.chance.randrange(1, len(lines))
            members, how = self._edited(json.loads(lines[at]))
            lines[at] = encode(members)
            for number in range(at, len(lines)):
                said = json.loads(lines[number]) | {"prev_hash": sha256(lines[number - 1]).hexdigest()}
                lines[number] = reseal(said, mac_key=epoch_key(KEYS.event_mac, said["epoch"]))
            note = document["end"]["checkpoint"]
            origin, size = note.split("\n")[:2]
        except (ValueError, KeyError, TypeError, RejectedError, OverflowError, AttributeError, IndexError):
            raise _Unfit from None
        if not is_whole or int(size) != len(lines):
            raise _Unfit
        tree, _ = Tree.empty().extend([leaf_hash(line) for line in lines])
        with suppress(RejectedError):
            signer = Signer(origin, self.chance.choice((KEYS.checkpoint, fixed_key(4))))
            document["end"]["checkpoint"] = sign_checkpoint(Checkpoint(origin, len(lines), tree.root), signer).decode()
        changed = replace(given, files={**given.files, MANIFEST_FILE: encode(document)})
        return self._restated(changed, lines, f"forged line {at + 1}: {how}")

    # ------------------------------------------------------------------------------------------ texts and bytes

    def _bytes(self, given: Given) -> Given:
        """A byte, or a few, of one of the files."""
        name = self.chance.choice(sorted(given.files))
        data, how = broken(given.files[name], self.chance)
        return replace(given, files={**given.files, name: data}, how=(*given.how, f"{name}: {how}"))

    def _notes(self, given: Given) -> Given:
        """One of the checkpoints."""
        if given.kind == "checkpoint":
            note, how = retold(given.files["checkpoint"], self.chance)
            return replace(given, files={"checkpoint": note}, how=(*given.how, f"note: {how}"))
        if given.kind == "proof":
            proof, how = retold(given.files["proof"], self.chance)
            return replace(given, files={**given.files, "proof": proof}, how=(*given.how, f"proof: {how}"))
        document = _parsed(given.files, MANIFEST_FILE)
        side = self.chance.choice(("end", "start"))
        try:
            note, how = retold(document[side]["checkpoint"].encode(), self.chance)
            document[side]["checkpoint"] = note.decode()
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError):
            raise _Unfit from None
        return self._sealed(given, document, f"{side}: {how}")

    def _known(self, given: Given) -> Given:
        if given.known is None:
            with suppress(KeyError, TypeError, AttributeError, RejectedError):
                note = _parsed(given.files, MANIFEST_FILE)["end"]["checkpoint"].encode()
                Checkpoint.of_note(note)
                return replace(given, known=note, how=(*given.how, "known: the end"))
            raise _Unfit
        note, how = retold(given.known, self.chance)
        try:
            Checkpoint.of_note(note)  # what is no checkpoint is no finding about a bundle
        except RejectedError:
            raise _Unfit from None
        return replace(given, known=note, how=(*given.how, f"known: {how}"))

    def _history(self, given: Given) -> Given:
        """A checkpoint, known or where it goes on from, of any size and by any key, of this history or of another."""
        size, origin = self.chance.randrange(len(LINES) + 1), self.chance.choice((ORIGIN, ORIGIN, "forge/bank"))
        root = self.chance.choice((Hashes(LINES).root(size), bytes(32)))
        key = self.chance.choice((KEYS.checkpoint, fixed_key(4), fixed_key(9)))
        note = sign_checkpoint(Checkpoint(origin, size, root), Signer(origin, key))
        if self.chance.random() < 0.5:
            return replace(given, known=note, how=(*given.how, f"known: another of {size}"))
        document = _parsed(given.files, MANIFEST_FILE)
        document["start"] = {"checkpoint": note.decode()}
        return self._sealed(given, document, f"start: another of {size}")

    def _spelling(self, given: Given) -> Given:
        """A number or a string in JSON, spelt in another way."""
        name = self.chance.choice(sorted(given.files.keys() & {"record", MANIFEST_FILE, EVENTS_FILE}))
        data, how = respelt(given.files[name], self.chance)
        if name == EVENTS_FILE and self.chance.random() < 0.8:
            return self._restated(given, data.split(b"\n")[:-1], f"{name}: {how}")
        return replace(given, files={**given.files, name: data}, how=(*given.how, f"{name}: {how}"))

    def _trust(self, given: Given) -> Given:
        trust, how = retold(given.trust, self.chance)
        return replace(given, trust=trust, how=(*given.how, f"trust: {how}"))

    def _now(self, given: Given) -> Given:
        now = self.chance.choice(
            (
                "2026-03-15T23:55:00Z",
                "2026-03-15T23:54:59Z",
                "2026-03-01T00:00:00Z",
                "2030-01-01T00:00:00Z",
                "2026-03-15T00:00:00Z",
                "2026-03-14T23:59:59Z",
            )
        )
        return replace(given, now=now, how=(*given.how, f"now {now}"))

    def _proof(self, given: Given) -> Given:
        """The lines of hashes of a proof."""
        lines = given.files["proof"].split(b"\n")
        how = self.chance.choice(("hash", "more", "less", "index", "extra"))
        if how == "hash":
            lines.insert(2, base64.b64encode(bytes(self.chance.choice((31, 32, 33)))))
        elif how == "more":
            lines[2:2] = [base64.b64encode(bytes(32))] * self.chance.choice((1, 59, 60, 61, 64))
        elif how == "less" and len(lines) > 4:
            del lines[2]
        elif how == "index":
            lines[1] = b"index %d" % self.chance.choice((0, 1, 4, 5, 7, 8, 2**53, 2**63 - 2, 2**63 - 1, 2**63))
        else:
            lines.insert(1, b"extra " + self.chance.choice((b"", b"AA==", b"AA", b"A" * 8, b"\xff")))
        return replace(given, files={**given.files, "proof": b"\n".join(lines)}, how=(*given.how, f"proof: {how}"))

    # ------------------------------------------------------------------------------------------ zips

    def _zip(self, given: Given) -> Given:
        """The three files as a zip, which is then changed in one of the ways in which zips lie."""
        if "bundle.zip" in given.files:
            data, how = broken(given.files["bundle.zip"], self.chance)
            return replace(given, files={"bundle.zip": data}, how=(*given.how, f"zip: {how}"))
        data, how = lying_zips.zipped(given.files, self.chance)
        return replace(given, files={"bundle.zip": data}, how=(*given.how, f"zip, {how}"))


class _Unfit(Exception):  # noqa: N818 - it is no error
    """The change does not fit what it was to be made of."""


def _parsed(files: Files, name: str) -> Any:
    try:
        return json.loads(files[name])
    except (ValueError, KeyError):
        raise _Unfit from None


def _places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = document.items() if type(document) is dict else enumerate(document) if type(document) is list else ()
    for name, value in pairs:
        yield (*path, name)
        yield from _places(value, (*path, name))
