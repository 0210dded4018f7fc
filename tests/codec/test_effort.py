"""The effort of scoring, through every interface that takes it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaptok import AdapTok, LengthPolicy
from adaptok.data.token_datasets import TokenDataset
from adaptok.evaluation.measures import Measures
from adaptok.evaluation.partial_results import PartialResults
from adaptok.evaluation.tokenizer import TokenizerEvaluation
from adaptok.models.model import weights_hash
from adaptok.tokenization import TokenOptions, tokenize
from tests.helpers.commands import run
from tests.helpers.models import cumulative_model, random_model, small_config
from tests.helpers.tokenization import write_brightening_video

BUDGET = 16
EFFORT = 2


@pytest.fixture(scope="module")
def codec() -> AdapTok:
    model = cumulative_model()
    return AdapTok(model, weights_hash(model.state_dict()))


@pytest.fixture(scope="module")
def folders(codec, tmp_path_factory):
    """A folder with a video of three clips, and a model folder."""
    folder = tmp_path_factory.mktemp("effort")
    write_brightening_video(folder / "videos" / "clip.mp4", 24)
    codec.save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def expected(codec, folders):
    """Lengths at the budget, scored at each effort by the codec itself."""
    video = folders / "videos" / "clip.mp4"
    lengths = [codec.encode(video, BUDGET, effort=effort).lengths.tolist() for effort in (0, EFFORT)]
    assert lengths[0] != lengths[1]
    return lengths


def test_encode_scores_clips_for_the_budget(codec, clips):
    video = torch.cat(tuple(clips), 1)[None]  # [1, 3, T, S, S]
    encoded = codec.encode_clips(clips)
    for effort in range(4):
        scores = codec.allocation_scores(encoded, LengthPolicy(BUDGET, effort=effort)).flatten(0, 1).numpy()
        [tokens] = codec.encode_batch([video], BUDGET, effort=effort)
        np.testing.assert_allclose(tokens.scores, scores, rtol=1e-4)
        np.testing.assert_array_equal(codec.encode(video, BUDGET, effort=effort).scores, tokens.scores)


def test_effort_has_no_effect_where_scores_do_not_depend_on_the_budget(codec):
    block = AdapTok(random_model(small_config()), "")
    policies = [LengthPolicy(BUDGET, effort=3), LengthPolicy(BUDGET, "stream", effort=3), LengthPolicy(effort=3)]
    policies += [LengthPolicy(target=0.1, effort=3), LengthPolicy(BUDGET, uniform=True, effort=3)]
    assert [codec.used_effort(policy) for policy in policies] == [3, 0, 0, 0, 0]
    assert [block.used_effort(policy) for policy in policies] == [0] * 5


def test_the_command_line_passes_the_effort_on(codec, folders, expected, tmp_path, capsys):
    video, model = folders / "videos" / "clip.mp4", ["--model", folders / "model", "--device", "cpu", "--fit", "crop"]
    arguments = [*model, "--budget", BUDGET, "--effort", EFFORT]
    for command in (("encode", video, tmp_path / "clip.adaptok"), ("reconstruct", video)):
        assert run(capsys, *command, *arguments)["lengths"] == expected[1]
    # shortened from all tokens: scored for the budget
    assert run(capsys, "reconstruct", video, "--compare-uniform", *arguments)["lengths"] == expected[1]
    several = run(capsys, "reconstruct", video, *arguments, "--budget", 24)["results"]
    assert [each["lengths"] for each in several] == [
        expected[1],
        codec.encode(video, 24, effort=EFFORT).lengths.tolist(),
    ]


def test_datasets_remember_the_effort_that_was_used(codec, folders, expected, tmp_path):
    tokenize(folders / "videos", tmp_path / "tokens", codec, TokenOptions(budget=BUDGET, effort=EFFORT))
    dataset = TokenDataset.open(tmp_path / "tokens")
    assert dataset.info.settings.effort == EFFORT
    assert [length for clip in dataset for length in clip.lengths.tolist()] == expected[1]
    with pytest.raises(ValueError, match="begun with effort 2, not 0"):
        tokenize(folders / "videos", tmp_path / "tokens", codec, TokenOptions(budget=BUDGET, effort=0))
    tokenize(folders / "videos", tmp_path / "uniform", codec, TokenOptions(budget=BUDGET, uniform=True, effort=EFFORT))
    assert TokenDataset.open(tmp_path / "uniform").info.settings.effort == 0


def test_evaluations_score_for_each_budget(codec, folders, expected, tmp_path):
    for effort, lengths in zip((0, EFFORT), expected, strict=True):
        evaluation = TokenizerEvaluation(
            codec, Measures(), folders / "videos", budgets=(BUDGET, 24), effort=effort, uniform=False
        )
        assert evaluation.plan.effort == effort
        results = PartialResults(tmp_path / str(effort), evaluation.plan)
        results.measure(evaluation)
        [result] = results
        assert result.arrays["lengths"][:, 0].ravel().tolist() == lengths
