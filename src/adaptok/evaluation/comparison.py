"""Comparison of two reports: differences with confidence intervals.

The intervals are percentiles of a bootstrap over videos (Efron 1979, doi:10.1214/aos/1176344552). The clips of a video
are similar, so they are drawn together. If both reports measure the same clips, the differences of clips are drawn,
which gives much narrower intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adaptok.evaluation.measures import CLIP_METRICS, METRICS
from adaptok.evaluation.report.clip_table import TABLE_FILE
from adaptok.evaluation.report.page import with_unit
from adaptok.evaluation.results import Protocol, Report, read_report
from adaptok.utils.extras import require

Floats = NDArray[np.float64]
Columns = dict[str, Any]

RESAMPLES = 2000
LEVEL = 0.95
_CHUNK = 50
"""Resamples that are drawn at once, which bounds memory."""


@dataclass(frozen=True)
class Side:
    """Name of one report's model (or of its folder), and its amount of data."""

    name: str
    folder: str
    videos: int
    clips: int


@dataclass(frozen=True)
class Difference:
    """Values of a metric in both reports, and the difference `b - a`.

    Attributes:
        low, high: ends of the confidence interval; None for a single video, and for metrics that are not of clips.
        better: the better report; None if the difference or the interval, rounded as they are shown, is 0 or contains
            0, if there is no interval, or if the metric has no better direction.
    """

    a: float
    b: float
    difference: float
    low: float | None = None
    high: float | None = None
    better: Literal["a", "b"] | None = None


@dataclass(frozen=True)
class BudgetComparison:
    """Differences of all metrics at one budget, and of those of fixed patterns if both reports have them."""

    budget: float | None
    metrics: dict[str, Difference]
    fixed: dict[str, Difference] = field(default_factory=dict)


@dataclass(frozen=True)
class Curves:
    """Values of a metric over tokens per clip, `(tokens, value)` with increasing tokens, at all budgets of a report."""

    a: list[tuple[float, float]]
    b: list[tuple[float, float]]


