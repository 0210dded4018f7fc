"""A whole model: a tokenizer, and optionally a scorer and a prior."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from adaptok.config.model import ModelConfig
from adaptok.models.prior import Prior
from adaptok.models.scorer import BaseScorer
from adaptok.models.spectrum_scorer import build_scorer
from adaptok.models.tokenizer import Tokenizer


class Model(nn.Module):
    """Container of the components in one checkpoint. They are used directly, so it has no forward of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        tokenizer = config.tokenizer
        self.tokenizer = Tokenizer(tokenizer)
        self.scorer: BaseScorer | None = None if config.scorer is None else build_scorer(config.scorer, tokenizer)
        self.prior = (
            None
            if config.prior is None
            else Prior(config.prior, tokenizer.blocks * tokenizer.latents, tokenizer.quantizer.code_dim)
        )

    @property
    def device(self) -> torch.device:
        return self.tokenizer.to_code.weight.device

    def parameter_counts(self) -> dict[str, int]:
        """Count the parameters of each component, without fixed embeddings."""
        return {name: sum(p.numel() for p in child.parameters()) for name, child in self.named_children()}


def weights_hash(state: Mapping[str, Tensor], prefix: str = "tokenizer.") -> str:
    """Compute the SHA-256 of the weights of one component, by default the tokenizer.

    Weights are hashed as float32, so that every lossless storage format has the same hash.
    """
    digest = hashlib.sha256()
    for name in sorted(name for name in state if name.startswith(prefix)):
        tensor = state[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
