"""Benchmarks of encoding and decoding clips.

Work counts the operations that the matrix products of block-causal attention need at least (`models/flops.py`), two for
a multiplication and an addition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from adaptok.allocation.policy import LengthPolicy
from adaptok.benchmark.timing import Measurement, measure
from adaptok.codec.codec import AdapTok
from adaptok.models.flops import decoder_flops, encoder_flops, probe_flops, scorer_flops

_SPREADS = ((0.875, 0.5, 0.375, 0.25), (0.25, 0.5, 0.5, 0.75), (1.0, 0.375, 0.375, 0.25), (0.5, 0.5, 0.5, 0.5))
"""Fractions of the latents of successive blocks: half of the tokens of a clip, distributed as an allocation may."""

Case = tuple[str, float, Callable[[], object]]


def measure_encode(codec: AdapTok, clips: int, repeats: int) -> list[Measurement]:
    """Measure the encoder, and the encoder with the scorer and an allocation of half of the tokens in two scopes."""
    config, video, half = codec.config, random_clips(codec, clips), codec.max_budget / 2
    encode = clips * encoder_flops(config)
    cases: list[Case] = [("encode", encode, lambda: codec.encode_clips(video))]
    if config.scorer is not None:
        choose = LengthPolicy(half, "batch").chooser(codec.layout)
        lengths, _ = codec.choose_lengths(codec.encode_clips(video), choose)
        causal = sum(scorer_flops(config, clip) for clip in lengths.tolist())

        def score_all() -> None:
            scores = codec.allocation_scores(codec.encode_clips(video)).flatten(0, 1).cpu().numpy()
            LengthPolicy(half).lengths(scores, len(scores), codec.layout)

        def score_blocks() -> None:
            codec.choose_lengths(codec.encode_clips(video), choose)

        probing = clips * probe_flops(config)
        whole = encode + clips * scorer_flops(config, None) + probing
        cases += [("encode, score and allocate, scope video", whole, score_all)]
        cases += [("encode, score and allocate, scope batch", encode + causal + probing, score_blocks)]
    return _measured(codec, cases, clips, repeats)


def measure_decode(codec: AdapTok, clips: int, repeats: int) -> list[Measurement]:
    """Measure decoding of half of the tokens, with lengths as an allocation may choose them and with equal lengths."""
    c = codec.config.tokenizer
    ids = codec.encode_clips(random_clips(codec, clips)).ids
    spreads = [_SPREADS[n % len(_SPREADS)] for n in range(clips)]
    lengths = [[round(spread[i % len(spread)] * c.latents) for i in range(c.blocks)] for spread in spreads]
    uniform = [[c.latents // 2] * c.blocks] * clips
    cases: list[Case] = [
        (f"decode, half of the tokens, {name}", sum(decoder_flops(codec.config, clip) for clip in rows), run)
        for name, rows, run in (
            ("varying lengths", lengths, lambda: codec.decode_clips(ids, lengths)),
            ("uniform lengths", uniform, lambda: codec.decode_clips(ids, uniform)),
        )
    ]
    return _measured(codec, cases, clips, repeats)


def random_clips(codec: AdapTok, clips: int) -> Tensor:
    """Draw clips `[B, C, T, S, S]` of noise."""
    c = codec.config.tokenizer
    generator = torch.Generator().manual_seed(0)
    return torch.rand(clips, c.channels, c.frames, c.size, c.size, generator=generator)


def _measured(codec: AdapTok, cases: list[Case], clips: int, repeats: int) -> list[Measurement]:
    settings: dict[str, Any] = {
        "model": codec.config.name,
        "dtype": str(codec.dtype).removeprefix("torch."),
        "clips": clips,
    }
    return [
        measure(case, settings, run, work, repeats=repeats, dtype=codec.dtype, device=codec.device)
        for case, work, run in cases
    ]
