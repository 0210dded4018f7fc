"""The model in the box gives the figures of its card on the clip in the box."""

from __future__ import annotations

from importlib.resources import as_file, files

import pytest

from adaptok import AdapTok
from adaptok.evaluation.reconstruction import compare

CARD = {192: 21.42, 384: 22.98}
"""PSNR in dB by tokens per clip, of docs/model-card.md."""


def test_figures_of_the_card():
    codec = AdapTok.from_pretrained(device="cpu")
    with as_file(files("adaptok") / "assets" / "walk.mp4") as clip:
        full = codec.encode(clip)
        reports = compare(codec, clip, [full.truncate(budget) for budget in CARD])
    for report, expected in zip(reports, CARD.values(), strict=True):
        assert report.psnr == pytest.approx(expected, abs=0.05)
