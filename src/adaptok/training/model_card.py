"""Model cards of trained models: the facts about a run that `adaptok.checkpoints.model_card` writes down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from adaptok.checkpoints.hub import parse_hub_id
from adaptok.checkpoints.model_card import RESULT_PREFIX, TrainingSummary, write_card
from adaptok.config.base import read_yaml
from adaptok.config.training import AnyConfig, GeneratorTrainingConfig, load_config
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from adaptok.training.reporting import read_metrics


def write_model_card(
    folder: Path, model: Model | GeneratorModel, config: AnyConfig, run: Path, *, steps: int, batch_size: int | None
) -> None:
    """Write the card of a trained model: what it is, how it is used, its last results, and how it was trained.

    Args:
        folder: The model folder.
        model: The trained model.
        config: Configuration of the run.
        run: Folder of the run, with its metrics, curves and samples.
        steps: Number of training steps.
        batch_size: Clips per step over all processes, or None if unknown.
    """
    results: dict[str, float] = {}
    for line in read_metrics(run / "metrics.jsonl"):
        results |= {name: value for name, value in line.items() if name.startswith(RESULT_PREFIX)}
    data = config.data
    hub_id = None if config.initial is None else parse_hub_id(config.initial)
    held_out = isinstance(config, GeneratorTrainingConfig) and config.data.held_out
    training = TrainingSummary(
        stage=config.stage,
        length=f"{steps} steps" + ("" if batch_size is None else f" of {batch_size} clips"),
        data=_data_sources(config),
        initial=None if config.initial is None else _without_folders(config.initial),
        base_model=None if hub_id is None else hub_id.repo_id,
        validation=Path(data.validation).name if data.validation else "held-out videos" if held_out else None,
        results=results,
        config=yaml.safe_dump(_without_folders(config.model_dump(mode="json")), sort_keys=False, width=120),
        figures=_figures(run),
    )
    write_card(folder, model, training)


def write_card_of_run(folder: Path, model: Model | GeneratorModel, run: Path, steps: int) -> None:
    """Write the card of a model from the folder of its training run. Does nothing if that has no configuration.

    Raises:
        ValueError: The configuration is not valid.
    """
    path = run / "config.yaml"
    if path.exists():
        config = load_config(str(path), str(read_yaml(path).get("stage")))
        write_model_card(folder, model, config, run, steps=steps, batch_size=config.batch_size)


def _figures(run: Path) -> dict[str, Path]:
    """Return the curves and the latest samples of a run, by caption."""
    pictures = {"Curves of the training": run / "metrics.png"}
    if samples := sorted((run / "samples").glob("step-*.png")):
        pictures["Validation samples at the end of the training"] = samples[-1]
    return {caption: path for caption, path in pictures.items() if path.exists()}


def _data_sources(config: AnyConfig) -> str:
    sources = [_without_folders(source) for source in config.data.train]
    if not isinstance(config, GeneratorTrainingConfig) and config.data.drawn_fraction:
        sources.append(f"drawn clips ({config.data.drawn_fraction:.0%})")
    return ", ".join(sources) or "clips passed from Python"


def _without_folders(value: Any) -> Any:
    """Replace paths outside the working directory by their last part, as a card should not publish the others."""
    if isinstance(value, dict):
        return {name: _without_folders(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    if isinstance(value, str) and (Path(value).is_absolute() or value.startswith(("~", ".."))):
        return Path(value).name
    return value
