"""The tokenizer, scorer and generator with dense masks and fixed shapes, which a GPU trains fast.

The package computes only the rows that exist, in segments of their own, which suits a CPU. A GPU waits for such small
calls, so that here every clip takes all its rows, and masks hide dropped latents.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels, `G` blocks, `K` latents, `P` patches of a block, `H` heads, `N`
rows, `d` dimensions of a head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from adaptok.metrics.lpips import Lpips
from adaptok.models.dense import DenseStack
from adaptok.models.generator import GeneratorModel, Layer
from adaptok.models.tokenizer import Tokenizer


class FlexStack(DenseStack):
    """A stack with FlexAttention, which skips tiles that are masked as a whole. Masks are block masks, or bool masks
    for SDPA."""

    def attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Tensor:
        if isinstance(mask, Tensor):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out = flex_attention(q.contiguous(), k.contiguous(), v.contiguous(), block_mask=mask)
        assert isinstance(out, Tensor)
        return out


class TrainingTokenizer(nn.Module):
    """Differentiable reconstruction of clips at given lengths.

    Args:
        tokenizer: tokenizer whose weights are trained.
        batch_size: B of every call of `reconstruct`.
        flex: whether to use FlexAttention instead of SDPA.
    """

    def __init__(self, tokenizer: Tokenizer, batch_size: int, flex: bool) -> None:
        super().__init__()
        c = tokenizer.config
        self.tokenizer, self.flex, self.batch_size = tokenizer, flex, batch_size
        self.rows = c.blocks * (c.patches + c.latents)
        self.device = tokenizer.to_code.weight.device
        nothing = torch.zeros(self.rows, 4, dtype=torch.int64, device=self.device)
        self.encoder, self.decoder = FlexStack(tokenizer.encoder, nothing), FlexStack(tokenizer.decoder, nothing)
        self.lengths = torch.full((batch_size, c.blocks), c.latents, device=self.device)  # of the present call
        self.encoder_sees, self.decoder_sees = self._predicates()

    def _predicates(self) -> tuple[Any, Any]:
        """Create functions of clip, head, query and key that tell whether a row of the encoder or of the decoder sees
        another. FlexAttention needs plain functions, and compiles anew for new ones."""
        c, lengths, rows = self.tokenizer.config, self.lengths, torch.arange(self.rows, device=self.device)
        patches = c.blocks * c.patches
        patch_block, latent_block = rows[:patches] // c.patches, rows[: c.blocks * c.latents] // c.latents
        encoder_block, block = torch.cat([patch_block, latent_block]), torch.cat([latent_block, patch_block])
        is_latent, place = rows < len(latent_block), rows % c.latents

        def encoder_sees(clip: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return encoder_block[query] >= encoder_block[key]

        def decoder_sees(clip: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            key_block, latent_key = block[key], is_latent[key]
            kept = latent_key & (block[query] >= key_block) & (place[key] < lengths[clip, key_block])
            own = ~latent_key & ~is_latent[query] & (block[query] == key_block)
            return kept | own | (query == key)  # a dropped latent sees itself only, and nothing sees it

        return encoder_sees, decoder_sees

    def encoder_mask(self) -> Any:
        """Mask of `encode`."""
        return self._mask(self.encoder_sees, None)

    def decoder_mask(self, lengths: Tensor) -> Any:
        """Mask of `decode` for lengths int64 `[B, G]`, which stay in effect until the next call."""
        self.lengths.copy_(lengths)
        return self._mask(self.decoder_sees, self.batch_size)

    def _mask(self, sees: Any, batch: int | None) -> Any:
        if self.flex:
            return create_block_mask(sees, batch, None, self.rows, self.rows, self.device, _compile=self.compiles)
        index, clips = torch.arange(self.rows, device=self.device), torch.arange(batch or 1, device=self.device)
        return sees(clips.view(-1, 1, 1, 1), index, index.view(-1, 1), index)

    @property
    def compiles(self) -> bool:
        """Whether masks are computed by compiled functions."""
        return self.device.type == "cuda"

    def encode(self, clips: Tensor, mask: Any) -> tuple[Tensor, Tensor]:
        """Encode clips `[B, C, T, S, S]` as encoder outputs and inputs of the quantizer, `[B, G, K, …]`."""
        t, c = self.tokenizer, self.tokenizer.config
        patches = t.embed_patches(clips).flatten(1, 2) + t.encoder_patch_positions.flatten(0, -2)
        rows = self.encoder(torch.cat([patches, t.encoder_queries.expand(len(clips), -1, -1)], 1), mask)
        encoded = rows[:, c.blocks * c.patches :].unflatten(1, (c.blocks, c.latents))
        with torch.autocast(clips.device.type, enabled=False):  # rounding needs full precision
            return encoded, t.to_code(encoded.float())

    def decode(self, codes: Tensor, mask: Any) -> Tensor:
        """Decode codes `[B, G, K, Z]` to clips float32 `[B, C, T, S, S]`."""
        t, c = self.tokenizer, self.tokenizer.config
        latents = t.project_codes(codes).flatten(1, 2) + t.decoder_latent_positions
        queries = t.decoder_patch_queries + t.decoder_patch_type
        rows = self.decoder(torch.cat([latents, queries.expand(len(codes), -1, -1)], 1), mask)
        patches = rows[:, c.blocks * c.latents :].unflatten(1, (c.blocks, c.patches))
        return t.draw_patches(t.final_norm(patches)).float()

    def reconstruct(self, clips: Tensor, encoder_mask: Any, decoder_mask: Any) -> Tensor:
        """Reconstruct clips at the lengths of the mask. Differentiable."""
        return self.decode(self.tokenizer.quantizer(self.encode(clips, encoder_mask)[1]).codes, decoder_mask)


def lpips_on_crops(network: Lpips, prediction: Tensor, target: Tensor, corners: Tensor, side: int) -> Tensor:
    """Mean LPIPS of square crops of random frames.

    Args:
        network: frozen network.
        prediction, target: `[B, 3, T, S, S]` in [0, 1].
        corners: int64 `[n, B, 3]`, frame, top and left of n crops of each clip.
        side: side of the crops.
    """
    pixels = torch.arange(side, device=target.device)
    frame, top, left = (values.flatten() for values in corners.unbind(-1))
    clip = torch.arange(len(target), device=target.device).repeat(len(corners))

    def crop(clips: Tensor) -> Tensor:
        rows, columns = (top[:, None] + pixels)[..., None], (left[:, None] + pixels)[:, None]
        picked = clips[clip[:, None, None], :, frame[:, None, None], rows, columns]  # [n * B, side, side, 3]
        return picked.permute(0, 3, 1, 2)

    return network(crop(prediction), crop(target)).mean()


def generator_loss(model: GeneratorModel, classes: Tensor, entries: Tensor) -> Tensor:
    """Mean cross-entropy of entries int64 `[B, n]` after the classes `[B]`, where padding is -1."""
    attended = entries.clamp(min=0)
    assert model.classes is not None
    x = torch.cat([model.classes(classes)[:, None], model.tokens(attended[:, :-1])], 1)
    x = x + model.positions[: x.shape[1]]
    for layer in model.layers:
        assert isinstance(layer, Layer)
        q, k, v = layer.attn.qkv(layer.norm1(x)).unflatten(-1, (3, layer.attn.heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + layer.attn.proj(out)
        x = x + layer.feed_forward(layer.norm2(x))
    real = entries >= 0
    head: Any = model.output
    return -head.log_likelihood(model.norm(x)[real], entries[real]).mean()
