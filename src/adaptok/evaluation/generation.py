"""The Fréchet video distance (FVD) of generated videos to a collection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptok.config.choices import GenerationKind
from adaptok.evaluation.partial_results import PartialResults
from adaptok.evaluation.protocols import GENERATION
from adaptok.evaluation.report.build import statistics_path, weights_of, write_pages
from adaptok.evaluation.results import (
    FORMAT,
    VERSION,
    BudgetResult,
    DataInfo,
    Figures,
    ModelInfo,
    Protocol,
    Report,
    Reproduction,
    Variant,
)
from adaptok.evaluation.summary import Summary, summarize
from adaptok.evaluation.windows import WINDOW_SEED
from adaptok.metrics.frechet import FeatureStatistics, frechet_distance, frechet_interval
from adaptok.utils.system import command_line, versions


@dataclass(frozen=True)
class Side:
    """One of two collections: statistics of its features, facts about its videos, and the hash of their list."""

    statistics: FeatureStatistics
    summary: Summary
    sha256: str

    @classmethod
    def of(cls, results: PartialResults) -> Side:
        """Combine all partial results, in their order.

        Raises:
            ValueError: no clip could be read.
        """
        summary = summarize(results, [], None)
        return cls(summary.statistics[0], summary, results.data_hash())


def build_generation(
    kind: GenerationKind, sides: dict[str, Side], real: FeatureStatistics, machine: dict[str, Any]
) -> Report:
    """Build the report of generated videos.

    Args:
        kind: protocol.
        sides: "samples", and "reference" if the collection was read.
        real: statistics of the collection.
        machine: description of the machine.
    """
    samples, reference = sides["samples"], sides.get("reference")
    made = _features(samples)
    videos = (samples.summary.feature_videos, reference.summary.feature_videos if reference else [])
    interval = frechet_interval(made, _features(reference) if reference else real, groups=videos)
    provenance, protocol = samples.statistics.provenance, GENERATION[kind]
    return Report(
        format=FORMAT,
        version=VERSION,
        kind="generation",
        protocol=Protocol(
            name=kind,
            description=f"{protocol.name}: the first clip of every video; short side resized, then the centre cropped",
            frames=provenance["frames"],
            size=provenance["size"],
            official_count=samples.statistics.count == protocol.count,
            seed=0,
        ),
        data=DataInfo(
            videos=real.count,
            clips=samples.statistics.count,
            label_distance=None if reference is None else label_distance(reference.summary, samples.summary),
            sha256=samples.sha256,
            reference_sha256=None if reference is None else reference.sha256,
            skipped={name: reason for side in sides.values() for name, reason in side.summary.skipped.items()},
        ),
        model=None,
        metrics=["fvd"],
        skipped_metrics={},
        undefined={},
        detector=provenance["detector"],
        weights={"fvd": provenance["detector"]},
        results=[
            BudgetResult(
                budget=None,
                variant="samples",
                samples=Figures(fvd=frechet_distance(real, samples.statistics), fvd_interval=interval),
            )
        ],
        reproduction=Reproduction(versions=versions(), machine=machine, command=command_line()),
    )


def _features(side: Side) -> NDArray[np.float32]:
    return np.concatenate([features[:, 0] for features in side.summary.features])


def build_samples(kind: GenerationKind, results: PartialResults, machine: dict[str, Any]) -> tuple[Report, Summary]:
    """Build the report of a generator that was sampled for the windows of a collection.

    Args:
        kind: protocol.
        results: partial results of a `SamplesEvaluation`.
        machine: description of the machine.

    Raises:
        ValueError: no window could be read.
    """
    plan, protocol = results.plan, GENERATION[kind]
    summary = summarize(results, [Variant(None, "samples")], None)
    condition = "labels of the windows" if kind == "class" else "first frames of the windows"
    report = Report(
        format=FORMAT,
        version=VERSION,
        kind="generation",
        protocol=Protocol(
            name=plan.protocol,
            description=f"{protocol.name}: windows drawn without replacement (seed {WINDOW_SEED}), {condition} as"
            " conditions; short side resized, then the centre cropped",
            frames=plan.frames,
            size=plan.size,
            official_count=summary.clips == protocol.count,
            autocast=plan.autocast,
            sampling=plan.sampling,
            seed=plan.seed,
        ),
        data=DataInfo(
            videos=len({video.path for video in plan.videos}),
            clips=summary.clips,
            sha256=results.data_hash(),
            skipped=summary.skipped,
            warnings=summary.warnings,
        ),
        model=ModelInfo(name=str(plan.generator), weights=plan.model_hash, dtype=plan.generator_dtype),
        metrics=["fvd"],
        detector=plan.detector,
        weights=weights_of(plan),
        results=summary.results(),
        speed=summary.speed(),
        reproduction=Reproduction(versions=versions(), machine=machine, command=command_line()),
    )
    return report, summary


def write_generation(folder: Path, report: Report, real: FeatureStatistics, samples: FeatureStatistics) -> None:
    """Write the report and the statistics of both sides."""
    real.save(statistics_path(folder, "reference"))
    samples.save(statistics_path(folder, "samples"))
    write_pages(folder, report, {})


def label_distance(reference: Summary, samples: Summary) -> float | None:
    """Total variation distance of the labels' proportions, from 0 (equal) to 1; None if a side has no labels."""
    a, b = reference.labels, samples.labels
    if not a or not b:
        return None
    return sum(abs(a[name] / a.total() - b[name] / b.total()) for name in a.keys() | b.keys()) / 2
