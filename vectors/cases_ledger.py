"""Vectors of ledgers that never were right: sealed by someone with all the keys, under a root that is signed.

Only the rule that was broken gives these away, since every hash, signature and root fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

from tallystick.core import timestamp
from tallystick.core.canonical import decode, encode
from tallystick.core.custody import RECORDS_PRUNED, RETENTION_SET
from tallystick.core.keys import epoch_key
from tallystick.core.pruned import Absent, RecordsPruned, frontier_at
from tallystick.core.record import EPOCH_CLOSED, KEY_ROTATED
from tallystick.core.strict import render_base64
from tallystick.core.system import EpochClosed, KeyRotated, system_members
from tests.evidence.forge import GENESIS, KEYS, NOON, Insider, fixed_key
from vectors.case import Case, Expected
from vectors.scene import SECOND_KEY, Bundle, Hashes, bundle, chained_anew, event, ledger, rotate, signed, signed_anew

LINES: Final = ledger().lines
KEPT_KEY: Final = KEYS.checkpoint
"""In ledgers that never rotate, the checkpoint key of the genesis stays in force."""


def cases() -> Iterator[Case]:
    yield from _epochs()
    yield from _times()
    yield from _streams()
    yield from _own()
    yield from _keys()
    yield from _geneses()
    yield from _sizes()
    yield from _prunes()


def short_ledger(*, close: bool = True) -> Insider:
    """A ledger of one epoch: 0 genesis, 1 opening, 2-4 events, and the close at 5."""
    insider = Insider()
    for number in range(3):
        event(insider, number)
    if close:
        insider.close()
    return insider


def _whole(insider: Insider, **more: Any) -> Bundle:
    """All of it, under the key that is still in force."""
    return bundle(insider.lines, checkpoint=signed(insider.lines, key=KEPT_KEY), **more)


def _epochs() -> Iterator[Case]:
    none = ("epoch", None)
    insider = short_ledger()
    insider.open(2)
    event(insider, 3)
    insider.close()
    yield Case.of("epoch-gap", "11 (11)", "epoch 2 follows epoch 0", _whole(insider), none)
    insider = short_ledger()
    insider.open(0)
    event(insider, 3)
    insider.close()
    says = "epoch 0 is opened and closed twice"
    yield Case.of("epoch-repeat", "11 (11)", says, _whole(insider), *[("epoch", line) for line in (7, 8, 9)], none)
    insider = short_ledger()
    insider.open(1)
    event(insider, 3)
    insider.epoch = 0
    event(insider, 4)
    insider.epoch = 1
    insider.close()
    yield Case.of("epoch-decrease", "11 (9)", "an event of epoch 0 stands in epoch 1", _whole(insider), ("epoch", 9))
    insider = short_ledger()
    event(insider, 3)
    insider.open(1)
    insider.close()
    says = "an event after the close of its epoch"
    yield Case.of("epoch-after-close", "11 (9)", says, _whole(insider), ("epoch", 7), none)
    insider = short_ledger(close=False)
    insider.open(1)
    event(insider, 3)
    insider.close()
    yield Case.of("epoch-not-closed", "11 (11)", "epoch 0 is never closed", _whole(insider), none)
    insider = short_ledger(close=False)
    yield Case.of("epoch-open-key", "5.3", "the key of an epoch that is open is disclosed", _whole(insider), none)
    insider = short_ledger()
    insider.open(1, key=epoch_key(KEYS.event_mac, 7))
    event(insider, 3)
    insider.close()
    says = "an opening commits to another key than the one that signs"
    yield Case.of("epoch-commitment", "11 (11)", says, _whole(insider), ("commitment", None))
    insider = short_ledger(close=False)
    insider.close(last_position=3)
    says = "an epoch was cut short after its close was written"
    yield Case.of("epoch-truncated", "11 (11)", says, _whole(insider), none)
    insider = short_ledger(close=False)
    wrong = {**EpochClosed(0, 1, 5).payload(), "count": 4}
    insider.own(EPOCH_CLOSED, wrong)
    yield Case.of("epoch-count", "5.2", "a close counts wrongly", _whole(insider), none)
    yield from _resealed_epochs()


def _resealed_epochs() -> Iterator[Case]:
    insider = short_ledger()
    insider.open(1)
    event(insider, 3)
    insider.close()
    lines = insider.lines
    lines[3] = signed_anew(encode({**decode(lines[3]), "epoch": 1}))
    lines = chained_anew(lines, 4)
    made = bundle(lines, checkpoint=signed(lines, key=KEPT_KEY))
    says = "an old event is signed anew under the key of a newer epoch"
    yield Case.of("epoch-newer-key", "11 (9)", says, made, ("epoch", 4))
    made = bundle(LINES, first=2, end=8)
    made.document["mac_keys"] = []
    says = "no key is disclosed"
    yield Case.of("key-missing", "11 (9)", says, made, *[("signature", line) for line in range(1, 7)])
    made = bundle(LINES, first=2, end=8)
    made.document["mac_keys"][0]["key"] = epoch_key(KEYS.event_mac, 5).hex()
    says = "another key is disclosed than the one that signed"
    expected = [("signature", line) for line in range(1, 7)]
    yield Case.of("key-wrong", "11 (11)", says, made, *expected, ("signature", None), ("commitment", None))


def _times() -> Iterator[Case]:
    insider = short_ledger(close=False)
    insider.moment = NOON
    event(insider, 3)
    insider.close()
    yield Case.of(
        "time-backwards", "11 (8)", "a record claims to be earlier than the one before", _whole(insider), ("time", 6)
    )
    made = bundle(LINES, first=2, end=8, created="2026-03-15T12:00:03.000000Z")
    says = "records are later than the bundle"
    yield Case.of("time-after-bundle", "11 (8)", says, made, ("time", 6))
    made = bundle(LINES, first=2, end=8, created="2026-03-18T00:00:00.000000Z")
    yield Case.of("time-future", "11 (8)", "the bundle was made two days from now", made, ("clock", None))


def _streams() -> Iterator[Case]:
    for name, says, version in (("gap", "a version is left out", 3), ("repeat", "a version comes again", 1)):
        insider = short_ledger(close=False)
        insider.versions["till-0"] = version - 1
        event(insider, 3)
        insider.close()
        yield Case.of(f"version-{name}", "11 (10)", says, _whole(insider), ("entity-version", 6))
    insider = Insider()
    insider.versions["till-0"] = 1
    event(insider, 0)
    insider.close()
    yield Case.of(
        "version-begins-at-2", "11 (10)", "a stream begins at version 2", _whole(insider), ("entity-version", 3)
    )


def _own() -> Iterator[Case]:
    """Records that only the ledger itself may write."""
    mallory: dict[str, Any] = {"actor": {"id": "mallory", "type": "system"}}
    for at, name, says, found in (
        (7, "close", "the close of epoch 0 is by somebody else", (("epoch", None),)),
        (13, "rotation", "the change of keys is by somebody else", (("key-rotation", None), ("checkpoint", None))),
    ):
        lines = chained_anew([*LINES[:at], signed_anew(LINES[at], **mallory), *LINES[at + 1 :]], at + 1)
        yield Case.of(f"{name}-by-another", "5.5", says, bundle(lines, first=0, end=16), *found)


def _keys() -> Iterator[Case]:
    """Keys that were changed without leave. The checkpoint then is not by the key in force, either."""
    found = (("key-rotation", None), ("checkpoint", None))
    stranger = fixed_key(9)
    for name, says, rotated in (
        (
            "old-key",
            "the old key is not the one in force",
            KeyRotated.sign("checkpoint", ledger="shop", old=stranger, new=SECOND_KEY),
        ),
        (
            "other-ledger",
            "the change is of another ledger",
            KeyRotated.sign("checkpoint", ledger="bank", old=KEPT_KEY, new=SECOND_KEY),
        ),
        (
            "forged",
            "the old key did not sign",
            replace(
                KeyRotated.sign("checkpoint", ledger="shop", old=KEPT_KEY, new=SECOND_KEY), old_signature=bytes(64)
            ),
        ),
    ):
        insider = short_ledger(close=False)
        insider.own(KEY_ROTATED, rotated.payload())
        insider.close()
        made = bundle(insider.lines, checkpoint=signed(insider.lines, key=SECOND_KEY))
        yield Case.of(f"rotation-{name}", "11 (12)", says, made, *found)
    insider = short_ledger(close=False)
    rotated = KeyRotated.sign("evidence", ledger="shop", old=KEYS.evidence, new=fixed_key(5))
    insider.own(KEY_ROTATED, rotated.payload())
    insider.close()
    made = _whole(insider)
    made.evidence = fixed_key(5)
    yield Case.of("rotation-evidence", "5.4", "the evidence key was changed, and the new one seals", made)
    made = _whole(insider)
    yield Case.of(
        "rotation-evidence-old", "11 (15)", "the old evidence key seals after it was changed", made, ("seal", None)
    )
    insider = short_ledger(close=False)
    rotate(insider, SECOND_KEY)
    rotate(insider, fixed_key(6), old=SECOND_KEY)
    insider.close()
    made = bundle(insider.lines, checkpoint=signed(insider.lines, key=fixed_key(6)))
    yield Case.of("rotation-twice", "5.4", "the checkpoint key was changed twice", made)


def _geneses() -> Iterator[Case]:
    other = replace(GENESIS, nonce=bytes([7]) * 32).seal(
        KEYS.root, event_id="genesis", recorded_at=timestamp.render(NOON)
    )
    made = bundle(LINES, first=2, end=8)
    made.document["genesis"] = other.decode()
    says = "another genesis"
    yield Case.of("genesis-swapped", "11 (3)", says, made, ("genesis", None), ("root", None))
    made = bundle(LINES, first=2, end=8)
    made.document["genesis"], made.document["ledger"]["id"] = other.decode(), sha256(other).hexdigest()
    says = "another genesis, and the id that goes with it"
    yield Case.of("genesis-and-id", "11 (14)", says, made, ("root", None))
    stranger = GENESIS.seal(fixed_key(9), event_id="genesis", recorded_at=timestamp.render(NOON))
    made = bundle(LINES, first=2, end=8)
    made.document["genesis"], made.document["ledger"]["id"] = stranger.decode(), sha256(stranger).hexdigest()
    says = "the genesis is not signed by its root key"
    yield Case.of("genesis-unsigned", "11 (3)", says, made, ("genesis", None), ("root", None))
    made = bundle(LINES, end=8)
    made.document["genesis"], made.document["ledger"]["id"] = other.decode(), sha256(other).hexdigest()
    says = "the first line is another genesis than the manifest's"
    yield Case.of("genesis-line", "11 (9)", says, made, ("genesis", 1))
    made = bundle(LINES, first=2, end=8)
    made.document["ledger"]["origin"] = "forge/shop2"
    says = "the manifest names another origin than the genesis"
    yield Case.of("genesis-origin", "11 (3)", says, made, ("genesis", None), ("checkpoint", None))


def _sizes() -> Iterator[Case]:
    for length, expected in ((65_535, ()), (65_536, (("not-canonical", 6), ("root", None)))):
        insider = short_ledger(close=False)
        probe = len(insider.lines)
        event(insider, 3, payload={"fill": ""})
        fill = length - len(insider.lines[probe])
        insider.lines.pop()
        insider.versions["till-0"] -= 1
        insider.moment -= 1_000_000
        event(insider, 3, payload={"fill": "x" * fill})
        insider.close()
        made = _whole(insider)
        found = [one for one in expected if one[0] != "root"]
        yield Case.of(f"record-of-{length}", "3.1", f"a record of {length:,} bytes", made, *found)
    deep: Any = 0
    for _ in range(30):
        deep = [deep]
    insider = short_ledger(close=False)
    event(insider, 3, payload={"deep": deep})
    insider.close()
    yield Case.of("depth-32", "2.2", "32 levels", _whole(insider))
    insider = short_ledger(close=False)
    event(
        insider, 3, payload={"numbers": [1e-7, 1e21, 0.1, -0.5, 5e-324, 1.7976931348623157e308], "\U0001f600": "\u007f"}
    )
    insider.close()
    yield Case.of("numbers", "2.1", "numbers and names that are easily written otherwise", _whole(insider))


def pruned_ledger(*, absent: Absent | None = None, end: int = 4, say: dict[str, Any] | None = None) -> Insider:
    """The ledger of `short_ledger`, then a policy and a prune of positions 2 and 3, in an epoch of its own."""
    insider = short_ledger()
    insider.open(1)
    insider.own(RETENTION_SET, {"labels": {}, "period_days": 90})
    insider.moment += 91 * 86_400 * 1_000_000
    lines = insider.lines
    node = Hashes(lines).node
    pruned = RecordsPruned(
        first=2,
        end=end,
        count=2,
        first_hash=sha256(lines[2]).digest(),
        last_hash=sha256(lines[end - 1]).digest(),
        frontier_at_end=frontier_at(end, node=node),
        checkpoint_at_prune=signed(lines, key=KEPT_KEY),
        policy_position=7,
        holds_checked=(),
        absent=absent or Absent.over([(2, 4)]),
        moment=insider.moment,
    )
    content = system_members(RECORDS_PRUNED, pruned.payload() | (say or {}), event_id="prune")
    insider.put({**content, "occurred_at": timestamp.render(pruned.moment)})
    insider.close()
    return insider


def _prunes() -> Iterator[Case]:
    later = {"created": "2026-07-01T00:00:00.000000Z"}
    now = "2026-07-01T00:01:00Z"

    def case(name: str, spec: str, says: str, made: Bundle, *expected: Expected) -> Case:
        return replace(Case.of(name, spec, says, made, *expected), now=now)

    insider = pruned_ledger()
    yield case("pruned", "11 (16)", "positions 2 and 3 were lawfully pruned", _whole(insider, gone=[(2, 4)], **later))
    made = _whole(insider, first=1, end=6, gone=[(2, 4)], **later)
    yield case("pruned-part", "10.4", "the prune that says so stands beside the range", made)
    made = _whole(insider, gone=[(2, 5)], **later)
    yield case("pruned-more", "11 (16)", "more is absent than the prune says", made, ("prune", None))
    made = _whole(insider, gone=[(2, 4)], **later)
    made.document["absent"] = []
    says = "what is absent is not said"
    yield case("pruned-unsaid", "11 (6)", says, made, ("missing", 3))
    made = bundle(LINES, first=2, end=8, gone=[(3, 4)])
    yield Case.of(
        "absent-without-prune", "11 (16)", "positions are absent, and no prune says so", made, ("prune", None)
    )
    made = _whole(insider, gone=[(2, 4)], **later)
    made.lines.insert(2, insider.lines[2])
    says = "a record stands where it is said to be absent"
    yield case("pruned-and-there", "11 (6)", says, made.stated(), ("misplaced", 3))
    root, before = render_base64(bytes(32)), insider.lines[:8]
    for name, says, say in (
        ("first", "the prune begins where it ends", {"first": 4}),
        ("count", "the prune took more than is absent", {"count": 3}),
        ("end", "the prune ends past itself", {"end": 100, "frontier_at_end": [root] * 3}),
        ("frontier", "the prune has roots of another tree", {"frontier_at_end": []}),
        ("policy", "the prune names itself as its policy", {"policy_position": 8}),
        ("no-checkpoint", "the prune has no checkpoint", {"checkpoint_at_prune": ""}),
        ("checkpoint-early", "its checkpoint is below its end", {"checkpoint_at_prune": signed(before, 3).decode()}),
        ("checkpoint-late", "its checkpoint is past it", {"checkpoint_at_prune": signed(insider.lines, 9).decode()}),
        (
            *("checkpoint-stranger", "its checkpoint is signed by a stranger"),
            {"checkpoint_at_prune": signed(before, key=fixed_key(9)).decode()},
        ),
    ):
        made = _whole(pruned_ledger(say=say), gone=[(2, 4)], **later)
        yield case(f"pruned-{name}", "11 (16)", says, made, ("prune", None))
    made = _whole(pruned_ledger(absent=Absent.over([(3, 5)])), gone=[(3, 5)], **later)
    yield case("pruned-past-its-end", "11 (16)", "the prune ends before what is absent does", made, ("prune", None))
