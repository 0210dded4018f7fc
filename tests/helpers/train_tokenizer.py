"""Train a tokenizer for a few steps, alone or as one process of a group."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from adaptok.training.clip_data import ClipData
from adaptok.training.trainer import Trainer
from tests.helpers.models import small_config
from tests.helpers.training import Clips, config


def run(folder: Path, batch: int, sharding: bool, adaptive: bool) -> None:
    model = small_config(vector=True).model_dump() | {"scorer": None}
    model["tokenizer"]["quantizer"]["temperature"] = 0.0  # nothing is drawn
    changes = {
        "model": model,
        "max_steps": 6,
        "checkpoint_every": 6,
        "micro_batch_size": batch,
        "lengths": {"kind": "fixed", "length": 6},
        "discriminator": {
            "width": 16,
            "depth": 1,
            "heads": 2,
            "patch_size": 4,
            "temporal_patch_size": 2,
            "update_interval": 2,
            "real_noise": 0.0,
            "fake_noise": 0.0,
            "lecam": 0.5,
            "lecam_of": "means",
            "update_first": True,
            "follow_schedule": True,
        },
        "trackers": [],
        "sharding": sharding,
    }
    if adaptive:
        shared = {"kind": "patch", "channels": 8, "layers": 2, "update_interval": 2, "loss": "hinge", "adaptive": True}
        changes |= {"discriminator": shared}
    torch.set_num_threads(1)
    Trainer(config(folder, "tokenizer", **changes), ClipData(Clips(), None), folder / "run").train()


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), sharding=False, adaptive=False)
