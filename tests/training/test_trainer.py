"""Training loop: interrupted runs equal uninterrupted ones, and errors leave the weights unchanged."""

from __future__ import annotations

import inspect
import math
import multiprocessing
import signal
import sys
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

from adaptok import AdapTok
from adaptok.cli.main import main
from adaptok.training.checkpointing import list_checkpoints
from adaptok.training.interruption import TrainingInterrupted
from adaptok.training.metrics_logger import LogRecord, check_trackers
from adaptok.training.precision import LossScaler
from adaptok.training.trainer import Trainer
from tests.helpers.models import small_config
from tests.helpers.training import LOSSES, assert_resumes, config, everything, train


@pytest.mark.parametrize("stage", ["tokenizer", "scorer"])
def test_resumed_runs_equal_uninterrupted_ones(tmp_path, stage):
    options = config(tmp_path, stage)
    metrics = assert_resumes(options, tmp_path, (3, 5, 10))
    assert [line["step"] for line in metrics if "loss" in line] == list(range(1, 13))
    main(["export", str(tmp_path / "parts"), str(tmp_path / "exported"), "--quiet"])
    exported, finished = (load_file(tmp_path / name / "model.safetensors") for name in ("exported", "parts/model"))
    assert all(torch.equal(tensor, finished[name]) for name, tensor in exported.items())
    AdapTok.from_pretrained(tmp_path / "exported", device="cpu")


def test_incomplete_checkpoints_are_ignored(tmp_path):
    options = config(tmp_path, "tokenizer", max_steps=4, checkpoint_every=2)
    train(options, tmp_path / "run")
    torn = tmp_path / "run" / "checkpoints" / ".writing-00000006"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000002", "step-00000004"]
    train(options, tmp_path / "run")


def test_accumulation_equals_a_large_batch(tmp_path):
    plain = {"lengths": {"kind": "uniform", "min": 8, "max": 8}, "max_steps": 5, "losses": {"quantizer": 0}}
    model = small_config().model_dump() | {"scorer": None}
    for name, batch, accumulation in (("one", 8, 1), ("four", 2, 4)):
        train(
            config(
                tmp_path,
                "tokenizer",
                model=model,
                micro_batch_size=batch,
                gradient_accumulation_steps=accumulation,
                **plain,
            ),
            tmp_path / name,
        )
    one, four = everything(tmp_path / "one")[0], everything(tmp_path / "four")[0]
    for name in (n for n in one if n.startswith("model.")):
        torch.testing.assert_close(four[name], one[name], atol=1e-5, rtol=0)


def test_activation_checkpointing_gives_the_same_run(tmp_path):
    for name, again in (("kept", False), ("again", True)):
        train(config(tmp_path, "tokenizer", max_steps=4, activation_checkpointing=again), tmp_path / name)
    kept, again = everything(tmp_path / "kept")[0], everything(tmp_path / "again")[0]
    for name in (n for n in kept if n.startswith("model.")):
        torch.testing.assert_close(again[name], kept[name], atol=1e-6, rtol=0)


def test_non_finite_losses_stop_before_the_weights_change(tmp_path):
    options = config(tmp_path, "tokenizer")
    train(config(tmp_path, "tokenizer", max_steps=12), tmp_path / "good")
    with pytest.raises(FloatingPointError, match=r"step 7 .*l1"):
        train(options, tmp_path / "bad", bad=15)  # the second clip of step 7
    assert [path.name for path in list_checkpoints(tmp_path / "bad")] == ["step-00000004"]
    train(options, tmp_path / "bad")  # the file was mended
    good, mended = everything(tmp_path / "good")[0], everything(tmp_path / "bad")[0]
    assert all(torch.equal(tensor, mended[name]) for name, tensor in good.items())


def test_float16_runs_skip_overflows_and_resume_exactly(tmp_path):
    options = config(tmp_path, "tokenizer", precision="float16", max_steps=8, losses={**LOSSES, "l1": 300}, trackers=[])
    metrics = assert_resumes(options, tmp_path, (6,))
    scales = [line["loss_scale"] for line in metrics if "loss_scale" in line]
    assert scales[0] == 2.0**16
    assert scales[-1] < scales[0]  # halved by each overflow
    skipped = [line for line in metrics if "loss_scale" in line and "gradient_norm" not in line]
    assert len(skipped) == sum(before != after for before, after in pairwise([*scales, scales[-1]]))
    assert len(skipped) < len(scales)


