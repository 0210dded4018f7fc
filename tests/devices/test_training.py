"""Training on a CUDA device: whole runs of every stage, with validation, checkpoints and export."""

from __future__ import annotations

import json

import pytest
import torch
from accelerate import Accelerator

from adaptok.checkpoints.model_folder import read_folder, read_generator
from adaptok.metrics.lpips import Lpips
from adaptok.models.model import Model
from adaptok.training import stages
from adaptok.training.losses import LpipsNetworks
from adaptok.training.objectives import ScorerObjective, StepContext
from adaptok.training.token_data import open_token_data
from adaptok.training.trainer import Trainer
from tests.helpers.generators import generator_config, info, write_tokens
from tests.helpers.simulated_cuda import CUDA
from tests.helpers.training import LOSSES, config, train

SHORT = {"max_steps": 3, "checkpoint_every": 2, "validate_every": 3, "activation_checkpointing": True}
PATCH = {"kind": "patch", "channels": 8, "layers": 2, "update_interval": 2, "loss": "hinge", "adaptive": True}
LPIPS = {"lpips": {"weight": 0.1, "frames": 2}, "lpips_alex": {"weight": 0.1, "crop": 16}, "borders": 0.1}


@pytest.fixture(autouse=True)
def accelerator(cuda, monkeypatch) -> None:
    """Runs use the device, which accelerate selects only if it is a GPU."""
    if cuda == "simulated":
        monkeypatch.setattr(Accelerator, "device", property(lambda _: CUDA))


def assert_trained(folder) -> None:
    losses = [json.loads(line).get("loss") for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len([loss for loss in losses if loss is not None]) == 3
    assert all(loss is None or loss > 0 for loss in losses)


@pytest.mark.parametrize(
    "changes",
    [
        {"ema_decay": 0.9, "losses": {**LOSSES, "start_steps": {}}},
        {"discriminator": PATCH, "micro_batch_size": 1, "gradient_accumulation_steps": 2},
        {"discriminator": {"width": 16, "depth": 1, "heads": 2, "patch_size": 4, "update_first": True}},
        {"losses": LPIPS, "lpips_weights": "random", "lpips_alex_weights": "random"},
        {"precision": "bfloat16"},
        {"precision": "float16"},
    ],
    ids=["transformer", "patch", "first", "lpips", "bfloat16", "float16"],
)
def test_tokenizers(tmp_path, monkeypatch, changes):
    networks = LpipsNetworks(Lpips("vgg").to("cuda"), Lpips("alex").to("cuda"))
    monkeypatch.setattr(stages.LpipsNetworks, "load", lambda *_: networks)
    options = config(tmp_path, "tokenizer", **SHORT, **changes)
    if options.ema_decay:  # resumed from a checkpoint
        with pytest.raises(KeyboardInterrupt):
            train(options, tmp_path / "run", stop_at=2)
    train(options, tmp_path / "run")
    assert_trained(tmp_path / "run")
    read_folder(tmp_path / "run" / "model").build()


def test_scorers(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "LAMBDA_CLIPS", 2)
    monkeypatch.setattr(stages, "NUM_LAMBDAS", 3)
    train(config(tmp_path, "scorer", **SHORT), tmp_path / "run")
    assert_trained(tmp_path / "run")
    assert read_folder(tmp_path / "run" / "model").build().scorer is not None


@pytest.mark.parametrize("target", ["block", "cumulative"])
@pytest.mark.parametrize("distortion", ["multiscale", "lpips"])
def test_targets_of_scorers(tmp_path, clips, target, distortion):
    options = config(tmp_path, "scorer")
    changes = {"target": target, "distortion": distortion, "probe_lengths": ()}
    scorer = options.model.scorer.model_copy(update=changes)
    model = Model(options.model.model_copy(update={"scorer": scorer})).to("cuda")
    objective = ScorerObjective(model, options, LpipsNetworks(Lpips("alex").to("cuda")))
    for block in range(4):
        targets = objective.measure(clips.to("cuda"), block, torch.Generator().manual_seed(block))
        assert targets.distortions.device.type == "cuda"
    objective(clips.to("cuda"), StepContext.seeded(0, "cuda")).loss.backward()
    assert all(parameter.grad is not None for name, parameter in objective.trained_parameters() if "head" in name)


@pytest.mark.parametrize(
    ("of", "model"),
    [({}, {}), ({}, {"levels": [], "mixture": 1}), ({"condition_frames": 3}, {})],
    ids=["digits", "ids", "frames"],
)
def test_generators(tmp_path, of, model):
    tokens = write_tokens(tmp_path / "tokens", 8, info(**of))
    size = {"width": 32, "depth": 2, "heads": 2, "mixture": 2}
    options = generator_config(tokens, **SHORT, model={**size, **model}, micro_batch_size=2, batch_size=4)
    Trainer(options, open_token_data(options), tmp_path / "run").train()
    assert_trained(tmp_path / "run")
    read_generator(tmp_path / "run" / "model")
