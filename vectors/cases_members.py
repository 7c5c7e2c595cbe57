"""Vectors of the table of SPEC 12.1: for each member a value at its bound, and one past it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from tallystick.core.canonical import decode, encode
from tallystick.core.keys import commitment, epoch_key
from tallystick.core.merkle import inclusion_path
from tallystick.core.note import Note, SignatureLine, Signer, sign_note
from tallystick.core.policy import Policy
from tallystick.core.strict import render_base64
from tests.evidence.forge import KEYS, ORIGIN
from vectors.case import Case, Expected, SmallCase
from vectors.cases_clock import corrected_ledger
from vectors.cases_clock import of as of_corrected
from vectors.cases_ledger import pruned_ledger
from vectors.cases_readers import of_genesis, whole
from vectors.members import NOTHING, Member, members
from vectors.scene import SECOND_KEY, Bundle, Hashes, bundle, chained_anew, ledger, signed, signed_anew, vkey

LINES: Final = ledger().lines
LATER: Final = {"created": "2026-07-01T00:00:00.000000Z"}


def cases() -> Iterator[Case]:
    """The vectors of bundles."""
    for member in members():
        make = _MAKERS.get(member.of)
        for value, is_past in ((member.at, False), (member.past, True)):
            if make and value is not NOTHING:
                yield _case(member, value, is_past, make)


def small_cases() -> Iterator[SmallCase]:
    """Those of checkpoints and proofs."""
    for member in members():
        for value, is_past in ((member.at, False), (member.past, True)):
            if member.of in ("checkpoint", "proof"):
                name, says = _told(member, is_past)
                files, trust = (_checkpoint if member.of == "checkpoint" else _proof)(member.name, value)
                expected = ("checkpoint",) if is_past else member.found
                yield SmallCase(member.of, name, "12.1", says, files, expected, trust=trust)


def _case(member: Member, value: Any, is_past: bool, make: Callable[[Member, Any], Bundle]) -> Case:
    made, (name, says) = make(member, value), _told(member, is_past)
    expected = _PAST[member.of] if is_past else [*map(_expected, member.found)]
    case = Case.of(f"member-{name}", "12.1", says, made, *expected)
    if member.of == "records pruned":
        return replace(case, now="2026-07-01T00:01:00Z")
    if (member.of, member.name, is_past) == ("genesis", "origin", False):
        return replace(case, trust=Policy(logs=(vkey(KEYS.checkpoint, value),)).render())
    return case


def _told(member: Member, is_past: bool) -> tuple[str, str]:
    name = f"{member.of}-{member.name}".replace(" ", "-").replace("[].", "-").replace(".", "-").replace("_", "-")
    where = "past" if is_past else "at"
    return f"{name}-{where}", f"{member.name} of {member.of}, {where} its bound: {member.form}"


def _expected(found: str) -> Expected:
    kind, _, line = found.partition(" ")
    return kind, int(line) if line else None


def _manifest(member: Member, value: Any) -> Bundle:
    made = bundle(LINES, first=2, end=8)
    *above, name = member.name.split("[]")[0].split(".")
    inner = made.document
    for one in above:
        inner = inner[one]
    inner[name] = value
    return made


def _genesis(member: Member, value: Any) -> Bundle:
    said: dict[str, Any] = {member.name.partition(".")[0]: value}
    if member.name != "origin":
        return of_genesis(said)
    made = of_genesis(said | {"checkpoint_key": vkey(KEYS.checkpoint, value).render()})
    if len(value) <= 200:
        lines = chained_anew([made.document["genesis"].encode(), *LINES[1:]], 1)
        made.document["ledger"]["origin"] = value
        made.document["end"]["checkpoint"] = signed(lines, key=SECOND_KEY, origin=value).decode()
    return made


def _opened(member: Member, value: Any) -> Bundle:
    if member.at is value:
        return _largest_epoch(value)
    return _own(8, member.name, value)


def _largest_epoch(epoch: int) -> Bundle:
    """The ledger up to the close of its first epoch, which has another number."""
    lines = [LINES[0]]
    for at in range(1, 8):
        payload = dict(decode(LINES[at])["payload"])
        if "epoch" in payload:
            payload["epoch"] = epoch
        if "key_commitment" in payload:
            payload["key_commitment"] = commitment(epoch_key(KEYS.event_mac, epoch)).hex()
        record = encode({**decode(LINES[at]), "epoch": epoch, "payload": payload})
        lines.append(signed_anew(record))
    lines = chained_anew(lines, 1)
    return bundle(lines, first=2, end=7, beside=[1, 7], epochs=[epoch], checkpoint=signed(lines, key=KEYS.checkpoint))


def _own(at: int, name: str, value: Any) -> Bundle:
    """Epoch 1, in which a record of the ledger's own says something else. The checkpoint key is changed in it."""
    line = signed_anew(LINES[at], payload={**decode(LINES[at])["payload"], name: value})
    lines = chained_anew([*LINES[:at], line, *LINES[at + 1 :]], at + 1)
    return (
        bundle(lines, first=2, end=7, beside=[1, 7, 13], epochs=[0])
        if at == 13
        else bundle(lines, first=9, end=13, beside=[8, 13, 15], epochs=[1])
    )


