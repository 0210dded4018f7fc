"""Objective of the generator: packed sequences give the losses and gradients of their clips."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from adaptok.config.training import PartialGeneratorConfig
from adaptok.data.token_datasets import TokenDatasetInfo
from adaptok.models.generator import GeneratorModel
from adaptok.training.objectives import GeneratorObjective, StepContext, most_likely
from adaptok.training.sequences import PackCollate, TokenSequence, condition_of, pack, sequence_entries
from adaptok.training.token_data import open_token_data, resolve
from tests.helpers.generators import CLASSES, generator_config, info, make_clips, write_tokens

FRAMES = {"condition_frames": 3}  # of two blocks, the first of them whole


def random_model(of: TokenDatasetInfo, **changes) -> GeneratorModel:
    torch.manual_seed(0)
    plan = PartialGeneratorConfig.parse({"width": 32, "depth": 2, "heads": 2, **changes})
    model = GeneratorModel(resolve(plan, of, CLASSES)).eval()
    for parameter in model.parameters():  # also those that start at zero
        torch.nn.init.normal_(parameter, std=0.3)
    return model


KINDS = pytest.mark.parametrize(
    ("of", "plan"),
    [
        (info(), {"mixture": 3}),
        (info(), {"levels": []}),
        (info(levels=()), {}),
        (info(**FRAMES), {"mixture": 2}),
        (info(levels=(), **FRAMES), {}),
        (info(**FRAMES), {"condition": "class"}),
    ],
    ids=["digits", "ids", "vector", "frames-digits", "frames-ids", "frames-unused"],
)


@KINDS
def test_packed_loss_is_that_of_padded_rows(of, plan):
    model = random_model(of, **plan)
    c, clips = model.config, make_clips(5, of)
    labels = {name: number for number, name in enumerate(CLASSES)}
    rows = [TokenSequence(i, sequence_entries(clip, c), condition_of(clip, c, labels)) for i, clip in enumerate(clips)]
    longest = max(len(row.entries) for row in rows)
    ids = torch.stack([F.pad(torch.from_numpy(row.entries), (0, longest - len(row.entries))) for row in rows])
    logits = model(ids[:, :-1], torch.from_numpy(np.stack([row.condition for row in rows])))
    losses = F.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
    valid = torch.arange(longest) < torch.tensor([len(row.entries) for row in rows])[:, None]
    objective = GeneratorObjective(model)
    for order in (range(5), (3, 0, 4, 2, 1)):
        packed = pack([rows[i] for i in order], c)
        result = objective(packed, StepContext.seeded(0))
        torch.testing.assert_close(result.loss, losses[valid].mean(), atol=1e-5, rtol=1e-5)
        each = objective.losses(objective.hidden_states(packed), packed.targets)
        expected = torch.cat([losses[i][valid[i]] for i in order])
        torch.testing.assert_close(each, expected, atol=1e-5, rtol=1e-5)
        best = torch.cat([logits.argmax(-1)[i][valid[i]] for i in order])
        assert torch.equal(most_likely(model, objective.hidden_states(packed)), best)
        assert sum(packed.lengths) == len(packed.ids) == sum(c.prefix + len(row.entries) - 1 for row in rows)


@KINDS
def test_gradients_of_a_pack_are_those_of_its_clips(of, plan):
    model = random_model(of, **plan)
    c, clips = model.config, make_clips(4, of)
    labels = {name: number for number, name in enumerate(CLASSES)}
    rows = [TokenSequence(i, sequence_entries(clip, c), condition_of(clip, c, labels)) for i, clip in enumerate(clips)]
    objective = GeneratorObjective(model)
    objective(pack(rows, c), StepContext.seeded(0)).loss.backward()
    together = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.checkpointing = True  # layers that are computed again give the same
    total = sum(len(row.entries) for row in rows)
    for row in rows:
        (objective(pack([row], c), StepContext.seeded(0)).loss * len(row.entries) / total).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_batches_of_a_step_weigh_what_their_entries_are(tmp_path):
    rows = open_token_data(generator_config(write_tokens(tmp_path / "tokens", 10))).train
    collate = PackCollate(rows, batch_size=6, micro_batch_size=2)
    batches = [collate([rows[index] for index in (start, start + 1)]).clips for start in (6, 8, 10)]
    model = random_model(info())
    objective = GeneratorObjective(model)
    parts = torch.stack([objective(batch, StepContext.seeded(0)).loss for batch in batches]).mean()
    whole = objective(pack([rows[index] for index in range(6, 12)], rows.config), StepContext.seeded(0)).loss
    torch.testing.assert_close(parts, whole)


def test_a_fresh_model_is_as_unsure_as_can_be(tmp_path):
    path = write_tokens(tmp_path / "tokens")
    data = open_token_data(generator_config(path))
    model = GeneratorModel(data.config)
    loss = GeneratorObjective(model)(pack([data.train[i] for i in range(8)], data.config), StepContext.seeded(0)).loss
    ids = sum(len(data.train[i].entries) - 3 for i in range(8))
    entries = sum(len(data.train[i].entries) for i in range(8))
    expected = math.log(2) + ids / entries * math.log(60)  # end or not, and then which id
    torch.testing.assert_close(loss.item(), expected, atol=1e-5, rtol=0)
