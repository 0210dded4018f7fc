"""Whether a model can fit into the memory of the machine, before anything is allocated."""

from __future__ import annotations

from adaptok.config.model import ModelConfig
from adaptok.config.transformer import TransformerConfig
from adaptok.utils.system import total_memory

_WEIGHT_BYTES = 4
_ATTENTION_MATRICES = 4  # of width x width: query, key, value and output


def check_memory(config: ModelConfig | TransformerConfig) -> None:
    """Check that the weights of the transformer stacks alone, in float32, fit into the memory of the machine.

    Raises:
        ValueError: They do not. Training needs at least four times as much, so this finds mistyped sizes only.
    """
    if isinstance(config, ModelConfig):
        parts = (config.tokenizer.encoder, config.tokenizer.decoder, config.scorer, config.prior)
        stacks: list[TransformerConfig] = [part for part in parts if part is not None]
    else:
        stacks = [config]
    weights = sum(stack.depth * (_ATTENTION_MATRICES * stack.width**2 + stack.mlp_weights) for stack in stacks)
    memory = total_memory()
    if memory is not None and _WEIGHT_BYTES * weights > memory:
        raise ValueError(
            f"a model of {weights:.3g} weights needs {_WEIGHT_BYTES * weights / 2**30:,.0f} GiB for the weights alone,"
            f" and this machine has {memory / 2**30:,.0f} GiB; lower the width or the depth"
        )
