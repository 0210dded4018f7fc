"""Minimum floating-point operations (FLOPs) of the models.

Only matrix products and convolutions count, with two operations per multiplication and addition. Rows that are not read
leave the last layer out, dropped latents cost nothing, and queries meet only the keys that they may see.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from adaptok.config.discriminator import DiscriminatorConfig, PatchDiscriminatorConfig, TransformerDiscriminatorConfig
from adaptok.config.generator import GeneratorConfig
from adaptok.config.model import ModelConfig
from adaptok.config.tokenizer import ConvolutionConfig, TokenizerConfig
from adaptok.config.transformer import TransformerConfig
from adaptok.models.spectrum_scorer import band_count


def stack_flops(
    stack: TransformerConfig, rows: float, pairs: float, last_rows: float | None = None, last_pairs: float | None = None
) -> float:
    """Count the FLOPs of a transformer stack.

    Args:
        rows: number of rows (patches and latents).
        pairs: number of pairs of a query and a key that it sees.
        last_rows, last_pairs: numbers of those that leave the last layer; all if None.
    """
    d = stack.width
    keep_rows, keep_pairs = rows if last_rows is None else last_rows, pairs if last_pairs is None else last_pairs
    mlp = 2 * stack.mlp_weights
    whole = (8 * d * d + mlp) * rows + 4 * d * pairs
    last = 4 * d * d * rows + (4 * d * d + mlp) * keep_rows + 4 * d * keep_pairs
    return (stack.depth - 1) * whole + last


def convolution_flops(conv: ConvolutionConfig | None, clips: TokenizerConfig, width: int, pixel_taps: int) -> float:
    """Count the FLOPs of a convolutional stem or head for one block; 0 without one.

    Args:
        width: D of the adjacent transformer.
        pixel_taps: kernel size of the layer next to the pixels, 1 in a stem and 9 in a head.
    """
    if conv is None:
        return 0.0
    cell, widths = conv.cell(clips.patch_size), (*conv.channels, width)
    side = clips.size // cell
    flops = 2.0 * pixel_taps * side**2 * clips.channels * clips.temporal_patch_size * cell**2 * widths[0]
    for fine, coarse in pairwise(widths):
        flops += 36 * conv.depth * side**2 * fine**2  # two kernels of 3 x 3 in each residual block
        side //= 2
        flops += 8 * side**2 * fine * coarse
    return flops


def encoder_flops(config: ModelConfig) -> float:
    """Count the FLOPs to encode one clip: its ids, and the inputs of the scorer and decoder."""
    c = config.tokenizer
    group, g, k, d = c.patches + c.latents, c.blocks, c.latents, c.encoder.width
    seen = [(i + 1) * group for i in range(g)]
    flops = stack_flops(c.encoder, g * group, group * sum(seen), g * k, k * sum(seen))
    flops += 2 * g * c.patches * c.input_dim * d + g * convolution_flops(c.stem, c, d, 1)
    code = c.quantizer.code_dim
    return flops + 2 * g * k * code * (d + c.quantizer.codebook_size + c.decoder.width)


def scorer_flops(config: ModelConfig, lengths: Sequence[int] | None) -> float:
    """Count the FLOPs to score one clip.

    Args:
        lengths: lengths of the blocks, for scoring block by block given those of earlier blocks. None keeps all
            latents.
    """
    c, s = config.tokenizer, config.scorer
    assert s is not None
    g, k, levels = c.blocks, c.latents, c.latents // s.length_step
    if s.reads == "spectrum":
        features = 4 * band_count(c.size)
        inputs = features + g * features + 2 * g
        return 2.0 * g * (inputs * s.width + (s.depth - 1) * s.width**2 + s.width * levels)
    kept = [k] * g if lengths is None else list(lengths)
    before = [sum(kept[:i]) for i in range(g)]
    pairs = sum(k * (before[i] + k) for i in range(g))
    read = sum(levels * (before[i] + k) for i in range(g))
    flops = stack_flops(s, g * k, pairs, g * levels, read)
    flops += 2 * g * k * (c.encoder.width + c.decoder.width) * s.width + 4 * g * levels * s.width * (s.width + 1)
    if lengths is not None:  # blocks but the last once more, at the lengths that later ones see
        again = sum(n * (b + n) for n, b in zip(kept[:-1], before, strict=False))
        flops += stack_flops(s, before[-1], again, 0, 0)
    return flops


def decoder_flops(config: ModelConfig, lengths: Sequence[int]) -> float:
    """Count the FLOPs to decode one clip at these lengths."""
    c = config.tokenizer
    kept, p, code = sum(lengths), c.patches, c.quantizer.code_dim
    seen_latents = [sum(lengths[: i + 1]) for i in range(c.blocks)]
    latent_pairs = sum(n * u for n, u in zip(lengths, seen_latents, strict=True))
    patch_pairs = sum(p * (u + p) for u in seen_latents)
    rows = c.blocks * p
    flops = stack_flops(c.decoder, kept + rows, latent_pairs + patch_pairs, rows, patch_pairs)
    return flops + 2 * kept * code * c.decoder.width + c.blocks * output_flops(c)


def output_flops(c: TokenizerConfig) -> float:
    """Count the FLOPs from the decoder's patches of one block to pixels."""
    width = c.decoder.width
    return 2 * c.patches * width * c.output_dim + convolution_flops(c.head, c, width, 9)


