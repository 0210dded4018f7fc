"""Caches of keys and values.

`BlockKVCache` holds the rows of earlier blocks of clips that are processed block by block. The other caches hold the
rows of a batch that a generator writes, each at its own position.

Legend: `B` batch, `N` rows of a call, `R` generated rows of a call, `n` new entries of each, `H` heads, `d` dimensions
of a head, `C` capacity of a row in entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptok.ops.paged_attention import PAGE, PagedIndex, paged_attention, paged_index

MAX_READ_SIZES = 4
"""Maximum number of lengths at which a fixed cache is read. A decode step is compiled for each."""


class BlockKVCache:
    """Keys and values of earlier calls for every layer, in buffers that are allocated once.

    Args:
        layers: depth of the stack.
        capacity: maximum number of rows.
    """

    def __init__(self, layers: int, capacity: int) -> None:
        self.capacity = capacity
        self.rows = self.blocks = 0
        self._buffers: list[Tensor | None] = [None] * layers

    def append(self, layer: int, kv: Tensor) -> Tensor:
        """Add rows `[B, N, 2, H, d]` of one layer, and return all rows so far `[B, rows + N, 2, H, d]`."""
        stop = self.rows + kv.shape[1]
        assert stop <= self.capacity, f"{stop} rows do not fit a cache of {self.capacity}"
        buffer = self._buffers[layer]
        if buffer is None:
            buffer = kv.new_empty(kv.shape[0], self.capacity, *kv.shape[2:])
            self._buffers[layer] = buffer
        buffer[:, self.rows : stop] = kv
        return buffer[:, :stop]

    def keep(self, rows: int, blocks: int) -> None:
        """Set the number of rows to keep and of the blocks that they belong to, after all layers have appended."""
        assert 0 <= rows <= self.capacity
        self.rows, self.blocks = rows, blocks

    def clear(self) -> None:
        """Empty the cache for the next clips."""
        self.keep(0, 0)


class KVCache(Protocol):
    """Keys and values of the rows that a generator writes."""

    def place(self, rows: Sequence[int], positions: Tensor) -> None:
        """Set the rows `[R]` and the positions `[R, n]` of the next entries. Positions rise by one along n."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store new entries `[R, n, H, d]`, and attend causally from each to all entries of its row up to itself."""


def build_kv_cache(layers: int, heads: int, dims: int, rows: int, capacity: int, like: Tensor) -> KVCache:
    """Build a cache for `rows` rows of up to `capacity` entries, on the device and in the type of `like`."""
    kind = PagedKVCache if like.device.type == "cpu" else DenseKVCache
    return kind(layers, heads, dims, rows, capacity, like)


class DenseKVCache:
    """Cache with one buffer `[rows, H, C, d]` of keys and one of values per layer, read through a mask.

    Args:
        fixed: for a compiled step. All rows take part in every step, buffers keep their addresses, and at most four
            lengths are read, so that the step can be recorded as a CUDA graph.
    """

    def __init__(
        self, layers: int, heads: int, dims: int, rows: int, capacity: int, like: Tensor, *, fixed: bool = False
    ) -> None:
        self.keys = [like.new_zeros(rows, heads, capacity, dims) for _ in range(layers)]
        self.values = [like.new_zeros(rows, heads, capacity, dims) for _ in range(layers)]
        self.capacity, self._all = capacity, torch.arange(rows, device=like.device)
        self._stride = PAGE * max(1, -(-capacity // (MAX_READ_SIZES * PAGE))) if fixed else PAGE
        if fixed:
            for buffer in (*self.keys, *self.values, self._all):
                torch._dynamo.mark_static_address(buffer, guard=False)

    def place(self, rows: Sequence[int], positions: Tensor) -> None:
        """See `KVCache`. The length that is read grows by a page or more, so that shapes seldom change."""
        all_rows = list(rows) == list(range(len(self._all)))
        self._rows = None if all_rows else torch.tensor(rows, device=positions.device)
        self._positions = positions
        self._seen = min(self.capacity, -(-(int(positions.max()) + 1) // self._stride) * self._stride)
        self._mask = torch.arange(self._seen, device=positions.device) <= positions[:, None, :, None]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `KVCache`."""
        keys, values = self.keys[layer], self.values[layer]
        rows = self._all if self._rows is None else self._rows
        keys[rows[:, None], :, self._positions] = k
        values[rows[:, None], :, self._positions] = v
        keys, values = keys[:, :, : self._seen], values[:, :, : self._seen]
        if self._rows is not None:  # with all rows, nothing is copied
            keys, values = keys[rows], values[rows]
        return F.scaled_dot_product_attention(q.transpose(1, 2), keys, values, attn_mask=self._mask).transpose(1, 2)


class PagedKVCache:
    """Cache for a CPU, see `ops/paged_attention.py`. A step reads only as much of a row as the row is long."""

    def __init__(self, layers: int, heads: int, dims: int, rows: int, capacity: int, like: Tensor) -> None:
        self.heads, self.dims, self.pages = heads, dims, -(-capacity // PAGE)
        self.capacity = self.pages * PAGE
        key_shape = rows * self.pages * heads * dims, PAGE
        self.keys = [like.new_empty(key_shape) for _ in range(layers)]  # by row, page, head and dimension
        self.values = [like.new_empty(rows * heads * self.capacity, dims) for _ in range(layers)]  # row, head, entry
        self._index: PagedIndex | None = None

    def place(self, rows: Sequence[int], positions: Tensor) -> None:
        """See `KVCache`. Several entries of a row must be its first ones."""
        new = positions.shape[1]
        assert new == 1 or int(positions[:, 0].max()) == 0, "several entries at once start a row"
        self._rows = list(rows)
        self._index = None if new > 1 else paged_index(rows, positions[:, 0], self.pages, self.heads, self.dims)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `KVCache`."""
        if self._index is None:
            return self._prefill(layer, q, k, v)
        return paged_attention(q, k, v, self.keys[layer], self.values[layer], self._index)

    def _prefill(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend within the first entries of rows, one by one."""
        keys = self.keys[layer].view(-1, self.pages, self.heads, self.dims, PAGE)
        values = self.values[layer].view(-1, self.heads, self.capacity, self.dims)
        new = k.shape[1]
        pages = -(-new // PAGE)
        padded = F.pad(k, (0, 0, 0, 0, 0, pages * PAGE - new))
        outs = []
        for index, row in enumerate(self._rows):
            keys[row, :pages] = padded[index].unflatten(0, (pages, PAGE)).permute(0, 2, 3, 1)
            values[row, :, :new] = v[index].transpose(0, 1)
            a, b, c = (x[index : index + 1].transpose(1, 2) for x in (q, k, v))  # [1, H, n, d]
            outs.append(F.scaled_dot_product_attention(a, b, c, is_causal=True).transpose(1, 2))
        return torch.cat(outs)