def _pruned(member: Member, value: Any) -> Bundle:
    if member.name == "occurred_at":
        insider = pruned_ledger()
        line = signed_anew(insider.lines[8], occurred_at=value)
        insider.lines[8:] = chained_anew([*insider.lines[:8], line, *insider.lines[9:]], 9)[8:]
    else:
        insider = pruned_ledger(say={member.name.partition(".")[0]: value})
    return whole(insider, gone=[(2, 4)], **LATER)


_MAKERS: Final[dict[str, Callable[[Member, Any], Bundle]]] = {
    "manifest": _manifest,
    "genesis": _genesis,
    "epoch opened": _opened,
    "epoch closed": lambda member, value: _own(15, member.name, value),
    "key rotated": lambda member, value: _own(13, member.name, value),
    "records pruned": _pruned,
    "clock corrected": lambda member, value: of_corrected(corrected_ledger({member.name: value})),
}
_PAST: Final[dict[str, list[Expected]]] = {
    "manifest": [("manifest", None)],
    "genesis": [("genesis", None)],
    "epoch opened": [*(("epoch", line) for line in (1, 2, 3, 4)), ("epoch", None)],
    "epoch closed": [("epoch", None)],
    "key rotated": [("key-rotation", None), ("checkpoint", None)],
    "records pruned": [("prune", None)],
    "clock corrected": [("time", 7)],
}
"""What is found of a value past the bound. (All are sealed and proven, so that nothing else is.)"""


def _checkpoint(name: str, value: Any) -> tuple[dict[str, bytes], bytes]:
    origin = value if name == "origin" else ORIGIN
    size = value if name == "size" else 8
    root = value if name == "root" else Hashes(LINES).root(8)
    key = vkey(KEYS.checkpoint, origin or ORIGIN)
    note = sign_note(f"{origin}\n{size}\n{render_base64(root)}\n", Signer(origin or ORIGIN, KEYS.checkpoint))
    raw = note.render()
    stranger = SignatureLine("x", bytes(4), b"\0")
    if name == "signatures":
        raw += (Note("\n", (stranger,)).render().split(b"\n\n")[-1]) * (value - 1)
    elif name == "signature":
        raw += f"\u2014 x {render_base64(bytes(value))}\n".encode()
    elif name == "note":
        raw += f"\u2014 {'x' * (value - len(raw) - 14)} {render_base64(bytes(6))}\n".encode()
        assert len(raw) == value, "as long as was asked"
    return {"checkpoint": raw}, f"log {key.render()}\nquorum none\n".encode()


def _proof(name: str, value: Any) -> tuple[dict[str, bytes], bytes]:
    path = [render_base64(one) for one in inclusion_path(4, 8, node=Hashes(LINES).node)]
    head, index, note = ["c2sp.org/tlog-proof@v1"], 4, signed(LINES, 8).decode()
    if name == "extra":
        head.append(f"extra {render_base64(bytes(value))}")
    elif name == "index":
        index = value
    elif name == "path":
        path = [render_base64(bytes(32))] * value
    elif name == "proof":
        without = len("\n".join([*head, "extra ", f"index {index}", *path, "", note]).encode())
        room = value - without
        filled = (room - 15) // 4 * 4
        note += f"\u2014 {'x' * (room - filled - 14)} AAAAAAA=\n"
        head.append(f"extra {render_base64(bytes(filled // 4 * 3))}")
    raw = "\n".join([*head, f"index {index}", *path, "", note]).encode()
    return {"proof": raw, "record": LINES[4]}, Policy(logs=(vkey(KEYS.checkpoint),)).render()
