"""Reconstruct an uploaded clip within a budget, or at a target quality, and compare two budgets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from adaptok.allocation.policy import LengthPolicy
from adaptok.codec.codec import AdapTok
from adaptok.codec.token_file import VideoTokens
from adaptok.config.choices import FitChoice
from adaptok.demo.panels import draw_panel, panel_size
from adaptok.demo.sessions import Job, Session
from adaptok.demo.uploads import Upload
from adaptok.evaluation.quality_target import QualityTarget, find_budget, measure_quality
from adaptok.evaluation.reconstruction import ReconstructionReport, compare
from adaptok.video.geometry import Geometry
from adaptok.video.sound import open_sound
from adaptok.video.writing import VideoWriter

BATCH_SIZE = 2
"""Clips computed at once. Between batches, progress is shown and jobs can be cancelled."""
STRIP_CRF = 12
MAX_TILES = 4
"""Largest number of tiles of a frame. The time grows with it; frames of 16:9 have two at the size of the model."""


@dataclass(frozen=True)
class Choice:
    """How many tokens a reconstruction has.

    Args:
        budget: Tokens per clip.
        uniform: Whether every block gets the same number of tokens.
        target: PSNR in dB to reach with the fewest tokens, instead of a budget.
    """

    budget: float
    uniform: bool = False
    target: float | None = None

    @property
    def kind(self) -> Literal["adaptive", "uniform"]:
        return "uniform" if self.uniform else "adaptive"


@dataclass(frozen=True)
class Reconstruction:
    """Files and measurements of the reconstructions of one clip.

    Attributes:
        reports: Quality and tokens of each reconstruction.
        kinds: "adaptive" or "uniform" for each reconstruction.
        panel: Height and width in pixels of a panel of the strip.
        strip: Video of the original and the reconstructions side by side.
        videos: Video of each reconstruction, with the sound of the clip.
        tokens: Token file of each reconstruction.
        notes: Sentences about what the visitor should know.
    """

    reports: list[ReconstructionReport]
    kinds: list[str]
    panel: tuple[int, int]
    strip: Path
    videos: list[Path]
    tokens: list[Path]
    notes: list[str]


def budget_range(codec: AdapTok) -> tuple[int, int, int]:
    """Return the smallest and largest budget of a model, and the step between budgets."""
    step = codec.length_step
    return max(1, step * codec.layout.blocks), codec.max_budget, step


def reconstruct(
    codec: AdapTok, upload: Upload, choices: Sequence[Choice], fit: FitChoice, session: Session, job: Job, name: str
) -> Reconstruction:
    """Reconstruct a clip once for each choice.

    The clip is encoded once, with all tokens; other choices for the same clip only decode it again.

    Args:
        codec: The model.
        upload: The clip.
        choices: Tokens of each reconstruction.
        fit: How frames are fitted to the square of the model. The shorter side of tiled frames has its size.
        session: The visitor, who gets the files.
        job: Progress and cancellation.
        name: Name of the result. It replaces the files of the last result of this name.

    Raises:
        ValueError: A choice is out of range, frames need more than `MAX_TILES` tiles, or the clip cannot be read.
        Cancelled: The job was cancelled.
    """
    notes = []
    if codec.config.scorer is None and not all(choice.uniform for choice in choices):
        choices = [Choice(choice.budget, True, choice.target) for choice in choices]
        notes.append("This model has no scorer, so every block gets the same number of tokens.")
    for choice in choices:
        LengthPolicy(choice.budget, uniform=choice.uniform).check(codec.layout)
    _check_tiles(codec, upload, fit)
    key, start = (upload.path, fit), 0.0
    if not session.encodings.holds(key):
        start = 0.7
    full = session.encodings.get(key, lambda: _encode(codec, upload, fit, job, stop=start))
    search = _Search(codec, upload, full, job)
    encodings = []
    for choice in choices:
        tokens, note = search.tokens(choice)
        encodings.append(tokens)
        notes += [note] if note else []
    if full.warning:
        notes.append(f"{upload.path.name} is damaged or cut off; the frames that could be read are used.")
    advance = job.stage("Decoding", full.info.frames, start=max(start, search.progress), stop=1.0)
    return _write(codec, upload, encodings, choices, session.new_folder(name), advance, notes)


def _check_tiles(codec: AdapTok, upload: Upload, fit: FitChoice) -> None:
    """Raise a ValueError if frames need too many tiles."""
    width, height = upload.info.width, upload.info.height
    tiles = Geometry.choose(fit, width, height, codec.config.tokenizer.size).tiles
    if tiles > MAX_TILES:
        raise ValueError(
            f"{upload.path.name}: frames of {width} × {height} pixels need {tiles} tiles, expected at most {MAX_TILES};"
            " choose another setting of Frame"
        )


def _encode(codec: AdapTok, upload: Upload, fit: FitChoice, job: Job, stop: float) -> VideoTokens:
    advance = job.stage("Encoding", upload.frames, stop=stop)
    return codec.encode(upload.path, fit=fit, stop=upload.stop, fps=upload.fps, batch_size=BATCH_SIZE, progress=advance)


class _Search:
    """Finds the tokens of a choice among all tokens of a clip."""

    def __init__(self, codec: AdapTok, upload: Upload, full: VideoTokens, job: Job) -> None:
        self.codec, self.upload, self.full, self.job = codec, upload, full, job
        self.progress = 0.0
        self._measured: dict[tuple[float, bool], float] = {}

    def tokens(self, choice: Choice) -> tuple[VideoTokens, str | None]:
        """Return the tokens of a choice, and a sentence if they are not what was asked for."""
        if choice.target is None:
            return self._shorten(choice.budget, choice.uniform), None
        low, high, step = budget_range(self.codec)
        levels = [*range(low, high, step), high]
        target = QualityTarget("psnr", choice.target)
        budget, psnr = find_budget(lambda budget: self._psnr(budget, choice.uniform), target, levels)
        note = None
        if target.excess(psnr) < 0:
            note = f"All tokens reach {psnr:.1f} dB, which is below the target of {choice.target:g} dB."
        return self._shorten(budget, choice.uniform), note

    def _shorten(self, budget: float, uniform: bool) -> VideoTokens:
        if budget >= self.codec.max_budget:  # also those tokens that the scorer expects no gain from
            return self.full
        return self.codec.shorten(self.full, LengthPolicy(budget, uniform=uniform))

    def _psnr(self, budget: float, uniform: bool) -> float:
        """Measure the PSNR of a budget."""
        if (budget, uniform) not in self._measured:
            self.progress = 0.9 - 0.2 * 0.7 ** len(self._measured)  # the number of attempts is not known before
            advance = self.job.stage(
                f"Trying {budget:g} tokens per clip", self.full.info.frames, start=self.progress, stop=self.progress
            )
            self._measured[budget, uniform] = measure_quality(
                self.codec,
                self.upload.path,
                self._shorten(budget, uniform),
                "psnr",
                batch_size=BATCH_SIZE,
                stop=self.upload.stop,
                fps=self.upload.fps,
                progress=advance,
            )
        return self._measured[budget, uniform]


def _write(
    codec: AdapTok,
    upload: Upload,
    encodings: Sequence[VideoTokens],
    choices: Sequence[Choice],
    folder: Path,
    advance: Callable[[int], None],
    notes: list[str],
) -> Reconstruction:
    """Decode, measure and write all files."""
    info = encodings[0].info
    suffixes = [""] if len(encodings) == 1 else [f"-{letter}" for letter in "ab"]
    videos = [folder / f"{upload.name}{suffix}-reconstructed.mp4" for suffix in suffixes]
    files = [folder / f"{upload.name}{suffix}.adaptok" for suffix in suffixes]
    strip = folder / "side-by-side.mp4"
    with ExitStack() as stack:
        strips = stack.enter_context(VideoWriter(strip, info.fps, crf=STRIP_CRF, key_frames=round(info.fps)))
        sounds = [open_sound(upload.path) if upload.info.audio else None for _ in videos]
        writers = [
            stack.enter_context(VideoWriter(path, info.fps, sound=sound))
            for path, sound in zip(videos, sounds, strict=True)
        ]

        def visit(original: Tensor, decoded: list[Tensor]) -> None:
            first, *panels = (draw_panel(clip, info.geometry) for clip in [original, *decoded])
            strips.write(np.concatenate([first, *panels], 2))
            for writer, panel in zip(writers, panels, strict=True):
                writer.write(panel)

        reports = compare(
            codec,
            upload.path,
            encodings,
            batch_size=BATCH_SIZE,
            stop=upload.stop,
            fps=upload.fps,
            visit=visit,
            progress=advance,
        )
    for tokens, path in zip(encodings, files, strict=True):
        tokens.save(path)
    kinds = [choice.kind for choice in choices]
    return Reconstruction(reports, list(kinds), panel_size(info.geometry), strip, videos, files, notes)
