"""Scores that count what later blocks gain from a token."""

from __future__ import annotations

import itertools

import pytest
import torch

from adaptok import AdapTok, LengthPolicy
from adaptok.codec import cumulative_scores
from adaptok.codec.cumulative_scores import scores_at
from adaptok.codec.length_selection import measure_cumulative
from adaptok.config.model import ModelConfig
from adaptok.models.model import Model
from tests.helpers.models import cumulative_model, small_config

BUDGET = 16


@pytest.fixture(params=["latents", "spectrum"])
def cumulative_codec(request) -> AdapTok:
    return AdapTok(cumulative_model(reads=request.param), "")


def true_total(codec, encoded, clips, lengths):
    tokenizer = codec.model.tokenizer
    total = measure_cumulative(tokenizer, clips, encoded.inputs, lengths, 0, [lengths[0]], "multiscale")[0, 0]
    return total.detach()


@pytest.mark.parametrize("effort", [2, 3])
def test_measured_scores_add_up_to_the_true_distortion_of_a_clip(cumulative_codec, clips, effort, monkeypatch):
    """At a few lengths with an effort of 2, and at all with one of 3."""
    monkeypatch.setattr("adaptok.codec.cumulative_scores.TOLERANCE", float("inf"))
    codec = cumulative_codec
    for clip in clips.split(1):
        encoded = codec.encode_clips(clip)
        scores = codec.allocation_scores(encoded, LengthPolicy(target=1.0, effort=0))
        before = codec.allocation_scores(encoded, LengthPolicy(BUDGET, effort=effort - 1))
        lengths = LengthPolicy(BUDGET).lengths(before[0].numpy(), 4, codec.layout).tolist()  # that are measured around
        measured = codec.allocation_scores(encoded, LengthPolicy(BUDGET, effort=effort))
        total = true_total(codec, encoded, clip, lengths)
        torch.testing.assert_close(scores_at(measured, [lengths], 2).mean(), torch.tensor(1.0))  # relative to itself
        for block in range(4):
            near = {max(1, lengths[block] // 6) * 2, min(8, 2 * lengths[block])}
            for length in near if effort == 2 else (2, 4, 6, 8):
                changed = [*lengths[:block], length, *lengths[block + 1 :]]
                ratio = true_total(codec, encoded, clip, changed) / total
                torch.testing.assert_close(scores_at(measured, [changed], 2).mean(), ratio, rtol=1e-3, atol=1e-4)
        assert scores.shape == measured.shape


def test_a_clip_that_further_rounds_make_worse_keeps_the_scores_of_effort_0(cumulative_codec, clips, monkeypatch):
    codec = cumulative_codec
    encoded = codec.encode_clips(clips)
    policy, scorer = LengthPolicy(BUDGET, effort=1), codec.model.scorer
    denormalize, calls_per_round = scorer.denormalize, 4 if scorer.config.reads == "latents" else 1

    def distortions(scores):
        rows = LengthPolicy(BUDGET, "clip").lengths(scores.flatten(0, 1).numpy(), 12, codec.layout).reshape(3, 4)
        pairs = zip(map(encoded.at, range(3)), clips.split(1), strict=True)
        return torch.stack([true_total(codec, *pair, row.tolist()) for pair, row in zip(pairs, rows, strict=True)])

    monkeypatch.setattr(cumulative_scores, "TOLERANCE", 1.0)  # decoders with random weights differ little
    before = codec.allocation_scores(encoded, LengthPolicy(BUDGET))
    outcomes = []
    for descending in (False, True):  # the second prediction says that tokens harm, or help, whatever is true
        calls = itertools.count()
        false = lambda raw, calls=calls, descending=descending: (  # noqa: E731
            denormalize(raw).sort(-1, descending).values if next(calls) // calls_per_round % 2 else denormalize(raw)
        )
        monkeypatch.setattr(scorer, "denormalize", false)
        guarded = codec.allocation_scores(encoded, policy)
        with monkeypatch.context() as patch:
            patch.setattr(cumulative_scores, "TOLERANCE", float("inf"))
            anyway = codec.allocation_scores(encoded, policy)
        worse = distortions(anyway) > distortions(before)
        torch.testing.assert_close(guarded, torch.where(worse[:, None, None], before, anyway))
        outcomes += worse.tolist()
    assert set(outcomes) == {False, True}


def test_scores_do_not_depend_on_other_clips_of_a_batch(cumulative_codec, clips):
    codec = cumulative_codec
    for effort in range(4):
        policy = LengthPolicy(BUDGET, effort=effort)
        together = codec.allocation_scores(codec.encode_clips(clips), policy)
        apart = [codec.allocation_scores(codec.encode_clips(clip), policy) for clip in clips.split(1)]
        torch.testing.assert_close(together, torch.cat(apart), rtol=1e-4, atol=1e-5)


def test_causal_scores_are_relative_and_weighted_by_the_blocks_left(cumulative_codec, clips):
    codec = cumulative_codec
    encoded = codec.encode_clips(clips)
    rows = iter([[4, 2, 8], [2, 2, 2], [8, 6, 4], [2, 8, 2]] * 2)
    keep = lambda scores, block: torch.tensor(next(rows)).numpy()  # noqa: E731
    lengths, weighted = codec.choose_lengths(encoded, keep)
    _, absolute = codec.choose_lengths(encoded, keep, absolute=True)
    assert lengths[:, 0].tolist() == [4, 2, 8]
    total = absolute[range(3), 0, lengths[:, 0] // 2 - 1]
    for block in range(1, 4):
        expected = absolute[:, block] * (4 - block) / total[:, None]
        torch.testing.assert_close(torch.from_numpy(weighted[:, block]), torch.from_numpy(expected))


def test_probe_lengths_belong_to_the_target_block():
    scorer = small_config().scorer.model_dump() | {"target": "cumulative"}
    with pytest.raises(ValueError, match=r"probe_lengths \[2, 6\] with the target cumulative, expected none"):
        ModelConfig(tokenizer=small_config().tokenizer, scorer=scorer)


def test_efforts_are_numbers_from_0_to_3():
    with pytest.raises(ValueError, match="effort 4, expected 0 to 3"):
        LengthPolicy(BUDGET, effort=4)


def test_a_scorer_of_lpips_cannot_measure(clips):
    codec = AdapTok(cumulative_model(distortion="lpips"), "")
    video = torch.cat(tuple(clips), 1)[None]
    for effort in (0, 1):
        codec.encode(video, BUDGET, effort=effort)
    with pytest.raises(ValueError, match=r"effort 2 with a scorer of LPIPS, .* expected 0 or 1"):
        codec.encode(video, BUDGET, effort=2)


@pytest.mark.parametrize("scope", ["video", "clip"])
def test_measurements_are_made_where_a_clip_has_the_budget(cumulative_codec, clips, scope):
    """Scores of a clip do not depend on the others, nor on a table of λ."""
    scorer = cumulative_codec.config.scorer.model_copy(update={"lambdas": ((2.0, 1e9), (8.0, 1e-9))})
    model = Model(cumulative_codec.config.model_copy(update={"scorer": scorer}))
    model.load_state_dict(cumulative_codec.model.state_dict())
    policy = LengthPolicy(BUDGET, scope, effort=2)
    scores = cumulative_codec.allocation_scores(cumulative_codec.encode_clips(clips), policy)
    with_table = AdapTok(model, "")
    alone = with_table.allocation_scores(with_table.encode_clips(clips[1:2]), policy)
    torch.testing.assert_close(alone, scores[1:2], rtol=1e-4, atol=1e-3)
    once = cumulative_codec.allocation_scores(cumulative_codec.encode_clips(clips), LengthPolicy(BUDGET, scope))
    assert not torch.allclose(scores, once)
