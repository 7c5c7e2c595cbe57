"""Signed notes: known answers, every malformed form, and which signatures make a note hold."""

from __future__ import annotations

import base64
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.note import Note, SignatureLine, Signer, VerifierKey, open_note, sign_note
from tallystick.errors import RejectedError, TamperError
from tallystick.limits import NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX

NAME: Final = "audit.example/tenant/t1"
SIGNER: Final = Signer(NAME, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
KEY: Final = SIGNER.verifier_key
KEY_TEXT: Final = "audit.example/tenant/t1+56c810cd+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
OTHER: Final = Signer("witness.example", Ed25519PrivateKey.from_private_bytes(bytes(32)))

NOTE: Final = (
    "audit.example/tenant/t1\n2\nNagYmulXm3NkFnVxj8kmFS/5a7O6V2f7NmqIDDSV9Yw=\n"
    "\n"
    "— audit.example/tenant/t1 VsgQzeamOI5QBlL+HUqxzO2kWeOyn1NKJp2UPgh0iCnDsAgGm8tBy8CCm9RyIevzvzbUZx5GW5UISJ"
    "1Vl+GWheqDLQo=\n"
).encode()

PETER: Final = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETERS_NOTE: Final = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNX"
    "gKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
"""The example of the Go package sumdb/note, the first implementation of signed notes."""


def line(signer: Signer, text: str) -> SignatureLine:
    return sign_note(text, signer).signatures[0]


def broken(signature: SignatureLine) -> SignatureLine:
    return SignatureLine(signature.name, signature.key_id, bytes(64))


# ------------------------------------------------------------------------------------------------ keys


def test_the_known_verifier_key_is_derived_and_read() -> None:
    assert KEY.render() == KEY_TEXT
    assert VerifierKey.parse(KEY_TEXT) == KEY
    assert KEY.key_id.hex() == "56c810cd"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "++",
        NAME,
        KEY_TEXT.replace("56c810cd", "56c810ce"),
        KEY_TEXT.replace("56c810cd", "56C810CD"),
        KEY_TEXT.replace("56c810cd", "56c810c"),
        KEY_TEXT.replace("audit", "audit "),
        KEY_TEXT.replace("audit", "audit\N{NO-BREAK SPACE}"),
        KEY_TEXT.replace("audit", "audix"),
        KEY_TEXT.replace(NAME, ""),
        KEY_TEXT.replace("+AQ", "+Ag"),
        KEY_TEXT.replace("+AQ", "+BA"),
        KEY_TEXT[:-4],
        KEY_TEXT + "AAAA",
        KEY_TEXT + "\n",
        " " + KEY_TEXT,
        KEY_TEXT + "=",
        "\ud800+00000000+AQ==",
        "x" * (NOTE_BYTES_MAX + 1) + KEY_TEXT,
    ],
)
def test_a_verifier_key_in_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(RejectedError):
        VerifierKey.parse(text)


@given(st.binary(min_size=32, max_size=32))
def test_any_verifier_key_is_read_as_it_is_written(seed: bytes) -> None:
    key = Signer(NAME, Ed25519PrivateKey.from_private_bytes(seed)).verifier_key

    assert VerifierKey.parse(key.render()) == key


@pytest.mark.parametrize("count", [0, 31, 33])
def test_a_public_key_has_32_bytes(count: int) -> None:
    with pytest.raises(RejectedError, match="32 bytes"):
        VerifierKey(NAME, bytes(count))


def test_a_key_verifies_its_own_signatures_and_no_others() -> None:
    signature = SIGNER.sign(b"text")

    assert KEY.verify(b"text", signature)
    assert not KEY.verify(b"texT", signature)
    assert not KEY.verify(b"text", signature[:-1])
    assert not KEY.verify(b"text", b"")
    assert not KEY.verify(b"text", bytes([signature[0] ^ 1]) + signature[1:])
    assert not OTHER.verifier_key.verify(b"text", signature)


def test_a_signer_does_not_show_its_private_key() -> None:
    assert "private" not in repr(SIGNER)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\tb", "a\N{LINE SEPARATOR}b", "\ud800"])
def test_a_key_name_is_not_empty_and_has_no_space_and_no_plus(name: str) -> None:
    with pytest.raises(RejectedError):
        VerifierKey(name, KEY.public_key)
    with pytest.raises(RejectedError):
        SignatureLine(name, bytes(4), bytes(64))


# ------------------------------------------------------------------------------------------------ form


def test_the_known_note_is_signed_read_and_written() -> None:
    signed = sign_note(f"{NAME}\n2\nNagYmulXm3NkFnVxj8kmFS/5a7O6V2f7NmqIDDSV9Yw=\n", SIGNER)

    assert signed.render() == NOTE
    assert Note.parse(NOTE) == signed


def test_a_note_of_the_first_implementation_opens() -> None:
    note = open_note(PETERS_NOTE, [VerifierKey.parse(PETER)])

    assert note.text.startswith("If you think cryptography is the answer")
    assert [key.name for key in note.signers] == ["PeterNeumann"]


