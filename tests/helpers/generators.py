"""Small token datasets, and short training runs of generators on them."""

from __future__ import annotations

import numpy as np

from adaptok.config.training import GeneratorTrainingConfig
from adaptok.data.token_datasets import TokenClip, TokenDatasetInfo, write_shard

CLASSES = ("bounce", "orbit", "slide")


INFO = {
    "model": "test",
    "model_hash": "ab" * 32,
    "codebook_size": 60,
    "levels": (5, 4, 3),
    "latents": 6,
    "blocks": 3,
    "block_frames": 2,
    "size": 16,
    "step": 2,
}


def info(**changes) -> TokenDatasetInfo:
    return TokenDatasetInfo(**{**INFO, **changes})


def make_clips(count: int, of: TokenDatasetInfo, seed: int = 0, label=True) -> list[TokenClip]:
    """Clips of random ids and lengths, two of each source."""
    rng = np.random.default_rng(seed)
    clips = []
    for index in range(count):
        lengths = rng.integers(0, of.latents + 1, of.blocks)
        lengths[0] = max(1, lengths[0])
        if of.first_block:
            lengths[of.first_block] = max(1, lengths[of.first_block])
        ids = rng.integers(0, of.codebook_size, lengths.sum()).astype(np.uint16)
        condition = rng.integers(0, of.codebook_size, of.condition_ids).astype(np.uint16)
        name = CLASSES[index % len(CLASSES)] if label else None
        source = f"{name}/{index // 2}.mp4"
        clips.append(TokenClip(ids, lengths, name, source, 0, condition=condition if of.condition_ids else None))
    return clips


def write_tokens(folder, count: int = 8, of: TokenDatasetInfo | None = None, **changes):
    of = of or info()
    folder.mkdir(parents=True)
    write_shard(folder / "0.parquet", make_clips(count, of, **changes), of)
    return str(folder)


def generator_config(train: str, **changes) -> GeneratorTrainingConfig:
    values = {
        "stage": "generator",
        "model": {"width": 32, "depth": 2, "heads": 2, "mixture": 2},
        "data": {"train": [train]},
        "optimizer": {"warmup_steps": 3, "lr": 3e-3},
        "max_steps": 12,
        "micro_batch_size": 3,
        "precision": "float32",
        "log_every": 1,
        "validate_every": 6,
        "checkpoint_every": 4,
        "trackers": [],
        "samples": 0,
    }
    return GeneratorTrainingConfig.parse({**values, **changes})
