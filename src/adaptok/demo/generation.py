"""Generate clips of a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptok.demo.panels import PANEL_SIDE, draw_panel
from adaptok.demo.sessions import Job, Session
from adaptok.generation import Generator, Sampling
from adaptok.video.geometry import Geometry
from adaptok.video.writing import VideoWriter

FPS = 8
"""Frames per second of generated clips, which suits the bundled generator."""
MAX_CLIPS = 4
MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class GeneratedClips:
    """Clips that were generated together.

    Attributes:
        label: Their class.
        seeds: Seed of each clip.
        lengths: int64 `[clips, blocks]`, tokens of each block.
        strip: Video of the clips side by side.
        panel: Height and width in pixels of a panel of the strip.
    """

    label: str
    seeds: list[int]
    lengths: NDArray[np.int64]
    strip: Path
    panel: tuple[int, int]


def labels(generator: Generator) -> Sequence[str]:
    """Return the classes of a generator; empty if it predicts frames."""
    config = generator.config
    return config.labels or [str(index) for index in range(config.classes)]


def generate(
    generator: Generator, label: str, clips: int, seed: int, settings: Sampling, session: Session, job: Job
) -> GeneratedClips:
    """Generate clips of a class with the seeds `seed`, `seed + 1` and so on.

    Raises:
        ValueError: A value is out of range.
        Cancelled: The job was cancelled.
    """
    if not 1 <= clips <= MAX_CLIPS:
        raise ValueError(f"{clips} clips, expected 1 to {MAX_CLIPS}")
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed {seed}, expected 0 to {MAX_SEED}")
    settings.check(generator.config)
    codec = generator.check_codec()
    seeds = [seed + index for index in range(clips)]
    advance = job.stage("Sampling", clips * settings.max_entries(generator.config), "tokens", stop=0.9)
    samples = dict(
        generator.iter_sample([label] * clips, settings=settings, seeds=seeds, batch_size=clips, step_progress=advance)
    )
    job.stage("Decoding", None, start=0.95)
    decoded = [generator.decode(samples[index])[0].float().cpu() for index in range(clips)]
    size = codec.config.tokenizer.size
    square = Geometry("crop", size, size, size)
    strip = session.new_folder("generate") / f"{label}-{seed}.mp4"
    with VideoWriter(strip, FPS, crf=12) as writer:
        writer.write(np.concatenate([draw_panel(clip, square) for clip in decoded], 2))
    lengths = np.concatenate([samples[index].lengths.numpy() for index in range(clips)])
    return GeneratedClips(label, seeds, lengths, strip, (PANEL_SIDE, PANEL_SIDE))
