"""SVG charts as text. Colours are the style sheet's: class k0 … k3 by layer kind, `ink` for text, `line` for axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH = 390  # of every chart; text of 12 of these units can be read on a phone
CHARACTER = 6.8  # a little more than what a character of that size takes on average in the usual fonts
ROW = 20


@dataclass(frozen=True)
class Bar:
    """A bar of length `value`, with what stands behind it and what a pointer shows."""

    name: str
    value: float
    text: str
    kind: str = "k0"
    hint: str = ""


@dataclass(frozen=True)
class Span:
    """From `began` to `ended` on the track `track`."""

    track: str
    name: str
    began: float
    ended: float
    kind: str


@dataclass(frozen=True)
class Point:
    """A place on the roofline."""

    name: str
    x: float
    y: float
    kind: str


def bars(title: str, rows: Sequence[Bar], full: float = 0.0) -> str:
    """One bar below the other; one of length `full` would take the whole width, by default the longest."""
    longest = full or max(bar.value for bar in rows) or 1.0
    labels = max(_width(bar.name) for bar in rows) + 8
    room = WIDTH - labels - max(_width(bar.text) for bar in rows) - 6
    body = []
    for place, bar in enumerate(rows):
        y, length = place * ROW, bar.value / longest * room
        body.append(_text(labels - 6, y + 14, bar.name, "end"))
        body.append(_box(labels, y + 3, length, ROW - 6, bar.kind, bar.hint or f"{bar.name}: {bar.text}"))
        body.append(_text(labels + length + 4, y + 14, bar.text))
    return _svg(title, len(rows) * ROW, body)


def timeline(title: str, spans: Sequence[Span], unit: str) -> str:
    """Tracks of spans over one axis, which begins with the first span."""
    tracks = list(dict.fromkeys(span.track for span in spans))
    start, end = min(span.began for span in spans), max(span.ended for span in spans)
    left, height = max(map(_width, tracks)) + 10, 30
    scale = (WIDTH - left - 16) / (end - start)
    body = [_text(left - 6, place * height + 18, track, "end") for place, track in enumerate(tracks)]
    for span in spans:
        x, length = left + (span.began - start) * scale, (span.ended - span.began) * scale
        y = tracks.index(span.track) * height
        hint = f"{span.name}: {span.ended - span.began:.0f} {unit}"
        body.append(_box(x, y + 4, length, height - 8, span.kind, hint))
        if length > _width(span.name):
            body.append(_text(x + length / 2, y + 19, span.name, "middle", "on"))
    bottom = len(tracks) * height
    ticks = [start + part * (end - start) / 4 for part in range(5)]
    body += _x_axis([(left + (tick - start) * scale, f"{tick - start:.0f}") for tick in ticks], bottom, unit)
    return _svg(title, bottom + 34, body)


def histogram(title: str, values: Sequence[float], unit: str, bins: int = 24) -> str:
    """How often values fall between equal steps from the 1st to the 99th percentile; those beyond count at the ends."""
    low, high = (float(edge) for edge in np.percentile(values, [1, 99]))
    high = max(high, low + 1e-3)
    counts, _ = np.histogram(np.clip(values, low, high), bins, (low, high))
    left, bottom = 40, 140
    step, scale = (WIDTH - left - 16) / bins, (bottom - 16) / max(counts)
    body = [
        _box(left + place * step + 1, bottom - count * scale, step - 2, count * scale, "k2", f"{count} calls")
        for place, count in enumerate(counts.tolist())
    ]
    body += [_text(left - 6, 20, str(max(counts)), "end"), _text(left - 6, bottom, "0", "end")]
    ticks = [(left + part * bins * step / 4, f"{low + part * (high - low) / 4:.0f}") for part in range(5)]
    return _svg(title, bottom + 34, body + _x_axis(ticks, bottom, unit))


def roofline(title: str, points: Sequence[Point], gigabytes_per_second: float) -> str:
    """Operations per second over operations per byte, both logarithmic, below the line that bandwidth draws."""
    x_range = _decades([point.x for point in points])
    bandwidth = gigabytes_per_second * 1e9
    y_range = _decades([*(point.y for point in points), bandwidth * 10 ** x_range[0]])
    left, bottom, top = 52, 260, 10

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - x_range[0]) / (x_range[1] - x_range[0])
        up = (math.log10(y) - y_range[0]) / (y_range[1] - y_range[0])
        return left + across * (WIDTH - left - 18), bottom - up * (bottom - top)

    body = []
    for decade in range(y_range[0], y_range[1] + 1):
        y = at(10 ** x_range[0], 10**decade)[1]
        body.append(f'<line class="line" x1="{left}" x2="{WIDTH - 18}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(_text(left - 5, y + 4, f"{10 ** (decade - 9):g}", "end"))
    end = min(10 ** x_range[1], 10 ** y_range[1] / bandwidth)
    (x1, y1), (x2, y2) = (at(x, x * bandwidth) for x in (10 ** x_range[0], end))
    body.append(f'<line class="roof" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
    for point in points:
        x, y = at(point.x, point.y)
        hint = f"{point.name}: {point.y / 1e9:.2f} Gop/s, {point.x:.2f} operations a byte"
        circle = f'<circle class="{point.kind}" cx="{x:.1f}" cy="{y:.1f}" r="5">'
        body.append(f"{circle}<title>{escape(hint)}</title></circle>")
    decades = range(x_range[0], x_range[1] + 1)
    ticks = [(at(10**decade, 10 ** y_range[0])[0], f"{10.0**decade:g}") for decade in decades]
    return _svg(title, bottom + 34, body + _x_axis(ticks, bottom, "operations a byte; upwards Gop/s"))


def _decades(values: Sequence[float]) -> tuple[int, int]:
    logarithms = [math.log10(value) for value in values if value > 0]
    return math.floor(min(logarithms)), math.ceil(max(logarithms) + 1e-9)


def _x_axis(ticks: Sequence[tuple[float, str]], y: float, unit: str) -> list[str]:
    line = f'<line class="line" x1="{ticks[0][0]:.1f}" x2="{ticks[-1][0]:.1f}" y1="{y}" y2="{y}"/>'
    middle = (ticks[0][0] + ticks[-1][0]) / 2
    inside = [(min(x, WIDTH - _width(text) / 2), text) for x, text in ticks]
    return [line, *(_text(x, y + 15, text, "middle") for x, text in inside), _text(middle, y + 31, unit, "middle")]


def _box(x: float, y: float, width: float, height: float, kind: str, hint: str) -> str:
    size = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" {size}><title>{escape(hint)}</title></rect>'


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "ink") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _width(text: str) -> float:
    return CHARACTER * len(text)


def _svg(title: str, height: float, body: Sequence[str]) -> str:
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {height:.0f}">{"".join(body)}</svg>'
    )
