"""The trust file: whose checkpoints count, and which witnesses must have seen them (C2SP tlog-policy).

    log audit.example/acme+12b7d051+AYE5...
    witness w1 witness.example/w1+8d66cf3f+BJ... https://witness.example
    group some any w1
    quorum some

A file of octets: names are compared as bytes, here as characters of Latin-1, one a byte. It comes to a verifier by
another way than what is verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tallystick.core.cosignature import WitnessKey
from tallystick.core.note import Note, VerifierKey
from tallystick.core.strict import parse_decimal
from tallystick.errors import RejectedError
from tallystick.limits import POLICY_BYTES_MAX, POLICY_LINES_MAX

NO_WITNESS: Final = "none"

_FORBIDDEN: Final = re.compile(rb"[^\t\n\x20-\x7e\x80-\xff]")


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness, its key, and maybe the prefix of its `add-checkpoint`."""

    name: str
    key: WitnessKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """It has witnessed when `threshold` of its members, witnesses or other groups, have."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a trust file says. Without logs, which ledger is meant has to be known from elsewhere."""

    logs: tuple[VerifierKey, ...]
    witnesses: tuple[Witness, ...] = ()
    groups: tuple[Group, ...] = ()
    quorum: str = NO_WITNESS

    @classmethod
    def parse(cls, data: bytes) -> Policy:
        """Read a trust file. Raises `RejectedError` with the line."""
        if len(data) > POLICY_BYTES_MAX:
            raise RejectedError(f"a trust file of {len(data)} bytes; at most {POLICY_BYTES_MAX} are allowed")
        if (control := _FORBIDDEN.search(data)) is not None:
            place = f"line {data.count(10, 0, control.start()) + 1}"
            raise RejectedError(f"the control character {control[0]!a} is not allowed", place=place)
        reader = _Reader()
        lines = data.decode("latin-1").split("\n")
        if lines.pop():
            raise RejectedError("the last line does not end in a newline", place=f"line {len(lines) + 1}")
        for number, line in enumerate(lines, start=1):
            words = re.split(r"[ \t]+", line.strip(" \t"))
            if words == [""] or words[0].startswith("#"):
                continue
            try:
                reader.take(words)
            except RejectedError as error:
                cure = error.cure or "see https://c2sp.org/tlog-policy"
                raise RejectedError(error.problem, place=f"line {number}", cure=cure) from None
        return reader.policy()

    def render(self) -> bytes:
        """Write the policy as `parse` reads it."""
        lines = [f"log {key.render()}" for key in self.logs]
        lines += [" ".join(filter(None, ("witness", w.name, w.key.render(), w.url))) for w in self.witnesses]
        lines += [f"group {g.name} {g.threshold} {' '.join(g.members)}" for g in self.groups]
        return "".join(f"{line}\n" for line in (*lines, f"quorum {self.quorum}")).encode("latin-1")

    def keys_of(self, origin: str) -> frozenset[bytes]:
        """The public keys that are trusted to sign for a ledger."""
        return frozenset(key.public_key for key in self.logs if key.name == origin)

    def cosigned(self, note: Note) -> dict[str, int]:
        """The witnesses whose cosignatures under a checkpoint hold, and the POSIX seconds of each.

        Raises `TamperError` for a line that claims to be by one of them, and is not.
        """
        found: dict[str, int] = {}
        for witness in self.witnesses:
            for line in note.signatures:
                seconds = witness.key.verify(note.text, line)
                if seconds is not None:
                    found[witness.name] = max(seconds, found.get(witness.name, 0))
        return found

    def is_satisfied(self, cosigned: Iterable[str]) -> bool:
        """Whether these witnesses are enough."""
        witnessed = {*cosigned, NO_WITNESS}
        for group in self.groups:  # a group names only what stands above it
            if sum(member in witnessed for member in group.members) >= group.threshold:
                witnessed.add(group.name)
        return self.quorum in witnessed


@dataclass(slots=True)
class _Reader:
    """The parts of a policy while its lines come in."""

    logs: list[VerifierKey] = field(default_factory=list)
    witnesses: dict[str, Witness] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    quorum: str | None = None
    _lines: int = 0

    def take(self, words: list[str]) -> None:
        self._lines += 1
        if self._lines > POLICY_LINES_MAX:
            raise RejectedError(f"more than {POLICY_LINES_MAX} lines that say something")
        keyword, *rest = words
        if keyword == "log" and 1 <= len(rest) <= 2:
            self._log(rest[0])
        elif keyword == "witness" and 2 <= len(rest) <= 3:
            self._witness(*rest)
        elif keyword == "group" and len(rest) >= 3:
            self._group(rest[0], rest[1], rest[2:])
        elif keyword == "quorum" and len(rest) == 1:
            self._quorum(rest[0])
        else:
            raise RejectedError(f"{' '.join(words)[:60]!a} is no line of a trust file")

    def policy(self) -> Policy:
        if self.quorum is None:
            raise RejectedError("the quorum line is missing", cure="without witnesses it reads: quorum none")
        return Policy(
            logs=tuple(self.logs),
            witnesses=tuple(self.witnesses.values()),
            groups=tuple(self.groups.values()),
            quorum=self.quorum,
        )

    def _log(self, vkey: str) -> None:
        key = VerifierKey.parse(_utf8(vkey))
        if any(other.public_key == key.public_key for other in self.logs):
            raise RejectedError("another log line has this key already")
        self.logs.append(key)

    def _witness(self, name: str, vkey: str, url: str | None = None) -> None:
        self._check_new(name)
        key = WitnessKey.parse(_utf8(vkey))
        if any(other.key.public_key == key.public_key for other in self.witnesses.values()):
            raise RejectedError("another witness line has this key already")
        self.witnesses[name] = Witness(name, key, url)

    def _group(self, name: str, threshold: str, members: list[str]) -> None:
        self._check_new(name)
        for member in members:
            if not self._is_known(member):
                raise RejectedError(f"{member[:60]!a} is not defined above")
            if member in self.used:
                raise RejectedError(f"{member[:60]!a} is a member of a group already")
            self.used.add(member)
        words: Mapping[str, int] = {"all": len(members), "any": 1}
        count = words.get(threshold) or parse_decimal(threshold, maximum=len(members), place="")
        if not count:
            raise RejectedError("a group needs at least one of its members")
        self.groups[name] = Group(name, count, tuple(members))

    def _quorum(self, name: str) -> None:
        if self.quorum is not None:
            raise RejectedError("a second quorum line")
        if name != NO_WITNESS and not self._is_known(name):
            raise RejectedError(f"{name[:60]!a} is not defined above")
        self.quorum = name

    def _check_new(self, name: str) -> None:
        if name == NO_WITNESS or self._is_known(name):
            raise RejectedError(f"{name[:60]!a} is taken already")

    def _is_known(self, name: str) -> bool:
        return name in self.witnesses or name in self.groups


def _utf8(word: str) -> str:
    try:
        return word.encode("latin-1").decode()
    except UnicodeDecodeError as error:
        raise RejectedError("the key's name is not UTF-8") from error
