"""The page is held to the same cases as the verifier, in a real browser, and never asks the network for anything."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import Error as PlaywrightError
from tallystick_verify import verify_bundle, verify_pair
from tallystick_verify.report import STEPS

from tests.verifier import cases, maker
from tests.verifier.cases import Case
from tests.verifier.test_cases import VECTORS

pytestmark = pytest.mark.chromium

PAGE: Final = Path(__file__).parents[2] / "verifier" / "page" / "index.html"
ARGUMENTS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NOW: Final = "2026-03-04T00:01:00Z"
JUDGE: Final = """async ({files, trust, known, now}) => {
    const bytes = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    const given = Object.entries(files).map(([name, data]) => new File([bytes(data)], name));
    return await window.tallystickVerify.verifyBundle(given, bytes(trust), known === null ? null : bytes(known), now);
}"""
JUDGE_TWO: Final = """async ({bundles, trust, known, now}) => {
    const bytes = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    const given = bundles.map((files) => Object.entries(files).map(([name, data]) => new File([bytes(data)], name)));
    return await window.tallystickVerify.verifyBundles(given, bytes(trust), known === null ? null : bytes(known), now);
}"""
SMALL: Final = """async ({name, parts}) => {
    const bytes = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    return await window.tallystickVerify[name](...parts.map(bytes));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """One page for all that is asked of the functions behind it."""
    opened = browser.new_page()
    opened.goto(PAGE.as_uri())
    yield opened
    opened.close()


@pytest.fixture
def fresh(browser: Browser) -> Iterator[Page]:
    """A page for what a person does, which must come to its end without a request and without an error."""
    requests: list[str] = []
    errors: list[str] = []
    opened = browser.new_page(viewport={"width": 1280, "height": 860})
    opened.on("request", lambda request: requests.append(request.url))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.goto(PAGE.as_uri())
    yield opened
    assert requests == [PAGE.as_uri()]
    assert errors == []
    opened.close()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def judged(
    page: Page, files: Mapping[str, bytes], *, trust: bytes = maker.TRUST, known: bytes | None = None, now: str = NOW
) -> dict[str, Any]:
    given = {
        "files": {name: b64(data) for name, data in files.items()},
        "trust": b64(trust),
        "known": None if known is None else b64(known),
        "now": now,
    }
    report: dict[str, Any] = page.evaluate(JUDGE, given)
    return report


def judged_together(
    page: Page, bundles: Iterable[Mapping[str, bytes]], *, trust: bytes, now: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The findings of two bundles, and where they fork."""
    encoded = [{name: b64(data) for name, data in files.items()} for files in bundles]
    given = {"bundles": encoded, "trust": b64(trust), "known": None, "now": now}
    said = page.evaluate(JUDGE_TWO, given)
    return [finding for report in said["reports"] for finding in report["findings"]], said["forks"]


def small(page: Page, name: str, *parts: bytes) -> list[dict[str, Any]]:
    findings: list[dict[str, Any]] = page.evaluate(SMALL, {"name": name, "parts": [b64(part) for part in parts]})
    return findings


def found_in(findings: list[dict[str, Any]]) -> set[tuple[str, int | None]]:
    return {(finding["kind"], finding["line"]) for finding in findings}


SINGLE: Final = [case for case in cases.EVERY if case.second is None]


@pytest.mark.parametrize("case", SINGLE, ids=lambda case: case.name)
def test_each_made_bundle_is_judged_as_the_verifier_does(page: Page, case: Case, tmp_path: Path) -> None:
    folder, now = maker.write(tmp_path, case.files), datetime.fromisoformat(case.now)
    twin = verify_bundle(folder, trust=case.trust, known=case.known, now=now)

    report = judged(page, case.files, trust=case.trust, known=case.known, now=case.now)

    assert found_in(report["findings"]) == case.expected
    assert report["holds"] is twin.holds
    told = [(finding["step"], finding["kind"], finding["line"], finding["position"]) for finding in report["findings"]]
    assert sorted(told, key=str) == sorted(((f.step, f.kind, f.line, f.position) for f in twin.findings), key=str)
    steps = [(step["step"], step["asks"], step["outcome"]) for step in report["steps"]]
    assert steps == [(number, name, outcome) for number, name, outcome, _ in twin.steps]


@pytest.mark.parametrize("case", [case for case in cases.EVERY if case.second], ids=lambda case: case.name)
def test_two_made_bundles_are_held_together_as_the_verifier_does(page: Page, case: Case, tmp_path: Path) -> None:
    assert case.second is not None
    paths = maker.write(tmp_path / "one", case.files), maker.write(tmp_path / "two", case.second)
    one, two, twin = verify_pair(paths, trust=case.trust, now=datetime.fromisoformat(case.now))

    findings, forks = judged_together(page, (case.files, case.second), trust=case.trust, now=case.now)

    assert found_in(findings) == found_in([finding._asdict() for finding in (*one.findings, *two.findings)])
    assert forks == [finding._asdict() for finding in twin]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize("name", ["complete", "a-value", "far-too-long", "manifest-bytes-deep"])
def test_a_zip_is_judged_as_its_files_are(page: Page, name: str, method: int) -> None:
    case = next(case for case in SINGLE if case.name == name)

    report = judged(page, {"bundle.zip": maker.zipped(case.files, method)})

    assert found_in(report["findings"]) == case.expected


def is_policy(page: Page, trust: bytes) -> bool:
    """Whether the page takes a trust file."""
    try:
        small(page, "judgeCheckpoint", b"", trust)
    except PlaywrightError as error:
        return "trust file" not in str(error)
    return True


def vectors() -> list[Path]:
    return sorted(
        path.parent for path in VECTORS.glob("*/*/case.json") if not path.parent.name.endswith(("files-link",))
    )


@pytest.mark.parametrize("folder", vectors(), ids=lambda path: path.name)
def test_each_golden_vector_is_judged_as_it_must_be(page: Page, folder: Path) -> None:
    case = json.loads((folder / "case.json").read_bytes())
    expected = {(finding["kind"], finding.get("line")) for finding in case["findings"]}

    def read(name: str) -> bytes:
        return (folder / name).read_bytes()

    if case["kind"] == "bundle":
        zipped = not (folder / "bundle").exists()
        paths = [folder / "bundle.zip"] if zipped else list((folder / "bundle").iterdir())
        known = read("known.checkpoint") if (folder / "known.checkpoint").exists() else None
        files = {path.name: path.read_bytes() for path in paths}
        if (folder / "second").exists():
            second = {path.name: path.read_bytes() for path in (folder / "second").iterdir()}
            findings, forks = judged_together(page, (files, second), trust=read("trust.policy"), now=case["now"])
            assert found_in([*findings, *forks]) == expected
            return
        findings = judged(page, files, trust=read("trust.policy"), known=known, now=case["now"])["findings"]
    elif case["kind"] == "record":
        findings = small(page, "judgeRecord", read("record"))
    elif case["kind"] == "trust":
        assert {("trust", None) for _ in [0] if not is_policy(page, read("trust.policy"))} == expected
        return
    elif case["kind"] == "checkpoint":
        findings = small(page, "judgeCheckpoint", read("checkpoint"), read("trust.policy"))
    else:
        findings = small(page, "judgeProof", read("proof"), read("record"), read("trust.policy"))
    assert found_in(findings) == expected


def test_the_hashes_of_the_page_are_those_of_everybody_else(page: Page) -> None:
    for length in (0, 1, 3, 55, 56, 63, 64, 65, 119, 120, 128, 1000):
        data = bytes(n % 251 for n in range(length))
        assert (
            page.evaluate(f"window.tallystickVerify.sha256(new Uint8Array({list(data)}))")
            == hashlib.sha256(data).hexdigest()
        )
        tag = page.evaluate(
            f"window.tallystickVerify.hmac(new Uint8Array({list(data[:40])}), new Uint8Array({list(data)}))"
        )
        assert tag == hmac.digest(data[:40], data, "sha256").hex()


def bad_policies() -> list[str]:
    key = maker.vkey("w.example", 4, maker.key(9))
    return ["", "quorum none", "quorum w\n", f"witness w {key}\nwitness x {key}\nquorum w\n", "log x\nquorum none\n"]


@pytest.mark.parametrize("trust", bad_policies())
def test_a_trust_file_that_is_none_is_refused(page: Page, trust: str) -> None:
    with pytest.raises(Exception, match="trust file"):
        judged(page, {}, trust=trust.encode())


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 17, 18])
def test_proofs_of_every_place_hold_and_no_others(page: Page, size: int) -> None:
    made = cases.ledger()
    for index in range(size):
        proof = made.proof(index, size)
        assert small(page, "judgeProof", proof, made.lines[index], maker.TRUST) == []
        other = proof.replace(b"index %d\n" % index, b"index %d\n%s\n" % (index, b64(bytes(32)).encode()))
        assert found_in(small(page, "judgeProof", other, made.lines[index], maker.TRUST)) == {("root", None)}


# ------------------------------------------------------------------------------------------- by hand


def outcomes(page: Page) -> list[str]:
    page.locator("#result").wait_for()
    return page.locator("li.step .outcome").all_inner_texts()


def test_a_person_chooses_three_files_and_a_trust_file(fresh: Page, tmp_path: Path) -> None:
    folder = maker.write(tmp_path / "b", cases.ledger().bundle(0, 14).files())
    (tmp_path / "trust.policy").write_bytes(maker.TRUST)
    (tmp_path / "known").write_bytes(cases.ledger().checkpoint(9))

    fresh.set_input_files("#bundle", list(folder.iterdir()))
    fresh.set_input_files("#trust", tmp_path / "trust.policy")
    fresh.set_input_files("#known", tmp_path / "known")
    fresh.click("#go")

    assert "FINDING" not in outcomes(fresh)
    assert fresh.locator("#verdict").inner_text().startswith("Pass\nComplete. Every record of [0, 14) is there")
    assert fresh.locator("li.step .asks").all_inner_texts() == list(STEPS)


def test_a_person_drops_a_zip_that_was_tampered_with_and_pastes_the_trust_file(fresh: Page) -> None:
    case = next(case for case in cases.EVERY if case.name == "a-value")
    transfer = fresh.evaluate_handle(
        """(data) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([Uint8Array.from(atob(data), (one) => one.charCodeAt(0))], 'evidence.zip'));
            return transfer;
        }""",
        b64(maker.zipped(case.files)),
    )

    for kind in ("dragenter", "dragover", "drop"):
        fresh.dispatch_event("#for-bundle .drop", kind, {"dataTransfer": transfer})
    fresh.fill("#trust-text", maker.TRUST.decode().strip())
    fresh.locator("#for-bundle .chosen", has_text="evidence.zip").wait_for()
    fresh.click("#go")

    assert outcomes(fresh).count("FINDING") == 3
    assert re.search(r"signature, line 4, position 3: ", fresh.locator("#steps").inner_text())
    assert fresh.locator("#verdict strong").inner_text() == "Fail"


def test_a_person_checks_one_record(fresh: Page, tmp_path: Path) -> None:
    made = cases.ledger()
    (tmp_path / "proof").write_bytes(made.proof(4))
    (tmp_path / "record").write_bytes(made.lines[4])
    (tmp_path / "other").write_bytes(made.lines[5])

    fresh.click("#tab-proof")
    fresh.set_input_files("#proof", tmp_path / "proof")
    fresh.set_input_files("#record", tmp_path / "record")
    fresh.fill("#trust-text", maker.TRUST.decode())
    fresh.click("#go")
    assert outcomes(fresh) == ["ok"] * 5
    fresh.set_input_files("#record", tmp_path / "other")
    fresh.click("#go")
    fresh.locator("#verdict.not").wait_for()

    assert outcomes(fresh) == ["ok", "FINDING", "ok", "FINDING", "ok"]


def test_what_is_missing_is_said(fresh: Page, tmp_path: Path) -> None:
    fresh.click("#go")
    assert "trust file" in fresh.locator("#problem").inner_text()
    fresh.fill("#trust-text", "quorum some")
    fresh.click("#go")
    fresh.locator("#problem", has_text="bundle").wait_for()
    fresh.set_input_files("#bundle", maker.write(tmp_path / "b", {"x": b""}) / "x")
    fresh.click("#go")
    fresh.locator("#problem", has_text="line 1 of the trust file").wait_for()
    assert not fresh.locator("#result").is_visible()


def test_two_bundles_are_dropped_and_their_fork_is_shown(fresh: Page, tmp_path: Path) -> None:
    for name, other in (("one", None), ("two", 4)):
        made = cases.ledger() if other is None else cases.ledger(other=other)
        maker.write(tmp_path / name, made.bundle(0, 14).files())
    fresh.fill("#trust-text", maker.TRUST.decode())
    fresh.set_input_files("#bundle", sorted((tmp_path / "one").iterdir()))
    fresh.set_input_files("#second", sorted((tmp_path / "one").iterdir()))
    fresh.click("#go")
    fresh.locator("#verdict.holds").wait_for()
    assert fresh.locator("#verdict").inner_text() == "Pass\nThe two bundles are of one history."
    assert fresh.locator("li.step").count() == 42

    fresh.set_input_files("#second", sorted((tmp_path / "two").iterdir()))
    fresh.click("#go")
    fresh.locator("#verdict.not").wait_for()

    shown = fresh.locator("#forks").inner_text()
    assert "fork: at size 18 one has another root than the checkpoint of the other" in shown
    assert "fork, position 4: two different records, with the leaf hashes " in shown
    assert "fork: two different records at 10 positions" in shown


def test_text_that_would_do_something_is_shown_and_does_nothing(fresh: Page) -> None:
    attack = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    made = cases.ledger()
    made.add("user.changed", {}, f"\u202e{attack}")
    made.close()
    bundle = made.bundle(14, 20)
    bundle.lines[4] = maker.changed(bundle.lines[4], entity_version=5)
    bundle.lines.insert(5, maker.changed(bundle.lines[4], entity_version=1, position=19, entity_id=f"\u202e{attack}"))
    transfer = fresh.evaluate_handle(
        """(files) => {
            const transfer = new DataTransfer();
            for (const [name, data] of files) {
                transfer.items.add(new File([Uint8Array.from(atob(data), (one) => one.charCodeAt(0))], name));
            }
            return transfer;
        }""",
        [[name, b64(data)] for name, data in bundle.files(tell=True).items()],
    )
    fresh.dispatch_event("#for-bundle .drop", "drop", {"dataTransfer": transfer})
    fresh.fill("#trust-text", maker.TRUST.decode())
    fresh.locator("#for-bundle .chosen", has_text="manifest.json").wait_for()
    fresh.click("#go")
    fresh.locator("#verdict.not").wait_for()

    shown = fresh.locator("#steps").inner_text()

    assert attack in shown
    assert "\\u{202e}" in shown
    assert "\u202e" not in shown
    assert fresh.locator("#steps img, #steps script").count() == 0
    assert fresh.title() == "Tallystick: verify evidence"


def test_a_long_bundle_shows_how_far_it_is(fresh: Page, tmp_path: Path) -> None:
    made = maker.Ledger()
    made.open()
    fill = "x" * 60_000
    for _ in range(150):
        made.add("user.changed", {"fill": fill}, "user-1", recorded_at=maker.moment(1))
    made.close()
    folder = maker.write(tmp_path / "b", made.bundle(0, len(made.lines)).files())
    fresh.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => window.seen.push(document.getElementById('status').textContent))
                .observe(document.getElementById('status'), {childList: true, characterData: true, subtree: true});
        }"""
    )

    fresh.set_input_files("#bundle", list(folder.iterdir()))
    fresh.fill("#trust-text", maker.TRUST.decode())
    fresh.click("#go")

    assert "FINDING" not in outcomes(fresh)
    assert any(re.search(r"\d+ %", text) for text in fresh.evaluate("window.seen"))


