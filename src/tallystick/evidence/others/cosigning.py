"""Asking witnesses to cosign a checkpoint (C2SP tlog-witness, the client's side).

A witness cosigns what provably grew from what it cosigned before. What it signs is verified and kept; where it knows of
a longer ledger, or of another one, that is the finding which witnesses are there for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tallystick.core.checkpoint import Checkpoint
from tallystick.core.cosignature import with_cosignatures
from tallystick.core.note import Note, SignatureLine
from tallystick.core.policy import Policy, Witness
from tallystick.core.strict import parse_decimal, render_base64
from tallystick.durable import replace
from tallystick.errors import BusyError, RejectedError, StoreError, TamperError
from tallystick.evidence.others.post import SECONDS, Answer, post
from tallystick.limits import NOTE_BYTES_MAX, SIZE_MAX
from tallystick.plain_file import open_plain

SIZE_TYPE: Final = "text/x.tlog.size"
KEPT_FILE: Final = "cosigned.checkpoint"

Consistency = Callable[[int, int], Sequence[bytes]]
"""`consistency(old_size, size)`: the proof that the tree of `size` begins with that of `old_size`."""

_AT_ONCE: Final = 16
_ROUNDS: Final = 3
"""A first try, one with the size that the witness told, and one more if another process was between."""


class RollbackSeenError(TamperError):
    """A witness has seen more of this ledger than there is."""


class ForkSeenError(TamperError):
    """A witness has seen another history of this ledger."""


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A checkpoint with the cosignatures that were had, and what went wrong with the other witnesses, by name."""

    checkpoint: bytes
    problems: dict[str, Exception]


def cosign(
    checkpoint: bytes,
    policy: Policy,
    *,
    consistency: Consistency,
    kept: bytes | None = None,
    seconds: float = SECONDS,
) -> Cosigned:
    """Ask every witness of the policy that has a URL, all at once. Never raises for what a witness does or does not.

    `kept` is a checkpoint that was cosigned before: it tells from which size a witness goes on.
    """
    asked = [witness for witness in policy.witnesses if witness.url is not None]
    lines: list[SignatureLine] = []
    problems: dict[str, Exception] = {}
    with ThreadPoolExecutor(max_workers=min(len(asked), _AT_ONCE) or 1) as pool:
        futures = [
            (witness, pool.submit(_ask, witness, checkpoint, consistency, _size_kept(kept, witness), seconds))
            for witness in asked
        ]
        for witness, future in futures:
            try:
                lines.append(future.result())
            except (BusyError, RejectedError, StoreError, TamperError) as error:
                problems[witness.name] = error
    return Cosigned(with_cosignatures(checkpoint, tuple(lines)) if lines else checkpoint, problems)


def read_kept(folder: Path) -> bytes | None:
    """The last cosigned checkpoint that was kept in a ledger's folder."""
    try:
        with open_plain(folder / KEPT_FILE) as file:
            return file.read(NOTE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"could not read {folder / KEPT_FILE}: {error}") from error


def keep(folder: Path, checkpoint: bytes) -> None:
    """Keep a cosigned checkpoint. A crash leaves the one before, or this one."""
    try:
        replace(folder / KEPT_FILE, checkpoint)
    except OSError as error:
        raise StoreError(f"could not write {folder / KEPT_FILE}: {error}") from error


def _ask(witness: Witness, checkpoint: bytes, consistency: Consistency, old: int, seconds: float) -> SignatureLine:
    """One witness' cosignature. Raises `BusyError`, or `TamperError` when it says what cannot be."""
    size = Checkpoint.of_note(checkpoint).size
    old = min(old, size)
    for _ in range(_ROUNDS):
        proof = [f"{render_base64(one)}\n" for one in (consistency(old, size) if old else ())]
        body = "".join([f"old {old}\n", *proof, "\n"]).encode() + checkpoint
        url = f"{str(witness.url).rstrip('/')}/add-checkpoint"
        answer = post(url, body, content_type="text/plain; charset=utf-8", seconds=seconds)
        if answer.status == 200:
            return _cosignature(witness, checkpoint, answer)
        if answer.status != 409:
            break
        told = _size_told(witness, answer)
        if told > size:
            raise RollbackSeenError(
                f"{witness.name} cosigned {told} records of this ledger, which now has {size}: it was rolled back"
            )
        if told == old == size:
            raise ForkSeenError(f"{witness.name} knows another tree of {size} records: one of the two was rewritten")
        if told == old:
            raise TamperError(f"{witness.name} refuses to go on from the {told} records that it says it knows")
        old = told
    raise _refusal(witness, answer)


def _cosignature(witness: Witness, checkpoint: bytes, answer: Answer) -> SignatureLine:
    """The line in the answer that is by this witness, and holds."""
    text = Note.parse(checkpoint).text
    try:
        body = answer.body.decode()
        lines = [SignatureLine.parse(line) for line in body.removesuffix("\n").split("\n")]
    except (UnicodeDecodeError, RejectedError) as error:
        raise TamperError(f"{witness.name} did not answer with signature lines: {error}") from error
    for line in lines:
        if witness.key.verify(text, line) is not None:
            return line
    raise TamperError(f"{witness.name} answered without a cosignature by its key")


def _size_told(witness: Witness, answer: Answer) -> int:
    text = answer.body.decode("latin-1")
    if answer.content_type.partition(";")[0].strip() != SIZE_TYPE or not text.endswith("\n"):
        raise TamperError(f"{witness.name} refused, and did not say which size it knows")
    try:
        return parse_decimal(text[:-1], maximum=SIZE_MAX, place="size")
    except RejectedError as error:
        raise TamperError(f"{witness.name} refused, and did not say which size it knows: {error}") from error


def _refusal(witness: Witness, answer: Answer) -> Exception:
    said = answer.body[:200].decode("utf-8", "replace").strip()
    meaning = {
        403: "it does not trust the key of this ledger's checkpoints",
        404: "it does not watch this ledger",
        422: "what it cosigned before is not how this ledger begins: one of the two was rewritten",
    }.get(answer.status, f"it answered with the status {answer.status}: {said!a}")
    family = ForkSeenError if answer.status == 422 else RejectedError if answer.status in (400, 403, 404) else BusyError
    return family(f"{witness.name} did not cosign: {meaning}")


def _size_kept(kept: bytes | None, witness: Witness) -> int:
    """From which size a witness goes on, as far as we remember."""
    if kept is None:
        return 0
    try:
        note = Note.parse(kept)
        known = any(witness.key.verify(note.text, line) is not None for line in note.signatures)
        return Checkpoint.parse(note.text).size if known else 0
    except (RejectedError, TamperError):
        return 0  # then the witness tells