def probe_flops(config: ModelConfig) -> float:
    """Count the FLOPs to decode every block of one clip at the probe lengths, with all latents of the blocks before
    it."""
    c, s = config.tokenizer, config.scorer
    assert s is not None
    if not s.probe_lengths:
        return 0.0
    k, p, code, flops = c.latents, c.patches, c.quantizer.code_dim, 0.0
    for i in range(c.blocks):
        for n in s.probe_lengths:
            patch_pairs = p * (i * k + n + p)
            flops += stack_flops(c.decoder, n + p, n * (i * k + n) + patch_pairs, p, patch_pairs)
            flops += 2 * n * code * c.decoder.width + output_flops(c)
        if i < c.blocks - 1 and s.probe_lengths[-1] < k:  # all of its latents, which later blocks see
            flops += stack_flops(c.decoder, k, k * (i + 1) * k, 0, 0) + 2 * k * code * c.decoder.width
    return flops


def prior_flops(config: ModelConfig, kept: int) -> float:
    """Count the FLOPs of one round of the prior over the kept latents of one clip."""
    prior, quantizer = config.prior, config.tokenizer.quantizer
    assert prior is not None
    flops = stack_flops(prior, kept, kept * (kept + 1) / 2)
    return flops + 2 * kept * quantizer.code_dim * (2 * prior.width + quantizer.codebook_size)


def discriminator_flops(config: DiscriminatorConfig, clips: TokenizerConfig) -> float:
    """Count the FLOPs of a discriminator's forward pass over one clip."""
    if isinstance(config, PatchDiscriminatorConfig):
        inputs, shapes = (clips.channels, *config.widths), patch_shapes(config, clips)
        flops = sum(2.0 * 48 * a * b * n for (a, b), n in zip(pairwise(inputs), shapes, strict=True))  # 3 x 4 x 4
        return flops + 2 * 27 * config.widths[-1] * shapes[-1]
    rows = transformer_rows(config, clips)
    return stack_flops(config, rows, rows * rows)


def patch_shapes(config: PatchDiscriminatorConfig, clips: TokenizerConfig) -> list[int]:
    """Count the positions in space and time after each layer."""
    frames, size, places = clips.frames, clips.size, []
    for stride in config.temporal_strides:
        frames, size = -(-frames // stride), size // 2
        places.append(frames * size**2)
    return places


def transformer_rows(config: TransformerDiscriminatorConfig, clips: TokenizerConfig) -> int:
    """Count the patches of a clip, plus one for the class token."""
    return (clips.frames // config.temporal_patch_size) * (clips.size // config.patch_size) ** 2 + 1


def generator_flops(config: GeneratorConfig, entries: int) -> float:
    """Count the FLOPs of a generator over one clip.

    Args:
        entries: number of ids and end-of-block tokens to predict.
    """
    rows, d = config.prefix + entries - 1, config.width
    layer = rows * (8 * d * d + 6 * d * config.hidden) + 4 * d * rows * (rows + 1) / 2
    outputs = config.mixture * (sum(config.levels) + 1) + 1 if config.levels else config.vocabulary
    return config.depth * layer + 2 * entries * d * outputs
