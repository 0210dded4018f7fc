"""Plot the validation results of training runs over the number of clips seen, and extrapolate them.

    python experiments/bundled_model/curves.py RUN ... [--plot curves.png] [--clips 300000]

A run is a run folder, or a copy NAME.jsonl of its metrics beside NAME.yaml, its configuration. Runs are assumed to have
one process.

The extrapolation fits `limit + scale * clips ** -power` to each result by least squares, with the power that fits best,
and prints its value at `--clips`. It is only a rough guide, because all points of a run come from a single cosine
schedule.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from adaptok.config.training import TrainingConfig

FIGURES = {
    "psnr_192": "PSNR at 192 latents (dB)",
    "psnr_96": "PSNR at 96 latents (dB)",
    "lpips_192": "LPIPS (VGG) at 192 latents",
    "lpips_alex_192": "LPIPS (alex) at 192 latents",
    "edge_ratio_192": "edge ratio at 192 latents",
}
MIN_POINTS = 4
POWERS = np.arange(0.05, 1.01, 0.05)
Points = NDArray[np.float64]


def read(path: Path) -> tuple[Points, dict[str, Points]]:
    """Read the clips seen and the results of all validations of a run."""
    file = path / "metrics.jsonl" if path.is_dir() else path
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if "validation_psnr_192" in line]
    config = file.with_name("config.yaml") if path.is_dir() else file.with_suffix(".yaml")
    batch_size = TrainingConfig.load(config).batch_plan(1).batch_size
    if len(lines) < MIN_POINTS:
        sys.exit(f"{path}: {len(lines)} validations, expected at least {MIN_POINTS}")
    measured = [name for name in FIGURES if f"validation_{name}" in lines[0]]
    figures = {name: np.array([line[f"validation_{name}"] for line in lines]) for name in measured}
    return np.array([line["step"] * batch_size for line in lines], float), figures


def extrapolate(clips: Points, values: Points, at: float) -> tuple[float, float]:
    """Return the value of the fitted power law at a number of clips, and its power."""
    best = (np.inf, 0.0, 0.0)
    for power in POWERS:
        design = np.stack([np.ones_like(clips), clips**-power], 1)
        (limit, scale), *_ = np.linalg.lstsq(design, values, rcond=None)
        error = float(np.square(design @ [limit, scale] - values).sum())
        best = min(best, (error, float(limit + scale * at**-power), float(power)))
    return best[1], best[2]


def draw(path: Path, runs: dict[str, tuple[Points, dict[str, Points]]]) -> None:
    """Draw one panel for each result."""
    figure = Figure(figsize=(3.6 * len(FIGURES), 3), layout="constrained")
    for axis, (name, title) in zip(figure.subplots(1, len(FIGURES)), FIGURES.items(), strict=True):
        for label, (clips, figures) in runs.items():
            if name in figures:
                axis.plot(clips, figures[name], marker=".", label=label)
        axis.set(title=title, xlabel="clips seen")
        axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--clips", type=float, default=300_000)
    options = parser.parse_args()
    if len({path.stem for path in options.runs}) < len(options.runs):
        sys.exit("two runs have the same name; copy their metrics to files of different names")
    runs = {path.stem if path.is_file() else path.name: read(path) for path in options.runs}
    for label, (clips, figures) in runs.items():
        for name, values in figures.items():
            value, power = extrapolate(clips, values, options.clips)
            print(
                f"{label}  {name}: {values[-1]:.3f} after {clips[-1]:.0f} clips, {value:.3f} after "
                f"{options.clips:.0f} with power {power:.2f}"
            )
    if options.plot is not None:
        draw(options.plot, runs)


if __name__ == "__main__":
    main()
