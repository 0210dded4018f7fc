"""Scorer that reads the energy of frequency bands."""

from __future__ import annotations

import math

import pytest
import torch

from adaptok import AdapTok
from adaptok.checkpoints.model_folder import read_folder, write_folder
from adaptok.models.dense import DenseSpectrumScorer
from adaptok.models.model import Model
from adaptok.models.spectrum_scorer import band_count, band_energies
from adaptok.training.losses import LpipsNetworks
from adaptok.training.objectives import ScorerObjective, StepContext
from tests.helpers.models import cumulative_model
from tests.helpers.training import config

LENGTHS = [[8, 2, 4, 6], [2, 8, 8, 2], [4, 4, 6, 8]]


@pytest.fixture
def scorer():
    return cumulative_model(reads="spectrum", degree=1).scorer.eval()


def test_bands_are_octaves_and_add_up_to_the_mean_square():
    images = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    energies = band_energies(images, band_count(16))
    torch.testing.assert_close(energies.sum(1), images.square().mean((1, 2, 3)))
    row = torch.arange(16)
    for band in range(4):  # a wave of squares of 2^band pixels lies in one band
        wave = (-1.0) ** (row // 2**band)
        energies = band_energies((wave[:, None] * wave)[None, None], 5)[0]
        assert energies.argmax() == band
        assert math.isclose(energies[band], 1, abs_tol=1e-6)
    assert torch.equal(band_energies(images[:, :0], 5), torch.zeros(3, 5))


def test_block_by_block_equals_whole_clips(scorer, clips, tmp_path):
    features = scorer.features(clips, clips.new_empty(3, 4))
    with torch.no_grad():
        whole = scorer(features, features, LENGTHS)
        cache = scorer.cache(3)
        for block in range(4):
            previous = clips[:, :, 2 * block - 2 : 2 * block] if block else None
            own = scorer.features(clips[:, :, 2 * block : 2 * block + 2], clips.new_empty(3, 1), previous)
            torch.testing.assert_close(own, features[:, block : block + 1])
            known = [row[: block + 1] for row in LENGTHS]
            torch.testing.assert_close(scorer(own, own, known, cache), whole[:, block : block + 1])
            scorer.prefill(own, own, known, cache)
        dense = DenseSpectrumScorer(scorer)(clips, torch.tensor(LENGTHS))
        torch.testing.assert_close(dense, whole)
        torch.testing.assert_close(scorer(features[1:2], features[1:2], LENGTHS[1:2]), whole[1:2])
    model = cumulative_model(reads="spectrum", degree=1)
    write_folder(model, tmp_path)
    torch.testing.assert_close(read_folder(tmp_path).build().scorer(features, features, LENGTHS), whole)


def test_later_blocks_matter_with_lookahead_only(scorer, clips):
    changed = clips.clone()
    changed[:, :, 6:] = 1 - changed[:, :, 6:] * 0.5  # the last block
    short = [row[:3] for row in LENGTHS]
    with torch.no_grad():
        a, b = (scorer.features(each, clips.new_empty(3, 4)) for each in (clips, changed))
        torch.testing.assert_close(scorer(a, a, LENGTHS)[:, :3], scorer(b, b, LENGTHS)[:, :3])
        ahead = scorer(a, a, short, lookahead=True)
        assert (ahead - scorer(b, b, short, lookahead=True)).abs().mean() > 0.01
        # a block sees the lengths of those before it only
        other = [[*row[:2], 2, 2] for row in LENGTHS]
        torch.testing.assert_close(scorer(a, a, other, lookahead=True)[:, :3], ahead)
        assert (scorer(a, a, other, lookahead=True)[:, 3] - scorer(a, a, LENGTHS, lookahead=True)[:, 3]).abs().max() > 0


def test_streams_and_whole_videos(clips):
    codec = AdapTok(cumulative_model(reads="spectrum"), "")
    frames = (clips[0].permute(1, 2, 3, 0).clamp(0, 1) * 255).round().byte().numpy()
    whole = codec.encode(frames, 16, scope="stream")
    stream = codec.streaming(16)
    blocks = [*stream.push(frames), *stream.flush()]
    assert [length for block in blocks for length in block.lengths] == whole.lengths.tolist()
    assert codec.encode(frames, 16).tokens <= 16


def test_training_reaches_every_weight(tmp_path, clips):
    options = config(tmp_path, "scorer")
    scorer = options.model.scorer.model_copy(update={"target": "cumulative", "reads": "spectrum", "probe_lengths": ()})
    model = Model(options.model.model_copy(update={"scorer": scorer}))
    objective = ScorerObjective(model, options, LpipsNetworks())
    objective(clips, StepContext.seeded(0)).loss.backward()
    assert all(parameter.grad is not None for _, parameter in objective.trained_parameters())
