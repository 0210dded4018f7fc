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

The schema metadata has three entries in JSON. `adaptok` holds the fields of `TokenDatasetInfo`, the same in all shards
of a dataset. `adaptok.shard` holds the fields of `ShardNotes`, and `adaptok.checksums` those of `ShardChecksums`; both
are optional. Shards of earlier versions lack the checksums, and the columns fps, width and height. Readers that ignore
the metadata, such as `datasets.load_dataset("parquet", data_files=...)`, pandas and DuckDB, see plain columns.

Legend: `B` clips, `G` blocks per clip, `K` latents per block, `L` candidate lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adaptok.data.token_shards import TokenClip as TokenClip
from adaptok.data.token_shards import TokenDatasetInfo as TokenDatasetInfo
from adaptok.data.token_shards import read_columns, schema
from adaptok.data.token_shards import read_info as read_info
from adaptok.data.token_shards import read_notes as read_notes
from adaptok.data.token_shards import write_shard as write_shard
from adaptok.utils.extras import require

if TYPE_CHECKING:
    import pyarrow as pa

PLAN_FILE = "plan.json"
"""Name of the plan in folders that `adaptok tokenize` writes, where no clip occurs twice."""


def sorted_labels(labels: Iterable[str | None]) -> list[str]:
    """Return the different labels. Numbers come first and are sorted by value, names by character code."""
    unique = {label for label in labels if label is not None}
    return sorted(unique, key=lambda label: (not label.isdecimal(), int(label) if label.isdecimal() else 0, label))


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
            ValueError: A file is not a shard or damaged, shards have different models or settings, a clip occurs twice
                in the output of `adaptok tokenize`, or there are no clips.
        """
        require("pyarrow", extra="train", purpose="a token dataset")
        import pyarrow as pa

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
            tables.append(read_columns(shard, other, columns))
        _check_duplicates(shards, tables)
        try:
            table = pa.concat_tables(tables).combine_chunks()
        except pa.ArrowInvalid:
            raise ValueError(
                f"{shards[0].parent}: shards with columns of different types; tokenize the collection again"
            ) from None
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


def _check_duplicates(shards: Sequence[Path], tables: Sequence[pa.Table]) -> None:
    """Raise a ValueError if shards of one output of `adaptok tokenize` hold the same clip."""
    seen: dict[tuple[Path, str], Path] = {}
    for shard, table in zip(shards, tables, strict=True):
        if (shard.parent / PLAN_FILE).exists():
            for source in table["source"].unique().to_pylist():
                other = seen.setdefault((shard.parent, source), shard)
                if other is not shard:
                    raise ValueError(
                        f"{shard}: has clips of {source}, as {other.name} has; remove the shard that does not belong"
                        " there, and repeat 'adaptok tokenize'"
                    )


def _iter_shards(paths: Sequence[str | Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such token dataset; expected a folder written by 'adaptok tokenize'")
        shards = sorted(path.glob("[!.]*.parquet")) if path.is_dir() else [path]
        if not shards:
            raise FileNotFoundError(f"{path}: contains no shard (*.parquet); expected an output of 'adaptok tokenize'")
        yield from shards
