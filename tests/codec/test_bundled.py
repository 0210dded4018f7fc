"""The bundled model gives the figures of its card on the bundled clip; the bundled generator knows its classes."""

from __future__ import annotations

import re
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from adaptok import AdapTok, Generator
from adaptok.data.synthetic.shapes import CLASSES, draw_shape_clip
from adaptok.evaluation.reconstruction import compare
from adaptok.generation.sequences import join_blocks
from adaptok.video.reading import read_video

DOCS = Path(__file__).parents[2] / "docs"


def figures_of_the_card() -> dict[int, float]:
    """PSNR in dB by tokens per clip."""
    [card] = DOCS.rglob("model-card.md")
    sentence = r"\(`walk.mp4`\), PSNR is (\S+) dB at (\d+) tokens per clip and (\S+) dB at (\d+)\."
    match = re.search(sentence, " ".join(card.read_text(encoding="utf-8").split()))
    assert match, "the model card states no PSNR of walk.mp4"
    return {int(match[2]): float(match[1]), int(match[4]): float(match[3])}


def test_figures_of_the_card():
    card = figures_of_the_card()
    codec = AdapTok.from_pretrained(device="cpu")
    with as_file(files("adaptok") / "assets" / "walk.mp4") as clip:
        full = codec.encode(clip)
        reports = compare(codec, clip, [full.truncate(budget) for budget in card])
    for report, expected in zip(reports, card.values(), strict=True):
        assert report.psnr == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_precisions_choose_nearly_the_same_lengths(dtype):
    with as_file(files("adaptok") / "assets" / "walk.mp4") as clip:
        expected = AdapTok.from_pretrained(device="cpu").encode(clip, 256, stop=1.0)
        tokens = AdapTok.from_pretrained(device="cpu", dtype=dtype).encode(clip, 256, stop=1.0)
        streamed = AdapTok.from_pretrained(device="cpu", dtype=dtype).encode(clip, 256, scope="stream", stop=1.0)
    assert np.abs(tokens.lengths - expected.lengths).mean() < 0.1 * expected.lengths.mean()
    np.testing.assert_allclose(tokens.scores, expected.scores, rtol=0.1)
    assert abs(streamed.lengths.mean() - expected.lengths.mean()) < 0.25 * expected.lengths.mean()


def test_tokens_do_not_depend_on_the_number_of_threads():
    codec = AdapTok.from_pretrained(device="cpu")
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with as_file(files("adaptok") / "assets" / "walk.mp4") as clip:
                tokens = codec.encode(clip, 256, stop=0.5)
            results.append((tokens.ids, tokens.lengths, codec.decode(tokens)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_tokens_do_not_depend_on_batches_or_streaming():
    codec = AdapTok.from_pretrained(device="cpu")
    with as_file(files("adaptok") / "assets" / "walk.mp4") as clip:
        frames, _ = read_video(clip, stop=1)  # two clips, of which the second has fewer blocks
    one, many = (codec.encode(frames, 256, batch_size=size) for size in (1, 4))
    assert np.array_equal(one.ids, many.ids)
    assert np.array_equal(one.lengths, many.lengths)
    session = codec.streaming()
    blocks = [*session.push(frames), *session.flush()]
    assert np.array_equal(np.concatenate([block.ids for block in blocks]), codec.encode(frames).ids)


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
    assert sum(losses) / len(losses) < 4.5  # nats of an entry; log of the vocabulary is 10.4


def test_bundled_generator_is_small_and_samples():
    with as_file(files("adaptok") / "assets" / "adaptok-tiny-generator" / "model.safetensors") as weights:
        assert weights.stat().st_size < 12e6
    generator = Generator.from_pretrained(device="cpu")
    samples = generator.sample(["spin", 0], budget=40, seeds=[1, 2])
    assert int(samples.lengths.sum(1).max()) <= 40
    assert generator.decode(samples).shape == (2, 3, 16, 128, 128)
