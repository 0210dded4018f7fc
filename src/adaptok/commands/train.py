"""`adaptok train STAGE --config FILE --out RUN`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from adaptok.configuration import TrainingConfig


@dataclass(kw_only=True)
class Train:
    """Train a tokenizer, or a scorer for one. A run that was stopped goes on where it was."""

    stage: Positional[Literal["tokenizer", "scorer"]]
    """What to train."""
    config: Path
    """YAML file, as in configs/."""
    out: Path
    """Folder of the run: configuration, metrics, checkpoints, and the model at the end."""
    steps: int | None = None
    """Instead of the configuration's number of steps."""
    json: bool = False
    """Print one JSON object on stdout at the end."""
    quiet: bool = False
    """No lines of metrics on stderr."""

    def run(self) -> None:
        config = TrainingConfig.load(self.config)
        if config.stage != self.stage:
            raise ValueError(f"{self.config}: a configuration for the stage {config.stage!r}, asked for {self.stage!r}")
        if self.steps is not None:
            config = TrainingConfig.parse({**config.model_dump(), "steps": self.steps}, "--steps")
        try:
            import accelerate  # noqa: F401
        except ModuleNotFoundError:
            raise ImportError("training needs accelerate; install it with: pip install 'adaptok[train]'") from None
        from adaptok.training.loop import Run, open_data

        run = Run(config, open_data(config), self.out, report=None if self.quiet else _report)
        run.train()
        if self.json:
            print(json.dumps({"out": str(self.out / "model"), "steps": run.step}))


def _report(line: dict[str, Any]) -> None:
    import sys

    parts = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in line.items())
    print("  ".join(parts), file=sys.stderr, flush=True)
