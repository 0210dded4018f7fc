"""Quantizers, from codes to ids and back: cosine vector quantization, and finite scalar quantization.

Legend: `Z` dimensions of a code, `V` codebook entries. Leading dimensions are free.
"""

from __future__ import annotations

from itertools import accumulate
from operator import mul
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptok.config.tokenizer import ScalarQuantizerConfig, VectorQuantizerConfig

_CHUNK_SIMILARITIES = 2**23


class Quantized(NamedTuple):
    """Result of a quantizer.

    ids: int64 `[...]` in [0, V).
    codes: `[..., Z]`, the codebook entries of the ids. The gradient passes straight through to the input.
    normalized: `[..., Z]`, the input as it is compared with the codebook.
    commitment, codebook: scalar losses over the kept latents, unweighted; 0 for a quantizer without losses.
    """

    ids: Tensor
    codes: Tensor
    normalized: Tensor
    commitment: Tensor
    codebook: Tensor


class Quantizer(Protocol):
    """Interface of a quantizer to the tokenizer."""

    def __call__(
        self, z: Tensor, *, kept: Tensor | None = None, generator: torch.Generator | None = None, sample: bool = False
    ) -> Quantized: ...

    def lookup(self, ids: Tensor) -> Tensor: ...

    def loss(self, quantized: Quantized) -> Tensor: ...


def draw(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw one index `[...]` per row of `logits [..., V]` from softmax(logits), by the Gumbel-max trick."""
    noise = torch.empty_like(logits).exponential_(generator=generator)
    return (logits - noise.log()).argmax(-1)


class VectorQuantizer(nn.Module):
    """Quantize to the entry of a normalized codebook with the highest cosine similarity, with a straight-through
    gradient."""

    def __init__(self, config: VectorQuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook = nn.Parameter(torch.empty(config.size, config.dim))
        nn.init.kaiming_uniform_(self.codebook)

    def forward(
        self, z: Tensor, *, kept: Tensor | None = None, generator: torch.Generator | None = None, sample: bool = False
    ) -> Quantized:
        """Quantize `z [..., Z]`.

        Args:
            kept: bool `[...]`, the latents that count in the losses; all if None.
            generator: random state of the draw.
            sample: draw ids from softmax(cosine / temperature) instead of taking the nearest.
        """
        normalized = F.normalize(z.float(), dim=-1)
        codebook = F.normalize(self.codebook.float(), dim=-1)
        ids = self._choose(normalized.detach(), codebook.detach(), generator, sample)
        chosen = codebook[ids]
        weight = torch.ones_like(ids, dtype=torch.float32) if kept is None else kept.float()
        scale = 1 / (weight.sum().clamp(min=1) * normalized.shape[-1])
        commitment = ((chosen.detach() - normalized).square().sum(-1) * weight).sum() * scale
        codebook_loss = ((chosen - normalized.detach()).square().sum(-1) * weight).sum() * scale
        codes = normalized + (chosen - normalized).detach()
        return Quantized(ids, codes, normalized, commitment, codebook_loss)

    def _choose(self, z: Tensor, codebook: Tensor, generator: torch.Generator | None, sample: bool) -> Tensor:
        """Choose ids `[...]` for `z [..., Z]`, in float32 also under autocast: in bfloat16, many similarities are
        equal, and dividing them by the official temperature of 0.03 leaves errors of up to 0.07."""
        rows = z.reshape(-1, z.shape[-1])
        stochastic = sample and self.config.temperature > 0
        chosen = []
        with torch.autocast(z.device.type, enabled=False):
            for chunk in rows.split(max(1, _CHUNK_SIMILARITIES // len(codebook))):
                cosine = chunk @ codebook.T
                chosen.append(draw(cosine / self.config.temperature, generator) if stochastic else cosine.argmax(-1))
        return torch.cat(chosen).view(z.shape[:-1])

    def lookup(self, ids: Tensor) -> Tensor:
        """Look up the codes `[..., Z]` of ids `[...]`."""
        return F.normalize(self.codebook.float()[ids], dim=-1)

    def loss(self, quantized: Quantized) -> Tensor:
        """Compute the weighted sum of the commitment and codebook losses."""
        config = self.config
        return config.commitment_weight * quantized.commitment + config.codebook_weight * quantized.codebook


class ScalarQuantizer(nn.Module):
    """Quantize each dimension to the nearest of `levels[i]` evenly spaced values in [-1, 1], after tanh."""

    def __init__(self, config: ScalarQuantizerConfig) -> None:
        super().__init__()
        self.config = config

    def _constants(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Compute the highest index of each dimension, and the place value of each dimension in an id."""
        levels = self.config.levels
        strides = accumulate(levels[:-1], mul, initial=1)
        top = torch.tensor([level - 1.0 for level in levels], device=device)
        return top, torch.tensor(list(strides), device=device)

    def forward(
        self, z: Tensor, *, kept: Tensor | None = None, generator: torch.Generator | None = None, sample: bool = False
    ) -> Quantized:
        """Quantize `z [..., Z]`; see `VectorQuantizer.forward`. There are no losses, so `kept` is not used."""
        top, strides = self._constants(z.device)
        bounded = z.float().tanh()
        place = (bounded + 1) / 2 * top  # 0 … level - 1
        if sample and self.config.temperature > 0:
            index = self._draw(place.detach(), top, generator)
        else:
            index = place.detach().round()
        chosen = index / top * 2 - 1
        codes = bounded + (chosen - bounded).detach()
        zero = codes.new_zeros(())
        return Quantized((index.long() * strides).sum(-1), codes, bounded, zero, zero)

    def _draw(self, place: Tensor, top: Tensor, generator: torch.Generator | None) -> Tensor:
        below = place.floor()
        candidates = torch.stack([below, torch.minimum(below + 1, top)], -1)
        logits = -(place[..., None] - candidates).square() / self.config.temperature
        return candidates.gather(-1, draw(logits, generator)[..., None])[..., 0]

    def lookup(self, ids: Tensor) -> Tensor:
        """Look up the codes `[..., Z]` of ids `[...]`."""
        top, strides = self._constants(ids.device)
        return (ids[..., None] // strides) % (top.long() + 1) / top * 2 - 1

    def loss(self, quantized: Quantized) -> Tensor:
        """Return 0: this quantizer has no losses."""
        return quantized.commitment


def build_quantizer(config: VectorQuantizerConfig | ScalarQuantizerConfig) -> VectorQuantizer | ScalarQuantizer:
    """Build the configured quantizer."""
    if isinstance(config, VectorQuantizerConfig):
        return VectorQuantizer(config)
    return ScalarQuantizer(config)
