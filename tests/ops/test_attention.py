"""The plans of attention against dense masks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptok.models.layers import CausalAttention, PlannedAttention, Segment, _dropped
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


@pytest.mark.parametrize(("queries", "keys"), [(3, 1025), (1025, 1025), (300, 700), (64, 300)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_equal_those_of_plain_attention(dtype, queries, keys):
    generator = torch.Generator().manual_seed(0)
    shapes = (2, queries, 8, 16), (2, keys, 2, 8, 16), (2, queries, 8, 16)
    q, kv, slope = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    half = keys // 2
    plan = (
        Segment(slice(0, queries // 2), (slice(0, half),)),
        Segment(slice(queries // 2, queries), (slice(0, keys // 3), slice(half, keys))),
    )
    alive = torch.ones(queries, keys, dtype=torch.bool)
    alive[: queries // 2, half:] = False
    alive[queries // 2 :, keys // 3 : half] = False
    given = [x.clone().requires_grad_() for x in (q, kv)]
    found = PlannedAttention.apply(*given, plan)
    plain = [x.float().requires_grad_() for x in (q, kv)]
    k, v = plain[1].permute(2, 0, 3, 1, 4)
    expected = F.scaled_dot_product_attention(plain[0].transpose(1, 2), k, v, attn_mask=alive).transpose(1, 2)
    found.backward(slope)
    expected.backward(slope.float())
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    for mine, true in ((found, expected), *((a.grad, b.grad) for a, b in zip(given, plain, strict=True))):
        error = (mine.float() - true).norm() / true.norm()
        assert error < tolerance


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("rows", [5, 300, 512])
def test_causal_attention_equals_its_definition(rows, dropout):
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(2, 3, rows, 8, generator=generator, requires_grad=True) for _ in range(3)]
    plain = [x.detach().double().requires_grad_() for x in given]
    slope = torch.randn(2, 3, rows, 8, generator=generator)
    keep = torch.ones(6, rows, rows)
    masks = torch.Generator().manual_seed(7)
    for start in range(0, rows, 256):  # as the tiles draw them
        stop = min(start + 256, rows)
        if dropout:
            keep[:, start:stop, :stop] = 1 - _dropped(torch.Size((6, stop - start, stop)), dropout, masks).float()
    hidden = torch.full((rows, rows), -torch.inf, dtype=torch.float64).triu(1)
    weights = (plain[0] @ plain[1].transpose(-1, -2) * 8**-0.5 + hidden).softmax(-1)
    expected = (weights * keep.view(2, 3, rows, rows) / (1 - dropout)) @ plain[2]
    found = CausalAttention.apply(*given, dropout, 7)
    expected.backward(slope.double())
    found.backward(slope)
    for mine, true in ((found, expected), *((a.grad, b.grad) for a, b in zip(given, plain, strict=True))):
        torch.testing.assert_close(mine.double(), true, atol=1e-5, rtol=1e-4)


def test_dropout_keeps_its_share():
    kept = 1 - _dropped(torch.Size((500, 2001)), 0.1, torch.Generator().manual_seed(0)).float()
    assert abs(kept.mean() - 0.9) < 0.002
    assert abs(kept[:, 1:].mul(kept[:, :-1]).mean() - 0.81) < 0.003  # neighbours share a draw, not a fate
