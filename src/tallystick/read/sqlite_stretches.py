"""Buckets of any lengths as one statement counts by them: runs of about one length, in stretches of one length."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low


def runs(buckets: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """The buckets in runs of about one length. One that was cut short, where a zone moved its grid, is alone."""
    runs: list[list[tuple[int, int]]] = []
    typical = median_low(end - start for start, end in buckets) if buckets else 0
    was_short = True
    for start, end in buckets:
        is_short = 2 * (end - start) < typical
        if is_short or was_short:
            runs.append([])
        runs[-1].append((start, end))
        was_short = is_short
    return runs


def stretches(buckets: Sequence[tuple[int, int]], length: int) -> list[tuple[int, int, int]]:
    """Stretches of one length from the first bucket on: number, the bucket that it begins in, and where that ends."""
    first, end = buckets[0][0], buckets[-1][1]
    out, index = [], 0
    for number in range((end - first + length - 1) // length):
        while buckets[index][1] <= first + number * length:
            index += 1
        out.append((number, *buckets[index]))
    return out
