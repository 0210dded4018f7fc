"""Compare reconstructions of a video with the original, frame by frame and block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.codec.codec import AdapTok, Progress
from adaptok.codec.token_file import VideoTokens
from adaptok.config.model import Distortion
from adaptok.metrics.correlation import rank_correlation
from adaptok.metrics.distortion import block_distortion, psnr
from adaptok.metrics.similarity import frame_ssim
from adaptok.video.clips import pad_clip
from adaptok.video.limits import DEFAULT_LIMITS, Limits
from adaptok.video.sources import Video, open_frames

Values = NDArray[np.float64]


@dataclass
class ReconstructionReport:
    """Quality of a reconstruction, measured at the model's scale: on its square, or on the whole frame with tiles.

    Attributes:
        tokens: tokens that were decoded.
        mse, ssim_values: mean squared error and SSIM of every frame `[frames]`, for values in [0, 1].
        actual: distortion of every block `[blocks]`, of the kind that the scorer predicts; empty without a scorer, if
            it predicts LPIPS or what later blocks gain (`scorer.target`), or if clips overlap in time.
    """

    tokens: VideoTokens
    mse: list[float] = field(default_factory=list)
    ssim_values: list[float] = field(default_factory=list)
    actual: list[float] = field(default_factory=list)

    @property
    def psnr(self) -> float:
        """PSNR in dB, from the mean squared error over the whole video."""
        return float(psnr(torch.tensor(self.mse).mean()))

    @property
    def ssim(self) -> float:
        """Structural similarity, averaged over frames."""
        return float(np.mean(self.ssim_values))

    @property
    def predicted(self) -> Values:
        """Predicted distortion of every block `[blocks]`, linear between candidate lengths; empty without scores."""
        if self.tokens.scores is None:
            return np.empty(0)
        scores = self.tokens.scores.astype(np.float64)
        candidates = self.tokens.info.length_step * np.arange(1, scores.shape[1] + 1)
        return np.array([np.interp(n, candidates, row) for n, row in zip(self.tokens.lengths, scores, strict=True)])

    @property
    def correlation(self) -> float | None:
        """Rank correlation of predicted and actual distortion over blocks; None with fewer than 3 blocks."""
        if len(self.predicted) < 3 or len(self.actual) != len(self.predicted):
            return None
        return rank_correlation(self.predicted, np.array(self.actual))


def compare(
    codec: AdapTok,
    video: Video,
    tokens: Sequence[VideoTokens],
    *,
    batch_size: int = 4,
    start: float = 0.0,
    stop: float | None = None,
    fps: Fraction | float | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    visit: Callable[[Tensor, list[Tensor]], None] | None = None,
) -> list[ReconstructionReport]:
    """Compare the decoded tokens of a video with the video, clip by clip.

    Args:
        tokens: one or more encodings of this video, all with the same fit and overlaps.
        batch_size: clips per batch.
        start, stop: range of the video in seconds.
        fps: frame rate that the video is sampled at.
        limits: largest frames and longest part that are read.
        progress: called with the number of frames just finished.
        visit: called for each clip with the original and each reconstruction at the model's scale, `[3, t, h, w]` in
            [0, 1], without padding.

    Returns:
        One report for each encoding.
    """
    reports = [ReconstructionReport(each) for each in tokens]
    scorer = codec.config.scorer
    kind = None if scorer is None or scorer.target == "cumulative" else scorer.distortion
    pairs = iter_pairs(codec, video, tokens, batch_size=batch_size, start=start, stop=stop, fps=fps, limits=limits)
    for clip, decoded in pairs:
        count = clip.shape[1]
        for report, prediction in zip(reports, decoded, strict=True):
            _measure(report, prediction, pad_clip(clip, prediction.shape[1]), count, kind)
        if visit is not None:
            visit(clip, [prediction[:, :count] for prediction in decoded])
        if progress is not None:
            progress(count)
    return reports


def iter_pairs(
    codec: AdapTok,
    video: Video,
    tokens: Sequence[VideoTokens],
    *,
    batch_size: int = 4,
    start: float = 0.0,
    stop: float | None = None,
    fps: Fraction | float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """Decode the tokens of a video beside the video, clip by clip. Arguments as for `compare`.

    Yields:
        The original `[3, t, h, w]` in [0, 1], at the scale of the model, and each reconstruction, of which the last
        includes padding.
    """
    geometry = tokens[0].info.geometry
    decoders = [codec.iter_decode_clips(each, batch_size=batch_size) for each in tokens]
    with open_frames(video, start=start, stop=stop, fps=fps, limits=limits) as source:
        frames = (geometry.apply(frame[None]) for frame in source.frames)
        for decoded in zip(*decoders, strict=True):
            yield torch.cat(list(islice(frames, decoded[0].shape[1])), 1), decoded


def _measure(
    report: ReconstructionReport, prediction: Tensor, clip: Tensor, frames: int, kind: Distortion | None
) -> None:
    error = (prediction - clip).square().mean((0, 2, 3))
    report.mse += error[:frames].tolist()
    report.ssim_values += frame_ssim(prediction[None, :, :frames], clip[None, :, :frames])[0].tolist()
    info = report.tokens.info
    if kind is not None and kind != "lpips" and not info.window_overlap:
        decoded, original = info.geometry.split(prediction), info.geometry.split(clip)
        report.actual += block_distortion(decoded, original, kind, info.block_frames).T.flatten().tolist()
