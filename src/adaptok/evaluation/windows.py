"""Windows of a collection: the clips that generated and predicted videos are compared with."""

from __future__ import annotations

import random
from pathlib import Path

from adaptok.data.manifests import VIDEO_SUFFIXES, find_entries
from adaptok.data.statistics import collect_statistics
from adaptok.evaluation.plan import PlannedVideo, collection_root, plan_video

WINDOW_SEED = 42
"""Seed of the published draw."""


def draw_windows(
    data: Path, count: int, *, frames: int = 16, root: Path | None = None, seed: int = WINDOW_SEED
) -> tuple[PlannedVideo, ...]:
    """Draw windows without replacement from all non-overlapping windows of a collection.

    Windows are listed in the order of the collection, and drawn by `random.Random(seed).sample`, as in the published
    protocol. Videos that cannot be read have no windows. An index ("adaptok data index") saves opening every video.

    Args:
        data: folder of videos, or a list of them.
        count: number of windows.
        frames: frames of a window.
        root: folder that relative paths of a list refer to.
        seed: seed of the draw.

    Raises:
        FileNotFoundError: the folder or list does not exist.
        ValueError: there are fewer windows.
    """
    start = collection_root(data, root)
    entries = collect_statistics(find_entries(data, VIDEO_SUFFIXES, root))
    windows = [
        (entry, first)
        for entry in entries
        if entry.error is None and entry.frames is not None
        for first in range(0, entry.frames - frames + 1, frames)
    ]
    if len(windows) < count:
        raise ValueError(
            f"{data}: {len(windows)} windows of {frames} frames in {len(entries)} videos, the protocol takes {count};"
            f" give --count {len(windows)} for a figure that does not compare with others"
        )
    drawn = random.Random(seed).sample(windows, count)
    return tuple(plan_video(entry.path, start, entry.label, start=first) for entry, first in drawn)
