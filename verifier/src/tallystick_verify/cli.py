"""The command `tallystick-verify`: exit 0 if all holds, 1 with findings, 2 if it was not asked properly."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from tallystick_verify.bundle import Finding, Report
from tallystick_verify.canonical import RefusedError
from tallystick_verify.forms import is_rfc3339
from tallystick_verify.judge import TwoOriginsError, judge_proof, verify_bundle, verify_pair

READ_BYTES_MAX = 2**20
OPENSSL = "openssl ts -verify -token_in -in {0}/{1}.tst -data {0}/end.checkpoint -CAfile AUTHORITY.pem"
FINDINGS = "DOES NOT HOLD: nothing in it can be relied upon for what the findings touch."
FILTERED = "FILTERED: each record here is in the ledger, as sealed. Of what is not here, this says nothing."
PROVEN = "HOLDS: this record is in the ledger, under a checkpoint by a key that you trust."


def show(text: str) -> None:
    """Prints a line; what a terminal might obey is escaped."""
    print("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    asks_proof = given[:1] == ["proof"]
    parser = argparse.ArgumentParser("tallystick-verify" + " proof" * asks_proof, epilog=__doc__)
    for name in ("PROOF", "RECORD") if asks_proof else ("BUNDLE",):
        parser.add_argument(name, type=Path)
    if not asks_proof:
        parser.add_argument("SECOND", type=Path, nargs="?", help="another bundle, to hold the first against")
        parser.add_argument("--known-checkpoint", type=Path, metavar="FILE", help="one that you have from elsewhere")
        parser.add_argument("--now", type=_moment, metavar="RFC3339", help="the time of verifying")
        parser.add_argument("--extract-timestamps", type=Path, metavar="DIR", help="writes tokens and what they are of")
    parser.add_argument("--trust", type=Path, required=True, metavar="FILE", help="a tlog-policy, from elsewhere")
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
        return file.read(READ_BYTES_MAX)


def _proof(asked: argparse.Namespace) -> int:
    findings = judge_proof(_read(asked.PROOF), _read(asked.RECORD), _read(asked.trust))
    if asked.json:
        show(json.dumps({"findings": [finding._asdict() for finding in findings], "holds": not findings}))
    else:
        _show_findings(findings)
        show("DOES NOT HOLD" if findings else PROVEN)
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
        told = [_as_json(report) for report in reports]
        show(json.dumps({"bundles": told, "findings": [finding._asdict() for finding in forks], "holds": holds}))
        return not holds
    for report in reports:
        _show_report(report, asked.extract_timestamps)
    _show_findings(forks)
    if asked.SECOND:
        show(f"HELD TOGETHER: {'they are of one history' if holds else 'see the findings'}.")
    return not holds


def verdict(report: Report) -> str:
    """What it proves, in words."""
    if not report.holds:
        return FINDINGS
    it, pruned = report.manifest, f" but for {report.prune}" * bool(report.prune)
    whole = f"COMPLETE: every record of [{it.first}, {it.stop}) is there{pruned}, as it was sealed."
    return f"HOLDS, {whole if it.complete else FILTERED} Timestamps are told of, and not judged."


def _as_json(report: Report) -> dict[str, object]:
    steps = [dict(zip(("step", "asks", "outcome", "fact"), step, strict=True)) for step in report.steps]
    found = {"dropped": report.dropped, "findings": [finding._asdict() for finding in report.findings]}
    return {"bundle": str(report.path), "holds": report.holds, "steps": steps, "verdict": verdict(report), **found}


def _show_report(report: Report, folder: Path | None) -> None:
    show(f"{report.path}")
    for number, name, outcome, fact in report.steps:
        show(f"{number:3} {name:22} {outcome:10} {fact}")
        _show_findings(finding for finding in report.findings if finding.step == number)
    if report.dropped:
        show(f"    and {report.dropped:,} more findings")
    show(verdict(report))
    for number in range(1, len(report.tokens) + 1):
        show(f"To check timestamp {number}: {OPENSSL.format(folder or 'DIR', number)}")
    if folder is not None and report.tokens:
        folder.mkdir(exist_ok=True)
        (folder / "end.checkpoint").write_bytes(report.manifest.said["end"]["checkpoint"].encode())
        for number, token in enumerate(report.tokens, 1):
            (folder / f"{number}.tst").write_bytes(token)


def _show_findings(findings: Iterable[Finding]) -> None:
    for _, kind, seen, line, position in findings:
        places = f", line {line}" * (line is not None) + f", position {position}" * (position is not None)
        show(f"    {kind}{places}: {seen}")


if __name__ == "__main__":
    sys.exit(main())
