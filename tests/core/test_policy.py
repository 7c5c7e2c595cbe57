"""The trust file (C2SP tlog-policy): whose checkpoints count, and who must have seen them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.cosignature import WitnessSigner, with_cosignatures
from tallystick.core.note import Note, Signer, sign_note
from tallystick.core.policy import Policy
from tallystick.errors import RejectedError, TamperError

LOG = Signer("audit.example/acme", Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32))
WITNESSES = [
    WitnessSigner(f"witness.example/{name}", Ed25519PrivateKey.from_private_bytes(bytes([10 + number]) * 32))
    for number, name in enumerate(("X1", "X2", "X3", "Y1", "Y2", "Y3"))
]
LOG_LINE = f"log {LOG.verifier_key.render()}\n"
WITNESS_LINES = "".join(f"witness {w.name[-2:]} {w.witness_key.render()} https://{w.name}\n" for w in WITNESSES)
EXAMPLE = f"""\
# The example of the specification
{LOG_LINE}
{WITNESS_LINES}
group X-witnesses 2 X1 X2 X3
  group\tY-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def parse(text: str) -> Policy:
    return Policy.parse(text.encode())


def test_the_example_of_the_specification_is_read() -> None:
    policy = parse(EXAMPLE)

    assert [key.name for key in policy.logs] == ["audit.example/acme"]
    assert [witness.name for witness in policy.witnesses] == ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
    assert policy.witnesses[0].url == "https://witness.example/X1"
    assert policy.quorum == "X-and-Y"


def test_a_policy_that_was_written_is_read_as_the_same() -> None:
    policy = parse(EXAMPLE)

    assert Policy.parse(policy.render()) == policy


@pytest.mark.parametrize(
    ("who", "enough"),
    [
        (["X1", "X2", "Y1"], True),
        (["X1", "X3", "Y1", "Y2", "Y3"], True),
        (["X1", "X2", "X3"], False),
        (["X1", "Y1", "Y2", "Y3"], False),
        ([], False),
    ],
)
def test_the_quorum_counts_through_groups(who: list[str], enough: bool) -> None:
    assert parse(EXAMPLE).is_satisfied(who) == enough


def test_without_witnesses_nobody_has_to_have_cosigned() -> None:
    assert parse(f"{LOG_LINE}quorum none\n").is_satisfied([])


def test_a_quorum_may_be_one_witness() -> None:
    policy = parse(f"{WITNESS_LINES}quorum X2\n")

    assert policy.is_satisfied(["X2"])
    assert not policy.is_satisfied(["X1"])


def test_the_keys_of_an_origin_are_those_of_its_log_lines() -> None:
    policy = parse(EXAMPLE)

    assert policy.keys_of("audit.example/acme") == {LOG.verifier_key.public_key}
    assert policy.keys_of("audit.example/other") == frozenset()


def test_cosignatures_that_hold_are_told_with_their_times_and_a_false_one_refuses_all() -> None:
    text = "audit.example/acme\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    note = sign_note(text, LOG).render()
    lines = (WITNESSES[0].cosign(text, seconds=5), WITNESSES[3].cosign(text, seconds=6))
    policy = parse(EXAMPLE)

    assert policy.cosigned(Note.parse(with_cosignatures(note, lines))) == {"X1": 5, "Y1": 6}
    false = WITNESSES[1].cosign(text.replace("1", "2"), seconds=5)
    with pytest.raises(TamperError, match="X2"):
        policy.cosigned(Note.parse(with_cosignatures(note, (*lines, false))))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LOG_LINE, "the quorum line is missing"),
        (f"{LOG_LINE}quorum none\nquorum none\n", "line 3: a second quorum line"),
        (f"{LOG_LINE}{LOG_LINE}quorum none\n", "line 2: another log line has this key"),
        (f"{WITNESS_LINES}witness Z {WITNESSES[0].witness_key.render()}\nquorum none\n", "line 7: another witness"),
        (f"{WITNESS_LINES}quorum Z\n", "not defined above"),
        (f"quorum X1\n{WITNESS_LINES}", "line 1: 'X1' is not defined above"),
        (f"{WITNESS_LINES}group g 1 X1 Z\nquorum g\n", "'Z' is not defined above"),
        (f"{WITNESS_LINES}group g 0 X1 X2\nquorum g\n", "at least one"),
        (f"{WITNESS_LINES}group g 3 X1 X2\nquorum g\n", "not a decimal from 0 to 2"),
        (f"{WITNESS_LINES}group g +1 X1 X2\nquorum g\n", "not a decimal"),
        (f"{WITNESS_LINES}group g any X1 X1\nquorum g\n", "member of a group already"),
        (f"{WITNESS_LINES}group g any X1\ngroup h any X1\nquorum g\n", "member of a group already"),
        (f"{WITNESS_LINES}group X1 any X2\nquorum X1\n", "taken already"),
        (f"{WITNESS_LINES}group none any X2\nquorum none\n", "taken already"),
        (f"{WITNESS_LINES}group g any none\nquorum g\n", "not defined above"),
        (f"{WITNESS_LINES}group g any\nquorum g\n", "is no line of a trust file"),
        ("log x\nquorum none\n", "line 1: this is not a verifier key"),
        (f"log {WITNESSES[0].witness_key.render()}\nquorum none\n", "type 1"),
        (f"witness w {LOG.verifier_key.render()}\nquorum none\n", "type 4"),
        ("trust everybody\nquorum none\n", "is no line of a trust file"),
        ("quorum none", "does not end in a newline"),
        ("quorum none\r\n", "control character"),
        ("quorum\u00a0none\n", "is no line of a trust file"),
        ("quorum none\n" + "# \0\n", "line 2: the control character"),
    ],
)
def test_what_is_no_trust_file_is_refused_at_its_line(text: str, problem: str) -> None:
    with pytest.raises(RejectedError, match=problem):
        parse(text)


def test_a_trust_file_is_bounded() -> None:
    with pytest.raises(RejectedError, match="at most 65536"):
        Policy.parse(b"#" * 65_537)
    with pytest.raises(RejectedError, match="more than 256 lines"):
        parse(f"quorum none\n{_many()}")


def _many() -> str:
    keys = [Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big")) for number in range(1, 258)]
    return "".join(f"log {Signer('a/b', key).verifier_key.render()}\n" for key in keys)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_trust_file_or_refused(data: bytes) -> None:
    try:
        policy = Policy.parse(data)
    except RejectedError:
        return
    assert Policy.parse(policy.render()) == policy
