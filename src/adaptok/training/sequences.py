"""Token clips as the sequences that a generator learns.

A sequence is the condition of a clip, followed by the kept ids of each generated block, each block closed by the
end-of-block token. The model reads all of it but the last entry, and predicts every entry after the condition.

Legend: `B` clips, `N` packed positions that are read, `M` entries that are predicted, `n` entries of one sequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from adaptok.config.generator import GeneratorConfig
from adaptok.data.token_datasets import TokenClip, TokenDataset
from adaptok.generation.sequences import join_blocks


class TokenSequence(NamedTuple):
    """A clip as a generator learns it."""

    draw: int
    """Number of the draw, which determines the step that it belongs to."""
    entries: NDArray[np.int64]
    """int64 `[n]`, ids and end-of-block tokens."""
    condition: NDArray[np.int64]
    """int64, a class `[]`, or ids `[condition_ids]`."""


@dataclass(frozen=True)
class PackedSequences:
    """Sequences of several clips, concatenated."""

    ids: Tensor
    """int64 `[N]`, inputs: ids, end-of-block tokens and separators, and 0 at the position of a class."""
    positions: Tensor
    """int64 `[N]`, position of each input within its clip."""
    lengths: tuple[int, ...]
    """Number of inputs of each clip."""
    class_positions: Tensor | None
    """int64 `[B]`, indices of the classes among the inputs. None if the condition is frames."""
    classes: Tensor | None
    """int64 `[B]`, classes at these positions. None if the condition is frames."""
    predict_at: Tensor | None
    """int64 `[M]`, indices of the inputs after which an entry is predicted. None if that is all of them."""
    targets: Tensor
    """int64 `[M]`, the entries to predict."""
    weight: float = 1.0
    """Number of entries of this batch, relative to the mean over the batches of its step."""

    def to(self, device: torch.device, non_blocking: bool = False) -> PackedSequences:
        """Move all tensors to a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PackedSequences:
        """Copy all tensors to page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Any) -> PackedSequences:
        values = {name: function(value) if isinstance(value, Tensor) else value for name, value in vars(self).items()}
        return PackedSequences(**values)


class TokenBatch(NamedTuple):
    """Packed sequences in place of clips. Token datasets have no broken files."""

    clips: PackedSequences
    broken: dict[str, str]


def sequence_entries(clip: TokenClip, config: GeneratorConfig) -> NDArray[np.int64]:
    """Return the sequence int64 `[n]` of the generated blocks of a clip."""
    skipped = int(np.sum(clip.lengths[: config.first_block]))
    return join_blocks(clip.ids[skipped:], clip.lengths[config.first_block :], config.eob)


def condition_of(clip: TokenClip, config: GeneratorConfig, labels: Mapping[str, int]) -> NDArray[np.int64]:
    """Return the class `[]` of a clip, or the ids of its first frames `[condition_ids]`."""
    if config.condition_ids:
        assert clip.condition is not None
        return clip.condition.astype(np.int64)
    assert clip.label is not None
    return np.array(labels[clip.label])


def pack(sequences: Sequence[TokenSequence], config: GeneratorConfig, weight: float = 1.0) -> PackedSequences:
    """Concatenate sequences, without the last entry of each."""
    prefix = config.prefix
    heads = [
        np.append(sequence.condition, config.separator) if config.condition_ids else np.zeros(1, np.int64)
        for sequence in sequences
    ]
    lengths = [prefix + len(sequence.entries) - 1 for sequence in sequences]
    starts = np.cumsum([0, *lengths[:-1]])
    inputs = [part for head, one in zip(heads, sequences, strict=True) for part in (head, one.entries[:-1])]
    positions = np.concatenate([np.arange(length) for length in lengths])
    by_class = config.classes > 0
    classes = np.array([int(sequence.condition) for sequence in sequences]) if by_class else None
    return PackedSequences(
        ids=torch.from_numpy(np.concatenate(inputs)),
        positions=torch.from_numpy(positions),
        lengths=tuple(lengths),
        class_positions=torch.from_numpy(starts) if by_class else None,
        classes=None if classes is None else torch.from_numpy(classes),
        predict_at=None if prefix == 1 else torch.from_numpy(np.flatnonzero(positions >= prefix - 1)),
        targets=torch.from_numpy(np.concatenate([sequence.entries for sequence in sequences])),
        weight=weight,
    )


class SequenceDataset(Dataset[TokenSequence]):
    """Sequences of some clips of a token dataset.

    Item `index` is a function of the seed and the index alone. Each epoch visits every clip once or, with
    `by_video`, every source video with one of its clips, in an order of its own.

    Args:
        dataset: the token dataset.
        clips: int64, indices of the clips to use.
        config: configuration of the generator.
        labels: class numbers by name.
        seed: seed of the order and of the dropped classes.
        shuffle: without it, item `index` is the clip `clips[index]`, and no class is dropped.
        by_video: whether an epoch has one random clip of each video. Needs `shuffle`.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        clips: NDArray[np.int64],
        config: GeneratorConfig,
        labels: Mapping[str, int],
        seed: int = 0,
        shuffle: bool = True,
        by_video: bool = False,
    ) -> None:
        assert shuffle or not by_video
        self.dataset, self.clips, self.config, self.labels = dataset, clips, config, labels
        self.seed, self.shuffle = seed, shuffle
        lengths = dataset.table["lengths"].combine_chunks().flatten().to_numpy().reshape(-1, dataset.info.blocks)
        self._entries = lengths[:, config.first_block :].astype(np.int64).sum(1) + config.blocks
        self._order: tuple[int, NDArray[np.int64]] = (-1, clips)
        self._videos = _clips_by_video(dataset, clips) if by_video else None

    def __len__(self) -> int:
        """Number of sequences per epoch: one for each clip or each video."""
        return len(self.clips if self._videos is None else self._videos)

    def __getitem__(self, index: int) -> TokenSequence:
        clip = self.dataset[self.clip_index(index)]
        condition = condition_of(clip, self.config, self.labels)
        if self.shuffle and self.config.classes and self._drops_class(index):
            condition = np.array(self.config.classes)
        return TokenSequence(index, sequence_entries(clip, self.config), condition)

    def _drops_class(self, index: int) -> bool:
        return bool(np.random.default_rng([self.seed, index]).random() < self.config.class_dropout)

    def clip_index(self, index: int) -> int:
        """Return the index in the token dataset of the clip that sequence `index` is made from."""
        epoch, place = divmod(index, len(self))
        if not self.shuffle:
            return int(self.clips[place])
        if self._order[0] != epoch:
            self._order = epoch, self._draw_order(np.random.default_rng([self.seed, epoch]))
        return int(self._order[1][place])

    def _draw_order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw the order of an epoch."""
        if self._videos is None:
            return rng.permutation(self.clips)
        return rng.permutation(np.array([clips[rng.integers(len(clips))] for clips in self._videos]))

    def count_entries(self, start: int, stop: int) -> int:
        """Count the entries of the sequences `start … stop - 1`."""
        return sum(int(self._entries[self.clip_index(index)]) for index in range(start, stop))


def _clips_by_video(dataset: TokenDataset, clips: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Divide clips by their source video."""
    sources = dataset.table["source"].take(clips).combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.argsort(sources, kind="stable")
    return np.split(clips[order], np.flatnonzero(np.diff(sources[order])) + 1)


class PackCollate:
    """Pack micro-batches, each weighted by its number of entries, so that the loss of a step is the mean over entries.

    Args:
        sequences: dataset of the sequences.
        batch_size: sequences per step, over all processes.
        micro_batch_size: sequences per micro-batch.
    """

    def __init__(self, sequences: SequenceDataset, batch_size: int, micro_batch_size: int) -> None:
        self.sequences, self.batch_size, self.micro_batch_size = sequences, batch_size, micro_batch_size

    def __call__(self, sequences: list[TokenSequence]) -> TokenBatch:
        weight = 1.0
        if self.batch_size > self.micro_batch_size:
            first = sequences[0].draw // self.batch_size * self.batch_size
            total = self.sequences.count_entries(first, first + self.batch_size)
            entries = sum(len(sequence.entries) for sequence in sequences)
            weight = entries * (self.batch_size / self.micro_batch_size) / total
        return TokenBatch(pack(sequences, self.sequences.config, weight), {})
