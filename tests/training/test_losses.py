"""The perceptual loss on frames and crops, and training of one half of a tokenizer."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from adaptok.config.losses import LpipsLossConfig, TokenizerLossConfig
from adaptok.metrics.lpips import Lpips, clip_lpips
from adaptok.training.losses import border_loss, perceptual_loss
from adaptok.training.objectives import ENCODER_PREFIXES
from tests.helpers.training import assert_resumes, config, train


def network() -> Lpips:
    torch.manual_seed(0)
    lpips = Lpips("alex")
    for parameter in lpips.parameters():
        torch.nn.init.uniform_(parameter, 0.0 if parameter.ndim == 1 else -0.05, 0.05)
    return lpips


@pytest.fixture(scope="module")
def lpips() -> Lpips:
    return network()


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 6, 48, 48, generator=generator), torch.rand(2, 3, 6, 48, 48, generator=generator)


def test_everything_is_the_mean_over_frames(lpips, pair):
    loss = perceptual_loss(lpips, LpipsLossConfig(weight=1), *pair, torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss, clip_lpips(lpips, *pair).mean())


def test_frames_and_crops_have_the_configured_sizes(lpips, pair):
    made, true = pair
    seen = set()
    for seed in range(4):
        prediction = made.clone().requires_grad_()
        settings = LpipsLossConfig(weight=1, frames=2, crop=32)
        loss = perceptual_loss(lpips, settings, prediction, true, torch.Generator().manual_seed(seed))
        loss.backward()
        for clip in range(2):
            touched = prediction.grad[clip].abs().sum(0) > 0  # [T, S, S]
            frames = touched.flatten(1).any(1).nonzero()[:, 0]
            rows, columns = (touched.any(0).any(dim).nonzero()[:, 0] for dim in (1, 0))
            assert len(frames) == 2
            assert rows[-1] - rows[0] < 32
            assert columns[-1] - columns[0] < 32
            seen.add((tuple(frames.tolist()), int(rows[0]), int(columns[0])))
    assert len(seen) > 4  # other frames and places for every clip and step


def test_border_loss_compares_steps_across_borders(pair):
    made, true = (clips[..., :12, :12] for clips in pair)
    error = made - true
    steps = [error[..., i] - error[..., i - 1] for i in (4, 8)]
    steps += [error[..., i, :] - error[..., i - 1, :] for i in (4, 8)]
    torch.testing.assert_close(border_loss(made, true, 4), torch.stack(steps).abs().mean())


def test_a_number_is_a_weight():
    losses = TokenizerLossConfig.parse({"lpips": 0.5, "lpips_alex": {"weight": 0.1, "frames": 2}})
    assert losses.lpips == LpipsLossConfig(weight=0.5)
    assert losses.weight("lpips", 0) == 0.5
    assert losses.weight("lpips_alex", 0) == 0.1


def test_resumed_runs_with_crops_equal_uninterrupted_ones(tmp_path):
    lpips = network()
    tensors = {f"features.{name}": tensor for name, tensor in lpips.features.state_dict().items()}
    tensors |= {f"lin{i}.model.1.weight": weight.detach().view(1, -1, 1, 1) for i, weight in enumerate(lpips.weights)}
    save_file(tensors, tmp_path / "alex.safetensors")
    losses = {"l1": 1, "lpips_alex": {"weight": 0.2, "frames": 2, "crop": 16}}
    options = config(
        tmp_path, "tokenizer", losses=losses, max_steps=4, lpips_alex_weights=str(tmp_path / "alex.safetensors")
    )
    options = options.model_copy(update={"checkpoint_every": 2, "validate_every": 4})
    metrics = assert_resumes(options, tmp_path, (3,))
    assert "lpips_alex" in metrics[0]
    assert {"validation_lpips_alex_8", "validation_edge_ratio_8", "validation_sharpness_8"} <= metrics[-1].keys()


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_the_other_half_stays(tmp_path, half):
    options = config(tmp_path, "tokenizer", losses={"l1": 1}, trainable=(half,), max_steps=3, ema_decay=0.0)
    slow = options.optimizer.model_copy(update={"lr": 1e-12})
    first = options.model_copy(update={"max_steps": 1, "optimizer": slow})
    train(first, tmp_path / "start")
    train(options, tmp_path / "run")
    before, after = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("start", "run"))
    moved = {name for name in before if not torch.allclose(before[name], after[name], atol=1e-9, rtol=0)}
    assert moved
    assert all(name.startswith(ENCODER_PREFIXES) == (half == "encoder") for name in moved)
