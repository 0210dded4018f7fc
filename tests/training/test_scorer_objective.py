"""Targets of the scorer."""

from __future__ import annotations

import torch

from adaptok import AdapTok
from adaptok.metrics.distortion import multiscale_error
from adaptok.models.model import Model
from adaptok.training.losses import LpipsNetworks
from adaptok.training.objectives import ScorerObjective, StepContext, draw_lengths
from tests.helpers.training import config


def test_targets_are_the_distortions_of_decoded_blocks(tmp_path, clips):
    options = config(tmp_path, "scorer")
    model = AdapTok.from_pretrained(options.initial, device="cpu").model
    torch.nn.init.normal_(model.tokenizer.to_pixels.weight, std=0.3)
    objective = ScorerObjective(model, options, LpipsNetworks())
    tokenizer = model.tokenizer
    inputs = tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(clips)).codes)
    with torch.no_grad():
        for earlier in ([[]] * 3, [[3], [8], [0]], [[8, 1, 5], [2, 0, 8], [1, 8, 8]]):
            block = len(earlier[0])
            seen = clips[:, :, : 2 * (block + 1)]
            measured = objective.measure_distortions(seen, inputs[:, : block + 1], earlier, range(2, 9, 2))
            for column, length in enumerate(range(2, 9, 2)):
                decoded = tokenizer.decode(inputs[:, : block + 1], [[*clip, length] for clip in earlier]).clamp(0, 1)
                error = multiscale_error(decoded, seen)[:, 2 * block :].mean(1)
                torch.testing.assert_close(measured[:, column], error, atol=1e-6, rtol=1e-5)


def test_cumulative_targets_are_the_distortions_of_a_block_and_all_later_ones(tmp_path, clips):
    options = config(tmp_path, "scorer")
    scorer = options.model.scorer.model_copy(update={"target": "cumulative"})
    options = options.model_copy(update={"scored_candidates": 3, "level_weight": 0.5})
    model = Model(options.model.model_copy(update={"scorer": scorer}))
    torch.nn.init.normal_(model.tokenizer.to_pixels.weight, std=0.3)
    objective = ScorerObjective(model, options, LpipsNetworks())
    for block in range(4):
        targets = objective.measure(clips, block, torch.Generator().manual_seed(block))
        lengths = draw_lengths(options.lengths, 1, 4, torch.Generator().manual_seed(block))[0]
        assert targets.lengths == [[*lengths[:block], 8]] * 3
        assert targets.features.shape[:3] == targets.inputs.shape[:3] == (3, 4, 8)
        assert len(targets.columns) == 3
        with torch.no_grad():
            inputs = model.tokenizer.project_codes(model.tokenizer.quantize(model.tokenizer.encode(clips)).codes)
            for column, measured in zip(targets.columns.tolist(), targets.distortions.T, strict=True):
                chosen = [*lengths[:block], 2 * (column + 1), *lengths[block + 1 :]]
                decoded = model.tokenizer.decode(inputs, [chosen] * 3).clamp(0, 1)
                error = multiscale_error(decoded, clips)[:, 2 * block :].mean(1)
                torch.testing.assert_close(measured, error, atol=1e-6, rtol=1e-5)
    output = objective(clips, StepContext.seeded(0))
    output.loss.backward()
    assert all(parameter.grad is not None for name, parameter in objective.trained_parameters() if "head" in name)
