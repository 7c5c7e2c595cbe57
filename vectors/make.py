"""Writes the golden vectors anew: `python -m vectors.make`. Where nothing changed, no byte changes.

accept/, refuse/       what every reader must take, and what none may
  <name>/case.json     what it is, the section of SPEC that decides, and what must be found
  <name>/bundle/       the three files, or bundle.zip; second/ where two bundles are held together
  <name>/record, checkpoint, proof
  <name>/trust.policy, known.checkpoint
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from vectors import (
    cases_bundle,
    cases_clock,
    cases_edges,
    cases_keys,
    cases_ledger,
    cases_lines,
    cases_members,
    cases_readers,
    cases_selectors,
    cases_small,
)
from vectors.case import Case, SmallCase

FOLDER: Final = Path(__file__).parent
_BUNDLES: Final = (
    cases_bundle,
    cases_clock,
    cases_edges,
    cases_keys,
    cases_ledger,
    cases_lines,
    cases_members,
    cases_readers,
    cases_selectors,
)


def bundle_cases() -> Iterator[Case]:
    """Every vector that is a bundle, or two."""
    for module in _BUNDLES:
        yield from module.cases()


def contents() -> dict[str, bytes | str]:
    """Every file of the vectors, by its path in this folder; a string is where a link leads."""
    found: dict[str, bytes | str] = {}
    for case in bundle_cases():
        for path, data in _bundle_files(case).items():
            found[f"{_verdict(case)}/bundle-{case.name}/{path}"] = data
    smalls = (
        cases_edges.small_cases,
        cases_keys.small_cases,
        cases_members.small_cases,
        cases_readers.small_cases,
        cases_small.cases,
    )
    for small in (small for cases in smalls for small in cases()):
        for path, data in _small_files(small).items():
            found[f"{_verdict(small)}/{small.kind}-{small.name}/{path}"] = data
    return found


def _verdict(case: Case | SmallCase) -> str:
    return "refuse" if case.expected else "accept"


def _bundle_files(case: Case) -> dict[str, bytes | str]:
    about: dict[str, Any] = {
        "kind": "bundle",
        "spec": case.spec,
        "says": case.says,
        "now": case.now,
        "findings": [{"kind": kind, "line": line} for kind, line in case.expected],
    }
    found: dict[str, bytes | str] = {"case.json": _json(about), "trust.policy": case.trust}
    if case.known is not None:
        found["known.checkpoint"] = case.known
    if case.raw_zip is not None or case.as_zip:
        return {**found, "bundle.zip": case.raw_zip if case.raw_zip is not None else zipped(case.files)}
    found |= {f"bundle/{name}": data for name, data in case.files.items()}
    found |= {f"bundle/{name}": target for name, target in case.links.items()}
    return {**found, **{f"second/{name}": data for name, data in (case.second or {}).items()}}


def _small_files(case: SmallCase) -> dict[str, bytes]:
    findings = [{"kind": kind} for kind in case.expected]
    about = {"kind": case.kind, "spec": case.spec, "says": case.says, "findings": findings}
    return {"case.json": _json(about), "trust.policy": case.trust, **case.files}


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip of these files, the same for the same files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, data)  # stored: deflated bytes differ from one zlib to the next
    return out.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def write() -> int:
    """Replace what is in the two folders; how many files there are."""
    for verdict in ("accept", "refuse"):
        shutil.rmtree(FOLDER / verdict, ignore_errors=True)
    files = contents()
    for path, data in files.items():
        target = FOLDER / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, str):
            target.symlink_to(data)
        else:
            target.write_bytes(data)
    return len(files)


if __name__ == "__main__":
    write()
