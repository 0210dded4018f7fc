"""The prior against a plain form of the same network: one clip at a time, without squeezing, position by position."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from adaptok import AdapTok
from adaptok.config.model import PriorConfig
from adaptok.models.prior import Prior, select_kept
from adaptok.models.tokenizer_plans import kept_mask

POSITIONS, CODE_DIM, VOCABULARY = 12, 4, 9


@pytest.fixture
def prior():
    torch.manual_seed(0)
    prior = Prior(PriorConfig(width=16, depth=2, heads=2), POSITIONS, CODE_DIM).eval()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return prior


def plain_logits(prior, codes, positions, codebook):
    """Logits after the last of `codes [M, Z]`, from the weights by their names."""
    weights = dict(prior.named_parameters())

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, x):
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = linear("input", codes) + weights["positions"][positions]
    mask = torch.ones(len(x), len(x)).tril().log()
    for layer in range(prior.config.depth):
        block = f"blocks.{layer}"
        y = norm(f"{block}.ln1", x)
        q, k, v = (linear(f"{block}.attn.{name}", y).view(len(x), 2, 8) for name in ("query", "key", "value"))
        attention = (torch.einsum("nhd,mhd->hnm", q, k) / 8**0.5 + mask).softmax(-1)
        x = x + linear(f"{block}.attn.proj", torch.einsum("hnm,mhd->nhd", attention, v).reshape(len(x), 16))
        y = linear(f"{block}.mlp.0", norm(f"{block}.ln2", x))
        x = x + linear(f"{block}.mlp.2", y * (1 + torch.erf(y / 2**0.5)) / 2)
    predicted = F.normalize(linear("head", norm("final_norm", x[-1])), dim=-1)
    return F.normalize(codebook, dim=-1) @ predicted


def test_loss_is_that_of_every_kept_latent_given_those_before(prior):
    generator = torch.Generator().manual_seed(1)
    codes = torch.randn(2, POSITIONS, CODE_DIM, generator=generator)
    ids = torch.randint(VOCABULARY, (2, POSITIONS), generator=generator)
    codebook = torch.randn(VOCABULARY, CODE_DIM, generator=generator)
    kept = torch.tensor([[1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1, 0], [1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]]).bool()
    losses = []
    for clip in range(2):
        places = kept[clip].nonzero()[:, 0]
        for count in range(1, len(places) + 1):
            seen = places[:count]
            logits = plain_logits(prior, codes[clip, seen], seen, codebook)
            target = ids[clip, places[count]] if count < len(places) else torch.tensor(0)
            losses.append(F.cross_entropy(logits, target))
    actual = prior.loss(select_kept(codes, ids, kept), codebook)
    torch.testing.assert_close(actual, torch.stack(losses).mean(), atol=1e-5, rtol=0)


def test_scheduled_sampling_is_the_mean_of_two_rounds(prior):
    codes = F.normalize(torch.randn(2, POSITIONS, CODE_DIM), dim=-1)
    ids, codebook = torch.randint(VOCABULARY, (2, POSITIONS)), torch.randn(VOCABULARY, CODE_DIM)
    row = select_kept(codes, ids, torch.ones(2, POSITIONS, dtype=torch.bool))
    once = prior.loss(row, codebook)
    barely = prior.loss(row, codebook, replaced=1e-9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(barely, once)  # nothing was replaced: both rounds are the same
    often = prior.loss(row, codebook, replaced=1.0, generator=torch.Generator().manual_seed(0))
    again = prior.loss(row, codebook, replaced=1.0, generator=torch.Generator().manual_seed(0))
    assert torch.equal(often, again)
    assert not torch.isclose(often, once)


@pytest.mark.skipif(
    "ADAPTOK_OFFICIAL_PRIOR" not in os.environ,
    reason="ADAPTOK_OFFICIAL_PRIOR names no folder with an official checkpoint with a prior, and its numbers (23 MB)",
)
def test_official_prior():
    folder = Path(os.environ["ADAPTOK_OFFICIAL_PRIOR"])
    golden = load_file(folder / "tokenizer_golden.safetensors")
    model = AdapTok.from_pretrained(folder / "tokenizer", device="cpu").model
    tokenizer, codebook = model.tokenizer, model.tokenizer.quantizer.codebook
    quantized = tokenizer.quantize(tokenizer.encode(golden["video"]))
    codes, ids = quantized.codes.flatten(1, 2), quantized.ids.flatten(1)
    assert torch.equal(ids, golden["ids"].long())
    counts = golden["counts"].long()
    kept = kept_mask(counts, tokenizer.config.latents, counts.device).flatten(1)
    full = select_kept(codes, ids, torch.ones_like(kept))
    logits = model.prior(full.codes[:, :-1], full.positions[:, :-1], codebook)
    torch.testing.assert_close(logits, golden["prior_logits_full"], atol=1e-4, rtol=0)
    for row, name in ((full, "prior_ce_full"), (select_kept(codes, ids, kept), "prior_ce_counts")):
        torch.testing.assert_close(model.prior.loss(row, codebook), golden[name][0], atol=1e-4, rtol=0)
