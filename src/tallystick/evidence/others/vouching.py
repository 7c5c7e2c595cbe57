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
    ) -> tuple[bytes, Sequence[bytes], Sequence[str]]:
        """The checkpoint with cosignatures, tokens over its bytes then, and what went wrong, in words."""
        warnings: list[str] = []
        if self.policy is not None:
            cosigned = cosign(checkpoint, self.policy, consistency=consistency, kept=kept, seconds=self.seconds)
            checkpoint = cosigned.checkpoint
            warnings += [f"witness {name}: {error}" for name, error in cosigned.problems.items()]
        tokens: list[bytes] = []
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            futures = [
                (authority, pool.submit(request_timestamp, authority, checkpoint, seconds=self.seconds))
                for authority in self.authorities
            ]
            for authority, future in futures:
                try:
                    tokens.append(future.result().token)
                except (BusyError, RejectedError, TamperError) as error:
                    warnings.append(f"timestamp authority {authority.url}: {error}")
        return checkpoint, tokens, warnings
