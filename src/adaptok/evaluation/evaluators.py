"""Evaluations: what is planned, who measures it, and what comes of it.

A model on a collection, or two folders of videos; both are a plan, a task that measures its units, and the ways that
clips were made in. Processes share the units of a plan through the folder of the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from adaptok.allocation.policy import LengthPolicy, Scope
from adaptok.codec.codec import AdapTok
from adaptok.data.manifests import VIDEO_SUFFIXES, find_entries
from adaptok.evaluation.measures import Measures
from adaptok.evaluation.pairs import PairsTask, pair_videos
from adaptok.evaluation.partial_results import Part, Parts, Plan, PlannedVideo, Task, planned
from adaptok.evaluation.protocols import Cut, ProtocolName
from adaptok.evaluation.report.build import Shown
from adaptok.evaluation.summary import Clip, Summary, Tokens, Way
from adaptok.evaluation.tokenizer import TokenizerTask
from adaptok.models.model import weights_hash
from adaptok.video.pixels import clip_to_frames

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Of the most tokens: the budgets where none are given."""
UNIT = 8
"""Videos of a partial result where each gives one clip."""
_FRAMES, _ROWS = 4, 4
"""Of a clip that is shown, and budgets that it is shown at."""


class Evaluation(Protocol):
    """Something to evaluate; see `run`."""

    plan: Plan
    ways: list[Way]
    tokens: Tokens | None

    @property
    def task(self) -> Task: ...

    def show(self, parts: Parts, clip: Clip) -> Shown: ...


def collection_root(data: Path, root: Path | None = None) -> Path:
    """Where the relative paths of a collection start."""
    return root or (data if data.is_dir() else data.parent)


def plan_videos(data: Path, root: Path | None = None) -> tuple[PlannedVideo, ...]:
    """The videos of a folder or list.

    Raises:
        FileNotFoundError: there is no such folder or list.
        ValueError: it has no video.
    """
    start = collection_root(data, root)
    videos = tuple(planned(e.path, start, e.label) for e in find_entries(data, VIDEO_SUFFIXES, root))
    if not videos:
        raise ValueError(f"{data}: no video in it ({', '.join(sorted(VIDEO_SUFFIXES))})")
    return videos


class TokenizerEvaluation:
    """A model on a collection.

    Args:
        codec, measures: the model, and what to measure; the edge ratio is measured on the grid of its patches.
        data: folder of videos, or a list of them.
        budgets: tokens per clip; `SHARES` of the most if there are none.
        scope: what shares a budget.
        protocol: which clips are taken; with "official" each stands for itself, so "video" is "clip".
        batch_size: clips computed at once. Only results of the scope "batch" depend on it.
        root: where relative paths in a list start.

    Raises:
        ValueError: a budget is out of its range, or there are no videos.
    """

    def __init__(
        self,
        codec: AdapTok,
        measures: Measures,
        data: Path,
        *,
        budgets: Sequence[float] = (),
        scope: Scope = "video",
        protocol: ProtocolName = "all",
        batch_size: int = 4,
        root: Path | None = None,
    ) -> None:
        config = codec.config
        measures = replace(measures, patch_size=config.tokenizer.patch_size)
        least = float(codec.layout.length_step * codec.layout.blocks)
        budgets = budgets or [max(least, share * codec.max_budget) for share in SHARES]
        scored = config.scorer is not None
        for budget in budgets:
            LengthPolicy(budget, scope if scored else "video", uniform=not scored).check(codec.layout)
        batch = scope == "batch" and scored
        self.plan = Plan(
            kind="tokenizer",
            protocol=protocol,
            frames=config.tokenizer.frames,
            size=config.tokenizer.size,
            metrics=measures.all_metrics,
            detector=measures.detector_name,
            model=config.name,
            model_hash=codec.weights_hash,
            scorer_hash=None if codec.model.scorer is None else weights_hash(codec.model.state_dict(), "scorer."),
            dtype=str(codec.dtype).removeprefix("torch."),
            scope=scope,
            budgets=tuple(sorted(set(budgets))),
            batch_size=batch_size if batch else None,
            patch_size=measures.used_patch_size,
            unit=1 if protocol == "all" else batch_size if batch else UNIT,
            videos=plan_videos(data, root),
        )
        self.codec = codec
        self.task: TokenizerTask = TokenizerTask(codec, measures, self.plan, collection_root(data, root), batch_size)
        self.ways = [Way(v.budget, "adaptive" if v.adaptive else "uniform") for v in self.task.variants]
        quantizer = config.tokenizer.quantizer
        self.tokens: Tokens | None = Tokens(quantizer.codebook_size, config.tokenizer.latents, config.tokenizer.frames)

    def show(self, parts: Parts, clip: Clip) -> Shown:
        """The clip decoded again, from the ids that were measured, at up to four budgets."""
        part = Part.load(parts.path(clip.unit))
        video = next(v for v in self.plan.of_unit(clip.unit) if v.path == clip.video)
        original = _nth(self.task.cut, self.task.root / video.path, clip.clip)
        mains = [i for i, way in enumerate(self.ways) if way.name == self.ways[0].name]
        places = np.unique(np.linspace(0, len(mains) - 1, min(_ROWS, len(mains))).round().astype(int))
        rows = [("original", original)]
        for i in (mains[place] for place in places):
            lengths = part.arrays["lengths"][clip.place : clip.place + 1, i]
            ids = torch.from_numpy(part.arrays["ids"][clip.place : clip.place + 1].astype(np.int64))
            psnr = part.arrays["metrics"][clip.place, i, self.plan.metrics.index("psnr")]
            name = f"{lengths.sum()} tokens ({' + '.join(map(str, lengths[0].tolist()))}), {psnr:.2f} dB"
            rows.append((name, self.codec.decode_clips(ids, lengths.tolist())[0].cpu()))
        return _shown(clip, rows)


