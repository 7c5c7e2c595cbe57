"""The declared folds and upcasters under which a state was folded: what makes a snapshot of it mean something.

They are an application's, and only it has them. So that others can fold again what it has folded, they are kept
beside snapshots, by their fingerprint: a digest of them, so that no others can take their place.
"""

from __future__ import annotations

from typing import NamedTuple

from tallystick.core.canonical import decode, encode
from tallystick.core.upcast import Upcasters
from tallystick.errors import TallystickError
from tallystick.read.fold import Folds


class Declared(NamedTuple):
    """Folds, and the upcasters by which records are read before."""

    folds: Folds
    upcasters: Upcasters

    @property
    def fingerprint(self) -> str | None:
        """A digest of all of them; None when a Python function is among them, of which nothing is known."""
        marks = (self.folds.fingerprint, self.upcasters.fingerprint)
        return None if None in marks else f"{marks[0]}/{marks[1]}"

    def render(self) -> tuple[bytes, bytes]:
        """What was declared, as `parse` reads it."""
        return encode(self.folds.declared), encode(self.upcasters.declared)


def parse(fingerprint: str, folds: bytes, upcasters: bytes) -> Declared | None:
    """What has this fingerprint; None when these bytes have not."""
    declared = Declared(Folds(), Upcasters())
    try:
        for event_type, fold in decode(folds).items():
            declared.folds.declare(event_type, fold)
        for event_type, steps in decode(upcasters).items():
            for version, operations in steps.items():
                declared.upcasters.declare(event_type, int(version), operations)
    except (TallystickError, ValueError, TypeError, AttributeError, RecursionError):
        return None  # whoever wrote that, it was not us
    return declared if declared.fingerprint == fingerprint else None