@pytest.mark.parametrize("text", ["\n", "a\n", "a\n\nb\n", "a\n\n", "\n\n\n", "a\n\n— b AAAA\n", "é\u2028\x85\x7f\n"])
def test_the_last_empty_line_divides_text_and_signatures(text: str) -> None:
    note = sign_note(text, SIGNER)

    assert Note.parse(note.render()) == note
    assert open_note(note.render(), [KEY]).text == text


MALFORMED: Final = {
    "nothing": b"",
    "one newline": b"\n",
    "only text": b"text\n",
    "no signatures": b"text\n\n",
    "no newline at the end": NOTE[:-1],
    "a newline more at the end": NOTE + b"\n",
    "text after the signatures": NOTE + b"text\n",
    "no empty line": NOTE.replace(b"\n\n", b"\n"),
    "no text": NOTE[NOTE.index(b"\n\n") + 1 :],
    "CRLF": NOTE.replace(b"\n", b"\r\n"),
    "a NUL": b"\0" + NOTE,
    "a tab in the text": NOTE.replace(b"\n2\n", b"\n\t2\n"),
    "a tab in a signature line": NOTE.replace(b" V", b"\tV"),
    "a byte that is not UTF-8": b"\xff" + NOTE,
    "an overlong form": b"\xc0\x80" + NOTE,
    "a surrogate": b"\xed\xa0\x80" + NOTE,
    "a hyphen for the dash": NOTE.replace("—".encode(), b"-"),
    "no space after the dash": NOTE.replace("— ".encode(), "—".encode()),
    "two spaces": NOTE.replace(b" V", b"  V"),
    "a trailing space": NOTE[:-1] + b" \n",
    "a word more": NOTE[:-1] + b" AAAA\n",
    "no name": NOTE.replace(f"— {NAME} ".encode(), "—  ".encode()),
    "a plus in the name": NOTE.replace(f"— {NAME} ".encode(), "— a+b ".encode()),
    "a space in the name": NOTE.replace(f"— {NAME} ".encode(), "— a\N{NO-BREAK SPACE}b ".encode()),
    "unpadded base64": NOTE.replace(b"DLQo=\n", b"DLQo\n"),
    "stray bits in the base64": NOTE.replace(b"DLQo=\n", b"DLQp=\n"),
    "no signature after the key id": NOTE[: NOTE.rindex(b" ")] + b" VsgQzQ==\n",
    "half a key id": NOTE[: NOTE.rindex(b" ")] + b" VsgQ\n",
    "nothing after the name": NOTE[: NOTE.rindex(b" ")] + b" \n",
    "a second note": NOTE + b"\n" + NOTE,
    "a bad line beside a good one": NOTE + b"x\n",
    "too many bytes": b"x" * NOTE_BYTES_MAX + NOTE,
    "too many signatures": NOTE + NOTE[NOTE.index("—".encode()) :] * NOTE_SIGNATURES_MAX,
}
WELL_FORMED_ALL_THE_SAME: Final = {"a second note"}


@pytest.mark.parametrize("name", sorted(MALFORMED.keys() - WELL_FORMED_ALL_THE_SAME))
def test_a_malformed_note_is_refused(name: str) -> None:
    with pytest.raises(RejectedError):
        Note.parse(MALFORMED[name])


def test_a_note_within_a_note_is_text_and_needs_its_own_signature() -> None:
    with pytest.raises(TamperError):
        open_note(MALFORMED["a second note"], [KEY])


def test_a_refusal_names_the_line() -> None:
    with pytest.raises(RejectedError, match=r"^line 5: this is not a signature line; "):
        Note.parse(MALFORMED["a hyphen for the dash"])
    with pytest.raises(RejectedError, match=r"^line 2: the control character '\\t'"):
        Note.parse(MALFORMED["a tab in the text"])
    with pytest.raises(RejectedError, match=r"^line 1: the note is not valid UTF-8"):
        Note.parse(MALFORMED["a byte that is not UTF-8"])


@pytest.mark.parametrize("text", ["", "text", "a\tb\n", "\r\n", "\ud800\n", "x" * NOTE_BYTES_MAX + "\n"])
def test_a_text_that_cannot_be_read_back_is_not_signed(text: str) -> None:
    with pytest.raises(RejectedError):
        sign_note(text, SIGNER)


def test_a_note_has_one_signature_or_more_but_not_without_end() -> None:
    signature = line(SIGNER, "text\n")
    note = Note("text\n", (signature,) * NOTE_SIGNATURES_MAX)

    assert Note.parse(note.render()) == note
    for count in (0, NOTE_SIGNATURES_MAX + 1):
        with pytest.raises(RejectedError, match="1 to 100 signatures"):
            Note("text\n", (signature,) * count)


names = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="+"), min_size=1, max_size=20)
texts = st.text(st.characters(codec="utf-8", min_codepoint=32) | st.just("\n"), max_size=60)
lines = st.builds(SignatureLine, names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=70))


