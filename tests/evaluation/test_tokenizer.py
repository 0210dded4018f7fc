"""Evaluation of a model: independence of batches, processes and interruptions; figures against plain code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaptok.allocation.policy import LengthPolicy
from adaptok.codec.codec import AdapTok
from adaptok.evaluation.partial_results import PartialResults
from adaptok.evaluation.protocols import ClipSelection
from adaptok.evaluation.tokenizer import TokenizerEvaluation
from adaptok.metrics.distortion import block_distortion, edge_ratio, sharpness
from adaptok.models.model import Model
from tests.helpers.evaluation import BUDGETS, FRAMES, assert_same, evaluate, measures
from tests.helpers.models import small_config
from tests.helpers.videos import write_video


@pytest.fixture
def one_thread():
    """The rounding of multi-threaded matrix products depends on the batch size, and random weights amplify it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("protocol", ["all", "adaptok"])
@pytest.mark.parametrize("scope", ["video", "clip", "stream"])
def test_batches_and_processes_change_nothing(codec, data, tmp_path, protocol, scope):
    options = {"protocol": protocol, "scope": scope}
    expected = evaluate(codec, data, tmp_path / "0", batch_size=1, **options)
    assert_same(expected, evaluate(codec, data, tmp_path / "1", batch_size=4, **options))
    assert evaluate(codec, data, tmp_path / "2", processes=3, batch_size=1, **options) == expected
    document, rows = expected
    official = protocol == "adaptok"
    assert document["data"]["clips"] == (4 if official else 2 + 1 + 3)  # a short one repeats its last frame there
    assert len(rows) == document["data"]["clips"] * len(BUDGETS)
    assert set(document["data"]["skipped"]) == {"broken.mp4"} | (set() if official else {"short.mp4"})


def test_the_official_batch_scope(codec, data, tmp_path):
    (data / "broken.mp4").unlink()  # it would leave a batch of one
    document, rows = evaluate(
        codec, data, tmp_path / "0", scope="batch", batch_size=2, protocol="official", uniform=False
    )
    assert all("uniform" not in result and "gain" not in result for result in document["results"])
    for budget in BUDGETS:
        lengths = np.array([row["lengths"] for row in rows if row["budget"] == budget])
        assert (lengths[:2].sum(0) == lengths[2:].sum(0)).all()  # the same block of both clips of a batch shares
        assert lengths.sum() <= budget * len(lengths)
    assert document["data"]["clips"] == 4


def test_official_budgets(data):
    """A budget of the table is one of tokens per block, and is reported in tokens per clip."""
    torch.manual_seed(0)
    config = small_config()
    tokenizer = config.tokenizer.model_copy(update={"latents": 512})
    scorer = config.scorer.model_copy(update={"length_step": 64})
    model = Model(config.model_copy(update={"tokenizer": tokenizer, "scorer": scorer}))
    codec = AdapTok(model, "x")
    evaluation = TokenizerEvaluation(codec, measures(), data, budgets=[256], scope="batch", protocol="adaptok")
    assert evaluation.plan.budgets == (1024,)


def test_interrupted_evaluations_resume(codec, data, tmp_path, monkeypatch):
    expected = evaluate(codec, data, tmp_path / "whole")
    evaluation = TokenizerEvaluation(codec, measures(), data, budgets=BUDGETS)
    measured, measure = [], TokenizerEvaluation.measure

    def some(task, unit):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(unit)
        return measure(task, unit)

    monkeypatch.setattr(TokenizerEvaluation, "measure", some)
    with pytest.raises(KeyboardInterrupt):
        evaluate(codec, data, tmp_path / "parts")
    monkeypatch.setattr(TokenizerEvaluation, "measure", measure)
    assert len(PartialResults(tmp_path / "parts", evaluation.plan).missing()) == 3
    assert evaluate(codec, data, tmp_path / "parts") == expected
    with pytest.raises(ValueError, match="holds an evaluation with other scope; choose another folder"):
        evaluate(codec, data, tmp_path / "parts", scope="clip")
    write_video(data / "a/two.mp4", 9)  # another file under the name of one that was measured
    with pytest.raises(ValueError, match="with other videos"):
        evaluate(codec, data, tmp_path / "parts")


