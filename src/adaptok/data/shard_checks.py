"""Checksums of token dataset shards, and checks of the rows that were read.

A checksum is a SHA-256 of the values of a column, whatever their encoding in the file, so that programs which rewrite a
shard and keep its schema metadata do not invalidate it.

Legend: `N` rows, `G` blocks per clip, `K` latents per block, `L` candidate lengths.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from adaptok.config.base import Config
from adaptok.video.container import MAX_FPS

_REQUIRED = ("ids", "lengths", "source", "start")
_MIN_FPS = 1e-6

if TYPE_CHECKING:
    import pyarrow as pa

    from adaptok.data.token_shards import TokenDatasetInfo


class ShardChecksums(Config):
    """Checksums of a shard, as hexadecimal digits."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Checksum of each column."""
    metadata: str
    """Checksum of the other entries of the metadata."""
    plan: str | None = None
    """Checksum of the videos that the plan assigns to the shard, or None if it was written without a plan."""


def checksum_columns(table: pa.Table) -> dict[str, str]:
    """Return the checksums of all columns of a table."""
    checksums = {}
    for name in table.column_names:
        digest = hashlib.sha256()
        _update(digest, table[name].combine_chunks())
        checksums[name] = digest.hexdigest()
    return checksums


def checksum_metadata(metadata: Mapping[bytes, bytes]) -> str:
    """Return the checksum of entries of a schema's metadata."""
    digest = hashlib.sha256()
    for key, value in sorted(metadata.items()):
        digest.update(f"{key!r} {len(value)} ".encode() + value)
    return digest.hexdigest()


def _update(digest: Any, array: Any) -> None:
    """Add the values of an Arrow array, and which of them are null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(array, pa.ChunkedArray):  # of no chunks, in older versions
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_list(array.type):
        digest.update(_bytes(pc.list_value_length(array).fill_null(-1)))
        _update(digest, array.flatten())
    elif pa.types.is_string(array.type):
        digest.update(_bytes(pc.binary_length(array).fill_null(-1)))
        digest.update(b"".join(array.cast(pa.binary()).drop_null().to_pylist()))
    else:
        digest.update(np.packbits(array.is_null().to_numpy(zero_copy_only=False)))
        digest.update(_bytes(array.drop_null()))


def _bytes(array: Any) -> bytes:
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def check_rows(table: pa.Table, info: TokenDatasetInfo) -> None:
    """Check that the rows of a shard fit its properties. Columns that were not read are not checked.

    Args:
        table: Columns of the types in `adaptok.data.token_shards.schema`.

    Raises:
        ValueError: A row does not. The message names it.
    """
    import pyarrow.compute as pc

    for name in _REQUIRED:
        _fail_at(table[name].is_null().to_numpy(), lambda row, name=name: f"{name} is null")
    lengths = table["lengths"].combine_chunks()
    _check_lists(lengths, "lengths", np.full(len(table), info.blocks), info.latents + 1)
    kept = lengths.flatten().to_numpy().reshape(-1, info.blocks).astype(np.int64).sum(1)
    _check_lists(table["ids"].combine_chunks(), "ids", kept, info.codebook_size)
    condition = table["condition"].combine_chunks()
    _check_lists(condition, "ids of the condition", np.full(len(table), info.condition_ids), info.codebook_size)
    if "scores" in table.column_names:
        scores = table["scores"].combine_chunks()
        candidates = info.blocks * (info.latents // info.length_step)
        _check_lists(scores, "scores", np.where(scores.is_valid(), candidates, 0))
    _fail_at(pc.binary_length(table["source"]).to_numpy() == 0, lambda row: "no source, expected the name of a video")
    for name, least, most in (("start", 0, None), ("fps", _MIN_FPS, MAX_FPS), ("width", 1, None), ("height", 1, None)):
        _check_range(table[name], name, least, most)


def _check_lists(lists: Any, name: str, counts: NDArray[np.int64], bound: int | None = None) -> None:
    """Check the number of values in each list, where null has none, and that they are below a bound."""
    import pyarrow.compute as pc

    values = lists.flatten()
    found = pc.list_value_length(lists).fill_null(0).to_numpy()
    _fail_at(found != counts, lambda row: f"{found[row]} {name}, expected {counts[row]}")
    if values.null_count:
        raise ValueError(f"{values.null_count} of the {name} are null")
    if bound is not None and len(values):
        largest = values.to_numpy() >= bound
        rows = np.repeat(np.arange(len(found)), found)
        _fail_at(largest, lambda place: f"{values[place]} among the {name}, expected less than {bound}", rows)


def _check_range(column: Any, name: str, least: float, most: float | None) -> None:
    """Check values that are not null."""
    values = column.to_numpy()
    with np.errstate(invalid="ignore"):
        valid = (values >= least) & (values <= (np.inf if most is None else most))
    expected = f"at least {least}" if most is None else f"{least} to {most}"
    _fail_at(~valid & column.is_valid().to_numpy(), lambda row: f"{name} {column[row]}, expected {expected}")


def _fail_at(wrong: NDArray[np.bool_], describe: Any, rows: NDArray[np.int64] | None = None) -> None:
    """Raise a ValueError about the first place where `wrong` is true, which lies in row `rows[place]`."""
    if wrong.any():
        place = int(np.argmax(wrong))
        raise ValueError(f"row {place if rows is None else rows[place]}: {describe(place)}")
