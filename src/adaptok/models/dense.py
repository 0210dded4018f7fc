"""The networks with dense attention masks, as modules of tensors only.

`Tokenizer` and `Scorer` take lengths as Python lists and compute only the rows that exist, in segments. These forms
take lengths as a tensor, compute every row of whole clips, and hide dropped latents by a mask. They are slower and give
the same numbers, and `torch.export` and the ONNX exporter can trace them once for all lengths. They compute in float32
and are for inference.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels, `G` blocks of a clip, `P` patches and `K` latents of a block,
`L` candidate lengths, `D` width, `H` heads, `d` = D / H, `N` rows of a transformer call.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptok.models.quantizer import ScalarQuantizer, VectorQuantizer
from adaptok.models.rotary import latent_positions, patch_positions, rotations
from adaptok.models.scorer import Scorer
from adaptok.models.spectrum_scorer import SpectrumScorer
from adaptok.models.tokenizer import Tokenizer
from adaptok.models.transformer import TransformerBlock, TransformerStack


class DenseStack(nn.Module):
    """A transformer stack over rows in any order.

    Args:
        stack: The stack, whose weights are shared.
        positions: int64 `[N, 4]`, rotary coordinates of the rows, for stacks with the option `rope`.
    """

    rotation: Tensor | None

    def __init__(self, stack: TransformerStack, positions: Tensor) -> None:
        super().__init__()
        self.blocks = stack.blocks
        config = stack.config
        rotation = rotations(positions, config.width // config.heads) if config.rope else None
        self.register_buffer("rotation", rotation, persistent=False)

    def forward(self, x: Tensor, mask: Any) -> Tensor:
        """`[B, N, D]` to the same shape, with a bool mask `[N, N]` or `[B, 1, N, N]` of the keys that a query sees."""
        for block in self.blocks:
            assert isinstance(block, TransformerBlock)
            x = x + self._attend(block, block.norm1(x), mask)
            x = x + block.mlp(block.norm2(x))
        return x

    def _attend(self, block: TransformerBlock, x: Tensor, mask: Any) -> Tensor:
        attn = block.attn
        q, kv = attn.qkv(x).unflatten(-1, (3, attn.heads, -1)).split((1, 2), 2)  # [B, N, 1 or 2, H, d]
        q = q.squeeze(2)
        if attn.q_norm is not None and attn.k_norm is not None:
            q, kv = attn.q_norm(q, self.rotation), attn.k_norm(kv, self.rotation)
        k, v = kv.unbind(2)
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))  # [B, H, N, d]
        return attn.proj(self.attention(q, k, v, mask).transpose(1, 2).flatten(2))

    def attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Tensor:
        """Attend from queries to keys, all `[B, H, N, d]`. A subclass may use another implementation and kind of
        mask."""
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class DenseEncoder(nn.Module):
    """Clips to ids, and to what the scorer reads. Rows: patches of all blocks, then latents of all blocks."""

    mask: Tensor

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.stack = DenseStack(tokenizer.encoder, torch.cat(_positions(tokenizer)))
        block = torch.cat(_block_indices(tokenizer))
        self.register_buffer("mask", block[:, None] >= block, persistent=False)

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode clips `[B, C, T, S, S]` in [0, 1].

        Returns:
            ids int64 `[B, G, K]`, encoder outputs `[B, G, K, D]`, and decoder inputs `[B, G, K, D]`.
        """
        t, c = self.tokenizer, self.tokenizer.config
        patches = t.embed_patches(clips).flatten(1, 2) + t.encoder_patch_positions.flatten(0, -2)
        queries = t.encoder_queries.expand(clips.shape[0], -1, -1)
        rows = self.stack(torch.cat([patches, queries], 1), self.mask)
        encoded = rows[:, c.blocks * c.patches :].unflatten(1, (c.blocks, c.latents))
        ids = _nearest_ids(t.quantizer, t.to_code(encoded))
        return ids, encoded, t.lookup(ids)


