"""`adaptok encode VIDEO TOKENS`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from adaptok.commands.common import Common, Fit, output_path, parse_budgets, warn
from adaptok.commands.info import describe_tokens, tokens_document
from adaptok.spending import Scope
from adaptok.tokens import SUFFIX
from adaptok.video.reading import probe


@dataclass(kw_only=True)
class Encode(Common):
    """Encode a video into a token file."""

    video: Positional[Path]
    """Video file."""
    out: Positional[Path | None] = None
    """Token file to write; the video's name with .adaptok if not given."""
    budget: str | None = None
    """Tokens per clip of 16 frames, on average; half of the model's maximum if neither this nor --target is given."""
    target: float | None = None
    """Instead of a budget: the predicted distortion to reach with the fewest tokens."""
    scope: Scope = "video"
    """What shares the budget: the whole video, each clip, the same block of a batch of clips, or a stream."""
    uniform: bool = False
    """Spend the budget evenly, whatever the scores say; for comparison."""
    fit: Fit = "crop"
    """How frames come to the model's square."""
    start: float = 0.0
    """First second of the video to encode."""
    stop: float | None = None
    """Second of the video to stop at."""
    fps: float | None = None
    """Frames per second to sample the video at; its own if not given."""
    scores: bool = True
    """Keep predicted distortions, so that the file can be shortened later without the model."""

    def run(self) -> None:
        out = output_path(self.out or Path(self.video.name).with_suffix(SUFFIX), self.force, [self.video])
        codec = self.load()
        budget = None
        if self.budget is not None:
            [budget] = parse_one(self.budget)
        elif self.target is None:
            budget = codec.max_budget / 2
        with self.progress("encoding", probe(self.video).frames) as progress:
            tokens = codec.encode(
                self.video,
                budget,
                self.scope,
                target=self.target,
                uniform=self.uniform,
                fit=self.fit,
                batch_size=self.batch_size,
                keep_scores=self.scores,
                start=self.start,
                stop=self.stop,
                rate=self.fps,
                progress=progress,
            )
        tokens.save(out)
        warn(tokens.warning)
        document = {"out": str(out), **tokens_document(tokens), "warning": tokens.warning}
        self.result(document, f"{out}: {describe_tokens(tokens)}")


def parse_one(text: str) -> list[float]:
    """The one budget that a command takes."""
    budgets = parse_budgets([text])
    if len(budgets) != 1:
        raise ValueError(f"--budget {text!r}, expected one number of tokens per clip")
    return budgets
