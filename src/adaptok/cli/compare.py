"""`adaptok compare A B`: two reports beside each other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from adaptok.cli.common import output_path, warn
from adaptok.evaluation.comparison import LEVEL, RESAMPLES, compare_reports
from adaptok.evaluation.report.page import columns, comparison_page
from adaptok.utils.files import replacing

_SUFFIXES = (".html", ".md", ".json")


@dataclass(kw_only=True)
class Compare:
    """Put two reports of `adaptok evaluate` beside each other: differences, with confidence intervals.

    Intervals are bootstrapped over videos; where both reports are of the same clips, from the differences of clips.
    """

    a: Positional[Path]
    """Folder of a report."""
    b: Positional[Path]
    """Folder of another."""
    resamples: int = RESAMPLES
    """Draws of the bootstrap."""
    level: float = LEVEL
    """Of the confidence intervals."""
    seed: int = 0
    """Of the draws."""
    out: Path | None = None
    """Page to write (.html, .md, .json)."""
    json: bool = False
    """Print one JSON object on stdout."""
    force: bool = False
    """Overwrite a page that is there."""
    quiet: bool = False
    """No messages but errors and warnings."""

    def run(self) -> None:
        if self.resamples < 1 or not 0 < self.level < 1 or self.seed < 0:
            raise ValueError(
                f"--resamples {self.resamples} --level {self.level} --seed {self.seed}, expected 1 or more, between 0"
                " and 1, and 0 or more"
            )
        if self.out is not None and self.out.suffix not in _SUFFIXES:
            raise ValueError(f"--out {self.out}, expected a name with one of {', '.join(_SUFFIXES)}")
        out = None if self.out is None else output_path(self.out, self.force)
        comparison = compare_reports(self.a, self.b, resamples=self.resamples, level=self.level, seed=self.seed)
        head, rows = comparison.table()
        if comparison.differs:
            warn(f"the reports are of other protocols ({', '.join(comparison.differs)}): differences mean little")
        if out is not None:
            document = json.dumps(comparison.document(), indent=1)
            text = document if out.suffix == ".json" else comparison_page(comparison, out.suffix[1:])
            with replacing(out) as temporary:
                temporary.write_text(text, encoding="utf-8")
        if self.json:
            print(json.dumps(comparison.document()))
        elif not self.quiet:
            print("\n".join(columns([head, *rows])))
