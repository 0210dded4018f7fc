"""Attention over a paged cache equals its reference."""

from __future__ import annotations

import pytest
import torch

from adaptok.models.kv_cache import DenseKVCache, PagedKVCache
from adaptok.ops.paged_attention import PAGE, paged_attention_reference

HEADS, DIMS, ROWS = 2, 8, 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [PagedKVCache, DenseKVCache])
@pytest.mark.parametrize("lengths", [[0, 3, 17], [PAGE - 1, PAGE, 2 * PAGE]])
def test_steps_equal_the_reference(kind, lengths, dtype):
    generator = torch.Generator().manual_seed(0)
    cache = kind(1, HEADS, DIMS, ROWS, 3 * PAGE, torch.zeros(0, dtype=dtype))
    entries = [torch.randn(length + 4, 3, HEADS, DIMS, generator=generator).to(dtype) for length in lengths]
    for row, (length, own) in enumerate(zip(lengths, entries, strict=True)):
        for start, stop in ((0, length),) if length != 1 else ():
            if stop:
                cache.place([row], torch.arange(start, stop)[None])
                cache.attend(0, *own[None, start:stop].unbind(2))
    for step in range(4):
        taken = [row for row in range(ROWS) if (row + step) % 3 or step == 0]
        at = {row: lengths[row] for row in taken}
        new = torch.stack([entries[row][at[row]] for row in taken])[:, None]  # [R, 1, 3, H, d]
        cache.place(taken, torch.tensor([[at[row]] for row in taken]))
        out = cache.attend(0, *new.unbind(2))
        seen = [entries[row][: at[row] + 1].float() for row in taken]
        expected = paged_attention_reference(new[:, :, 0].float(), [x[:, 1] for x in seen], [x[:, 2] for x in seen])
        tolerance = 1e-5 if dtype == torch.float32 else 0.02
        torch.testing.assert_close(out.float(), expected, atol=tolerance, rtol=tolerance)
        for row in taken:
            lengths = [n + (r == row) for r, n in enumerate(lengths)]
