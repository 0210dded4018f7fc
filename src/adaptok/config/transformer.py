"""Configuration of transformer stacks."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from adaptok.config.base import Config, Count, Depth

MLP_RATIO = 4
"""Width of the hidden layer of an MLP, as a multiple of the width of the stack."""


class TransformerConfig(Config):
    """Size of a stack of pre-norm transformer blocks, whose MLPs are four times as wide as the stack."""

    width: Count
    """Number of dimensions of the rows between blocks."""
    depth: Depth
    """Number of blocks."""
    heads: Count
    """Number of attention heads. It divides the width."""

    @model_validator(mode="after")
    def _check(self) -> TransformerConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self

    @property
    def mlp_weights(self) -> int:
        """Number of weights in the matrices of one MLP."""
        return 2 * MLP_RATIO * self.width**2


class StackConfig(TransformerConfig):
    """Size and options of the tokenizer's encoder or decoder. The defaults are those of the official models."""

    mlp: Literal["gelu", "swiglu"] = "gelu"
    """MLP of each block: 'gelu' is two linear layers around a GELU, 'swiglu' is SwiGLU (arXiv 2002.05202) without
    biases. Both have the same number of weights, up to rounding."""
    norm: Literal["layer", "rms"] = "layer"
    """Normalization before attention, before the MLP and after the last block: 'layer' is LayerNorm, 'rms' is RMSNorm
    (arXiv 1910.07467)."""
    qk_norm: bool = False
    """Normalize the queries and keys of each head with RMSNorm (arXiv 2010.04245), which bounds the attention
    scores."""
    rope: bool = False
    """Rotate queries and keys by their positions (arXiv 2104.09864), in addition to the positional embeddings. The head
    dimension, width / heads, must be a multiple of 8."""

    def changed_options(self) -> str:
        """List the options that differ from their defaults, as "mlp 'swiglu', rope True"."""
        options = {name: f.default for name, f in StackConfig.model_fields.items() if not f.is_required()}
        changed = {name: getattr(self, name) for name, default in options.items() if getattr(self, name) != default}
        return ", ".join(f"{name} {value!r}" for name, value in changed.items())

    @property
    def hidden(self) -> int:
        """Width of the MLP's hidden layer: 4 widths, or for SwiGLU 8/3 widths rounded up to a multiple of 16."""
        return MLP_RATIO * self.width if self.mlp == "gelu" else -(-2 * MLP_RATIO * self.width // 48) * 16

    @property
    def mlp_weights(self) -> int:
        """Number of weights in the matrices of one MLP."""
        return (2 if self.mlp == "gelu" else 3) * self.width * self.hidden

    @model_validator(mode="after")
    def _check_rope(self) -> StackConfig:
        size = self.width // self.heads
        if self.rope and size % 8:
            raise ValueError(
                f"rope needs a head dimension that is a multiple of 8, but width {self.width} / heads {self.heads} is"
                f" {size}; change width or heads, or set rope to false"
            )
        return self
