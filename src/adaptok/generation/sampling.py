"""Sampling: many clips at a time, each at its own place in its row.

A clip that is finished leaves, and the next one takes its place. Every clip has its own random numbers, and a step's
arithmetic for a row does not depend on the rows beside it (on a CPU to the bit, unless it is compiled, see
`models/reordered.py` and `models/memory.py`), so a clip is the same in any company.

The rules of a row: the first entry is an id; a block of K ids is closed by a mark; later blocks may be empty; the row
ends with the mark of the last block. A budget and a least and most length of a block narrow them.

Legend: `B` clips, `R` of them at a time, `g` blocks that are written, `G` of a clip, `K` latents, `V` vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.config.generator import GeneratorConfig
from adaptok.generation.decode_step import Backend, Step, open_step
from adaptok.models.generator import GeneratorModel
from adaptok.models.kv_cache import KVCache


class Samples(NamedTuple):
    """Sampled clips. ids: int64 `[B, G, K]`, 0 where a block has none; lengths: int64 `[B, G]`."""

    ids: Tensor
    lengths: Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How entries are drawn.

    Args:
        temperature: divides the logits; 0 takes the most likely entry.
        top_k: only the k most likely entries; 1 takes the most likely one; None all.
        top_p: only the most likely entries that together have this probability (arXiv 1904.09751), after `top_k`.
        cfg_scale: classifier-free guidance (arXiv 2207.12598): logits = uncond + scale * (cond - uncond); 1 is none.
        cfg_interval: entries of a row, `(first, stop)`, that are guided; None all (after arXiv 2404.07724).
        budget: most ids of a clip, over the blocks that are written; None as many as they may have.
        least, most: ids of each block that is written; most is K if None.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    cfg_scale: float = 1.0
    cfg_interval: tuple[int, int] | None = None
    budget: int | None = None
    least: int = 0
    most: int | None = None

    @property
    def greedy(self) -> bool:
        return self.temperature == 0 or self.top_k == 1

    @property
    def guided(self) -> bool:
        return self.cfg_scale != 1

    def check(self, config: GeneratorConfig) -> None:
        """Raise ValueError that names a value that is out of its range, or does not fit a generator."""
        if not (np.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature {self.temperature!r}, expected 0 or more")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k {self.top_k!r}, expected 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p!r}, expected a probability above 0, at most 1")
        if not np.isfinite(self.cfg_scale):
            raise ValueError(f"cfg_scale {self.cfg_scale!r}, expected a finite number")
        if self.guided and not config.classes:
            raise ValueError(f"cfg_scale {self.cfg_scale:g} needs a generator of classes, this one predicts frames")
        if self.cfg_interval is not None and not 0 <= self.cfg_interval[0] <= self.cfg_interval[1]:
            raise ValueError(f"cfg_interval {self.cfg_interval!r}, expected (first, stop) entries, first <= stop")
        most = config.latents if self.most is None else self.most
        if not 0 <= self.least <= most <= config.latents or most < 1:
            raise ValueError(f"least {self.least} and most {self.most}: expected 0 to {config.latents}, least <= most")
        needed = max(1, config.blocks * self.least)
        if self.budget is not None and self.budget < needed:
            raise ValueError(f"budget {self.budget} for {config.blocks} blocks, expected {needed} or more")


@dataclass
class _Clip:
    """A clip that is being written."""

    index: int
    condition: Tensor
    randoms: NDArray[np.float64]
    row: list[int] = field(default_factory=list)
    length: int = 0  # of the present block
    closed: int = 0  # blocks
    spent: int = 0  # ids

    def end_allowed(self, settings: Sampling) -> bool:
        """Whether the next entry may be a mark."""
        return self.length >= settings.least and len(self.row) > 0

    def end_forced(self, settings: Sampling, config: GeneratorConfig) -> bool:
        """Whether it must be one."""
        room = config.latents if settings.most is None else settings.most
        if settings.budget is not None:  # what later blocks need at least is theirs
            reserved = settings.least * (config.blocks - 1 - self.closed)
            room = min(room, self.length + settings.budget - self.spent - reserved)
        return self.length >= room

    def write(self, entry: int, config: GeneratorConfig) -> bool:
        """Add an entry; gives whether the clip is finished."""
        self.row.append(entry)
        if entry == config.eob:
            self.closed, self.length = self.closed + 1, 0
        else:
            self.length, self.spent = self.length + 1, self.spent + 1
        return self.closed == config.blocks


class Work(NamedTuple):
    """What sampling did. steps: of the layers; entries: that were kept, over all steps; places: for them."""

    steps: int
    entries: int
    places: int


class Sampler:
    """Writes the rows of some clips.

    Args:
        model: in evaluation mode.
        settings: checked against it.
        batch_size: most clips at a time.
        compile: compile a step, and record it as CUDA graphs on a GPU: the first clips wait for that, up to a minute.
            A backend of `torch.compile`, or True for "inductor".
    """

    def __init__(
        self, model: GeneratorModel, settings: Sampling, batch_size: int, *, compile: bool | Backend = False
    ) -> None:
        settings.check(model.config)
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size}, expected 1 or more")
        self.model, self.settings, self.batch_size = model, settings, batch_size
        self.compile = compile
        self.work = Work(0, 0, 0)
        self._places = batch_size

    @torch.inference_mode()
    def rows(self, conditions: Tensor, seeds: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """The index and row of each clip, as they are finished.

        Args:
            conditions: `[B, …]` of the model.
            seeds: of each clip; not negative.
        """
        self.model.check_condition(conditions)
        conditions = conditions.to(self.model.device)
        places = self._places = min(self.batch_size, len(seeds)) if self.compile is False else self.batch_size
        rows = places * (2 if self.settings.guided else 1)
        with open_step(self.model, rows, self._capacity(), self.compile) as step:
            yield from self._write(step, conditions, deque(enumerate(seeds)))

    def _write(
        self, step: Step, conditions: Tensor, waiting: deque[tuple[int, int]]
    ) -> Iterator[tuple[int, list[int]]]:
        """The clips of some conditions, by index, with their seeds."""
        config = self.model.config
        free = list(range(self._places))[::-1]
        active: dict[int, _Clip] = {}  # by place
        while waiting or active:
            started = []
            while waiting and free:
                index, seed = waiting.popleft()
                place = free.pop()
                randoms = np.random.default_rng(seed).random(config.max_entries)
                active[place] = _Clip(index, conditions[index], randoms)
                started.append(place)
            self._begin(step.memory, {place: active[place] for place in started})
            taken = list(active.items())
            self.work = Work(self.work.steps + 1, self.work.entries + len(taken), self.work.places + self._places)
            entries = self._step(step, taken)
            for (place, clip), entry in zip(taken, entries, strict=True):
                if clip.write(entry, config):
                    del active[place]
                    free.append(place)
                    yield clip.index, clip.row

    def _capacity(self) -> int:
        """Most entries of a row that are remembered."""
        config = self.model.config
        longest = config.max_entries
        if self.settings.most is not None:
            longest = min(longest, config.blocks * (self.settings.most + 1))
        if self.settings.budget is not None:
            longest = min(longest, self.settings.budget + config.blocks)
        return config.prefix + longest - 1

    def _begin(self, memory: KVCache, clips: dict[int, _Clip]) -> None:
        """All rows of conditions but the last, which is the first step's entry. One clip at a time: they are long."""
        count = self.model.config.prefix - 1
        if not count:
            return
        positions = torch.arange(count, device=self.model.device)[None]
        for place, clip in clips.items():
            memory.place([place], positions)
            self.model.step(self.model.embed_condition(clip.condition[None])[:, :-1], positions, memory)

    def _step(self, step: Step, taken: Sequence[tuple[int, _Clip]]) -> list[int]:
        """The next entry of each clip."""
        config, settings, device = self.model.config, self.settings, self.model.device
        clips = [clip for _, clip in taken]
        guided = [index for index, clip in enumerate(clips) if self._has_pair(clip)]
        pairs = [clips[index] for index in guided]  # the same clips once more, without their class
        rows = [place for place, _ in taken] + [taken[index][0] + self._places for index in guided]
        x = torch.cat([self._embed(clips), self._embed(pairs, unconditional=True)]) if pairs else self._embed(clips)
        at = [config.prefix - 1 + len(clip.row) for clip in [*clips, *pairs]]
        logits = step(rows, x, torch.tensor(at, device=device))
        if pairs:
            logits, without = logits[: len(clips)], logits[len(clips) :]
            scale = torch.tensor([[self._scale(clip)] for clip in pairs], device=device)
            logits[guided] = without + scale * (logits[guided] - without)
        forbidden = [index for index, clip in enumerate(clips) if not clip.end_allowed(settings)]
        logits[forbidden, config.eob] = -torch.inf
        randoms = torch.tensor([clip.randoms[len(clip.row)] for clip in clips], dtype=torch.float64, device=device)
        drawn = draw(logits, randoms, settings).tolist()
        forced = [clip.end_forced(settings, config) for clip in clips]
        return [config.eob if end else entry for end, entry in zip(forced, drawn, strict=True)]

    def _has_pair(self, clip: _Clip) -> bool:
        """Whether a clip is written with guidance, now or later; after its interval the second row is left out."""
        interval = self.settings.cfg_interval
        return self.settings.guided and (interval is None or len(clip.row) < interval[1])

    def _scale(self, clip: _Clip) -> float:
        """Of guidance, at a clip's next entry."""
        interval = self.settings.cfg_interval
        return self.settings.cfg_scale if interval is None or len(clip.row) >= interval[0] else 1.0

    def _embed(self, clips: Sequence[_Clip], unconditional: bool = False) -> Tensor:
        """The newest entry of each row `[R, D]`: of one that begins, the last row of the condition."""
        config, device = self.model.config, self.model.device
        separator = config.separator if config.condition_ids else 0
        newest = torch.tensor([clip.row[-1] if clip.row else separator for clip in clips], device=device)
        x: Tensor = self.model.tokens(newest)
        if config.classes and not all(clip.row for clip in clips):
            first = [index for index, clip in enumerate(clips) if not clip.row]
            classes = torch.tensor([config.classes if unconditional else int(clips[i].condition) for i in first])
            x[first] = self.model.embed_condition(classes.to(device))[:, 0]
        return x


def draw(logits: Tensor, randoms: Tensor, settings: Sampling) -> Tensor:
    """One entry of each row `[R]` from logits `[R, V]`.

    Args:
        randoms: float64 `[R]` in [0, 1): an entry is the first at which the summed probabilities exceed it.
    """
    if settings.greedy:
        return logits.argmax(-1)
    scaled = logits / settings.temperature
    entries = None
    if settings.top_k is not None or settings.top_p is not None:
        count = min(settings.top_k or logits.shape[-1], logits.shape[-1])
        scaled, entries = scaled.topk(count, dim=-1)  # the most likely first
    probabilities = scaled.double().softmax(-1)
    if settings.top_p is not None:
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= settings.top_p, 0)  # never the first
    sums = probabilities.cumsum(-1)
    total = sums[:, -1:].contiguous()
    place = torch.searchsorted(sums, randoms[:, None] * total, right=True)
    place = torch.minimum(place, torch.searchsorted(sums, total))  # rounding may not lead past the last that has any
    return (place if entries is None else entries.gather(-1, place))[:, 0]
