"""Plans of the tokenizer and the scorer equal dense attention masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptok.models.patches import patchify

ROWS = st.lists(st.lists(st.integers(0, 8), min_size=4, max_size=4), min_size=3, max_size=3)
SHARED = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def dense(stack, x, mask):
    """The stack over `x [B, N, D]` with `mask [N, N]` or `[B, N, N]`: row sees column."""
    mask = mask if mask.ndim == 2 else mask[:, None]
    for block in stack.blocks:
        b, n, width = x.shape
        q, k, v = block.attn.qkv(block.norm1(x)).view(b, n, 3, block.attn.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + block.attn.proj(seen.transpose(1, 2).reshape(b, n, width))
        x = x + block.mlp(block.norm2(x))
    return x


@torch.no_grad()
def test_encoder_equals_its_dense_mask(codec, clips):
    t, c = codec.model.tokenizer, codec.config.tokenizer
    patches = t.patch_embedding(patchify(clips, c.patch_size, c.temporal_patch_size)).flatten(1, 2)
    x = torch.cat([patches + t.encoder_patch_positions.view(-1, 32), t.encoder_queries.expand(3, -1, -1)], 1)
    block = torch.cat([torch.arange(4).repeat_interleave(16), torch.arange(4).repeat_interleave(8)])
    expected = dense(t.encoder, x, block[:, None] >= block[None])[:, 64:]
    torch.testing.assert_close(t.encode(clips).flatten(1, 2), expected, atol=1e-4, rtol=1e-4)


@SHARED
@given(ROWS)
@torch.no_grad()
def test_decoder_equals_its_dense_mask(codec, clips, lengths):
    t = codec.model.tokenizer
    inputs = codec.encode_clips(clips).inputs
    kept = (torch.arange(8) < torch.tensor(lengths)[..., None]).flatten(1)
    latents = inputs.flatten(1, 2) + t.decoder_latent_positions.view(-1, 32)
    queries = t.decoder_patch_queries.view(-1, 32) + t.decoder_patch_type
    x = torch.cat([latents, queries.expand(3, -1, -1)], 1)
    block = torch.cat([torch.arange(4).repeat_interleave(8), torch.arange(4).repeat_interleave(16)])
    latent = torch.arange(96) < 32
    earlier, same = block[:, None] >= block[None], block[:, None] == block[None]
    alive = torch.cat([kept, torch.ones(3, 64, dtype=torch.bool)], 1)
    mask = torch.where(latent[None], earlier, same & ~latent[:, None]) & alive[:, None] | torch.eye(
        96, dtype=torch.bool
    )
    pixels = t.to_pixels(t.final_norm(dense(t.decoder, x, mask)[:, 32:]))
    fast = t.decode(inputs, lengths)
    c = codec.config.tokenizer
    packed = pixels.view(3, 4, 4, 4, 2, 4, 4, 3).permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(3, 3, 8, 16, 16)
    assert c.grid == 4
    torch.testing.assert_close(fast, packed, atol=1e-4, rtol=1e-4)


@SHARED
@given(ROWS)
@torch.no_grad()
def test_scorer_equals_its_dense_mask(codec, clips, lengths):
    scorer, latents = codec.model.scorer, codec.encode_clips(clips)
    kept = (torch.arange(8) < torch.tensor(lengths)[..., None]).flatten(1)
    x = scorer.project(torch.cat([latents.encoded, latents.inputs], -1)).flatten(1, 2) + scorer.positions.view(-1, 32)
    block = torch.arange(4).repeat_interleave(8)
    mask = (block[:, None] >= block[None]) & kept[:, None] | torch.eye(32, dtype=torch.bool)
    rows = scorer.head(scorer.final_norm(dense(scorer.stack, x, mask)))[..., 0].view(3, 4, 8)[..., 1::2]
    fast = codec.score_clips(latents, lengths)
    own = torch.tensor(lengths)[..., None] >= torch.tensor([2, 4, 6, 8])
    torch.testing.assert_close(fast[own], rows[own], atol=1e-4, rtol=1e-4)
