"""Evaluations: of a model on a collection, of two folders of videos, and the features of a collection.

An evaluation is a plan and a task that measures its units. Processes share the units of a plan through the folder of
the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.allocation.policy import LengthPolicy
from adaptok.codec.codec import AdapTok
from adaptok.config.choices import ProtocolName, Scope
from adaptok.data.manifests import VIDEO_SUFFIXES, find_entries
from adaptok.evaluation.measures import Measures
from adaptok.evaluation.pairs import FeaturesTask, PairsTask, pair_videos
from adaptok.evaluation.partial_results import PartialResult, PartialResults, Plan, PlannedVideo, Task, plan_video
from adaptok.evaluation.results import ClipRank, Examples, Variant
from adaptok.evaluation.summary import TokenFormat
from adaptok.evaluation.tokenizer import TokenizerTask
from adaptok.models.model import weights_hash
from adaptok.video.pixels import clip_to_frames

BUDGET_FRACTIONS = (0.125, 0.25, 0.5, 1.0)
"""Default budgets, as fractions of the maximum."""
UNIT = 8
"""Videos per partial result if each has one clip."""
_EXAMPLE_FRAMES, _EXAMPLE_BUDGETS = 4, 4
"""Maximum numbers of frames and budgets at which an example is shown."""

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    """A clip to show: for every caption some frames `[H, W, 3]`, first of the original, then of reconstructions."""

    clip: ClipRank
    rows: list[tuple[str, list[Frame]]]

    @classmethod
    def of(cls, clip: ClipRank, clips: Sequence[tuple[str, Tensor]]) -> Example:
        """Select frames of clips `[3, T, H, W]`, evenly spaced in time."""
        count = clips[0][1].shape[1]
        indices = np.linspace(0, count - 1, min(_EXAMPLE_FRAMES, count)).round().astype(int)
        return cls(clip, [(name, list(clip_to_frames(pixels[:, indices]))) for name, pixels in clips])


class Evaluation(Protocol):
    """An evaluation whose clips are reconstructed in one or more variants."""

    plan: Plan
    variants: list[Variant]
    tokens: TokenFormat | None

    @property
    def task(self) -> Task: ...

    def example(self, results: PartialResults, clip: ClipRank) -> Example: ...


def collection_root(data: Path, root: Path | None = None) -> Path:
    """Folder that the relative paths of a collection refer to."""
    return root or (data if data.is_dir() else data.parent)


def plan_videos(data: Path, root: Path | None = None) -> tuple[PlannedVideo, ...]:
    """Plan the videos of a folder or list.

    Raises:
        FileNotFoundError: the folder or list does not exist.
        ValueError: it has no videos.
    """
    start = collection_root(data, root)
    videos = tuple(plan_video(e.path, start, e.label) for e in find_entries(data, VIDEO_SUFFIXES, root))
    if not videos:
        raise ValueError(f"{data}: no videos, expected {', '.join(sorted(VIDEO_SUFFIXES))}")
    return videos


class TokenizerEvaluation:
    """Evaluation of a model on a collection.

    Args:
        codec: the model.
        measures: metrics to measure. The edge ratio is measured on the grid of the model's patches.
        data: folder of videos, or a list of them.
        budgets: tokens per clip; the `BUDGET_FRACTIONS` of the maximum if empty.
        scope: which blocks share a budget.
        protocol: which clips are measured. "official" measures one clip per video, so "video" equals "clip".
        batch_size: clips per batch. Only results of the scope "batch" depend on it.
        root: folder that relative paths of a list refer to.

    Raises:
        ValueError: a budget is out of range, or there are no videos.
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
        min_budget = float(codec.layout.length_step * codec.layout.blocks)
        budgets = budgets or [max(min_budget, fraction * codec.max_budget) for fraction in BUDGET_FRACTIONS]
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
        self.variants = self.task.variants
        quantizer = config.tokenizer.quantizer
        self.tokens: TokenFormat | None = TokenFormat(
            quantizer.codebook_size, config.tokenizer.latents, config.tokenizer.frames
        )

    def example(self, results: PartialResults, clip: ClipRank) -> Example:
        """Decode a clip from its measured token ids at up to four budgets."""
        result = PartialResult.load(results.path(clip.unit))
        row = slice(clip.place, clip.place + 1)
        ids = torch.from_numpy(result.arrays["ids"][row].astype(np.int64))
        main = [i for i, variant in enumerate(self.variants) if variant.name == self.variants[0].name]
        chosen = np.unique(np.linspace(0, len(main) - 1, min(_EXAMPLE_BUDGETS, len(main))).round().astype(int))
        clips = [("original", self.task.selection.clip(self.task.root / clip.video, clip.clip))]
        for i in (main[index] for index in chosen):
            lengths = result.arrays["lengths"][row, i]
            psnr = result.arrays["metrics"][clip.place, i, self.plan.metrics.index("psnr")]
            name = f"{lengths.sum()} tokens ({' + '.join(map(str, lengths[0].tolist()))}), {psnr:.2f} dB"
            clips.append((name, self.codec.decode_clips(ids, lengths.tolist())[0].cpu()))
        return Example.of(clip, clips)


class PairsEvaluation:
    """Evaluation of a folder of videos against a folder of references, paired by name.

    Args:
        measures: metrics to measure.
        reference, prediction: the folders.
        protocol: which clips are measured.
        frames: frames per clip; a last clip may be shorter, unless the protocol is "official".
        size: side of the square that both are resized to; None keeps their size, which must be the same.
        patch_size: side in pixels of the patches on whose grid the edge ratio is measured.
        device: device that measures.

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
        self.variants = [Variant(None, "prediction")]
        self.tokens: TokenFormat | None = None

    def example(self, results: PartialResults, clip: ClipRank) -> Example:
        """Read a clip of both folders."""
        video = next(v for v in self.plan.of_unit(clip.unit) if v.path == clip.video)
        paths = {"reference": self.task.reference / video.path, "prediction": self.task.prediction / str(video.other)}
        return Example.of(clip, [(name, self.task.selection.clip(path, clip.clip)) for name, path in paths.items()])


class FeaturesEvaluation:
    """Features of the first clip of every video of a collection.

    Args:
        measures: measures with a detector.
        data: folder of videos, or a list of them.
        size: side of the square in pixels.
        frames: frames per clip.
        count: number of videos to use, the first ones; None uses all.
        root: folder that relative paths of a list refer to.
        device: device that measures.

    Raises:
        ValueError: there are fewer videos than `count`.
    """

    def __init__(
        self,
        measures: Measures,
        data: Path,
        *,
        size: int,
        frames: int = 16,
        count: int | None = None,
        root: Path | None = None,
        device: torch.device | None = None,
    ) -> None:
        videos = plan_videos(data, root)
        if count is not None and len(videos) < count:
            raise ValueError(
                f"{data}: {len(videos)} samples, the protocol takes {count}; make more, or give --count {len(videos)}"
                " for a figure that does not compare with others"
            )
        self.plan = Plan(
            kind="features",
            protocol="official",
            frames=frames,
            size=size,
            metrics=("fvd",),
            detector=measures.detector_name,
            unit=UNIT,
            videos=videos[:count],
        )
        self.task = FeaturesTask(measures, self.plan, collection_root(data, root), device or torch.device("cpu"))


def load_examples(evaluation: Evaluation, results: PartialResults, examples: Examples) -> dict[str, list[Example]]:
    """Load the frames of the worst and the best clips."""
    groups = {"worst": examples.worst, "best": examples.best}
    return {name: [evaluation.example(results, clip) for clip in clips] for name, clips in groups.items()}
