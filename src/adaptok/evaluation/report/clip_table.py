"""The table of an evaluation as Parquet, with a row for each clip and budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptok.evaluation.partial_results import PartialResult
from adaptok.evaluation.results import Variant, VariantName
from adaptok.evaluation.summary import Summary, TokenFormat, clip_names
from adaptok.utils.extras import require
from adaptok.utils.files import replacing

TABLE_FILE = "metrics.parquet"


def check_report_packages() -> None:
    """Raise ImportError if a package that writes reports is missing."""
    for package in ("pyarrow", "jinja2", "matplotlib"):
        require(package, extra="eval", purpose="a report")


def write_table(path: Path, results: Iterable[PartialResult], summary: Summary) -> None:
    """Write the table, one partial result at a time.

    The columns are video, label, clip (its number in the video), budget, and the metrics of the main variant; for
    models also tokens, bits, lengths, and the predicted and actual distortion of every block. The metrics of other
    variants at the same budget follow as `uniform_…` and `fixed_…`. Infinite and NaN values are null.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [("video", pa.string()), ("label", pa.string()), ("clip", pa.int32()), ("budget", pa.float64())]
    columns += [(name, pa.float64()) for name in summary.metrics]
    if summary.tokens is not None:
        columns += [("tokens", pa.int32()), ("bits", pa.float64()), ("lengths", pa.list_(pa.int32()))]
        columns += [(name, pa.list_(pa.float64())) for name in ("predicted", "actual")]
    for other in _other_names(summary.variants):
        columns += [(f"{other}_{name}", pa.float64()) for name in summary.metrics] + [(f"{other}_tokens", pa.int32())]
    schema = pa.schema(columns)
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for result in results:
            if rows := clip_rows(result, summary):
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _other_names(variants: Sequence[Variant]) -> list[VariantName]:
    """Names of the variants that are not the main one."""
    return list(dict.fromkeys(variant.name for variant in variants))[1:]


def clip_rows(result: PartialResult, summary: Summary) -> list[dict[str, Any]]:
    """Rows of a partial result."""
    rows = []
    variants, others = summary.variants, _other_names(summary.variants)
    places = {(variant.budget, variant.name): i for i, variant in enumerate(variants)}
    for n, (video, clip) in enumerate(clip_names(result)):
        for i, variant in enumerate(variants):
            if variant.name in others:
                continue
            row: dict[str, Any] = {"video": video.name, "label": video.label, "clip": clip, "budget": variant.budget}
            row |= _values(result, n, i, summary.metrics)
            if summary.tokens is not None:
                row |= _tokens(result, n, i, summary.tokens)
            for other in others:
                place = places[variant.budget, other]
                values = _values(result, n, place, summary.metrics)
                row |= {f"{other}_{name}": value for name, value in values.items()}
                row[f"{other}_tokens"] = int(result.arrays["lengths"][n, place].sum())
            rows.append(row)
    return rows


def _values(result: PartialResult, n: int, i: int, metrics: Sequence[str]) -> dict[str, float | None]:
    values = result.arrays["metrics"][n, i].tolist()
    return {name: value if math.isfinite(value) else None for name, value in zip(metrics, values, strict=True)}


def _tokens(result: PartialResult, n: int, i: int, tokens: TokenFormat) -> dict[str, Any]:
    lengths = result.arrays["lengths"][n, i]
    total = int(lengths.sum())
    row = {"tokens": total, "bits": tokens.bits(total, len(lengths)), "lengths": lengths.tolist()}
    for name in ("predicted", "actual"):
        values = result.arrays[name][n, i]
        row[name] = None if np.isnan(values).any() else values.tolist()
    return row
