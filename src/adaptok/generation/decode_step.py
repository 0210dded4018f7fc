"""One decode step of a generator for all clips of a running batch, plain or compiled.

A step of a few clips launches hundreds of small kernels, and launching them takes longer than running them. On a GPU, a
compiled step is recorded as CUDA graphs, which launch them at once. That needs fixed shapes and addresses: every slot
takes part in every step, whatever a free one holds, and all steps share one cache.

Legend: `S` slots of the batch, `R` slots in use, `D` width, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from adaptok.models.generator import GeneratorModel
from adaptok.models.kv_cache import DenseKVCache, KVCache, build_kv_cache

Backend = str | Callable[..., Any]
"""Backend of `torch.compile`."""


class DecodeStep(Protocol):
    """Interface of a decode step to the sampler."""

    @property
    def cache(self) -> KVCache:
        """Keys and values of the entries so far."""

    def __call__(self, slots: Sequence[int], x: Tensor, positions: Tensor) -> Tensor:
        """Compute the logits `[R, V]` after the embedded entries `x [R, D]` of these slots, at `positions [R]`."""


class PlainStep:
    """Decode step over the slots in use.

    Args:
        model: generator in evaluation mode.
        slots: S.
        capacity: maximum number of entries of a clip in the cache.
    """

    def __init__(self, model: GeneratorModel, slots: int, capacity: int) -> None:
        c = model.config
        self.model = model
        self.cache = build_kv_cache(c.depth, c.heads, c.width // c.heads, slots, capacity, model.positions)

    def __call__(self, slots: Sequence[int], x: Tensor, positions: Tensor) -> Tensor:
        """See `DecodeStep`."""
        self.cache.place(slots, positions[:, None])
        return self.model.logits(self.model.step(x[:, None], positions[:, None], self.cache))


class CompiledStep:
    """Compiled decode step over all slots, with a cache of its own.

    Args:
        model: generator in evaluation mode.
        slots: S.
        capacity: maximum number of entries of a clip in the cache.
        backend: backend of `torch.compile`.
    """

    def __init__(self, model: GeneratorModel, slots: int, capacity: int, backend: Backend = "inductor") -> None:
        c, like = model.config, model.positions
        self.model, self.slots, self.capacity, self.backend = model, slots, capacity, backend
        self.cache = DenseKVCache(c.depth, c.heads, c.width // c.heads, slots, capacity, like, fixed=True)
        cache = self.cache

        def step(x: Tensor, positions: Tensor) -> Tensor:
            return model.logits(model.step(x, positions, cache))

        # torch.compile keeps its results, and limits their number, per code object: give this step one of its own
        step.__code__ = step.__code__.replace()
        graphs = like.device.type == "cuda" and backend == "inductor"
        self._step = torch.compile(step, dynamic=False, backend=backend, mode="reduce-overhead" if graphs else None)

    def fits(self, model: GeneratorModel, slots: int, capacity: int, backend: Backend) -> bool:
        """Return whether this step serves a model, on its present device and in its present type."""
        keys, like = self.cache.keys[0], model.positions
        return (
            self.model is model
            and (self.slots, self.capacity, self.backend) == (slots, capacity, backend)
            and (keys.device, keys.dtype) == (like.device, like.dtype)
        )

    def __call__(self, slots: Sequence[int], x: Tensor, positions: Tensor) -> Tensor:
        """See `DecodeStep`."""
        used = torch.tensor(slots, device=x.device)
        x = x.new_zeros(self.slots, x.shape[-1]).index_copy(0, used, x)  # [S, D]
        positions = positions.new_zeros(self.slots).index_copy(0, used, positions)[:, None]
        self.cache.place(range(self.slots), positions)
        torch.compiler.cudagraph_mark_step_begin()
        return self._step(x[:, None], positions)[used]


@contextmanager
def open_decode_step(
    model: GeneratorModel, slots: int, capacity: int, compile: bool | Backend = False
) -> Iterator[PlainStep | CompiledStep]:
    """Provide a decode step for one sampling.

    Compilation takes up to a minute, so the last compiled step is kept with the model. While it is in use, other
    samplings compile their own.

    Args:
        model: generator in evaluation mode.
        slots: S.
        capacity: maximum number of entries of a clip in the cache.
        compile: whether to compile the step, or a backend of `torch.compile`. True is "inductor".
    """
    if compile is False:
        yield PlainStep(model, slots, capacity)
        return
    backend = "inductor" if compile is True else compile
    step, model.compiled = model.compiled, None
    if not isinstance(step, CompiledStep) or not step.fits(model, slots, capacity, backend):
        step = None  # free its cache before the next one is allocated
        step = CompiledStep(model, slots, capacity, backend)
    try:
        yield step
    finally:
        model.compiled = step
