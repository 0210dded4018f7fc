"""Clips as the rows that a generator reads and writes: the kept ids of each block, and an end-of-block mark after them.

Legend: `g` blocks that are written, `K` latents of a block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]


def write_row(ids: ArrayLike, lengths: ArrayLike, end: int) -> Ints:
    """The row `[sum of lengths + g]` of a clip.

    Args:
        ids: `[sum of lengths]`, the kept ids of its blocks, one after the other.
        lengths: `[g]`.
        end: the mark.
    """
    kept, counts = np.asarray(ids, dtype=np.int64), np.asarray(lengths, dtype=np.int64)
    return np.insert(kept, counts.cumsum(), end)


def read_row(row: Sequence[int], blocks: int, latents: int, end: int) -> tuple[Ints, Ints]:
    """Ids `[g, K]`, 0 where there is none, and lengths `[g]` of a row; blocks that it does not reach are empty.

    Raises:
        ValueError: a block has more than K ids, or there are more than g marks.
    """
    entries = np.asarray(row, dtype=np.int64)
    marks = np.flatnonzero(entries == end)
    parts = np.split(entries, marks + 1)  # each but the last ends with its mark
    blocks_of_ids = [part[:-1] for part in parts[:-1]] + ([parts[-1]] if len(parts[-1]) else [])
    ids, lengths = np.zeros((blocks, latents), np.int64), np.zeros(blocks, np.int64)
    if len(blocks_of_ids) > blocks or max(map(len, blocks_of_ids), default=0) > latents:
        raise ValueError(f"a row of {len(blocks_of_ids)} blocks, expected {blocks} or fewer of up to {latents} ids")
    for index, part in enumerate(blocks_of_ids):
        ids[index, : len(part)], lengths[index] = part, len(part)
    return ids, lengths
