"""The clips of a generator's run: token datasets, opened, turned into rows, and packed.

A clip's row is its condition and then the kept ids of each written block, each block followed by the end mark. A model
reads all of a row but the last entry, and is asked for every entry after the condition.

Legend: `B` clips, `N` rows that are read, `M` entries that are asked for, `G` blocks of a clip, `K` latents of a block.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from adaptok.config.generator import GeneratorConfig
from adaptok.config.training import GeneratorTrainingConfig, PartialGeneratorConfig
from adaptok.data.token_datasets import TokenClip, TokenDataset, TokenDatasetInfo

_NOT_GIVEN = "nothing to train on; name token datasets, which 'adaptok tokenize' writes, with --data.train"


class Row(NamedTuple):
    """A clip as a generator learns it.

    number: of the draw; its step follows from it.
    entries: int64 `[n]`, ids and end marks.
    condition: int64, a class `[]`, or ids `[condition_ids]`.
    """

    number: int
    entries: NDArray[np.int64]
    condition: NDArray[np.int64]


@dataclass(frozen=True)
class PackedRows:
    """Rows of some clips, one after the other.

    ids: int64 `[N]`, what is read: ids, end marks and separators; 0 where a class stands.
    positions: int64 `[N]`, the place of each in its clip.
    lengths: how many rows of each clip are read.
    places, classes: int64 `[B]`, where the classes stand, and which; None where first frames are the condition.
    asked: int64 `[M]`, rows after which an entry is asked for; None where that is all of them.
    targets: int64 `[M]`, these entries.
    weight: entries of this batch as a multiple of the mean over the batches of its step.
    """

    ids: Tensor
    positions: Tensor
    lengths: tuple[int, ...]
    places: Tensor | None
    classes: Tensor | None
    asked: Tensor | None
    targets: Tensor
    weight: float = 1.0

    def to(self, device: torch.device, non_blocking: bool = False) -> PackedRows:
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PackedRows:
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Any) -> PackedRows:
        values = {name: change(value) if isinstance(value, Tensor) else value for name, value in vars(self).items()}
        return PackedRows(**values)


def row_entries(clip: TokenClip, config: GeneratorConfig) -> NDArray[np.int64]:
    """int64 `[n]`: the kept ids of each written block, and the end mark after each."""
    parts = np.split(clip.ids.astype(np.int64), np.cumsum(clip.lengths)[:-1])
    mark = np.array([config.eob])
    return np.concatenate([piece for part in parts[config.first_block :] for piece in (part, mark)])


def pack(rows: Sequence[Row], config: GeneratorConfig, weight: float = 1.0) -> PackedRows:
    """Rows one after the other, without the last entry of each."""
    prefix = config.prefix
    heads = [
        np.append(row.condition, config.separator) if config.condition_ids else np.zeros(1, np.int64) for row in rows
    ]
    lengths = [prefix + len(row.entries) - 1 for row in rows]
    starts = np.cumsum([0, *lengths[:-1]])
    ids = np.concatenate([part for head, row in zip(heads, rows, strict=True) for part in (head, row.entries[:-1])])
    positions = np.concatenate([np.arange(length) for length in lengths])
    by_class = config.classes > 0
    return PackedRows(
        torch.from_numpy(ids),
        torch.from_numpy(positions),
        tuple(lengths),
        torch.from_numpy(starts) if by_class else None,
        torch.from_numpy(np.array([int(row.condition) for row in rows])) if by_class else None,
        None if prefix == 1 else torch.from_numpy(np.flatnonzero(positions >= prefix - 1)),
        torch.from_numpy(np.concatenate([row.entries for row in rows])),
        weight,
    )


class Rows(Dataset[Row]):
    """Rows of some clips of a dataset. Row `index` is a function of the seed and the index: every epoch goes through
    all clips once, in an order of its own.

    Args:
        clips: which clips.
        shuffle: without it, row `index` is of the clip `index`, and nothing is dropped.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        clips: NDArray[np.int64],
        config: GeneratorConfig,
        labels: Mapping[str, int],
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        self.dataset, self.clips, self.config, self.labels = dataset, clips, config, labels
        self.seed, self.shuffle = seed, shuffle
        lengths = dataset.table["lengths"].combine_chunks().flatten().to_numpy().reshape(-1, dataset.info.blocks)
        self._entries = lengths[:, config.first_block :].astype(np.int64).sum(1) + config.blocks
        self._order: tuple[int, NDArray[np.int64]] = (-1, clips)

    def __len__(self) -> int:
        """Clips, which is rows of an epoch."""
        return len(self.clips)

    def __getitem__(self, index: int) -> Row:
        clip = self.dataset[self.place(index)]
        condition = condition_of(clip, self.config, self.labels)
        if self.shuffle and self.config.classes and self._draws_none(index):
            condition = np.array(self.config.classes)
        return Row(index, row_entries(clip, self.config), condition)

    def _draws_none(self, index: int) -> bool:
        return bool(np.random.default_rng([self.seed, index]).random() < self.config.class_dropout)

    def place(self, index: int) -> int:
        """Which clip of the dataset row `index` is of."""
        epoch, place = divmod(index, len(self.clips))
        if not self.shuffle:
            return int(self.clips[place])
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.clips)
        return int(self._order[1][place])

    def count(self, start: int, stop: int) -> int:
        """Entries of the rows `start … stop`."""
        return sum(int(self._entries[self.place(index)]) for index in range(start, stop))


