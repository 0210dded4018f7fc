"""Results of an evaluation, as `report.json` stores them.

Version 2 of the format renamed some keys of version 1, which is still read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from adaptok.config.choices import Scope

FORMAT: Literal["adaptok-report"] = "adaptok-report"
VERSION: Literal[2] = 2
REPORT_FILE = "report.json"

VariantName = Literal["adaptive", "uniform", "fixed", "prediction", "samples"]


class Variant(NamedTuple):
    """One reconstruction of every clip: its budget (None if there is none), how lengths were chosen, and for a fixed
    pattern that is still to be chosen, the length of its first block relative to the others."""

    budget: float | None
    name: VariantName
    ratio: float | None = None


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")


def _renamed(name: str, before: str, **options: Any) -> Any:
    return Field(validation_alias=AliasChoices(name, before), **options)


class Protocol(_Record):
    """Which clips were measured, and how they were cut."""

    name: str
    description: str = _renamed("description", "takes", default="")
    frames: int
    size: int | None
    scope: Scope | None = None
    effort: int | None = None
    batch_size: int | None = None
    ms_ssim_scales: int | None = None
    patch_size: int | None = None
    official_count: bool | None = None
    autocast: str | None = None
    sampling: str | None = None
    seed: int | None = None


class ModelInfo(_Record):
    """The model, with the SHA-256 of its tokenizer's and of its scorer's weights."""

    name: str
    weights: str | None = None
    scorer: str | None = None
    dtype: str | None = None


class DataInfo(_Record):
    """The videos: how many, the SHA-256 of the list of their hashes, and those that were skipped or damaged."""

    videos: int
    clips: int
    seconds: float | None = None
    sha256: str = ""
    originals_sha256: str | None = None
    reference_sha256: str | None = None
    label_distance: float | None = None
    skipped: dict[str, str] = {}
    warnings: dict[str, str] = {}


class LengthStatistics(_Record):
    """Number of blocks of every length, the mean length, and that of each block index."""

    histogram: dict[int, int]
    mean: float
    by_block: list[float]


class CodebookUse(_Record):
    """Entries that occur among the kept tokens, and the entropy of their distribution in bits."""

    size: int
    tokens: int
    used: int
    used_fraction: float = _renamed("used_fraction", "used_share")
    entropy: float
    perplexity: float


class CalibrationPoint(_Record):
    """Mean predicted and actual distortion of a group of blocks."""

    blocks: int
    predicted: float
    actual: float


class CalibrationResult(_Record):
    """Agreement of predicted and actual distortions of blocks."""

    blocks: int
    rank_correlation: float
    mean_relative_error: float
    mean_relative_bias: float
    curve: list[CalibrationPoint]


class Figures(_Record):
    """Figures of one variant: means over clips. Unmeasured metrics are unset, metrics without a finite value None."""

    psnr: float | None = None
    psnr_frame: float | None = None
    ssim: float | None = None
    ms_ssim: float | None = None
    lpips_vgg: float | None = None
    lpips_alex: float | None = None
    edge_ratio: float | None = None
    sharpness: float | None = None
    fvd: float | None = None
    fvd_interval: tuple[float, float] | None = None
    tokens_per_clip: float | None = None
    tokens_per_second: float | None = None
    bits_per_clip: float | None = None
    bits_per_second: float | None = None
    lengths: LengthStatistics | None = None
    codebook: CodebookUse | None = None
    calibration: CalibrationResult | None = None

    def value(self, name: str) -> float | None:
        """A metric, or another number, by its name."""
        value: float | None = getattr(self, name)
        return value


class Saving(_Record):
    """Tokens per clip that uniform lengths need for the quality of the adaptive ones.

    Attributes:
        uniform_tokens: that number.
        more: its relative excess over the tokens of the adaptive lengths.
        saved: the fraction of it that the adaptive lengths save.
    """

    uniform_tokens: float
    more: float
    saved: float


class BudgetResult(_Record):
    """Figures of all variants at one budget. `variant` is the main one.

    `gain` and `saving` are those of adaptive over uniform lengths, `gain_over_fixed` over the best fixed pattern.
    """

    budget: float | None
    variant: VariantName = _renamed("variant", "way")
    adaptive: Figures | None = None
    uniform: Figures | None = None
    fixed: Figures | None = None
    prediction: Figures | None = None
    samples: Figures | None = None
    gain: dict[str, float] = {}
    gain_over_fixed: dict[str, float] = {}
    saving: dict[str, Saving | None] = {}

    @property
    def main(self) -> Figures:
        """Figures of the main variant."""
        figures = self.figures(self.variant)
        assert figures is not None
        return figures

    def figures(self, name: VariantName) -> Figures | None:
        """Figures of a variant, or None if it was not measured."""
        figures: Figures | None = getattr(self, name)
        return figures


class ClipRank(_Record):
    """PSNR of a clip, its video and number in it, its unit of the plan and its index among the clips of the unit."""

    psnr: float
    video: str
    clip: int
    unit: int
    place: int


class Examples(_Record):
    """The clips of the highest and of the lowest PSNR."""

    best: list[ClipRank]
    worst: list[ClipRank]


class Speed(_Record):
    """Seconds and clips per second of each kind of work, and the peak memory of a process."""

    seconds: dict[str, float]
    encode_clips_per_second: float | None = None
    decode_clips_per_second: float | None = None
    measure_clips_per_second: float | None = None
    memory_gb: float


class Reproduction(_Record):
    """Versions, machine and command that produced the numbers."""

    versions: dict[str, str]
    machine: dict[str, Any]
    command: str


class Report(_Record):
    """An evaluation.

    Attributes:
        kind: "tokenizer", "pairs" (two folders) or "generation" (samples against data).
        metrics: names of the measured metrics.
        skipped_metrics: reason for each metric that could not be measured.
        undefined: number of clips without a finite value, for each metric that has such clips.
        detector: SHA-256 of the detector of FVD.
        weights: SHA-256 of the weights of every network, by its role.
    """

    format: Literal["adaptok-report"]
    version: Literal[1, 2]
    kind: Literal["tokenizer", "pairs", "generation"]
    protocol: Protocol
    model: ModelInfo | None = None
    data: DataInfo
    metrics: list[str]
    skipped_metrics: dict[str, str] = _renamed("skipped_metrics", "left_out", default={})
    undefined: dict[str, int] = {}
    detector: str | None = None
    weights: dict[str, str] = {}
    results: list[BudgetResult]
    examples: Examples | None = _renamed("examples", "shown", default=None)
    speed: Speed | None = None
    reproduction: Reproduction | None = _renamed("reproduction", "repeat", default=None)

    def document(self) -> dict[str, Any]:
        """The content of `report.json`: everything that was set."""
        return self.model_dump(mode="json", exclude_unset=True)


def read_report(folder: Path) -> Report:
    """Read the report in a folder.

    Raises:
        FileNotFoundError: the folder has no report.
        ValueError: the file is not a report of version 1 or 2.
    """
    path = folder / REPORT_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; 'adaptok evaluate' writes a report to the folder of --output")
    try:
        return Report.model_validate_json(path.read_bytes())
    except ValidationError:
        raise ValueError(f"{path}: not a report of adaptok (up to version {VERSION} of its format)") from None
