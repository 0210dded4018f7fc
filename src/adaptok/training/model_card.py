"""Model cards: the README.md of a model folder, in the form that the Hugging Face hub shows."""

from __future__ import annotations

from pathlib import Path

from adaptok.checkpoints.folders import CARD_FILE
from adaptok.config.base import read_yaml
from adaptok.config.training import AnyConfig, GeneratorTrainingConfig, load_config
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from adaptok.training.reporting import read_metrics
from adaptok.utils.files import replacing


def write_model_card(
    folder: Path, model: Model | GeneratorModel, config: AnyConfig, metrics: Path, *, steps: int, batch_size: int | None
) -> None:
    """Write the card of a trained model: what it is, how it is loaded, what it was trained on, and its last results.

    Args:
        folder: The model folder.
        model: The trained model.
        config: Configuration of the run.
        metrics: The file `metrics.jsonl` of the run.
        steps: Number of training steps.
        batch_size: Clips per step over all processes, or None if unknown.
    """
    results: dict[str, float] = {}
    for line in read_metrics(metrics):
        results |= {name: value for name, value in line.items() if name.startswith("validation")}
    kind = "generator" if isinstance(model, GeneratorModel) else "tokenizer"
    size = "" if batch_size is None else f" of {batch_size} clips"
    lines = [
        "---",
        "library_name: adaptok",
        f"tags: [video, video-{kind}]",
        "---",
        f"# {model.config.name}",
        "",
        f"{_describe(model, config)}, trained for {steps} steps{size}.",
        "",
        f"Training data: {_data_sources(config)}.",
        "",
        *(["| measurement | value |", "| --- | --- |"] if results else ["Not validated."]),
        *(f"| {name} | {value:.4g} |" for name, value in results.items()),
        "",
        "```python",
        *_code(model),
        "```",
        "",
    ]
    with replacing(folder / CARD_FILE) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")


def write_card_of_run(folder: Path, model: Model | GeneratorModel, run: Path, steps: int) -> None:
    """Write the card of a model from the folder of its training run. Does nothing if that has no configuration.

    Raises:
        ValueError: The configuration is not valid.
    """
    path = run / "config.yaml"
    if path.exists():
        config = load_config(str(path), str(read_yaml(path).get("stage")))
        write_model_card(folder, model, config, run / "metrics.jsonl", steps=steps, batch_size=config.batch_size)


def _describe(model: Model | GeneratorModel, config: AnyConfig) -> str:
    if isinstance(model, GeneratorModel):
        c = model.config
        condition = f"one of {c.classes} classes" if c.classes else "the first frames"
        return f"A generator of the ids of clips of the tokenizer {c.model}, from {condition}"
    tokenizer = model.config.tokenizer
    return f"A {config.stage} for clips of {tokenizer.frames} frames of {tokenizer.size}x{tokenizer.size} pixels"


def _code(model: Model | GeneratorModel) -> list[str]:
    if isinstance(model, GeneratorModel):
        return ["from adaptok import Generator", "", "generator = Generator.from_pretrained('path/to/this/folder')"]
    return ["from adaptok import AdapTok", "", "codec = AdapTok.from_pretrained('path/to/this/folder')"]


def _data_sources(config: AnyConfig) -> str:
    sources = list(config.data.train)
    if not isinstance(config, GeneratorTrainingConfig) and config.data.drawn_fraction:
        sources.append(f"drawn clips ({config.data.drawn_fraction:.0%})")
    return ", ".join(sources) or "clips passed from Python"
