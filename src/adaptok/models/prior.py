"""Prior: a small causal transformer whose training loss makes ids easy to predict (LARP, arXiv 2410.21264).

Dropped latents are removed: a clip is its kept codes, each with its position among all latents of the clip.

Legend: `B` clips, `N` latents of a clip, `M` kept latents of the longest clip, `Z` dimensions of a code, `V` codebook
entries, `D` width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptok.config.model import PriorConfig
from adaptok.config.transformer import MLP_RATIO
from adaptok.models.quantizer import draw
from adaptok.models.transformer import initialize_linears
from adaptok.ops.causal_attention import causal_attention


class KeptCodes(NamedTuple):
    """Kept latents of each clip, left-aligned and padded with zeros.

    Rows are one longer than the kept latents of the longest clip, unless it dropped nothing; see `Prior.loss`.

    codes: `[B, M, Z]`.
    ids: int64 `[B, M]`.
    positions: int64 `[B, M]`, index of each code among all latents of its clip.
    valid: bool `[B, M]`, False for padding.
    """

    codes: Tensor
    ids: Tensor
    positions: Tensor
    valid: Tensor


def select_kept(codes: Tensor, ids: Tensor, kept: Tensor) -> KeptCodes:
    """Select the kept latents of `codes [B, N, Z]` and `ids [B, N]`, given the bool mask `kept [B, N]`."""
    order = torch.argsort(~kept, dim=1, stable=True)[:, : int(kept.sum(1).max()) + 1]
    valid = kept.gather(1, order)
    rows = codes.gather(1, order[..., None].expand(-1, -1, codes.shape[-1])) * valid[..., None]
    return KeptCodes(rows, ids.gather(1, order) * valid, order, valid)


class PriorAttention(nn.Module):
    """Causal multi-head self-attention with biases."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, m, width = x.shape
        q, k, v = (f(x).view(b, m, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        y = causal_attention(q, k, v, self.dropout if self.training else 0.0)
        return F.dropout(self.proj(y.transpose(1, 2).reshape(b, m, width)), self.dropout, self.training)


class PriorBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = PriorAttention(width, heads, dropout)
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width),
            nn.GELU(),
            nn.Linear(MLP_RATIO * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class Prior(nn.Module):
    """Causal transformer over continuous codes; logits are cosine similarities with the codebook."""

    def __init__(self, config: PriorConfig, positions: int, code_dim: int) -> None:
        super().__init__()
        self.config = config
        self.input = nn.Linear(code_dim, config.width)
        self.positions = nn.Parameter(torch.zeros(positions, config.width))
        self.blocks = nn.ModuleList(PriorBlock(config.width, config.heads, config.dropout) for _ in range(config.depth))
        self.final_norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, code_dim)
        initialize_linears(self)

    def forward(self, codes: Tensor, positions: Tensor, codebook: Tensor) -> Tensor:
        """Compute the logits `[B, M, V]` of the id after each of `codes [B, M, Z]`.

        Args:
            positions: int64 `[B, M]`, index of each code among all latents of its clip.
            codebook: `[V, Z]`. It receives no gradient.
        """
        x = self.input(codes.to(self.input.weight.dtype)) + self.positions[positions]
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        predicted = F.normalize(self.head(self.final_norm(x)).float(), dim=-1)
        return predicted @ F.normalize(codebook.detach().float(), dim=-1).T / self.config.temperature

    def loss(
        self,
        row: KeptCodes,
        codebook: Tensor,
        *,
        replaced: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Compute the mean cross-entropy, in nats, of the id after each kept latent given all latents up to it.

        As in the official program, the id after the last kept latent of a clip that dropped some is 0.

        Args:
            replaced: fraction of the inputs that a second round replaces by ids drawn from the logits of the first
                (scheduled sampling). The loss is the mean of both rounds. 0 computes one teacher-forced round.
        """
        targets, valid = row.ids[:, 1:], row.valid[:, :-1]
        logits = self(row.codes[:, :-1], row.positions[:, :-1], codebook)
        first = _cross_entropy(logits, targets, valid)
        if replaced <= 0:
            return first
        drawn = draw(logits.detach()[:, :-1], generator)  # the ids at 1 … M - 2, which are inputs too
        chance = torch.rand(drawn.shape, generator=generator, device=drawn.device)
        mixed = row.codes[:, :-1].clone()
        swap = (chance < replaced)[..., None]
        mixed[:, 1:] = torch.where(swap, F.normalize(codebook.detach().float(), dim=-1)[drawn], mixed[:, 1:])
        second = _cross_entropy(self(mixed, row.positions[:, :-1], codebook), targets, valid)
        return (first + second) / 2

    def replaced_fraction(self, progress: float) -> float:
        """Fraction of inputs to replace at `progress` in [0, 1] of the training."""
        return self.config.sampling_peak * min(1.0, progress / self.config.sampling_ramp)


def _cross_entropy(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    return F.cross_entropy(logits[valid].float(), targets[valid])