class DenseDecoder(nn.Module):
    """Ids and lengths to clips. Rows: latents of all blocks, then patches of all blocks."""

    mask: Tensor
    diagonal: Tensor

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        patches, latents = _positions(tokenizer)
        self.stack = DenseStack(tokenizer.decoder, torch.cat([latents, patches]))
        patch_block, latent_block = _block_indices(tokenizer)
        block = torch.cat([latent_block, patch_block])
        is_patch = torch.arange(len(block)) >= len(latent_block)
        to_latents = (block[:, None] >= block) & ~is_patch
        to_patches = (block[:, None] == block) & is_patch & is_patch[:, None]
        self.register_buffer("mask", to_latents | to_patches, persistent=False)
        self.register_buffer("diagonal", torch.eye(len(block), dtype=torch.bool), persistent=False)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Decode clips `[B, C, T, S, S]`, whose pixel values are not clamped to [0, 1].

        Args:
            ids: int64 `[B, G, K]` in [0, codebook size). Those past the length of a block do not count.
            lengths: int64 `[B, G]` in 0..K.
        """
        t, c = self.tokenizer, self.tokenizer.config
        kept = _kept(lengths, c.latents)
        latents = t.lookup(ids).flatten(1, 2) + t.decoder_latent_positions
        queries = t.decoder_patch_queries
        if c.patch_type_embedding:
            queries = queries + t.decoder_patch_type
        rows = torch.cat([latents, queries.expand(ids.shape[0], -1, -1)], 1)
        seen = torch.cat([kept, torch.ones_like(rows[:, c.blocks * c.latents :, 0], dtype=torch.bool)], 1)
        rows = self.stack(rows, (self.mask & seen[:, None] | self.diagonal)[:, None])
        patches = rows[:, c.blocks * c.latents :].unflatten(1, (c.blocks, c.patches))
        return t.draw_patches(t.final_norm(patches))


class DenseScorer(nn.Module):
    """Latents and lengths to scores. Rows: latents of all blocks."""

    mask: Tensor
    diagonal: Tensor

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer
        block = torch.arange(scorer.blocks_per_clip).repeat_interleave(scorer.latents)
        self.stack = DenseStack(scorer.stack, block.new_zeros(len(block), 4))
        self.register_buffer("mask", block[:, None] >= block, persistent=False)
        self.register_buffer("diagonal", torch.eye(len(block), dtype=torch.bool), persistent=False)

    def forward(self, encoded: Tensor, decoder_inputs: Tensor, lengths: Tensor) -> Tensor:
        """Compute normalized scores `[B, G, L]`, like `Scorer.forward`.

        Args:
            encoded, decoder_inputs: `[B, G, K, D]`, outputs of `DenseEncoder`.
            lengths: int64 `[B, G]` in 0..K. To score block i given the lengths of earlier blocks, its own length is K.
        """
        s = self.scorer
        kept = _kept(lengths, s.latents)
        joined = torch.cat([encoded, decoder_inputs], -1).flatten(1, 2) * kept[..., None].to(encoded.dtype)
        seen = self.mask & kept[:, None] & kept[..., None] | self.diagonal  # a dropped latent sees only itself
        rows = self.stack(s.project(joined) + s.positions, seen[:, None])
        scores = s.head(s.final_norm(rows)).squeeze(-1).unflatten(1, (s.blocks_per_clip, s.latents))
        step = s.config.length_step
        return s.shape(scores[..., step - 1 :: step])


class DenseSpectrumScorer(nn.Module):
    """Pixels and lengths to scores."""

    def __init__(self, scorer: SpectrumScorer) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, clips: Tensor, lengths: Tensor) -> Tensor:
        """Compute normalized scores `[B, G, L]`, like `SpectrumScorer.forward`.

        Args:
            clips: `[B, C, T, S, S]` in [0, 1].
            lengths: int64 `[B, G]` in 0..K. A block is scored given the lengths of earlier blocks.
        """
        blocks = clips.new_empty(1, self.scorer.blocks_per_clip)  # whose shape says how many blocks the clips have
        features = self.scorer.features(clips, blocks)
        return self.scorer(features, blocks, lengths)


def _nearest_ids(quantizer: VectorQuantizer | ScalarQuantizer, z: Tensor) -> Tensor:
    """Quantize `z [..., Z]` in one product with the codebook: the number of chunks would depend on the batch."""
    if isinstance(quantizer, ScalarQuantizer):
        return quantizer(z).ids
    return (F.normalize(z, dim=-1) @ F.normalize(quantizer.codebook, dim=-1).T).argmax(-1)


def _kept(lengths: Tensor, latents: int) -> Tensor:
    """Convert lengths `[B, G]` to a bool mask `[B, G * K]` of the latents that are kept."""
    return (torch.arange(latents, device=lengths.device) < lengths[..., None]).flatten(1)


def _positions(tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Rotary coordinates of all patches `[G * P, 4]` and of all latents `[G * K, 4]`."""
    c = tokenizer.config
    blocks = torch.arange(c.blocks)
    return patch_positions(blocks, c.grid).flatten(0, 1), latent_positions(blocks, c.latents).flatten(0, 1)


def _block_indices(tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Blocks of all patches `[G * P]` and of all latents `[G * K]`."""
    c = tokenizer.config
    blocks = torch.arange(c.blocks)
    return blocks.repeat_interleave(c.patches), blocks.repeat_interleave(c.latents)
