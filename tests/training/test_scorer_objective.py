"""Targets of the scorer."""

from __future__ import annotations

import torch

from adaptok import AdapTok
from adaptok.metrics.distortion import multiscale_error
from adaptok.training.losses import LpipsNetworks
from adaptok.training.objectives import ScorerObjective
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
            measured = objective.measure_distortions(seen, inputs[:, : block + 1], earlier)
            for column, length in enumerate(range(2, 9, 2)):
                decoded = tokenizer.decode(inputs[:, : block + 1], [[*clip, length] for clip in earlier]).clamp(0, 1)
                error = multiscale_error(decoded, seen)[:, 2 * block :].mean(1)
                torch.testing.assert_close(measured[:, column], error, atol=1e-6, rtol=1e-5)
