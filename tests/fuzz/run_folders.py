"""Folders of training runs that are resumed, exported and described after damage."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from pathlib import Path

import pytest
import torch

from adaptok.training.metrics_logger import LogRecord
from adaptok.training.token_data import open_token_data
from adaptok.training.trainer import Trainer
from tests.fuzz.commands import command
from tests.fuzz.harness import Failure, Target, attempt
from tests.fuzz.mutations import damaged, document_changed, safetensors_changed, to_json
from tests.helpers.generators import generator_config, write_tokens
from tests.helpers.training import config, everything, train

ERRORS = (ValueError, FileNotFoundError, NotADirectoryError)
CHANGES = {"max_steps": 4, "checkpoint_every": 1, "validate_every": 4, "keep_checkpoints": 2, "trackers": []}


def train_tokenizer(seeds: Path, run: Path, stop_at: int | None = None) -> None:
    train(config(seeds, "tokenizer", **CHANGES), run, stop_at=stop_at)


def train_generator(seeds: Path, run: Path, stop_at: int | None = None) -> None:
    def report(record: LogRecord) -> None:
        if stop_at is not None and record.step >= stop_at:
            raise KeyboardInterrupt

    options = generator_config(str(seeds / "tokens"), **CHANGES)
    Trainer(options, open_token_data(options), run, report).train()


STAGES = {"tokenizer": train_tokenizer, "generator": train_generator}


class RunFolders(Target):
    """A damaged run is refused, or resumes from a whole checkpoint to the same result."""

    name = "run_folders"

    def prepare(self, seeds: Path) -> None:
        write_tokens(seeds / "tokens", 12)
        for stage, run in STAGES.items():
            with pytest.raises(KeyboardInterrupt):
                run(seeds, seeds / stage / "run", 3)
            shutil.copytree(seeds / stage / "run", seeds / stage / "whole")
            run(seeds, seeds / stage / "whole")

    def open(self, seeds: Path) -> None:
        self.seeds = seeds
        self.expected = {stage: everything(seeds / stage / "whole") for stage in STAGES}

    def warm_up(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for stage, run in STAGES.items():
                run(self.seeds, Path(folder) / stage)

    def run(self, rng: random.Random, folder: Path) -> None:
        stage = rng.choice(list(STAGES))
        run = folder / "run"
        shutil.copytree(self.seeds / stage / "run", run)
        files = [path for path in sorted(run.rglob("*")) if path.is_file()]
        path = rng.choice(files)
        logged = path.name == "metrics.jsonl"
        self.change(rng, path, files)
        if rng.random() < 0.2:
            command("info", run)
        if rng.random() < 0.2:
            command("export", run, folder / "model")
            return
        attempt(ERRORS, STAGES[stage], self.seeds, run)
        tensors, metrics = everything(run) if not logged else (everything_but_metrics(run), [])
        expected, expected_metrics = self.expected[stage]
        if tensors.keys() != expected.keys() or any(not torch.equal(tensors[key], expected[key]) for key in expected):
            raise Failure(f"the run ended with other weights after damage to {path.relative_to(run)}")
        if not logged and metrics != expected_metrics:
            raise Failure(f"the run ended with other metrics after damage to {path.relative_to(run)}")

    def change(self, rng: random.Random, path: Path, files: list[Path]) -> None:
        way = rng.random()
        if way < 0.1:
            path.unlink()
        elif way < 0.2:
            path.write_bytes(rng.choice(files).read_bytes())  # exchanged
        elif way < 0.4 and path.suffix == ".safetensors":
            path.write_bytes(safetensors_changed(rng, path.read_bytes()))
        elif way < 0.5 and path.suffix == ".json":
            path.write_text(to_json(document_changed(rng, json.loads(path.read_text()))), errors="surrogatepass")
        else:
            path.write_bytes(damaged(rng, path.read_bytes()))


def everything_but_metrics(run: Path) -> dict[str, torch.Tensor]:
    """Weights, average and optimizer of the last checkpoint."""
    (run / "metrics.jsonl").write_text("")
    return everything(run)[0]
