"""Pages of a report in HTML and Markdown: the wording of its numbers, for templates to lay out."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adaptok.evaluation.measures import METRICS
from adaptok.evaluation.report.charts import Line, bar_chart, line_chart
from adaptok.evaluation.results import BudgetResult, CalibrationResult, Figures, Report, Speed, VariantName
from adaptok.metrics.frechet import MIN_CLIPS
from adaptok.utils.templates import render

if TYPE_CHECKING:
    from adaptok.evaluation.comparison import Comparison
    from adaptok.evaluation.examples import Example

Frame = NDArray[np.uint8]
Row = list[str]

VARIANTS: tuple[VariantName, ...] = get_args(VariantName)
_PACKAGE = "adaptok.evaluation.report"
_MAX_BARS = 24
_GAP = 2
"""Pixels between two frames."""
_TITLES = {"tokenizer": "Evaluation", "pairs": "Comparison of two folders", "generation": "Evaluation of samples"}


class Table(NamedTuple):
    """A table with a heading."""

    heading: str
    head: Row
    rows: list[Row]


class Chart(NamedTuple):
    """A chart as SVG, with its caption."""

    caption: str
    svg: str


class Strip(NamedTuple):
    """Frames side by side as the address of an image, with their caption."""

    caption: str
    address: str


def markdown_page(report: Report) -> str:
    """Render a report as Markdown."""
    return render(
        _PACKAGE,
        "report.md.j2",
        title=title(report),
        facts=facts(report),
        tables=tables(report),
        reproduction=reproduction(report),
    )


def html_page(report: Report, examples: dict[str, list[Example]]) -> str:
    """Render a report as one HTML file that contains its styles, charts and images."""
    shown = {
        name: [
            (
                f"{example.clip.video}, clip {example.clip.clip}: {example.clip.psnr:.2f} dB",
                [Strip(caption, image_address(frames)) for caption, frames in example.rows],
            )
            for example in group
        ]
        for name, group in examples.items()
    }
    return render(
        _PACKAGE,
        "report.html.j2",
        title=title(report),
        lead=lead(report),
        headline=headline(report),
        quality_charts=quality_charts(report),
        tables=tables(report),
        token_charts=token_charts(report),
        examples=shown,
        reproduction=reproduction(report),
    )


def title(report: Report) -> str:
    """Title of the pages."""
    return _TITLES[report.kind] + (f" of {report.model.name}" if report.model else "")


def lead(report: Report) -> str:
    """Sentences that say which clips were measured."""
    protocol = report.protocol
    square = "at their own size" if protocol.size is None else f"{protocol.size} x {protocol.size} pixels"
    return f"{protocol.description.capitalize()}. Clips of {protocol.frames} frames, {square}."


def headline(report: Report) -> list[tuple[str, str]]:
    """The most important figures, of the largest budget: names and values."""
    result = report.results[-1]
    items = [("videos", f"{report.data.videos}"), ("clips", f"{report.data.clips}")]
    budget = "" if result.budget is None else f" at {result.budget:g} tokens"
    items += [(METRICS[name].name + budget, with_unit(name, result.main.value(name))) for name in report.metrics]
    gains = [each for each in report.results if "psnr" in each.gain]
    if gains:
        best = max(gains, key=lambda each: each.gain["psnr"])
        gained = with_unit("psnr", best.gain["psnr"], "+")
        items.append((f"gain over uniform lengths at {best.budget:g} tokens", gained))
    return items


def facts(report: Report) -> list[tuple[str, str]]:
    """Protocol, amount of data, and everything that is missing from the figures: names and values."""
    data = report.data
    items = [("protocol", f"{report.protocol.name}: {lead(report)}"), ("videos, clips", f"{data.videos}, {data.clips}")]
    items += [(f"{name} skipped", reason) for name, reason in report.skipped_metrics.items()]
    items += [
        (f"{name} undefined", f"for {count} of {data.clips} clips, which its means leave out")
        for name, count in report.undefined.items()
    ]
    if any(result.fixed is not None for result in report.results):
        text = "the same for every clip; the first block is longer by a factor that is fitted on all other videos"
        items.append(("fixed lengths", text))
    items += _fvd_facts(report)
    if report.weights:
        items.append(("weights", ", ".join(f"{role} {sha256[:12]}" for role, sha256 in report.weights.items())))
    if report.reproduction:
        seed = "" if report.protocol.seed is None else f", seed {report.protocol.seed}"
        items.append(("version", f"adaptok {report.reproduction.versions.get('adaptok', 'unknown')}{seed}"))
    if data.skipped:
        items.append(("skipped videos", "; ".join(f"{name}: {reason}" for name, reason in data.skipped.items())))
    return items


def _fvd_facts(report: Report) -> list[tuple[str, str]]:
    """Bootstrap intervals of FVD, and a warning if there are few clips."""
    items = []
    for result in report.results:
        for name in VARIANTS:
            figures = result.figures(name)
            if figures is not None and figures.fvd_interval is not None:
                budget = "" if result.budget is None else f" at {result.budget:g} tokens"
                low, high = figures.fvd_interval
                items.append((f"FVD, {name}{budget}", f"{figures.fvd or 0:.2f}, 95% interval {low:.2f} to {high:.2f}"))
    if "fvd" in report.metrics and report.data.clips < MIN_CLIPS:
        text = f"{report.data.clips} clips are fewer than {MIN_CLIPS:,}; compare FVD only at equal numbers of clips"
        items.append(("warning", text))
    return items


def tables(report: Report) -> list[Table]:
    """All tables of a report."""
    results, metrics = report.results, report.metrics
    rows = [
        [_budget(result.budget), name, *(with_unit(metric, figures.value(metric)) for metric in metrics)]
        for result in results
        for name in VARIANTS
        if (figures := result.figures(name)) is not None
    ]
    all_tables = [Table("Quality", ["budget", "lengths", *(METRICS[metric].name for metric in metrics)], rows)]
    gains = [result for result in results if result.gain]
    if gains:
        names = [metric for metric in metrics if any(metric in result.gain for result in gains)]
        head = ["budget", *(f"gain in {METRICS[name].name}" for name in names), "uniform for this PSNR", "saved"]
        all_tables.append(Table("Gain of adaptive lengths", head, [_gain_row(result, names) for result in gains]))
    over_fixed = [result for result in results if result.gain_over_fixed]
    if over_fixed:
        names = [metric for metric in metrics if any(metric in result.gain_over_fixed for result in over_fixed)]
        head = ["budget", *(f"gain in {METRICS[name].name}" for name in names), "mean lengths of the fixed patterns"]
        rows = [_fixed_row(result, names) for result in over_fixed]
        all_tables.append(Table("Gain of adaptive lengths over the best fixed pattern", head, rows))
    with_tokens = [(result.budget, result.main) for result in results if result.main.codebook is not None]
    if with_tokens:
        head = ["budget", "tokens per clip", "tokens per second", "kbit/s", "codebook used", "entropy (bits)"]
        all_tables.append(Table("Tokens", head, [_token_row(*each) for each in with_tokens]))
    calibrated = [(budget, c) for budget, figures in with_tokens if (c := figures.calibration) is not None]
    if calibrated:
        head = ["budget", "rank correlation", "mean relative error", "mean relative bias", "blocks"]
        rows = [_calibration_row(*each) for each in calibrated]
        all_tables.append(Table("Predicted against actual distortion", head, rows))
    return all_tables + ([_speed_table(report.speed)] if report.speed is not None else [])


def _gain_row(result: BudgetResult, names: Sequence[str]) -> Row:
    saving = result.saving.get("psnr")
    row = [_budget(result.budget), *(with_unit(name, result.gain.get(name), "+") for name in names)]
    return [*row, *(["–", "–"] if saving is None else [f"{saving.uniform_tokens:.0f}", f"{saving.saved:.1%}"])]


def _fixed_row(result: BudgetResult, names: Sequence[str]) -> Row:
    fixed = result.fixed
    lengths = "–" if fixed is None or fixed.lengths is None else ", ".join(f"{n:.0f}" for n in fixed.lengths.by_block)
    return [
        _budget(result.budget),
        *(with_unit(name, result.gain_over_fixed.get(name), "+") for name in names),
        lengths,
    ]


def _token_row(budget: float | None, figures: Figures) -> Row:
    codebook = figures.codebook
    assert codebook is not None
    return [
        _budget(budget),
        f"{figures.tokens_per_clip:.1f}",
        f"{figures.tokens_per_second:.0f}",
        f"{(figures.bits_per_second or 0) / 1000:.2f}",
        f"{codebook.used} of {codebook.size} ({codebook.used_fraction:.1%})",
        f"{codebook.entropy:.2f}",
    ]


def _calibration_row(budget: float | None, calibration: CalibrationResult) -> Row:
    error, bias = calibration.mean_relative_error, calibration.mean_relative_bias
    correlation = f"{calibration.rank_correlation:.3f}"
    return [_budget(budget), correlation, f"{error:.1%}", f"{bias:.1%}", f"{calibration.blocks}"]


def _speed_table(speed: Speed) -> Table:
    rates = {name: getattr(speed, f"{name}_clips_per_second", None) for name in speed.seconds}
    rows = [[name, f"{speed.seconds[name]:.1f}", f"{rate:.2f}"] for name, rate in rates.items() if rate is not None]
    return Table(f"Speed (peak memory {speed.memory_gb:.2f} GB)", ["work", "seconds", "clips per second"], rows)


def reproduction(report: Report) -> list[tuple[str, str]]:
    """Everything that is needed to reproduce the numbers: names and values."""
    protocol, model, again = report.protocol, report.model, report.reproduction
    items = [("command", again.command)] if again else []
    items += [(name, value) for name, value in facts(report) if name == "protocol" or "skipped" in name]
    if model:
        items.append(("model", f"{model.name}, {model.dtype}"))
        items += [("SHA-256 of its tokenizer", model.weights)] if model.weights else []
        items += [("SHA-256 of its scorer", model.scorer)] if model.scorer else []
    options = {
        "budget shared by": protocol.scope,
        "effort of scoring": protocol.effort,
        "batch size": protocol.batch_size,
        "scales of MS-SSIM": protocol.ms_ssim_scales,
        "patch size of the edge ratio": protocol.patch_size and f"{protocol.patch_size} pixels",
        "SHA-256 of the list of the videos' SHA-256": report.data.sha256,
        "SHA-256 of the detector of FVD": report.detector,
        "autocast of the tokenizer": protocol.autocast,
        "sampling": protocol.sampling,
    }
    items += [(name, str(value)) for name, value in options.items() if value]
    if again:
        items.append(("versions", ", ".join(f"{name} {value}" for name, value in again.versions.items())))
        items.append(("machine", ", ".join(f"{value}" for value in again.machine.values())))
    return items


def quality_charts(report: Report) -> list[Chart]:
    """A chart of every metric over tokens per clip."""
    results = report.results
    if len(results) < 2 or results[0].main.tokens_per_clip is None:
        return []
    charts = []
    for metric in report.metrics:
        lines = []
        for colour, name in enumerate(VARIANTS[:3]):
            known = [each for each in (result.figures(name) for result in results) if each is not None]
            points = sorted(
                (each.tokens_per_clip or 0.0, value) for each in known if (value := each.value(metric)) is not None
            )
            if points:
                lines.append(Line(f"{name} lengths", points, colour, dashed=name != "adaptive"))
        if lines:
            charts.append(_metric_chart(metric, lines))
    return charts


def comparison_charts(comparison: Comparison) -> list[Chart]:
    """A chart of every metric over tokens per clip, with one line for each of two reports."""
    charts = []
    for metric, curves in comparison.curves.items():
        sides = (("A", comparison.a, curves.a), ("B", comparison.b, curves.b))
        lines = [
            Line(f"{letter} {side.name}", points, index, dashed=index == 1)  # equal lines stay visible
            for index, (letter, side, points) in enumerate(sides)
            if points
        ]
        charts.append(_metric_chart(metric, lines))
    return charts


def _metric_chart(metric: str, lines: Sequence[Line]) -> Chart:
    info = METRICS[metric]
    label = f"{info.name} ({info.unit})" if info.unit else info.name
    return Chart(info.name, line_chart(lines, "tokens per clip", label))


def token_charts(report: Report) -> list[Chart]:
    """Histograms of lengths, and the calibration of the scorer."""
    charts, lines = [], []
    for index, result in enumerate(report.results):
        figures = result.main
        if figures.lengths is None or result.variant != "adaptive":
            continue
        bars = histogram(figures.lengths.histogram)
        chart = bar_chart(bars, "length of a block", "fraction of blocks", index)
        charts.append(Chart(f"Lengths at {result.budget:g} tokens per clip", chart))
        if figures.calibration is not None:
            curve = [(point.predicted, point.actual) for point in figures.calibration.curve]
            lines.append(Line(f"{result.budget:g} tokens", curve, index))
    if lines:
        chart = line_chart(lines, "predicted distortion of a block", "actual", log=True, diagonal=True)
        charts.append(Chart("Calibration of the scorer: twelve groups of blocks each", chart))
    return charts


def histogram(counts: dict[int, int]) -> list[tuple[str, float]]:
    """Fractions of blocks by length, in at most `_MAX_BARS` groups of equal width."""
    total, longest = sum(counts.values()), max(counts)
    width = int(np.gcd.reduce([*counts, longest])) or 1
    while longest // width >= _MAX_BARS:
        width *= 2
    groups: dict[int, float] = dict.fromkeys(range(0 if 0 in counts else width, longest + width, width), 0.0)
    for length, count in counts.items():
        groups[min(-(-length // width) * width, max(groups))] += count / total
    return [(str(length), fraction) for length, fraction in groups.items()]


def with_unit(metric: str, value: float | None, sign: str = "") -> str:
    """Format a value of a metric."""
    if value is None:
        return "–"
    decimals = METRICS[metric].decimals
    return f"{round(value, decimals) + 0.0:{sign}.{decimals}f} {METRICS[metric].unit}".rstrip()


def _budget(budget: float | None) -> str:
    return "–" if budget is None else f"{budget:g}"


def comparison_page(comparison: Comparison, markup: str) -> str:
    """Render a comparison of two reports as "html" or "md"."""
    charts = {"charts": comparison_charts(comparison)} if markup == "html" else {}
    table = Table("", *comparison.table())
    return render(_PACKAGE, f"comparison.{markup}.j2", comparison=comparison, table=table, **charts)


def image_address(frames: Sequence[Frame]) -> str:
    """Join frames in one image and encode it as a data URI."""
    height, width = frames[0].shape[:2]
    strip = np.full((height, (width + _GAP) * len(frames) - _GAP, 3), 128, np.uint8)
    for index, frame in enumerate(frames):
        strip[:, index * (width + _GAP) : index * (width + _GAP) + width] = frame
    file = io.BytesIO()
    Image.fromarray(strip).save(file, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
