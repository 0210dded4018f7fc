"""A generator's step over the rows that are being written: plain, or compiled and on a GPU recorded as CUDA graphs.

A step of a few rows launches hundreds of small kernels, which takes longer than they do; a recorded one is launched
at once. For that, shapes and addresses must stay: all places take part in every step, with anything in those that are
free, and they keep one memory.

Legend: `P` places, `R` of them that are taken, `D` width, `V` vocabulary.
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
"""Of `torch.compile`."""


class Step(Protocol):
    """What a sampler asks."""

    @property
    def memory(self) -> KVCache:
        """Of its rows."""

    def __call__(self, rows: Sequence[int], x: Tensor, positions: Tensor) -> Tensor:
        """Logits `[R, V]` after entries `x [R, D]` of these rows, at `positions [R]`."""


class PlainStep:
    """The rows that are taken, and no others."""

    def __init__(self, model: GeneratorModel, places: int, capacity: int) -> None:
        c = model.config
        self.model = model
        self.memory = build_kv_cache(c.depth, c.heads, c.width // c.heads, places, capacity, model.positions)

    def __call__(self, rows: Sequence[int], x: Tensor, positions: Tensor) -> Tensor:
        """See `Step`."""
        self.memory.place(rows, positions[:, None])
        return self.model.logits(self.model.step(x[:, None], positions[:, None], self.memory))


class CompiledStep:
    """The step of a model over the rows of its own memory.

    Args:
        places: P, rows of the memory.
        capacity: most entries of a row.
        backend: of `torch.compile`.
    """

    def __init__(self, model: GeneratorModel, places: int, capacity: int, backend: Backend = "inductor") -> None:
        c, like = model.config, model.positions
        self.model, self.places, self.capacity, self.backend = model, places, capacity, backend
        self.memory = DenseKVCache(c.depth, c.heads, c.width // c.heads, places, capacity, like, fixed=True)
        memory = self.memory

        def step(x: Tensor, positions: Tensor) -> Tensor:
            return model.logits(model.step(x, positions, memory))

        step.__code__ = step.__code__.replace()  # what is compiled is kept, and limited in number, by this object
        graphs = like.device.type == "cuda" and backend == "inductor"
        self._step = torch.compile(step, dynamic=False, backend=backend, mode="reduce-overhead" if graphs else None)

    def fits(self, model: GeneratorModel, places: int, capacity: int) -> bool:
        """Whether this is the step of a model as it is now, over such a memory."""
        held, like = self.memory.keys[0], model.positions
        return (
            self.model is model
            and (self.places, self.capacity) == (places, capacity)
            and (held.device, held.dtype) == (like.device, like.dtype)
        )

    def __call__(self, rows: Sequence[int], x: Tensor, positions: Tensor) -> Tensor:
        """See `Step`."""
        taken = torch.tensor(rows, device=x.device)
        everyone = x.new_zeros(self.places, x.shape[-1]).index_copy(0, taken, x)
        at = positions.new_zeros(self.places).index_copy(0, taken, positions)[:, None]
        self.memory.place(range(self.places), at)
        torch.compiler.cudagraph_mark_step_begin()
        return self._step(everyone[:, None], at)[taken]


@contextmanager
def open_step(
    model: GeneratorModel, places: int, capacity: int, compile: bool | Backend = False
) -> Iterator[PlainStep | CompiledStep]:
    """A step for the time of a sampling.

    The last compiled one is kept with the model, since compiling takes up to a minute; while it is in use, others make
    their own.

    Args:
        capacity: most entries of a row.
        compile: True is the backend "inductor".
    """
    if compile is False:
        yield PlainStep(model, places, capacity)
        return
    backend = "inductor" if compile is True else compile
    kept, model.compiled = model.compiled, None
    if not isinstance(kept, CompiledStep) or not kept.fits(model, places, capacity) or kept.backend != backend:
        kept = None  # its memory, before there is another
        kept = CompiledStep(model, places, capacity, backend)
    try:
        yield kept
    finally:
        model.compiled = kept
