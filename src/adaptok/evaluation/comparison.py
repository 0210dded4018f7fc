"""Two reports beside each other: differences, and how far chance could have brought them about.

Confidence intervals come from the bootstrap over videos (Efron 1979, doi:10.1214/aos/1176344552; percentiles): clips of
one video are alike, so they are drawn together. Where both reports are of the same clips, the differences of clips are
drawn, which is much sharper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptok.evaluation.measures import CLIP_METRICS, DIRECTIONS, NAMES
from adaptok.evaluation.report.build import read_report
from adaptok.evaluation.report.page import with_unit
from adaptok.evaluation.report.tables import TABLE_FILE, check_pyarrow

Floats = NDArray[np.float64]
Key = tuple[str, int]

RESAMPLES = 2000
LEVEL = 0.95
_CHUNK = 50
_PROTOCOL = ("name", "frames", "size", "scope")


@dataclass(frozen=True)
class Clips:
    """A metric of clips: sums and counts of each video `[N]`."""

    sums: Floats
    counts: Floats

    @classmethod
    def of(cls, videos: NDArray[np.str_], values: Floats) -> Clips:
        """From the video and the value of every clip."""
        _, place = np.unique(videos, return_inverse=True)
        return cls(np.bincount(place, weights=values).astype(float), np.bincount(place).astype(float))

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.counts.sum())

    def resampled(self, rng: np.random.Generator, resamples: int) -> Floats:
        """Means `[resamples]` of as many videos, drawn with replacement."""
        n, means = len(self.sums), []
        for first in range(0, resamples, _CHUNK):
            drawn = rng.multinomial(n, np.full(n, 1 / n), size=min(_CHUNK, resamples - first))
            means.append(drawn @ self.sums / (drawn @ self.counts))
        return np.concatenate(means)


def compare_reports(
    a: Path, b: Path, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> dict[str, Any]:
    """Differences `b - a` of every metric at every budget that both have.

    Args:
        a, b: folders of reports.
        resamples: draws of the bootstrap.
        level: of the confidence intervals.

    Returns:
        `a`, `b` (name, folder, data), `differs` (what of the protocol does), `same_clips`, and `results`: for each
        budget, metric by metric, `a`, `b`, `difference`, `low`, `high` (None for a single video, and for the FVD) and
        `better` ("a", "b", or None where the interval holds 0, or neither direction is better). Clips that a metric is
        undefined for are left out; so is a metric without other clips.

    Raises:
        FileNotFoundError: a folder has no report.
        ValueError: they have no budget or no metric in common.
    """
    check_pyarrow()
    folders = a, b
    reports = [read_report(folder) for folder in folders]
    tables = [_read_table(folder) for folder in folders]
    budgets = [budget for budget in tables[0] if budget in tables[1]]
    metrics = [name for name in CLIP_METRICS if all(name in report["metrics"] for report in reports)]
    if not budgets or not (metrics or all("fvd" in report["metrics"] for report in reports)):
        known = [", ".join(f"{x:g}" for x in table if x is not None) or "none" for table in tables]
        raise ValueError(f"{a} has the budgets {known[0]}, {b} {known[1]}: nothing in common to compare")
    rng = np.random.default_rng(seed)
    same = reports[0]["data"]["originals_sha256"] == reports[1]["data"]["originals_sha256"]
    same = same and all(_keys(tables[0][budget]) == _keys(tables[1][budget]) for budget in budgets)
    results = []
    for budget in budgets:
        sides = [table[budget] for table in tables]
        differences = {name: _difference(sides, name, same, rng, resamples, level) for name in metrics}
        found: dict[str, dict[str, Any]] = {name: each for name, each in differences.items() if each is not None}
        figures = [_figures(report, budget) for report in reports]
        for name in ("fvd", "tokens_per_clip"):
            if all(each.get(name) is not None for each in figures):
                found[name] = _plain(*(each[name] for each in figures))
        results.append({"budget": budget, "metrics": found})
    return {
        "a": _name(reports[0], a),
        "b": _name(reports[1], b),
        "differs": _differing(*(report["protocol"] for report in reports)),
        "same_clips": same,
        "resamples": resamples,
        "level": level,
        "results": results,
    }


def _differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """What of two protocols differs; a patch size only if both have one."""
    names = [name for name in _PROTOCOL if a[name] != b[name]]
    patch_sizes = {protocol.get("patch_size") for protocol in (a, b)} - {None}
    return [*names, "patch_size"] if len(patch_sizes) > 1 else names


def _name(report: dict[str, Any], folder: Path) -> dict[str, Any]:
    model = report["model"]
    name = folder.name if model is None else model["name"]
    return {"name": name, "folder": str(folder), "videos": report["data"]["videos"], "clips": report["data"]["clips"]}


def _read_table(folder: Path) -> dict[float | None, dict[str, Any]]:
    """Columns of the table, by budget."""
    import pyarrow.parquet as pq

    path = folder / TABLE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; evaluate again, to write the whole report")
    names = {"video", "clip", "budget", *CLIP_METRICS}
    file = pq.ParquetFile(path)
    columns = file.read(columns=[name for name in file.schema_arrow.names if name in names]).to_pydict()
    budgets = np.array([np.nan if x is None else x for x in columns.pop("budget")])
    found: dict[float | None, dict[str, Any]] = {}
    for budget in dict.fromkeys(budgets.tolist()) if not np.isnan(budgets).all() else [None]:
        rows = np.arange(len(budgets)) if budget is None else np.flatnonzero(budgets == budget)
        found[budget] = {name: [column[row] for row in rows] for name, column in columns.items()}
    return found


def _keys(side: dict[str, Any]) -> list[Key]:
    return list(zip(side["video"], side["clip"], strict=True))


def _figures(report: dict[str, Any], budget: float | None) -> dict[str, Any]:
    result = next(each for each in report["results"] if each["budget"] == budget)
    figures: dict[str, Any] = result[result["way"]]
    return figures


def _plain(a: float, b: float) -> dict[str, Any]:
    return {"a": a, "b": b, "difference": b - a, "low": None, "high": None, "better": None}


def _difference(
    sides: Sequence[dict[str, Any]], name: str, same: bool, rng: np.random.Generator, resamples: int, level: float
) -> dict[str, Any] | None:
    values = [np.array(side[name], float) for side in sides]
    known = [np.isfinite(each) for each in values]
    if same:  # of the same clips in both reports
        known = [known[0] & known[1]] * 2
    if not all(each.any() for each in known):
        return None
    values = [each[chosen] for each, chosen in zip(values, known, strict=True)]
    videos = [np.array(side["video"])[chosen] for side, chosen in zip(sides, known, strict=True)]
    found = _plain(*(float(each.mean()) for each in values))
    draw: Callable[[], Floats]
    if same:
        clips = [Clips.of(videos[0], values[1] - values[0])]
        draw = lambda: clips[0].resampled(rng, resamples)  # noqa: E731
    else:
        clips = [Clips.of(names, each) for names, each in zip(videos, values, strict=True)]
        draw = lambda: clips[1].resampled(rng, resamples) - clips[0].resampled(rng, resamples)  # noqa: E731
    if min(len(each.sums) for each in clips) > 1:
        low, high = np.quantile(draw(), [(1 - level) / 2, (1 + level) / 2]).tolist()
        found |= {"low": low, "high": high}
        if DIRECTIONS[name] and (low > 0 or high < 0):
            found["better"] = "b" if (low > 0) == (DIRECTIONS[name] > 0) else "a"
    return found


def describe(document: dict[str, Any]) -> list[list[str]]:
    """Head and rows of the comparison, as people read it."""
    names = [f"{side.upper()} {document[side]['name']}" for side in ("a", "b")]
    rows = [["budget", "", *names, "B - A", f"{document['level']:.0%} interval", "better"]]
    for result in document["results"]:
        budget = "–" if result["budget"] is None else f"{result['budget']:g}"
        for name, found in result["metrics"].items():
            label = NAMES.get(name, "tokens of a clip")
            values = [_value(name, found[key]) for key in ("a", "b")]
            ends = None if found["low"] is None else [_value(name, found[end], "+") for end in ("low", "high")]
            interval = "–" if ends is None else " … ".join(ends)
            better = "–" if found["better"] is None else found["better"].upper()
            rows.append([budget, label, *values, _value(name, found["difference"], "+"), interval, better])
    return rows


def _value(name: str, value: float, sign: str = "") -> str:
    return f"{value:{sign}.1f}" if name == "tokens_per_clip" else with_unit(name, value, sign)
