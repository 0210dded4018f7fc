"""Encoding of one video or several, from frames to tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adaptok.allocation.policy import LengthPolicy
from adaptok.codec.clips import ClipCodec
from adaptok.codec.encoded_windows import EncodedWindows, iter_windows, join_windows
from adaptok.codec.token_file import VideoTokens
from adaptok.codec.token_info import TokenInfo
from adaptok.codec.window_encoder import WindowEncoder, encode_stream
from adaptok.config.choices import FitChoice
from adaptok.video.geometry import Geometry
from adaptok.video.limits import DEFAULT_LIMITS, Limits
from adaptok.video.sources import Video, open_frames
from adaptok.video.windows import check_window_overlap

Progress = Callable[[int], None]
"""Called with the number of frames that have just been processed."""


@dataclass(frozen=True)
class EncodingOptions:
    """How frames are taken from a video and encoded. See `AdapTok.encode` for the meaning of each option.

    `scored_for` is the policy that scores are computed for; None is the one that chooses the lengths. Where all tokens
    are kept, to be shortened later, it gives the scores that the later policy needs.
    """

    fit: FitChoice = "crop"
    short_side: int | None = None
    tile_overlap: int | None = None
    window_overlap: int = 0
    batch_size: int = 4
    keep_scores: bool = True
    start: float = 0.0
    stop: float | None = None
    fps: Fraction | float | None = None
    allow_url: bool = False
    limits: Limits = DEFAULT_LIMITS
    scored_for: LengthPolicy | None = None


def check_single(video: Video) -> None:
    """Check that an array is not a batch of videos, which would be encoded as one.

    Raises:
        ValueError: The array holds several videos.
    """
    if isinstance(video, np.ndarray | Tensor) and video.ndim == 5 and len(video) > 1:
        raise ValueError(
            f"a batch of {len(video)} videos of shape {tuple(video.shape)}, expected one; encode separate videos with"
            " encode_batch, and join consecutive clips along time: torch.cat(tuple(clips), 1)[None]"
        )


def split_batch(videos: Sequence[Video] | NDArray[Any] | Tensor) -> Sequence[Video]:
    """Return the videos of a batch, which may be an array `[B, 3, T, H, W]` or `[B, T, H, W, 3]`.

    Raises:
        ValueError: It is a single video.
    """
    if isinstance(videos, str | Path):
        raise ValueError(f"{videos}: a single path, expected a list of videos; encode one video with encode")
    if not isinstance(videos, np.ndarray | Tensor):
        for video in videos:
            check_single(video)
        return videos
    if videos.ndim != 5:
        raise ValueError(
            f"an array of shape {tuple(videos.shape)}, expected a batch of videos [B, 3, T, H, W] or [B, T, H, W, 3];"
            " encode one video with encode"
        )
    channels_last = videos.shape[-1] == 3 and (videos.shape[1] != 3 or not _is_floating(videos))
    return [videos[i] if channels_last else videos[i : i + 1] for i in range(len(videos))]


def _is_floating(array: NDArray[Any] | Tensor) -> bool:
    return array.is_floating_point() if isinstance(array, Tensor) else bool(np.issubdtype(array.dtype, np.floating))


class _Opened(NamedTuple):
    """Properties of a video that has been read."""

    geometry: Geometry
    fps: Fraction
    warning: str | None


def encode_videos(
    codec: ClipCodec,
    videos: Iterable[Video],
    policy: LengthPolicy,
    options: EncodingOptions,
    progress: Progress | None = None,
) -> list[VideoTokens]:
    """Encode videos, each with a budget of its own. Their clips are computed together.

    Raises:
        ValueError: An option is out of range, or the model lacks the scorer that the policy needs.
        VideoError: A file cannot be read.
    """
    _check(codec, policy, options)
    encoder = WindowEncoder(codec, policy, options.batch_size, options.keep_scores, options.scored_for)
    encoded: list[list[EncodedWindows]] = []
    opened: list[_Opened] = []

    def keep(done: Iterable[tuple[int, EncodedWindows]]) -> None:
        for index, windows in done:
            encoded[index].append(windows)
            if progress is not None:
                progress(windows.frames)

    for index, video in enumerate(videos):
        encoded.append([])
        opened.append(_encode_video(codec, index, video, encoder, options, keep))
    keep(encoder.flush())
    tokens = []
    for windows, (geometry, fps, warning) in zip(encoded, opened, strict=True):
        info = _info(codec, geometry, sum(each.frames for each in windows), fps, options.window_overlap)
        joined = join_windows(windows, policy, codec.layout, info, options.keep_scores)
        tokens.append(replace(joined, warning=warning))
    return tokens


def _encode_video(
    codec: ClipCodec,
    index: int,
    video: Video,
    encoder: WindowEncoder,
    options: EncodingOptions,
    keep: Callable[[Iterable[tuple[int, EncodedWindows]]], None],
) -> _Opened:
    """Read a video, and pass what has been encoded to `keep`. The rest waits in the encoder for the next video."""
    config, policy = codec.config.tokenizer, encoder.policy
    with open_frames(
        video,
        start=options.start,
        stop=options.stop,
        fps=options.fps,
        allow_url=options.allow_url,
        limits=options.limits,
    ) as source:
        geometry = Geometry.choose(
            options.fit,
            source.width,
            source.height,
            config.size,
            short_side=options.short_side,
            tile_overlap=options.tile_overlap,
        )
        if policy.causal and policy.scope == "stream":
            keep((index, windows) for windows in encode_stream(codec, source, policy, geometry))
        else:
            at_once = max(1, options.batch_size // geometry.tiles)
            for windows, frames in iter_windows(source, geometry, config, at_once, options.window_overlap):
                keep(encoder.push(index, windows, frames, geometry))
        return _Opened(geometry, source.fps, source.warning)


def _check(codec: ClipCodec, policy: LengthPolicy, options: EncodingOptions) -> None:
    codec.check_policy(policy)
    if options.batch_size < 1:
        raise ValueError(f"batch size {options.batch_size}, expected at least 1")
    check_window_overlap(options.window_overlap, codec.config.tokenizer.frames)
    if options.window_overlap and policy.causal and policy.scope == "stream":
        raise ValueError(
            f"window overlap {options.window_overlap} with the scope 'stream', expected 0 or another scope"
        )


def _info(codec: ClipCodec, geometry: Geometry, frames: int, fps: Fraction, window_overlap: int) -> TokenInfo:
    c = codec.config.tokenizer
    return TokenInfo(
        model=codec.config.name,
        model_hash=codec.weights_hash,
        codebook_size=c.quantizer.codebook_size,
        latents=c.latents,
        length_step=codec.length_step,
        block_frames=c.temporal_patch_size,
        clip_blocks=c.blocks,
        frames=frames,
        rate=f"{fps.numerator}/{fps.denominator}",
        width=geometry.width,
        height=geometry.height,
        fit=geometry.fit,
        size=c.size,
        short_side=geometry.short_side,
        tile_overlap=geometry.tile_overlap,
        window_overlap=window_overlap,
    )
