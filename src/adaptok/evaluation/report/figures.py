"""Figures of reconstructions: frames beside the original, and an overview of one video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from adaptok.codec.token_file import VideoTokens
from adaptok.evaluation.reconstruction import ReconstructionReport
from adaptok.utils.extras import require
from adaptok.utils.files import replacing

Frame = NDArray[np.uint8]

PANEL_HEIGHT = 288
"""Height in pixels that smaller videos are enlarged to."""
_STRIP, _CAPTION, _GAP = 56, 26, 8
_PAPER, _INK, _FAINT = (18, 20, 26), (235, 238, 245), (92, 100, 120)
_BAR, _NOW = (88, 140, 255), (255, 176, 64)


class SideBySide:
    """Draw frames of the original beside those of reconstructions, above a chart of the tokens of every block.

    Args:
        encodings: tokens of each reconstruction. The chart shows bars for the last one, and a line for each other one.
        width, height: size of a frame in pixels.
    """

    def __init__(self, encodings: Sequence[VideoTokens], width: int, height: int) -> None:
        self.encodings = encodings
        scale = max(1.0, PANEL_HEIGHT / height)
        self.panel = max(2, round(width * scale)), max(2, round(height * scale))
        panels = 1 + len(encodings)
        size = (panels * self.panel[0] + (panels + 1) * _GAP, self.panel[1] + _CAPTION + _STRIP + 3 * _GAP)
        self.size = size[0] + size[0] % 2, size[1] + size[1] % 2
        self._font = ImageFont.load_default(13)
        self._count = 0

    def draw(self, frames: Sequence[Frame]) -> Frame:
        """Draw the next frame uint8 `[H, W, 3]` from a frame of the original and one of each reconstruction."""
        info = self.encodings[-1].info
        block = info.block_of(min(self._count, info.frames - 1))
        self._count += 1
        canvas = Image.new("RGB", self.size, _PAPER)
        draw = ImageDraw.Draw(canvas)
        captions = ["original", *(self._caption(tokens, block) for tokens in self.encodings)]
        for i, (frame, caption) in enumerate(zip(frames, captions, strict=True)):
            left = _GAP + i * (self.panel[0] + _GAP)
            canvas.paste(Image.fromarray(frame).resize(self.panel, Image.Resampling.BICUBIC), (left, _CAPTION))
            draw.text((left, 5), caption, fill=_INK, font=self._font)
        self._chart(draw, block)
        return np.asarray(canvas)

    def _caption(self, tokens: VideoTokens, block: int) -> str:
        kind = "" if len(self.encodings) == 1 else "adaptive: " if tokens is self.encodings[-1] else "uniform: "
        text = f"{kind}{tokens.tokens_per_second:.0f} tokens/s, this block {tokens.block_tokens[block]}"
        while text and self._font.getlength(text) > self.panel[0]:
            text = text[:-1]
        return text

    def _chart(self, draw: ImageDraw.ImageDraw, block: int) -> None:
        left, right = _GAP, self.size[0] - _GAP
        bottom = self.size[1] - _GAP
        for tokens in self.encodings[::-1]:
            lengths, most = tokens.block_tokens.tolist(), tokens.info.latents * tokens.info.tiles
            width = (right - left) / len(lengths)
            gap = 1 if width > 4 else 0
            for i, length in enumerate(lengths):
                x = left + i * width
                top = bottom - _STRIP * length / most
                if tokens is self.encodings[-1]:
                    colour = _NOW if i == block else _BAR
                    draw.rectangle((x, top, max(x, x + width - 1 - gap), bottom), fill=colour)
                else:
                    draw.line((x, top, x + width, top), fill=_INK)
        draw.line((left, bottom + 1, right, bottom + 1), fill=_FAINT)


_LEGEND: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False, "fontsize": "small"}
"""Place of a legend: above the axes, where it covers nothing."""


def save_figure(
    path: Path,
    reports: Sequence[ReconstructionReport],
    originals: Sequence[Frame],
    shown: Sequence[Sequence[Frame]],
    kinds: Sequence[str] | None = None,
) -> None:
    """Write an overview of one video: frames, tokens of every block over time, and predicted against actual distortion
    of blocks, or PSNR over time if the scorer does not predict that distortion.

    Args:
        path: file with a suffix that matplotlib supports, such as .png, .pdf or .svg.
        reports: one for each reconstruction.
        originals: some frames of the original, evenly spaced in time.
        shown: the same frames of each reconstruction.
        kinds: a word for each report, to distinguish reconstructions of the same budget.

    Raises:
        ImportError: matplotlib is not installed.
    """
    require("matplotlib", extra="eval", purpose="a figure")
    from matplotlib.figure import Figure

    kinds = kinds or [""] * len(reports)
    rows, columns = 1 + len(reports), max(1, len(originals))
    height, width = originals[0].shape[:2]
    strips = rows * (0.15 + 1.3 * min(2.0, height / width))  # inches; eight frames in a row are 1.3 wide
    figure = Figure(figsize=(11, strips + 3.4), layout="constrained")
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=(strips, 3.4))).tolist()
    axes = top.subplots(rows, columns, squeeze=False)
    names = [
        "original",
        *(
            f"{kind}\n{report.tokens.tokens_per_second:.0f} tokens/s\n{report.psnr:.1f} dB".strip()
            for report, kind in zip(reports, kinds, strict=True)
        ),
    ]
    for row, (name, frames) in enumerate(zip(names, [originals, *shown], strict=True)):
        for axis, frame in zip(axes[row], frames, strict=True):
            axis.imshow(frame)
            axis.set(xticks=[], yticks=[])
        axes[row][0].set_ylabel(name)
    over_time, beside = bottom.subplots(1, 2, width_ratios=(1.7, 1))
    for index, (report, kind) in enumerate(zip(reports, kinds, strict=True)):
        _plot_lengths(over_time, report, f"C{index}", kind)
        _plot_distortions(beside, report, f"C{index}")
    over_time.set(xlabel="seconds", ylabel="tokens of a block", ylim=(0, None))
    over_time.legend(**_LEGEND, ncols=2)
    if beside.collections:
        beside.set(xlabel="predicted distortion of a block", ylabel="actual", xscale="log", yscale="log")
        limits = beside.get_xlim()
        beside.plot(limits, limits, color="gray", linewidth=0.8, linestyle=":", zorder=0)
        if beside.get_legend_handles_labels()[0]:  # a few blocks have no rank correlation
            beside.legend(**_LEGEND, ncols=2)
    else:  # nothing to compare with what the scorer predicts
        for index, report in enumerate(reports):
            _plot_quality(beside, report, f"C{index}")
        beside.set(xlabel="seconds", ylabel="PSNR in dB")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _plot_lengths(axis: Any, report: ReconstructionReport, colour: str, kind: str) -> None:
    tokens = report.tokens
    lengths, info = tokens.block_tokens, tokens.info
    seconds = np.arange(len(lengths) + 1) * info.block_frames / float(info.fps)
    if info.window_overlap:  # blocks of neighbouring clips share frames
        seconds = seconds * (info.frames / (len(lengths) * info.block_frames))
    axis.stairs(lengths, seconds, color=colour, label=f"{kind} {tokens.tokens} tokens, {report.psnr:.2f} dB".lstrip())


def _plot_quality(axis: Any, report: ReconstructionReport, colour: str) -> None:
    values = -10 * np.log10(np.maximum(report.mse, 1e-10))
    axis.plot(np.arange(len(values)) / float(report.tokens.info.fps), values, color=colour, linewidth=1.2)


def _plot_distortions(axis: Any, report: ReconstructionReport, colour: str) -> None:
    predicted = report.predicted
    if len(predicted) and len(predicted) == len(report.actual):
        correlation = report.correlation
        label = None if correlation is None else f"rank correlation {correlation:.2f}"
        axis.scatter(np.maximum(predicted, 1e-8), np.maximum(report.actual, 1e-8), s=9, color=colour, label=label)