WORDS: Final = ["", "1", "10", "a", "B", "\uffff", "\U0001f600", "\U0001f601", "e\u0301", "\u00e9"]
NUMBERS: Final = [0, 1, 10, -12, 9.5, -1e-7, 1e21, 2**53 - 1]
SCALARS: Final = st.sampled_from([*WORDS, *NUMBERS, True, False, None])
PAYLOADS: Final = st.dictionaries(
    st.sampled_from(["a", "a b", "__proto__", "toString"]),
    SCALARS | st.lists(SCALARS | st.lists(SCALARS, max_size=2), max_size=2) | st.dictionaries(st.just("a"), SCALARS),
    max_size=3,
)
TERMS: Final = (
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["payload.a", 'payload."a b"', "payload.__proto__", "payload.toString", "payload.a.a"]),
        st.sampled_from(["=", "!="]),
        SCALARS.map(lambda value: maker.canonical(value).decode()),
    )
    | st.builds(
        "{}{}{}".format,
        st.sampled_from(["payload.a", 'payload."a b"', "payload.a.a"]),
        st.sampled_from(["<", "<=", ">", ">="]),
        st.sampled_from([*WORDS, *NUMBERS]).map(lambda value: maker.canonical(value).decode()),
    )
    | st.sampled_from(
        [
            "payload.a",
            "!payload.a",
            "payload.toString",
            "!payload.a.a",
            "event_type!=user.*",
            "entity_id^=user-",
            "actor=jane",
        ]
    )
)
CLAIMED: Final = ["2026-03-03t09:00:03.5z", "2026-03-03T10:30:03.123456789+01:30", "0001-01-01T00:00:00Z", None]
TIMED: Final = st.builds(
    "{}={}".format,
    st.sampled_from(["occurred_after", "occurred_before"]),
    st.sampled_from(["2026-03-03T09:00:03.123456Z", "2026-03-03T09:00:03.123457Z", "2026-03-03T09:00:03.500000Z"]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    payloads=st.lists(st.tuples(PAYLOADS, st.sampled_from(CLAIMED)), min_size=1, max_size=6),
    selectors=st.lists(st.lists(TERMS | TIMED, min_size=1, max_size=3), min_size=1, max_size=8),
)
def test_the_page_and_the_command_find_the_same_matches(
    page: Page,
    tmp_path: Path,
    payloads: list[tuple[dict[str, Any], str | None]],
    selectors: list[list[str]],
) -> None:
    ledger = maker.Ledger()
    ledger.open()
    for payload, claimed in payloads:
        ledger.add("user.changed", payload, "user-1", actor={"id": "jane"}, occurred_at=claimed)
    ledger.close()
    made = ledger.bundle(0, len(ledger.lines))
    made.manifest["selectors"] = [
        {"any_of": [terms], "count": 0, "name": f"s{number}", "within": []} for number, terms in enumerate(selectors)
    ]
    files = made.files()

    expected = verify_bundle(maker.write(tmp_path / "b", files), trust=maker.TRUST, now=datetime.fromisoformat(NOW))
    shown = judged(page, files)

    assert [(one["name"], one["count"], one["positions"]) for one in shown["selectors"]] == [
        (one.name, one.count, [*one.positions]) for one in expected.matches
    ]


def test_a_person_sees_for_each_selector_what_matches(fresh: Page, tmp_path: Path) -> None:
    made = cases.ledger().bundle(0, 14)
    every = [("changes", ["event_type=user.changed"]), ("nothing", ["event_type=x"])]
    made.manifest["selectors"] = [
        {"any_of": [terms], "count": 0, "name": name, "within": ["end=14"]} for name, terms in every
    ]
    made.manifest["selectors"][0]["count"] = sum(b'"user.changed"' in line for line in made.lines)
    folder = maker.write(tmp_path / "b", made.files())

    fresh.set_input_files("#bundle", [folder / name for name in made.files()])
    fresh.fill("#trust-text", maker.TRUST.decode())
    fresh.click("#go")
    fresh.wait_for_selector("#result:not([hidden])")

    assert "Complete: every matching record of the range is here." in fresh.locator("#matches").inner_text()
    rows = fresh.locator("#matches tr").all_inner_texts()
    assert [row.split("\t")[:2] for row in rows[1:]] == [
        ["changes", str(made.manifest["selectors"][0]["count"])],
        ["nothing", "0"],
    ]
