"""Token datasets: clips as token ids and lengths, in Parquet shards that any Parquet reader can open.

A dataset is one or more `*.parquet` files, usually in one folder. Each row is a clip:

| column | type | content |
| --- | --- | --- |
| ids | list of uint16 | kept ids of all blocks, concatenated |
| lengths | list of uint16 | number of kept ids in each of the G blocks |
| label | string or null | class of the clip |
| source | string | video file, relative to the root of the collection if it lies in it |
| start | int64 | index of the clip's first frame in the sampled video |
| fps | float64 or null | frames per second at which the clip was sampled |
| width, height | int32 or null | size of the video's frames in pixels, before they were fitted to the square |
| scores | list of float32 or null | predicted distortions `[G, L]`, row by row |
| condition | list of uint16 or null | all ids of the first frames encoded alone, the condition of frame prediction |

The schema metadata has two entries in JSON. `adaptok` holds the fields of `TokenDatasetInfo`, the same in all shards of
a dataset. `adaptok.shard` holds the fields of `ShardNotes` and is optional. Shards of earlier versions lack the columns
fps, width and height. Readers that ignore the metadata, such as `datasets.load_dataset("parquet", data_files=...)`,
pandas and DuckDB, see plain columns.

Legend: `B` clips, `G` blocks per clip, `K` latents per block, `L` candidate lengths.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, Field

from adaptok.config.base import Config
from adaptok.config.choices import Fit, Scope
from adaptok.utils.extras import require
from adaptok.utils.files import replacing
from adaptok.video.container import MAX_FPS

if TYPE_CHECKING:
    import pyarrow as pa

KEY = "adaptok"
NOTES_KEY = "adaptok.shard"
VERSION = 1
_ROW_GROUP = 1024

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


def sorted_labels(labels: Iterable[str | None]) -> list[str]:
    """Return the different labels. Numbers come first and are sorted by value, names by character code."""
    unique = {label for label in labels if label is not None}
    return sorted(unique, key=lambda label: (not label.isdecimal(), int(label) if label.isdecimal() else 0, label))


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
    file: IO[bytes], clips: Sequence[TokenClip], info: TokenDatasetInfo, broken: Mapping[str, str] | None = None
) -> None:
    """Write a shard to an open file.

    Args:
        broken: Reason for each source that could not be read, or only in part.

    Raises:
        ValueError: A clip does not fit `info`.
    """
    pa = _pyarrow()
    import pyarrow.parquet as pq

    for clip in clips:
        _check(clip, info)
    notes = ShardNotes(clips=len(clips), tokens=sum(len(clip.ids) for clip in clips), broken=dict(broken or {}))
    fields = schema(info)
    fields = fields.with_metadata({**fields.metadata, NOTES_KEY: json.dumps(notes.model_dump(), sort_keys=True)})
    rows = []
    for clip in clips:
        scores = None if clip.scores is None else clip.scores.reshape(-1)
        rows.append({**clip._asdict(), "lengths": clip.lengths.astype(np.uint16), "scores": scores})
    table = pa.Table.from_pylist(rows, schema=fields)
    pq.write_table(table, file, row_group_size=_ROW_GROUP, compression="zstd")


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


@dataclass(frozen=True)
class TokenDataset:
    """Clips of one or more shards, held in memory as an Arrow table. An id takes two bytes.

    Attributes:
        info: Properties that all shards share.
        table: All rows, with all columns, or all but `scores`. Columns that the shards lack hold nulls.
    """

    info: TokenDatasetInfo
    table: pa.Table

    @classmethod
    def open(cls, paths: str | Path | Sequence[str | Path], *, scores: bool = False) -> TokenDataset:
        """Read shards.

        Args:
            paths: Folders of shards, or shard files.
            scores: Whether to read the scores, which take more memory than the ids.

        Raises:
            FileNotFoundError: A folder or file does not exist, or a folder has no shard.
            ValueError: A file is not a shard, shards have different models or settings, or there are no clips.
        """
        pa = _pyarrow()
        import pyarrow.parquet as pq

        shards = list(_iter_shards([paths] if isinstance(paths, str | Path) else paths))
        infos = [read_info(shard) for shard in shards]
        names = sorted_labels(name for info in infos for name in info.class_names)
        info = infos[0].model_copy(update={"class_names": tuple(names)})
        columns = [field for field in schema(info) if scores or field.name != "scores"]
        tables = []
        for shard, other in zip(shards, infos, strict=True):
            if difference := other.first_difference(info, ("class_names",)):
                name, value, first = difference
                raise ValueError(
                    f"{shard}: another {name} ({value!r}, not {first!r}) than {shards[0]}; train on one of them"
                )
            present = set(pq.read_schema(shard).names)
            table = pq.read_table(shard, columns=[field.name for field in columns if field.name in present])
            for field in columns:
                if field.name not in present:  # a shard of an earlier version
                    table = table.append_column(field, pa.nulls(len(table), field.type))
            tables.append(table.select([field.name for field in columns]))
        table = pa.concat_tables(tables).combine_chunks()
        if len(table) == 0:
            raise ValueError(f"{shards[0].parent}: an empty token dataset, expected at least one clip")
        return cls(info, table)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> TokenClip:
        """Return row `index` in [0, len), with its scores if they were read."""
        row = {name: self.table[name][index] for name in self.table.column_names}
        return TokenClip(
            row["ids"].values.to_numpy(),
            row["lengths"].values.to_numpy().astype(np.int64),
            row["label"].as_py(),
            row["source"].as_py(),
            row["start"].as_py(),
            self._scores(index),
            condition=row["condition"].values.to_numpy() if row["condition"].is_valid else None,
            fps=row["fps"].as_py(),
            width=row["width"].as_py(),
            height=row["height"].as_py(),
        )

    def _scores(self, index: int) -> NDArray[np.float32] | None:
        """Return the scores `[G, L]` of a row, if there are any."""
        if "scores" not in self.table.column_names or not (value := self.table["scores"][index]).is_valid:
            return None
        scores: NDArray[np.float32] = value.values.to_numpy().reshape(self.info.blocks, -1)
        return scores

    def __iter__(self) -> Iterator[TokenClip]:
        return (self[index] for index in range(len(self)))

    def labels(self) -> list[str]:
        """Return the classes of the collection and all labels that occur, in the order of `sorted_labels`."""
        return sorted_labels([*self.info.class_names, *self.table["label"].unique().to_pylist()])


def read_notes(path: Path) -> ShardNotes:
    """Read the notes of a shard from its metadata, without its rows. Errors as for `read_info`."""
    return ShardNotes.parse(json.loads(_read_metadata(path).get(NOTES_KEY.encode(), b"{}")), str(path))


def read_info(path: Path) -> TokenDatasetInfo:
    """Read the dataset properties of a shard from its metadata, without its rows.

    Raises:
        ValueError: The file is not a shard of a token dataset, or its format version is not supported.
    """
    metadata = _read_metadata(path)
    try:
        document = json.loads(metadata[KEY.encode()])
    except (KeyError, ValueError):
        raise ValueError(
            f"{path}: a Parquet file, but not of a token dataset; expected an output of 'adaptok tokenize'"
        ) from None
    if document.get("version") != VERSION:
        raise ValueError(f"{path}: token dataset of version {document.get('version')!r}, expected version {VERSION}")
    return TokenDatasetInfo.parse(document, str(path))


def _read_metadata(path: Path) -> Mapping[bytes, bytes]:
    pa = _pyarrow()
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, OSError):
        raise ValueError(f"{path}: not a Parquet file, or damaged; tokenize again") from None


def _iter_shards(paths: Sequence[str | Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such token dataset; expected a folder written by 'adaptok tokenize'")
        shards = sorted(path.glob("[!.]*.parquet")) if path.is_dir() else [path]
        if not shards:
            raise FileNotFoundError(f"{path}: contains no shard (*.parquet); expected an output of 'adaptok tokenize'")
        yield from shards


def _pyarrow() -> Any:
    require("pyarrow", extra="train", purpose="a token dataset")
    import pyarrow

    return pyarrow
