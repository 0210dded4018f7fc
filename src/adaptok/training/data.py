"""The clips of a run: opened, batched, and what was broken among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from adaptok.config.training import TrainingConfig
from adaptok.data.clips import ClipMixture, ClipSource, fixed_clips
from adaptok.data.images import ImageFolder
from adaptok.data.manifests import IMAGE_SUFFIXES, VIDEO_SUFFIXES, find_entries
from adaptok.data.synthetic.drawings import Drawings
from adaptok.data.videos import VideoFolder


@dataclass(frozen=True)
class Data:
    """Clips to train on, by index, and clips `[N, C, T, S, S]` to validate on.

    files: how many the clips come from, where they do: an epoch.
    broken: files that cannot be read, with the reason; others may turn out to be while clips are read.
    listed: how many files there are, broken ones included.
    """

    train: Dataset[Tensor]
    validation: Tensor | None
    files: int | None = None
    broken: Mapping[str, str] = field(default_factory=dict)
    listed: int = 0


class Batch(NamedTuple):
    """Clips `[B, C, T, S, S]`, and the files that their reader found broken since its last batch."""

    clips: Tensor
    broken: dict[str, str]


class Collate:
    """Makes batches of clips, in whatever process reads them."""

    def __init__(self, dataset: Dataset[Tensor]) -> None:
        self.dataset = dataset
        self._told: set[str] = set()

    def __call__(self, clips: list[Tensor]) -> Batch:
        worker = get_worker_info()
        dataset = self.dataset if worker is None else worker.dataset
        broken: dict[str, str] = getattr(dataset, "broken", {})
        new = {path: why for path, why in broken.items() if path not in self._told}
        self._told |= new.keys()
        return Batch(torch.stack(clips), new)


def open_data(config: TrainingConfig, advance: Callable[[int], None] | None = None) -> Data:
    """The clips that a configuration names.

    Args:
        advance: called with the number of files just opened.

    Raises:
        FileNotFoundError: a folder or list does not exist.
        ValueError: a folder holds nothing that can be read, or too many files are broken.
    """
    tokenizer, data = config.model.tokenizer, config.data
    if not data.train and data.drawn_fraction < 1:
        raise ValueError(
            "nothing to train on; name folders or lists of files with --data.train, or draw all"
            " clips with --data.drawn-fraction 1"
        )
    groups = [(entry,) for entry in data.train] if data.weights else [data.train] if data.train else []
    sources: list[ClipSource] = []
    weights: list[float] = []
    for group, weight in zip(groups, data.weights or [1.0] * len(groups), strict=True):
        videos = VideoFolder(group, data.root, advance) if _any(group, VIDEO_SUFFIXES, data.root) else None
        images = ImageFolder(group, data.root) if _any(group, IMAGE_SUFFIXES, data.root) else None
        if videos is None and images is None:
            raise ValueError(f"no video and no photograph in {', '.join(group)}")
        share = data.image_fraction if videos is not None else 1.0
        if videos is not None:
            sources.append(videos)
            weights.append(weight * (1 - share if images is not None else 1.0))
        if images is not None:
            sources.append(images)
            weights.append(weight * share)
    if data.drawn_fraction:
        total = sum(weights) or 1.0
        weights = [weight / total * (1 - data.drawn_fraction) for weight in weights]
        sources.append(Drawings())
        weights.append(data.drawn_fraction)
    broken = {path: why for source in sources for path, why in source.broken.items()}
    listed = sum(source.num_files for source in sources)
    check_broken(broken, listed, data.max_broken_fraction)
    train = ClipMixture(
        sources,
        weights,
        frames=tokenizer.frames,
        size=tokenizer.size,
        seed=config.seed,
        strides=data.strides,
        flip=data.flip,
        text_fraction=data.text_fraction,
        reversed_fraction=data.reversed_fraction,
        cut_fraction=data.cut_fraction,
        min_crop=data.min_crop,
        cache_bytes=int(data.cache_gib * 2**30),
    )
    validation = None
    if data.validation is not None:
        validation = fixed_clips(data.validation, frames=tokenizer.frames, size=tokenizer.size, per_video=1)
    return Data(train, validation, train.num_readable_files, broken, listed)


def check_broken(broken: Mapping[str, str], listed: int, most: float) -> None:
    """Raise ValueError where more than the share `most` of the `listed` files is broken."""
    if len(broken) > most * listed:
        raise ValueError(
            f"{len(broken)} of {listed} files cannot be read, more than data.max_broken_fraction {most:g} allows;"
            f" the first: {next(f'{path}: {why}' for path, why in broken.items())}"
        )


def _any(group: tuple[str, ...], suffixes: frozenset[str], root: str | None) -> bool:
    return next(find_entries(group, suffixes, root), None) is not None
