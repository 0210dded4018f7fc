"""Sequences that a generator reads and writes: the kept ids of each block, each block closed by an end-of-block token.

Legend: `g` blocks of a sequence, `n` entries (ids and end-of-block tokens), `K` maximum number of ids of a block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]


def join_blocks(ids: ArrayLike, lengths: ArrayLike, eob: int) -> Ints:
    """Build the sequence `[n]` of a clip.

    Args:
        ids: kept ids of all blocks, one block after the other.
        lengths: number of kept ids of each block `[g]`.
        eob: end-of-block token.
    """
    return np.insert(np.asarray(ids, dtype=np.int64), np.asarray(lengths, dtype=np.int64).cumsum(), eob)


def split_blocks(sequence: Sequence[int], blocks: int, latents: int, eob: int) -> tuple[Ints, Ints]:
    """Split a sequence into its blocks. Blocks that it does not reach are empty.

    Args:
        sequence: entries `[n]`.
        blocks: g.
        latents: K.
        eob: end-of-block token.

    Returns:
        ids `[g, K]`, filled up with 0, and lengths `[g]`.

    Raises:
        ValueError: the sequence has more than g blocks, or a block more than K ids.
    """
    entries = np.asarray(sequence, dtype=np.int64)
    pieces = np.split(entries, np.flatnonzero(entries == eob) + 1)  # each but the last ends with the token
    blocks_of_ids = [piece[:-1] for piece in pieces[:-1]] + ([pieces[-1]] if len(pieces[-1]) else [])
    longest = max(map(len, blocks_of_ids), default=0)
    if len(blocks_of_ids) > blocks or longest > latents:
        raise ValueError(
            f"sequence of {len(blocks_of_ids)} blocks of up to {longest} ids, expected at most {blocks} blocks of"
            f" {latents} ids"
        )
    ids, lengths = np.zeros((blocks, latents), np.int64), np.zeros(blocks, np.int64)
    for index, own in enumerate(blocks_of_ids):
        ids[index, : len(own)], lengths[index] = own, len(own)
    return ids, lengths
