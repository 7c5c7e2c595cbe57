"""Charts as SVG: bars and lines over time with axes and a key, and rankings. Self-contained, without scripts or styles
from outside, readable in print and without colour vision.

Every text is escaped here; numbers are written by us. The colours are those of Okabe and Ito.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape as escape_xml
from xml.sax.saxutils import quoteattr

from tallystick.evidence.report.blocks import Chart, printable

COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#595959", "#d55e00")
_INK: Final = "#3a4149"
_QUIET: Final = "#d9dde2"
_FONT: Final = "DejaVu Sans, Helvetica, Arial, sans-serif"

_WIDTH: Final = 760
_HEIGHT: Final = 250
_LEFT: Final = 56
_RIGHT: Final = 12
_BOTTOM: Final = 34
_RANK_ROW: Final = 24
_RANK_LABEL: Final = 290
_CHARACTER: Final = 6.4
"""The width of a character at 11 pixels, about."""


def escape(text: str) -> str:
    """Any text, as XML that shows it."""
    return escape_xml(printable(text))


def svg(chart: Chart) -> str:
    """The chart as one SVG element, with a title and a description for those who do not see it."""
    if not chart.labels:
        return ""
    if chart.kind == "ranking":
        return _ranking(chart)
    key = [*_key([name for name, _ in chart.series])] if len(chart.series) > 1 else []
    top = 14 + 18 * (max((row for row, _, _ in key), default=-1) + 1)
    height = _HEIGHT + top
    low, high, ticks = _axis(chart)
    plot = _Plot(top, height - _BOTTOM, low, high, len(chart.labels))
    parts = [
        *(_tick(plot, value) for value in ticks),
        *_labels(plot, chart.labels),
        *(_bars(plot, chart) if chart.kind == "bars" else _lines(plot, chart)),
        _line(_LEFT, plot.y(0 if low <= 0 <= high else low), _WIDTH - _RIGHT, _INK),
        *(_key_entry(row, x, index, chart.series[index][0]) for row, x, index in key),
    ]
    return _wrapped(chart, height, parts)


class _Plot:
    """Where values are drawn."""

    def __init__(self, top: float, bottom: float, low: float, high: float, count: int) -> None:
        self.top: Final = top
        self.bottom: Final = bottom
        self._low: Final = low
        self._span: Final = high - low
        self.step: Final = (_WIDTH - _LEFT - _RIGHT) / count

    def x(self, index: int) -> float:
        """The middle of a label's column."""
        return _LEFT + self.step * (index + 0.5)

    def y(self, value: float) -> float:
        return self.bottom - (value - self._low) / self._span * (self.bottom - self.top)


def _axis(chart: Chart) -> tuple[float, float, list[float]]:
    """The lowest and highest value of the axis, and round values between."""
    columns = [*zip(*(values for _, values in chart.series), strict=True)]
    if chart.kind == "bars":
        highs = [sum(max(value or 0, 0) for value in column) for column in columns]
        lows = [sum(min(value or 0, 0) for value in column) for column in columns]
    else:
        highs = lows = [value for column in columns for value in column if value is not None]
    high, low = max([*highs, 0]), min([*lows, 0])
    step = _round_step((high - low) / 4 or 1, whole=all(float(value).is_integer() for value in [*highs, *lows]))
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    return first * step, last * step, [number * step for number in range(first, last + 1)]


def _round_step(step: float, *, whole: bool) -> float:
    """1, 2 or 5 times a power of ten, not below the step; not below 1 where values are whole."""
    power = 10.0 ** math.floor(math.log10(step))
    rounded = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)
    return max(rounded, 1.0) if whole else rounded


def _bars(plot: _Plot, chart: Chart) -> Iterator[str]:
    """The series of each label stacked, what is below zero downwards."""
    width = max(min(plot.step * 0.78, 46), 0.8)
    for index in range(len(chart.labels)):
        up = down = 0.0
        for number, (_, values) in enumerate(chart.series):
            value = values[index] or 0
            if not value:
                continue
            base = up if value > 0 else down
            y, other = sorted((plot.y(base), plot.y(base + value)))
            up, down = (up + value, down) if value > 0 else (up, down + value)
            yield (
                f'<rect x="{plot.x(index) - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" '
                f'height="{max(other - y, 0.6):.1f}" fill="{COLOURS[number % len(COLOURS)]}"/>'
            )


