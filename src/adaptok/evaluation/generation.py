"""The Fréchet video distance of samples to a data set: class-conditional generation, and frame prediction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adaptok.config.choices import GenerationKind
from adaptok.evaluation.evaluators import UNIT, collection_root, plan_videos
from adaptok.evaluation.measures import Measures
from adaptok.evaluation.pairs import FeaturesTask
from adaptok.evaluation.partial_results import Parts, Plan
from adaptok.evaluation.report.build import FORMAT, STATISTICS, VERSION, collect, command_line, write_pages
from adaptok.evaluation.summary import Summary
from adaptok.metrics.frechet import FeatureStatistics, frechet_distance
from adaptok.utils.system import versions


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


@dataclass(frozen=True)
class Side:
    """One of two collections that are compared: its features, what is known of its videos, and their hash."""

    statistics: FeatureStatistics
    summary: Summary
    sha256: str

    @classmethod
    def of(cls, parts: Parts) -> Side:
        """From all parts, in their order.

        Raises:
            ValueError: no clip could be read.
        """
        summary = collect(parts, [], None)
        assert summary.original is not None
        return cls(summary.original, summary, parts.data_hash())


def build_generation(
    kind: GenerationKind, sides: dict[str, Side], real: FeatureStatistics, machine: dict[str, Any]
) -> dict[str, Any]:
    """The document of `report.json`.

    Args:
        sides: "samples", and "reference" where the data was read.
        real: statistics of the data.
        machine: what computed.
    """
    made, reference = sides["samples"], sides.get("reference")
    provenance, protocol = made.statistics.provenance, GENERATION[kind]
    takes = f"{protocol.name}: the first clip of every video; short side resized, then the centre cropped"
    distance = frechet_distance(real, made.statistics)
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": "generation",
        "protocol": {
            "name": kind,
            "takes": takes,
            "frames": provenance["frames"],
            "size": provenance["size"],
            "scope": None,
            "batch_size": None,
            "ms_ssim_scales": None,
            "patch_size": None,
            "official_count": made.statistics.count == protocol.count,
        },
        "model": None,
        "data": {
            "videos": real.count,
            "clips": made.statistics.count,
            "label_distance": None if reference is None else label_distance(reference.summary, made.summary),
            "sha256": made.sha256,
            "reference_sha256": None if reference is None else reference.sha256,
            "skipped": {name: why for side in sides.values() for name, why in side.summary.skipped.items()},
        },
        "metrics": ["fvd"],
        "left_out": {},
        "undefined": {},
        "detector": provenance["detector"],
        "results": [{"budget": None, "way": "samples", "samples": {"fvd": distance}}],
        "repeat": {"versions": versions(), "machine": machine, "command": command_line()},
    }


def write_generation(folder: Path, document: dict[str, Any], real: FeatureStatistics, made: FeatureStatistics) -> None:
    """Write the report and both statistics."""
    real.save(folder / STATISTICS.format("reference"))
    made.save(folder / STATISTICS.format("samples"))
    write_pages(folder, document, {})


def label_distance(reference: Summary, made: Summary) -> float | None:
    """Half of the summed differences of the labels' shares, 0 (same proportions) to 1; None where one has no labels."""
    data, samples = reference.labels, made.labels
    if not data or not samples:
        return None
    totals = sum(data.values()), sum(samples.values())
    return sum(abs(data[name] / totals[0] - samples[name] / totals[1]) for name in data.keys() | samples.keys()) / 2
