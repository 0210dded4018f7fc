"""Model cards of trained models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from adaptok.config.training import AnyConfig, GeneratorTrainingConfig
from adaptok.training.reporting.curves import read_metrics
from adaptok.utils.files import replacing


class CardText(NamedTuple):
    """Text of a model card that depends on the stage."""

    name: str
    """Name of the model."""
    description: str
    """What the model is, as the beginning of a sentence."""
    code: Sequence[str]
    """Lines of Python that load the model."""


def write_model_card(
    path: Path, text: CardText, config: AnyConfig, metrics: Path, *, steps: int, batch_size: int
) -> None:
    """Write a model card: what was trained, on which data, and the last validation results."""
    results: dict[str, float] = {}
    for line in read_metrics(metrics):
        results |= {name: value for name, value in line.items() if name.startswith("validation")}
    lines = [
        f"# {text.name}",
        "",
        f"{text.description}, trained for {steps} steps of {batch_size} clips.",
        "",
        f"Training data: {_data_sources(config)}.",
        "",
        *(["| measurement | value |", "| --- | --- |"] if results else ["Not validated."]),
        *(f"| {name} | {value:.4g} |" for name, value in results.items()),
        "",
        "```python",
        *text.code,
        "```",
        "",
    ]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")


def _data_sources(config: AnyConfig) -> str:
    sources = list(config.data.train)
    if not isinstance(config, GeneratorTrainingConfig) and config.data.drawn_fraction:
        sources.append(f"drawn clips ({config.data.drawn_fraction:.0%})")
    return ", ".join(sources) or "clips passed from Python"
