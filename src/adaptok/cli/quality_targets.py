"""`--target-psnr` and `--target-lpips` of `adaptok encode` and `reconstruct`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptok.cli.errors import Failure
from adaptok.cli.options import Messages, QualityLengths
from adaptok.cli.output import Advance, progress

if TYPE_CHECKING:
    from adaptok.codec.codec import AdapTok
    from adaptok.codec.token_file import VideoTokens
    from adaptok.evaluation.quality_target import QualityResult, QualityTarget
    from adaptok.metrics.lpips import Lpips


@dataclass(frozen=True)
class QualitySearch:
    """Search for the fewest tokens of videos that reach a quality.

    Args:
        target: The quality.
        lpips: Network that measures LPIPS, if it is the metric.
        codec: The model.
        lengths: How lengths are chosen.
        excerpt: Which part of a video is measured, and how: arguments of `compare`.
    """

    target: QualityTarget
    lpips: Lpips | None
    codec: AdapTok
    lengths: QualityLengths
    excerpt: dict[str, Any]

    @classmethod
    def open(cls, lengths: QualityLengths, codec: AdapTok, excerpt: dict[str, Any]) -> QualitySearch | None:
        """Load what the flags of a command need. Return None if no quality is asked for.

        Raises:
            ValueError: The target is out of range, or weights are missing.
            FileNotFoundError: The file of the weights does not exist.
        """
        from adaptok.evaluation.quality_target import QualityTarget
        from adaptok.metrics.lpips import WEIGHTS, Lpips

        if lengths.target_psnr is not None:
            return cls(QualityTarget("psnr", lengths.target_psnr), None, codec, lengths, excerpt)
        if lengths.target_lpips is None:
            return None
        target = QualityTarget("lpips", lengths.target_lpips)
        lpips = Lpips.from_file(WEIGHTS["vgg"].find(lengths.lpips_weights, download=True))
        return cls(target, lpips.to(codec.device), codec, lengths, excerpt)

    def find(self, video: Path, tokens: VideoTokens, messages: Messages) -> QualityResult:
        """Shorten all tokens of a video to the fewest that reach the quality.

        Raises:
            Failure: All of them do not reach it.
        """
        from adaptok.evaluation.quality_target import find_quality

        @contextmanager
        def trial(budget: float) -> Iterator[Advance]:
            title = f"trying {budget:.4g} tokens per clip"
            with progress(messages, title, tokens.info.frames, "frames") as advance:
                yield advance

        found = find_quality(
            self.codec,
            video,
            tokens,
            self.target,
            scope=self.lengths.scope,
            uniform=self.lengths.uniform,
            lpips=self.lpips,
            trial=trial,
            **self.excerpt,
        )
        if not found.reached:
            asked, advice = f"--target-{self.target.metric} {self.target.value:g}", "ask for a larger distance"
            raise Failure(
                f"{asked}: all {self.codec.max_budget} tokens per clip reach {self.target.describe(found.value)};"
                f" {'ask for less' if self.target.metric == 'psnr' else advice}, or use a better model"
            )
        return found


def quality_document(found: QualityResult | None) -> dict[str, Any]:
    """Describe the result of a search for JSON output; empty without one."""
    if found is None:
        return {}
    target = found.target
    return {
        "quality": {
            "metric": target.metric,
            "target": target.value,
            "reached": found.value,
            "budget": found.budget,
        }
    }


def check_quality_flags(lengths: QualityLengths, budgets: list[float] | None = None) -> None:
    """Raise a ValueError if a quality target is combined with other ways to choose the number of tokens.

    Args:
        lengths: The flags.
        budgets: Budgets that are given.
    """
    targets = {"--target-psnr": lengths.target_psnr, "--target-lpips": lengths.target_lpips}
    given = [f"{flag} {value:g}" for flag, value in targets.items() if value is not None]
    if lengths.lpips_weights is not None and lengths.target_lpips is None:
        raise ValueError(f"--lpips-weights {lengths.lpips_weights} without --target-lpips; give both or none")
    if not given:
        return
    given += [f"--budget {budget:g}" for budget in budgets or ()]
    given += [] if lengths.target is None else [f"--target {lengths.target:g}"]
    if len(given) > 1:
        raise ValueError(f"{given[0]} and {given[1]} exclude each other; give one of them")
    if lengths.scope not in ("video", "clip"):
        raise ValueError(
            f"{given[0]} with the scope {lengths.scope}, expected video or clip; give --budget, or --target for a"
            " predicted distortion, where lengths are chosen before the video ends"
        )
