"""Scorer that reads the energy of the pixels in frequency bands.

How fast the distortion of a block falls with its tokens depends mostly on how the energy of its pixels is spread over
spatial frequencies, and on how much of it changes over time. An MLP predicts the curve from these energies and from the
lengths of earlier blocks. Where all blocks of a clip are at hand, it also reads those of later blocks, which see the
tokens of the scored one; in a stream, these count as unknown. The energies come from repeated averaging of 2 x 2
pixels, so scoring takes a small part of the time of encoding.

Legend: `B` clips, `C` channels, `S` pixels, `pt` frames per block, `g` blocks of a call, `G` blocks of a clip, `K`
latents of a block, `L` = K / length_step candidate lengths, `F` = 4 n features of a block, `n` bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptok.config.model import ScorerConfig
from adaptok.config.tokenizer import TokenizerConfig
from adaptok.models.kv_cache import BlockKVCache
from adaptok.models.scorer import BaseScorer, Scorer

_FLOOR = 1e-6
"""Added to energies before their logarithm is taken: about the variance that rounding to 8 bits adds."""
_CENTER, _SPREAD = -8.0, 3.0
"""About the mean and the standard deviation of the logarithms over bands and videos."""


def build_scorer(config: ScorerConfig, tokenizer: TokenizerConfig) -> BaseScorer:
    """Build the scorer that reads what `config.reads` names."""
    return (Scorer if config.reads == "latents" else SpectrumScorer)(config, tokenizer)


def band_count(size: int) -> int:
    """Return n for frames of `size x size` pixels: one band per octave, and the mean."""
    return size.bit_length()


def band_energies(images: Tensor, bands: int) -> Tensor:
    """Split the mean square of images into octaves of spatial frequency.

    Band i holds what averaging blocks of 2^(i + 1) x 2^(i + 1) pixels removes from averages of 2^i x 2^i pixels. The
    last one holds the rest, so that for sizes that are powers of 2, the bands add up to the mean square.

    Args:
        images: `[N, m, S, S]`, N groups of m images.
        bands: n, at least 1.

    Returns:
        `[N, n]`, means over the images of each group; 0 for groups without images.
    """
    if images.shape[1] == 0:
        return images.new_zeros(len(images), bands)
    energies, total = [], images.square().mean((1, 2, 3))
    for _ in range(bands - 1):
        images = F.avg_pool2d(images, 2)
        coarse = images.square().mean((1, 2, 3))
        energies.append(total - coarse)
        total = coarse
    return torch.stack([*energies, total], 1)


def spectrum_features(clips: Tensor, blocks: int, previous: Tensor | None = None) -> Tensor:
    """Compute what a `SpectrumScorer` reads of g blocks: normalized logarithms of band energies.

    They are those of the mean frame of a block, of the differences of its frames from it, of its difference from the
    mean frame of the block before, and of the differences of neighbouring frames, all in gray.

    Args:
        clips: `[B, C, g * pt, S, S]` in [0, 1].
        blocks: g.
        previous: `[B, C, pt, S, S]`, the block before them; None at the beginning of a clip.

    Returns:
        float32 `[B, g, F]`.
    """
    gray = clips.float().mean(1) - 0.5  # [B, g * pt, S, S]
    frames = gray.unflatten(1, (blocks, -1))  # [B, g, pt, S, S]
    means = frames.mean(2)
    before = means[:, :1] if previous is None else previous.float().mean((1, 2))[:, None] - 0.5
    change = torch.diff(means, dim=1, prepend=before)
    parts = [means[:, :, None], frames - means[:, :, None], change[:, :, None], torch.diff(frames, dim=2)]
    bands = band_count(clips.shape[-1])
    energies = torch.cat([band_energies(part.flatten(0, 1), bands) for part in parts], 1)
    logs = (energies.clamp(min=0) + _FLOOR).log()
    return ((logs - _CENTER) / _SPREAD).unflatten(0, (-1, blocks))


class SpectrumScorer(BaseScorer):
    """MLP over the band energies of a block and of the others of its clip that are known, and over the lengths of those
    before it."""

    def __init__(self, config: ScorerConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__(config, tokenizer)
        blocks, width, features = self.blocks_per_clip, config.width, 4 * band_count(tokenizer.size)
        inputs = features + blocks * features + 3 * blocks
        widths = [inputs, *[width] * config.depth]
        hidden = [nn.Sequential(nn.Linear(a, b), nn.GELU()) for a, b in pairwise(widths)]
        self.head = nn.Sequential(*hidden, nn.Linear(width, self.latents // config.length_step))

    def cache(self, clips: int) -> BlockKVCache:
        """Create an empty cache, which keeps the features of earlier blocks."""
        return BlockKVCache(1, self.blocks_per_clip)

    def features(self, clips: Tensor | None, encoded: Tensor, previous: Tensor | None = None) -> Tensor:
        """Compute the features `[B, g, F]`; see `spectrum_features` and `BaseScorer.features`."""
        assert clips is not None
        previous = None if previous is None else previous.to(encoded.device)
        return spectrum_features(clips.to(encoded.device), encoded.shape[1], previous)

    def forward(
        self,
        features: Tensor,
        decoder_inputs: Tensor,
        lengths: Sequence[Sequence[int]] | Tensor,
        cache: BlockKVCache | None = None,
        *,
        lookahead: bool = False,
    ) -> Tensor:
        """Compute normalized scores; see `BaseScorer.forward`. Latents are not read.

        Args:
            lookahead: score each block given all blocks of `features`, which may be more than those of `lengths`. By
                default, it is given those up to itself.
        """
        first_block = 0 if cache is None else cache.blocks
        known = features if cache is None else cache.append(0, features)
        kept = torch.as_tensor(lengths, device=features.device)
        return self.shape(self.head(self._inputs(known, kept, first_block, lookahead)).float(), first_block)

    def prefill(
        self, features: Tensor, decoder_inputs: Tensor, lengths: Sequence[Sequence[int]], cache: BlockKVCache
    ) -> None:
        """Add the features of blocks to the cache; see `BaseScorer.prefill`."""
        blocks = cache.append(0, features).shape[1]
        cache.keep(blocks, blocks)

    def _inputs(self, features: Tensor, lengths: Tensor, first_block: int, lookahead: bool) -> Tensor:
        """Arrange features `[B, m, F]` of the known blocks as inputs of the MLP, for the blocks from `first_block` on
        that have lengths `[B, n]`."""
        (b, m), n, blocks, weight = (
            features.shape[:2],
            lengths.shape[1],
            self.blocks_per_clip,
            next(self.head.parameters()),
        )
        ones = features.new_ones(blocks, blocks)
        earlier = ones.tril(-1)[first_block:n]  # [g, G]
        present = (torch.arange(blocks, device=features.device) < m).to(features.dtype)
        seen = present.expand_as(earlier) if lookahead else ones.tril()[first_block:n]
        history = F.pad(features, (0, 0, 0, blocks - m))[:, None] * seen[None, :, :, None]
        logs = F.pad((lengths.clamp(min=1) / self.latents).log() + 1, (0, blocks - n))[:, None] * earlier
        index = torch.eye(blocks, device=features.device)[first_block:n]
        masks = torch.cat([index, seen], -1).expand(b, -1, -1)
        joined = torch.cat([features[:, first_block:n], history.flatten(2), logs, masks], -1)
        return joined.to(weight.dtype)
