"""Generators against the windows of a collection."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from adaptok.evaluation.partial_results import PartialResults
from adaptok.evaluation.protocols import ClipSelection
from adaptok.evaluation.samples import SamplesEvaluation
from adaptok.evaluation.windows import draw_windows
from adaptok.generation import Generator, Sampling
from adaptok.generation.sampling import clip_seed
from adaptok.metrics.frechet import FeatureStatistics, frechet_distance
from tests.helpers.commands import fails, run
from tests.helpers.detector import StandIn, detector_flags
from tests.helpers.evaluation import measures
from tests.helpers.videos import write_video

FIXTURES = Path(__file__).parents[1] / "fixtures"
TOKENIZER = FIXTURES / "official"


@pytest.fixture
def windows(tmp_path):
    """A list with labels of three videos, with 2, 1 and 3 windows."""
    for name, frames in (("b", 33), ("a", 17), ("c", 50)):
        write_video(tmp_path / "videos" / f"{name}.mp4", frames)
    path = tmp_path / "videos" / "list.csv"
    path.write_text("b.mp4,0\na.mp4,3\nc.mp4,2\nmissing.mp4,1\n")
    return path


def features(clips, size):
    """Features of clips `[B, 3, T, S, S]` after an antialiased resize."""
    frames = torch.nn.functional.interpolate(
        clips.transpose(1, 2).flatten(0, 1), (size, size), mode="bilinear", antialias=True
    )
    clips = frames.clamp(0, 1).unflatten(0, (len(clips), -1)).transpose(1, 2)
    return FeatureStatistics.of(StandIn()(clips * 2 - 1, resize=True, return_features=True).numpy())


def test_windows_are_drawn_as_published(windows):
    """From all non-overlapping windows, in the order of the list, without replacement."""
    every = [("b.mp4", "0", 0), ("b.mp4", "0", 16), ("a.mp4", "3", 0), *(("c.mp4", "2", 16 * i) for i in range(3))]
    drawn = draw_windows(windows, 4)
    assert [(each.path, each.label, each.start) for each in drawn] == random.Random(42).sample(every, 4)
    with pytest.raises(ValueError, match="6 windows of 16 frames in 4 videos, the protocol takes 7; give --count 6"):
        draw_windows(windows, 7)


@pytest.mark.parametrize("kind", ["generation", "prediction"])
def test_one_command_against_plain_code(windows, tmp_path, capsys, kind, monkeypatch):
    """FVD of 5 samples from the public interface; interruptions, batches and processes change nothing."""
    folder = FIXTURES / ("generator" if kind == "generation" else "predictor")
    flags = ["evaluate", kind, windows, "--generator", folder, "--model", TOKENIZER, "--device", "cpu", "--count", 5]
    flags += ["--protocol", "adaptok", "--seed", 3, "--max-tokens", 6, *detector_flags(tmp_path)]
    one = run(capsys, *flags, "-o", tmp_path / "one", "--batch-size", 1)

    generator = Generator.from_pretrained(folder, codec=TOKENIZER, device="cpu")
    drawn = draw_windows(windows, 5)
    selection = [ClipSelection("adaptok", 16, 32, start=each.start) for each in drawn]
    real = torch.stack([next(each.clips(windows.parent / w.path)) for each, w in zip(selection, drawn, strict=True)])
    seeds = [clip_seed(3, index) for index in range(5)]
    if kind == "generation":
        samples = generator.sample([str(each.label) for each in drawn], seeds=seeds, max_length=6)
    else:
        frames = [(clip[:, :5].permute(1, 2, 3, 0).numpy()) for clip in real]
        conditions = torch.cat([generator.condition(each) for each in frames])
        samples = generator.sample(condition_ids=conditions, seeds=seeds, max_length=6)
    size = 128 if kind == "generation" else 64
    expected = frechet_distance(features(real, size), features(generator.decode(samples), size))
    assert one["fvd"] == pytest.approx(expected, rel=1e-4)
    assert one["fvd_interval"][0] <= one["fvd"] <= one["fvd_interval"][1]
    assert (one["protocol"]["name"], one["protocol"]["seed"], one["data"]["clips"]) == ("adaptok", 3, 5)
    assert set(one["weights"]) == {"tokenizer", "generator", "fvd"}

    measure, measured = SamplesEvaluation.measure, []

    def some(task, unit):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(unit)
        return measure(task, unit)

    monkeypatch.setattr(SamplesEvaluation, "measure", some)
    with pytest.raises(SystemExit):
        run(capsys, *flags, "-o", tmp_path / "two", "--batch-size", 4)
    capsys.readouterr()
    monkeypatch.setattr(SamplesEvaluation, "measure", measure)
    two = run(capsys, *flags, "-o", tmp_path / "two", "--batch-size", 4)
    assert two["results"] == one["results"]
    assert two["data"] == one["data"]


def test_units_can_be_divided(windows, tmp_path):
    """Three processes give the features of one."""
    generator = Generator.from_pretrained(FIXTURES / "generator", codec=TOKENIZER, device="cpu")
    evaluation = SamplesEvaluation(
        generator, measures(), windows, kind="class", count=4, batch_size=3, settings=Sampling(max_length=6)
    )
    results = [PartialResults(tmp_path / name, evaluation.plan) for name in "ab"]
    results[0].measure(evaluation)
    for rank in (2, 0, 1):
        results[1].measure(evaluation, rank, 3)
    for a, b in zip(*results, strict=True):
        assert np.array_equal(a.arrays["features"], b.arrays["features"])


def test_mistakes(windows, tmp_path, capsys):
    flags = ["--model", TOKENIZER, *detector_flags(tmp_path)]
    generator = ["--generator", FIXTURES / "generator"]
    assert "give one of them" in fails(capsys, "evaluate", "generation", windows, *flags)
    error = fails(capsys, "evaluate", "prediction", windows, *flags, *generator, "--count", 2)
    assert "is one of classes; use 'adaptok evaluate generation'" in error
    error = fails(capsys, "evaluate", "generation", windows.parent, *flags, *generator, "--count", 2)
    assert "has no label" in error
