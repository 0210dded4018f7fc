"""Scorers whose curves deviate from a mean curve by a low polynomial."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaptok.checkpoints.model_folder import read_folder, write_folder
from adaptok.config.model import ModelConfig
from adaptok.models.dense import DenseScorer
from adaptok.models.model import Model
from tests.helpers.models import small_config

CURVE = tuple(tuple(float(10 * block + column**2) for column in range(4)) for block in range(4))


def scorer_model(**changes):
    config = small_config()
    assert config.scorer is not None
    torch.manual_seed(0)
    model = Model(config.model_copy(update={"scorer": config.scorer.model_copy(update=changes)}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_scores_are_a_curve_and_a_polynomial_in_the_logarithm_of_the_length(clips, tmp_path):
    plain, shaped = scorer_model(), scorer_model(curve=CURVE, degree=1)
    encoded = plain.tokenizer.encode(clips)
    inputs = plain.tokenizer.project_codes(plain.tokenizer.quantize(encoded).codes)
    whole = [[8] * 4] * 3
    with torch.no_grad():
        raw = plain.scorer(encoded, inputs, whole).numpy()
        made = shaped.scorer(encoded, inputs, whole).numpy() - np.array(CURVE, np.float32)
        logs = np.log([2.0, 4.0, 6.0, 8.0])
        for clip in range(3):
            for block in range(4):
                fitted = np.polyval(np.polyfit(logs, raw[clip, block], 1), logs)
                np.testing.assert_allclose(made[clip, block], fitted, atol=1e-4)
        # block by block, and as dense networks
        cache = shaped.scorer.cache(1)
        shaped.scorer.prefill(encoded[:1, :2], inputs[:1, :2], [[8, 8]], cache)
        last = shaped.scorer(encoded[:1, 2:], inputs[:1, 2:], [[8] * 4], cache).numpy() - np.array(
            CURVE[2:], np.float32
        )
        np.testing.assert_allclose(last, made[:1, 2:], atol=1e-4)
        write_folder(shaped, tmp_path)
        stored = read_folder(tmp_path).build()
        np.testing.assert_allclose(
            stored.scorer(encoded, inputs, whole).numpy() - np.array(CURVE, np.float32), made, atol=1e-4
        )
        dense = DenseScorer(shaped.scorer)(encoded, inputs, torch.tensor(whole)).numpy()
        np.testing.assert_allclose(dense - np.array(CURVE, np.float32), made, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"curve": CURVE[:3]}, "curve of 3 rows, expected 4, one for each block, of 4 values"),
        ({"degree": 4}, "degree 4 of a scorer with 4 candidate lengths, expected less"),
    ],
)
def test_invalid_shapes_of_curves(changes, message):
    config = small_config()
    with pytest.raises(ValueError, match=message):
        ModelConfig(tokenizer=config.tokenizer, scorer=config.scorer.model_dump() | changes)
