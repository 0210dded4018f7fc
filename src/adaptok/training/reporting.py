"""Files for people that a run writes: curves, and pictures and videos of samples.

Legend: `B` and `N` clips, `C` channels, `T` frames, `S` pixels, `G` blocks of a clip, `K` latents of a block.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.codec.codec import AdapTok
from adaptok.config.generator import GeneratorConfig
from adaptok.data.token_datasets import TokenClip
from adaptok.generation import Generator, Samples
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from adaptok.training.sequences import condition_of
from adaptok.utils.files import replacing
from adaptok.video.pixels import to_uint8
from adaptok.video.writing import VideoWriter


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of `metrics.jsonl`. Returns none if there is no such file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def last_metrics(path: Path) -> dict[str, Any]:
    """Return the last value of each metric in `metrics.jsonl`."""
    latest: dict[str, Any] = {}
    for line in read_metrics(path):
        latest |= line
    return latest


def plot_metrics(metrics: Path, output: Path) -> None:
    """Plot loss, learning rate and validation results over the steps, as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_metrics(metrics)
    names = [name for line in lines for name in line if name.startswith("validation")]
    panels = [["loss"], ["lr", "rate"], sorted(set(names), key=names.index)]  # old runs have a relative "rate"
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name in panel:
            if points := [(line["step"], line[name]) for line in lines if name in line]:
                axes.plot(*zip(*points, strict=True), label=name)
        axes.set_xlabel("step")
        if axes.lines:
            axes.legend(fontsize=7)
    with replacing(output) as path:
        figure.savefig(path, format="png", dpi=100)


LENGTH_DIVISORS = (8, 4, 2, 1)
"""Reconstructions are shown at the maximum length divided by each of these."""
NUM_CLIPS = 6
FPS = 8


@torch.inference_mode()
def save_reconstructions(stem: Path, model: Model, clips: Tensor) -> Path:
    """Save the first clips above their reconstructions at rising lengths. Returns the picture.

    Args:
        stem: path without suffix. Writes a picture of the first frames (.png) and a video (.mp4).
        model: model with the tokenizer.
        clips: `[N, C, T, S, S]` in [0, 1].
    """
    tokenizer, clips = model.tokenizer, clips[:NUM_CLIPS]
    inputs = tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(clips)).codes)
    rows = [clips]
    for divisor in LENGTH_DIVISORS:
        lengths = [[max(1, tokenizer.config.latents // divisor)] * tokenizer.config.blocks] * len(clips)
        rows.append(tokenizer.decode(inputs, lengths).float().clamp(0, 1))
    return save_sheet(stem, rows)


def save_sheet(stem: Path, rows: Sequence[Tensor], picture: NDArray[np.uint8] | None = None) -> Path:
    """Save rows of clips `[N, C, T, S, S]` in [0, 1] as a video, and a picture, by default of the first frames.

    Returns the picture, a PNG file.
    """
    from matplotlib.image import imsave

    sheet = torch.cat([torch.cat(list(row), -1) for row in rows], -2)  # [C, T, rows * S, N * S]
    frames = to_uint8(sheet.permute(1, 2, 3, 0))
    stem.parent.mkdir(exist_ok=True)
    with replacing(stem.with_suffix(".png")) as path:
        imsave(path, frames[0] if picture is None else picture, format="png")
    with VideoWriter(stem.with_suffix(".mp4"), FPS) as writer:
        writer.write(frames)
    return stem.with_suffix(".png")


def film_strips(clips: Tensor, count: int) -> NDArray[np.uint8]:
    """Lay out `count` evenly spaced frames of each clip `[N, C, T, S, S]`, the first and last included, one clip per
    row. Returns `[N * S, count * S, C]`."""
    chosen = clips[:, :, torch.linspace(0, clips.shape[2] - 1, count).round().long()]
    sheet = torch.cat([torch.cat(list(clip.unbind(1)), -1) for clip in chosen], -2)  # [C, N * S, count * S]
    return to_uint8(sheet.permute(1, 2, 0))


NUM_FRAMES = 8
"""Frames of each clip in the picture."""


def sample_ids(model: GeneratorModel, condition: Tensor, seed: int | None) -> Samples:
    """Generate one clip for each condition.

    Args:
        model: the generator.
        condition: int64, classes `[B]` or ids of first frames `[B, condition_ids]`.
        seed: seed of the first clip. Each further clip has the next seed. None takes the most likely entry each time.
    """
    labels, ids = (condition, None) if model.config.classes else (None, condition)
    seeds = [index + (seed or 0) for index in range(len(condition))]
    return Generator(model).sample(labels, ids, temperature=0.0 if seed is None else 1.0, seeds=seeds)


def load_decoder(name: str | None, config: GeneratorConfig, device: torch.device) -> AdapTok | None:
    """Load the tokenizer that the ids come from.

    Args:
        name: model folder or hub id. None is the bundled model.
        config: configuration of the generator.
        device: device of the tokenizer.

    Returns:
        The tokenizer, or None if no name is given and the ids are not those of the bundled model.

    Raises:
        ValueError: the named tokenizer is another one.
    """
    codec = AdapTok.from_pretrained(name, device=device)
    if codec.weights_hash == config.model_hash:
        return codec
    if name is None:
        return None
    raise ValueError(
        f"the tokenizer {name} has the weights {codec.weights_hash[:8]}, but the token dataset was made by"
        f" {config.model} with the weights {str(config.model_hash)[:8]}; give that model with --tokenizer"
    )


@torch.inference_mode()
def save_generated(
    stem: Path,
    model: GeneratorModel,
    codec: AdapTok,
    examples: Sequence[TokenClip],
    labels: Mapping[str, int],
) -> Path:
    """Save clips of the training data, and clips that are generated under their conditions.

    Writes a picture with a row of frames for each clip, in pairs, and a video with the former above the latter. Returns
    the picture.
    """
    config = model.config
    condition = torch.from_numpy(np.stack([condition_of(clip, config, labels) for clip in examples])).to(model.device)
    ids, lengths = sample_ids(model, condition, seed=0)
    generated = codec.decode_clips(ids, lengths).float().clamp(0, 1)
    original = codec.decode_clips(*pad_ids(examples, config.latents, model.device)).float().clamp(0, 1)
    pairs = torch.stack([original, generated], 1).flatten(0, 1)
    return save_sheet(stem, [original, generated], film_strips(pairs, NUM_FRAMES))


def pad_ids(clips: Sequence[TokenClip], latents: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the ids `[B, G, K]` of clips, padded with 0, and their lengths `[B, G]`."""
    lengths = torch.from_numpy(np.stack([clip.lengths for clip in clips])).to(device)
    kept = torch.arange(latents, device=device) < lengths[..., None]
    ids = torch.zeros(kept.shape, dtype=torch.int64, device=device)
    ids[kept] = torch.from_numpy(np.concatenate([clip.ids for clip in clips]).astype(np.int64)).to(device)
    return ids, lengths
