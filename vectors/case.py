"""One vector: what is handed to a verifier, and what it must find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from vectors.scene import NOW, TRUST, Bundle

Expected: TypeAlias = tuple[str, int | None]
"""The kind of a finding, and its line."""


@dataclass(frozen=True, slots=True)
class Case:
    """A bundle, or two. Without `expected` findings it must be accepted."""

    name: str
    spec: str
    """The section of SPEC that decides."""
    says: str
    files: Mapping[str, bytes]
    expected: tuple[Expected, ...] = ()
    trust: bytes = TRUST
    known: bytes | None = None
    second: Mapping[str, bytes] | None = None
    now: str = NOW
    as_zip: bool = False
    raw_zip: bytes | None = None
    """A whole zip, in place of the files."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Names in the bundle's folder that are links, and to what."""

    @classmethod
    def of(cls, name: str, spec: str, says: str, made: Bundle, *expected: Expected, **more: Any) -> Case:
        """The case of one made bundle."""
        return cls(name, spec, says, made.files(), expected, **more)


@dataclass(frozen=True, slots=True)
class SmallCase:
    """A record, a checkpoint, a proof with its record, or a trust file."""

    kind: str
    """`record`, `checkpoint`, `proof` or `trust`."""
    name: str
    spec: str
    says: str
    files: Mapping[str, bytes]
    """`record`, `checkpoint`, `proof`: bytes as they stand."""
    expected: tuple[str, ...] = ()
    """The kinds of the findings."""
    trust: bytes = TRUST
