"""Short training runs of tokenizers and scorers, and what they leave behind."""

from __future__ import annotations

import json
import signal

import pytest
import torch
from safetensors.torch import load_file

from adaptok.checkpoints.model_folder import write_folder
from adaptok.config.model import PriorConfig
from adaptok.config.training import TrainingConfig
from adaptok.models.model import Model
from adaptok.training.checkpointing import list_checkpoints
from adaptok.training.clip_data import ClipData
from adaptok.training.trainer import Trainer
from tests.helpers.models import small_config


class Clips(torch.utils.data.Dataset):
    """Clip i is a function of i; `bad` is not a number."""

    def __init__(self, bad=None):
        self.bad = bad

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        if index == self.bad:
            return torch.full((3, 8, 16, 16), float("nan"))
        return torch.rand(3, 8, 16, 16, generator=torch.Generator().manual_seed(index))


LOSSES = {"l1": 1, "mse": 1, "dssim": 0.5, "frequency": 0.1, "adversarial": 0.3, "start_steps": {"adversarial": 2}}


def config(tmp_path, stage: str, **changes) -> TrainingConfig:
    model = small_config(vector=stage == "tokenizer").model_dump()
    if stage == "tokenizer":
        model |= {"scorer": None, "prior": PriorConfig(width=16, depth=1, heads=2).model_dump()}
    values = {
        "stage": stage,
        "model": model,
        "data": {"workers": 0},
        "lengths": {"kind": "uniform", "min": 1, "max": 8},
        "losses": LOSSES,
        "discriminator": {
            "width": 16,
            "depth": 1,
            "heads": 2,
            "patch_size": 4,
            "temporal_patch_size": 2,
            "update_interval": 2,
        },
        "optimizer": {"warmup_steps": 3, "kind": "adamw" if stage == "tokenizer" else "muon"},
        "max_steps": 12,
        "micro_batch_size": 2,
        "precision": "float32",
        "log_every": 1,
        "validate_every": 6,
        "checkpoint_every": 4,
    }
    if stage == "scorer":
        torch.manual_seed(0)
        write_folder(Model(small_config()), tmp_path / "tokenizer")
        values["initial"] = str(tmp_path / "tokenizer")
    return TrainingConfig.parse({**values, **changes})


def train(config, folder, stop_at=None, bad=None, signal_at=None):
    """One run, stopped like a killed one after the step `stop_at`, or sent a signal.

    `signal_at` is the step and the name of a metric whose record triggers the signal, and its number.
    """

    def report(record):
        if stop_at is not None and record.step >= stop_at:
            raise KeyboardInterrupt
        if signal_at is not None and record.step == signal_at[0] and signal_at[1] in record.values:
            signal.raise_signal(signal_at[2])

    validation = torch.stack([Clips()[i] for i in (900, 901)])
    Trainer(config, ClipData(Clips(bad), validation), folder, report).train()


TIMES = ("clips_per_second", "waiting_for_data")


def everything(folder):
    """Weights, average and optimizer of the last checkpoint, and the metrics without the speed."""
    last = list_checkpoints(folder)[-1]
    tensors = {f"{path.stem}.{n}": t for path in last.glob("*.safetensors") for n, t in load_file(path).items()}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return tensors, [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def assert_resumes(options, tmp_path, stops):
    """A run that is stopped after these steps equals the uninterrupted one bit for bit. Returns its metrics."""
    train(options, tmp_path / "whole")
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            train(options, tmp_path / "parts", stop_at=stop)
    train(options, tmp_path / "parts")
    (tensors, metrics), (again, metrics_again) = everything(tmp_path / "whole"), everything(tmp_path / "parts")
    assert tensors.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in tensors.items())
    assert metrics == metrics_again
    return metrics
