"""One epoch of each base preset over a made-up collection, against the recipe of the official program."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest
import torch

from adaptok.checkpoints.model_folder import write_folder
from adaptok.config.training import load_training_config
from adaptok.data.augmentation import centre_crop
from adaptok.data.decoding import decode
from adaptok.data.token_datasets import TokenClip, write_shard
from adaptok.models.model import Model
from adaptok.training.adversarial import AdversarialLoss
from adaptok.training.objectives import ScorerObjective
from adaptok.training.stages import open_stage_data
from adaptok.training.trainer import Trainer
from adaptok.video.writing import VideoWriter
from tests.helpers.generators import info

VIDEOS = {"a": 5, "b": 8, "c": 9, "d": 14, "e": 30, "f": 600}
"""Number of frames of each video."""
STEPS_PER_EPOCH, EPOCHS, WARMUP = 3, 4, 1
SMALL = {
    "model.tokenizer.frames": 8,
    "model.tokenizer.size": 16,
    "model.tokenizer.patch_size": 4,
    "model.tokenizer.temporal_patch_size": 2,
    "model.tokenizer.latents": 8,
    "model.tokenizer.encoder": {"width": 16, "depth": 1, "heads": 2},
    "model.tokenizer.decoder": {"width": 16, "depth": 1, "heads": 2},
    "model.tokenizer.quantizer": {"kind": "vector", "size": 32, "dim": 4},
    "lengths": {"kind": "truncated_normal", "mean": 4, "std": 2, "min": 1, "max": 8},
    "data.workers": 0,
    "epochs": EPOCHS,
    "optimizer.warmup_epochs": WARMUP,
    "batch_size": 2,
    "precision": "float32",
    "trackers": [],
}


@pytest.fixture
def videos(tmp_path):
    """Videos whose frames, and halves of frames, all differ."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, (name, count) in enumerate(VIDEOS.items()):
        picture = np.random.default_rng(number).integers(0, 128, (3, 5, 3))
        with VideoWriter(folder / f"{name}.mp4", 25) as writer:
            for index in range(count):
                frame = picture + (index * 7 % 100) + np.linspace(0, 20, 5)[:, None]
                writer.write(frame.astype(np.uint8).repeat(10, 0).repeat(10, 1))
    return folder


def factor(step: int) -> float:
    """Learning rate of a step, counted from 1, as a fraction of its peak."""
    warmup, last = WARMUP * STEPS_PER_EPOCH, EPOCHS * STEPS_PER_EPOCH
    if step <= warmup:
        return 0.01 + 0.99 * step / warmup
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (step - warmup) / (last - warmup))) / 2


def start_trainer(stage, folder, changes, preset="base"):
    config = load_training_config(preset, stage, changes)
    return Trainer(config, open_stage_data(config), folder / "run")


def take_steps(trainer, count):
    """Take steps, and yield after each one."""
    batches = trainer.batches()
    for _ in range(count):
        trainer.train_step(batches)
        trainer.step += 1
        yield


def all_clips(folder):
    """Map every possible clip of consecutive frames, of which the centre is cropped, to its video and start."""
    views = {}
    for name, count in VIDEOS.items():
        frames = decode(folder / f"{name}.mp4", count).frames
        assert len(frames) == count
        for start in range(max(1, count - 7)):
            rows = np.minimum(np.arange(start, start + 8), count - 1)
            views[centre_crop(frames[rows], 16).numpy().tobytes()] = (name, start)
    assert len(views) == sum(max(1, count - 7) for count in VIDEOS.values())
    return views


def locate(clips, views):
    """Find the video and the start of each clip."""
    return [views[clip.numpy().tobytes()] for clip in clips]


def assert_rate(optimizer, rate):
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate] * len(optimizer.param_groups))


def test_tokenizer(videos, tmp_path, monkeypatch):
    changes = {
        "data.train": [str(videos)],
        "model.prior": {"width": 16, "depth": 1, "heads": 2},
        "losses.lpips.weight": 0,
        "discriminator.width": 16,
        "discriminator.depth": 1,
        "discriminator.heads": 2,
        "discriminator.patch_size": 4,
        "discriminator.temporal_patch_size": 2,
    }
    trainer = start_trainer("tokenizer", tmp_path, SMALL | changes)
    assert trainer.length == (EPOCHS * STEPS_PER_EPOCH, WARMUP * STEPS_PER_EPOCH)

    views = all_clips(videos)
    epochs = torch.cat([clips for clips, _ in trainer.batches()]).split(len(VIDEOS))
    visits = [locate(epoch, views) for epoch in epochs]
    assert all(sorted(name for name, _ in visit) == sorted(VIDEOS) for visit in visits)
    assert len({tuple(name for name, _ in visit) for visit in visits}) == EPOCHS  # each in its own order
    assert len({start for visit in visits for name, start in visit if name == "f"}) == EPOCHS
    source = trainer.data.train
    starts = locate([source[i] for i in range(360) if source.video_of(i) == 3], views)  # those of d
    counts = [starts.count(("d", start)) for start in range(7)]
    assert sum(counts) == 60
    assert min(counts) > 2

    assert trainer.average is None
    assert trainer.config.optimizer.max_grad_norm is None
    (optimizer,) = trainer.optimizers
    (group,) = optimizer.param_groups  # the prior learns at the same rate, and nothing decays
    assert len(group["params"]) == len(list(trainer.model.parameters()))
    assert (group["weight_decay"], group["betas"]) == (0, (0.5, 0.9))
    adversary = trainer.discriminator
    assert adversary.optimizer.param_groups[0]["betas"] == (0.5, 0.9)

    seen = []
    original = AdversarialLoss.reconstruction_loss

    def record(self, fake):
        seen.append(self.discriminator.head.bias.detach().clone())
        return original(self, fake)

    monkeypatch.setattr(AdversarialLoss, "reconstruction_loss", record)
    initial = adversary.loss.discriminator.head.bias.detach().clone()
    for step, _ in enumerate(take_steps(trainer, 6), 1):
        assert_rate(optimizer, 1e-4 * factor(step))
        assert_rate(adversary.optimizer, 3e-5 * factor(step))
        current = adversary.loss.discriminator.head.bias
        assert torch.equal(current, initial) == (step < 5)  # every fifth step
        assert torch.equal(seen[-1], current)  # the tokenizer is judged by the updated discriminator


