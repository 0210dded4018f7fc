"""Conditions of frame prediction: the ids of the first frames of clips.

Legend: `B` clips, `F` first frames, `S` pixels of a side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adaptok.codec.codec import AdapTok
from adaptok.config.generator import GeneratorConfig
from adaptok.video.clips import pad_clip


def encode_conditions(config: GeneratorConfig, codec: AdapTok, clips: Tensor) -> Tensor:
    """Encode first frames as conditions, with all tokens.

    The last frame is repeated to fill its block. Later blocks of a clip would not change the ids.

    Args:
        config: configuration of the generator.
        codec: its tokenizer.
        clips: first frames `[B, 3, F, S, S]` in [0, 1].

    Returns:
        int64 `[B, condition_ids]`, on the CPU.

    Raises:
        ValueError: there are fewer frames than the condition needs, or more than its blocks hold.
    """
    pt = codec.config.tokenizer.temporal_patch_size
    blocks = config.condition_ids // config.latents
    min_frames, max_frames = max(config.first_block * pt, (blocks - 1) * pt + 1), blocks * pt
    frames = clips.shape[2]
    if not min_frames <= frames <= max_frames:
        raise ValueError(f"{frames} first frames, expected {min_frames} to {max_frames} for the condition")
    padded = torch.stack([pad_clip(clip, blocks * pt) for clip in clips])
    return codec.encode_clips(padded).ids.flatten(1).cpu()
