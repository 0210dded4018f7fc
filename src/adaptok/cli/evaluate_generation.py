"""`adaptok evaluate generation` and `prediction`: FVD of a generator's clips, or of videos in a folder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tyro.conf import Positional

from adaptok.cli.evaluation_options import Run, Weights, check_collection, open_measures, show_plan, show_report
from adaptok.cli.evaluation_workers import measure, pick_process_device
from adaptok.cli.options import MODEL_NAME, Messages, group, option
from adaptok.cli.sampling import GeneratorComputation, SamplingOptions
from adaptok.config.choices import DType, GenerationKind

if TYPE_CHECKING:
    from adaptok.evaluation.generation import Side
    from adaptok.evaluation.pairs import FeaturesEvaluation
    from adaptok.evaluation.samples import SamplesEvaluation
    from adaptok.metrics.frechet import FeatureStatistics

BUNDLED_GENERATOR = "adaptok-tiny-generator"
_SAMPLING = "sampling"
"""Title of the work of sampling a generator."""


@dataclass(kw_only=True)
class EvaluatedGenerator(GeneratorComputation):
    """Which models to use, and where to compute."""

    generator: Annotated[str | None, MODEL_NAME, option("FOLDER|HUB_ID")] = None
    """Generator to sample: a folder, a Hugging Face hub id (owner/name@revision), or adaptok-tiny-generator for the
    bundled one. --model is its tokenizer. Give this or --samples."""
    dtype: Annotated[DType | None, option("float32|bfloat16|float16")] = None  # type: ignore[assignment]
    """Floating-point format of the generator. The default is that of the protocol, bfloat16, on a GPU, and float32 on a
    CPU. The tokenizer computes in float32; on a GPU, class-conditional generation decodes with float16 autocast."""


@dataclass(kw_only=True)
class Generation:
    """Measure a class-conditional generator, or generated videos, against a collection by FVD: 10,000 samples of 128
    pixels."""

    kind: ClassVar[GenerationKind] = "class"

    data: Annotated[Positional[Path | None], option("[DATA]")] = None
    """Collection to compare with: a folder of videos, or a list of them (.csv, .txt, .parquet)."""
    protocol: Literal["adaptok", "official"] = "adaptok"
    """The published protocol: windows of 16 frames are drawn from the collection, and the generator is sampled with
    their labels or first frames. official is its former name."""
    samples: Annotated[Path | None, option("FOLDER")] = None
    """Folder of generated videos to measure, instead of sampling a generator. The first clips of all videos are
    compared."""
    statistics: Annotated[tuple[Path, ...], option("FILE [FILE …]")] = ()
    """With --samples: feature statistics of the collection from earlier reports, instead of DATA. Several are
    merged."""
    count: Annotated[int | None, option("N")] = None
    """Number of samples to take. The default is the number of the published protocol."""
    cfg_scale: float = 1.0
    """Scale of classifier-free guidance. The default of the protocol, 1, disables it."""
    sampling: Annotated[SamplingOptions, group("sampling")] = field(default_factory=SamplingOptions)
    weights: Annotated[Weights, group("weight")] = field(default_factory=Weights)
    run_options: Annotated[Run, group("run")] = field(default_factory=Run)
    computation: Annotated[EvaluatedGenerator, group("computation")] = field(default_factory=EvaluatedGenerator)
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        if (self.samples is None) == (self.computation.generator is None):
            raise ValueError("measured are samples of --generator, or the videos of --samples FOLDER; give one of them")
        if self.samples is None:
            self._sample()
            return
        self._compare_folders()

    def _sample(self) -> None:
        """Sample the generator for the windows of the collection."""
        from adaptok.evaluation.generation import build_samples, write_generation
        from adaptok.utils.system import describe_machine

        if self.data is None:
            raise ValueError("the generator is sampled for windows of DATA; give a folder or list of videos")
        if self.count is not None and self.count < 2:
            raise ValueError(f"--count {self.count}, expected 2 or more")
        check_collection(self.data)
        self.run_options.check()
        self.computation.check()
        if self.run_options.dry_run:
            show_plan(self, self.plan(_SAMPLING))
            return
        with self.run_options.folder() as folder:
            results = measure(self, folder, self.plan(_SAMPLING), _SAMPLING)
            if results is None:
                return  # a process of torchrun that is not the first
            machine = describe_machine(pick_process_device(self.computation.device))
            report, summary = build_samples(self.kind, results, machine)
            if self.run_options.output is not None:
                write_generation(self.run_options.output, report, *summary.statistics)
            show_report(self, report)

    def _plan_samples(self, quiet: bool) -> SamplesEvaluation:
        from adaptok.evaluation.samples import SamplesEvaluation

        assert self.data is not None
        device = pick_process_device(self.computation.device)
        on_gpu = device.type == "cuda"
        published: DType = "bfloat16" if on_gpu else "float32"
        name = self.computation.generator
        computation = replace(
            self.computation,
            generator=None if name == BUNDLED_GENERATOR else name,
            device=str(device),
            dtype=self.computation.dtype or published,
        )
        return SamplesEvaluation(
            computation.load_generator(self.sampling.seed),
            open_measures(self, ("fvd",), ("fvd",), quiet),
            self.data,
            kind=self.kind,
            count=self.count,
            settings=self.sampling.settings(cfg_scale=self.cfg_scale),
            seed=self.sampling.seed,
            batch_size=computation.batch_size,
            root=self.run_options.root,
            autocast=_autocast(on_gpu and self.kind == "class"),
        )

    def _compare_folders(self) -> None:
        """Compare a folder of generated videos with the collection, or with its statistics."""
        from adaptok.evaluation.generation import build_generation, write_generation
        from adaptok.utils.system import describe_machine

        if (self.data is None) == (not self.statistics):
            raise ValueError("samples are compared with DATA or with --statistics; give one of them")
        if self.count is not None and self.count < 1:
            raise ValueError(f"--count {self.count}, expected 1 or more")
        check_collection(self.data, self.samples)
        self.run_options.check()
        if self.run_options.dry_run:
            show_plan(self, *(self.plan(side) for side in ("samples", "reference")[: 1 + (self.data is not None)]))
            return
        with self.run_options.folder() as folder:
            sides = self._measure_sides(folder)
            if "samples" not in sides:
                return  # a process of torchrun that is not the first
            real = sides["reference"].statistics if "reference" in sides else self._merge_statistics(sides["samples"])
            machine = describe_machine(pick_process_device(self.computation.device))
            report = build_generation(self.kind, sides, real, machine)
            if self.run_options.output is not None:
                write_generation(self.run_options.output, report, real, sides["samples"].statistics)
            show_report(self, report)

    def _measure_sides(self, folder: Path) -> dict[str, Side]:
        """Compute the features of the samples and of the collection."""
        from adaptok.evaluation.generation import Side

        sides: dict[str, Side] = {}
        for side, data in (("samples", self.samples), ("reference", self.data)):
            if data is None:
                continue
            features = self.plan(side)
            results = measure(self, folder / f"{side}-features", features, side)
            if results is not None:
                sides[side] = Side.of(results)
        return sides

    def plan(self, title: str, quiet: bool = False) -> FeaturesEvaluation | SamplesEvaluation:
        """Load the networks, and plan the sampling, or one of two folders: "samples" or "reference"."""
        from adaptok.evaluation.pairs import FeaturesEvaluation
        from adaptok.evaluation.protocols import GENERATION

        if title == _SAMPLING:
            return self._plan_samples(quiet)
        protocol = GENERATION[self.kind]
        is_sample = title == "samples"
        data = self.samples if is_sample else self.data
        assert data is not None
        return FeaturesEvaluation(
            open_measures(self, ("fvd",), ("fvd",), quiet),
            data,
            size=protocol.size,
            count=(self.count or protocol.count) if is_sample else None,
            root=None if is_sample else self.run_options.root,
            device=pick_process_device(self.computation.device),
            real=not is_sample,
        )

    def _merge_statistics(self, samples: Side) -> FeatureStatistics:
        """Load the statistics of the collection, and check that they follow the protocol of the samples."""
        from adaptok.metrics.frechet import FeatureStatistics, merge

        real = merge(FeatureStatistics.load(path) for path in self.statistics)
        for name, value in samples.statistics.provenance.items():
            known = real.provenance.get(name)
            if ("adaptok" if known == "official" else known) != value:
                raise ValueError(
                    f"{self.statistics[0]}: {name} {known!r}, the samples have {value!r}; compute"
                    " the statistics again from the data"
                )
        return real


@dataclass(kw_only=True)
class Prediction(Generation):
    """Measure a generator that predicts frames, or predicted videos, against a collection by FVD: 50,000 samples of 64
    pixels."""

    kind: ClassVar[GenerationKind] = "frame"


def _autocast(wanted: bool):  # type: ignore[no-untyped-def]
    import torch

    return torch.float16 if wanted else None
