"""Token datasets: clips as ids and lengths, in Parquet shards that any reader of Parquet opens.

A dataset is a folder of `*.parquet` files, or several. A row is a clip:

| column | type | holds |
| --- | --- | --- |
| ids | list of uint16 | kept ids of all blocks, one after the other |
| lengths | list of uint16 | how many each of the G blocks keeps |
| label | string or null | its class |
| source | string | the file that it is of, relative to the collection where it lies in one |
| start | int64 | its first frame in the video, as sampled |
| scores | list of float32 or null | predicted distortions `[G, L]`, row after row |
| condition | list of uint16 or null | ids of its first frames alone, all kept: the condition of frame prediction |

The schema's metadata has an entry `adaptok`: the fields of `TokenDatasetInfo` as JSON. Shards of one dataset have the
same. A second one, `adaptok.shard`, has the fields of `ShardNotes`, each shard's own; it may be missing.
So `datasets.load_dataset("parquet", data_files=...)`, pandas and DuckDB read it as it is.

Legend: `B` clips, `G` blocks of a clip, `K` latents of a block, `L` candidate lengths.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from adaptok.config.model import Config
from adaptok.utils.files import replacing

if TYPE_CHECKING:
    import pyarrow as pa

KEY = "adaptok"
NOTES_KEY = "adaptok.shard"
VERSION = 1
_ROW_GROUP = 1024
_INSTALL = "a token dataset needs pyarrow; install it with: pip install 'adaptok[train]'"

Ids = NDArray[np.uint16]


class TokenDatasetInfo(Config):
    """What all clips of a dataset share: the model that wrote them, and how."""

    version: int = VERSION
    """Of this layout."""
    model: str
    """Name of the tokenizer."""
    model_hash: str
    """SHA-256 of its weights."""
    codebook_size: int = Field(ge=2, le=65536)
    """Ids are below it."""
    levels: tuple[int, ...] = ()
    """Of a scalar quantizer: an id's digits, the first the fastest; none for a codebook of vectors."""
    latents: int = Field(ge=1, le=65535)
    """K, most ids of a block."""
    blocks: int = Field(ge=1)
    """G, blocks of a clip."""
    block_frames: int = Field(ge=1)
    """Frames of a block."""
    size: int = Field(ge=1)
    """S, pixels of a side of the model's square."""
    step: int = Field(ge=1)
    """Tokens between candidate lengths: L is K // step."""
    condition_frames: int = Field(default=0, ge=0)
    """First frames that the condition is made of; 0 where there is none."""
    stride: int = Field(default=1, ge=1)
    """Frames between the starts of neighbouring clips of a video."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """How lengths were chosen and frames sampled: scope, budget, target, uniform, fit, rate."""

    @property
    def frames(self) -> int:
        """T, frames of a clip."""
        return self.blocks * self.block_frames

    @property
    def condition_ids(self) -> int:
        """Ids of a condition: all latents of every block that its frames reach into."""
        return -(-self.condition_frames // self.block_frames) * self.latents

    @property
    def first_block(self) -> int:
        """Blocks that the condition holds whole: a generator starts after them."""
        return self.condition_frames // self.block_frames


class ShardNotes(Config):
    """What a shard says of itself alone."""

    clips: int = Field(default=0, ge=0)
    """Its rows."""
    tokens: int = Field(default=0, ge=0)
    """Ids in them."""
    broken: dict[str, str] = Field(default_factory=dict)
    """Sources that could not be read, or only in part, with the reason."""


class TokenClip(NamedTuple):
    """A row.

    ids: uint16 `[tokens]`; lengths: int64 `[G]`, their sum is the number of ids.
    scores: float32 `[G, L]` or None; condition: uint16 `[condition_ids]` or None.
    """

    ids: Ids
    lengths: NDArray[np.int64]
    label: str | None
    source: str
    start: int
    scores: NDArray[np.float32] | None = None
    condition: Ids | None = None


def schema(info: TokenDatasetInfo) -> pa.Schema:
    """Of every shard."""
    pa = _pyarrow()
    ids = pa.list_(pa.uint16())
    fields = [
        pa.field("ids", ids, nullable=False),
        pa.field("lengths", ids, nullable=False),
        pa.field("label", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("scores", pa.list_(pa.float32())),
        pa.field("condition", ids),
    ]
    return pa.schema(fields, metadata={KEY: json.dumps(info.model_dump(mode="json"), sort_keys=True)})


def write_shard(path: Path, clips: Sequence[TokenClip], info: TokenDatasetInfo) -> None:
    """Write a shard, beside its place first and then renamed.

    Raises:
        ValueError: a clip does not fit `info`.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        write_rows(file, clips, info)