@given(texts, st.lists(lines, min_size=1, max_size=4))
def test_any_note_is_read_as_it_is_written(text: str, signatures: list[SignatureLine]) -> None:
    note = Note(text + "\n", tuple(signatures))

    assert Note.parse(note.render()) == note


def assert_read_exactly_or_rejected(data: bytes) -> None:
    try:
        note = Note.parse(data)
    except RejectedError:
        return
    assert note.render() == data


@given(st.binary(max_size=200))
def test_any_bytes_are_a_note_in_its_one_form_or_rejected(data: bytes) -> None:
    assert_read_exactly_or_rejected(data)
    assert_read_exactly_or_rejected(data + NOTE)
    assert_read_exactly_or_rejected(NOTE + data)


@given(st.integers(0, len(NOTE)), st.integers(0, 3), st.binary(max_size=3))
def test_a_note_with_some_bytes_replaced_is_read_exactly_or_rejected(at: int, cut: int, put: bytes) -> None:
    assert_read_exactly_or_rejected(NOTE[:at] + put + NOTE[at + cut :])


# -------------------------------------------------------------------------------------------- signatures


def test_a_note_opens_under_a_known_key() -> None:
    note = open_note(NOTE, [OTHER.verifier_key, KEY])

    assert note.text.encode() == NOTE[: NOTE.index(b"\n\n") + 1]
    assert note.signers == (KEY,)


@pytest.mark.parametrize("keys", [[], [OTHER.verifier_key]])
def test_a_note_without_a_known_signature_does_not_hold(keys: list[VerifierKey]) -> None:
    with pytest.raises(TamperError, match="no signature by a known key"):
        open_note(NOTE, keys)


def test_changed_text_does_not_hold() -> None:
    with pytest.raises(TamperError, match="does not fit"):
        open_note(NOTE.replace(b"\n2\n", b"\n3\n"), [KEY])


def test_lines_of_unknown_keys_are_ignored_whatever_they_say() -> None:
    same_name = SignatureLine(NAME, b"\0\0\0\1", bytes(64))
    same_id = SignatureLine("mallory.example", KEY.key_id, bytes(64))
    other_kind = SignatureLine("witness.example", b"\4\4\4\4", bytes(72))

    note = open_note(Note("text\n", (same_name, same_id, other_kind, line(SIGNER, "text\n"))).render(), [KEY])

    assert note.signers == (KEY,)


def test_the_right_name_with_another_id_is_an_unknown_key() -> None:
    alone = Note("text\n", (SignatureLine(NAME, b"\0\0\0\1", SIGNER.sign(b"text\n")),))

    with pytest.raises(TamperError, match="no signature by a known key"):
        open_note(alone.render(), [KEY])


def test_several_known_keys_are_named_in_the_order_of_their_lines() -> None:
    note = Note("text\n", (line(OTHER, "text\n"), line(SIGNER, "text\n")))

    assert open_note(note.render(), [KEY, OTHER.verifier_key]).signers == (OTHER.verifier_key, KEY)


@pytest.mark.parametrize("bad_first", [True, False])
def test_a_known_bad_signature_refuses_the_note_beside_a_good_one(bad_first: bool) -> None:
    good, bad = line(SIGNER, "text\n"), broken(line(OTHER, "text\n"))
    note = Note("text\n", (bad, good) if bad_first else (good, bad))

    with pytest.raises(TamperError, match=r"witness\.example"):
        open_note(note.render(), [KEY, OTHER.verifier_key])


def test_a_repeated_line_counts_once_and_must_hold_each_time() -> None:
    good = line(SIGNER, "text\n")

    assert open_note(Note("text\n", (good, good)).render(), [KEY]).signers == (KEY,)
    with pytest.raises(TamperError, match="does not fit"):
        open_note(Note("text\n", (good, broken(good))).render(), [KEY])


def test_two_keys_that_cannot_be_told_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VerifierKey, "key_id", KEY.key_id)  # found by trying 2^32 keys, otherwise

    with pytest.raises(RejectedError, match="two keys share"):
        open_note(NOTE, [KEY, VerifierKey(NAME, OTHER.verifier_key.public_key)])
    assert open_note(NOTE, [KEY, KEY]).signers == (KEY,)


def test_every_byte_of_a_note_counts() -> None:
    for at in range(len(NOTE)):
        for bit in (0x01, 0x20, 0x80):
            changed = NOTE[:at] + bytes([NOTE[at] ^ bit]) + NOTE[at + 1 :]
            with pytest.raises((RejectedError, TamperError)):
                open_note(changed, [KEY])


def test_the_signature_is_ed25519_over_the_text_with_its_newline() -> None:
    encoded = NOTE.split(b" ")[-1].strip()

    assert base64.b64decode(encoded)[4:] == SIGNER.sign(NOTE[: NOTE.index(b"\n\n") + 1])
