"""A generator's step, compiled, and on a GPU recorded as CUDA graphs.

A step of a few rows launches hundreds of small kernels, which takes longer than they do; a recorded one is launched
at once. For that, shapes and addresses must stay: all places take part in every step, with anything in those that are
free, and they keep one memory.

Legend: `P` places, `R` of them that are taken, `D` width, `V` vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from adaptok.models.generator import GeneratorModel
from adaptok.models.memory import DenseMemory

Backend = str | Callable[..., Any]


class CompiledStep:
    """The step of a model over the rows of its own memory.

    Args:
        places: P, rows of the memory.
        capacity: most entries of a row.
        backend: of `torch.compile`.
    """

    def __init__(self, model: GeneratorModel, places: int, capacity: int, backend: Backend = "inductor") -> None:
        c, like = model.config, model.positions
        self.places, self.capacity, self.backend = places, capacity, backend
        self.memory = DenseMemory(c.depth, c.heads, c.width // c.heads, places, capacity, like)
        self.memory.keep_addresses()

        def step(x: Tensor, positions: Tensor) -> Tensor:
            return model.logits(model.step(x, positions, self.memory))

        options: dict[str, Any] = {"dynamic": False, "backend": backend}
        if "isolate_recompiles" in inspect.signature(torch.compile).parameters:
            options["isolate_recompiles"] = True  # another batch size does not use up the shapes that this one may have
        if like.device.type == "cuda" and backend == "inductor":
            options["mode"] = "reduce-overhead"
        self._step = torch.compile(step, **options)

    def __call__(self, rows: Sequence[int], x: Tensor, positions: Tensor) -> Tensor:
        """Logits `[R, V]` after entries `x [R, D]` of these rows, at `positions [R]`."""
        taken = torch.tensor(rows, device=x.device)
        everyone = x.new_zeros(self.places, x.shape[-1]).index_copy(0, taken, x)
        at = positions.new_zeros(self.places).index_copy(0, taken, positions)[:, None]
        self.memory.place(range(self.places), at)
        torch.compiler.cudagraph_mark_step_begin()
        return self._step(everyone[:, None], at)[taken]


def compiled_step(model: GeneratorModel, places: int, capacity: int, backend: Backend | None = None) -> CompiledStep:
    """The compiled step of a model; the last one is kept with it, since compiling takes up to a minute.

    Args:
        backend: of `torch.compile`; the kept one's, or "inductor", if None.
    """
    kept = model.compiled
    wanted = (places, capacity, backend or (kept.backend if kept else "inductor"))
    if not isinstance(kept, CompiledStep) or (kept.places, kept.capacity, kept.backend) != wanted:
        model.compiled = None  # its memory, before there is another
        model.compiled = kept = CompiledStep(model, *wanted)
    return kept
