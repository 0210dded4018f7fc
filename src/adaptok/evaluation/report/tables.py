"""The table of an evaluation, a row for each clip and budget, as Parquet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from adaptok.evaluation.partial_results import Part
from adaptok.evaluation.summary import Tokens, Way, clip_names
from adaptok.utils.files import replacing

TABLE_FILE = "metrics.parquet"
NEEDS = "a report needs pyarrow; install it with: pip install 'adaptok[eval]'"


def check_pyarrow() -> None:
    """Raise ImportError, with what to do, where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        raise ImportError(NEEDS) from None


def write_table(
    path: Path, parts: Iterable[Part], ways: Sequence[Way], metrics: Sequence[str], tokens: Tokens | None
) -> None:
    """Write it, part by part, in the order of the plan.

    Columns: video, label, clip (its number in the video), budget; the metrics of the main way, and those of even
    lengths beside them as `uniform_…`, null where they are infinite or NaN; for models tokens, bits, lengths, and the
    predicted and actual distortion of every block.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(_columns(ways, metrics, tokens is not None))
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for part in parts:
            rows = part_rows(part, ways, metrics, tokens)
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _columns(ways: Sequence[Way], metrics: Sequence[str], tokens: bool) -> list[tuple[str, Any]]:
    import pyarrow as pa

    columns = [("video", pa.string()), ("label", pa.string()), ("clip", pa.int32()), ("budget", pa.float64())]
    columns += [(name, pa.float64()) for name in metrics]
    if tokens:
        columns += [("tokens", pa.int32()), ("bits", pa.float64()), ("lengths", pa.list_(pa.int32()))]
        columns += [(name, pa.list_(pa.float64())) for name in ("predicted", "actual")]
    if _both(ways):
        columns += [(f"uniform_{name}", pa.float64()) for name in metrics] + [("uniform_tokens", pa.int32())]
    return columns


def _both(ways: Sequence[Way]) -> bool:
    return {"adaptive", "uniform"} <= {way.name for way in ways}


def part_rows(part: Part, ways: Sequence[Way], metrics: Sequence[str], tokens: Tokens | None) -> list[dict[str, Any]]:
    """Rows of one part."""
    rows = []
    mains = [i for i, way in enumerate(ways) if way.name != "uniform" or not _both(ways)]
    for n, (video, clip) in enumerate(clip_names(part)):
        for i in mains:
            row: dict[str, Any] = {"video": video.name, "label": video.label, "clip": clip, "budget": ways[i].budget}
            row |= _values(part, n, i, metrics)
            if tokens is not None:
                row |= _tokens(part, n, i, tokens)
            if _both(ways):  # even lengths at the same budget come next
                even = _values(part, n, i + 1, metrics)
                row |= {f"uniform_{name}": value for name, value in even.items()}
                row["uniform_tokens"] = int(part.arrays["lengths"][n, i + 1].sum())
            rows.append(row)
    return rows


def _values(part: Part, n: int, i: int, metrics: Sequence[str]) -> dict[str, float | None]:
    values = part.arrays["metrics"][n, i].tolist()
    return {name: value if math.isfinite(value) else None for name, value in zip(metrics, values, strict=True)}


def _tokens(part: Part, n: int, i: int, tokens: Tokens) -> dict[str, Any]:
    lengths = part.arrays["lengths"][n, i]
    total = int(lengths.sum())
    return {
        "tokens": total,
        "bits": total * math.log2(tokens.codebook) + len(lengths) * math.log2(tokens.latents + 1),
        "lengths": lengths.tolist(),
        **{name: _known(part.arrays[name][n, i].tolist()) for name in ("predicted", "actual")},
    }


def _known(values: list[float]) -> list[float] | None:
    return None if any(map(math.isnan, values)) else values
