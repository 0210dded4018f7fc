"""Training loop: interrupted runs equal uninterrupted ones, and errors leave the weights unchanged."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from adaptok import AdapTok
from adaptok.cli.main import main
from adaptok.training.checkpointing import list_checkpoints
from adaptok.training.metrics_logger import LogRecord
from tests.helpers.models import small_config
from tests.helpers.training import assert_resumes, config, everything, train


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


def test_another_configuration_does_not_continue_a_run(tmp_path):
    train(config(tmp_path, "tokenizer", max_steps=2), tmp_path / "run")
    with pytest.raises(ValueError, match="another configuration"):
        train(config(tmp_path, "tokenizer", max_steps=3), tmp_path / "run")


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