def condition_of(clip: TokenClip, config: GeneratorConfig, labels: Mapping[str, int]) -> NDArray[np.int64]:
    """A clip's class `[]`, or the ids of its first frames `[condition_ids]`."""
    if config.condition_ids:
        assert clip.condition is not None
        return clip.condition.astype(np.int64)
    assert clip.label is not None
    return np.array(labels[clip.label])


class TokenBatch(NamedTuple):
    """Rows, in the place of clips, and no broken files."""

    clips: PackedRows
    broken: dict[str, str]


class PackRows:
    """Packs batches, and weighs each by its share of the entries of its step: the loss is the mean over these.

    Args:
        per_step: rows of a step, over all processes.
        batch: rows of a batch.
    """

    def __init__(self, rows: Rows, per_step: int, batch: int) -> None:
        self.rows, self.per_step, self.batch = rows, per_step, batch

    def __call__(self, rows: list[Row]) -> TokenBatch:
        weight = 1.0
        if self.per_step > self.batch:
            first = rows[0].number // self.per_step * self.per_step
            total = self.rows.count(first, first + self.per_step)
            weight = sum(len(row.entries) for row in rows) * (self.per_step / self.batch) / total
        return TokenBatch(pack(rows, self.rows.config, weight), {})


@dataclass(frozen=True)
class TokenData:
    """Rows to train and to validate on, and the generator that fits them.

    validation: None where no clips are held out.
    examples: clips whose conditions samples are drawn for.
    """

    train: Rows
    validation: Rows | None
    config: GeneratorConfig
    examples: tuple[TokenClip, ...]
    broken: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> int:
        """Rows of an epoch."""
        return len(self.train)

    @property
    def listed(self) -> int:
        return len(self.train)


def open_token_data(config: GeneratorTrainingConfig) -> TokenData:
    """The rows that a configuration names.

    Raises:
        FileNotFoundError: a dataset does not exist.
        ValueError: datasets are empty, do not fit the generator or each other, or have labels that are not known.
    """
    data = config.data
    if not data.train:
        raise ValueError(_NOT_GIVEN)
    dataset = TokenDataset.open(data.train)
    names = data.labels or tuple(dataset.labels())
    model = resolve(config.model, dataset.info, names)
    numbers = {name: number for number, name in enumerate(names)}
    train, held = _split(dataset, data.held_out)
    other = dataset
    if data.validation is not None:
        other = TokenDataset.open(data.validation)
        if (found := resolve(config.model, other.info, names)) != model:
            raise ValueError(f"{data.validation}: {_first_difference(found, model)} of the training data")
        held = np.arange(len(other))
    if model.classes:
        for part in (dataset, other):
            _check_labels(part, names)
    chosen = held[np.linspace(0, len(held) - 1, min(len(held), data.validation_clips)).round().astype(np.int64)]
    validation = Rows(other, chosen, model, numbers, shuffle=False) if len(chosen) else None
    shown, source = (chosen, other) if len(chosen) else (train, dataset)
    examples = tuple(source[int(place)] for place in _spread(source, shown, config.samples))
    return TokenData(Rows(dataset, train, model, numbers, config.seed), validation, model, examples)


