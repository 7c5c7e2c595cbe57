"""What the readers of a bundle are given: files, a trust file, and maybe a checkpoint known from elsewhere."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from tallystick.core.manifest import EVENTS_FILE, MANIFEST_FILE, SEAL_FILE
from tests.evidence.forge import fixed_key
from vectors.make import FOLDER

Files: TypeAlias = dict[str, bytes]
BUNDLE_FILES: Final = (MANIFEST_FILE, EVENTS_FILE, SEAL_FILE)
EVIDENCE_KEYS: Final = {key.public_key().public_bytes_raw(): key for key in map(fixed_key, range(1, 12))}


@dataclass(frozen=True, slots=True)
class Given:
    """What a reader is given. `how` says what was done to it."""

    kind: str
    """`bundle`, `record`, `checkpoint` or `proof`."""
    files: Files
    trust: bytes
    known: bytes | None = None
    now: str = "2026-03-16T00:01:00Z"
    how: tuple[str, ...] = ()
    key: Any = field(default=None, compare=False)
    """The evidence key that seals it."""


def vectors() -> list[Given]:
    """All golden vectors of one bundle, record, checkpoint or proof, as where to begin."""
    found = []
    for folder in sorted(path.parent for path in FOLDER.glob("*/*/case.json")):
        about = json.loads((folder / "case.json").read_bytes())
        if about["kind"] == "trust" or (folder / "second").exists():
            continue
        trust = (folder / "trust.policy").read_bytes()
        known = folder / "known.checkpoint"
        if about["kind"] == "bundle":
            bundle = folder / "bundle"
            if not bundle.exists() or any(path.is_symlink() for path in bundle.iterdir()):
                continue
            files = {path.name: path.read_bytes() for path in bundle.iterdir()}
            if sum(map(len, files.values())) > 200_000:
                continue
            noted = known.read_bytes() if known.exists() else None
            found.append(Given("bundle", files, trust, noted, about["now"], (folder.name,), sealer_of(files)))
        else:
            files = {
                name: (folder / name).read_bytes()
                for name in ("record", "checkpoint", "proof")
                if (folder / name).exists()
            }
            if all(len(data) < 100_000 for data in files.values()):
                found.append(Given(about["kind"], files, trust, how=(folder.name,)))
    return found


def sealer_of(files: Files) -> Any:
    """The key that sealed a bundle, as far as it is one of those of the vectors."""
    with suppress(Exception):
        blob = base64.b64decode(b"".join(files[SEAL_FILE].split(b"\n")[1:-2]))
        return EVIDENCE_KEYS.get(blob[33:65])
    return None
