"""The output layer fitted by least squares."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adaptok.config.training import TrainingConfig
from adaptok.metrics.distortion import edge_ratio
from adaptok.models.tokenizer import Tokenizer
from adaptok.training.clip_data import ClipData
from adaptok.training.initialization import initial_model
from adaptok.training.initialization.output_fit import fit_output_layer
from tests.helpers.models import linear_tokenizer, random_model, small_config, smooth_clips
from tests.helpers.training import assert_resumes, config

LENGTHS = [[8, 3, 0, 5], [2, 8, 8, 1]]


def build(**options) -> Tokenizer:
    model = small_config()
    return random_model(model.model_copy(update={"tokenizer": model.tokenizer.model_copy(update=options)})).tokenizer


def error(tokenizer: Tokenizer, clips: Tensor) -> Tensor:
    inputs = tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(clips)).codes)
    return (tokenizer.decode(inputs, LENGTHS) - clips).square().mean()


def test_a_stopped_run_does_not_fit_again(tmp_path):
    options = config(tmp_path, "tokenizer", fit_output_clips=4, losses={"l1": 1, "borders": 0.5}, max_steps=4)
    windows = options.model.tokenizer.model_copy(update={"decoder_window": 6})
    model = options.model.model_copy(update={"tokenizer": windows})
    options = options.model_copy(update={"model": model, "checkpoint_every": 2, "validate_every": 4})
    metrics = assert_resumes(options, tmp_path, (3,))
    assert all("borders" in line for line in metrics if "loss" in line)


@pytest.mark.parametrize(
    ("stage", "changes"), [("scorer", {}), ("tokenizer", {"trainable": ["encoder"]})], ids=["scorer", "encoder"]
)
def test_a_run_that_does_not_train_the_decoder_does_not_fit_it(tmp_path, stage, changes):
    with pytest.raises(ValueError, match="fit_output_clips 4 changes the decoder"):
        config(tmp_path, stage, fit_output_clips=4, **changes)


@pytest.mark.parametrize("window", [None, 6, 8])
def test_no_other_weights_of_the_layer_have_a_smaller_error(window):
    tokenizer = build(decoder_window=window)
    clips = torch.rand(2, 3, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    layer = tokenizer.to_pixels
    before = torch.autograd.grad(error(tokenizer, clips), (layer.weight, layer.bias))
    first = error(tokenizer, clips).item()
    fit_output_layer(tokenizer, [(clips[:1], LENGTHS[:1]), (clips[1:], LENGTHS[1:])], ridge=1e-5)
    after = torch.autograd.grad(error(tokenizer, clips), (layer.weight, layer.bias))
    assert error(tokenizer, clips).item() < first / 2
    # the error is convex in these weights, so that a gradient of 0 is the minimum
    for old, new in zip(before, after, strict=True):
        assert new.norm() < old.norm() / 100


def test_a_linear_start_with_overlapping_windows_shows_fewer_edges(monkeypatch):
    monkeypatch.setattr(initial_model, "PCA_CLIPS", 48)
    measured = {}
    clips = smooth_clips(64)
    for window, count in ((None, 0), (12, 64)):
        tokenizer = linear_tokenizer(decoder_window=window).config
        options = TrainingConfig.parse(
            {
                "stage": "tokenizer",
                "model": {"tokenizer": tokenizer.model_dump(), "scorer": None},
                "initialization": "linear",
                "fit_output_clips": count,
                "lengths": {"kind": "fixed", "length": 48},
                "max_steps": 1,
                "micro_batch_size": 32,
            }
        )
        model = initial_model.new_model(options, ClipData(clips, None)).tokenizer
        with torch.no_grad():
            decoded, _ = model(clips[:16], [[48] * 4] * 16)
        errors = (decoded - clips[:16]).square().mean().item()
        measured[window] = errors, edge_ratio(decoded.clamp(0, 1), 8).mean().item()
    (plain, plain_edges), (overlapping, edges) = measured.values()
    assert overlapping < plain
    assert edges < plain_edges
