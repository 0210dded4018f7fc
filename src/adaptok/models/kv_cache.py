"""Keys and values of the rows that a generator writes at the same time: each at its own place, of its own length.

Legend: `R` rows of a call, `n` new entries of each, `H` heads, `d` dimensions of a head, `C` most entries of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_PAGE = 128
"""Entries whose keys lie together."""
_SIZES = 4
"""Lengths that a fixed memory is read in, at most: a step is compiled for each."""


class Memory(Protocol):
    """What layers ask: remember new entries, and attend to a row's own."""

    def place(self, rows: Sequence[int], positions: Tensor) -> None:
        """The next entries are of these rows `[R]`, at `positions [R, n]`, rising by one along n."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention `[R, n, H, d]` of new entries over those of their row before them, and themselves."""


def build_memory(layers: int, heads: int, dims: int, rows: int, capacity: int, like: Tensor) -> Memory:
    """A memory for `rows` rows of up to `capacity` entries, on the device and in the precision of `like`."""
    kind = PagedMemory if like.device.type == "cpu" else DenseMemory
    return kind(layers, heads, dims, rows, capacity, like)


class DenseMemory:
    """One buffer `[rows, H, C, d]` of keys and one of values for each layer, and a mask: for a GPU.

    Args:
        fixed: for a compiled step: all rows take part in each, buffers keep their addresses, and what is looked at has
            at most four lengths, so that it may be recorded.
    """

    def __init__(
        self, layers: int, heads: int, dims: int, rows: int, capacity: int, like: Tensor, *, fixed: bool = False
    ) -> None:
        self.keys = [like.new_zeros(rows, heads, capacity, dims) for _ in range(layers)]
        self.values = [like.new_zeros(rows, heads, capacity, dims) for _ in range(layers)]
        self.capacity, self._all = capacity, torch.arange(rows, device=like.device)
        self._stride = _PAGE * max(1, -(-capacity // (_SIZES * _PAGE))) if fixed else _PAGE
        if fixed:
            for buffer in (*self.keys, *self.values, self._all):
                torch._dynamo.mark_static_address(buffer, guard=False)

    def place(self, rows: Sequence[int], positions: Tensor) -> None:
        """See `Memory`. What is looked at grows in steps of a page or more, so that shapes seldom change."""
        everyone = list(rows) == list(range(len(self._all)))
        self._rows = None if everyone else torch.tensor(rows, device=positions.device)
        self._positions = positions
        self._seen = min(self.capacity, -(-(int(positions.max()) + 1) // self._stride) * self._stride)
        self._mask = torch.arange(self._seen, device=positions.device) <= positions[:, None, :, None]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Memory`."""
        keys, values = self.keys[layer], self.values[layer]
        rows = self._all if self._rows is None else self._rows
        keys[rows[:, None], :, self._positions] = k
        values[rows[:, None], :, self._positions] = v
        keys, values = keys[:, :, : self._seen], values[:, :, : self._seen]
        if self._rows is not None:  # of all rows, nothing is copied
            keys, values = keys[rows], values[rows]
        return F.scaled_dot_product_attention(q.transpose(1, 2), keys, values, attn_mask=self._mask).transpose(1, 2)


class PagedMemory:
    """For a CPU: what a row reads is as long as the row, and does not depend on the rows beside it.

    A step's attention is two weighted sums of table rows: of keys, stored a dimension a table row in pages of entries,
    with the query as weights; and of values, with the attention as weights. `embedding_bag` computes such sums, of all
    rows and heads in one call, about as fast as memory can be read; matrix products of one row are several times slower
    in bfloat16.
    """

    def __init__(self, layers: int, heads: int, dims: int, rows: int, capacity: int, like: Tensor) -> None:
        self.heads, self.dims, self.pages = heads, dims, -(-capacity // _PAGE)
        self.capacity = self.pages * _PAGE
        keys = rows * self.pages * heads * dims, _PAGE
        self.keys = [like.new_empty(keys) for _ in range(layers)]  # by row, page, head and dimension
        self.values = [like.new_empty(rows * heads * self.capacity, dims) for _ in range(layers)]  # row, head, entry

    def place(self, rows: Sequence[int], positions: Tensor) -> None:
        """See `Memory`. Several entries of a row must be its first."""
        count, new = positions.shape
        assert new == 1 or int(positions[:, 0].max()) == 0, "several entries at once are the beginning of a row"
        self._rows, self._new = list(rows), new
        if new > 1:
            return
        own, at = torch.tensor(rows), positions[:, 0]
        heads, dims = torch.arange(self.heads), torch.arange(self.dims)
        by_page = (own * self.pages + at // _PAGE)[:, None] * self.heads + heads  # [R, H]
        self._new_keys = ((by_page[..., None] * self.dims + dims) * _PAGE + (at % _PAGE)[:, None, None]).flatten()
        first = (own[:, None] * self.heads + heads) * self.capacity  # [R, H], of each head's values
        self._new_values = (first + at[:, None]).flatten()

        most = int(at.max()) // _PAGE + 1  # pages of the longest row
        pages = torch.arange(most)
        used = pages <= (at // _PAGE)[:, None]  # [R, pages]
        bags = ((own[:, None] * self.pages + pages)[..., None] * self.heads + heads)[used]  # [pages in use, H]
        self._key_index = (bags[..., None] * self.dims + dims).flatten().int()
        counts = (used[..., None] * self.dims).expand(-1, -1, self.heads).flatten()  # none of a page not in use
        self._key_offsets = (counts.cumsum(0) - counts).int()
        self._query_rows = torch.arange(count)[:, None].expand(-1, most)[used]
        self._seen = (torch.arange(most * _PAGE) <= at[:, None])[:, None].expand(-1, self.heads, -1)  # [R, H, entries]
        self._value_index = (first[..., None] + torch.arange(most * _PAGE))[self._seen].int()
        lengths = (at + 1)[:, None].expand(-1, self.heads).flatten()
        self._value_offsets = (lengths.cumsum(0) - lengths).int()

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Memory`."""
        if self._new > 1:
            return self._begin(layer, q, k, v)
        keys, values = self.keys[layer], self.values[layer]
        keys.view(-1).index_copy_(0, self._new_keys, k.flatten())
        values.index_copy_(0, self._new_values, v.flatten(0, 2))
        queries = (q[:, 0] * self.dims**-0.5)[self._query_rows].flatten()
        scores = _weighted_sums(keys, self._key_index, self._key_offsets, queries)  # [R * pages * H, page]
        scores = scores.view(len(q), -1, self.heads, _PAGE).transpose(1, 2).flatten(2)  # [R, H, entries]
        weights = scores.masked_fill(~self._seen, -torch.inf).softmax(-1)[self._seen]
        out = _weighted_sums(values, self._value_index, self._value_offsets, weights)
        return out.view(len(q), 1, self.heads, self.dims)

    def _begin(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Beginnings of rows, one by one: nothing is held of them yet."""
        keys = self.keys[layer].view(-1, self.pages, self.heads, self.dims, _PAGE)
        values = self.values[layer].view(-1, self.heads, self.capacity, self.dims)
        whole = -(-self._new // _PAGE)
        padded = F.pad(k, (0, 0, 0, 0, 0, whole * _PAGE - self._new))
        outs = []
        for index, row in enumerate(self._rows):
            keys[row, :whole] = padded[index].unflatten(0, (whole, _PAGE)).permute(0, 2, 3, 1)
            values[row, :, : self._new] = v[index].transpose(0, 1)
            a, b, c = (x[index : index + 1].transpose(1, 2) for x in (q, k, v))
            outs.append(F.scaled_dot_product_attention(a, b, c, is_causal=True).transpose(1, 2))
        return torch.cat(outs)


def _weighted_sums(table: Tensor, index: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Sums of the rows `index` of a table times `weights`, one from each of `offsets` to the next."""
    return F.embedding_bag(index, table, offsets, mode="sum", per_sample_weights=weights)
