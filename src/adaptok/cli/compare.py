"""`adaptok compare A B [-o PAGE]`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import Positional

from adaptok.cli.options import Messages, Switch, group, option
from adaptok.cli.output import columns, output_path, show, warn

if TYPE_CHECKING:
    from adaptok.evaluation.comparison import Comparison

PAGE_SUFFIXES = (".html", ".md", ".json")


@dataclass(kw_only=True)
class Compare:
    """Compare two reports of 'adaptok evaluate': differences with confidence intervals."""

    notes: ClassVar[str] = (
        "The intervals are bootstrapped over videos. Where both reports measure the same clips, the differences "
        "of clips are resampled, which gives narrower intervals. A report is called better if the difference and the "
        "whole interval have the same sign in the digits that are shown."
    )

    a: Annotated[Positional[Path], option("A")]
    """Folder of the first report."""
    b: Annotated[Positional[Path], option("B")]
    """Folder of the second report."""
    output: Annotated[Path | None, option("PAGE", "-o")] = None
    """Page to write (.html, .md or .json). None is written by default."""
    resamples: int = 2000
    """Number of bootstrap samples. More samples give more exact intervals."""
    level: float = 0.95
    """Level of the confidence intervals, between 0 and 1."""
    seed: int = 0
    """Seed of the bootstrap."""
    force: Switch = False
    """Overwrite an existing page."""
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        from adaptok.evaluation.comparison import compare_reports

        self._check()
        comparison = compare_reports(self.a, self.b, resamples=self.resamples, level=self.level, seed=self.seed)
        head, rows = comparison.table()
        if comparison.differs:
            warn(f"the reports use different protocols ({', '.join(comparison.differs)}), so differences mean little")
        if self.output is not None:
            self._write(self.output, comparison)
        show(self.messages, comparison.document(), "\n".join([*columns([head, *rows]), *comparison.left_out()]))

    def _check(self) -> None:
        if self.resamples < 1:
            raise ValueError(f"--resamples {self.resamples}, expected 1 or more")
        if not 0 < self.level < 1:
            raise ValueError(f"--level {self.level:g}, expected a number between 0 and 1")
        if self.seed < 0:
            raise ValueError(f"--seed {self.seed}, expected 0 or more")
        if self.output is not None:
            output_path(self.output, self.force, suffixes=PAGE_SUFFIXES)

    def _write(self, out: Path, comparison: Comparison) -> None:
        from adaptok.evaluation.report.page import comparison_page
        from adaptok.utils.files import replacing

        suffix = out.suffix.lower()
        if suffix == ".json":
            text = json.dumps(comparison.document(), indent=1)
        else:
            text = comparison_page(comparison, suffix[1:])
        with replacing(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
