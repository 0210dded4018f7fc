"""Sampling with a cache equals sampling without one, in every batch and with a compiled step."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter

from adaptok.config.generator import GeneratorConfig
from adaptok.generation.sampling import Sampler, Sampling, draw
from adaptok.models import kv_cache
from adaptok.models.generator import GeneratorModel
from adaptok.ops.paged_attention import PAGE
from adaptok.ops.prepacked_linear import prepack_linears

SHARED = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


SIZE = {"width": 32, "depth": 2, "heads": 2, "blocks": 3, "latents": 5}
KINDS = {
    "classes": GeneratorConfig(**SIZE, codebook_size=24, classes=3, labels=("cat", "dog", "fox")),
    "frames": GeneratorConfig(**SIZE, codebook_size=24, condition_ids=10, first_block=1),
    "digits": GeneratorConfig(**SIZE, codebook_size=24, classes=3, levels=(4, 3, 2), mixture=2),
}


def build(kind: str) -> GeneratorModel:
    torch.manual_seed(3)
    model = GeneratorModel(KINDS[kind])
    for parameter in model.parameters():  # including the output layer, and large enough to tell entries apart
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return model.eval()


@pytest.fixture(params=list(KINDS))
def model(request) -> GeneratorModel:
    return build(request.param)


def conditions_of(config, count):
    generator = torch.Generator().manual_seed(5)
    if config.classes:
        return torch.randint(config.classes, (count,), generator=generator)
    return torch.randint(config.codebook_size, (count, config.condition_ids), generator=generator)


@torch.inference_mode()
def uncached(model, condition, rules, seed):
    """Generate one sequence with a forward pass over the whole sequence for every entry, and the rules written out."""
    config, row = model.config, []
    randoms = np.random.default_rng(seed).random(config.max_entries)
    none = torch.tensor([config.classes]) if config.classes else None
    while row.count(config.eob) < config.blocks:
        ids = torch.tensor([row], dtype=torch.long)
        logits = model(ids, condition[None])[:, -1]
        first, stop = rules.cfg_interval or (0, config.max_entries)
        if rules.cfg_scale != 1 and first <= len(row) < stop:
            unconditional = model(ids, none)[:, -1]
            logits = unconditional + rules.cfg_scale * (logits - unconditional)
        closed = row.count(config.eob)
        length = len(row) - (len(row) - row[::-1].index(config.eob) if config.eob in row else 0)
        reserved = rules.min_length * (config.blocks - 1 - closed)
        budget = np.inf if rules.budget is None else rules.budget - (len(row) - closed) - reserved
        if length >= (rules.max_length or config.latents) or budget <= 0:
            row.append(config.eob)
            continue
        if not row or length < rules.min_length:
            logits[:, config.eob] = -torch.inf
        row.append(int(draw(logits, torch.tensor([randoms[len(row)]], dtype=torch.float64), rules)))
    return row


RULES = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.5, 1.0]),
    top_k=st.sampled_from([None, 1, 4]),
    top_p=st.sampled_from([None, 0.7]),
    cfg_scale=st.sampled_from([1.0, 1.5]),
    cfg_interval=st.sampled_from([None, (2, 6), (0, 3)]),
    budget=st.sampled_from([None, 4, 9]),
    min_length=st.sampled_from([0, 1]),
    max_length=st.sampled_from([None, 3]),
)


@SHARED
@given(rules=RULES, count=st.integers(1, 5), batch_size=st.integers(1, 4), dense=st.booleans())
def test_cached_equals_uncached(model, rules, count, batch_size, dense):
    if model.config.condition_ids and rules.guided:
        return
    conditions, seeds = conditions_of(model.config, count), list(range(10, 10 + count))
    kind = kv_cache.DenseKVCache if dense else kv_cache.PagedKVCache
    sampler = Sampler(model, rules, batch_size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kv_cache, "PagedKVCache", kind)
        clips = dict(sampler.sequences(conditions, seeds))
    assert sorted(clips) == list(range(count))
    for index, condition in enumerate(conditions):
        assert clips[index] == uncached(model, condition, rules, seeds[index])
    assert sampler.stats.entries == sum(map(len, clips.values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_clip_is_the_same_in_every_batch(model, dtype):
    model = model.to(dtype)
    prepack_linears(model)
    conditions = conditions_of(model.config, 7)
    alone = {}
    for index in range(7):
        [(_, alone[index])] = Sampler(model, Sampling(), 1).sequences(conditions[index : index + 1], [index])
    for batch_size in (2, 3, 7):
        assert dict(Sampler(model, Sampling(), batch_size).sequences(conditions, range(7))) == alone


def build_long(model):
    config = model.config.model_copy(update={"latents": 60, "condition_ids": 0, "classes": 3, "first_block": 0})
    torch.manual_seed(0)
    long = type(model)(config.model_copy(update={"labels": ()})).eval()
    for parameter in long.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return long


@pytest.mark.parametrize(
    "rules", [Sampling(), Sampling(temperature=0), Sampling(cfg_scale=2.0, cfg_interval=(1, 9))], ids=str
)
def test_a_compiled_step_gives_the_same_clips(model, rules):
    """Free slots take part in a compiled step, and clips that start later take over free slots."""
    if model.config.condition_ids and rules.guided:
        pytest.skip("frame prediction has no guidance")
    conditions = conditions_of(model.config, 7)
    plain = dict(Sampler(model, rules, 3).sequences(conditions, range(7)))
    compiler = CompileCounter()
    sampler = Sampler(model, rules, 3, compile=compiler)
    assert dict(sampler.sequences(conditions, range(7))) == plain
    assert dict(sampler.sequences(conditions[:2], range(2))) == {index: plain[index] for index in (0, 1)}
    assert compiler.frame_count == 1


def test_compiled_samplings_side_by_side(model):
    conditions, compiler = conditions_of(model.config, 6), CompileCounter()
    plain = dict(Sampler(model, Sampling(), 2).sequences(conditions, range(6)))
    first, second = (Sampler(model, Sampling(), 2, compile=compiler).sequences(conditions, range(6)) for _ in range(2))
    clips = list(zip(first, second, strict=True))
    assert dict(one for one, _ in clips) == dict(other for _, other in clips) == plain


def test_a_compiled_step_follows_its_model(model):
    conditions, compiler = conditions_of(model.config, 2), CompileCounter()
    sampler = Sampler(model, Sampling(temperature=0), 2, compile=compiler)
    dict(sampler.sequences(conditions, range(2)))
    for changed in (model.to(torch.float64), copy.deepcopy(model)):
        with torch.no_grad():
            changed.positions.neg_()
        plain = dict(Sampler(changed, Sampling(temperature=0), 2).sequences(conditions, range(2)))
        again = Sampler(changed, Sampling(temperature=0), 2, compile=compiler)
        assert dict(again.sequences(conditions, range(2))) == plain


def test_a_compiled_step_has_few_shapes(model):
    long, compiler = build_long(model), CompileCounter()
    rules = Sampling(temperature=0, min_length=55)
    clips = dict(Sampler(long, rules, 2, compile=compiler).sequences(torch.tensor([0, 1, 2]), [0, 1, 2]))
    assert clips == dict(Sampler(long, rules, 2).sequences(torch.tensor([0, 1, 2]), [0, 1, 2]))
    assert max(map(len, clips.values())) > PAGE
    assert 1 < compiler.frame_count <= kv_cache.MAX_READ_SIZES


def test_long_sequences_cross_pages(model):
    """Sequences have several pages of the cache, and one of them starts while the others are being generated."""
    long = build_long(model)
    rules = Sampling(temperature=0, min_length=55)
    clips = dict(Sampler(long, rules, 2).sequences(torch.tensor([0, 1, 2]), [0, 1, 2]))
    for index in range(3):
        assert len(clips[index]) > PAGE
        assert clips[index] == uncached(long, torch.tensor(index), rules, index)


def test_draw_follows_the_probabilities():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0, 0.5]])
    randoms = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000

    def frequencies(**rules):
        drawn = draw(logits.expand(len(randoms), -1), randoms, Sampling(**rules))
        return torch.bincount(drawn, minlength=5) / len(randoms)

    full = logits[0].softmax(-1)
    torch.testing.assert_close(frequencies(), full, atol=2e-4, rtol=0)
    torch.testing.assert_close(frequencies(temperature=0.5), (logits[0] * 2).softmax(-1), atol=2e-4, rtol=0)
    top = torch.where(full >= full.topk(2).values[-1], full, 0)
    torch.testing.assert_close(frequencies(top_k=2), top / top.sum(), atol=2e-4, rtol=0)
    # 0.563 + 0.207 is below 0.8, so the third most likely entry is included
    nucleus = torch.where(full >= full.topk(3).values[-1], full, 0)
    torch.testing.assert_close(frequencies(top_p=0.8), nucleus / nucleus.sum(), atol=2e-4, rtol=0)
    assert draw(logits, torch.tensor([1 - 1e-16], dtype=torch.float64), Sampling()).item() == 4


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_values_that_are_not_numbers_are_an_error(model, temperature):
    for parameter in model.parameters():
        parameter.data.fill_(torch.nan)
    sampler = Sampler(model, Sampling(temperature=temperature), 1)
    with pytest.raises(FloatingPointError, match="values that are not numbers"):
        list(sampler.sequences(conditions_of(model.config, 1), [0]))


def test_slots_are_used(model):
    rules = Sampling(temperature=1.0)
    sampler = Sampler(model, rules, 4)
    sequences = dict(sampler.sequences(conditions_of(model.config, 60), range(60)))
    assert len({len(sequence) for sequence in sequences.values()}) > 3  # lengths differ
    assert sampler.stats.entries / sampler.stats.slots > 0.9


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"temperature": -1.0}, "temperature -1"),
        ({"top_k": 0}, "top_k 0"),
        ({"top_p": 1.5}, "top_p 1.5"),
        ({"budget": 0}, "budget 0 for 3 blocks"),
        ({"min_length": 2, "budget": 5}, "budget 5 for 3 blocks, expected 6"),
        ({"min_length": 3, "max_length": 2}, "min_length 3 and max_length 2"),
        ({"cfg_interval": (3, 1)}, "cfg_interval"),
    ],
)
def test_rules_out_of_range(model, rules, message):
    with pytest.raises(ValueError, match=message):
        Sampler(model, Sampling(**rules), 1)
