"""Samples of a generator while it trains.

Legend: `B` clips, `G` blocks of a clip, `K` latents of a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adaptok.codec.codec import AdapTok
from adaptok.config.generator import GeneratorConfig
from adaptok.data.token_datasets import TokenClip
from adaptok.generation import Generator, Samples
from adaptok.models.generator import GeneratorModel
from adaptok.training.reporting import save_sheets, strips
from adaptok.training.token_data import condition_of

FRAMES = 8
"""Of each clip in the picture."""


def sample_ids(model: GeneratorModel, condition: Tensor, seed: int | None) -> Samples:
    """Clips under some conditions.

    Args:
        condition: as for the model's forward.
        seed: of the first clip, those after it count on; None takes the likeliest entry each time.
    """
    labels, ids = (condition, None) if model.config.classes else (None, condition)
    seeds = [index + (seed or 0) for index in range(len(condition))]
    return Generator(model).sample(labels, ids, temperature=0.0 if seed is None else 1.0, seeds=seeds)


def load_decoder(name: str | None, config: GeneratorConfig, device: torch.device) -> AdapTok | None:
    """The tokenizer that the ids are of: the one that is named, or the model in the box where it is that; or None.

    Raises:
        ValueError: another one is named.
    """
    codec = AdapTok.from_pretrained(name, device=device)
    if codec.weights_hash == config.model_hash:
        return codec
    if name is None:
        return None
    raise ValueError(
        f"the tokenizer {name} has the weights {codec.weights_hash[:8]}, the token dataset is of {config.model} with"
        f" weights {str(config.model_hash)[:8]}; give that model with --tokenizer"
    )


@torch.inference_mode()
def save_generated(
    stem: Path,
    model: GeneratorModel,
    codec: AdapTok,
    examples: Sequence[TokenClip],
    labels: Mapping[str, int],
) -> None:
    """Clips of the data, and what is generated under their conditions: a picture with a row of frames for each, in
    pairs, and a video with the former above the latter."""
    config = model.config
    condition = torch.from_numpy(np.stack([condition_of(clip, config, labels) for clip in examples])).to(model.device)
    ids, lengths = sample_ids(model, condition, seed=0)
    made = codec.decode_clips(ids, lengths).float().clamp(0, 1)
    real = codec.decode_clips(*padded(examples, config.latents, model.device)).float().clamp(0, 1)
    pairs = torch.stack([real, made], 1).flatten(0, 1)
    save_sheets(stem, [real, made], strips(pairs, FRAMES))


def padded(clips: Sequence[TokenClip], latents: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids `[B, G, K]`, 0 where none is kept, and lengths `[B, G]` of clips of a dataset."""
    lengths = torch.from_numpy(np.stack([clip.lengths for clip in clips])).to(device)
    kept = torch.arange(latents, device=device) < lengths[..., None]
    ids = torch.zeros(kept.shape, dtype=torch.int64, device=device)
    ids[kept] = torch.from_numpy(np.concatenate([clip.ids for clip in clips]).astype(np.int64)).to(device)
    return ids, lengths