def _lines(plot: _Plot, chart: Chart) -> Iterator[str]:
    """A line a series, broken where there is no value, with dashes of its own."""
    for number, (_, values) in enumerate(chart.series):
        colour = COLOURS[number % len(COLOURS)]
        dash = ("", "6 3", "2 3", "8 3 2 3")[number % 4]
        path, pen_down = [], False
        for index, value in enumerate(values):
            if value is None:
                pen_down = False
                continue
            path.append(f"{'L' if pen_down else 'M'}{plot.x(index):.1f} {plot.y(value):.1f}")
            pen_down = True
            if len(values) <= 60:
                yield f'<circle cx="{plot.x(index):.1f}" cy="{plot.y(value):.1f}" r="2.2" fill="{colour}"/>'
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        yield f'<path d="{" ".join(path)}" fill="none" stroke="{colour}" stroke-width="1.8"{dashes}/>'


def _labels(plot: _Plot, labels: Sequence[str]) -> Iterator[str]:
    """As many labels as there is room for."""
    widest = max(map(len, labels)) * _CHARACTER + 14
    every = max(math.ceil(widest / plot.step), 1)
    for index in range(0, len(labels), every):
        x = min(max(plot.x(index), _LEFT + widest / 2 - 20), _WIDTH - widest / 2 + 8)
        yield _line_at(plot.x(index), plot.bottom, plot.bottom + 4)
        yield _text(x, plot.bottom + 18, labels[index], anchor="middle")


def _tick(plot: _Plot, value: float) -> str:
    y = plot.y(value)
    return _line(_LEFT, y, _WIDTH - _RIGHT, _QUIET) + _text(_LEFT - 7, y + 4, _number(value), anchor="end")


def _key(names: Iterable[str]) -> Iterator[tuple[int, float, int]]:
    """Row and place of each entry of the key."""
    row, x = 0, float(_LEFT)
    for index, name in enumerate(names):
        width = 26 + len(name) * _CHARACTER + 10
        if x + width > _WIDTH and x > _LEFT:
            row, x = row + 1, float(_LEFT)
        yield row, x, index
        x += width


def _key_entry(row: int, x: float, index: int, name: str) -> str:
    y = 4 + row * 18
    colour = COLOURS[index % len(COLOURS)]
    return f'<rect x="{x:.1f}" y="{y}" width="11" height="11" fill="{colour}"/>' + _text(x + 16, y + 10, name)


def _ranking(chart: Chart) -> str:
    values = [value or 0 for value in chart.series[0][1]]
    largest = max([*values, 1])
    room = _WIDTH - _RANK_LABEL - 74
    parts = []
    for index, (label, value) in enumerate(zip(chart.labels, values, strict=True)):
        y = 6 + index * _RANK_ROW
        width = max(value / largest * room, 1.0)
        parts.append(
            f'<rect x="{_RANK_LABEL}" y="{y}" width="{width:.1f}" height="{_RANK_ROW - 8}" fill="{COLOURS[0]}"/>'
        )
        shown = label if len(label) <= 40 else f"{label[:17]}…{label[-22:]}"
        parts.append(_text(_RANK_LABEL - 8, y + 12.5, shown, anchor="end"))
        parts.append(_text(_RANK_LABEL + width + 6, y + 12.5, _number(value)))
    return _wrapped(chart, 12 + _RANK_ROW * len(values), parts)


def _wrapped(chart: Chart, height: float, parts: Iterable[str]) -> str:
    title = chart.title or f"{chart.unit} by time"
    sums = "; ".join(f"{name}: {_number(sum(value or 0 for value in values))}" for name, values in chart.series)
    told = f"{len(chart.labels)} labels, {chart.labels[0]} to {chart.labels[-1]}. In all, {sums}."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" '
        f'height="{height:.0f}" role="img" aria-label={quoteattr(printable(title))} '
        f'font-family={quoteattr(_FONT)} font-size="11">'
        f"<title>{escape(title)}</title><desc>{escape(told)}</desc>{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_INK}">{escape(text)}</text>'


def _line(x: float, y: float, end: float, colour: str) -> str:
    return f'<line x1="{x}" y1="{y:.1f}" x2="{end}" y2="{y:.1f}" stroke="{colour}" stroke-width="1"/>'


def _line_at(x: float, y: float, end: float) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x:.1f}" y2="{end:.1f}" stroke="{_INK}" stroke-width="1"/>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3g}"
