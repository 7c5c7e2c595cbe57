"""The command `tallystick-verify`: exit 0 if all holds, 1 with findings, 2 if it was not asked properly."""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tallystick_verify.bundle import Finding
from tallystick_verify.canonical import RefusedError
from tallystick_verify.forms import is_rfc3339
from tallystick_verify.judge import Report, TwoOriginsError, judge_proof, verify_bundle, verify_pair

SHOWN_BYTES_MAX = 2**20
OPENSSL = "openssl ts -verify -token_in -in {0}/{1}.tst -data {0}/end.checkpoint -CAfile AUTHORITY.pem"


def show(text: str) -> None:
    """Prints a line; what a terminal might obey is escaped."""
    print("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    asks_proof = given[:1] == ["proof"]
    parser = argparse.ArgumentParser("tallystick-verify proof" if asks_proof else "tallystick-verify", epilog=__doc__)
    for name in ("PROOF", "RECORD") if asks_proof else ("BUNDLE",):
        parser.add_argument(name, type=Path)
    if not asks_proof:
        parser.add_argument("SECOND", type=Path, nargs="?", help="another bundle, to hold the first against")
        parser.add_argument("--known-checkpoint", type=Path, metavar="FILE", help="one that you have from elsewhere")
        parser.add_argument(
            "--now", type=_moment, default=datetime.now(UTC), metavar="RFC3339", help="the time of verifying"
        )
        parser.add_argument(
            "--extract-timestamps", type=Path, metavar="DIR", help="writes tokens, and what they are over"
        )
    parser.add_argument(
        "--trust", type=Path, required=True, metavar="FILE", help="a tlog-policy that did not come with it"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    asked = parser.parse_args(given[asks_proof:])
    try:
        return _proof(asked) if asks_proof else _bundles(asked)
    except (OSError, RefusedError, TwoOriginsError) as error:
        show(f"tallystick-verify: {error}")
        return 2


def _moment(text: str) -> datetime:
    if not is_rfc3339(text):
        raise argparse.ArgumentTypeError("not a time as in RFC 3339")
    return datetime.fromisoformat(text.upper())


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SHOWN_BYTES_MAX)


def _proof(asked: argparse.Namespace) -> int:
    findings = judge_proof(_read(asked.PROOF), _read(asked.RECORD), _read(asked.trust))
    if asked.json:
        show(json.dumps({"findings": [finding._asdict() for finding in findings], "holds": not findings}))
        return bool(findings)
    _show_findings(findings)
    show(
        "DOES NOT HOLD"
        if findings
        else "HOLDS: this record is in the ledger, under a checkpoint by a key that you trust."
    )
    return bool(findings)


def _bundles(asked: argparse.Namespace) -> int:
    known = None if asked.known_checkpoint is None else _read(asked.known_checkpoint)
    paths, trust, forks = [path for path in (asked.BUNDLE, asked.SECOND) if path], _read(asked.trust), list[Finding]()
    for path in paths:
        path.stat()
    if asked.SECOND:
        *reports, forks = verify_pair((paths[0], paths[1]), trust=trust, known=known, now=asked.now)
    else:
        reports = [verify_bundle(asked.BUNDLE, trust=trust, known=known, now=asked.now)]
    holds = all(report.holds for report in reports) and not forks
    if asked.json:
        told = [{"bundle": str(path), **report.as_json()} for path, report in zip(paths, reports, strict=True)]
        show(json.dumps({"bundles": told, "findings": [finding._asdict() for finding in forks], "holds": holds}))
        return not holds
    for path, report in zip(paths, reports, strict=True):
        _show_report(path, report, asked.extract_timestamps)
    _show_findings(forks)
    if asked.SECOND:
        show(f"HELD TOGETHER: {'they are of one history' if holds else 'see the findings'}.")
    return not holds


def _show_report(path: Path, report: Report, folder: Path | None) -> None:
    show(f"{path}")
    for number, name, outcome, fact in report.steps:
        show(f"{number:3} {name:22} {outcome:10} {fact}")
        _show_findings([finding for finding in report.findings if finding.step == number])
    if report.dropped:
        show(f"    and {report.dropped:,} more findings")
    show(
        "DOES NOT HOLD: nothing in it can be relied upon for what the findings touch."
        if not report.holds
        else report.verdict()
    )
    checkpoint, tokens = report.timestamps()
    for number in range(1, len(tokens) + 1):
        show(f"To check timestamp {number}: {OPENSSL.format(folder or 'DIR', number)}")
    if folder is not None:
        folder.mkdir(exist_ok=True)
        (folder / "end.checkpoint").write_bytes(checkpoint)
        for number, token in enumerate(tokens, 1):
            (folder / f"{number}.tst").write_bytes(token)


def _show_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        places = [f"line {finding.line}"] * bool(finding.line) + [f"position {finding.position}"] * (
            finding.position is not None
        )
        show(f"    {', '.join([finding.kind, *places])}: {finding.seen}")


if __name__ == "__main__":
    sys.exit(main())
