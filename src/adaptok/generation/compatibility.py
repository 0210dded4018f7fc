"""Check that a generator and a tokenizer belong together."""

from __future__ import annotations

from adaptok.codec.codec import AdapTok
from adaptok.config.generator import GeneratorConfig


class GeneratorMismatchError(ValueError):
    """A generator was trained on the ids of another tokenizer."""


def check_compatible(config: GeneratorConfig, codec: AdapTok) -> None:
    """Check that a generator writes the ids of a tokenizer.

    Raises:
        GeneratorMismatchError: sizes or weights of the tokenizer differ from those in the generator's configuration.
    """
    c = codec.config.tokenizer
    expected = (config.codebook_size, config.latents, config.first_block + config.blocks)
    actual = (c.quantizer.codebook_size, c.latents, c.blocks)
    if expected != actual:
        raise GeneratorMismatchError(
            f"the generator {config.name!r} writes ids, latents and blocks {expected}, the tokenizer"
            f" {codec.config.name!r} has {actual}; give the tokenizer that it was trained with"
        )
    if config.model_hash is not None and config.model_hash != codec.weights_hash:
        raise GeneratorMismatchError(
            f"the generator {config.name!r} was trained with the tokenizer {config.model!r} with weights"
            f" {config.model_hash[:12]}, this is {codec.config.name!r} with {codec.weights_hash[:12]}; give that"
            " tokenizer"
        )


def is_compatible(config: GeneratorConfig, codec: AdapTok) -> bool:
    """Return whether a generator writes the ids of a tokenizer."""
    try:
        check_compatible(config, codec)
    except GeneratorMismatchError:
        return False
    return True
