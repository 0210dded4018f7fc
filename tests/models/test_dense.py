"""Forms of the networks with dense attention masks: equal to the networks, and traced by torch.export."""

from __future__ import annotations

import pytest
import torch

from adaptok.models.dense import DenseDecoder, DenseEncoder, DenseScorer
from tests.helpers.models import option_config, random_model, small_config

LENGTHS = [[8, 0, 3, 5], [1, 2, 3, 4], [0, 0, 0, 8]]
CONFIGS = {"vector": small_config(vector=True), "options": option_config()}


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_dense_forms_equal_the_networks(name, clips):
    model = random_model(CONFIGS[name])
    tokenizer, scorer = model.tokenizer, model.scorer
    encoded = tokenizer.encode(clips)
    quantized = tokenizer.quantize(encoded)
    inputs = tokenizer.project_codes(quantized.codes)
    ids, *latents = DenseEncoder(tokenizer)(clips)
    assert torch.equal(ids, quantized.ids)
    torch.testing.assert_close(latents, [encoded, inputs], atol=1e-5, rtol=1e-5)
    lengths = torch.tensor(LENGTHS)
    decoded = DenseDecoder(tokenizer)(ids, lengths)
    torch.testing.assert_close(decoded, tokenizer.decode(inputs, LENGTHS), atol=1e-5, rtol=1e-5)
    scores = DenseScorer(scorer)(encoded, inputs, lengths)
    torch.testing.assert_close(scores, scorer(encoded, inputs, LENGTHS), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_decoder_is_traced_for_all_lengths_and_batches():
    tokenizer = random_model(option_config()).tokenizer
    ids = torch.randint(80, (3, 4, 8), generator=torch.Generator().manual_seed(0))
    batch = {0: torch.export.Dim("clips", min=1, max=8)}
    full = torch.full((3, 4), 8)
    program = torch.export.export(DenseDecoder(tokenizer), (ids, full), dynamic_shapes=(batch, batch), strict=False)
    for rows in (LENGTHS, LENGTHS[:1]):
        decoded = program.module()(ids[: len(rows)], torch.tensor(rows))
        expected = tokenizer.decode(tokenizer.lookup(ids[: len(rows)]), rows)
        torch.testing.assert_close(decoded, expected, atol=1e-5, rtol=1e-5)
