"""Vectors of what stands at the edge of a rule, and that no other vector asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tallystick.core.cosignature import WitnessSigner
from tallystick.core.policy import Policy, Witness
from tests.evidence.forge import KEYS, fixed_key
from vectors.case import Case, SmallCase
from vectors.scene import SECOND_KEY, Bundle, bundle, ledger, selector, signed, vkey

LINES: Final = ledger().lines


def cases() -> Iterator[Case]:
    yield from _ranges()
    yield from _manifests()
    yield from _terms()


def small_cases() -> Iterator[SmallCase]:
    logs = (vkey(KEYS.checkpoint), vkey(SECOND_KEY))
    witness = Witness("w", WitnessSigner("w.example/1", fixed_key(11)).witness_key)
    for name, says, trust in (
        ("plain", "one log", Policy(logs=logs[:1]).render()),
        ("two-logs", "two keys of one log", Policy(logs=logs).render()),
        ("quorum", "a witness that is asked for", Policy(logs=logs, witnesses=(witness,), quorum="w").render()),
        ("comments", "comments and empty lines", b"# ours\n\n" + Policy(logs=logs).render() + b"\n# end\n"),
    ):
        yield SmallCase("trust", f"good-{name}", "11", says, {}, (), trust=trust)


def _ranges() -> Iterator[Case]:
    everything = selector("everything", [])
    made = bundle(LINES, first=9, end=15, only=[10, 12], selectors=[everything])
    says = "a filtered bundle whose range begins and ends where it has no record"
    yield Case.of("filtered-within", "10.3", says, made)
    made = bundle(LINES, first=9, end=15, only=[10], selectors=[everything])
    yield Case.of("filtered-one", "10.3", "a filtered bundle of one record in the middle of its range", made)


def _part() -> Bundle:
    return bundle(LINES, first=2, end=8)


def _manifests() -> Iterator[Case]:
    made = bundle(LINES, first=2, end=13)
    made.document["mac_keys"].reverse()
    yield Case.of("manifest-keys-order", "10.2", "keys in another order", made, ("manifest", None))
    made = bundle(LINES, first=2, end=13)
    made.document["mac_keys"].append(made.document["mac_keys"][-1])
    yield Case.of("manifest-keys-twice", "10.2", "a key stands twice", made, ("manifest", None))
    made = bundle(LINES, first=2, end=8, size=16)
    made.document["start"]["checkpoint"] = signed(LINES, 18).decode()
    yield Case.of("manifest-start-past", "10.2", "it is held against a later state", made, ("manifest", None))
    made = bundle(LINES, first=2, end=8, size=16)
    made.document["records"].append(LINES[16].decode())
    yield Case.of("manifest-record-past", "11 (2)", "a record that is not in the tree yet", made, ("manifest", None))
    made = _part()
    made.document["records"].insert(0, LINES[0].decode())
    says = "the genesis stands among the records, too"
    yield Case.of("manifest-record-genesis", "11 (2)", says, made, ("manifest", None))


def _terms() -> Iterator[Case]:
    for name, says, term in (
        ("control", "a key with a control character", "actor=a\u0007"),
        ("delete", "a key with U+007F", "label=a\u007f"),
        ("empty", "a key of no characters", "id="),
        ("past-integers", "a position that is no exact integer", f"first={2**53}"),
        ("leading-zero", "a position with a leading zero", "end=08"),
        ("lacks-value", "no path and a value", "!payload.v=1"),
        ("bare", "a path of no names", "payload"),
        ("twice", "two operators", "payload.v==1"),
        ("any-type", "a pattern of all types", "event_type=*"),
        ("no-field", "a field that no record has", "user=jane"),
    ):
        made = _part()
        made.document["selectors"] = [selector("a", [term])]
        yield Case.of(f"term-{name}", "10.9", says, made, ("manifest", None))