@dataclass(frozen=True)
class Comparison:
    """Two reports side by side.

    Attributes:
        differs: fields of the protocol that differ.
        only_a, only_b: budgets that only one of the reports has.
        same_clips: whether both reports measure the same clips.
        resamples: number of bootstrap samples.
        level: level of the confidence intervals.
    """

    a: Side
    b: Side
    differs: list[str]
    same_clips: bool
    resamples: int
    level: float
    results: list[BudgetComparison]
    only_a: list[float]
    only_b: list[float]
    curves: dict[str, Curves]

    def document(self) -> dict[str, Any]:
        """The comparison as a JSON object."""
        return asdict(self)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows of a table for readers."""
        models = [f"A {self.a.name}", f"B {self.b.name}"]
        head = ["budget", "metric", *models, "B - A", f"{self.level:.0%} interval", "better"]
        rows = []
        for result in self.results:
            budget = "–" if result.budget is None else f"{result.budget:g}"
            fixed = [(name, each, ", fixed lengths") for name, each in result.fixed.items()]
            for name, each, kind in [*((*item, "") for item in result.metrics.items()), *fixed]:
                interval = "–"
                if each.low is not None and each.high is not None:
                    interval = f"{_format(name, each.low, '+')} … {_format(name, each.high, '+')}"
                values = [_format(name, each.a), _format(name, each.b), _format(name, each.difference, "+")]
                better = "–" if each.better is None else each.better.upper()
                title = METRICS[name].name if name in METRICS else "tokens per clip"
                rows.append([budget, title + kind, *values, interval, better])
        return head, rows

    def left_out(self) -> list[str]:
        """Sentences that name the budgets of one report that are not compared, because the other does not have them."""
        sides = (("A", self.only_a), ("B", self.only_b))
        return [f"Only {name} has the {_budgets(budgets)}." for name, budgets in sides if budgets]

    def description(self) -> str:
        """Sentences that say what was compared, and how."""
        sides = [f"{name}: {side.folder}, {side.clips} clips." for name, side in (("A", self.a), ("B", self.b))]
        resampled = "differences of the same clips" if self.same_clips else "clips of each report separately"
        text = f"Intervals of {self.level:.0%}: {self.resamples} bootstrap samples of videos, {resampled}."
        other = [f"The protocols differ in {', '.join(self.differs)}."] if self.differs else []
        return " ".join([*sides, text, *other, *self.left_out()])


def compare_reports(a: Path, b: Path, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> Comparison:
    """Compare every metric at every budget that both reports have.

    Clips without a finite value of a metric are left out of it; a metric without other clips is left out.

    Args:
        a, b: folders of reports.
        resamples: number of bootstrap samples.
        level: level of the confidence intervals.
        seed: seed of the bootstrap.

    Raises:
        FileNotFoundError: a folder has no report.
        ValueError: the reports have no budget or no metric in common.
    """
    require("pyarrow", extra="eval", purpose="comparing reports")
    reports = [read_report(folder) for folder in (a, b)]
    tables = [_read_table(folder) for folder in (a, b)]
    budgets = [budget for budget in tables[0] if budget in tables[1]]
    metrics = [name for name in CLIP_METRICS if all(name in report.metrics for report in reports)]
    if not budgets or not (metrics or all("fvd" in report.metrics for report in reports)):
        known = [", ".join(f"{x:g}" for x in table if x is not None) or "none" for table in tables]
        raise ValueError(f"{a} has the budgets {known[0]}, {b} {known[1]}: nothing in common to compare")
    rng = np.random.default_rng(seed)
    same = reports[0].data.originals_sha256 == reports[1].data.originals_sha256
    same = same and all(_keys(tables[0][budget]) == _keys(tables[1][budget]) for budget in budgets)
    results = []
    for budget in budgets:
        sides = [table[budget] for table in tables]
        differences = {name: _difference(sides, name, same, rng, resamples, level) for name in metrics}
        compared: dict[str, Difference] = {name: each for name, each in differences.items() if each is not None}
        main = [next(result.main for result in report.results if result.budget == budget) for report in reports]
        for name in ("fvd", "tokens_per_clip"):
            x, y = (figures.value(name) for figures in main)
            if x is not None and y is not None:
                compared[name] = Difference(x, y, y - x)
        fixed = {name: _difference(sides, name, same, rng, resamples, level, "fixed_") for name in metrics}
        results.append(BudgetComparison(budget, compared, {k: each for k, each in fixed.items() if each is not None}))
    only = [[x for x in table if x is not None and x not in budgets] for table in tables]
    return Comparison(
        a=_side(reports[0], a),
        b=_side(reports[1], b),
        differs=_differing(reports[0].protocol, reports[1].protocol),
        same_clips=same,
        resamples=resamples,
        level=level,
        results=results,
        only_a=only[0],
        only_b=only[1],
        curves=_curves(reports),
    )


def _curves(reports: Sequence[Report]) -> dict[str, Curves]:
    """Curves of the metrics that both reports have; none for reports without tokens."""
    curves = {}
    for name in METRICS:
        if all(name in report.metrics for report in reports):
            a, b = (_curve(report, name) for report in reports)
            if a and b:
                curves[name] = Curves(a, b)
    return curves


def _curve(report: Report, name: str) -> list[tuple[float, float]]:
    figures = [result.main for result in report.results]
    points = [(each.tokens_per_clip, each.value(name)) for each in figures]
    return sorted((tokens, value) for tokens, value in points if tokens is not None and value is not None)


def _differing(a: Protocol, b: Protocol) -> list[str]:
    """Fields of two protocols that differ; the patch size only if both have one."""
    names = [name for name in ("name", "frames", "size", "scope") if getattr(a, name) != getattr(b, name)]
    patch_sizes = {a.patch_size, b.patch_size} - {None}
    return [*names, "patch_size"] if len(patch_sizes) > 1 else names


def _side(report: Report, folder: Path) -> Side:
    name = folder.name if report.model is None else report.model.name
    return Side(name, str(folder), report.data.videos, report.data.clips)


def _read_table(folder: Path) -> dict[float | None, Columns]:
    """Read the columns of the table of clips, by budget."""
    import pyarrow.parquet as pq

    path = folder / TABLE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; evaluate again to write the whole report")
    names = {"video", "clip", "budget", *CLIP_METRICS, *(f"fixed_{name}" for name in CLIP_METRICS)}
    file = pq.ParquetFile(path)
    columns = file.read(columns=[name for name in file.schema_arrow.names if name in names]).to_pydict()
    budgets = np.array([np.nan if x is None else x for x in columns.pop("budget")])
    tables: dict[float | None, Columns] = {}
    for budget in dict.fromkeys(budgets.tolist()) if not np.isnan(budgets).all() else [None]:
        rows = np.arange(len(budgets)) if budget is None else np.flatnonzero(budgets == budget)
        tables[budget] = {name: [column[row] for row in rows] for name, column in columns.items()}
    return tables


def _keys(columns: Columns) -> list[tuple[str, int]]:
    return list(zip(columns["video"], columns["clip"], strict=True))


def _difference(
    sides: Sequence[Columns],
    name: str,
    same: bool,
    rng: np.random.Generator,
    resamples: int,
    level: float,
    prefix: str = "",
) -> Difference | None:
    """Compare a metric of clips; None if a report has no finite value of it. `prefix` is that of the columns."""
    if not all(prefix + name in side for side in sides):
        return None
    values = [np.array(side[prefix + name], float) for side in sides]
    known = [np.isfinite(each) for each in values]
    if same:  # use clips that are known in both reports
        known = [known[0] & known[1]] * 2
    if not all(each.any() for each in known):
        return None
    values = [each[chosen] for each, chosen in zip(values, known, strict=True)]
    videos = [np.array(side["video"])[chosen] for side, chosen in zip(sides, known, strict=True)]
    a, b = (float(each.mean()) for each in values)
    if min(len(set(names.tolist())) for names in videos) < 2:
        return Difference(a, b, b - a)
    if same:
        drawn = _resample(videos[0], values[1] - values[0], rng, resamples)
    else:
        drawn = _resample(videos[1], values[1], rng, resamples) - _resample(videos[0], values[0], rng, resamples)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Difference(a, b, b - a, low, high, _better(name, b - a, low, high))


def _better(name: str, difference: float, low: float, high: float) -> Literal["a", "b"] | None:
    """The better report, if the difference and both ends of its interval have the same sign in the shown digits."""
    direction, decimals = METRICS[name].direction, METRICS[name].decimals
    signs = {np.sign(round(value, decimals)) for value in (difference, low, high)}
    if signs == {1} and direction:
        return "b" if direction > 0 else "a"
    if signs == {-1} and direction:
        return "a" if direction > 0 else "b"
    return None


def _resample(videos: NDArray[np.str_], values: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """Mean values `[resamples]` of the clips of as many videos, drawn with replacement."""
    _, index = np.unique(videos, return_inverse=True)
    sums, counts = np.bincount(index, weights=values), np.bincount(index).astype(float)
    n, means = len(sums), []
    for first in range(0, resamples, _CHUNK):
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=min(_CHUNK, resamples - first))
        means.append(drawn @ sums / (drawn @ counts))
    return np.concatenate(means)


def _format(name: str, value: float, sign: str = "") -> str:
    return f"{value:{sign}.1f}" if name == "tokens_per_clip" else with_unit(name, value, sign)


def _budgets(budgets: Sequence[float]) -> str:
    *first, last = (f"{budget:g}" for budget in budgets)
    return f"budgets {', '.join(first)} and {last}" if first else f"budget {last}"
