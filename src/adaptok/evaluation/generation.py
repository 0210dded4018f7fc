"""The Fréchet video distance of samples to a data set: class-conditional generation, and frame prediction."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from adaptok.evaluation.frechet import FeatureStatistics
from adaptok.evaluation.measuring import Measures
from adaptok.evaluation.pairs import FeaturesTask
from adaptok.evaluation.parts import Parts, Plan
from adaptok.evaluation.running import UNIT, collection_root, plan_videos
from adaptok.evaluation.summary import Summary

GenerationKind = Literal["class", "frame"]


@dataclass(frozen=True)
class GenerationProtocol:
    """How samples are compared with data.

    Attributes:
        name: for the report.
        count: samples that are made.
        size: pixels of the square that samples and data are brought to.
    """

    name: str
    count: int
    size: int


GENERATION: dict[GenerationKind, GenerationProtocol] = {
    "class": GenerationProtocol("class-conditional generation, labels in the data's proportion", 10_000, 128),
    "frame": GenerationProtocol("frame prediction", 50_000, 64),
}
"""The official ones (arXiv 2505.17011): UCF-101, and Kinetics-600."""


class FeaturesEvaluation:
    """Features of the first clip of every video of a collection.

    Args:
        measures: with a detector.
        data: folder of videos, or a list of them.
        count: videos that are taken, the first ones; None takes all.
        root: where relative paths in a list start.

    Raises:
        ValueError: there are fewer.
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


def feature_statistics(parts: Parts) -> tuple[FeatureStatistics, Summary]:
    """Of all parts, in their order.

    Raises:
        ValueError: no clip could be read.
    """
    plan = parts.plan
    provenance = {"detector": plan.detector, "protocol": plan.protocol, "frames": plan.frames, "size": plan.size}
    summary = Summary([], [], None, provenance)
    for part in parts:
        summary.add(part, plan.frames)
    if summary.original is None:
        raise ValueError(f"no clip of {len(plan.videos)} videos could be read: {next(iter(summary.skipped.items()))}")
    return summary.original, summary


def label_distance(data: Counter[str], samples: Counter[str]) -> float | None:
    """Half of the summed differences of the labels' shares, 0 (same proportions) to 1; None where one has no labels."""
    if not data or not samples:
        return None
    totals = sum(data.values()), sum(samples.values())
    return sum(abs(data[name] / totals[0] - samples[name] / totals[1]) for name in data.keys() | samples.keys()) / 2
