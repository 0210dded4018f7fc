"""Curves of the metrics of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adaptok.utils.files import replacing


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of `metrics.jsonl`. Returns none if there is no such file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def plot_metrics(metrics: Path, output: Path) -> None:
    """Plot loss, learning rate and validation results over the steps, as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_metrics(metrics)
    names = [name for line in lines for name in line if name.startswith("validation")]
    panels = [["loss"], ["lr", "rate"], sorted(set(names), key=names.index)]  # old runs have a relative "rate"
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name in panel:
            if points := [(line["step"], line[name]) for line in lines if name in line]:
                axes.plot(*zip(*points, strict=True), label=name)
        axes.set_xlabel("step")
        if axes.lines:
            axes.legend(fontsize=7)
    with replacing(output) as path:
        figure.savefig(path, format="png", dpi=100)
