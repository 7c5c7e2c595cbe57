"""The command `tallystick-verify`: exit 0 if all holds, 1 with findings, 2 if it was not asked properly."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from tallystick_verify.canonical import RefusedError
from tallystick_verify.forms import is_rfc3339
from tallystick_verify.judge import judge_proof, verify_bundles
from tallystick_verify.notes import parse_checkpoint
from tallystick_verify.report import Finding, Report, verdict

LISTED_MAX = 10
USAGE = """tallystick-verify BUNDLE [SECOND-BUNDLE] --trust FILE [--known-checkpoint FILE] [--now RFC3339] [--json]
       tallystick-verify proof PROOF RECORD --trust FILE [--json]"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(usage=USAGE, epilog=__doc__)
    parser.add_argument("paths", nargs="+", metavar="BUNDLE", help="a folder or a .zip")
    parser.add_argument("--trust", type=Path, required=True, metavar="FILE", help="a tlog-policy had by another way")
    parser.add_argument("--known-checkpoint", type=Path, metavar="FILE", help="one that you have from elsewhere")
    parser.add_argument("--now", type=_moment, metavar="RFC3339", help="the time of verifying")
    parser.add_argument("--json", action="store_true", help="for programs")
    asked = parser.parse_intermixed_args(arguments)
    if len(asked.paths) != 3 if asked.paths[0] == "proof" else len(asked.paths) > 2:
        parser.error("name a bundle, or two, or `proof` and the files of a proof and of its record")
    try:
        said, lines = _proof(asked) if asked.paths[0] == "proof" else _bundles(asked)
        for line in [json.dumps(said)] if asked.json else lines:
            show(line)
        sys.stdout.flush()
    except (OSError, RefusedError) as error:
        why = f"{error.filename or 'output'}: {error.strerror}" if isinstance(error, OSError) else str(error)
        show(f"tallystick-verify: {why}", sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0 if said["holds"] else 1


def show(line: str, file: TextIO | None = None) -> None:
    """Prints a line; what a terminal might obey is escaped."""
    encoding, shown = (file or sys.stdout).encoding or "utf-8", (c if c.isprintable() else _escaped(c) for c in line)
    print("".join(shown).encode(encoding, "backslashreplace").decode(encoding), file=file)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _moment(text: str) -> datetime:
    if not is_rfc3339(text) or text >= "9999-12":  # a day more than that, and Python has no time
        raise argparse.ArgumentTypeError("not a time as in RFC 3339")
    return datetime.fromisoformat(text.upper())


def _read(path: str | Path) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(2**20)  # more than any of these may have


def _proof(asked: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    findings = judge_proof(_read(asked.paths[1]), _read(asked.paths[2]), _read(asked.trust))
    proves = "this record is in the ledger, under a checkpoint by a key that you trust."
    said = {"findings": [finding._asdict() for finding in findings], "holds": not findings}
    return said, [*map(_line, findings), verdict(len(findings), proves)]


def _bundles(asked: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    paths, trust = [Path(path) for path in asked.paths], _read(asked.trust)
    known = None if asked.known_checkpoint is None else _read(asked.known_checkpoint)
    if known is not None:
        parse_checkpoint(known)  # else it is no finding about the bundle
    for path in paths:
        path.stat()
    reports, forks = verify_bundles(paths, trust, known, asked.now)
    told = list(zip(asked.paths, reports, strict=True))
    total = len(forks) + sum(report.total for report in reports)
    bundles = [{"bundle": path, **report.as_json()} for path, report in told]
    lines = [line for path, report in told for line in ("", *_lines(path, report))][1:]
    if len(paths) == 2:
        lines += ["", *map(_line, forks), verdict(total, "the two bundles are of one history.")]
    return {"bundles": bundles, "findings": [finding._asdict() for finding in forks], "holds": not total}, lines


def _lines(path: str, report: Report) -> Iterator[str]:
    yield path
    for number, asks, outcome, fact in report.steps:
        yield f"{number:3} {asks:42}{outcome:11}{fact}".rstrip()
        yield from (_line(finding) for finding in report.findings if finding.step == number)
    if report.matches and report.holds:
        every, some = "every matching record of the range is here", "what is here, and not whether that is all"
        yield from ("", f"  {f'complete: {every}' if report.complete else f'filtered: {some}'}")
    within = None
    for match in report.matches:
        if match.within != within:  # said once for all that have it, as those of one period do
            within = match.within
            yield f"  of records with {' '.join(within) or 'anything'}:"
        listed = ", ".join(map(str, match.positions[:LISTED_MAX])) + ", …" * (match.count > LISTED_MAX)
        yield f"  {match.count:9,}  {match.name:40}{listed}".rstrip()
    yield from ("", verdict(report.total, report.proves))


def _line(finding: Finding) -> str:
    line = f", line {finding.line}" * (finding.line is not None)
    position = f", position {finding.position}" * (finding.position is not None)
    return f"      {finding.kind}{line}{position}: {finding.seen}"


if __name__ == "__main__":
    sys.exit(main())
