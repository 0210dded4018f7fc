"""Sampling of many clips at a time, each at its own position in its sequence.

A clip that is complete leaves its slot to the next one. Each clip has its own random numbers, and the arithmetic of a
decode step for a clip does not depend on the other clips, so a clip is the same in every batch. On a CPU it is the same
to the bit unless the step is compiled; see `ops/prepacked_linear.py` and `models/kv_cache.py`.

Rules of a sequence: the first entry is an id, a block of K ids is closed by an end-of-block token, later blocks may be
empty, and the sequence ends with the token of the last block. A budget and minimum and maximum lengths narrow them.

Legend: `B` clips, `R` of them at a time, `S` slots, `g` generated blocks, `G` blocks of a clip, `K` maximum number of
ids of a block, `V` vocabulary, `D` width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.config.generator import GeneratorConfig
from adaptok.generation.decode_step import Backend, DecodeStep, open_decode_step
from adaptok.models.generator import GeneratorModel
from adaptok.models.kv_cache import KVCache


class Samples(NamedTuple):
    """Generated clips.

    ids: int64 `[B, G, K]`, filled up with 0.
    lengths: int64 `[B, G]`.
    """

    ids: Tensor
    lengths: Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of the draw of entries.

    Args:
        temperature: divides the logits. 0 takes the most likely entry.
        top_k: draw from the k most likely entries only. None draws from all.
        top_p: draw from the most likely entries that together have this probability only (arXiv 1904.09751), after
            `top_k`. None draws from all.
        cfg_scale: scale of classifier-free guidance (arXiv 2207.12598): uncond + scale * (cond - uncond). 1 disables
            it.
        cfg_interval: entries `(first, stop)` of a sequence that are guided (after arXiv 2404.07724). None guides all.
        budget: maximum number of ids of a clip, over the generated blocks. None sets no limit.
        min_length: minimum number of ids of each generated block.
        max_length: maximum number of ids of each generated block. None is K.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    cfg_scale: float = 1.0
    cfg_interval: tuple[int, int] | None = None
    budget: int | None = None
    min_length: int = 0
    max_length: int | None = None

    @property
    def greedy(self) -> bool:
        """Whether the most likely entry is taken."""
        return self.temperature == 0 or self.top_k == 1

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance is used."""
        return self.cfg_scale != 1

    def check(self, config: GeneratorConfig) -> None:
        """Raise ValueError if a value is out of range or does not fit a generator."""
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
        longest = config.latents if self.max_length is None else self.max_length
        if not 0 <= self.min_length <= longest <= config.latents or longest < 1:
            raise ValueError(
                f"min_length {self.min_length} and max_length {longest}: expected 0 to {config.latents}, min_length <="
                " max_length"
            )
        needed = max(1, config.blocks * self.min_length)
        if self.budget is not None and self.budget < needed:
            raise ValueError(f"budget {self.budget} for {config.blocks} blocks, expected {needed} or more")

    def max_entries(self, config: GeneratorConfig) -> int:
        """Return the maximum number of entries of a sequence."""
        entries = config.max_entries
        if self.max_length is not None:
            entries = min(entries, config.blocks * (self.max_length + 1))
        if self.budget is not None:
            entries = min(entries, self.budget + config.blocks)
        return entries

    def is_guided_at(self, entry: int) -> bool:
        """Return whether an entry is guided, or an entry after it may be."""
        return self.guided and (self.cfg_interval is None or entry < self.cfg_interval[1])

    def scale_at(self, entry: int) -> float:
        """Return the scale of guidance at an entry before the end of the interval."""
        return self.cfg_scale if self.cfg_interval is None or entry >= self.cfg_interval[0] else 1.0


@dataclass
class _Clip:
    """A clip that is being generated."""

    index: int
    condition: Tensor
    randoms: NDArray[np.float64]
    sequence: list[int] = field(default_factory=list)
    length: int = 0  # of the present block
    closed: int = 0  # blocks
    ids: int = 0

    def may_end_block(self, settings: Sampling) -> bool:
        """Return whether the next entry may be an end-of-block token."""
        return self.length >= settings.min_length and len(self.sequence) > 0

    def must_end_block(self, settings: Sampling, config: GeneratorConfig) -> bool:
        """Return whether the next entry must be an end-of-block token."""
        longest = config.latents if settings.max_length is None else settings.max_length
        if settings.budget is not None:
            reserved = settings.min_length * (config.blocks - 1 - self.closed)  # for later blocks
            longest = min(longest, self.length + settings.budget - self.ids - reserved)
        return self.length >= longest

    def append(self, entry: int, config: GeneratorConfig) -> bool:
        """Add an entry, and return whether the clip is complete."""
        self.sequence.append(entry)
        if entry == config.eob:
            self.closed, self.length = self.closed + 1, 0
        else:
            self.length, self.ids = self.length + 1, self.ids + 1
        return self.closed == config.blocks


