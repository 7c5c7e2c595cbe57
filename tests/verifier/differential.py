"""Three readers of a bundle are given the same bytes, changed in some way, and must say the same of them.

A forger looks for what one reader takes and another does not. So the changes have structure: members of manifests and
records, sealed anew by somebody with all the keys; notes, trust files, proofs and zips by their parts; and plain bytes.

    python -m tests.verifier.differential --seconds 7200 --seed 1 [--no-page]
"""

from __future__ import annotations

import argparse
import base64
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

from playwright.sync_api import sync_playwright
from tallystick_verify import RefusedError, judge_checkpoint, judge_proof, judge_record
from tallystick_verify import verify_bundle as verify_by_verifier

from tallystick.core.checked_proof import check_proof
from tallystick.core.policy import Policy
from tallystick.core.record import Record
from tallystick.core.timestamp import parse_rfc3339
from tallystick.errors import RejectedError
from tallystick.evidence.bundle.check import verify_bundle
from tests.verifier.changes import Changes
from tests.verifier.given import Given, vectors
from tests.verifier.test_page import ARGUMENTS, PAGE

Found: TypeAlias = frozenset[tuple[str, int | None]]
NO_TRUST: Final[Found] = frozenset({("trust", None)})

# -------------------------------------------------------------------------------------------------- the readers


def by_library(given: Given, folder: Path) -> Found:
    try:
        policy = Policy.parse(given.trust)
    except RejectedError:
        return NO_TRUST
    if given.kind == "record":
        try:
            Record.parse(given.files["record"])
        except RejectedError:
            return frozenset({("not-canonical", None)})
        return frozenset()
    if given.kind == "proof":
        checked = check_proof(given.files["proof"], given.files["record"], policy)
        return frozenset((finding.kind, None) for finding in checked.findings)
    if given.kind == "checkpoint":
        found = check_proof(b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + given.files["checkpoint"], b"", policy)
        return frozenset((one.kind, None) for one in found.findings if one.kind in ("checkpoint", "witness"))
    report = verify_bundle(folder, trust=given.trust, known=given.known, clock=lambda: parse_rfc3339(given.now))
    return frozenset((str(one.kind), one.line) for one in report.findings)


def by_verifier(given: Given, folder: Path) -> Found:
    try:
        if given.kind == "record":
            findings = judge_record(given.files["record"])
        elif given.kind == "proof":
            findings = judge_proof(given.files["proof"], given.files["record"], given.trust)
        elif given.kind == "checkpoint":
            findings = judge_checkpoint(given.files["checkpoint"], given.trust)
        else:
            now = datetime.fromisoformat(given.now.upper())
            findings = verify_by_verifier(folder, trust=given.trust, known=given.known, now=now).findings
    except RefusedError:
        return NO_TRUST
    return frozenset((one.kind, one.line) for one in findings)


PAGE_CALL: Final = """async (cases) => {
  const bytes = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const api = window.tallystickVerify, out = [];
  for (const { kind, files, trust, known, now } of cases) {
    try {
      const given = Object.fromEntries(Object.entries(files).map(([name, text]) => [name, bytes(text)]));
      let findings;
      if (kind === 'record') findings = await api.judgeRecord(given.record);
      else if (kind === 'proof') findings = await api.judgeProof(given.proof, given.record, bytes(trust));
      else if (kind === 'checkpoint') findings = await api.judgeCheckpoint(given.checkpoint, bytes(trust));
      else {
        const list = Object.entries(given).map(([name, data]) => new File([data], name));
        findings = (await api.verifyBundle(list, bytes(trust), known === null ? null : bytes(known), now)).findings;
      }
      out.push(findings.map(({ kind, line }) => [kind, line]));
    } catch (error) {
      out.push([[error instanceof api.Refused ? 'trust' : `crashed: ${error.stack}`, null]]);
    }
  }
  return out;
}"""


class ByPage:
    """The page in a browser, asked of many at once."""

    def __init__(self, evaluate: Callable[[str, Any], Any]) -> None:
        self._evaluate: Final = evaluate

    def __call__(self, cases: Sequence[Given]) -> list[Found]:
        given = [
            {
                "kind": one.kind,
                "files": {name: base64.b64encode(data).decode() for name, data in one.files.items()},
                "trust": base64.b64encode(one.trust).decode(),
                "known": None if one.known is None else base64.b64encode(one.known).decode(),
                "now": one.now,
            }
            for one in cases
        ]
        return [frozenset((kind, line) for kind, line in found) for found in self._evaluate(PAGE_CALL, given)]


@contextmanager
def browser_page() -> Iterator[ByPage]:
    """A page of the browser of this machine."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = launched.new_page()
        page.goto(PAGE.as_uri())
        yield ByPage(page.evaluate)
        launched.close()


# -------------------------------------------------------------------------------------------------- comparing


@dataclass(slots=True)
class Difference:
    """Readers that do not agree."""

    given: Given
    found: dict[str, Found]

    def render(self) -> str:
        told = [f"  {name:9} {sorted(map(str, found)) or 'holds'}" for name, found in self.found.items()]
        return "\n".join([" | ".join(self.given.how), *told])


def compare(cases: Sequence[Given], by_page: ByPage | None, scratch: Path) -> Iterator[Difference]:
    """Those of which the readers do not say the same."""
    paged = by_page(cases) if by_page is not None else [None] * len(cases)
    for given, seen in zip(cases, paged, strict=True):
        folder = scratch / "bundle"
        shutil.rmtree(folder, ignore_errors=True)
        if "bundle.zip" in given.files:
            folder = scratch / "bundle.zip"
            folder.write_bytes(given.files["bundle.zip"])
        else:
            folder.mkdir()
            for name, data in given.files.items():
                (folder / name).write_bytes(data)
        found = {"library": by_library(given, folder), "verifier": by_verifier(given, folder)}
        if seen is not None:
            found["page"] = seen
        if len({*found.values()}) > 1:
            yield Difference(given, found)


def run(
    seconds: float, seed: int, *, by_page: ByPage | None, tell: Callable[[Difference], None], most: int = 2**31
) -> int:
    """Compare for so long, or so many; how many were compared."""
    begun, changes, at_first, count = time.monotonic(), Changes(seed), vectors(), 0
    with tempfile.TemporaryDirectory() as folder:
        while count < most and time.monotonic() - begun < seconds:
            some = [changes.of(changes.chance.choice(at_first)) for _ in range(min(50, most - count))]
            for difference in compare(some, by_page, Path(folder)):
                tell(difference)
            count += len(some)
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-page", action="store_true")
    parser.add_argument("--most", type=int, default=20, help="differences, and then it ends")
    asked = parser.parse_args()
    found = 0

    def tell(difference: Difference) -> None:
        nonlocal found
        found += 1
        sys.stdout.write(f"{difference.render()}\n")
        sys.stdout.flush()
        if found >= asked.most:
            raise SystemExit(1)

    if asked.no_page:
        count = run(asked.seconds, asked.seed, by_page=None, tell=tell)
    else:
        with browser_page() as by_page:
            count = run(asked.seconds, asked.seed, by_page=by_page, tell=tell)
    sys.stdout.write(f"{count:,} compared, {found} differences\n")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