def resolve(plan: PartialGeneratorConfig, info: TokenDatasetInfo, labels: Sequence[str]) -> GeneratorConfig:
    """The whole configuration of a generator, from what a run says and what its token dataset is.

    Args:
        labels: names of the classes.

    Raises:
        ValueError: they contradict each other.
    """
    frames = plan.condition == "frames" or (plan.condition is None and info.condition_frames > 0 and not plan.classes)
    if frames and not 0 < info.condition_frames < info.frames:
        raise ValueError(
            f"the token dataset has {info.condition_frames} condition frames of {info.frames}: no condition to predict"
            " from; tokenize again with one, or train by class: --model.condition class"
        )
    if not frames and not labels:
        raise ValueError(
            "the token dataset has neither labels nor conditions; tokenize a folder with a folder for each class, or"
            " with first frames as the condition"
        )
    follows: dict[str, Any] = {
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
    given = {name: value for name in follows if (value := getattr(plan, name)) is not None}
    if any(given.get(name, follows[name]) != follows[name] for name in ("model", "model_hash")):
        raise ValueError(
            f"the token dataset is of the model {info.model} with weights {info.model_hash[:8]}, the generator of"
            f" {plan.model or info.model} with weights {(plan.model_hash or info.model_hash)[:8]};"
            " tokenize with that model, or train a generator of its own"
        )
    for name, value in given.items():
        if value != follows[name] and not (name == "levels" and value == ()):
            raise ValueError(
                f"model.{name} {_show(value)} does not fit the token dataset, which has {_show(follows[name])};"
                " leave it out, or tokenize again"
            )
    kept = plan.model_dump(exclude={"condition", *follows})
    return GeneratorConfig.parse(
        {**kept, **follows, **given, "labels": () if frames else tuple(labels)}, "the generator of the run"
    )


def _show(value: Any) -> str:
    return str(list(value) if isinstance(value, tuple) else value)


def _first_difference(one: GeneratorConfig, other: GeneratorConfig) -> str:
    a, b = one.model_dump(), other.model_dump()
    name = next(name for name in a if a[name] != b[name])
    return f"{name} {_show(a[name])}, not the {_show(b[name])}"


def _split(dataset: TokenDataset, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Clips to train on, and clips that are held out: those of a share of the videos. Which ones is up to their names,
    so that videos that come later change little."""
    everything = np.arange(len(dataset))
    if not share:
        return everything, everything[:0]
    sources = dataset.table["source"].to_pylist()
    names = sorted(set(sources), key=lambda name: hashlib.sha256(name.encode()).digest())
    count = math.ceil(share * len(names))
    if count == len(names):
        raise ValueError(f"data.held_out {share:g} of {len(names)} source videos leaves none to train on")
    held = np.isin(np.array(sources), names[:count])
    return everything[~held], everything[held]


def _check_labels(dataset: TokenDataset, names: Sequence[str]) -> None:
    unlabelled = dataset.table["label"].null_count
    if unlabelled:
        raise ValueError(f"{unlabelled} of {len(dataset)} clips of the token dataset have no label, expected one each")
    unknown = [label for label in dataset.labels() if label not in names]
    if unknown:
        raise ValueError(
            f"unknown label {unknown[0]!r} in the token dataset, expected one of {', '.join(names)};"
            " add it to data.labels, or leave them out"
        )


def _spread(dataset: TokenDataset, clips: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Some of the clips, of as many classes as there are."""
    labels = dataset.table["label"].take(clips).to_pylist()
    turns: dict[str | None, int] = {}
    order = []
    for place, label in enumerate(labels):
        turns[label] = turns.get(label, -1) + 1
        order.append((turns[label], str(label), place))
    return clips[[place for _, _, place in sorted(order)[:count]]] if len(clips) else clips
