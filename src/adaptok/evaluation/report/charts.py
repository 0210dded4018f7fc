"""Charts as SVG that is embedded in a page and takes its colours from it.

Matplotlib draws with placeholder colours, which are replaced by the page's CSS variables `--faint`, `--grid` and `--c0`
to `--c5`. So charts are readable on light and on dark pages.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adaptok.utils.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = 6
_FAINT, _GRID = "#0a0b01", "#0a0b02"
_SERIES = tuple(f"#0a0c0{index}" for index in range(COLOURS))
_VARIABLES = {_FAINT: "--faint", _GRID: "--grid"} | {colour: f"--c{i}" for i, colour in enumerate(_SERIES)}
_MAX_LABELS = 8


@dataclass(frozen=True)
class Line:
    """A line through points (x, y); `colour` is an index of the page's colours."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
    dashed: bool = False


def line_chart(lines: Sequence[Line], x_label: str, y_label: str, *, log: bool = False, diagonal: bool = False) -> str:
    """Draw lines with a marker at every point.

    Args:
        log: use logarithmic axes.
        diagonal: use the same range on both axes and draw the diagonal.
    """
    with _style():
        figure, axes = _figure(x_label, y_label)
        axes.grid(color=_GRID, linewidth=0.8)
        for line in lines:
            style = "--" if line.dashed else "-"
            axes.plot(*zip(*line.points, strict=True), style, marker="o", color=_colour(line.colour), label=line.name)
        if log:
            _use_log_scale(axes)
        if diagonal:
            values = [value for line in lines for point in line.points for value in point]
            limits = max(min(values), 1e-9) / 1.15, max(values) * 1.15
            axes.set(xlim=limits, ylim=limits)
            axes.plot(limits, limits, linestyle=":", color=_FAINT, zorder=0)
        if len(lines) > 1:
            axes.legend(frameon=False, labelcolor=_FAINT)
        return _svg(figure)


def bar_chart(values: Sequence[tuple[str, float]], x_label: str, y_label: str, colour: int = 0) -> str:
    """Draw a bar for every (name, value). Names are thinned out if there are many."""
    with _style():
        figure, axes = _figure(x_label, y_label)
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        axes.bar(range(len(values)), [value for _, value in values], color=_colour(colour))
        shown = range(0, len(values), max(1, math.ceil(len(values) / _MAX_LABELS)))
        axes.set_xticks(list(shown), [values[index][0] for index in shown])
        return _svg(figure)


def _colour(index: int) -> str:
    return _SERIES[index % COLOURS]


def _style() -> AbstractContextManager[None]:
    require("matplotlib", extra="eval", purpose="drawing a chart")
    import matplotlib

    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "adaptok", "font.size": 9}
    settings |= {"lines.markersize": 4, "axes.axisbelow": True, "axes.edgecolor": _GRID}
    settings |= dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _FAINT)
    return matplotlib.rc_context(settings)


def _figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _use_log_scale(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())


def _svg(figure: Figure) -> str:
    """Save a figure as an SVG element without addresses, metadata and fixed colours."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    return re.sub("#0a0[bc]0[0-9]", lambda match: f"var({_VARIABLES[match[0]]})", svg)
