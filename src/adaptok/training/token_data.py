"""Token datasets of a generator's run, and the generator that fits them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptok.config.generator import GeneratorConfig
from adaptok.config.training import GeneratorTrainingConfig, PartialGeneratorConfig
from adaptok.data.token_datasets import TokenClip, TokenDataset, TokenDatasetInfo
from adaptok.training.sequences import SequenceDataset


@dataclass(frozen=True)
class TokenData:
    """Sequences to train and validate on, and the configuration of the generator that fits them."""

    train: SequenceDataset
    validation: SequenceDataset | None
    """Held-out sequences, or None."""
    config: GeneratorConfig
    examples: tuple[TokenClip, ...]
    """Clips whose conditions samples are generated for."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Always empty, since token datasets have no broken files."""

    @property
    def epoch_size(self) -> int:
        """Sequences per epoch."""
        return len(self.train)


def open_token_data(config: GeneratorTrainingConfig) -> TokenData:
    """Open the token datasets of a configuration.

    Raises:
        FileNotFoundError: a dataset does not exist.
        ValueError: a dataset is empty, does not fit the generator or the other dataset, or has unknown labels.
    """
    data = config.data
    if not data.train:
        raise ValueError("data.train is empty; give token datasets, which 'adaptok tokenize' writes, with --data.train")
    dataset = TokenDataset.open(data.train)
    names = data.labels or tuple(dataset.labels())
    model = resolve(config.model, dataset.info, names)
    numbers = {name: number for number, name in enumerate(names)}
    train, held = _split(dataset, data.held_out)
    other = dataset
    if data.validation is not None:
        other = TokenDataset.open(data.validation)
        if difference := resolve(config.model, other.info, names).first_difference(model):
            name, value, expected = difference
            raise ValueError(
                f"{data.validation}: {name} {_show(value)}, not the {_show(expected)} of the training data"
            )
        held = np.arange(len(other))
    if model.classes:
        for part in (dataset, other):
            _check_labels(part, names)
    chosen = held[np.linspace(0, len(held) - 1, min(len(held), data.validation_clips)).round().astype(np.int64)]
    validation = SequenceDataset(other, chosen, model, numbers, shuffle=False) if len(chosen) else None
    shown, source = (chosen, other) if len(chosen) else (train, dataset)
    examples = tuple(source[int(place)] for place in _choose_examples(source, shown, config.samples))
    by_video = data.sampling == "videos"
    sequences = SequenceDataset(dataset, train, model, numbers, config.seed, by_video=by_video)
    return TokenData(sequences, validation, model, examples)


def resolve(partial: PartialGeneratorConfig, info: TokenDatasetInfo, labels: Sequence[str]) -> GeneratorConfig:
    """Complete the configuration of a generator with what follows from its token dataset.

    Args:
        partial: configuration of the run.
        info: metadata of the token dataset.
        labels: names of the classes.

    Raises:
        ValueError: the configuration contradicts the dataset.
    """
    frames = partial.condition == "frames" or (
        partial.condition is None and info.condition_frames > 0 and not partial.classes
    )
    if frames and not 0 < info.condition_frames < info.frames:
        raise ValueError(
            f"the token dataset has {info.condition_frames} condition frames of {info.frames}, expected at"
            " least 1; tokenize again with a condition, or train by class: --model.condition class"
        )
    if not frames and not labels:
        raise ValueError(
            "the token dataset has neither labels nor conditions; tokenize a folder with one subfolder per class, or"
            " with the first frames as the condition"
        )
    derived: dict[str, Any] = {
        "model": info.model,
        "model_hash": info.model_hash,
        "codebook_size": info.codebook_size,
        "levels": info.levels,
        "latents": info.latents,
        "blocks": info.blocks - (info.first_block if frames else 0),
        "first_block": info.first_block if frames else 0,
        "condition_ids": info.condition_ids if frames else 0,
        "classes": 0 if frames else len(labels),
    }
    given = {name: value for name in derived if (value := getattr(partial, name)) is not None}
    if any(given.get(name, derived[name]) != derived[name] for name in ("model", "model_hash")):
        raise ValueError(
            f"the token dataset was made by the model {info.model} with weights {info.model_hash[:8]}, the generator is"
            f" for {partial.model or info.model} with weights {(partial.model_hash or info.model_hash)[:8]};"
            " tokenize with that model, or leave model.model and model.model_hash out"
        )
    for name, value in given.items():
        if value != derived[name] and not (name == "levels" and value == ()):
            raise ValueError(
                f"model.{name} {_show(value)} does not fit the token dataset, which has {_show(derived[name])};"
                " leave it out, or tokenize again"
            )
    kept = partial.model_dump(exclude={"condition", *derived})
    condition = {
        "labels": () if frames else tuple(labels),
        "condition_frames": info.condition_frames if frames else 0,
    }
    return GeneratorConfig.parse({**kept, **derived, **given, **condition}, "generator configuration")


def _show(value: Any) -> str:
    return str(list(value) if isinstance(value, tuple) else value)


def _split(dataset: TokenDataset, fraction: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split clips into training and held-out ones by source video.

    The choice depends on hashes of the names, so that adding videos changes the split little.
    """
    everything = np.arange(len(dataset))
    if not fraction:
        return everything, everything[:0]
    sources = dataset.table["source"].to_pylist()
    names = sorted(set(sources), key=lambda name: hashlib.sha256(name.encode()).digest())
    count = math.ceil(fraction * len(names))
    if count == len(names):
        raise ValueError(f"data.held_out {fraction:g} holds out all {len(names)} source videos; lower it or add videos")
    held = np.isin(np.array(sources), names[:count])
    return everything[~held], everything[held]


def _check_labels(dataset: TokenDataset, names: Sequence[str]) -> None:
    unlabelled = dataset.table["label"].null_count
    if unlabelled:
        raise ValueError(
            f"{unlabelled} of {len(dataset)} clips of the token dataset have no label; tokenize files with labels"
        )
    unknown = [label for label in dataset.labels() if label not in names]
    if unknown:
        raise ValueError(
            f"unknown label {unknown[0]!r} in the token dataset, expected one of {', '.join(names)};"
            " add it to data.labels, or leave data.labels out"
        )


def _choose_examples(dataset: TokenDataset, clips: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Choose up to `count` clips, of as many classes as possible."""
    labels = dataset.table["label"].take(clips).to_pylist()
    turns: dict[str | None, int] = {}
    order = []
    for place, label in enumerate(labels):
        turns[label] = turns.get(label, -1) + 1
        order.append((turns[label], str(label), place))
    return clips[[place for _, _, place in sorted(order)[:count]]] if len(clips) else clips
