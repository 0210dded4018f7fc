"""Official generators with random weights, against what the original program computes with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from adaptok import AdapTok
from adaptok.generation import Generator
from adaptok.generation.sequences import join_blocks

DATA = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def codec():
    return AdapTok.from_pretrained(DATA / "official", device="cpu")


@pytest.fixture(scope="module", params=["generator", "predictor"])
def pair(request, codec):
    golden = load_file(DATA / f"{request.param}_golden.safetensors")
    return Generator.from_pretrained(DATA / request.param, codec=codec, device="cpu"), golden


def conditions(golden):
    return golden["labels" if "labels" in golden else "cond_ids"].long()


def sample(generator, golden, **options):
    name = "labels" if "labels" in golden else "condition_ids"
    return generator.sample(**{name: conditions(golden)}, **options)


def rows(generator, samples):
    """Written rows `[B][entries]` of samples."""
    config = generator.config
    written = (part[:, config.first_block :] for part in samples)
    for ids, lengths in zip(*written, strict=True):
        kept = torch.arange(config.latents) < lengths[:, None]
        yield join_blocks(ids[kept], lengths, config.eob).tolist()


def test_logits_and_loss(pair):
    generator, golden = pair
    sequence, valid = golden["sequence"].long(), golden["valid"]
    logits = generator(sequence[:, :-1], conditions(golden))
    torch.testing.assert_close(logits, golden["logits"], atol=1e-4, rtol=0)
    loss = F.cross_entropy(logits[valid], sequence[valid])
    torch.testing.assert_close(loss[None], golden["loss"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_greedy_rows(pair, batch_size):
    generator, golden = pair
    samples = sample(generator, golden, top_k=1, batch_size=batch_size)
    assert torch.equal(samples.lengths[:, generator.config.first_block :].int(), golden["greedy_counts"])
    for row, expected in zip(rows(generator, samples), golden["greedy_sequence"].tolist(), strict=True):
        assert row == expected[: len(row)]


def test_greedy_rows_with_guidance(pair):
    generator, golden = pair
    if "greedy_cfg2_counts" not in golden:
        with pytest.raises(ValueError, match="needs a generator of classes"):
            sample(generator, golden, cfg_scale=2.0)
        return
    samples = sample(generator, golden, temperature=0, cfg_scale=2.0, batch_size=3)
    assert torch.equal(samples.lengths.int(), golden["greedy_cfg2_counts"])
    for row, expected in zip(rows(generator, samples), golden["greedy_cfg2_sequence"].tolist(), strict=True):
        assert row == expected[: len(row)]


def test_condition_and_copied_block(pair, codec):
    generator, golden = pair
    if not generator.config.condition_ids:
        return
    video = load_file(DATA / "official_golden.safetensors")["video"]
    frames = video[:, :, : int(golden["num_cond_frames"])].permute(0, 2, 3, 4, 1).numpy()
    result = torch.cat([generator.condition(clip) for clip in frames])
    assert torch.equal(result, conditions(golden))
    samples = sample(generator, golden, top_k=1)
    assert torch.equal(samples.ids[:, 0], conditions(golden)[:, : generator.config.latents])
    assert samples.lengths[:, 0].tolist() == [generator.config.latents] * len(video)


@pytest.mark.parametrize("layout", ["adaptok", "official"])
def test_saved_is_the_same(pair, layout, tmp_path):
    generator, golden = pair
    generator.save_pretrained(tmp_path, layout=layout)
    again = Generator.from_pretrained(tmp_path, device="cpu")
    ids = golden["sequence"].long()[:, :-1]
    assert torch.equal(again(ids, conditions(golden)), generator(ids, conditions(golden)))
    assert again.config.model_copy(update={"name": ""}) == generator.config.model_copy(update={"name": ""})
