"""`adaptok predict VIDEO --out FILE`: go on with a video from its first frames."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional

from adaptok.cli.common import output_path, progress
from adaptok.cli.generate import SamplingFlags
from adaptok.evaluation.report.contact_sheet import save_sheet
from adaptok.generation import Generator
from adaptok.video.geometry import Fit, Geometry
from adaptok.video.pixels import clip_to_frames
from adaptok.video.sources import open_frames
from adaptok.video.writing import VideoWriter

Frames = NDArray[np.uint8]


@dataclass(kw_only=True)
class Predict(SamplingFlags):
    """Go on with a video from its first frames, for as long as asked: the last frames made lead to the next ones."""

    video: Positional[Path]
    """Video file."""
    out: Path
    """Video to write (.mp4)."""
    cond_frames: int | None = None
    """First frames that are looked at; as many as the generator was trained with if not given."""
    frames: int | None = None
    """Frames of the result, the condition's included; a clip's if not given."""
    start: float = 0.0
    """Second of the video to start at."""
    fps: float | None = None
    """Frames per second to sample the video at; its own if not given."""
    fit: Fit = "crop"
    """How frames come to the model's square."""
    side_by_side: bool = False
    """Write the truth beside the prediction, as far as the video goes."""
    sheet: Path | None = None
    """Contact sheet to write (.png): the truth over the prediction."""

    def run(self) -> None:
        out = output_path(self.out, self.force, [self.video])
        sheet = None if self.sheet is None else output_path(self.sheet, self.force, [self.video, self.out])
        generator = self.load_generator()
        wanted = generator.clip_frames if self.frames is None else self.frames
        with progress("predicting", wanted, "frames", self.quiet) as advance:
            made = generator.predict(
                self.video,
                self.cond_frames,
                frames=wanted,
                start=self.start,
                fps=self.fps,
                fit=self.fit,
                settings=self.settings(),
                seed=self.seed,
                progress=advance,
            )
        truth, rate = self._truth(generator, len(made))
        with VideoWriter(out, rate) as writer:
            for index, frame in enumerate(made):
                if self.side_by_side:
                    known = truth[index] if index < len(truth) else np.zeros_like(frame)
                    frame = np.concatenate([known, frame], 1)
                writer.write(frame)
        if sheet is not None:
            save_sheet(sheet, [("truth", truth), ("prediction", made)])
        self._report(generator, made, truth)

    def _truth(self, generator: Generator, count: int) -> tuple[Frames, Any]:
        """What the model's square shows of the video's first frames, and its rate."""
        assert generator.codec is not None
        with open_frames(self.video, start=self.start, fps=self.fps) as source:
            geometry = Geometry(self.fit, source.width, source.height, generator.codec.config.tokenizer.size)
            frames = [clip_to_frames(geometry.apply(frame[None])) for frame in islice(source.frames, count)]
            return np.concatenate(frames), source.fps

    def _report(self, generator: Generator, made: Frames, truth: Frames) -> None:
        """The PSNR of what was predicted beside that of repeating the last frame seen, where the truth is known."""
        seen = generator.condition_frames if self.cond_frames is None else self.cond_frames
        document: dict[str, Any] = {"out": str(self.out), "frames": len(made), "cond_frames": seen}
        text = f"{self.out}: {len(made)} frames from {seen}"
        if len(truth) > seen:
            last = truth[seen - 1 : seen].repeat(len(truth) - seen, 0)
            document["psnr"] = _psnr(made[seen : len(truth)], truth[seen:])
            document["psnr_of_last_frame"] = _psnr(last, truth[seen:])
            text += (
                f"; {document['psnr']:.2f} dB over {len(truth) - seen} frames, repeating the last one"
                f" {document['psnr_of_last_frame']:.2f} dB"
            )
        self.result({**document, "sheet": None if self.sheet is None else str(self.sheet)}, text)


def _psnr(made: Frames, true: Frames) -> float:
    """In dB, over all frames."""
    error = np.square(made.astype(np.float64) - true).mean() / 255**2
    return float(-10 * np.log10(max(error, 1e-10)))
