"""How much of a batch is processed at a time."""

from __future__ import annotations

from torch import Tensor


def clips_at_once(clips: Tensor) -> list[slice]:
    """Return which clips of a batch are best processed in one call: on a CPU each alone, so that it stays in the cache,
    and on other devices all."""
    return [slice(n, n + 1) for n in range(len(clips))] if clips.device.type == "cpu" else [slice(None)]
