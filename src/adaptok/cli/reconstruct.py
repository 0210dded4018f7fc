"""`adaptok reconstruct VIDEO [OUT]`: encode, decode and compare."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tyro.conf import Positional

from adaptok.allocation.policy import LengthPolicy
from adaptok.cli.common import Encoding, output_path, parse_budgets, warn
from adaptok.cli.info import tokens_document
from adaptok.codec.codec import AdapTok
from adaptok.codec.token_file import VideoTokens
from adaptok.evaluation.reconstruction import Report, compare, frames_of
from adaptok.evaluation.report.figures import SideBySide, save_figure
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
    compare_uniform: bool = False
    """Also reconstruct with the same budget spread evenly over all blocks, and show both reconstructions in the figure
    and in the side-by-side video."""
    plot: Path | None = None
    """Figure to write (.png, .pdf, .svg): frames, tokens over time, predicted and actual distortion."""

    def run(self) -> None:
        if self.side_by_side and self.out is None:
            raise ValueError("--side-by-side needs a video to write; name it after the input")
        budgets: list[float | None] = [None]
        if self.budget is not None:
            budgets = list(parse_budgets([self.budget]))
        if self.compare_uniform:
            self._check_comparison()
        outputs = self._outputs(budgets)
        plot = None if self.plot is None else output_path(self.plot, self.force, [self.video])
        codec = self.load()
        if self.budget is None and self.target is None:
            budgets = [codec.max_budget / 2]
        encodings = self._encode(codec, budgets, probe(self.video).frames)
        compared = [tokens for pair in encodings for tokens in pair if tokens is not None]
        with ExitStack() as stack:
            watchers = [
                stack.enter_context(_Watcher(self, pair, out)) for pair, out in zip(encodings, outputs, strict=True)
            ]
            samples = _Samples(compared[0].info.frames, len(compared))

            def visit(original: Tensor, decoded: list[Tensor]) -> None:
                samples.visit(original, decoded)
                for watcher in watchers:
                    clips, decoded = decoded[: len(watcher.encodings)], decoded[len(watcher.encodings) :]
                    watcher.visit([original, *clips])

            with self.progress("decoding", compared[0].info.frames) as progress:
                reports = compare(
                    codec,
                    self.video,
                    compared,
                    progress=progress,
                    visit=visit,
                    **self.part(),
                )
        if plot is not None:
            kinds = ["uniform", "adaptive"] * len(budgets) if self.compare_uniform else None
            save_figure(plot, reports, samples.original, samples.decoded, kinds)
        warn(compared[0].warning)
        self._report(budgets, outputs, reports)

    def _check_comparison(self) -> None:
        if self.uniform:
            raise ValueError("--compare-uniform with --uniform has nothing to compare; leave out --uniform")
        if self.target is not None:
            raise ValueError("--compare-uniform needs a budget; give --budget instead of --target")
        if self.scope not in ("video", "clip"):
            raise ValueError(f"--compare-uniform with --scope {self.scope}, expected the scope video or clip")

    def _outputs(self, budgets: list[float | None]) -> list[Path | None]:
        if self.out is None:
            return [None] * len(budgets)
        names = [self.out]
        if len(budgets) > 1:
            names = [self.out.with_stem(f"{self.out.stem}-{budget:g}") for budget in budgets]
        return [output_path(name, self.force, [self.video]) for name in names]

    def _encode(
        self, codec: AdapTok, budgets: list[float | None], frames: int | None
    ) -> list[tuple[VideoTokens | None, VideoTokens]]:
        """For each budget, the uniform encoding (None if it is not asked for) and the encoding that was asked for.
        Where the scope allows it, the video is encoded once and then shortened."""
        options = {"fit": self.fit, **self.part()}
        if self.compare_uniform or (self.scope in ("video", "clip") and len(budgets) > 1):
            for budget in budgets:
                LengthPolicy(budget, self.scope, uniform=self.uniform).check(codec.layout)
            if codec.config.scorer is None and not self.uniform:
                raise ValueError(f"the model {codec.config.name!r} has no scorer; give --uniform, or use another model")
            with self.progress("encoding", frames) as progress:
                full = codec.encode(self.video, progress=progress, **options)

            def shortened(budget: float | None, uniform: bool) -> VideoTokens:
                policy = LengthPolicy(budget, self.scope, uniform=uniform)
                return full.shorten(policy.lengths(full.scores, len(full.lengths), codec.layout))

            return [
                (shortened(budget, True) if self.compare_uniform else None, shortened(budget, self.uniform))
                for budget in budgets
            ]
        encodings: list[tuple[VideoTokens | None, VideoTokens]] = []
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
            encodings.append((None, tokens))
        return encodings

    def _report(self, budgets: list[float | None], outputs: list[Path | None], reports: list[Report]) -> None:
        documents: list[dict[str, Any]] = []
        lines = []
        each = 2 if self.compare_uniform else 1
        for index, (budget, out) in enumerate(zip(budgets, outputs, strict=True)):
            *uniform, report = reports[index * each : (index + 1) * each]
            documents.append({"budget": budget, **_document(report), "out": None if out is None else str(out)})
            kind = ", adaptive" if uniform else ""
            lines.append(_line(report) + kind + (f"  {out}" if out is not None else ""))
            lines.append("       tokens of the blocks: " + _row(report.tokens.lengths.tolist()))
            if uniform:
                documents[-1]["uniform"] = _document(uniform[0])
                lines.append(f"{_line(uniform[0])}, uniform")
        document = documents[0] if len(documents) == 1 else {"results": documents}
        self.result({**document, "plot": None if self.plot is None else str(self.plot)}, "\n".join(lines))


def _document(report: Report) -> dict[str, Any]:
    return {
        "psnr": report.psnr,
        "ssim": report.ssim,
        **tokens_document(report.tokens),
        "predicted": report.predicted.tolist(),
        "actual": report.actual,
        "rank_correlation": report.correlation,
        "warning": report.tokens.warning,
    }


def _line(report: Report) -> str:
    tokens = report.tokens
    return (
        f"{report.psnr:6.2f} dB PSNR  {report.ssim:.3f} SSIM  {tokens.tokens:7d} tokens "
        f"({tokens.tokens_per_second:.0f} a second, {tokens.bits / 8 / 1024:.1f} KiB)"
    )


class _Watcher:
    """Writes one reconstruction, alone at the original size or beside the original, clip by clip.

    Attributes:
        encodings: those that are shown, the uniform one first if there are two.
    """

    def __init__(
        self, options: Reconstruct, encodings: tuple[VideoTokens | None, VideoTokens], out: Path | None
    ) -> None:
        self.encodings = [tokens for tokens in encodings if tokens is not None]
        self.side_by_side = options.side_by_side
        info = self.encodings[-1].info
        self.geometry = info.geometry
        self.out, self.rate = out, info.fps
        self.writer: VideoWriter | None = None
        _, _, height, width = self.geometry.region
        self.picture = SideBySide(self.encodings, width, height)

    def __enter__(self) -> _Watcher:
        if self.out is not None:
            self.writer = VideoWriter(self.out, self.rate).__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.writer is not None:
            self.writer.__exit__(*error)

    def visit(self, clips: Sequence[Tensor]) -> None:
        """Write the next frames: those of the original, and of each encoding."""
        if self.writer is None:
            return
        if not self.side_by_side:
            self.writer.write(self.geometry.invert(clips[-1]))
            return
        for panels in zip(*(self._view(clip) for clip in clips), strict=True):
            self.writer.write(self.picture.draw(panels))

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
