"""Options of the tokenization of a collection, and the description of the resulting dataset."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from adaptok.allocation.policy import ClipLayout, LengthPolicy, official_block_budgets
from adaptok.codec.codec import AdapTok
from adaptok.config.base import Positive
from adaptok.config.choices import DEFAULT_EFFORT, Effort, Fit
from adaptok.data.token_shards import TokenDatasetInfo, TokenizationSettings


class TokenOptions(TokenizationSettings):
    """How clips are sampled from videos, and how their lengths are chosen."""

    effort: Effort = DEFAULT_EFFORT
    """How much is computed to score blocks, 0 to 3; see `LengthPolicy`."""
    stride: Positive | None = None
    """Frames between the starts of clips. None is the length of a clip, so that clips follow each other."""
    limit: Positive | None = None
    """Maximum number of clips per video. The first ones are taken."""
    condition_frames: Annotated[int, Field(ge=0)] = 0
    """Number of first frames that form the condition of frame prediction. 0 stores no condition."""
    labels: bool = True
    """Store the class labels of the videos."""
    scores: bool = True
    """Store the predicted distortions."""
    shard_clips: Positive = 1024
    """Number of clips per shard. A video is never split between shards."""
    batch_size: Positive = 4
    """Number of clips encoded at once."""


def describe_dataset(codec: AdapTok, options: TokenOptions) -> TokenDatasetInfo:
    """Describe the dataset that a model and options give.

    Raises:
        ValueError: The options do not fit the model.
    """
    c = codec.config.tokenizer
    stride, options = options.stride or c.frames, with_block_budgets(options, codec.layout)
    policy = _check(codec, options, stride)
    options = options.model_copy(update={"effort": codec.used_effort(policy)})
    return TokenDatasetInfo(
        model=codec.config.name,
        model_hash=codec.weights_hash,
        codebook_size=c.quantizer.codebook_size,
        levels=c.quantizer.levels if c.quantizer.kind == "scalar" else (),
        latents=c.latents,
        blocks=c.blocks,
        block_frames=c.temporal_patch_size,
        size=c.size,
        length_step=codec.length_step,
        condition_frames=options.condition_frames,
        stride=stride,
        settings=TokenizationSettings.parse(options.model_dump(include=set(TokenizationSettings.model_fields))),
    )


def with_block_budgets(options: TokenOptions, layout: ClipLayout) -> TokenOptions:
    """Replace a budget of the scope "batch", the official procedure, by the official budgets of the block indices."""
    if options.scope != "batch" or options.uniform or not isinstance(options.budget, float):
        return options
    budgets = official_block_budgets(options.budget, layout)
    return options if budgets is None else options.model_copy(update={"budget": tuple(map(float, budgets))})


def _check(codec: AdapTok, options: TokenOptions, stride: int) -> LengthPolicy:
    """Check that options fit the model, and return their policy."""
    model, frames = codec.config, codec.config.tokenizer.frames
    policy = LengthPolicy(options.budget, options.scope, options.target, options.uniform, options.effort)
    policy.check(codec.layout)
    if policy.needs_scores and model.scorer is None:
        raise ValueError(
            f"the model {model.name!r} has no scorer; distribute the budget uniformly, or use another model"
        )
    if options.fit not in get_args(Fit):
        raise ValueError(f"fit {options.fit!r}, expected one of {', '.join(get_args(Fit))}")
    if options.scope == "stream" and stride != frames:
        raise ValueError(
            f"stride {stride} with the scope 'stream', expected {frames}, because its clips follow each other; choose"
            " another scope for clips that overlap or leave gaps"
        )
    if options.condition_frames >= frames:
        raise ValueError(
            f"{options.condition_frames} condition frames, expected 1 to {frames - 1} of the {frames} frames of a clip,"
            " or 0 for none"
        )
    return policy
