"""`adaptok reconstruct VIDEO [OUT]`: encode, decode and compare."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tyro.conf import Positional

from adaptok.codec import AdapTok, info_geometry
from adaptok.commands.common import Encoding, output_path, parse_budgets, warn
from adaptok.commands.info import tokens_document
from adaptok.evaluation.pictures import SideBySide, save_figure
from adaptok.evaluation.reconstruction import Report, compare, frames_of
from adaptok.spending import Spending
from adaptok.tokens import VideoTokens
from adaptok.video.reading import probe
from adaptok.video.writing import VideoWriter

FIGURE_FRAMES = 8


@dataclass(kw_only=True)
class Reconstruct(Encoding):
    """Encode and decode a video; report quality and tokens, and show them.

    Several budgets are compared: give numbers with commas between them, or the flag more than once.
    """

    video: Positional[Path]
    """Video file."""
    out: Positional[Path | None] = None
    """Video to write (.mp4); with several budgets, one for each, the budget added to the name. None if not given."""
    side_by_side: bool = False
    """Write the original beside the reconstruction, over the tokens of every block."""
    plot: Path | None = None
    """Figure to write (.png, .pdf, .svg): frames, tokens over time, predicted and actual distortion."""

    def run(self) -> None:
        if self.side_by_side and self.out is None:
            raise ValueError("--side-by-side needs a video to write; name it after the input")
        budgets: list[float | None] = [None]
        if self.budget is not None:
            budgets = list(parse_budgets([self.budget]))
        outputs = self._outputs(budgets)
        plot = None if self.plot is None else output_path(self.plot, self.force, [self.video])
        codec = self.load()
        if self.budget is None and self.target is None:
            budgets = [codec.max_budget / 2]
        encodings = self._encode(codec, budgets, probe(self.video).frames)
        with ExitStack() as stack:
            watchers = [
                stack.enter_context(_Watcher(self, tokens, out)) for tokens, out in zip(encodings, outputs, strict=True)
            ]
            samples = _Samples(encodings[0].info.frames, len(encodings))

            def visit(original: Tensor, decoded: list[Tensor]) -> None:
                samples.visit(original, decoded)
                for watcher, clip in zip(watchers, decoded, strict=True):
                    watcher.visit(original, clip)

            with self.progress("decoding", encodings[0].info.frames) as progress:
                reports = compare(
                    codec,
                    self.video,
                    encodings,
                    progress=progress,
                    visit=visit,
                    **self.part(),
                )
        if plot is not None:
            save_figure(plot, reports, samples.original, samples.decoded)
        warn(encodings[0].warning)
        self._report(budgets, outputs, reports)

    def _outputs(self, budgets: list[float | None]) -> list[Path | None]:
        if self.out is None:
            return [None] * len(budgets)
        names = [self.out]
        if len(budgets) > 1:
            names = [self.out.with_stem(f"{self.out.stem}-{budget:g}") for budget in budgets]
        return [output_path(name, self.force, [self.video]) for name in names]

    def _encode(self, codec: AdapTok, budgets: list[float | None], frames: int | None) -> list[VideoTokens]:
        """One encoding for each budget; where the scope allows it, the video is encoded once and then shortened."""
        options = {"fit": self.fit, **self.part()}
        if self.scope in ("video", "clip") and len(budgets) > 1:
            with self.progress("encoding", frames) as progress:
                full = codec.encode(self.video, progress=progress, **options)
            spendings = [Spending(budget, self.scope, uniform=self.uniform) for budget in budgets]
            for spending in spendings:
                spending.check(codec.shape)
            return [full.shorten(s.lengths(full.scores, len(full.lengths), codec.shape)) for s in spendings]
        encodings = []
        for budget in budgets:
            with self.progress("encoding", frames) as progress:
                tokens = codec.encode(
                    self.video,
                    budget,
                    self.scope,
                    target=self.target,
                    uniform=self.uniform,
                    progress=progress,
                    **options,
                )
            encodings.append(tokens)
        return encodings

    def _report(self, budgets: list[float | None], outputs: list[Path | None], reports: list[Report]) -> None:
        documents, lines = [], []
        for budget, out, report in zip(budgets, outputs, reports, strict=True):
            correlation = report.correlation
            documents.append(
                {
                    "budget": budget,
                    "psnr": report.psnr,
                    "ssim": report.ssim,
                    **tokens_document(report.tokens),
                    "predicted": report.predicted.tolist(),
                    "actual": report.actual,
                    "rank_correlation": correlation,
                    "out": None if out is None else str(out),
                    "warning": report.tokens.warning,
                }
            )
            tokens = report.tokens
            lines.append(
                f"{report.psnr:6.2f} dB PSNR  {report.ssim:.3f} SSIM  {tokens.tokens:7d} tokens "
                f"({tokens.tokens_per_second:.0f} a second, {tokens.bits / 8 / 1024:.1f} KiB)"
                + (f"  {out}" if out is not None else "")
            )
            lines.append("       tokens of the blocks: " + _row(tokens.lengths.tolist()))
        document = documents[0] if len(documents) == 1 else {"results": documents}
        self.result({**document, "plot": None if self.plot is None else str(self.plot)}, "\n".join(lines))


class _Watcher:
    """Writes one reconstruction, alone at the original size or beside the original, clip by clip."""

    def __init__(self, options: Reconstruct, tokens: VideoTokens, out: Path | None) -> None:
        self.side_by_side = options.side_by_side
        self.geometry = info_geometry(tokens.info)
        self.out, self.rate = out, tokens.info.fps
        self.writer: VideoWriter | None = None
        _, _, height, width = self.geometry.region
        self.picture = SideBySide(tokens, width, height)

    def __enter__(self) -> _Watcher:
        if self.out is not None:
            self.writer = VideoWriter(self.out, self.rate).__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.writer is not None:
            self.writer.__exit__(*error)

    def visit(self, original: Tensor, decoded: Tensor) -> None:
        if self.writer is None:
            return
        if not self.side_by_side:
            self.writer.write(self.geometry.invert(decoded))
            return
        panels = zip(self._view(original), self._view(decoded), strict=True)
        for left, right in panels:
            self.writer.write(self.picture.draw(left, right))

    def _view(self, clip: Tensor) -> NDArray[np.uint8]:
        """What the model sees, at its original aspect."""
        top, left, height, width = self.geometry.region
        return self.geometry.invert(clip)[:, top : top + height, left : left + width]


class _Samples:
    """Some frames, evenly spread in time, of the original and of each reconstruction."""

    def __init__(self, frames: int, encodings: int) -> None:
        count = min(FIGURE_FRAMES, frames)
        self.wanted = set(np.linspace(0, frames - 1, count).round().astype(int).tolist())
        self.seen = 0
        self.original: list[NDArray[np.uint8]] = []
        self.decoded: list[list[NDArray[np.uint8]]] = [[] for _ in range(encodings)]

    def visit(self, original: Tensor, decoded: list[Tensor]) -> None:
        count = original.shape[1]
        for place in (i for i in range(count) if self.seen + i in self.wanted):
            self.original += frames_of(original[:, place : place + 1])
            for rows, clip in zip(self.decoded, decoded, strict=True):
                rows += frames_of(clip[:, place : place + 1])
        self.seen += count


def _row(lengths: list[int], limit: int = 40) -> str:
    text = " ".join(str(length) for length in lengths[:limit])
    return text if len(lengths) <= limit else f"{text} … ({len(lengths)} blocks)"