def test_loss_scaler_follows_the_published_rule():
    scaler = LossScaler(enabled=True)
    weight = torch.nn.Parameter(torch.ones(3))
    scaler.scaled((2 * weight).sum()).backward()
    scaler.unscale([weight])
    torch.testing.assert_close(weight.grad, torch.full((3,), 2.0))
    for norm, scale, good in ((1.0, 65536.0, 1), (math.inf, 32768.0, 0), (math.nan, 16384.0, 0), (2.0, 16384.0, 1)):
        assert scaler.accepts(torch.tensor(norm)) == math.isfinite(norm)
        scaler.update()
        assert scaler.state == (scale, good)
    scaler.load((4.0, 1999))
    scaler.update()
    assert scaler.state == (8.0, 0)
    scaler.load((2.0**-10, 0))
    assert not scaler.accepts(torch.tensor(math.inf))
    with pytest.raises(FloatingPointError, match="overflow in float16"):
        scaler.update()


def test_a_refused_resume_names_the_fields_that_differ(tmp_path):
    plain = {"max_steps": 2, "trackers": []}
    train(config(tmp_path, "tokenizer", **plain), tmp_path / "run")
    before = (tmp_path / "run" / "config.yaml").read_text()
    changed = config(tmp_path, "tokenizer", **plain, seed=3, optimizer={"warmup_steps": 3, "lr": 1e-3})
    with pytest.raises(ValueError, match=r"optimizer\.lr is 0\.0003 there and 0\.001 here; seed is 0 there and 3 here"):
        train(changed, tmp_path / "run")
    with pytest.raises(ValueError, match="a run of 2 steps, but 1 are configured"):
        train(config(tmp_path, "tokenizer", **{**plain, "max_steps": 1}), tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").read_text() == before
    longer = {**plain, "max_steps": 4, "log_every": 2, "validate_every": 1, "checkpoint_every": 1}
    train(config(tmp_path, "tokenizer", **longer), tmp_path / "run")
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000003", "step-00000004"]
    assert "max_steps: 4" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_failed_start_leaves_no_folder(tmp_path):
    initial = {"initial": str(tmp_path / "nowhere"), "optimizer": {"lr": 1e-3}}
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(config(tmp_path, "tokenizer", **initial), tmp_path / "runs" / "run")
    assert not (tmp_path / "runs").exists()
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path, "tokenizer"), tmp_path / "run", stop_at=1)
    train(config(tmp_path, "tokenizer", max_steps=1, seed=5), tmp_path / "run")  # nothing was there to resume


def test_signals_save_a_checkpoint(tmp_path):
    """Also during the validation of a step, which is then repeated."""
    options = config(tmp_path, "tokenizer", max_steps=8, checkpoint_every=8, trackers=[])
    train(options, tmp_path / "whole")
    for step, metric, number in ((4, "loss", signal.SIGTERM), (6, "validation_psnr_8", signal.SIGINT)):
        with pytest.raises(
            TrainingInterrupted, match=f"by {number.name} after step {step} of 8.* with step {step + 1}"
        ):
            train(options, tmp_path / "parts", signal_at=(step, metric, number))
        assert list_checkpoints(tmp_path / "parts")[-1].name == f"step-{step:08d}"
    train(options, tmp_path / "parts")
    (tensors, metrics), (again, metrics_again) = everything(tmp_path / "whole"), everything(tmp_path / "parts")
    assert all(torch.equal(tensor, again[name]) for name, tensor in tensors.items())
    assert metrics == metrics_again


