"""Train a generator for a few steps, alone or as one process of a group."""

from __future__ import annotations

from pathlib import Path

from adaptok.training.token_data import open_token_data
from adaptok.training.trainer import Trainer
from tests.helpers.generators import generator_config


def run(folder: Path, batch: int, accumulation: int, sharding: bool) -> None:
    model = {"width": 32, "depth": 2, "heads": 2, "mixture": 2, "dropout": 0, "token_dropout": 0}
    options = generator_config(
        str(folder.parent / "tokens"),
        model=model,
        data={"train": [str(folder.parent / "tokens")], "held_out": 0.2},
        micro_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        sharding=sharding,
    )
    Trainer(options, open_token_data(options), folder / "run").train()