class SamplingStats(NamedTuple):
    """Counts of one sampling.

    steps: decode steps.
    entries: generated entries.
    slots: slots of all steps, in use or free.
    """

    steps: int
    entries: int
    slots: int


class Sampler:
    """Sampler of the sequences of clips.

    Args:
        model: generator in evaluation mode.
        settings: settings of the draw.
        batch_size: maximum number of clips at a time.
        compile: compile the decode step, and record it as CUDA graphs on a GPU, which takes up to a minute. True is the
            backend "inductor" of `torch.compile`.
        progress: called after every decode step with the number of tokens just drawn.

    Raises:
        ValueError: the settings do not fit the model, or the batch size is below 1.
    """

    def __init__(
        self,
        model: GeneratorModel,
        settings: Sampling,
        batch_size: int,
        *,
        compile: bool | Backend = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        settings.check(model.config)
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size}, expected 1 or more")
        self.model, self.settings, self.batch_size = model, settings, batch_size
        self.compile, self.progress = compile, progress
        self.stats = SamplingStats(0, 0, 0)
        self._slots = batch_size

    @torch.inference_mode()
    def sequences(self, conditions: Tensor, seeds: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Generate clips, and yield the index and the sequence of each one as it is completed.

        Args:
            conditions: conditions of the model `[B, …]`.
            seeds: seed of each clip, 0 or more.
        """
        self.model.check_condition(conditions)
        conditions = conditions.to(self.model.device)
        self._slots = min(self.batch_size, len(seeds)) if self.compile is False else self.batch_size
        slots = self._slots * (2 if self.settings.guided else 1)
        capacity = self.model.config.prefix + self.settings.max_entries(self.model.config) - 1
        with open_decode_step(self.model, slots, capacity, self.compile) as step:
            yield from self._generate(step, conditions, deque(enumerate(seeds)))

    def _generate(
        self, step: DecodeStep, conditions: Tensor, waiting: deque[tuple[int, int]]
    ) -> Iterator[tuple[int, list[int]]]:
        """Generate the clips that wait, which are pairs of an index and a seed."""
        config = self.model.config
        free = list(range(self._slots))[::-1]
        active: dict[int, _Clip] = {}  # by slot
        while waiting or active:
            new = []
            while waiting and free:
                index, seed = waiting.popleft()
                slot = free.pop()
                active[slot] = _Clip(index, conditions[index], np.random.default_rng(seed).random(config.max_entries))
                new.append(slot)
            self._prefill(step.cache, {slot: active[slot] for slot in new})
            clips = list(active.items())
            self.stats = SamplingStats(
                self.stats.steps + 1, self.stats.entries + len(clips), self.stats.slots + self._slots
            )
            for (slot, clip), entry in zip(clips, self._next_entries(step, clips), strict=True):
                if clip.append(entry, config):
                    del active[slot]
                    free.append(slot)
                    yield clip.index, clip.sequence
            if self.progress is not None:
                self.progress(len(clips))

    def _prefill(self, cache: KVCache, clips: dict[int, _Clip]) -> None:
        """Fill the cache with all rows of the conditions but the last, which is the input of the first step.

        Conditions are long, so clips are filled one at a time.
        """
        count = self.model.config.prefix - 1
        if not count:
            return
        positions = torch.arange(count, device=self.model.device)[None]
        for slot, clip in clips.items():
            cache.place([slot], positions)
            self.model.step(self.model.embed_condition(clip.condition[None])[:, :-1], positions, cache)

    def _next_entries(self, step: DecodeStep, active: Sequence[tuple[int, _Clip]]) -> list[int]:
        """Draw the next entry of each clip."""
        config, settings, device = self.model.config, self.settings, self.model.device
        clips = [clip for _, clip in active]
        logits = self._logits(step, active)
        forbidden = [index for index, clip in enumerate(clips) if not clip.may_end_block(settings)]
        if forbidden:
            logits[torch.tensor(forbidden, device=device), config.eob] = -torch.inf
        randoms = [clip.randoms[len(clip.sequence)] for clip in clips]
        entries = draw(logits, torch.tensor(randoms, dtype=torch.float64, device=device), settings)
        drawn = entries.masked_fill(logits.isnan().any(-1), -1).tolist()
        if -1 in drawn:
            raise FloatingPointError(
                f"the generator {config.name!r} computes values that are not numbers; choose --dtype float32, or give a"
                " generator whose weights are undamaged"
            )
        forced = [clip.must_end_block(settings, config) for clip in clips]
        return [config.eob if end else entry for end, entry in zip(forced, drawn, strict=True)]

    def _logits(self, step: DecodeStep, active: Sequence[tuple[int, _Clip]]) -> Tensor:
        """Compute the logits `[R, V]` of the next entries, with guidance. The unconditional twin of the clip in slot i
        is in slot S + i."""
        clips, device = [clip for _, clip in active], self.model.device
        guided = [index for index, clip in enumerate(clips) if self.settings.is_guided_at(len(clip.sequence))]
        twins = [clips[index] for index in guided]
        slots = [slot for slot, _ in active] + [active[index][0] + self._slots for index in guided]
        x = torch.cat([self._embed(clips), self._embed(twins, unconditional=True)]) if twins else self._embed(clips)
        positions = [self.model.config.prefix - 1 + len(clip.sequence) for clip in [*clips, *twins]]
        logits = step(slots, x, torch.tensor(positions, device=device))
        if twins:
            logits, unconditional = logits[: len(clips)], logits[len(clips) :]
            scale = torch.tensor([[self.settings.scale_at(len(clip.sequence))] for clip in twins], device=device)
            logits[guided] = unconditional + scale * (logits[guided] - unconditional)
        return logits

    def _embed(self, clips: Sequence[_Clip], unconditional: bool = False) -> Tensor:
        """Embed the newest entry of each clip `[R, D]`. For a new clip, it is the last row of the condition."""
        config, device = self.model.config, self.model.device
        separator = config.separator if config.condition_ids else 0
        newest = torch.tensor([clip.sequence[-1] if clip.sequence else separator for clip in clips], device=device)
        x: Tensor = self.model.tokens(newest)
        if config.classes and not all(clip.sequence for clip in clips):
            first = [index for index, clip in enumerate(clips) if not clip.sequence]
            classes = torch.tensor([config.classes if unconditional else int(clips[i].condition) for i in first])
            x[first] = self.model.embed_condition(classes.to(device))[:, 0]
        return x


def draw(logits: Tensor, randoms: Tensor, settings: Sampling) -> Tensor:
    """Draw one entry per row, as int64 `[R]`.

    Args:
        logits: `[R, V]`.
        randoms: float64 `[R]` in [0, 1). The entry is the first at which the cumulative probability exceeds it.
        settings: settings of the draw.
    """
    if settings.greedy:
        return logits.argmax(-1)
    scaled = logits / settings.temperature
    entries = None
    if settings.top_k is not None or settings.top_p is not None:
        count = min(settings.top_k or logits.shape[-1], logits.shape[-1])
        scaled, entries = scaled.topk(count, dim=-1)  # in order of falling probability
    probabilities = scaled.double().softmax(-1)
    if settings.top_p is not None:
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= settings.top_p, 0)  # never that of the most likely entry
    sums = probabilities.cumsum(-1)
    total = sums[:, -1:].contiguous()
    index = torch.searchsorted(sums, randoms[:, None] * total, right=True)
    index = torch.minimum(index, torch.searchsorted(sums, total))  # rounding must not lead past the last possible entry
    return (index if entries is None else entries.gather(-1, index))[:, 0]


def draw_seeds(count: int, seeds: Sequence[int] | None, generator: torch.Generator | None) -> list[int]:
    """Draw the seeds of clips from a random state, or check those given.

    Raises:
        ValueError: a seed is negative, or there is not one for each clip.
    """
    if seeds is None:
        base = int(torch.randint(2**62, (), generator=generator))
        return [int(np.random.SeedSequence((base, index)).generate_state(1, np.uint64)[0]) for index in range(count)]
    if len(seeds) != count or min(seeds) < 0:
        raise ValueError(f"{len(seeds)} seeds for {count} clips, expected one each, none negative")
    return [int(seed) for seed in seeds]


def clip_seed(seed: int, index: int) -> int:
    """Return the seed of the clip with this index, which does not depend on how many clips or processes there are."""
    return int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0])
