"""Plans of the tokenizer, and the order of rows that they describe.

Legend: `B` clips, `G` blocks of a full clip, `g` blocks of a call, `P` patches and `K` latents of a block, `D` width,
`N` rows of a transformer call.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adaptok.models.transformer import Plan
from adaptok.ops.block_causal_attention import Segment


def encoder_plan(blocks: int, patches: int, latents: int, past_rows: int = 0) -> Plan:
    """Plan the rows [patches_0, latents_0, patches_1, …], of which the latents leave the last layer.

    Args:
        past_rows: number of rows of earlier blocks in the cache.
    """
    group = patches + latents
    segments, output_segments, outputs = [], [], []
    for i in range(blocks):
        keys = (slice(0, past_rows + (i + 1) * group),)
        segments.append(Segment(slice(i * group, (i + 1) * group), keys))
        output_segments.append(Segment(slice(i * latents, (i + 1) * latents), keys))
        outputs.append(slice(i * group + patches, (i + 1) * group))
    return Plan(tuple(segments), tuple(outputs), tuple(output_segments))


def decoder_plan(lengths: Sequence[Sequence[int]], patches: int, past_rows: int = 0) -> Plan:
    """Plan the rows, clip after clip: kept latents of all blocks, then patches of all blocks, which leave the last
    layer.

    Args:
        lengths: of each clip and block.
        patches: P, or 0 if there are only latents.
        past_rows: number of kept latents of earlier blocks in the cache, with one clip only.
    """
    assert past_rows == 0 or len(lengths) == 1
    segments, output_segments, outputs = [], [], []
    row, output = 0, 0
    for clip in lengths:
        start = row
        ends = []
        for length in clip:
            if length:
                segments.append(Segment(slice(row, row + length), (slice(start, past_rows + row + length),)))
            row += length
            ends.append(row)
        first_patch = row
        for end in ends if patches else ():
            own = slice(past_rows + row, past_rows + row + patches)
            seen = slice(start, past_rows + end)
            keys = (slice(start, own.stop),) if seen.stop == own.start else (seen, own)
            segments.append(Segment(slice(row, row + patches), keys))
            output_segments.append(Segment(slice(output, output + patches), keys))
            row, output = row + patches, output + patches
        outputs.append(slice(first_patch, row))
    return Plan(tuple(segments), tuple(outputs), tuple(output_segments))


def candidate_plan(
    earlier: Sequence[Sequence[int]], candidates: Sequence[int], patches: int, past_rows: int = 0
) -> Plan:
    """Plan the rows, clip after clip: kept latents of earlier blocks; then, for each candidate length of the next
    block, its latents and its patches, which leave the last layer. Candidates do not see each other.

    Args:
        earlier: lengths of the earlier blocks of each clip that are not in the cache.
        candidates: lengths of the next block, at least 1.
        patches: P.
        past_rows: number of kept latents of earlier blocks in the cache, with one clip only.
    """
    assert past_rows == 0 or len(earlier) == 1
    segments, output_segments, outputs = [], [], []
    row, output, new = past_rows, 0, 0  # `new` counts the rows of this call
    for clip in earlier:
        start = row - past_rows
        for length in clip:
            if length:
                segments.append(Segment(slice(new, new + length), (slice(start, row + length),)))
            row, new = row + length, new + length
        past = (slice(start, row),) if row > start else ()
        for length in candidates:
            latents, own = slice(new, new + length), slice(new + length, new + length + patches)
            rows = length + patches
            segments.append(Segment(latents, (*past, slice(row, row + length))))
            segments.append(Segment(own, (*past, slice(row, row + rows))))
            output_segments.append(Segment(slice(output, output + patches), segments[-1].keys))
            outputs.append(own)
            row, new, output = row + rows, new + rows, output + patches
    return Plan(tuple(segments), tuple(outputs), tuple(output_segments))


def probe_plan(lengths: Sequence[int], probes: Sequence[tuple[int, int]], patches: int) -> Plan:
    """Plan the rows of one clip as `decoder_plan` does; then, for each probe, the latents of its block and of later
    ones, and the patches of these blocks. All patches leave the last layer. Probes see the latents of the clip before
    their block, and not each other.

    Args:
        lengths: of each block.
        probes: blocks, and other lengths of them.
        patches: P.
    """
    base = decoder_plan([lengths], patches)
    segments, outputs, output_segments = list(base.segments), list(base.outputs or ()), list(base.output_segments)
    row, output = segments[-1].queries.stop, output_segments[-1].queries.stop
    for block, length in probes:
        past, start, ends = slice(0, sum(lengths[:block])), row, []
        for kept in (length, *lengths[block + 1 :]):
            if kept:
                segments.append(Segment(slice(row, row + kept), (past, slice(start, row + kept))))
            row += kept
            ends.append(row)
        outputs.append(slice(row, row + len(ends) * patches))
        for end in ends:
            own = slice(row, row + patches)
            keys = (past, slice(start, end), own)
            segments.append(Segment(own, keys))
            output_segments.append(Segment(slice(output, output + patches), keys))
            row, output = row + patches, output + patches
    return Plan(tuple(segments), tuple(outputs), tuple(output_segments))


def probe_index(lengths: Sequence[int], probes: Sequence[tuple[int, int]], latents: int, patches: int) -> Tensor:
    """Index of the rows of `probe_plan` among all latents of the clip, followed by its patch queries."""
    blocks = len(lengths)
    pieces = []
    for first, changed in ((0, lengths), *((block, (length, *lengths[block + 1 :])) for block, length in probes)):
        pieces += [torch.arange(n) + (first + i) * latents for i, n in enumerate(changed)]
        pieces.append(torch.arange(first * patches, blocks * patches) + blocks * latents)
    return torch.cat(pieces)


def candidate_index(earlier: Sequence[Sequence[int]], candidates: Sequence[int], latents: int, patches: int) -> Tensor:
    """Index of the rows of `candidate_plan` among all latents of all clips, followed by the patch queries of a
    block."""
    blocks = len(earlier[0]) + 1
    queries = torch.arange(patches) + len(earlier) * blocks * latents
    pieces = []
    for n, clip in enumerate(earlier):
        starts = [(n * blocks + i) * latents for i in range(blocks)]
        pieces += [torch.arange(start, start + length) for start, length in zip(starts, clip, strict=False)]
        for length in candidates:
            pieces += [torch.arange(starts[-1], starts[-1] + length), queries]
    return torch.cat(pieces)


def kept_mask(lengths: Sequence[Sequence[int]] | Tensor, latents: int, device: torch.device) -> Tensor:
    """Convert lengths `[B, g]` to a bool mask `[B, g, K]` of the latents that are kept."""
    return torch.arange(latents, device=device) < torch.as_tensor(lengths, device=device)[..., None]


def _decoder_index(lengths: Sequence[Sequence[int]], latents: int, patches: int) -> Tensor:
    """Index of the rows of `decoder_plan` among all latents of all clips, followed by the patch queries of one clip."""
    blocks = len(lengths[0])
    queries = torch.arange(patches) + len(lengths) * blocks * latents
    kept = kept_mask(lengths, latents, queries.device).flatten(1)
    rows = [mask.nonzero()[:, 0] + n * blocks * latents for n, mask in enumerate(kept)]
    return torch.cat([piece for own in rows for piece in (own, queries)])


def kept_rows(latents: Tensor, lengths: Sequence[int]) -> Tensor:
    """Select the kept latents `[B, N, ...]` of `[B, g, K, ...]`, with the same lengths in each clip."""
    return torch.cat([latents[:, i, :length] for i, length in enumerate(lengths)], 1)


def decoder_rows(latents: Tensor, queries: Tensor, lengths: Sequence[Sequence[int]]) -> Tensor:
    """Order latents `[B, g, K, D]` and patch queries `[g * P, D]` as in `decoder_plan`.

    Returns:
        `[B, N, D]` if all clips have the same lengths, given once; else `[1, N, D]`, clip after clip.
    """
    if len(lengths) == 1:
        return torch.cat([kept_rows(latents, lengths[0]), queries.expand(len(latents), -1, -1)], 1)
    pool = torch.cat([latents.flatten(0, 2), queries])
    return pool.index_select(0, _decoder_index(lengths, latents.shape[2], len(queries)).to(pool.device))[None]
