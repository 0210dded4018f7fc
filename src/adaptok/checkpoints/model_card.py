"""Model cards: the README.md of a model folder, in the form that the Hugging Face hub shows.

A card has metadata in YAML and text in Markdown. It is written when a model is exported from its training run, and is
completed when the model is uploaded, so that it can be edited in between.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adaptok.checkpoints.folders import CARD_FILE
from adaptok.checkpoints.hub import BUNDLED_MODEL
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from adaptok.utils.files import replacing

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

MODEL_PLACE = "path/to/this/folder"
"""Stands for the model in the usage example of a card, until the model is uploaded."""
RESULT_PREFIX = "validation_"
_NAMES = {
    "psnr": "PSNR (dB)",
    "lpips": "LPIPS (VGG)",
    "lpips_alex": "LPIPS (AlexNet)",
    "fvd": "FVD",
}
"""Names of measurements in the table of results. Other names are shown with spaces instead of underscores."""


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """Facts about the training of a model that its card states."""

    stage: str
    """What was trained: tokenizer, scorer or generator."""
    length: str
    """Length of the training, such as "500 steps of 16 clips"."""
    data: str
    """Training data."""
    initial: str | None
    """Model that the training started from; None if its weights were random."""
    base_model: str | None
    """Hub id of that model, if it is one of the hub."""
    validation: str | None
    """Name of the validation data, if any."""
    results: Mapping[str, float]
    """Last result of each measurement, under the names of `metrics.jsonl`."""
    config: str
    """Configuration of the run, in YAML."""
    figures: Mapping[str, Path]
    """Pictures that the card shows, by caption."""


class CardMetadata(NamedTuple):
    """Metadata of a card that only the author of a model knows. Values that are not given are left as they are.

    license: Identifier of the license of the weights, as the hub lists them, such as "apache-2.0" or "other".
    datasets: Hub ids of the data sets of the training.
    base_model: Hub id of the model that the weights were fine-tuned from.
    """

    license: str | None = None
    datasets: Sequence[str] = ()
    base_model: str | None = None


class _Result(NamedTuple):
    """A measurement. `length` is the number of tokens per block at which it was made, if it depends on that."""

    metric: str
    length: int | None
    value: float

    @classmethod
    def parse(cls, name: str, value: float) -> _Result:
        match = re.fullmatch(rf"{RESULT_PREFIX}(\w+?)(?:_(\d+))?", name)
        assert match is not None, name
        return cls(match[1], None if match[2] is None else int(match[2]), value)

    @property
    def title(self) -> str:
        return _NAMES.get(self.metric, self.metric.replace("_", " "))


def write_card(
    folder: Path, model: Model | GeneratorModel, training: TrainingSummary | None = None, place: str = MODEL_PLACE
) -> None:
    """Write the card of a model, with copies of the pictures that it shows.

    Args:
        folder: The model folder.
        model: The model.
        training: Facts about its training, if they are known.
        place: Name under which the usage example loads the model.
    """
    from huggingface_hub import ModelCard

    text = [f"# {model.config.name}", "", _describe(model, training), "", "## Usage", "", _usage(model, place), ""]
    if training is not None:
        text += _results(training)
        for number, (caption, picture) in enumerate(training.figures.items()):
            name = f"figure-{number}{picture.suffix}"
            shutil.copyfile(picture, folder / name)
            text += [f"![{caption}]({name})", ""]
        text += _training(training)
    card = ModelCard(f"---\n{_metadata(model, training).to_yaml()}\n---\n" + "\n".join(text))
    _write(folder, str(card))


def publish_card(
    folder: Path, model: Model | GeneratorModel, repo_id: str, source: Path | None, metadata: CardMetadata
) -> None:
    """Write the card of a model that is about to be uploaded.

    Args:
        folder: Folder that is uploaded.
        model: The model.
        repo_id: Hub id of the upload, which replaces the path in the usage example.
        source: Folder that the model was loaded from. Its card is taken, with the pictures beside it. Without one, a
            card is written that describes the model alone.
        metadata: Metadata to set.
    """
    from huggingface_hub import ModelCard

    if source is None or not (source / CARD_FILE).is_file():
        write_card(folder, model, place=repo_id)
        card = ModelCard.load(folder / CARD_FILE)
    else:
        card = ModelCard.load(source / CARD_FILE)
        for name in re.findall(r"!\[[^\]]*\]\(([^)\s/\\]+)\)", card.text):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
    data, defaults = card.data.to_dict(), _metadata(model, None).to_dict()
    for name, value in (defaults | {name: value for name, value in metadata._asdict().items() if value}).items():
        if name not in data or name in CardMetadata._fields:
            card.data[name] = list(value) if isinstance(value, tuple) else value
    card.text = card.text.replace(MODEL_PLACE, repo_id)
    _write(folder, str(card))


def _write(folder: Path, text: str) -> None:
    with replacing(folder / CARD_FILE) as temporary:
        temporary.write_text(text.rstrip() + "\n", encoding="utf-8")


def _metadata(model: Model | GeneratorModel, training: TrainingSummary | None) -> ModelCardData:
    from huggingface_hub import EvalResult, ModelCardData

    task, kind = _task(model)
    results = [] if training is None else [_Result.parse(*item) for item in training.results.items()]
    options: dict[str, Any] = {}
    if training is not None:
        options["base_model"] = training.base_model
        options["license"] = "other" if training.initial == BUNDLED_MODEL else None
    if training is not None and results:
        names = [result.metric for result in results if result.metric != "loss"]
        options["metrics"] = list(dict.fromkeys(names)) or None
        options["model_name"] = model.config.name
        options["eval_results"] = [
            EvalResult(
                task_type=task,
                dataset_type="video",
                dataset_name=training.validation or "held-out clips",
                metric_type=result.metric,
                metric_name=result.title + ("" if result.length is None else f" at {result.length} tokens per block"),
                metric_value=float(f"{result.value:.4g}"),
            )
            for result in results
        ]
    return ModelCardData(
        library_name="adaptok", pipeline_tag=task, tags=["video", f"video-{kind}", "discrete-tokens"], **options
    )


def _task(model: Model | GeneratorModel) -> tuple[str, str]:
    """Return the task of the hub, which has none for generation by class, and the kind of model."""
    if not isinstance(model, GeneratorModel):
        return "video-to-video", "tokenizer"
    return ("other" if model.config.classes else "video-to-video"), "generator"


def _describe(model: Model | GeneratorModel, training: TrainingSummary | None) -> str:
    trained = "" if training is None else f", trained for {training.length}"
    millions = sum(model.parameter_counts().values()) / 1e6
    if isinstance(model, GeneratorModel):
        c = model.config
        condition = f"one of {c.classes} classes" if c.classes else "the first frames"
        return (
            f"A generator of the ids of clips of the tokenizer {c.model or 'of unknown name'}, from {condition}"
            f"{trained}. It has {millions:.3g} M parameters."
        )
    t = model.config.tokenizer
    return (
        f"A {'tokenizer' if training is None else training.stage} for clips of {t.frames} frames of {t.size}x{t.size}"
        f" pixels{trained}. A block of {t.temporal_patch_size} frames has up to {t.latents} tokens of a codebook of"
        f" {t.quantizer.codebook_size}. The model has {millions:.3g} M parameters."
    )


def _usage(model: Model | GeneratorModel, place: str) -> str:
    """Return a block of code that uses the model."""
    if not isinstance(model, GeneratorModel):
        t = model.config.tokenizer
        budget = f"budget={t.blocks * t.latents // 2}" + (", uniform=True" if model.scorer is None else "")
        lines = [
            "from adaptok import AdapTok",
            "",
            f'codec = AdapTok.from_pretrained("{place}")',
            f'tokens = codec.encode("clip.mp4", {budget})  # tokens per clip of {t.frames} frames',
            "frames = codec.decode(tokens)  # uint8 [T, H, W, 3]",
        ]
    else:
        c = model.config
        codec = "" if c.model == BUNDLED_MODEL else f', codec="path/to/{c.model or "its-tokenizer"}"'
        label = repr(c.labels[0]).replace("'", '"') if c.labels else "0"
        sampling = [
            f"samples = generator.sample([{label}], seeds=[0])",
            "clips = generator.decode(samples)  # float32 [B, 3, T, S, S] in [0, 1]",
        ]
        prediction = ['frames = generator.predict("clip.mp4")  # uint8 [T, S, S, 3]']
        lines = [
            "from adaptok import Generator",
            "",
            f'generator = Generator.from_pretrained("{place}"{codec})',
            *(sampling if c.classes else prediction),
        ]
    return "\n".join(["```python", *lines, "```"])


def _results(training: TrainingSummary) -> list[str]:
    """Return the section with the results of the last validation."""
    if not training.results:
        return ["## Results", "", "Not validated.", ""]
    results = [_Result.parse(*item) for item in training.results.items()]
    on = f" on {training.validation}" if training.validation else ""
    by_length = any(result.length is not None for result in results)
    header = ["| measurement | tokens per block | value |", "| --- | --- | --- |"]
    rows = [f"| {each.title} | {'' if each.length is None else each.length} | {each.value:.4g} |" for each in results]
    if not by_length:
        header = ["| measurement | value |", "| --- | --- |"]
        rows = [f"| {each.title} | {each.value:.4g} |" for each in results]
    return ["## Results", "", f"Last validation{on}, during the training:", "", *header, *rows, ""]


def _training(training: TrainingSummary) -> list[str]:
    """Return the section about the training."""
    terms = ", for research and demonstration" if training.initial == BUNDLED_MODEL else ""
    return [
        "## Training",
        "",
        f"- Length: {training.length}",
        f"- Data: {training.data}",
        *([f"- Initial model: {training.initial}{terms}"] if training.initial is not None else []),
        "",
        "<details>",
        "<summary>Configuration</summary>",
        "",
        "```yaml",
        training.config.rstrip(),
        "```",
        "",
        "</details>",
        "",
    ]
