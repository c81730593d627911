"""Plots as SVG text, without any library: lines, bars and steps on one kind of axes.

An SVG made here needs nothing from outside: no script, no font, no image. Values are plain numbers;
colours are told apart by dash and label too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

__all__ = ["Mark", "Plot", "Series", "draw"]

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 48
_COLOURS = ("#1b5e91", "#b3541e", "#2e7d4f", "#7a3b8f", "#8a6d00")
_DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 4")
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or one set of bars: points by x."""

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment on the x axis with a word, from ``at`` to ``until``."""

    at: float
    until: float
    label: str


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot.

    Attributes:
        name: File name without ending, and id of its picture.
        title: What it shows.
        x: Label of the x axis, with its unit.
        y: Label of the y axis, with its unit.
        series: What is drawn.
        kind: ``line``, ``step`` or ``bar``.
        marks: Moments to point out.
        names: Names of the bars, by x.
    """

    name: str
    title: str
    x: str
    y: str
    series: Sequence[Series]
    kind: Literal["line", "step", "bar"] = "line"
    marks: Sequence[Mark] = ()
    names: Sequence[str] = ()


def draw(plot: Plot) -> str:
    """Return a plot as an SVG element."""
    frame = _Frame(plot)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" id="{plot.name}" role="img" '
            f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="11">'
        ),
        f"<title>{escape(plot.title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="18" font-size="13" font-weight="bold">{escape(plot.title)}</text>',
        *frame.axes(),
        *(part for n, mark in enumerate(plot.marks) for part in frame.mark(n, mark)),
    ]
    for number, series in enumerate(plot.series):
        parts += frame.bars(number, series) if plot.kind == "bar" else frame.line(number, series)
    return "".join([*parts, "</svg>"])


class _Frame:
    """Where values land on the paper."""

    def __init__(self, plot: Plot) -> None:
        self._plot = plot
        points = [point for series in plot.series for point in series.points]
        xs = [x for x, _ in points] + [edge for m in plot.marks for edge in (m.at, m.until)]
        ys = [y for _, y in points]
        self._x0, self._x1 = min(xs, default=0.0), max(xs, default=1.0)
        if plot.kind == "bar":
            self._x0, self._x1 = self._x0 - 0.6, self._x1 + 0.6
        self._y0, self._y1 = min([*ys, 0.0]), max([*ys, 0.0]) * 1.05
        self._x1 = self._x1 if self._x1 > self._x0 else self._x0 + 1.0
        self._y1 = self._y1 if self._y1 > self._y0 else self._y0 + 1.0

    def _at(self, x: float, y: float) -> tuple[float, float]:
        width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        across = (x - self._x0) / (self._x1 - self._x0)
        up = (y - self._y0) / (self._y1 - self._y0)
        return _LEFT + across * width, _HEIGHT - _BOTTOM - up * height

    def axes(self) -> list[str]:
        left, bottom = self._at(self._x0, self._y0)
        right, top = self._at(self._x1, self._y1)
        parts = [
            f'<path d="M{left:.1f} {top:.1f}V{bottom:.1f}H{right:.1f}" fill="none" stroke="#333"/>',
            (
                f'<text x="{(left + right) / 2:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">'
                f"{escape(self._plot.x)}</text>"
            ),
            (
                f'<text x="14" y="{(top + bottom) / 2:.1f}" text-anchor="middle" '
                f'transform="rotate(-90 14 {(top + bottom) / 2:.1f})">{escape(self._plot.y)}</text>'
            ),
        ]
        for step in range(_TICKS + 1):
            share = step / _TICKS
            y = self._y0 + share * (self._y1 - self._y0)
            _, at = self._at(self._x0, y)
            parts.append(
                f'<path d="M{left:.1f} {at:.1f}H{right:.1f}" stroke="#ddd"/>'
                f'<text x="{left - 6:.1f}" y="{at + 4:.1f}" text-anchor="end">{y:.3g}</text>'
            )
            if not self._plot.names:
                x = self._x0 + share * (self._x1 - self._x0)
                across, _ = self._at(x, self._y0)
                parts.append(
                    f'<text x="{across:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">'
                    f"{x:.3g}</text>"
                )
        for number, name in enumerate(self._plot.names):
            across, _ = self._at(number, self._y0)
            parts.append(
                f'<text x="{across:.1f}" y="{bottom + 14:.1f}" text-anchor="end" font-size="8" '
                f'transform="rotate(-25 {across:.1f} {bottom + 14:.1f})">{escape(name)}</text>'
            )
        return parts

    def line(self, number: int, series: Series) -> list[str]:
        steps: list[str] = []
        before: float | None = None
        for x, y in series.points:
            across, up = self._at(x, y)
            if before is not None and self._plot.kind == "step":
                steps.append(f"L{across:.1f} {before:.1f}")
            steps.append(f"{'L' if steps else 'M'}{across:.1f} {up:.1f}")
            before = up
        colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
        path = f'<path d="{"".join(steps)}" fill="none" stroke="{colour}" stroke-width="1.6" '
        dots = [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colour}"/>'
            for x, y in (self._at(*point) for point in series.points[:200])
        ]
        return [path + f'stroke-dasharray="{dash}"/>', *dots, self._legend(number, series.label)]

    def bars(self, number: int, series: Series) -> list[str]:
        count = len(self._plot.series)
        colour, parts = _COLOURS[number % len(_COLOURS)], list[str]()
        for x, y in series.points:
            left, top = self._at(x - 0.4 + 0.8 * number / count, y)
            right, bottom = self._at(x - 0.4 + 0.8 * (number + 1) / count, 0.0)
            parts.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 0.5):.1f}" '
                f'height="{max(bottom - top, 0.0):.1f}" fill="{colour}"/>'
            )
        return [*parts, self._legend(number, series.label)]

    def mark(self, number: int, mark: Mark) -> list[str]:
        left, bottom = self._at(mark.at, self._y0)
        right, top = self._at(mark.until, self._y1)
        return [
            (
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 1.0):.1f}" '
                f'height="{bottom - top:.1f}" fill="#b3541e" fill-opacity="0.18"/>'
            ),
            (
                f'<text x="{left + 2:.1f}" y="{top + 10 + 11 * (number % 8):.1f}" font-size="9">'
                f"{escape(mark.label)}</text>"
            ),
        ]

    @staticmethod
    def _legend(number: int, label: str) -> str:
        if not label:
            return ""
        colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
        x, y = _WIDTH - 180, 14 + 13 * number
        return (
            f'<path d="M{x} {y - 4}h18" stroke="{colour}" stroke-width="2" '
            f'stroke-dasharray="{dash}"/><text x="{x + 24}" y="{y}">{escape(label)}</text>'
        )