def write_rows(
    file: IO[bytes], clips: Sequence[TokenClip], info: TokenDatasetInfo, broken: Mapping[str, str] | None = None
) -> None:
    """Write a shard into an open file.

    Args:
        broken: sources that could not be read, or only in part, with the reason.

    Raises:
        ValueError: a clip does not fit `info`.
    """
    pa = _pyarrow()
    import pyarrow.parquet as pq

    for clip in clips:
        _check(clip, info)
    notes = ShardNotes(clips=len(clips), tokens=sum(len(clip.ids) for clip in clips), broken=dict(broken or {}))
    kind = schema(info)
    kind = kind.with_metadata({**kind.metadata, NOTES_KEY: json.dumps(notes.model_dump(), sort_keys=True)})
    left = iter(clips)
    with pq.ParquetWriter(file, kind, compression="zstd") as writer:
        while group := list(islice(left, _ROW_GROUP)):
            columns = _columns(group)
            writer.write_table(pa.table([pa.array(columns[field.name], field.type) for field in kind], schema=kind))


def _columns(clips: Iterable[TokenClip]) -> dict[str, list[Any]]:
    return {
        "ids": [clip.ids for clip in clips],
        "lengths": [clip.lengths.astype(np.uint16) for clip in clips],
        "label": [clip.label for clip in clips],
        "source": [clip.source for clip in clips],
        "start": [clip.start for clip in clips],
        "scores": [None if clip.scores is None else clip.scores.reshape(-1) for clip in clips],
        "condition": [clip.condition for clip in clips],
    }


def _check(clip: TokenClip, info: TokenDatasetInfo) -> None:
    if clip.lengths.shape != (info.blocks,) or clip.lengths.max() > info.latents or clip.lengths.min() < 0:
        raise ValueError(f"lengths {clip.lengths.tolist()}, expected {info.blocks} of 0 to {info.latents}")
    if clip.ids.shape != (int(clip.lengths.sum()),):
        raise ValueError(f"ids of shape {clip.ids.shape}, expected ({int(clip.lengths.sum())},), the sum of lengths")
    for ids in (clip.ids, clip.condition):
        if ids is not None and len(ids) and int(ids.max()) >= info.codebook_size:
            raise ValueError(f"id {int(ids.max())}, expected less than the codebook's {info.codebook_size}")
    found = 0 if clip.condition is None else len(clip.condition)
    if found != info.condition_ids:
        raise ValueError(f"{found} ids of the condition, expected {info.condition_ids}")


