"""What a run leaves for people to look at: curves, pictures, and a card of the model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.config.training import AnyConfig
from adaptok.models.model import Model
from adaptok.utils.files import replacing
from adaptok.video.writing import VideoWriter

SHARES = (8, 4, 2, 1)
"""Reconstructions are shown at these fractions of all latents."""
CLIPS, RATE = 6, 8


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of `metrics.jsonl`."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def plot_metrics(metrics: Path, out: Path) -> None:
    """Loss, learning rate and validation over the steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_metrics(metrics)
    names = [name for line in lines for name in line if name.startswith("validation")]
    panels = [["loss"], ["rate"], sorted(set(names), key=names.index)]
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, shown in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name in shown:
            points = [(line["step"], line[name]) for line in lines if name in line]
            axes.plot(*zip(*points, strict=True), label=name) if points else None
        axes.set_xlabel("step")
        if shown:
            axes.legend(fontsize=7)
    with replacing(out) as path:
        figure.savefig(path, format="png", dpi=100)


@torch.inference_mode()
def save_samples(stem: Path, model: Model, clips: Tensor) -> None:
    """The first clips over their reconstructions at rising lengths, as a picture of first frames and as a video."""
    tokenizer, clips = model.tokenizer, clips[:CLIPS]
    inputs = tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(clips)).codes)
    rows = [clips]
    for share in SHARES:
        lengths = [[max(1, tokenizer.config.latents // share)] * tokenizer.config.blocks] * len(clips)
        rows.append(tokenizer.decode(inputs, lengths).float().clamp(0, 1))
    save_sheets(stem, rows)


def save_sheets(stem: Path, rows: Sequence[Tensor], picture: NDArray[np.uint8] | None = None) -> None:
    """Rows of clips `[N, C, T, S, S]` in [0, 1] as a video, and a picture: of first frames if none is given."""
    from matplotlib.image import imsave

    frames = np.stack(list(_sheets(rows)))
    stem.parent.mkdir(exist_ok=True)
    with replacing(stem.with_suffix(".png")) as path:
        imsave(path, frames[0] if picture is None else picture, format="png")
    with VideoWriter(stem.with_suffix(".mp4"), RATE) as writer:
        writer.write(frames)


def strips(clips: Tensor, count: int) -> NDArray[np.uint8]:
    """Clips `[N, C, T, S, S]` in [0, 1] as a picture: a row for each, of frames at even distances, the first and the
    last among them."""
    chosen = clips[:, :, torch.linspace(0, clips.shape[2] - 1, count).round().long()]
    sheet = torch.cat([torch.cat(list(clip.unbind(1)), -1) for clip in chosen], -2)
    return to_uint8(sheet.permute(1, 2, 0))


def to_uint8(values: Tensor) -> NDArray[np.uint8]:
    """Values in [0, 1] as bytes."""
    array: NDArray[np.uint8] = (values.float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    return array


def _sheets(rows: Sequence[Tensor]) -> Iterator[NDArray[np.uint8]]:
    """Rows of clips `[N, C, T, S, S]` as one picture for every frame."""
    whole = torch.cat([torch.cat(list(row), -1) for row in rows], -2)  # [C, T, rows * S, N * S]
    yield from to_uint8(whole.permute(1, 2, 3, 0))


def _origin(config: AnyConfig) -> str:
    parts = list(config.data.train)
    if config.stage != "generator" and config.data.drawn_fraction:
        parts.append(f"drawn clips ({config.data.drawn_fraction:.0%})")
    return ", ".join(parts) or "clips given by a program"


class About(NamedTuple):
    """What a card says of a model: its name, what it is, and how it is loaded."""

    name: str
    text: str
    code: Sequence[str]


def write_card(path: Path, about: About, config: AnyConfig, metrics: Path, steps: int, batch_size: int) -> None:
    """A model card: what was trained, on what, and how good it was on the validation clips."""
    measured: dict[str, float] = {}
    for line in read_metrics(metrics):
        measured |= {name: value for name, value in line.items() if name.startswith("validation")}
    lines = [
        f"# {about.name}",
        "",
        f"{about.text}, after {steps} steps of {batch_size} clips.",
        "",
        f"Trained on: {_origin(config)}.",
        "",
        *(["| measured | value |", "| --- | --- |"] if measured else ["Not validated."]),
        *(f"| {name} | {value:.4g} |" for name, value in measured.items()),
        "",
        "```python",
        *about.code,
        "```",
        "",
    ]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
