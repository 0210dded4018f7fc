"""Shards of token datasets: their columns and metadata, written and read. `token_datasets` describes the format.

Legend: `G` blocks per clip, `K` latents per block, `L` candidate lengths.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, Field

from adaptok.config.base import Config
from adaptok.config.choices import Fit, Scope
from adaptok.data.shard_checks import ShardChecksums, check_rows, checksum_columns, checksum_metadata
from adaptok.utils.extras import require
from adaptok.utils.files import replacing
from adaptok.utils.messages import one_line
from adaptok.video.container import MAX_FPS

if TYPE_CHECKING:
    import pyarrow as pa

KEY = "adaptok"
NOTES_KEY = "adaptok.shard"
CHECKSUMS_KEY = "adaptok.checksums"
VERSION = 1
_ROW_GROUP = 1024
_LATER_COLUMNS = {"fps", "width", "height"}  # that shards of earlier versions lack

Ids = NDArray[np.uint16]


class TokenizationSettings(Config):
    """Settings of sampling frames and choosing lengths."""

    budget: float | tuple[float, ...] | None = None
    """Tokens per clip on average, or tokens per block for each block index with the scope "batch". None keeps every
    token, unless a target is given. With official models and the scope "batch", a number of the official table stands
    for its budgets of the block indices; see `adaptok.allocation.policy.official_block_budgets`."""
    scope: Scope = "video"
    """Blocks that share the budget: all clips of a "video", each "clip", the same block of all clips in a "batch", or
    the past of a "stream", which needs consecutive clips."""
    target: float | None = None
    """Predicted distortion to reach with the fewest tokens, as an alternative to a budget."""
    uniform: bool = False
    """Distribute the budget evenly, without looking at the scores."""
    effort: int = Field(default=0, ge=0, le=3)
    """How much was computed to score blocks; 0 also where the model, the scope or the target makes no use of more. See
    `LengthPolicy`."""
    fit: Fit = "crop"
    """How frames are fitted to the model's square."""
    fps: float | None = Field(default=None, gt=0, le=MAX_FPS, validation_alias=AliasChoices("fps", "rate"))
    """Frames per second to sample videos at. None is the frame rate of each video."""


