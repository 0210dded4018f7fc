"""A whole model: tokenizer, and where there are, scorer and prior."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from adaptok.config.model import ModelConfig
from adaptok.models.prior import Prior
from adaptok.models.scorer import Scorer
from adaptok.models.tokenizer import Tokenizer


class Model(nn.Module):
    """Container of the parts that one checkpoint holds. Parts are used directly; it has no forward of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        tokenizer = config.tokenizer
        self.tokenizer = Tokenizer(tokenizer)
        self.scorer = None if config.scorer is None else Scorer(config.scorer, tokenizer)
        self.prior = (
            None
            if config.prior is None
            else Prior(config.prior, tokenizer.blocks * tokenizer.latents, tokenizer.quantizer.code_dim)
        )

    @property
    def device(self) -> torch.device:
        return self.tokenizer.to_code.weight.device

    def parameter_counts(self) -> dict[str, int]:
        """Parameters by part; fixed embeddings are not counted."""
        parts = {name: part for name, part in self.named_children() if part is not None}
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def weights_hash(state: Mapping[str, Tensor], prefix: str = "tokenizer.") -> str:
    """SHA-256 of the weights of one part, the tokenizer, as float32: lossless storage formats give the same value."""
    digest = hashlib.sha256()
    for name in sorted(name for name in state if name.startswith(prefix)):
        tensor = state[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
