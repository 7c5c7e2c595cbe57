"""Three readers of a bundle say the same of whatever is changed in it. Which changes is by chance, from a seed."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Final

import pytest

from tests.verifier.differential import Difference, browser_page, run

pytestmark = [pytest.mark.slow, pytest.mark.chromium]

SECONDS: Final = float(os.environ.get("TALLYSTICK_TEST_DIFFERENTIAL_SECONDS", "60"))
"""Wall clock, for both seeds together."""

TOLD: Final = 20
"""Differences that are shown; the first one fails the test."""


@pytest.mark.parametrize("seed", [1, int(datetime.now(UTC).strftime("%Y%m%d"))], ids=["fixed", "of-the-day"])
def test_three_readers_say_the_same(seed: int) -> None:
    found: list[Difference] = []
    with browser_page() as by_page:
        count = run(SECONDS / 2, seed, by_page=by_page, tell=found.append)

    assert count > 0
    shown = "\n".join(difference.render() for difference in found[:TOLD])
    assert not found, f"seed {seed}: {len(found)} differences in {count:,} cases\n{shown}"