def test_figures_against_plain_code(codec, data, tmp_path):
    """Gain, saving, visible patches, sharpness, use of the codebook and calibration, from the public interface."""
    document, _ = evaluate(codec, data, tmp_path / "0")
    pt, most = codec.config.tokenizer.temporal_patch_size, codec.config.tokenizer.quantizer.codebook_size
    names = ("adaptive", "uniform", "edge_ratio", "sharpness", "ids", "pairs")
    outcome = {budget: {name: [] for name in names} for budget in BUDGETS}
    for name in FRAMES:
        clips = torch.stack(list(ClipSelection("all", 8, 16).clips(data / f"{name}.mp4")))
        full = codec.encode(torch.cat(tuple(clips), 1)[None])
        for budget, each in outcome.items():
            for way in ("adaptive", "uniform"):
                policy = LengthPolicy(budget, uniform=way == "uniform")
                tokens = full.shorten(policy.lengths(full.scores, len(full.lengths), codec.layout))
                made = torch.stack(list(codec.iter_decode_clips(tokens)))
                mse = (made.double() - clips.double()).square().mean((1, 2, 3, 4))
                each[way] += (-10 * mse.log10()).tolist()
                if way == "adaptive":
                    each["ids"] += tokens.ids.tolist()
                    each["edge_ratio"] += edge_ratio(made, codec.config.tokenizer.patch_size).tolist()
                    each["sharpness"] += sharpness(made, clips).tolist()
                    actual = block_distortion(made, clips, codec.config.scorer.distortion, pt).flatten()
                    column = tokens.lengths // codec.length_step - 1
                    predicted = tokens.scores[np.arange(len(column)), column]
                    each["pairs"] += zip(predicted.tolist(), actual.tolist(), strict=True)
    for result in document["results"]:
        each = outcome[result["budget"]]
        adaptive, uniform = np.mean(each["adaptive"]), np.mean(each["uniform"])
        assert result["adaptive"]["psnr"] == pytest.approx(adaptive, abs=1e-5)
        assert result["uniform"]["psnr"] == pytest.approx(uniform, abs=1e-5)
        assert result["gain"]["psnr"] == pytest.approx(adaptive - uniform, abs=1e-5)
        for name in ("edge_ratio", "sharpness"):
            assert result["adaptive"][name] == pytest.approx(np.mean(each[name]), rel=1e-4)
        less = result["uniform"]["edge_ratio"] - result["adaptive"]["edge_ratio"]
        assert result["gain"]["edge_ratio"] == pytest.approx(less)
        assert "sharpness" not in result["gain"]  # neither more nor less is better
        codebook = result["adaptive"]["codebook"]
        counts = np.bincount(each["ids"], minlength=most)
        fractions = counts[counts > 0] / counts.sum()
        assert codebook["used_fraction"] == pytest.approx((counts > 0).mean())
        assert codebook["entropy"] == pytest.approx(-(fractions * np.log2(fractions)).sum())
        predicted, actual = np.array(each["pairs"]).T
        calibration = result["adaptive"]["calibration"]
        assert calibration["blocks"] == len(predicted)
        assert calibration["mean_relative_error"] == pytest.approx(np.abs(predicted / actual - 1).mean(), rel=1e-5)
    curve = sorted((np.mean(outcome[b]["uniform"]), b) for b in BUDGETS)
    for result in document["results"]:
        wanted, saving = result["adaptive"]["psnr"], result["saving"]["psnr"]
        if saving is None:
            assert not curve[0][0] + 1e-6 < wanted < curve[-1][0] - 1e-6
        else:
            assert curve[0][0] - 1e-6 <= wanted <= curve[-1][0] + 1e-6
            needed = np.interp(wanted, *zip(*curve, strict=True))
            assert saving["uniform_tokens"] == pytest.approx(needed, rel=1e-4)
            assert saving["saved"] == pytest.approx(1 - result["adaptive"]["tokens_per_clip"] / needed, abs=1e-4)


def test_a_model_without_a_scorer(codec, data, tmp_path):
    codec.model.scorer = None
    codec.model.config = codec.model.config.model_copy(update={"scorer": None})
    document, rows = evaluate(AdapTok(codec.model, codec.weights_hash), data, tmp_path / "0")
    assert [result["variant"] for result in document["results"]] == ["uniform"] * 3
    assert all(sum(row["lengths"]) == row["budget"] for row in rows)
