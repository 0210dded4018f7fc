"""Samples that a generator draws during training.

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
from adaptok.training.reporting.samples import film_strips, save_sheet
from adaptok.training.sequences import condition_of

NUM_FRAMES = 8
"""Frames of each clip in the picture."""


def sample_ids(model: GeneratorModel, condition: Tensor, seed: int | None) -> Samples:
    """Generate one clip for each condition.

    Args:
        model: the generator.
        condition: int64, classes `[B]` or ids of first frames `[B, condition_ids]`.
        seed: seed of the first clip. Each further clip has the next seed. None takes the most likely entry each time.
    """
    labels, ids = (condition, None) if model.config.classes else (None, condition)
    seeds = [index + (seed or 0) for index in range(len(condition))]
    return Generator(model).sample(labels, ids, temperature=0.0 if seed is None else 1.0, seeds=seeds)


def load_decoder(name: str | None, config: GeneratorConfig, device: torch.device) -> AdapTok | None:
    """Load the tokenizer that the ids come from.

    Args:
        name: model folder or hub id. None is the bundled model.
        config: configuration of the generator.
        device: device of the tokenizer.

    Returns:
        The tokenizer, or None if no name is given and the ids are not those of the bundled model.

    Raises:
        ValueError: the named tokenizer is another one.
    """
    codec = AdapTok.from_pretrained(name, device=device)
    if codec.weights_hash == config.model_hash:
        return codec
    if name is None:
        return None
    raise ValueError(
        f"the tokenizer {name} has the weights {codec.weights_hash[:8]}, but the token dataset was made by"
        f" {config.model} with the weights {str(config.model_hash)[:8]}; give that model with --tokenizer"
    )


@torch.inference_mode()
def save_generated(
    stem: Path,
    model: GeneratorModel,
    codec: AdapTok,
    examples: Sequence[TokenClip],
    labels: Mapping[str, int],
) -> None:
    """Save clips of the training data, and clips that are generated under their conditions.

    Writes a picture with a row of frames for each clip, in pairs, and a video with the former above the latter.
    """
    config = model.config
    condition = torch.from_numpy(np.stack([condition_of(clip, config, labels) for clip in examples])).to(model.device)
    ids, lengths = sample_ids(model, condition, seed=0)
    generated = codec.decode_clips(ids, lengths).float().clamp(0, 1)
    original = codec.decode_clips(*pad_ids(examples, config.latents, model.device)).float().clamp(0, 1)
    pairs = torch.stack([original, generated], 1).flatten(0, 1)
    save_sheet(stem, [original, generated], film_strips(pairs, NUM_FRAMES))


def pad_ids(clips: Sequence[TokenClip], latents: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the ids `[B, G, K]` of clips, padded with 0, and their lengths `[B, G]`."""
    lengths = torch.from_numpy(np.stack([clip.lengths for clip in clips])).to(device)
    kept = torch.arange(latents, device=device) < lengths[..., None]
    ids = torch.zeros(kept.shape, dtype=torch.int64, device=device)
    ids[kept] = torch.from_numpy(np.concatenate([clip.ids for clip in clips]).astype(np.int64)).to(device)
    return ids, lengths