class PairsEvaluation:
    """Two folders of videos, paired by name.

    Args:
        measures: what to measure.
        reference, prediction: the folders.
        frames: of a clip; a last clip may be shorter, unless the protocol is "official".
        size: of the square that both are brought to; None compares them at their own size, which must be the same.
        patch_size: pixels of a side of the patches whose grid the edge ratio is measured on.

    Raises:
        FileNotFoundError: a folder does not exist.
        ValueError: there are no videos, or their names do not pair.
    """

    def __init__(
        self,
        measures: Measures,
        reference: Path,
        prediction: Path,
        *,
        protocol: ProtocolName = "all",
        frames: int = 16,
        size: int | None = None,
        patch_size: int = 16,
        device: torch.device | None = None,
    ) -> None:
        measures = replace(measures, patch_size=patch_size)
        self.plan = Plan(
            kind="pairs",
            protocol=protocol,
            frames=frames,
            size=size,
            partial=protocol == "all",
            metrics=measures.all_metrics,
            detector=measures.detector_name,
            patch_size=measures.used_patch_size,
            videos=tuple(pair_videos(reference, prediction)),
        )
        self.task: PairsTask = PairsTask(measures, self.plan, reference, prediction, device or torch.device("cpu"))
        self.ways = [Way(None, "prediction")]
        self.tokens: Tokens | None = None

    def show(self, parts: Parts, clip: Clip) -> Shown:
        """The clip of both folders."""
        video = next(v for v in self.plan.of_unit(clip.unit) if v.path == clip.video)
        paths = self.task.reference / video.path, self.task.prediction / str(video.other)
        names = "reference", "prediction"
        return _shown(clip, [(n, _nth(self.task.cut, p, clip.clip)) for n, p in zip(names, paths, strict=True)])


def show_clips(evaluation: Evaluation, parts: Parts, summary: Summary) -> dict[str, list[Shown]]:
    """The best and the worst clips, to look at."""
    groups = {"worst": summary.worst, "best": summary.best}
    return {name: [evaluation.show(parts, clip) for clip in clips] for name, clips in groups.items()}


def _nth(cut: Cut, path: Path, number: int) -> Tensor:
    """One clip of a video."""
    return next(clip for index, clip in enumerate(cut.clips(path)) if index == number)


def _shown(clip: Clip, rows: list[tuple[str, Tensor]]) -> Shown:
    count = rows[0][1].shape[1]
    places = np.linspace(0, count - 1, min(_FRAMES, count)).round().astype(int)
    return Shown(clip, [(name, list(clip_to_frames(frames[:, places]))) for name, frames in rows])
