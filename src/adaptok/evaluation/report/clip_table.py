"""The table of an evaluation as Parquet, with a row for each clip and budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from adaptok.evaluation.partial_results import PartialResult
from adaptok.evaluation.results import Variant
from adaptok.evaluation.summary import TokenFormat, clip_names
from adaptok.utils.extras import require
from adaptok.utils.files import replacing

TABLE_FILE = "metrics.parquet"


def check_report_packages() -> None:
    """Raise ImportError if a package that writes reports is missing."""
    for package in ("pyarrow", "jinja2", "matplotlib"):
        require(package, extra="eval", purpose="a report")


def write_table(
    path: Path,
    results: Iterable[PartialResult],
    variants: Sequence[Variant],
    metrics: Sequence[str],
    tokens: TokenFormat | None,
) -> None:
    """Write the table, one partial result at a time.

    The columns are video, label, clip (its number in the video), budget, and the metrics of the main variant; for
    models also tokens, bits, lengths, and the predicted and actual distortion of every block. If lengths are adaptive,
    the metrics of uniform lengths at the same budget follow as `uniform_…`. Infinite and NaN values are null.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(_columns(variants, metrics, tokens is not None))
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for result in results:
            if rows := clip_rows(result, variants, metrics, tokens):
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _columns(variants: Sequence[Variant], metrics: Sequence[str], tokens: bool) -> list[tuple[str, Any]]:
    import pyarrow as pa

    columns = [("video", pa.string()), ("label", pa.string()), ("clip", pa.int32()), ("budget", pa.float64())]
    columns += [(name, pa.float64()) for name in metrics]
    if tokens:
        columns += [("tokens", pa.int32()), ("bits", pa.float64()), ("lengths", pa.list_(pa.int32()))]
        columns += [(name, pa.list_(pa.float64())) for name in ("predicted", "actual")]
    if _has_both(variants):
        columns += [(f"uniform_{name}", pa.float64()) for name in metrics] + [("uniform_tokens", pa.int32())]
    return columns


def _has_both(variants: Sequence[Variant]) -> bool:
    return {"adaptive", "uniform"} <= {variant.name for variant in variants}


def clip_rows(
    result: PartialResult, variants: Sequence[Variant], metrics: Sequence[str], tokens: TokenFormat | None
) -> list[dict[str, Any]]:
    """Rows of a partial result."""
    rows = []
    main = [i for i, variant in enumerate(variants) if variant.name != "uniform" or not _has_both(variants)]
    for n, (video, clip) in enumerate(clip_names(result)):
        for i in main:
            row: dict[str, Any] = {"video": video.name, "label": video.label, "clip": clip}
            row |= {"budget": variants[i].budget, **_values(result, n, i, metrics)}
            if tokens is not None:
                row |= _tokens(result, n, i, tokens)
            if _has_both(variants):  # uniform lengths at the same budget come next
                uniform = _values(result, n, i + 1, metrics)
                row |= {f"uniform_{name}": value for name, value in uniform.items()}
                row["uniform_tokens"] = int(result.arrays["lengths"][n, i + 1].sum())
            rows.append(row)
    return rows


def _values(result: PartialResult, n: int, i: int, metrics: Sequence[str]) -> dict[str, float | None]:
    values = result.arrays["metrics"][n, i].tolist()
    return {name: value if math.isfinite(value) else None for name, value in zip(metrics, values, strict=True)}


def _tokens(result: PartialResult, n: int, i: int, tokens: TokenFormat) -> dict[str, Any]:
    lengths = result.arrays["lengths"][n, i]
    total = int(lengths.sum())
    return {
        "tokens": total,
        "bits": tokens.bits(total, len(lengths)),
        "lengths": lengths.tolist(),
        **{name: _known(result.arrays[name][n, i].tolist()) for name in ("predicted", "actual")},
    }


def _known(values: list[float]) -> list[float] | None:
    return None if any(map(math.isnan, values)) else values
