"""Least work of the models: matrix products and convolutions alone, two operations for a multiplication and addition.

Rows that nobody reads leave the last layer out, dropped latents cost nothing, and no query meets a key that it may not
see.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from adaptok.config.model import (
    ConvolutionConfig,
    DiscriminatorConfig,
    GeneratorConfig,
    ModelConfig,
    PatchDiscriminatorConfig,
    TokenizerConfig,
    TransformerConfig,
    TransformerDiscriminatorConfig,
)


def stack_work(
    stack: TransformerConfig, rows: float, pairs: float, last_rows: float | None = None, last_pairs: float | None = None
) -> float:
    """Operations of a transformer stack: `rows` of tokens, `pairs` of a query and a key that it sees.

    Args:
        last_rows, last_pairs: those that leave the last layer; all of them if None.
    """
    d = stack.width
    keep_rows, keep_pairs = rows if last_rows is None else last_rows, pairs if last_pairs is None else last_pairs
    mlp = 2 * stack.mlp_weights
    whole = (8 * d * d + mlp) * rows + 4 * d * pairs
    last = 4 * d * d * rows + (4 * d * d + mlp) * keep_rows + 4 * d * keep_pairs
    return (stack.depth - 1) * whole + last


def convolution_work(conv: ConvolutionConfig | None, clips: TokenizerConfig, width: int, pixel_taps: int) -> float:
    """Operations of a stem or a head for one block; 0 without one.

    Args:
        width: D of the stack beside it.
        pixel_taps: places that the layer next to the pixels reads, 1 in a stem and 9 in a head.
    """
    if conv is None:
        return 0.0
    cell, widths = conv.cell(clips.patch_size), (*conv.channels, width)
    side = clips.size // cell
    work = 2.0 * pixel_taps * side**2 * clips.channels * clips.temporal_patch_size * cell**2 * widths[0]
    for fine, coarse in pairwise(widths):
        work += 36 * conv.depth * side**2 * fine**2  # two kernels of 3 x 3 in each residual block
        side //= 2
        work += 8 * side**2 * fine * coarse
    return work


def encoder_work(config: ModelConfig) -> float:
    """Operations to make the ids of one clip, and what the scorer and decoder read."""
    c = config.tokenizer
    group, g, k, d = c.patches + c.latents, c.blocks, c.latents, c.encoder.width
    seen = [(i + 1) * group for i in range(g)]
    work = stack_work(c.encoder, g * group, group * sum(seen), g * k, k * sum(seen))
    work += 2 * g * c.patches * c.input_dim * d + g * convolution_work(c.stem, c, d, 1)
    code = c.quantizer.code_dim
    return work + 2 * g * k * code * (d + c.quantizer.codebook_size + c.decoder.width)


def scorer_work(config: ModelConfig, lengths: Sequence[int] | None) -> float:
    """Operations to score one clip: with everything kept, or block by block given the lengths of earlier blocks."""
    c, s = config.tokenizer, config.scorer
    assert s is not None
    g, k, levels = c.blocks, c.latents, c.latents // s.length_step
    kept = [k] * g if lengths is None else list(lengths)
    before = [sum(kept[:i]) for i in range(g)]
    pairs = sum(k * (before[i] + k) for i in range(g))
    read = sum(levels * (before[i] + k) for i in range(g))
    work = stack_work(s, g * k, pairs, g * levels, read)
    work += 2 * g * k * (c.encoder.width + c.decoder.width) * s.width + 4 * g * levels * s.width * (s.width + 1)
    if lengths is not None:  # blocks but the last once more, at the lengths that later ones see
        again = sum(n * (b + n) for n, b in zip(kept[:-1], before, strict=False))
        work += stack_work(s, before[-1], again, 0, 0)
    return work


def decoder_work(config: ModelConfig, lengths: Sequence[int]) -> float:
    """Operations to decode one clip."""
    c = config.tokenizer
    kept, p, code = sum(lengths), c.patches, c.quantizer.code_dim
    upto = [sum(lengths[: i + 1]) for i in range(c.blocks)]
    of_latents = sum(n * u for n, u in zip(lengths, upto, strict=True))
    of_patches = sum(p * (u + p) for u in upto)
    rows = c.blocks * p
    work = stack_work(c.decoder, kept + rows, of_latents + of_patches, rows, of_patches)
    return work + 2 * kept * code * c.decoder.width + c.blocks * output_work(c)


def output_work(c: TokenizerConfig) -> float:
    """Operations from the decoder's patches of one block to pixels."""
    width = c.decoder.width
    return 2 * c.patches * width * c.output_dim + convolution_work(c.head, c, width, 9)


def probe_work(config: ModelConfig) -> float:
    """Operations to decode every block of one clip at the scorer's probe lengths, the latents before it kept whole."""
    c, s = config.tokenizer, config.scorer
    assert s is not None
    if not s.probe_lengths:
        return 0.0
    k, p, code, work = c.latents, c.patches, c.quantizer.code_dim, 0.0
    for i in range(c.blocks):
        for n in s.probe_lengths:
            of_patches = p * (i * k + n + p)
            work += stack_work(c.decoder, n + p, n * (i * k + n) + of_patches, p, of_patches)
            work += 2 * n * code * c.decoder.width + output_work(c)
        if i < c.blocks - 1 and s.probe_lengths[-1] < k:  # its latents, that later blocks see
            work += stack_work(c.decoder, k, k * (i + 1) * k, 0, 0) + 2 * k * code * c.decoder.width
    return work


def prior_work(config: ModelConfig, kept: int) -> float:
    """Operations of one round of the prior over the kept latents of one clip."""
    prior, quantizer = config.prior, config.tokenizer.quantizer
    assert prior is not None
    work = stack_work(prior, kept, kept * (kept + 1) / 2)
    return work + 2 * kept * quantizer.code_dim * (2 * prior.width + quantizer.codebook_size)


def discriminator_work(config: DiscriminatorConfig, clips: TokenizerConfig) -> float:
    """Operations of a discriminator's forward pass over one clip."""
    if isinstance(config, PatchDiscriminatorConfig):
        inputs, shapes = (clips.channels, *config.widths), patch_shapes(config, clips)
        work = sum(2.0 * 48 * a * b * n for (a, b), n in zip(pairwise(inputs), shapes, strict=True))  # 3 x 4 x 4
        return work + 2 * 27 * config.widths[-1] * shapes[-1]
    rows = transformer_rows(config, clips)
    return stack_work(config, rows, rows * rows)


def patch_shapes(config: PatchDiscriminatorConfig, clips: TokenizerConfig) -> list[int]:
    """Number of places in space and time after each layer."""
    frames, size, places = clips.frames, clips.size, []
    for stride in config.temporal_strides:
        frames, size = -(-frames // stride), size // 2
        places.append(frames * size**2)
    return places


def transformer_rows(config: TransformerDiscriminatorConfig, clips: TokenizerConfig) -> int:
    """Number of patches of a clip, plus one for the class token."""
    return (clips.frames // config.temporal_patch_size) * (clips.size // config.patch_size) ** 2 + 1


def generator_work(config: GeneratorConfig, entries: int) -> float:
    """Operations of a generator over one clip, of which so many ids and end marks are asked for."""
    rows, d = config.prefix + entries - 1, config.width
    layer = rows * (8 * d * d + 6 * d * config.hidden) + 4 * d * rows * (rows + 1) / 2
    outputs = config.mixture * (sum(config.levels) + 1) + 1 if config.levels else config.vocabulary
    return config.depth * layer + 2 * entries * d * outputs
