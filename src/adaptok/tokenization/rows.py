"""Rows of token datasets as the tokens of a video, which a tokenizer decodes and a token file stores."""

from __future__ import annotations

from fractions import Fraction

from adaptok.codec.token_file import VideoTokens
from adaptok.codec.token_info import TokenInfo
from adaptok.data.token_datasets import TokenClip, TokenDatasetInfo
from adaptok.video.sources import DEFAULT_FPS


def row_tokens(info: TokenDatasetInfo, clip: TokenClip) -> VideoTokens:
    """Return the tokens of one clip of a token dataset.

    Rows of earlier versions lack the frame size, for which the model's square stands, and the frame rate, for which
    that of the settings stands, or else 30 per second. A clip of a video that is shorter than a clip includes its
    padding, as rows do not state the number of frames.

    Args:
        info: Properties of the dataset.
        clip: The row.

    Raises:
        ValueError: The row contradicts `info`.
    """
    fps = Fraction(clip.fps or info.settings.fps or DEFAULT_FPS).limit_denominator(100_000)
    return VideoTokens(
        clip.ids,
        clip.lengths,
        TokenInfo(
            model=info.model,
            model_hash=info.model_hash,
            codebook_size=info.codebook_size,
            latents=info.latents,
            length_step=info.length_step,
            block_frames=info.block_frames,
            clip_blocks=info.blocks,
            frames=info.frames,
            rate=f"{fps.numerator}/{fps.denominator}",
            width=clip.width or info.size,
            height=clip.height or info.size,
            fit=info.settings.fit,
            size=info.size,
        ),
        clip.scores,
    )
