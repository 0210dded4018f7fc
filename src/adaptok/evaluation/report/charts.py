"""Charts as SVG that takes its colours from the page around it: `--ink`, `--faint`, `--grid` and `--c0` … `--c5`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 14, 46
COLOURS = 6


@dataclass(frozen=True)
class Line:
    """A line through points (x, y); `colour` is the number of a colour."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
    dashed: bool = False


@dataclass(frozen=True)
class _Scale:
    """Values to places on an axis."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(x) if self.log else x for x in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if last - first < 3 else (1,)
            found = [m * 10.0**e for e in range(first, last + 1) for m in steps]
            return [x for x in found if self.low * (1 - 1e-9) <= x <= self.high * (1 + 1e-9)]
        rough = (self.high - self.low) / 5
        power = 10 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def line_chart(lines: Sequence[Line], x_label: str, y_label: str, *, log: bool = False, diagonal: bool = False) -> str:
    """Lines with a mark at every point, and a legend under them."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    if diagonal:
        xs = ys = [*xs, *ys]
    x, y = _axis(xs, _LEFT, WIDTH - _RIGHT, log), _axis(ys, HEIGHT - _BOTTOM, _TOP, log)
    body = _frame(x, y, x_label, y_label)
    if diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        body += f'<path d="{_path([(low, low), (high, high)], x, y)}" class="guide"/>'
    for line in lines:
        colour, dash = f"var(--c{line.colour % COLOURS})", ' stroke-dasharray="6 4"' if line.dashed else ""
        body += f'<path d="{_path(line.points, x, y)}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
        for a, b in line.points:
            title = escape(f"{line.name}: {a:.4g}, {b:.4g}")
            body += f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.5" fill="{colour}"><title>{title}</title></circle>'
    return _svg(body, f"{y_label} over {x_label}") + _legend(lines)


def bar_chart(values: Sequence[tuple[str, float]], x_label: str, y_label: str, colour: int = 0) -> str:
    """A bar for every (name, value); names are thinned out where they are many."""
    y = _Scale(0, max((value for _, value in values), default=1) * 1.05 or 1, HEIGHT - _BOTTOM, _TOP)
    wide = (WIDTH - _LEFT - _RIGHT) / max(len(values), 1)
    every = max(1, math.ceil(len(values) / 8))
    body = _frame(None, y, x_label, y_label)
    for index, (name, value) in enumerate(values):
        left, top = _LEFT + index * wide, y(value)
        shape = f'x="{left + wide * 0.08:.1f}" y="{top:.1f}" width="{wide * 0.84:.1f}" height="{y(0) - top:.1f}" rx="2"'
        title = escape(f"{name}: {value:.4g}")
        body += f'<rect {shape} fill="var(--c{colour % COLOURS})"><title>{title}</title></rect>'
        if index % every == 0:
            body += _text(left + wide / 2, HEIGHT - _BOTTOM + 16, name, "middle")
    return _svg(body, f"{y_label} over {x_label}")


def _axis(values: Sequence[float], start: float, end: float, log: bool) -> _Scale:
    low, high = min(values), max(values)
    if log:
        low = max(low, 1e-9)
        return _Scale(low / 1.15, max(high, low) * 1.15, start, end, log=True)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return _Scale(low - margin, high + margin, start, end)


def _frame(x: _Scale | None, y: _Scale, x_label: str, y_label: str) -> str:
    body = ""
    for tick in y.ticks():
        body += f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" class="grid"/>'
        body += _text(_LEFT - 6, y(tick) + 4, _short(tick), "end")
    for tick in [] if x is None else x.ticks():
        body += f'<line y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" x1="{x(tick):.1f}" x2="{x(tick):.1f}" class="grid"/>'  # type: ignore[misc]
        body += _text(x(tick), HEIGHT - _BOTTOM + 16, _short(tick), "middle")  # type: ignore[misc]
    body += _text((WIDTH + _LEFT) / 2, HEIGHT - 8, x_label, "middle")
    middle = (HEIGHT - _BOTTOM) / 2
    return body + f'<g transform="rotate(-90 14 {middle})">{_text(14, middle, y_label, "middle")}</g>'


def _path(points: Sequence[tuple[float, float]], x: _Scale, y: _Scale) -> str:
    return " ".join(f"{'L' if index else 'M'}{x(a):.1f},{y(b):.1f}" for index, (a, b) in enumerate(points))


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(value: float) -> str:
    return f"{value:.6g}" if 1e-4 <= abs(value) < 1e6 or value == 0 else f"{value:.0e}"


def _svg(body: str, title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{body}</svg>'


def _legend(lines: Sequence[Line]) -> str:
    marks = (
        f'<span><i style="border-color:var(--c{line.colour % COLOURS});border-style:'
        f'{"dashed" if line.dashed else "solid"}"></i>{escape(line.name)}</span>'
        for line in lines
    )
    return f'<p class="legend">{"".join(marks)}</p>' if len(lines) > 1 else ""
