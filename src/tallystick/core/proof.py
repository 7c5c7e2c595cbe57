"""The proof file of one record (C2SP tlog-proof): everything to show offline that a ledger has it.

    c2sp.org/tlog-proof@v1
    index 73894                                   the record's position
    gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=  the inclusion path, a hash a line, lowest first
                                                  an empty line, then the signed checkpoint verbatim
    example.com/fancylog ...

What is needed beside it is the record and the ledger's verifier key, which comes from elsewhere: a file
that vouches for itself proves nothing. `core.checked_proof` checks the three together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tallystick.core.checkpoint import Checkpoint
from tallystick.core.merkle import HASH_BYTES
from tallystick.core.strict import parse_base64, parse_decimal, render_base64
from tallystick.errors import RejectedError
from tallystick.limits import NOTE_BYTES_MAX, PROOF_HASHES_MAX, SIZE_MAX

_HEADER: Final = "c2sp.org/tlog-proof@v1"
_EXTRA: Final = "extra "
_INDEX: Final = "index "
_PROOF_BYTES_MAX: Final = 2 * NOTE_BYTES_MAX
"""One note, and as much again for the path (under 3 KB) and the extra data."""


@dataclass(frozen=True, slots=True)
class Proof:
    """That a record is at `index` of the tree in `checkpoint`, by its inclusion path.

    `checkpoint` is the signed note, byte for byte. `extra` is the application's own and covered by no
    signature; empty means that there is none.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""

    def __post_init__(self) -> None:
        if not 0 <= self.index < SIZE_MAX:
            raise RejectedError(f"there is no leaf {self.index} in any tree", place="index")
        if len(self.path) > PROOF_HASHES_MAX:
            problem = f"an inclusion path has at most {PROOF_HASHES_MAX} hashes, not {len(self.path)}"
            raise RejectedError(problem, place="path")
        for number, node in enumerate(self.path):
            if len(node) != HASH_BYTES:
                raise RejectedError(f"a hash has {HASH_BYTES} bytes, not {len(node)}", place=f"path hash {number}")
        try:
            Checkpoint.of_note(self.checkpoint)
        except RejectedError as error:
            place = ", ".join(filter(None, ["checkpoint", error.place]))
            raise RejectedError(error.problem, place=place, cure=error.cure) from None
        _check_bytes(len(self.render()))

    @classmethod
    def parse(cls, data: bytes) -> Proof:
        """Read a proof file, byte for byte as `render` writes it; `RejectedError` for anything else."""
        _check_bytes(len(data))
        # No line above the checkpoint is empty, so the first empty line is where it begins.
        above, _, checkpoint = data.partition(b"\n\n")
        try:
            lines = [*above.decode("ascii").split("\n"), ""]
        except UnicodeDecodeError:
            raise RejectedError("the lines above the checkpoint are not ASCII") from None
        if lines[0] != _HEADER:
            raise RejectedError("this is not a proof file", place="line 1", cure=f"it begins with {_HEADER}")
        number, extra = 1, b""
        if lines[number].startswith(_EXTRA):
            extra = parse_base64(lines[number].removeprefix(_EXTRA), place="line 2")
            if not extra:
                raise RejectedError("the extra data is empty", place="line 2", cure="leave the line out")
            number += 1
        place = f"line {number + 1}"
        if not lines[number].startswith(_INDEX):
            raise RejectedError("the index line is missing", place=place, cure="it reads: index <number>")
        index = parse_decimal(lines[number].removeprefix(_INDEX), maximum=SIZE_MAX - 1, place=place)
        path = [
            parse_base64(line, place=f"line {at}") for at, line in enumerate(lines[number + 1 : -1], start=number + 2)
        ]
        return cls(index, tuple(path), checkpoint, extra)

    def render(self) -> bytes:
        """Write the file."""
        lines = [_HEADER]
        if self.extra:
            lines.append(_EXTRA + render_base64(self.extra))
        lines.append(f"{_INDEX}{self.index}")
        lines += map(render_base64, self.path)
        return "\n".join(lines).encode("ascii") + b"\n\n" + self.checkpoint


def _check_bytes(count: int) -> None:
    if count > _PROOF_BYTES_MAX:
        raise RejectedError(f"a proof file has at most {_PROOF_BYTES_MAX} bytes, not {count}")
