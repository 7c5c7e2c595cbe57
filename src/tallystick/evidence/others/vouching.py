"""Having others vouch for a checkpoint: witnesses cosign it, timestamp authorities state when they saw it.

None of them can block anything of ours, and none is believed for having answered: what does not come, or does not
hold, is a warning in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from tallystick.core.policy import Policy
from tallystick.errors import BusyError, RejectedError, TamperError
from tallystick.evidence.others.authority import Authority, request_timestamp
from tallystick.evidence.others.cosigning import Consistency, cosign
from tallystick.evidence.others.post import SECONDS
from tallystick.limits import TIMESTAMPS_MAX

_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Vouchers:
    """Who is asked: the witnesses of a policy that have a URL, and timestamp authorities; each for so many seconds."""

    policy: Policy | None = None
    authorities: tuple[Authority, ...] = ()
    seconds: float = SECONDS

    def __post_init__(self) -> None:
        if len(self.authorities) > TIMESTAMPS_MAX:
            raise RejectedError(f"more than {TIMESTAMPS_MAX} timestamp authorities", place="authorities")

    def vouch(
        self, checkpoint: bytes, *, consistency: Consistency, kept: bytes | None
    ) -> tuple[bytes, Sequence[bytes], Sequence[tuple[str, bool]]]:
        """The checkpoint with cosignatures, tokens over its bytes then, and what went wrong: in words, and whether it
        is a finding, such as a witness who knows another history, or only nobody's answer."""
        warnings: list[tuple[str, bool]] = []
        if self.policy is not None:
            cosigned = cosign(checkpoint, self.policy, consistency=consistency, kept=kept, seconds=self.seconds)
            checkpoint = cosigned.checkpoint
            problems = cosigned.problems.items()
            warnings += [(f"witness {name}: {error}", isinstance(error, TamperError)) for name, error in problems]
        tokens: list[bytes] = []
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            futures = [
                pool.submit(request_timestamp, authority, checkpoint, seconds=self.seconds)
                for authority in self.authorities
            ]
            for future in futures:
                try:
                    tokens.append(future.result().token)
                except (BusyError, RejectedError, TamperError) as error:
                    warnings.append(
                        (f"timestamp authority {error}", isinstance(error, TamperError))
                    )  # it names the URL
        return checkpoint, tokens, warnings