def test_scorer(videos, tmp_path, monkeypatch):
    scorer = {"width": 16, "depth": 1, "heads": 2, "length_step": 2, "distortion": "mse", "scale": "linear"}
    tokenizer = load_training_config("base", "tokenizer", {**SMALL, "model.prior": None}).model
    torch.manual_seed(0)
    model = Model(tokenizer)
    torch.nn.init.normal_(model.tokenizer.to_pixels.weight, std=0.1)
    write_folder(model, tmp_path / "tokenizer")
    drawn = []
    original = ScorerObjective.measure_distortions

    def record(self, clips, inputs, earlier, candidates):
        drawn.append(earlier)
        return original(self, clips, inputs, earlier, candidates)

    monkeypatch.setattr(ScorerObjective, "measure_distortions", record)
    changes = {"data.train": [str(videos)], "initial": str(tmp_path / "tokenizer"), "model.scorer": scorer}
    trainer = start_trainer("scorer", tmp_path, SMALL | changes)
    epoch = torch.cat([clips for clips, _ in islice(trainer.batches(), STEPS_PER_EPOCH)])
    assert sorted(locate(epoch, all_clips(videos))) == [(name, 0) for name in VIDEOS]
    assert trainer.average is None
    (optimizer,) = trainer.optimizers
    (group,) = optimizer.param_groups
    assert len(group["params"]) == len(list(trainer.model.scorer.parameters()))
    assert (group["weight_decay"], group["betas"]) == (0, (0.5, 0.9))
    for step, _ in enumerate(take_steps(trainer, 6), 1):
        assert_rate(optimizer, 1e-4 * factor(step))
    assert any(first != second for first, second in drawn)  # each clip has its own lengths


@pytest.mark.parametrize("preset", ["base", "base-predictor"])
def test_generator(tmp_path, preset):
    """Six videos with 1, 2, 3, 4, 5 and 45 start frames."""
    of = info(levels=(), condition_frames=3 if preset == "base-predictor" else 0)
    rng = np.random.default_rng(0)
    clips = []
    for video, starts in enumerate((1, 2, 3, 4, 5, 45)):
        for start in range(starts):
            lengths = np.array([2, 3, 4])
            ids = rng.integers(0, of.codebook_size, 9).astype(np.uint16)
            condition = (
                rng.integers(0, of.codebook_size, of.condition_ids).astype(np.uint16) if of.condition_ids else None
            )
            clips.append(TokenClip(ids, lengths, f"class {video % 2}", f"{video}.mp4", start, condition=condition))
    (tmp_path / "tokens").mkdir()
    order = rng.permutation(len(clips))
    write_shard(tmp_path / "tokens" / "0.parquet", [clips[i] for i in order], of)

    changes = {
        name: SMALL[name] for name in ("epochs", "optimizer.warmup_epochs", "batch_size", "precision", "trackers")
    }
    changes |= {"model.width": 16, "model.depth": 1, "model.heads": 2, "data.train": [str(tmp_path / "tokens")]}
    trainer = start_trainer("generator", tmp_path, changes | {"samples": 0}, preset)
    assert trainer.length == (EPOCHS * STEPS_PER_EPOCH, WARMUP * STEPS_PER_EPOCH)

    sequences = trainer.data.train
    visits = [clips[order[sequences.clip_index(index)]] for index in range(6 * 300)]
    epochs = [visits[start : start + 6] for start in range(0, len(visits), 6)]
    assert all(sorted(clip.source for clip in epoch) == [f"{video}.mp4" for video in range(6)] for epoch in epochs)
    counts = np.bincount([clip.start for clip in visits if clip.source == "4.mp4"], minlength=5)
    assert counts.min() > 35  # of 60

    assert trainer.average is None
    (optimizer,) = trainer.optimizers
    assert all(group["betas"] == (0.9, 0.95) for group in optimizer.param_groups)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    linear = {id(module.weight) for module in trainer.model.modules() if isinstance(module, torch.nn.Linear)}
    assert len(linear) == 5  # qkv, projection, feed-forward and output
    assert len(decays) == len(list(trainer.model.parameters()))
    assert all(decay == (0.05 if key in linear else 0) for key, decay in decays.items())
    for step, _ in enumerate(take_steps(trainer, 6), 1):
        assert_rate(optimizer, 6e-4 * factor(step))