class TokenDatasetInfo(Config):
    """Properties that all clips of a dataset share: the model that encoded them, and the settings."""

    version: int = VERSION
    """Version of the format."""
    model: str
    """Name of the tokenizer."""
    model_hash: str
    """SHA-256 of the tokenizer's weights."""
    codebook_size: int = Field(ge=2, le=65536)
    """Number of codes. Ids are below it."""
    levels: tuple[int, ...] = ()
    """Levels of a scalar quantizer: the digits of an id, the fastest first. Empty for a vector quantizer."""
    latents: int = Field(ge=1, le=65535)
    """K, the maximum number of ids per block."""
    blocks: int = Field(ge=1)
    """G, the number of blocks per clip."""
    block_frames: int = Field(ge=1)
    """Frames per block."""
    size: int = Field(ge=1)
    """S, the side of the model's square in pixels."""
    length_step: int = Field(ge=1, validation_alias=AliasChoices("length_step", "step"))
    """Tokens between candidate lengths. L is K // length_step."""
    condition_frames: int = Field(default=0, ge=0)
    """Number of first frames that form the condition. 0 means no condition."""
    stride: int = Field(default=1, ge=1)
    """Frames between the starts of neighbouring clips of a video."""
    class_names: tuple[str, ...] = ()
    """Classes of the collection, numbers by value and names by character code. Empty if there are none, or in datasets
    of earlier versions."""
    settings: TokenizationSettings = TokenizationSettings()
    """Settings of the tokenization."""

    @property
    def frames(self) -> int:
        """T, the number of frames per clip."""
        return self.blocks * self.block_frames

    @property
    def condition_ids(self) -> int:
        """Number of ids of a condition: all latents of every block that its frames reach."""
        return -(-self.condition_frames // self.block_frames) * self.latents

    @property
    def first_block(self) -> int:
        """Number of blocks that lie wholly within the condition. A generator starts after them."""
        return self.condition_frames // self.block_frames


class ShardNotes(Config):
    """Properties of a single shard."""

    clips: int = Field(default=0, ge=0)
    """Number of rows."""
    tokens: int = Field(default=0, ge=0)
    """Number of ids in all rows."""
    broken: dict[str, str] = Field(default_factory=dict)
    """Reason for each source that could not be read, or only in part."""


class TokenClip(NamedTuple):
    """A row of a token dataset.

    Attributes:
        ids: uint16 `[tokens]`.
        lengths: int64 `[G]`. Their sum is the number of ids.
        scores: float32 `[G, L]` or None.
        condition: uint16 `[condition_ids]` or None.
        fps: Frames per second at which the clip was sampled, or None if unknown.
        width, height: Size of the video's frames in pixels, or None if unknown.
    """

    ids: Ids
    lengths: NDArray[np.int64]
    label: str | None
    source: str
    start: int
    scores: NDArray[np.float32] | None = None
    condition: Ids | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None


def schema(info: TokenDatasetInfo) -> pa.Schema:
    """Return the Arrow schema of every shard, with `info` in its metadata.

    Raises:
        ImportError: pyarrow is not installed.
    """
    pa = _pyarrow()
    ids = pa.list_(pa.uint16())
    fields = [
        pa.field("ids", ids, nullable=False),
        pa.field("lengths", ids, nullable=False),
        pa.field("label", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("fps", pa.float64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("scores", pa.list_(pa.float32())),
        pa.field("condition", ids),
    ]
    return pa.schema(fields, metadata={KEY: json.dumps(info.model_dump(mode="json"), sort_keys=True)})


def write_shard(path: Path, clips: Sequence[TokenClip], info: TokenDatasetInfo) -> None:
    """Write a shard atomically. Errors as for `write_rows`."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        write_rows(file, clips, info)


def write_rows(
    file: IO[bytes],
    clips: Sequence[TokenClip],
    info: TokenDatasetInfo,
    broken: Mapping[str, str] | None = None,
    plan: str | None = None,
) -> None:
    """Write a shard to an open file.

    Args:
        broken: Reason for each source that could not be read, or only in part.
        plan: Checksum of the videos that were planned for the shard.

    Raises:
        ValueError: A clip does not fit `info`.
    """
    pa = _pyarrow()
    import pyarrow.parquet as pq

    for clip in clips:
        _check(clip, info)
    notes = ShardNotes(clips=len(clips), tokens=sum(len(clip.ids) for clip in clips), broken=dict(broken or {}))
    fields = schema(info)
    metadata = {**fields.metadata, NOTES_KEY.encode(): json.dumps(notes.model_dump(), sort_keys=True).encode()}
    rows = []
    for clip in clips:
        scores = None if clip.scores is None else clip.scores.reshape(-1)
        rows.append({**clip._asdict(), "lengths": clip.lengths.astype(np.uint16), "scores": scores})
    table = pa.Table.from_pylist(rows, schema=fields)
    checksums = ShardChecksums(columns=checksum_columns(table), metadata=checksum_metadata(metadata), plan=plan)
    table = table.replace_schema_metadata({**metadata, CHECKSUMS_KEY: checksums.model_dump_json()})
    pq.write_table(table, file, row_group_size=_ROW_GROUP, compression="zstd", write_page_checksum=True)


def _check(clip: TokenClip, info: TokenDatasetInfo) -> None:
    if clip.lengths.shape != (info.blocks,) or clip.lengths.max() > info.latents or clip.lengths.min() < 0:
        raise ValueError(f"lengths {clip.lengths.tolist()}, expected {info.blocks} of 0 to {info.latents}")
    if clip.ids.shape != (int(clip.lengths.sum()),):
        raise ValueError(f"ids of shape {clip.ids.shape}, expected ({int(clip.lengths.sum())},), the sum of lengths")
    for ids in (clip.ids, clip.condition):
        if ids is not None and len(ids) and int(ids.max()) >= info.codebook_size:
            raise ValueError(f"id {int(ids.max())}, expected an id below the codebook size {info.codebook_size}")
    count = 0 if clip.condition is None else len(clip.condition)
    if count != info.condition_ids:
        raise ValueError(f"condition of {count} ids, expected {info.condition_ids}")


def read_notes(path: Path) -> ShardNotes:
    """Read the notes of a shard from its metadata, without its rows. Errors as for `read_info`."""
    return ShardNotes.parse(_read_entry(path, NOTES_KEY) or {}, str(path))


def read_checksums(path: Path) -> ShardChecksums | None:
    """Read the checksums of a shard, or None if it was written by an earlier version. Errors as for `read_info`."""
    document = _read_entry(path, CHECKSUMS_KEY)
    return None if document is None else ShardChecksums.parse(document, str(path))


def read_info(path: Path) -> TokenDatasetInfo:
    """Read the dataset properties of a shard from its metadata, without its rows.

    Raises:
        ValueError: The file is not a shard of a token dataset, or its format version is not supported.
    """
    document = _read_entry(path, KEY)
    if document is None:
        raise ValueError(
            f"{path}: a Parquet file, but not of a token dataset; expected an output of 'adaptok tokenize'"
        )
    if document.get("version") != VERSION:
        version = one_line(repr(document.get("version")))
        raise ValueError(f"{path}: token dataset of version {version}, expected version {VERSION}")
    return TokenDatasetInfo.parse(document, str(path))


def _read_entry(path: Path, key: str) -> dict[str, Any] | None:
    """Read an entry of the metadata of a shard. None if there is no such entry."""
    text = _read_metadata(path).get(key.encode())
    try:
        document = None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged(path, f"its metadata {key} are not JSON") from None
    if text is not None and not isinstance(document, dict):
        raise _damaged(path, f"its metadata {key} are no mapping")
    return document


def _read_metadata(path: Path) -> Mapping[bytes, bytes]:
    pa = _pyarrow()
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError):
        raise ValueError(f"{path}: not a Parquet file, or damaged; tokenize again") from None


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path}: damaged, {reason}; remove the file and repeat 'adaptok tokenize' to write it again")


def read_columns(path: Path, info: TokenDatasetInfo, fields: Sequence[pa.Field]) -> pa.Table:
    """Read columns of a shard. Those that earlier versions did not write hold nulls.

    Raises:
        ValueError: The columns are damaged, or do not fit `info`.
    """
    pa = _pyarrow()
    import pyarrow.parquet as pq

    metadata, notes, checksums = _read_metadata(path), read_notes(path), read_checksums(path)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            missing = [field for field in fields if field.name not in file.schema_arrow.names]
            if missing and (checksums is not None or not {field.name for field in missing} <= _LATER_COLUMNS):
                raise ValueError(f"there is no column {missing[0].name}")
            if NOTES_KEY.encode() in metadata and file.metadata.num_rows != notes.clips:
                raise ValueError(f"it has {file.metadata.num_rows} rows, expected {notes.clips}")
            present = [field for field in fields if field not in missing]
            table = file.read([field.name for field in present]).select([field.name for field in present])
        table.validate(full=True)
        for field in present:
            if table.schema.field(field.name).type != field.type:
                raise ValueError(f"{field.name} of type {table.schema.field(field.name).type}, expected {field.type}")
        if checksums is not None:
            covered = {key: value for key, value in metadata.items() if key in (KEY.encode(), NOTES_KEY.encode())}
            found = checksum_columns(table)
            wrong = [name for name, value in found.items() if checksums.columns.get(name) != value]
            if wrong or checksum_metadata(covered) != checksums.metadata:
                raise ValueError(f"the checksum of {wrong[0] if wrong else 'its metadata'} differs")
        for field in missing:
            table = table.append_column(field, pa.nulls(len(table), field.type))
        table = table.select([field.name for field in fields])
        check_rows(table, info)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise _damaged(path, " ".join(str(error).split())) from None
    return table.replace_schema_metadata(None)


def _pyarrow() -> Any:
    require("pyarrow", extra="train", purpose="a token dataset")
    import pyarrow

    return pyarrow
