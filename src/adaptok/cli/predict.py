"""`adaptok predict VIDEO [-o OUT]`."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional

from adaptok.cli.options import FrameSampling, Messages, Switch, group, option
from adaptok.cli.output import VIDEO_SUFFIXES, input_path, output_path, progress, show
from adaptok.cli.sampling import SamplingComputation, SamplingOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from adaptok.generation import Generator

    Frames = NDArray[np.uint8]


@dataclass(kw_only=True)
class ConditionFrames(FrameSampling):
    """Which frames of the video are the condition."""

    start: Annotated[float, option("SECONDS")] = 0.0
    """Time in seconds of the first frame. The default is the beginning of the video."""
    cond_frames: Annotated[int | None, option("N")] = None
    """Number of frames that the prediction starts from. The default is the number that the generator was trained
    with."""


@dataclass(kw_only=True)
class Predict:
    """Continue a video from its first frames."""

    notes: ClassVar[str] = (
        "Videos longer than a clip are predicted piece by piece. The last predicted frames are the condition of "
        "the next."
    )

    video: Annotated[Positional[Path], option("VIDEO")]
    """Video file to read."""
    output: Annotated[Path | None, option("OUT", "-o")] = None
    """Video to write (.mp4, .m4v, .mov or .mkv). The default is the name of the video with -predicted.mp4, in the
    current folder."""
    frames: Annotated[int | None, option("N")] = None
    """Length of the result in frames, including the condition. The default is the length of a clip."""
    side_by_side: Switch = False
    """Show the original beside the prediction, as far as the original lasts."""
    sheet: Annotated[Path | None, option("SHEET")] = None
    """Contact sheet to write (.png), with the original above the prediction. None is written by default."""
    force: Switch = False
    """Overwrite existing outputs."""
    condition: Annotated[ConditionFrames, group("condition")] = field(default_factory=ConditionFrames)
    sampling: Annotated[SamplingOptions, group("sampling")] = field(default_factory=SamplingOptions)
    computation: Annotated[SamplingComputation, group("computation")] = field(default_factory=SamplingComputation)
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        from adaptok.evaluation.report.contact_sheet import save_sheet

        video = input_path(self.video)
        out = output_path(self.output or Path(f"{video.stem}-predicted.mp4"), self.force, [video], VIDEO_SUFFIXES)
        if self.sheet is not None:
            output_path(self.sheet, self.force, [video, out], (".png",))
        generator = self.computation.load_generator(self.sampling.seed, self.computation.weights)
        count = generator.clip_frames if self.frames is None else self.frames
        with progress(self.messages, "predicting", count, "frames") as advance:
            predicted = generator.predict(
                video,
                self.condition.cond_frames,
                frames=count,
                start=self.condition.start,
                fps=self.condition.fps,
                fit=self.condition.fit,
                settings=self.sampling.settings(),
                seed=self.sampling.seed,
                progress=advance,
            )
        original, fps = self._read_original(generator, len(predicted))
        self._write(out, predicted, original, fps)
        if self.sheet is not None:
            save_sheet(self.sheet, [("truth", original), ("prediction", predicted)])
        self._report(out, generator, predicted, original)

    def _read_original(self, generator: Generator, count: int) -> tuple[Frames, Any]:
        """The first frames of the video as the model sees them, and the frame rate."""
        import numpy as np

        from adaptok.video.geometry import Geometry
        from adaptok.video.limits import ANY_DURATION
        from adaptok.video.pixels import clip_to_frames
        from adaptok.video.sources import open_frames

        assert generator.codec is not None
        size = generator.codec.config.tokenizer.size
        with open_frames(self.video, start=self.condition.start, fps=self.condition.fps, limits=ANY_DURATION) as source:
            geometry = Geometry(self.condition.fit, source.width, source.height, size)
            frames = [clip_to_frames(geometry.apply(frame[None])) for frame in islice(source.frames, count)]
            return np.concatenate(frames), source.fps

    def _write(self, out: Path, predicted: Frames, original: Frames, fps: Any) -> None:
        import numpy as np

        from adaptok.video.writing import VideoWriter

        with VideoWriter(out, fps) as writer:
            for index, frame in enumerate(predicted):
                if self.side_by_side:
                    left = original[index] if index < len(original) else np.zeros_like(frame)
                    frame = np.concatenate([left, frame], 1)
                writer.write(frame)

    def _report(self, out: Path, generator: Generator, predicted: Frames, original: Frames) -> None:
        """Report the PSNR of the predicted frames and, as a baseline, of repeating the last frame of the condition."""
        condition = generator.condition_frames if self.condition.cond_frames is None else self.condition.cond_frames
        document: dict[str, Any] = {"out": str(out), "frames": len(predicted), "cond_frames": condition}
        text = f"{out}: {len(predicted)} frames from {condition}"
        if len(original) > condition:
            last = original[condition - 1 : condition].repeat(len(original) - condition, 0)
            document["psnr"] = _psnr(predicted[condition : len(original)], original[condition:])
            document["psnr_of_last_frame"] = _psnr(last, original[condition:])
            text += (
                f"; {document['psnr']:.2f} dB over {len(original) - condition} frames, repeating the last one"
                f" {document['psnr_of_last_frame']:.2f} dB"
            )
        show(self.messages, {**document, "sheet": None if self.sheet is None else str(self.sheet)}, text)


def _psnr(predicted: Frames, original: Frames) -> float:
    """PSNR in dB over all frames."""
    import torch

    from adaptok.metrics.distortion import psnr

    difference = (torch.from_numpy(predicted).double() - torch.from_numpy(original)) / 255
    return float(psnr(difference.square().mean()))
