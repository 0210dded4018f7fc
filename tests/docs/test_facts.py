"""Numbers, names and flags in README.md and docs are those of the program.

Facts are searched in all pages, so that text can move between pages.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import adaptok.cli
from adaptok.allocation.policy import ClipLayout, official_block_budgets
from adaptok.checkpoints.hub import BUNDLED_MODEL
from adaptok.cli.demo import Demo
from adaptok.config.generator import GeneratorConfig, generator_size
from adaptok.config.model import base
from adaptok.config.training import STAGES, config_fields, load_training_config
from adaptok.metrics.fvd import I3D_SHA256
from adaptok.metrics.registry import METRIC_WEIGHTS
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from adaptok.training.estimate import describe

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "src" / "adaptok" / "assets"
PAGES = {
    path: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
# Flags of other programs.
FOREIGN = {
    "--strict",
    "--logdir",
    "--nproc-per-node",
    "--multi-gpu",
    "--no-deps",
    "--no-binary",
    "--tyro-write-completion",
    "--videos",  # of experiments/allocation
}


def facts(pattern: str) -> list[tuple[str, ...]]:
    """Groups of every match in any page, where a space stands for any white space. There is at least one match."""
    found = [match.groups() for text in PAGES.values() for match in re.finditer(pattern.replace(" ", r"\s+"), text)]
    assert found, f"no page says {pattern!r} any more; change the test"
    return found


def millions(*counts: int) -> str:
    return f"{sum(counts) / 1e6:.1f}"


def stored_parameters(folder: Path) -> dict[str, int]:
    """Number of stored weights of each part of a model."""
    counts: dict[str, int] = {}
    with safe_open(folder / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118 (it is no dictionary)
            part = name.partition(".")[0]
            counts[part] = counts.get(part, 0) + torch.Size(file.get_slice(name).get_shape()).numel()
    return counts


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_and_size_of_the_bundled_tokenizer():
    counts = stored_parameters(ASSETS / BUNDLED_MODEL)
    tokenizer, scorer = counts["tokenizer"], counts["scorer"]
    for found in facts(r"is a tokenizer \((\S+) M parameters\) with a scorer \((\S+) M\)"):
        assert found == (millions(tokenizer), millions(scorer))
    for (found,) in facts(r"\((\S+) M parameters with its scorer"):
        assert found == millions(tokenizer, scorer)
    for (found,) in facts(r"pixels, (\S+) MB in float16"):
        assert found == millions((ASSETS / BUNDLED_MODEL / "model.safetensors").stat().st_size)


def test_parameters_and_size_of_the_bundled_generator():
    folder = ASSETS / f"{BUNDLED_MODEL}-generator"
    count = millions(*stored_parameters(folder).values())
    for (found,) in facts(r"generator at (\S+) M parameters") + facts(
        r"(\S+) M parameters, for the ids of the bundled"
    ):
        assert found == count
    for found in facts(r"has (\S+) M parameters \((\S+) MB in bfloat16\)"):
        assert found == (count, millions((folder / "model.safetensors").stat().st_size))


def test_parameters_of_the_official_sizes():
    size = generator_size("LP")
    with torch.device("meta"):
        config = GeneratorConfig(
            **size.model_dump(include={"width", "depth", "heads"}), codebook_size=8192, classes=101
        )
        generator = GeneratorModel(config)
        model = Model(base())
        trained = Model(load_training_config("base", "tokenizer", {}).model)
    positions = len(generator.positions)
    shorter = parameters(generator) - (positions - 1024) * config.width
    for found in facts(r"of LP, (\d+) M, is for 1,024 positions. With the (\S+) positions .* need, LP has (\d+) M"):
        assert found == (f"{shorter / 1e6:.0f}", f"{positions:,}", f"{parameters(generator) / 1e6:.0f}")
    assert trained.prior is not None
    with_prior = parameters(model) + parameters(trained.prior)
    for found in facts(r"model \((\d+) M parameters, or (\d+) M with the prior"):
        assert found == (f"{parameters(model) / 1e6:.0f}", f"{with_prior / 1e6:.0f}")


def test_official_budgets():
    rows = facts(r"\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|\n")
    assert len(rows) == 8
    for tokens, per_clip, *blocks in rows:
        budgets = official_block_budgets(float(tokens), ClipLayout(blocks=4, latents=512, length_step=32))
        assert tuple(map(int, blocks)) == budgets
        assert int(per_clip) == 4 * int(tokens)
        assert 0 <= 4 * int(tokens) - sum(budgets) <= 4


TRAININGS = {
    "tokenizer": ("base", "tokenizer"),
    "scorer": ("base", "scorer"),
    "generator (UCF-101)": ("base", "generator"),
    "predictor (Kinetics-600)": ("base-predictor", "generator"),
}


def test_work_of_the_official_trainings():
    """GPU hours follow from the other columns; work and memory are those of --dry-run."""
    rows = facts(r"\| ([^|\n]+) \| [\d,]+ \| ([\d,]+) \| (\d+) \| (\d+) \| (\d+) GB \|")
    assert {name for name, *_ in rows} == set(TRAININGS)
    for name, steps, tflop, hours, memory in rows:
        assert int(steps.replace(",", "")) * int(tflop) / 300 / 3600 == pytest.approx(int(hours), abs=1)
        preset, stage = TRAININGS[name]
        plan = describe(load_training_config(preset, stage, {}), 8)
        assert (round(plan["gflop_per_step"] / 1000), round(plan["memory_gb"])) == (int(tflop), int(memory))


def test_hashes_of_weights():
    known = [I3D_SHA256, *(weights.sha256 for weights in METRIC_WEIGHTS.values())]
    for name, sha256 in facts(r"\| (\S+\.(?:pth|safetensors)) \| `--\S+` \| ([0-9a-f]{12}) \|"):
        assert any(each.startswith(sha256) for each in known), name


def test_versions_of_python_and_torch():
    minors = re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', PROJECT)
    for found in facts(r"Python 3\.(\d+) to 3\.(\d+)"):
        assert found == (minors[0], minors[-1])
    for (found,) in facts(r"needs PyTorch (\S+) or newer, and runs on"):
        assert f'"torch>={found}"' in PROJECT


def test_extras_exist():
    known = re.findall(r"^(\w+) = \[", PROJECT.partition("[project.optional-dependencies]")[2], re.MULTILINE)
    for (extras,) in facts(r"pip install '\.\[([\w,]+)\]'") + facts(r"pip install 'adaptok\[([\w,]+)\]'"):
        assert set(extras.split(",")) <= set(known)


def test_defaults_of_the_demo():
    defaults = {field.name.replace("_", "-"): field.default for field in dataclasses.fields(Demo)}
    for name, default in facts(r"\| `--(port|host|max-seconds|max-megabytes)[^|]*` \| (\S+) \|"):
        assert default == f"{defaults[name]:g}" if isinstance(defaults[name], float) else str(defaults[name])


def test_named_tests_exist():
    for path, name in facts(r"`(tests/[\w/]+\.py)::(\w+)`"):
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8")


def test_packages_are_described():
    packages = {path.parent.name for path in (ROOT / "src" / "adaptok").glob("*/__init__.py")}
    described = {name for (name,) in facts(r"\n\| `(\w+)` \| \S")}
    assert packages <= described


def known_flags() -> set[str]:
    """Flags of all commands, and of all fields of training configurations."""
    names = {"help", "version"}
    for module in pkgutil.iter_modules(adaptok.cli.__path__):
        for value in vars(importlib.import_module(f"adaptok.cli.{module.name}")).values():
            if isinstance(value, type) and dataclasses.is_dataclass(value):
                names |= {field.name for field in dataclasses.fields(value)}
    for stage in STAGES:
        names |= {field.key for field in config_fields(stage)}
    flags = {f"--{name.replace('_', '-')}" for name in names}
    return flags | {f"--no-{name[2:]}" for name in flags}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_flags_exist(page):
    blocks = re.findall(r"```sh\n(.*?)```", PAGES[page], re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL))
    used = {flag for code in [*blocks, *spans] for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*", code)}
    assert {flag.replace("_", "-") for flag in used} - known_flags() - FOREIGN == set()
