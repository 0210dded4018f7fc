"""The model in the box gives the figures of its card on the clip in the box; the generator knows its classes."""

from __future__ import annotations

from importlib.resources import as_file, files

import pytest
import torch
import torch.nn.functional as F

from adaptok import AdapTok, Generator
from adaptok.data.synthetic.shapes import CLASSES, draw_shape_clip
from adaptok.evaluation.reconstruction import compare
from adaptok.generation.sequences import join_blocks

CARD = {192: 21.56, 384: 22.91}
"""PSNR in dB by tokens per clip, of docs/model-card.md."""


def test_figures_of_the_card():
    codec = AdapTok.from_pretrained(device="cpu")
    with as_file(files("adaptok") / "assets" / "walk.mp4") as clip:
        full = codec.encode(clip)
        reports = compare(codec, clip, [full.truncate(budget) for budget in CARD])
    for report, expected in zip(reports, CARD.values(), strict=True):
        assert report.psnr == pytest.approx(expected, abs=0.05)


def test_bundled_generator_knows_its_classes():
    """Drawn clips that it was not trained on are likeliest under their own class."""
    generator = Generator.from_pretrained(device="cpu")
    codec, end = generator.check_codec(), generator.config.eob
    assert generator.config.model_hash == codec.weights_hash
    assert generator.config.labels == CLASSES
    right, losses = 0, []
    for label, name in enumerate(CLASSES):
        clip = draw_shape_clip(77, 0, name, generator.clip_frames, codec.config.tokenizer.size)
        tokens = codec.encode(clip[None].numpy(), 256, "clip")
        row = torch.from_numpy(join_blocks(tokens.ids, tokens.lengths, end))
        logits = generator(row[None, :-1].expand(len(CLASSES), -1), torch.arange(len(CLASSES)))
        result = F.cross_entropy(logits.transpose(1, 2), row.expand(len(CLASSES), -1), reduction="none").mean(1)
        right += int(result.argmin()) == label
        losses.append(float(result[label]))
    assert right >= 3
    assert sum(losses) / len(losses) < 3.5  # nats of an entry; log of the vocabulary is 10.4


def test_bundled_generator_is_small_and_samples():
    with as_file(files("adaptok") / "assets" / "adaptok-tiny-generator" / "model.safetensors") as weights:
        assert weights.stat().st_size < 12e6
    generator = Generator.from_pretrained(device="cpu")
    samples = generator.sample(["spin", 0], budget=40, seeds=[1, 2])
    assert int(samples.lengths.sum(1).max()) <= 40
    assert generator.decode(samples).shape == (2, 3, 16, 128, 128)
