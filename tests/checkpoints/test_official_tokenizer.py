"""An official checkpoint with random weights, against what the original program computes with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from adaptok import AdapTok, CheckpointError, LengthPolicy
from adaptok.checkpoints.model_folder import read_folder
from adaptok.models.tokenizer_plans import kept_mask

DATA = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def golden():
    return load_file(DATA / "official_golden.safetensors")


@pytest.fixture(scope="module")
def official():
    return AdapTok.from_pretrained(DATA / "official", device="cpu")


def close(actual, expected, tolerance=1e-4):
    torch.testing.assert_close(actual.reshape(expected.shape), expected, atol=tolerance, rtol=0)


def test_encoder_and_quantizer(official, golden):
    latents = official.encode_clips(golden["video"])
    assert torch.equal(latents.ids.flatten(), golden["ids"].flatten().long())
    close(latents.encoded, golden["encoder_output"])
    close(latents.inputs, golden["decoder_input"])


def test_decoder(official, golden):
    ids = official.encode_clips(golden["video"]).ids
    b, g, k = ids.shape
    close(official.decode_clips(ids, [[k] * g] * b), golden["recon_full"], 2e-4)
    close(official.decode_clips(ids, golden["counts"].long()), golden["recon_counts"], 2e-4)


def test_scorer(official, golden):
    latents = official.encode_clips(golden["video"])
    close(official.score_clips(latents), golden["scores_full"])
    close(official.score_clips(latents, golden["counts"].long()), golden["scores_counts"])


def test_causal_allocation(official, golden):
    latents = official.encode_clips(golden["video"])
    budgets = [float(value) for value in golden["causal_budget_per_block"]]
    lengths, result = official.choose_lengths(latents, LengthPolicy(budgets, "batch").chooser(official.layout))
    scores = official.model.scorer.normalize(torch.from_numpy(result))
    close(scores, golden["causal_scores"])
    step, expected = official.length_step, golden["causal_counts"].long().view(lengths.shape)

    def objective(chosen):
        return scores.gather(2, (chosen // step - 1)[..., None]).sum((0, 1, 2)).item()

    assert objective(torch.from_numpy(lengths)) == pytest.approx(objective(expected), abs=1e-6)
    close(official.decode_clips(latents.ids, lengths), golden["recon_causal"], 2e-4)


def test_converted_is_the_same(official, golden, tmp_path):
    official.save_pretrained(tmp_path)
    again = AdapTok.from_pretrained(tmp_path, device="cpu")
    assert again.weights_hash == official.weights_hash
    assert torch.equal(again.encode_clips(golden["video"]).ids, official.encode_clips(golden["video"]).ids)


def test_missing_and_unknown_weights_are_listed(official):
    checkpoint = read_folder(DATA / "official")
    state = dict(checkpoint.state)
    state["surplus"] = state.pop("tokenizer.to_code.weight")
    with pytest.raises(CheckpointError, match=r"missing weights: tokenizer.to_code.weight.*unknown weights: surplus"):
        checkpoint._replace(state=state).build()
    assert np.isfinite(official.max_budget)


def test_quantizer_losses(official, golden):
    tokenizer = official.model.tokenizer
    encoded = golden["encoder_output"].unflatten(1, (tokenizer.config.blocks, tokenizer.config.latents))
    full = tokenizer.quantize(encoded)
    close(full.codes, golden["codes_normalized"])
    close(full.commitment, golden["loss_commit_full"], 1e-6)
    kept = kept_mask(golden["counts"].long(), tokenizer.config.latents, encoded.device)
    counted = tokenizer.quantize(encoded, kept=kept)
    close(counted.commitment, golden["loss_commit_counts"], 1e-6)
    close(counted.codebook, golden["loss_codebook_counts"], 1e-6)
