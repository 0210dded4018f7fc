"""Undamaged files that inputs are made from."""

from __future__ import annotations

from pathlib import Path

FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"
"""Files of every format that version 0.1.0 wrote. They have no checksums, except token files."""
