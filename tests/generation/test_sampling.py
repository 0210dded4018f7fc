"""Sampling with a memory against the whole row computed anew; the rules of a row; seeds."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter

from adaptok.config.generator import GeneratorConfig
from adaptok.generation.rows import read_row, write_row
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
    for parameter in model.parameters():  # the output layer too, and sharp enough to differ
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
    """One row, every entry from a forward pass over all of it; the rules written out once more."""
    config, row = model.config, []
    randoms = np.random.default_rng(seed).random(config.max_entries)
    none = torch.tensor([config.classes]) if config.classes else None
    while row.count(config.eob) < config.blocks:
        ids = torch.tensor([row], dtype=torch.long)
        logits = model(ids, condition[None])[:, -1]
        first, stop = rules.cfg_interval or (0, config.max_entries)
        if rules.cfg_scale != 1 and first <= len(row) < stop:
            without = model(ids, none)[:, -1]
            logits = without + rules.cfg_scale * (logits - without)
        closed = row.count(config.eob)
        length = len(row) - (len(row) - row[::-1].index(config.eob) if config.eob in row else 0)
        spent = len(row) - closed
        budget = np.inf if rules.budget is None else rules.budget - spent - rules.least * (config.blocks - 1 - closed)
        if length >= (rules.most or config.latents) or budget <= 0:
            row.append(config.eob)
            continue
        if not row or length < rules.least:
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
    least=st.sampled_from([0, 1]),
    most=st.sampled_from([None, 3]),
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
        found = dict(sampler.rows(conditions, seeds))
    assert sorted(found) == list(range(count))
    for index, condition in enumerate(conditions):
        assert found[index] == uncached(model, condition, rules, seeds[index])
    assert sampler.work.entries == sum(map(len, found.values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_clip_is_the_same_in_any_company(model, dtype):
    model = model.to(dtype)
    prepack_linears(model)
    conditions = conditions_of(model.config, 7)
    alone = {}
    for index in range(7):
        [(_, alone[index])] = Sampler(model, Sampling(), 1).rows(conditions[index : index + 1], [index])
    for batch_size in (2, 3, 7):
        assert dict(Sampler(model, Sampling(), batch_size).rows(conditions, range(7))) == alone


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
    """Places that are free take part in it, and clips that begin late find their own."""
    if model.config.condition_ids and rules.guided:
        pytest.skip("frame prediction has no guidance")
    conditions = conditions_of(model.config, 7)
    plain = dict(Sampler(model, rules, 3).rows(conditions, range(7)))
    compiler = CompileCounter()
    sampler = Sampler(model, rules, 3, compile=compiler)
    assert dict(sampler.rows(conditions, range(7))) == plain
    assert dict(sampler.rows(conditions[:2], range(2))) == {index: plain[index] for index in (0, 1)}
    assert compiler.frame_count == 1


def test_compiled_samplings_side_by_side(model):
    conditions, compiler = conditions_of(model.config, 6), CompileCounter()
    plain = dict(Sampler(model, Sampling(), 2).rows(conditions, range(6)))
    first, second = (Sampler(model, Sampling(), 2, compile=compiler).rows(conditions, range(6)) for _ in range(2))
    found = list(zip(first, second, strict=True))
    assert dict(one for one, _ in found) == dict(other for _, other in found) == plain


def test_a_compiled_step_follows_its_model(model):
    conditions, compiler = conditions_of(model.config, 2), CompileCounter()
    sampler = Sampler(model, Sampling(temperature=0), 2, compile=compiler)
    dict(sampler.rows(conditions, range(2)))
    for changed in (model.to(torch.float64), copy.deepcopy(model)):
        with torch.no_grad():
            changed.positions.neg_()
        plain = dict(Sampler(changed, Sampling(temperature=0), 2).rows(conditions, range(2)))
        again = Sampler(changed, Sampling(temperature=0), 2, compile=compiler)
        assert dict(again.rows(conditions, range(2))) == plain


def test_a_compiled_step_has_few_shapes(model):
    long, compiler = build_long(model), CompileCounter()
    rules = Sampling(temperature=0, least=55)
    found = dict(Sampler(long, rules, 2, compile=compiler).rows(torch.tensor([0, 1, 2]), [0, 1, 2]))
    assert found == dict(Sampler(long, rules, 2).rows(torch.tensor([0, 1, 2]), [0, 1, 2]))
    assert max(map(len, found.values())) > PAGE
    assert 1 < compiler.frame_count <= kv_cache.MAX_READ_SIZES


def test_long_rows_cross_pages(model):
    """Rows of several pages of the memory, one of which begins in the middle of the others."""
    long = build_long(model)
    rules = Sampling(temperature=0, least=55)
    found = dict(Sampler(long, rules, 2).rows(torch.tensor([0, 1, 2]), [0, 1, 2]))
    for index in range(3):
        assert len(found[index]) > PAGE
        assert found[index] == uncached(long, torch.tensor(index), rules, index)


@SHARED
@given(
    st.lists(st.integers(0, 4), min_size=3, max_size=3).flatmap(
        lambda lengths: st.tuples(
            st.just(lengths), st.lists(st.integers(0, 9), min_size=sum(lengths), max_size=sum(lengths))
        )
    )
)
def test_rows_round_trip(clip):
    lengths, ids = clip
    row = write_row(ids, lengths, 10)
    back, counted = read_row(row.tolist(), 3, 4, 10)
    assert counted.tolist() == lengths
    assert back[np.arange(4) < counted[:, None]].tolist() == list(ids)
    assert row.tolist().count(10) == 3


def test_draw_follows_the_probabilities():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0, 0.5]])
    randoms = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000

    def shares(**rules):
        drawn = draw(logits.expand(len(randoms), -1), randoms, Sampling(**rules))
        return torch.bincount(drawn, minlength=5) / len(randoms)

    full = logits[0].softmax(-1)
    torch.testing.assert_close(shares(), full, atol=2e-4, rtol=0)
    torch.testing.assert_close(shares(temperature=0.5), (logits[0] * 2).softmax(-1), atol=2e-4, rtol=0)
    top = torch.where(full >= full.topk(2).values[-1], full, 0)
    torch.testing.assert_close(shares(top_k=2), top / top.sum(), atol=2e-4, rtol=0)
    # 0.563 and 0.207 do not reach 0.8, so the third most likely is in
    nucleus = torch.where(full >= full.topk(3).values[-1], full, 0)
    torch.testing.assert_close(shares(top_p=0.8), nucleus / nucleus.sum(), atol=2e-4, rtol=0)
    assert draw(logits, torch.tensor([1 - 1e-16], dtype=torch.float64), Sampling()).item() == 4


def test_places_do_useful_work(model):
    rules = Sampling(temperature=1.0)
    sampler = Sampler(model, rules, 4)
    rows = dict(sampler.rows(conditions_of(model.config, 60), range(60)))
    assert len({len(row) for row in rows.values()}) > 3  # of uneven length
    assert sampler.work.entries / sampler.work.places > 0.9


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"temperature": -1.0}, "temperature -1"),
        ({"top_k": 0}, "top_k 0"),
        ({"top_p": 1.5}, "top_p 1.5"),
        ({"budget": 0}, "budget 0 for 3 blocks"),
        ({"least": 2, "budget": 5}, "budget 5 for 3 blocks, expected 6"),
        ({"least": 3, "most": 2}, "least 3 and most 2"),
        ({"cfg_interval": (3, 1)}, "cfg_interval"),
    ],
)
def test_rules_out_of_range(model, rules, message):
    with pytest.raises(ValueError, match=message):
        Sampler(model, Sampling(**rules), 1)
