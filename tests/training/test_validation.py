"""Measurements on held-out clips during training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adaptok.config.model import PriorConfig
from adaptok.data.clips import FirstClips, fixed_clips
from adaptok.metrics.frechet import FeatureStatistics, frechet_distance
from adaptok.metrics.fvd import Detector
from adaptok.models.model import Model
from adaptok.models.prior import select_kept
from adaptok.training.codebook import codebook_metrics, count_ids
from adaptok.training.fvd import reconstruction_fvd
from adaptok.training.validation import prior_accuracy, validate_tokenizer
from tests.helpers.models import small_config
from tests.helpers.training import config, everything, train
from tests.helpers.videos import write_video


@pytest.fixture
def model():
    torch.manual_seed(0)
    settings = small_config(vector=True).model_copy(
        update={"scorer": None, "prior": PriorConfig(width=16, depth=1, heads=2)}
    )
    return Model(settings).eval()


def test_first_clips_equal_fixed_ones_and_are_read_on_demand(tmp_path):
    for index, frames in enumerate((20, 5, 9)):
        write_video(tmp_path / f"{index}.mp4", frames)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    clips = FirstClips(tmp_path, frames=8, size=32)
    expected = fixed_clips(tmp_path, frames=8, size=32, per_video=1)
    assert len(clips) == 3
    assert torch.equal(torch.stack([clips[i] for i in range(3)]), expected)
    assert [path.name for path in FirstClips(tmp_path, frames=8, size=32, count=2).paths] == ["0.mp4", "2.mp4"]
    (tmp_path / "1.mp4").write_bytes(b"vanished")
    assert torch.equal(clips[1], expected[2])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no readable video"):
        FirstClips(tmp_path / "empty", frames=8, size=32)


def test_codebook_metrics_follow_their_formulas():
    counts = count_ids(torch.tensor([[0, 1], [1, 3]]), 5)
    assert counts.tolist() == [1, 2, 0, 1, 0]
    metrics = codebook_metrics(counts)
    assert metrics["codebook_usage"] == pytest.approx(3 / 5)
    entropy = -(0.25 * math.log(0.25) * 2 + 0.5 * math.log(0.5))
    assert metrics["codebook_perplexity"] == pytest.approx(math.exp(entropy))
    assert codebook_metrics(torch.full((7,), 3))["codebook_perplexity"] == pytest.approx(7)


def test_prior_accuracy_looks_among_the_most_likely_ids(model):
    clips = torch.rand(2, 3, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        quantized = model.tokenizer.quantize(model.tokenizer.encode(clips))
        ids = quantized.ids.flatten(1)
        row = select_kept(quantized.codes.flatten(1, 2), ids, torch.ones_like(ids, dtype=torch.bool))
        logits = model.prior(row.codes[:, :-1], row.positions[:, :-1], model.tokenizer.quantizer.codebook)
        accuracies = prior_accuracy(model, quantized)
    order = logits.argsort(-1, descending=True)
    for top in (1, 5):
        expected = (order[..., :top] == ids[:, 1:, None]).any(-1).float().mean(1)
        torch.testing.assert_close(accuracies[f"prior_top{top}"], expected)
    assert set(validate_tokenizer(model, clips, batch_size=1)) >= {"validation_prior_top5", "validation_codebook_usage"}


def test_fvd_of_reconstructions(model):
    def network(clips, resize, return_features):
        return torch.cat([clips.mean((2, 3, 4)), clips.amax((2, 3, 4))], 1)

    detector = Detector(network, "test")
    clips = torch.rand(9, 3, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    results = reconstruction_fvd(detector, model, clips)
    with torch.no_grad():
        inputs = model.tokenizer.project_codes(model.tokenizer.quantize(model.tokenizer.encode(clips)).codes)
        blocks, latents = model.tokenizer.config.blocks, model.tokenizer.config.latents
        for length in (latents // 2, latents):
            decoded = model.tokenizer.decode(inputs, [[length] * blocks] * 9).clamp(0, 1)
            one, two = (FeatureStatistics.of(detector.features(x)) for x in (clips, decoded))
            assert results[f"validation_fvd_{length}"] == pytest.approx(frechet_distance(one, two), rel=1e-4)


def test_runs_measure_fvd_on_a_schedule(tmp_path, monkeypatch):
    seen = []

    def measure(detector, model, clips):
        seen.append(len(clips))
        return {"validation_fvd_8": 3.0}

    monkeypatch.setattr("adaptok.training.stages.reconstruction_fvd", measure)
    monkeypatch.setattr("adaptok.training.stages.find_detector", lambda config, device: Detector(np.mean, "test"))
    options = config(tmp_path, "tokenizer", max_steps=2, validate_every=1, fvd_every=2, trackers=[])
    train(options, tmp_path / "run")
    metrics = everything(tmp_path / "run")[1]
    assert [line["step"] for line in metrics if "validation_fvd_8" in line] == [2]
    assert seen == [2]
    assert all(0 < line["codebook_usage"] <= 1 for line in metrics if "loss" in line)
    with pytest.raises(ValueError, match="fvd_every 3 is not a multiple of validate_every 2"):
        config(tmp_path, "tokenizer", validate_every=2, fvd_every=3)
