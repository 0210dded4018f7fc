"""Configurations of training: YAML files, and fields on the command line."""

from __future__ import annotations

import os
import random
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from adaptok.config.training import config_fields
from tests.fuzz.commands import command
from tests.fuzz.harness import Target
from tests.fuzz.mutations import DEEP, HOSTILE, damaged, document_changed, to_json
from tests.fuzz.originals import FORMATS

BOMB = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{o}, *{o}, *{o}, *{o}, *{o}]\n" for o, n in pairwise("abcdefghi"))
TEXTS = (
    *(
        "",
        "null",
        "[]",
        "- 1",
        "stage",
        "stage: tokenizer\nstage: scorer",
        "? [a]\n: 1",
        "---\n---\n",
        "\t",
        "%YAML 9.9\n",
    ),
    *(
        "!!python/object/apply:os.system ['true']",
        "x: !!python/name:os.system",
        "<<: *none",
        "&a [*a]",
        BOMB,
        "[" * 3000,
    ),
    *("stage: &a tokenizer\nmodel: {<<: {name: x}}", "stage: 2020-01-01", "stage: !!binary aGk=", "1: 2", "? {}\n: 3"),
)
"""Whole files."""


class Configurations(Target):
    """A configuration is refused by one line, or described by `train --dry-run`."""

    name = "configurations"

    def prepare(self, seeds: Path) -> None:
        for name in ("clips", "model", "generator", "token-datasets", "training", "presets"):
            shutil.copytree(FORMATS / name, seeds / name)
        shutil.copy(FORMATS / "list.csv", seeds)
        shutil.copy(FORMATS / "index.parquet", seeds)

    def open(self, seeds: Path) -> None:
        os.chdir(seeds)
        self.texts = {f"{path}": path.read_text() for path in sorted(Path().glob("*/*.yaml"))}
        self.keys = {stage: [field.key for field in config_fields(stage)] for stage in ("tokenizer", "generator")}

    def run(self, rng: random.Random, folder: Path) -> None:
        name = rng.choice(list(self.texts))
        text = self.texts[name]
        stage = yaml.safe_load(text)["stage"]
        path = folder / rng.choice(("config.yaml", "config.yaml", "config.json"))
        flags: list[str] = []
        way = rng.random()
        if way < 0.5:
            document = document_changed(rng, yaml.safe_load(text))
            text = _to_yaml(document) if path.suffix == ".yaml" and rng.random() < 0.5 else to_json(document)
        elif way < 0.7:
            others = [other.encode() for other in self.texts.values()]
            path.write_bytes(damaged(rng, text.encode(), others))
        elif way < 0.75:
            text = rng.choice(TEXTS)
        else:
            keys = self.keys["generator" if stage == "generator" else "tokenizer"]
            for _ in range(rng.choice((1, 1, 2))):
                value = str(rng.choice([value for value in HOSTILE if value != DEEP and "\0" not in str(value)]))
                flags += ["--set", f"{rng.choice(keys)}={value}"]
        if not path.exists():
            path.write_text(text, encoding="utf-8", errors="surrogatepass")
        if name.startswith("presets"):
            data = "clips" if stage != "generator" else "token-datasets/labels"
            flags += ["--data.train", data, "--data.validation", "None"]
        command("train", stage, "--config", path, "--dry-run", "--output", folder / "run", *flags)


def _to_yaml(document: Any) -> str:
    try:
        return yaml.safe_dump(document).replace(DEEP, "[" * 500 + "]" * 500)
    except (yaml.YAMLError, ValueError):
        return to_json(document)
