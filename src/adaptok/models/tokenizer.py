"""Tokenizer: clips to latents per block, and the kept latents of each block back to clips.

Attention is block-causal, so nothing of a later block is ever seen:
- encoder: patches and latents of block i see all patches and latents of blocks up to i;
- decoder: latents of block i see the kept latents of blocks up to i; patches of block i see the patches of block i and
  the kept latents of blocks up to i.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels, `G` blocks of a full clip, `g` blocks of a call, `P` patches
and `K` latents of a block, `pt` frames of a block, `D` width, `Z` dimensions of a code, `N` rows of a transformer call.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adaptok.config.tokenizer import TokenizerConfig
from adaptok.models.kv_cache import BlockKVCache
from adaptok.models.patches import ConvolutionalHead, ConvolutionalStem, patchify, taper, unpatchify
from adaptok.models.positions import sincos_1d, sincos_3d
from adaptok.models.quantizer import Quantized, build_quantizer
from adaptok.models.rotary import latent_positions, patch_positions
from adaptok.models.tokenizer_plans import (
    candidate_index,
    candidate_plan,
    decoder_plan,
    decoder_rows,
    encoder_plan,
    kept_mask,
    kept_rows,
    probe_index,
    probe_plan,
)
from adaptok.models.transformer import TransformerStack, build_norm, initialize_linears

QUERY_STD = 0.02
FINAL_NORM_EPS = 1e-6


def _window_taper(config: TokenizerConfig, window: int | None) -> Tensor | None:
    return None if window is None or window == config.patch_size else taper(config.patch_size, window)


class Tokenizer(nn.Module):
    """Block-causal transformer autoencoder with a discrete bottleneck (arXiv 2505.17011, section 3)."""

    encoder_patch_positions: Tensor
    encoder_queries: Tensor
    decoder_latent_positions: Tensor
    decoder_patch_queries: Tensor
    decoder_patch_type: Tensor
    encoder_taper: Tensor | None
    decoder_taper: Tensor | None

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        c, encoder, decoder = config, config.encoder, config.decoder
        latents, code_dim = c.blocks * c.latents, c.quantizer.code_dim
        self.patch_embedding = nn.Linear(c.input_dim, encoder.width)
        self._add_positions("encoder_patch_positions", sincos_3d(c.blocks, c.grid, encoder.width))
        self.encoder_queries = nn.Parameter(torch.randn(latents, encoder.width) * QUERY_STD)
        self.encoder = TransformerStack(encoder)
        self.to_code = nn.Linear(encoder.width, code_dim)
        self.quantizer = build_quantizer(c.quantizer)
        self.from_code = nn.Linear(code_dim, decoder.width)
        self._add_positions("decoder_latent_positions", sincos_1d(torch.arange(latents), decoder.width))
        self._add_positions("decoder_patch_queries", sincos_3d(c.blocks, c.grid, decoder.width))
        if c.patch_type_embedding:
            self.decoder_patch_type = nn.Parameter(torch.randn(decoder.width) * QUERY_STD)
        self.decoder = TransformerStack(decoder)
        self.final_norm = build_norm(decoder, FINAL_NORM_EPS)
        self.to_pixels = nn.Linear(decoder.width, c.output_dim)
        self.stem = None if c.stem is None else ConvolutionalStem(c.stem, c)
        self.head = None if c.head is None else ConvolutionalHead(c.head, c)
        self.register_buffer("encoder_taper", _window_taper(c, c.encoder_window), persistent=False)
        self.register_buffer("decoder_taper", _window_taper(c, c.decoder_window), persistent=False)
        initialize_linears(self)
        nn.init.zeros_(self.to_pixels.weight)

    def _add_positions(self, name: str, values: Tensor) -> None:
        if self.config.learned_positions:
            self.register_parameter(name, nn.Parameter(values))
        else:
            self.register_buffer(name, values)

    def _rotary_positions(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Compute the rotary coordinates of patches int64 `[g, P, 4]` and latents `[g, K, 4]` in blocks `start … stop -
        1`."""
        c, device = self.config, self.to_code.weight.device
        blocks = torch.arange(start, stop, device=device)
        return patch_positions(blocks, c.grid), latent_positions(blocks, c.latents)

    @property
    def dtype(self) -> torch.dtype:
        return self.patch_embedding.weight.dtype

    def encoder_cache(self) -> BlockKVCache:
        """Create an empty cache for encoding a clip block by block."""
        c = self.config
        return BlockKVCache(c.encoder.depth, c.blocks * (c.patches + c.latents))

    def decoder_cache(self, at_once: int = 1, candidates: Sequence[int] = ()) -> BlockKVCache:
        """Create an empty cache for decoding a clip, at most `at_once` blocks in one call, and for
        `decode_candidates`."""
        c = self.config
        rows = max(at_once * c.patches, sum(candidates) + len(candidates) * c.patches)
        return BlockKVCache(c.decoder.depth, c.blocks * c.latents + rows)

    def encode(self, clips: Tensor, cache: BlockKVCache | None = None) -> Tensor:
        """Encode clips `[B, C, g * pt, S, S]` in [0, 1] as latents `[B, g, K, D]`, before quantization.

        Args:
            cache: from `encoder_cache`, with the earlier blocks of the clip. It is updated.
        """
        c = self.config
        b, g = clips.shape[0], clips.shape[2] // c.temporal_patch_size
        first_block, past = (0, 0) if cache is None else (cache.blocks, cache.rows)
        stop = first_block + g
        patches = self.embed_patches(clips.to(self.dtype))
        positions = self.encoder_patch_positions.view(c.blocks, c.patches, -1)[first_block:stop]
        queries = self.encoder_queries.view(c.blocks, c.latents, -1)[first_block:stop]
        x = torch.cat([patches + positions, queries.expand(b, -1, -1, -1)], 2)
        plan = encoder_plan(g, c.patches, c.latents, past)
        rotary = None
        if c.encoder.rope:
            rotary = torch.cat(self._rotary_positions(first_block, stop), 1).flatten(0, 1)
        x = self.encoder(x.flatten(1, 2), plan, cache, rotary)
        if cache is not None:
            cache.keep(past + g * (c.patches + c.latents), stop)
        return x.view(b, g, c.latents, -1)

    def embed_patches(self, clips: Tensor) -> Tensor:
        """Embed the patches of clips `[B, C, g * pt, S, S]` in [0, 1] as `[B, g, P, D]`, without positions."""
        c = self.config
        patches = patchify(clips, c.patch_size, c.temporal_patch_size, c.encoder_window)
        if self.encoder_taper is not None:
            patches = patches.unflatten(-1, (-1, self.encoder_taper.numel())) * self.encoder_taper.flatten()
            patches = patches.flatten(-2)
        x = self.patch_embedding(patches)
        return x if self.stem is None else x + self.stem(clips)

    def draw_patches(self, x: Tensor) -> Tensor:
        """Convert the decoder's normalized patches `[B, g, P, D]` to clips `[B, C, g * pt, S, S]`."""
        c = self.config
        pixels = self.to_pixels(x)
        clips = unpatchify(
            pixels, c.channels, c.patch_size, c.temporal_patch_size, c.decoder_window, self.decoder_taper
        )
        return clips if self.head is None else clips + self.head(x)

    def quantize(
        self,
        encoded: Tensor,
        *,
        kept: Tensor | None = None,
        generator: torch.Generator | None = None,
        sample: bool = False,
    ) -> Quantized:
        """Quantize encoder outputs `[..., D]` to ids `[...]` and codes `[..., Z]`; see `quantizer`."""
        return self.quantizer(self.to_code(encoded), kept=kept, generator=generator, sample=sample)

    def project_codes(self, codes: Tensor) -> Tensor:
        """Project codes `[..., Z]` to decoder inputs `[..., D]`, without positions."""
        return self.from_code(codes.to(self.dtype))

    def lookup(self, ids: Tensor) -> Tensor:
        """Look up the decoder inputs `[..., D]` of ids `[...]`."""
        return self.project_codes(self.quantizer.lookup(ids))

    def decode(self, inputs: Tensor, lengths: Sequence[Sequence[int]], cache: BlockKVCache | None = None) -> Tensor:
        """Decode clips `[B, C, g * pt, S, S]`. Pixel values are not clamped to [0, 1].

        Args:
            inputs: decoder inputs `[B, g, K', D]`, where K' is the largest length or more. Dropped latents are not
                read and cost nothing.
            lengths: of each clip and block.
            cache: from `decoder_cache`, with the kept latents of the earlier blocks of one clip. It is updated.
        """
        return self.draw_patches(self.decode_patches(inputs, lengths, cache))

    def decode_patches(
        self, inputs: Tensor, lengths: Sequence[Sequence[int]], cache: BlockKVCache | None = None
    ) -> Tensor:
        """Compute the normalized patches `[B, g, P, D]` from which `draw_patches` makes clips; see `decode`."""
        c = self.config
        b, g, k = inputs.shape[:3]
        first_block, past = (0, 0) if cache is None else (cache.blocks, cache.rows)
        stop = first_block + g
        positions = self.decoder_latent_positions.view(c.blocks, c.latents, -1)[first_block:stop]
        latents = inputs + positions[:, :k]
        queries = self._patch_queries(first_block, stop)
        if all(tuple(clip) == tuple(lengths[0]) for clip in lengths):  # one plan for the whole batch
            lengths = lengths[:1]
        x, rotary = decoder_rows(latents, queries, lengths), None
        if c.decoder.rope:
            patch_rotary, latent_rotary = self._rotary_positions(first_block, stop)
            latent_rotary = latent_rotary[:, :k].expand(len(lengths), -1, -1, -1)
            rotary = decoder_rows(latent_rotary, patch_rotary.flatten(0, 1), lengths)[0]
        x = self.decoder(x, decoder_plan(lengths, c.patches, past), cache, rotary)
        if cache is not None:
            cache.keep(past + sum(lengths[0]), stop)
        return self.final_norm(x).view(b, g, c.patches, -1)

    def _patch_queries(self, start: int, stop: int) -> Tensor:
        """Embed the patches `[g * P, D]` of blocks `start … stop - 1` before the decoder."""
        c = self.config
        queries = self.decoder_patch_queries.view(c.blocks, c.patches, -1)[start:stop]
        return (queries + self.decoder_patch_type if c.patch_type_embedding else queries).flatten(0, 1)

    def decode_candidates(
        self,
        inputs: Tensor,
        earlier: Sequence[Sequence[int]],
        candidates: Sequence[int],
        cache: BlockKVCache | None = None,
    ) -> Tensor:
        """Decode the last block of clips at several lengths, all of them in one pass over the earlier blocks.

        Args:
            inputs: decoder inputs `[B, g, K, D]`. With a cache, those of the last block `[B, 1, K, D]`.
            earlier: lengths of the g - 1 blocks before it, of each clip. With a cache, they are not used.
            candidates: lengths of the block, at least 1.
            cache: from `decoder_cache`, with the earlier blocks, whose lengths are the same in all clips. Afterwards it
                also holds the block, at the last of the candidates.

        Returns:
            `[B, len(candidates), C, pt, S, S]`, not clamped to [0, 1].
        """
        c, (b, g) = self.config, inputs.shape[:2]
        first_block, past = (0, 0) if cache is None else (cache.blocks, cache.rows)
        stop, rotary = first_block + g, None
        if cache is not None:  # the candidate that stays in the cache comes first
            earlier, candidates = [[]], candidates[::-1]
        index = candidate_index(earlier, candidates, c.latents, c.patches).to(inputs.device)
        latents = inputs + self.decoder_latent_positions.view(c.blocks, c.latents, -1)[first_block:stop]
        queries = self._patch_queries(stop - 1, stop)
        if cache is None:
            x = torch.cat([latents.flatten(0, 2), queries]).index_select(0, index)[None]
        else:
            x = torch.cat([latents[:, 0], queries.expand(b, -1, -1)], 1).index_select(1, index)
        if c.decoder.rope:
            patch_rotary, latent_rotary = self._rotary_positions(first_block, stop)
            latent_rotary = latent_rotary.expand(len(earlier), -1, -1, -1).flatten(0, 2)
            rotary = torch.cat([latent_rotary, patch_rotary[-1]])[index]
        x = self.decoder(x, candidate_plan(earlier, candidates, c.patches, past), cache, rotary)
        clips = self.draw_patches(self.final_norm(x).view(b * len(candidates), 1, c.patches, -1)).unflatten(0, (b, -1))
        if cache is None:
            return clips
        cache.keep(past + candidates[0], stop)
        return clips.flip(1)

    def decode_probes(self, inputs: Tensor, lengths: Sequence[int], probes: Sequence[tuple[int, int]]) -> Tensor:
        """Decode a clip at its lengths, and again from a block on at which one length differs, for several such
        probes. One pass computes the latents that probes share once.

        Args:
            inputs: decoder inputs `[g, K, D]`.
            lengths: of the g blocks.
            probes: blocks, and other lengths of them.

        Returns:
            Blocks `[n, C, pt, S, S]`, not clamped to [0, 1]: the g blocks of the clip, and then those from its own on
            of each probe.
        """
        c, g = self.config, len(inputs)
        index = probe_index(lengths, probes, c.latents, c.patches).to(inputs.device)
        latents = inputs + self.decoder_latent_positions.view(c.blocks, c.latents, -1)[:g]
        x, rotary = torch.cat([latents.flatten(0, 1), self._patch_queries(0, g)]).index_select(0, index)[None], None
        if c.decoder.rope:
            patch_rotary, latent_rotary = self._rotary_positions(0, g)
            rotary = torch.cat([latent_rotary.flatten(0, 1), patch_rotary.flatten(0, 1)])[index]
        x = self.decoder(x, probe_plan(lengths, probes, c.patches), None, rotary)
        return self.draw_patches(self.final_norm(x).view(-1, 1, c.patches, x.shape[-1]))

    def prefill(self, inputs: Tensor, lengths: Sequence[int], cache: BlockKVCache) -> None:
        """Add the kept latents of a clip's first blocks to an empty cache, without decoding pixels.

        Args:
            inputs: decoder inputs `[B, g, K, D]`.
            lengths: of the g blocks, the same for all clips.
            cache: from `decoder_cache`.
        """
        g = inputs.shape[1]
        latents = inputs + self.decoder_latent_positions.view(self.config.blocks, self.config.latents, -1)[:g]
        x, rotary = kept_rows(latents, lengths), None
        if self.config.decoder.rope:
            rotary = kept_rows(self._rotary_positions(0, g)[1][None], lengths)[0]
        self.decoder(x, decoder_plan([lengths], 0), cache, rotary)
        cache.keep(x.shape[1], g)

    def forward(
        self,
        clips: Tensor,
        lengths: Sequence[Sequence[int]],
        *,
        generator: torch.Generator | None = None,
        sample: bool = False,
    ) -> tuple[Tensor, Quantized]:
        """Reconstruct clips at these lengths. Differentiable.

        Returns:
            the clips `[B, C, T, S, S]`, not clamped, and the result of the quantizer.
        """
        encoded = self.encode(clips)
        kept = kept_mask(lengths, self.config.latents, encoded.device)
        quantized = self.quantize(encoded, kept=kept, generator=generator, sample=sample)
        return self.decode(self.project_codes(quantized.codes), lengths), quantized
