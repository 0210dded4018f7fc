"""`adaptok encode VIDEO TOKENS`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from adaptok.cli.common import Encoding, output_path, parse_budgets, warn
from adaptok.cli.info import describe_tokens, tokens_document
from adaptok.codec.token_file import SUFFIX
from adaptok.video.reading import probe


@dataclass(kw_only=True)
class Encode(Encoding):
    """Encode a video into a token file."""

    video: Positional[Path]
    """Video file."""
    out: Positional[Path | None] = None
    """Token file to write; the video's name with .adaptok if not given."""
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
                keep_scores=self.scores,
                progress=progress,
                **self.part(),
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