def test_tensorboard_gets_configuration_images_and_losses_and_is_resumed(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = config(tmp_path, "tokenizer", max_steps=6, checkpoint_every=4)
    with pytest.raises(KeyboardInterrupt):
        train(options, tmp_path / "run", stop_at=5)
    train(options, tmp_path / "run")
    (folder,) = {path.parent for path in (tmp_path / "run").rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("train/l1")] == list(range(1, 7))
    assert [event.step for event in events.Images("samples")] == [6]
    assert {"train/adversarial", "validation/psnr_8"} <= set(events.Tags()["scalars"])
    assert {"configuration/text_summary", "_hparams_/session_start_info"} <= set(events.summary_metadata)


def test_missing_trackers_are_an_error_at_the_start(tmp_path):
    with pytest.raises(ImportError, match="trackers wandb needs wandb; install it with: pip install"):
        train(config(tmp_path, "tokenizer", trackers=["wandb"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert config(tmp_path, "tokenizer", trackers="none").trackers == ()


@pytest.mark.parametrize("module", ["tensorboard", "torch.utils.tensorboard"])
def test_a_tensorboard_that_is_missing_or_broken_is_named(monkeypatch, module):
    """torch falls back to tensorboardX, whose name would confuse."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"^trackers tensorboard needs tensorboard.*pip install 'adaptok\[train\]'"):
        check_trackers(["tensorboard"])


def test_metrics_are_averaged_over_accumulation_steps(tmp_path):
    lengths = {"kind": "fixed", "length": 8}
    model = small_config().model_dump() | {"scorer": None}
    plain = {"model": model, "lengths": lengths, "losses": {"l1": 1, "quantizer": 0}, "max_steps": 1, "trackers": []}
    sizes = {"one": {"batch_size": 6}, "three": {"batch_size": 6, "micro_batch_size": 2}}
    for name, size in sizes.items():
        train(config(tmp_path, "tokenizer", **plain, **{"micro_batch_size": None, **size}), tmp_path / name)
    (one, *_), (three, *_) = (everything(tmp_path / name)[1] for name in sizes)
    assert one.keys() == three.keys()
    for name in ("loss", "l1", "psnr", "gradient_norm"):
        assert three[name] == pytest.approx(one[name], rel=1e-4), name
    assert one["lr"] == pytest.approx(3e-4 / 3)  # first of three warm-up steps


def test_clipping_of_gradients_can_be_switched_off(tmp_path):
    plain = {"losses": {"l1": 1000}, "max_steps": 2, "trackers": []}
    weights = {}
    for limit in (None, 1e9, 1e-3):
        optimizer = {"warmup_steps": 1, "max_grad_norm": limit, "lr": 1e-3}
        train(config(tmp_path, "tokenizer", optimizer=optimizer, **plain), tmp_path / str(limit))
        tensors, metrics = everything(tmp_path / str(limit))
        weights[limit] = tensors["optimizer.0.exp_avg"]
        assert metrics[0]["gradient_norm"] > 1
    assert torch.equal(weights[None], weights[1e9])
    assert weights[1e-3].norm() < weights[None].norm() / 100


def test_records_are_readable_lines():
    record = LogRecord(5, 500, {"gradient_norm": 2.0, "loss": 0.12345, "clips_per_second": 3.0}, eta_seconds=3723.4)
    assert str(record) == "step 5/500, loss 0.1235, clips_per_second 3, gradient_norm 2, ETA 1:02:03"
    assert str(LogRecord(500, 500, {}, None)) == "step 500/500"


def test_runs_resume_with_another_micro_batch_only_if_it_is_the_same_run(tmp_path):
    train(config(tmp_path, "tokenizer", max_steps=2), tmp_path / "run")
    same = {"micro_batch_size": None, "batch_size": 2, "max_steps": 2}
    train(config(tmp_path, "tokenizer", **same), tmp_path / "run")
    with pytest.raises(ValueError, match="another configuration"):
        train(config(tmp_path, "tokenizer", **{**same, "batch_size": 4}), tmp_path / "run")


def test_processes_that_read_data_end_with_the_run(tmp_path, monkeypatch):
    """Even if a frame of the run outlives it, as in the traceback of a caught error: they ignore signals, so that the
    program would wait for them when it exits."""
    frames, validate = [], Trainer.validate

    def keep_frame(self):
        frames.append(inspect.currentframe().f_back)
        validate(self)

    monkeypatch.setattr(Trainer, "validate", keep_frame)
    options = config(tmp_path, "tokenizer", data={"workers": 1}, max_steps=2, validate_every=1)
    train(options, tmp_path / "run")
    assert frames
    assert not multiprocessing.active_children()
