"""Samples of a generator while it trains.

Legend: `B` clips, `G` blocks of a clip, `K` latents of a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adaptok.codec import AdapTok
from adaptok.configuration import GeneratorConfig
from adaptok.data.token_datasets import TokenClip
from adaptok.models.generator import Cache, GeneratorModel, Span
from adaptok.training.journal import save_sheets, strips
from adaptok.training.token_data import condition_of

FRAMES = 8
"""Of each clip in the picture."""


@torch.inference_mode()
def sample_ids(
    model: GeneratorModel, condition: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Clips under some conditions: ids int64 `[B, G, K]`, 0 where none is kept, and lengths `[B, G]`.

    Blocks before the first that is written are those of the condition. The first entry is no end mark; a block with K
    ids is closed.

    Args:
        condition: as for the model's forward.
        generator: of the model's device; None takes the likeliest entry each time.
    """
    config, device, clips = model.config, model.device, len(condition)
    model.check_condition(condition)
    ids = torch.zeros(clips, config.blocks, config.latents, dtype=torch.int64, device=device)
    lengths = torch.zeros(clips, config.blocks + 1, dtype=torch.int64, device=device)  # the last is of what is done
    block = torch.zeros(clips, dtype=torch.int64, device=device)
    rows = torch.arange(clips, device=device)
    cache = Cache(config, clips, config.prefix + config.longest - 1, model.positions)
    x, read = model.embed_condition(condition), 0
    while bool((block < config.blocks).any()):
        positions = torch.arange(read, read + x.shape[1], device=device).expand(clips, -1)
        logits = model.step(x, Span(positions, read + x.shape[1], slice(0, clips)), cache)
        if not read:
            logits[:, config.end] = -torch.inf
        read += x.shape[1]
        entries = logits.argmax(-1) if generator is None else _draw(logits, generator)
        entries = entries.masked_fill(lengths[rows, block] == config.latents, config.end)
        writing = rows[(entries != config.end) & (block < config.blocks)]
        ids[writing, block[writing], lengths[writing, block[writing]]] = entries[writing]
        lengths[writing, block[writing]] += 1
        block = torch.where(entries == config.end, block + 1, block).clamp(max=config.blocks)
        x = model.tokens(entries)[:, None]
    lengths = lengths[:, :-1]
    if config.first_block:
        copied = condition[:, : config.first_block * config.latents].view(clips, config.first_block, config.latents)
        ids = torch.cat([copied, ids], 1)
        lengths = torch.cat([torch.full_like(copied[..., 0], config.latents), lengths], 1)
    return ids, lengths


def _draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


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
    ids, lengths = sample_ids(model, condition, torch.Generator(model.device).manual_seed(0))
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
