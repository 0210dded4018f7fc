"""The commands that are killed."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors.torch import load_file

from adaptok.evaluation.partial_results import PartialResult
from adaptok.training.checkpointing import list_checkpoints
from tests.crash.harness import Command
from tests.fuzz.originals import FORMATS
from tests.helpers.tokenization import write_brightening_video
from tests.helpers.training import everything
from tests.helpers.videos import write_video

MODEL = ("--model", FORMATS / "model", "--device", "cpu")


def files(out: Path, *patterns: str) -> dict[str, bytes]:
    """Content of the files that match one of the patterns, hidden ones included."""
    paths = {path for pattern in patterns for path in out.glob(pattern) if path.is_file()}
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(paths)}


class Tokenize(Command):
    name = "tokenize"

    def prepare(self) -> None:
        for index in range(6):
            folder = self.inputs / f"class{index % 3}"
            write_brightening_video(folder / f"{index:03d}.mp4", 20 * (1 + index % 2), index)

    def arguments(self, out: Path, rng: random.Random) -> list[object]:
        flags = ["--budget", 18, "--stride", 6, "--shard-clips", 4, "--workers", rng.choice((1, 1, 2))]
        return ["tokenize", self.inputs, "--output", out, *MODEL, *flags, "--quiet"]

    def parts(self, out: Path) -> dict[str, Any]:
        return files(out, "*.parquet")

    def result(self, out: Path) -> dict[str, Any]:
        return {**files(out, "*.parquet", "broken.json"), "partial": (out / ".partial").exists()}


class Train(Command):
    name = "train"

    def prepare(self) -> None:
        for name in ("clips", "list.csv", "model"):
            path = FORMATS / name
            shutil.copytree(path, self.inputs / name) if path.is_dir() else shutil.copy(path, self.inputs)
        text = (FORMATS / "training" / "tokenizer-run.yaml").read_text()
        for name in ("clips/spin", "clips", "list.csv"):
            text = text.replace(f" {name}\n", f" {self.inputs / name}\n")
        (self.inputs / "run.yaml").write_text(text)

    def arguments(self, out: Path, rng: random.Random) -> list[object]:
        flags = ["--checkpoint-every", 2, "--keep-checkpoints", 9, "--validate-every", 3]
        return ["train", "tokenizer", "--config", self.inputs / "run.yaml", "--output", out, *flags, "--quiet"]

    def parts(self, out: Path) -> dict[str, Any]:
        return {
            f"{folder.name}/{path.name}": load_file(path)
            for folder in list_checkpoints(out)
            for path in sorted(folder.glob("*.safetensors"))
        }

    def result(self, out: Path) -> dict[str, Any]:
        tensors, metrics = everything(out)
        return {**tensors, **self.parts(out), "metrics": metrics, **files(out, "model/*", "best/*")}


class Encode(Command):
    name = "encode"

    def prepare(self) -> None:
        write_video(self.inputs / "long.mp4", 150, (64, 96))

    def arguments(self, out: Path, rng: random.Random) -> list[object]:
        out.mkdir(exist_ok=True)
        flags = ["--budget", 20, "--fit", "tile", "--short-side", 48, "--force"]
        return ["encode", self.inputs / "long.mp4", out / "long.adaptok", *MODEL, *flags, "--quiet"]

    def parts(self, out: Path) -> dict[str, Any]:
        return files(out, "*.adaptok")


class Evaluate(Command):
    name = "evaluate"

    def prepare(self) -> None:
        shutil.copytree(FORMATS / "clips", self.inputs / "clips")

    def arguments(self, out: Path, rng: random.Random) -> list[object]:
        flags = ["--budget", 12, 24, "--metrics", "psnr", "ssim", "sharpness"]
        return ["evaluate", "reconstruction", self.inputs / "clips", "--output", out, *MODEL, *flags, "--quiet"]

    def parts(self, out: Path) -> dict[str, Any]:
        parts = {path.name: PartialResult.load(path) for path in sorted(out.glob("parts/[!.]*.safetensors"))}
        return {  # without times and memory
            name: [part.videos, *((key, array.tobytes()) for key, array in sorted(part.arrays.items()))]
            for name, part in parts.items()
        }

    def result(self, out: Path) -> dict[str, Any]:
        report = json.loads((out / "report.json").read_text())
        numbers = {name: report[name] for name in ("data", "results", "metrics", "examples")}
        return {**self.parts(out), **numbers, "rows": pq.read_table(out / "metrics.parquet").to_pylist()}


class Generate(Command):
    name = "generate"

    def prepare(self) -> None:
        """Everything is in the fixtures."""

    def arguments(self, out: Path, rng: random.Random) -> list[object]:
        flags = ["--label", "orbit", "spin", "-n", 8, "--batch-size", rng.choice((1, 2)), "--generator"]
        return ["generate", "--output", out, *MODEL, *flags, FORMATS / "generator", "--quiet"]

    def parts(self, out: Path) -> dict[str, Any]:
        return files(out, "[!.]*.mp4", "[!.]*.png")  # a killed command leaves a temporary file, until it is finished

    def result(self, out: Path) -> dict[str, Any]:
        return files(out, "*.mp4", "*.png", "generate.json")


COMMANDS = {command.name: command for command in (Tokenize, Train, Encode, Evaluate, Generate)}
