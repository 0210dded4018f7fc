"""Compare choices of lengths with the best possible ones, by the true distortion of every combination.

python experiments/allocation/study.py MEASURED.npz [--budgets 96,192,384] [--measure mse|lpips]
    [--videos FOLDER --model MODEL --effort 0,1,2,3] [--plot OUT.png]

MEASURED.npz comes from `measure.py`. Budgets are mean tokens per clip, over all clips. The choices are:

- uniform: the same length for every block, interpolated between candidate lengths.
- fixed: the best pattern of lengths that is the same for every clip, fitted on the other clips (leave one out).
- own: each block by its own distortion, with earlier blocks whole. A scorer with the target "block" predicts this.
- cumulative: each block by the distortion of all blocks from it on, relative to that of the clip. Other blocks have the
  lengths of the uniform choice, or those of the round before.
- scorer: by the scores of a model, which need the folder of the measured videos.
- oracle: the best combination of each clip, at one λ for all clips.

Quality is the mean PSNR of clips in dB, or their mean LPIPS. The share of a choice is the part of the oracle's gain
over uniform that it reaches.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import read_clips
from numpy.typing import NDArray

from adaptok import AdapTok, LengthPolicy

Floats = NDArray[np.float64]
Levels = NDArray[np.int64]
"""Indices of candidate lengths, `[N, G]`."""
ROUNDS = 3


class Study:
    """Distortions of N clips of G blocks at all combinations of n lengths."""

    def __init__(self, path: Path, measure: str) -> None:
        with np.load(path) as data:
            self.lengths = data["lengths"]
            blocks = [data[f"{measure}_{i}"] for i in range(sum(name.startswith(f"{measure}_") for name in data))]
        self.measure, self.blocks = measure, len(blocks)
        self.clips, n = blocks[0].shape
        self.combinations = np.array(list(itertools.product(range(n), repeat=self.blocks)))
        self.tokens = self.lengths[self.combinations].sum(1)
        indices = [(slice(None), *self.combinations[:, : i + 1].T) for i in range(self.blocks)]
        self.distortions = np.stack([each[index] for each, index in zip(blocks, indices, strict=True)], 2)
        """Of clips, combinations and blocks."""
        self.totals = self.distortions.mean(2)
        self.scorers: dict[str, Callable[[float], Floats]] = {}
        """Scores for a budget, by name."""
        self.quality = -10 * np.log10(self.totals) if measure == "mse" else -self.totals

    def at(self, levels: Levels) -> Levels:
        """Return the index of the combination of each clip."""
        return np.ravel_multi_index(tuple(levels.T), (len(self.lengths),) * self.blocks)

    def mean_quality(self, levels: Levels) -> float:
        return float(self.quality[np.arange(self.clips), self.at(levels)].mean())

    def cheapest(self, cost: Callable[[float], Levels], budget: float) -> Levels:
        """Return the choice at the smallest λ whose mean number of tokens is within the budget."""
        low, high = 1e-12, 1e6
        best = cost(high)
        for _ in range(100):
            lmbda = (low * high) ** 0.5
            levels = cost(lmbda)
            if self.lengths[levels].sum(1).mean() > budget:
                low = lmbda
            else:
                high, best = lmbda, levels
        return best

    def share_budget(self, scores: Floats, budget: float) -> Levels:
        """Choose the lengths of all blocks by scores `[N, G, n]`."""
        return self.cheapest(lambda lmbda: (scores + lmbda * self.lengths).argmin(2), budget)

    def uniform(self, budget: float) -> float:
        same = (self.combinations == self.combinations[:, :1]).all(1)
        return float(np.interp(budget, self.tokens[same], self.quality[:, same].mean(0)))

    def fixed(self, budget: float) -> Levels:
        """Return the pattern of each clip that is best for the others."""
        within = np.flatnonzero(self.tokens <= budget)
        others = self.quality[:, within].sum(0) - self.quality[:, within]
        return self.combinations[within[others.argmax(1)]]

    def own(self, budget: float) -> Levels:
        """Choose by each block's own distortion, earlier blocks being whole."""
        n = len(self.lengths)
        scores = np.zeros((self.clips, self.blocks, n))
        for block, level in itertools.product(range(self.blocks), range(n)):
            levels = [n - 1] * block + [level] + [0] * (self.blocks - block - 1)
            index = self.at(np.array([levels]))[0]
            scores[:, block, level] = self.distortions[:, index, block]
        return self.share_budget(scores, budget)

    def cumulative(self, present: Levels, budget: float) -> Levels:
        """Choose by the relative distortion of each block and all later ones, other blocks keeping `present`."""
        clips = np.arange(self.clips)
        scores = np.zeros((self.clips, self.blocks, len(self.lengths)))
        for block, level in itertools.product(range(self.blocks), range(len(self.lengths))):
            changed = present.copy()
            changed[:, block] = level
            scores[:, block, level] = self.distortions[clips, self.at(changed), block:].sum(1)
        return self.share_budget(scores / self.totals[clips, self.at(present)][:, None, None], budget)

    def rounds(self, budget: float) -> list[Levels]:
        level = min(len(self.lengths) - 1, int(np.searchsorted(self.lengths, budget / self.blocks)))
        levels, chosen = np.full((self.clips, self.blocks), level), []
        for _ in range(ROUNDS):
            levels = self.cumulative(levels, budget)
            chosen.append(levels)
        return chosen

    def oracle(self, budget: float) -> Levels:
        return self.cheapest(lambda lmbda: self.combinations[(lmbda * self.tokens - self.quality).argmin(1)], budget)

    def by_scores(self, scores: Floats, budget: float) -> Levels:
        """Choose by scores `[N, G, L]` of all candidate lengths of a model."""
        step = self.lengths[-1] // scores.shape[2]
        return self.share_budget(scores[..., self.lengths // step - 1], budget)

    def compare(self, budget: float) -> dict[str, float]:
        """Return the mean quality of every choice."""
        choices = {"fixed": self.fixed(budget), "own": self.own(budget)}
        choices |= {f"cumulative, round {i}": levels for i, levels in enumerate(self.rounds(budget))}
        choices |= {name: self.by_scores(score(budget), budget) for name, score in self.scorers.items()}
        choices["oracle"] = self.oracle(budget)
        return {"uniform": self.uniform(budget)} | {name: self.mean_quality(each) for name, each in choices.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path)
    parser.add_argument(
        "--budgets", type=lambda text: [float(n) for n in text.split(",")], default=[96.0, 192.0, 384.0]
    )
    parser.add_argument("--measure", choices=("mse", "lpips"), default="mse")
    parser.add_argument("--videos", type=Path, help="the measured videos, to also choose by the scores of a model")
    parser.add_argument("--model", help="model folder or hub id; the bundled model by default")
    parser.add_argument("--effort", type=lambda text: [int(n) for n in text.split(",")], default=[0])
    parser.add_argument("--plot", type=Path, help="draw the gain over uniform lengths at the budgets")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    study = Study(options.measured, options.measure)
    if options.videos is not None:
        codec = AdapTok.from_pretrained(options.model, device="cpu")
        encoded = codec.encode_clips(torch.stack([clip for _, clip in read_clips(codec, options.videos)]))

        def score(effort: int, budget: float) -> Floats:
            scores = codec.allocation_scores(encoded, LengthPolicy(budget, effort=effort))
            return scores.double().cpu().numpy()

        names = {effort: f"scorer, effort {effort}" if options.effort != [0] else "scorer" for effort in options.effort}
        study.scorers = {name: partial(score, effort) for effort, name in names.items()}
    table = {budget: study.compare(budget) for budget in options.budgets}
    if options.plot is not None:
        plot(table, options.measure, options.plot)
    if options.json:
        print(json.dumps(table))
        return
    for budget, row in table.items():
        print(f"{budget:g} tokens")
        gain = row["oracle"] - row["uniform"]
        for name, value in row.items():
            sign = 1 if options.measure == "mse" else -1
            print(f"  {name:22} {sign * value:7.3f}  {(value - row['uniform']) / gain:6.1%}")


def plot(table: dict[float, dict[str, float]], measure: str, path: Path) -> None:
    """Draw the gain of every choice over uniform lengths."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4), layout="constrained")
    axis = figure.subplots()
    budgets = list(table)
    for name in next(iter(table.values())):
        if name == "uniform" or name == f"cumulative, round {ROUNDS - 1}":
            continue
        gains = [row[name] - row["uniform"] for row in table.values()]
        style: dict[str, Any] = {"color": "black", "linestyle": "--"} if name == "oracle" else {}
        axis.plot(budgets, gains, marker=".", label=name, **style)
    axis.set(xlabel="tokens per clip", xscale="log", ylim=(0, None))
    axis.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
    axis.minorticks_off()
    axis.set_ylabel("gain over uniform lengths in dB" if measure == "mse" else "fall of LPIPS below uniform lengths")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
