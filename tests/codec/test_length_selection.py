"""Scores that go through what was measured."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from adaptok import AdapTok
from adaptok.allocation.policy import ClipLayout, LengthPolicy
from adaptok.codec.length_selection import calibrate_at_probes
from adaptok.config.model import ModelConfig, ScorerConfig
from adaptok.metrics.distortion import block_distortion, multiscale_error
from adaptok.models.model import Model
from adaptok.training.stages import measure_lambdas
from tests.helpers.models import small_config


@pytest.fixture
def calibrated_codec() -> AdapTok:
    torch.manual_seed(3)
    model = Model(small_config())
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return AdapTok(model, "")


def test_scores_at_probe_lengths_are_true_distortions(calibrated_codec, clips):
    codec = calibrated_codec
    lengths = [[8, 3, 5, 8], [1, 8, 2, 4], [8, 3, 5, 8]]
    latents = codec.encode_clips(clips)
    scores = codec.score_clips(latents, lengths, normalized=False)
    for index, row in enumerate(lengths):
        for block in range(4):
            for probe_length in (2, 6):
                kept = [*row[:block], probe_length, *row[block + 1 :]]
                decoded = codec.decode_clips(latents.ids[index : index + 1], [kept]).clamp(0, 1)
                true = block_distortion(decoded, clips[index : index + 1], "multiscale", 2)[0, block]
                torch.testing.assert_close(scores[index, block, probe_length // 2 - 1], true, rtol=1e-3, atol=1e-6)


def test_correction_keeps_the_shape_of_the_prediction():
    scores = torch.tensor([[8.0, 4.0, 2.0, 1.0]])
    factor = calibrate_at_probes(scores, torch.tensor([[8.0]]), (2,), 1) / scores
    torch.testing.assert_close(factor, torch.full((1, 4), 2.0))
    factor = calibrate_at_probes(scores, torch.tensor([[16.0, 8.0]]), (1, 3), 1) / scores
    torch.testing.assert_close(factor, torch.tensor([[2.0, 8.0**0.5, 4.0, 4.0]]))


def test_multiscale_error_weighs_coarse_errors_most():
    target = torch.zeros(1, 3, 1, 16, 16)
    flat = torch.full_like(target, 0.1)
    checked = flat * (1 - 2 * ((torch.arange(16)[:, None] + torch.arange(16)) % 2))
    torch.testing.assert_close(multiscale_error(flat, target), torch.tensor([[0.01]]))
    torch.testing.assert_close(multiscale_error(checked, target), torch.tensor([[0.0025]]))


@pytest.mark.parametrize(
    ("probe_lengths", "says"), [((3,), "multiples"), ((4, 2), "rising"), ((10,), "above the 8 latents")]
)
def test_probe_lengths_that_do_not_fit(probe_lengths, says):
    values = small_config().model_dump()
    values["scorer"]["probe_lengths"] = probe_lengths
    with pytest.raises(ValueError, match=says):
        ModelConfig.parse(values)


def test_anchors_need_a_distortion_that_can_be_measured():
    with pytest.raises(ValueError, match="lpips"):
        ScorerConfig(distortion="lpips", probe_lengths=(64,))


def test_streams_measure_what_a_batch_measures(calibrated_codec):
    frames = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    streamed = [block.scores for block in calibrated_codec.streaming(budget=32).push(frames)]
    lengths = [len(block.ids) for block in calibrated_codec.streaming(budget=32).push(frames)]
    clip = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 255
    latents = calibrated_codec.encode_clips(clip)
    for block, scores in enumerate(streamed):
        kept = [[*lengths[:block], *[8] * (4 - block)]]
        whole = calibrated_codec.score_clips(latents, kept, normalized=False)[0, block]
        np.testing.assert_allclose(scores, whole.numpy(), rtol=1e-3)


def test_no_length_between_is_as_good_as_the_longer_one_that_helps():
    scores = torch.tensor([[4.0, 0.1, 0.2, 2.0], [1.0, 2.0, 3.0, 2.0]])
    corrected = calibrate_at_probes(scores, torch.tensor([[4.0, 1.0], [1.0, 2.0]]), (1, 4), 1)
    assert (corrected[0].diff() < 0).any()
    assert (corrected[0, 1:3] > 1.0).all()
    torch.testing.assert_close(corrected[:, [0, 3]], torch.tensor([[4.0, 1.0], [1.0, 2.0]]))


def test_streams_start_at_the_lambda_that_is_known(calibrated_codec):
    clips = torch.rand(6, 3, 8, 16, 16, generator=torch.Generator().manual_seed(2))
    lambdas = measure_lambdas(calibrated_codec.model, clips, batch_size=4)
    assert lambdas == measure_lambdas(calibrated_codec.model, clips, batch_size=3)
    assert len(lambdas) > 2
    assert all(a[0] < b[0] and a[1] > b[1] for a, b in pairwise(lambdas))
    layout = ClipLayout(4, 8, 2, lambdas)
    for tokens, lmbda in lambdas:
        assert layout.lmbda(tokens) == pytest.approx(lmbda)
    tokens = (lambdas[0][0] + lambdas[1][0]) / 2
    assert layout.lmbda(tokens) == pytest.approx((lambdas[0][1] * lambdas[1][1]) ** 0.5)
    allocator = LengthPolicy(4 * tokens, "stream").stream(layout).allocator
    assert allocator is not None
    assert allocator.lmbda == layout.lmbda(tokens)
    assert ClipLayout(4, 8, 2).lmbda(5) is None


@torch.no_grad()
def test_blocks_left_behind_are_blocks_remembered(clips):
    """Where the last probe length is the whole block, earlier blocks are not decoded again: the same numbers."""
    torch.manual_seed(0)
    config = small_config()
    config = config.model_copy(update={"scorer": config.scorer.model_copy(update={"probe_lengths": (2, 8)})})
    codec = AdapTok(Model(config), "")
    for parameter in codec.model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    latents = codec.encode_clips(clips)
    remembered = codec.score_clips(latents, [[8] * 4] * len(clips), normalized=False)
    assert torch.equal(codec.score_clips(latents, normalized=False), remembered)
