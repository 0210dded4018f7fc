"""Results as HTML for the page of the demo. Values are escaped by the template.

The element `adaptok-player`, defined in `static/player.js`, draws each panel of a strip on a canvas of its own and
moves a cursor over the chart, so that all panels and the chart are in step.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from adaptok.codec.token_file import VideoTokens
from adaptok.demo.generation import FPS, GeneratedClips
from adaptok.demo.reconstruction import Reconstruction
from adaptok.demo.uploads import FORMATS, UploadLimits
from adaptok.utils.templates import render

_PACKAGE = "adaptok.demo"
_MAX_TICKS = 6


@dataclass(frozen=True)
class _Series:
    """Tokens of every block of one video."""

    name: str
    lengths: list[int]

    @property
    def line(self) -> str:
        """SVG path of the lengths as steps, where a block is 1 wide and a token 1 high."""
        steps = " ".join(f"V{-length} H{index + 1}" for index, length in enumerate(self.lengths))
        return f"M0 {-self.lengths[0]} {steps}"

    @property
    def json(self) -> str:
        return json.dumps(self.lengths)


@dataclass(frozen=True)
class _Tick:
    """A label of an axis, at a position in percent."""

    text: str
    position: float


@dataclass(frozen=True)
class _Panel:
    """A picture of the strip, with its caption. `series` is the index of the chart's series that belongs to it."""

    title: str
    detail: str = ""
    series: int | None = None


def static(name: str) -> str:
    """Return the text of a file of the folder `static`."""
    return (files(_PACKAGE) / "static" / name).read_text(encoding="utf-8")


def message(text: str, kind: str = "hint") -> str:
    """Render a sentence in place of a result. `kind` is "hint" or "error"."""
    return render(_PACKAGE, "message.html.j2", text=text, kind=kind)


def refusal(limits: UploadLimits) -> str:
    """Render the message below the input of a clip that `static/uploads.js` shows if it refuses a file."""
    return render(_PACKAGE, "refusal.html.j2", formats=FORMATS, megabytes=limits.megabytes)


def reconstruction_page(result: Reconstruction) -> str:
    """Render a reconstruction, or two that are compared."""
    reports, info = result.reports, result.reports[0].tokens.info
    names = ["Reconstruction"] if len(reports) == 1 else list("AB")[: len(reports)]
    series = [_Series(name, report.tokens.block_tokens.tolist()) for name, report in zip(names, reports, strict=True)]
    height, width = info.geometry.canvas
    tiled = info.tiles > 1
    canvas = f"{width} × {height} pixels" + (f" in {info.tiles} tiles" if tiled else "")
    panels = [_Panel("Original", f"{canvas}, as the model sees it")]
    for index, (name, kind, report) in enumerate(zip(names, result.kinds, reports, strict=True)):
        panels.append(_Panel(name, f"{kind} lengths, {_per_clip(report.tokens):.0f} tokens per clip", index))
    per_clip = f"per clip of {info.block_frames * info.clip_blocks} frames" + (" and tile" if tiled else "")
    rows = [
        {
            "name": name,
            "psnr": f"{report.psnr:.2f}",
            "ssim": f"{report.ssim:.3f}",
            "tokens": f"{report.tokens.tokens:,}",
            "tokens_detail": f"{_per_clip(report.tokens):.0f} {per_clip}",
            "bits": _bits(report.tokens.bits),
            "bits_detail": f"{_bits(report.tokens.bits / info.seconds)} per second",
        }
        for name, report in zip(names, reports, strict=True)
    ]
    return render(
        _PACKAGE,
        "result.html.j2",
        source=_address(result.strip),
        panel=result.panel,
        panels=panels,
        rows=rows,
        series=series,
        columns=len(panels),
        most=info.latents * info.tiles,
        blocks=info.tile_blocks,
        time_ticks=_time_ticks(info.seconds, info.tile_blocks * info.block_frames / float(info.fps)),
        token_ticks=_token_ticks(info.latents * info.tiles),
        chart_title=_chart_title(info.block_frames) + (f", summed over {info.tiles} tiles" if tiled else ""),
        notes=result.notes,
    )


def generation_page(result: GeneratedClips, latents: int, block_frames: int) -> str:
    """Render generated clips."""
    blocks = result.lengths.shape[1]
    clips = [(f"Seed {seed}", lengths.tolist()) for seed, lengths in zip(result.seeds, result.lengths, strict=True)]
    seconds = blocks * block_frames / FPS
    return render(
        _PACKAGE,
        "result.html.j2",
        source=_address(result.strip),
        panel=result.panel,
        panels=[_Panel(name, f"{sum(lengths)} tokens", index) for index, (name, lengths) in enumerate(clips)],
        rows=[],
        series=[_Series(name, lengths) for name, lengths in clips],
        columns=2 if len(clips) in (2, 4) else len(clips),
        most=latents,
        blocks=blocks,
        time_ticks=_time_ticks(seconds, seconds),
        token_ticks=_token_ticks(latents),
        chart_title=_chart_title(block_frames),
        notes=[],
    )


def _chart_title(block_frames: int) -> str:
    return f"Tokens of each block of {block_frames} frames"


def _per_clip(tokens: VideoTokens) -> float:
    """Mean number of tokens of a clip. Each tile has clips of its own."""
    return tokens.tokens / tokens.info.blocks * tokens.info.clip_blocks


def _address(path: Path) -> str:
    """Address of a file that gradio serves, relative to the page."""
    return "gradio_api/file=" + quote(path.as_posix())


def _bits(count: float) -> str:
    if count < 1000:
        return f"{count:.0f} bit"
    return f"{count / 1000:.1f} kbit" if count < 1e6 else f"{count / 1e6:.2f} Mbit"


def _time_ticks(seconds: float, width: float) -> list[_Tick]:
    """Round times up to `seconds`, on an axis of `width` seconds."""
    steps: Sequence[float] = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300)
    step = next((step for step in steps if seconds / step < _MAX_TICKS), seconds)
    count = int(seconds / step + 1e-9)
    return [_Tick(f"{index * step:g} s", 100 * index * step / width) for index in range(count + 1)]


def _token_ticks(latents: int) -> list[_Tick]:
    return [_Tick(f"{latents * part // 3}", 100 * (latents * part // 3) / latents) for part in range(4)]