@dataclass(frozen=True)
class TokenDataset:
    """Clips of some shards, held in memory as Arrow tables: some two bytes for an id.

    Attributes:
        info: what all shards share.
        table: of all rows, with the columns `ids`, `lengths`, `label`, `condition`, `source` and `start`.
    """

    info: TokenDatasetInfo
    table: pa.Table

    @classmethod
    def open(cls, paths: str | Path | Sequence[str | Path]) -> TokenDataset:
        """Read the shards in some folders, or files.

        Raises:
            FileNotFoundError: there is no such folder or file, or no shard in it.
            ValueError: a file is no shard, shards are of different models or settings, or there is no clip in them.
        """
        pa = _pyarrow()
        import pyarrow.parquet as pq

        shards = list(_shards([paths] if isinstance(paths, str | Path) else paths))
        info = read_info(shards[0])
        parts = []
        for shard in shards:
            other = read_info(shard)
            if other != info:
                raise ValueError(f"{shard}: {_difference(other, info)} than {shards[0]}; train on one of them")
            columns = ["ids", "lengths", "label", "condition", "source", "start"]
            parts.append(pq.read_table(shard, columns=columns))
        table = pa.concat_tables(parts).combine_chunks()
        if len(table) == 0:
            raise ValueError(f"{shards[0].parent}: an empty token dataset, expected a clip or more; tokenize again")
        return cls(info, table)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> TokenClip:
        """Row `index` in [0, len), without its scores."""
        row = {name: self.table[name][index] for name in self.table.column_names}
        condition = row["condition"]
        return TokenClip(
            _array(row["ids"]),
            _array(row["lengths"]).astype(np.int64),
            row["label"].as_py(),
            row["source"].as_py(),
            row["start"].as_py(),
            condition=_array(condition) if condition.is_valid else None,
        )

    def __iter__(self) -> Iterator[TokenClip]:
        return (self[index] for index in range(len(self)))

    def counts(self) -> NDArray[np.int64]:
        """Ids of each clip `[B]`."""
        import pyarrow.compute as pc

        counted: NDArray[np.int64] = pc.list_value_length(self.table["ids"]).to_numpy().astype(np.int64)
        return counted

    def labels(self) -> list[str]:
        """Classes that occur, in the order of their names, numbers by value."""
        found = [label for label in self.table["label"].unique().to_pylist() if label is not None]
        return sorted(found, key=lambda label: (not label.isdecimal(), int(label) if label.isdecimal() else 0, label))


def read_notes(path: Path) -> ShardNotes:
    """What a shard says of itself alone, read without its rows.

    Raises:
        ValueError: it is no shard of a token dataset.
    """
    return ShardNotes.parse(json.loads(_metadata(path).get(NOTES_KEY.encode(), b"{}")), str(path))


def _metadata(path: Path) -> Mapping[bytes, bytes]:
    pa = _pyarrow()
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, OSError):
        raise ValueError(f"{path}: not a Parquet file, or damaged; tokenize again") from None


def read_info(path: Path) -> TokenDatasetInfo:
    """What a shard says of its dataset.

    Raises:
        ValueError: it is no shard of a token dataset, or of another version.
    """
    metadata = _metadata(path)
    try:
        document = json.loads(metadata[KEY.encode()])
    except (KeyError, ValueError):
        raise ValueError(f"{path}: Parquet, but no token dataset; expected what 'adaptok tokenize' wrote") from None
    if document.get("version") != VERSION:
        raise ValueError(f"{path}: version {document.get('version')!r} of the layout, this program reads {VERSION}")
    return TokenDatasetInfo.parse(document, str(path))


def _shards(paths: Sequence[str | Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such token dataset; expected a folder that 'adaptok tokenize' wrote")
        found = [path]
        if path.is_dir():
            found = sorted(file for file in path.glob("*.parquet") if not file.name.startswith("."))
        if not found:
            raise FileNotFoundError(f"{path}: no shard (*.parquet) in it; expected what 'adaptok tokenize' wrote")
        yield from found


def _difference(one: TokenDatasetInfo, other: TokenDatasetInfo) -> str:
    """The first field that differs, in words."""
    a, b = one.model_dump(), other.model_dump()
    name = next(name for name in a if a[name] != b[name])
    return f"another {name} ({a[name]!r}, not {b[name]!r})"


def _array(scalar: Any) -> NDArray[np.uint16]:
    values: NDArray[np.uint16] = scalar.values.to_numpy()
    return values


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise ImportError(_INSTALL) from None
    return pyarrow
